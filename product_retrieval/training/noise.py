"""Damage that real shops and people do to a text: typing errors, capitals, mark-up, codes, cut ends.

Every function takes the text and a generator and returns the damaged text; equal generators give equal damage.
The meaning stays: a wrong colour is no noise here, because the text would then describe another product.
"""

from __future__ import annotations

from random import Random

KEYBOARD_NEIGHBOURS = {
    "a": "qws", "b": "vgn", "c": "xdv", "d": "sfe", "e": "wrd", "f": "dgr", "g": "fht", "h": "gjy", "i": "uok",
    "j": "hku", "k": "jli", "l": "kop", "m": "nj", "n": "bmh", "o": "ipl", "p": "ol", "q": "wa", "r": "etf",
    "s": "adw", "t": "ryg", "u": "yij", "v": "cbf", "w": "qes", "x": "zcs", "y": "tuh", "z": "xa",
}  # fmt: skip
MARKUP = ("<b>{}</b>", "<p>{}</p>", "&lt;b&gt;{}&lt;/b&gt;", "{}<br/>", '<span class="title">{}</span>', "{}&nbsp;")
SHOP_WORDS = ("NEW", "SALE", "best price", "free shipping", "top quality", "100% original", "!!!", "hot deal", "-20%")


def with_typos(text: str, rng: Random, *, num_typos: int) -> str:
    """Make typing errors: two letters swapped, one lost, doubled, or hit beside.

    Args:
        text: the clean text; below two letters it is returned unchanged.
        rng: source of the choices.
        num_typos: errors to make, each at a letter of its own choice.

    Returns:
        The text with the errors; its length differs by at most `num_typos`.
    """
    letters = list(text)
    for _ in range(num_typos):
        places = [at for at, letter in enumerate(letters) if letter.isalpha()]
        if len(places) < 2:
            break
        at = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0 and at + 1 < len(letters):
            letters[at], letters[at + 1] = letters[at + 1], letters[at]
        elif kind == 1:
            del letters[at]
        elif kind == 2:
            letters.insert(at, letters[at])
        else:
            letters[at] = rng.choice(KEYBOARD_NEIGHBOURS.get(letters[at].lower(), "aeiou"))
    return "".join(letters)


def in_markup(text: str, rng: Random) -> str:
    """Wrap the text in left-over HTML."""
    return rng.choice(MARKUP).format(text)


def with_code(text: str, rng: Random) -> str:
    """Put an article number, and sometimes a shop's shouting, before or after the text."""
    digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(3, 7)))
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTUVWX") for _ in range(rng.randint(0, 3)))
    code = rng.choice(("{}-{}", "{}{}", "SKU {}{}", "Art. {}{}", "#{}{}")).format(letters, digits).strip("-")
    pieces = [text, code]
    if rng.random() < 0.4:
        pieces.append(rng.choice(SHOP_WORDS))
    rng.shuffle(pieces)
    return " ".join(pieces)


def truncated(text: str, rng: Random) -> str:
    """Cut the end off, leaving at least 60 % and four characters."""
    shortest = max(4, int(0.6 * len(text)))
    return text if shortest >= len(text) else text[: rng.randint(shortest, len(text) - 1)]


def damaged(text: str, rng: Random) -> str:
    """Apply one kind of damage, typing errors being the most frequent."""
    kind = rng.random()
    if kind < 0.55:
        return with_typos(text, rng, num_typos=rng.choice((1, 1, 2, 2)))
    if kind < 0.65:
        return text.upper()
    if kind < 0.75:
        return in_markup(text, rng)
    if kind < 0.88:
        return with_code(text, rng)
    return truncated(text, rng)
