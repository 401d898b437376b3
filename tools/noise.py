"""What goes wrong in a shop's titles, one function a kind, each a pure function of the title and a random generator.

Deliberately apart from the damage that training does to captions: a model must not be judged by the very damage
that it was trained with.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

Kind = Literal["typo", "no_color", "wrong_color", "capitals", "html", "code", "truncated", "other_language"]
KINDS: tuple[Kind, ...] = get_args(Kind)
COLORS = (
    "red", "navy blue", "green", "yellow", "black", "white", "brown", "teal", "pink", "purple", "orange", "grey",
)  # fmt: skip
"""The colour words of the shop."""
KEYBOARD_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
LETTERS_PER_TYPO = 12
MIN_KEPT_SHARE, MAX_KEPT_SHARE = 0.45, 0.8
MIN_TRUNCATABLE = 6
SHOUTS = ("NEW &amp; boxed", "sale &ndash; 20&nbsp;%", "free shipping &gt; 50 &euro;", "top&nbsp;quality")
CODE_LETTERS = "ABCDEFGHJKLMNPRSTVWXZ"


def apply(kind: Kind, title: str, *, color: str | None, names: Sequence[tuple[str, str]], rng: Random) -> str:
    """Return the title with one kind of noise.

    Args:
        kind: what goes wrong.
        title: a clean title such as `Navy blue double bed, 140 x 200 cm`.
        color: the colour that the title begins with, or None.
        names: (language, name) of the product; `other_language` needs one that is not English.
        rng: source of every choice.

    Returns:
        A title that differs from the clean one.

    Raises:
        ValueError: the kind cannot happen to this title, see `possible_kinds`.
    """
    if kind not in possible_kinds(title, color=color, names=names):
        raise ValueError(f"noise {kind!r} cannot happen to {title!r} with colour {color!r}; see possible_kinds()")
    match kind:
        case "typo":
            return _with_typos(title, rng)
        case "no_color":
            return _capitalized(_after_color(title, color or ""))
        case "wrong_color":
            other = rng.choice([word for word in COLORS if word != color])
            return _capitalized(f"{other} {_after_color(title, color or '')}")
        case "capitals":
            return title.upper()
        case "html":
            return _with_markup(title, rng)
        case "code":
            return _with_code(title, rng)
        case "truncated":
            kept = rng.uniform(MIN_KEPT_SHARE, MAX_KEPT_SHARE)
            return title[: max(4, int(len(title) * kept))].rstrip(" ,")
        case "other_language":
            return _capitalized(rng.choice(_translations(title, names)))


def possible_kinds(title: str, *, color: str | None, names: Sequence[tuple[str, str]]) -> tuple[Kind, ...]:
    """Return the kinds of noise that change this title."""
    has_color = color is not None and title.lower().startswith(f"{color} ")
    possible = {
        "typo": sum(letter.isalpha() for letter in title) >= 3,
        "no_color": has_color,
        "wrong_color": has_color,
        "capitals": title != title.upper(),
        "html": True,
        "code": True,
        "truncated": len(title) >= MIN_TRUNCATABLE,
        "other_language": bool(_translations(title, names)),
    }
    return tuple(kind for kind in KINDS if possible[kind])


def _after_color(title: str, color: str) -> str:
    return title[len(color) + 1 :]


def _capitalized(title: str) -> str:
    return title[:1].upper() + title[1:]


def _translations(title: str, names: Sequence[tuple[str, str]]) -> list[str]:
    """Return the names in other languages that are not just the title or a part of it."""
    return [name for language, name in names if language != "en" and name and name.lower() not in title.lower()]


def _with_typos(title: str, rng: Random) -> str:
    """Make about one typing error in a dozen letters, at least one and at different places."""
    places = [at for at in range(1, len(title)) if title[at].isalpha() and title[at - 1].isalpha()]
    places = places or [at for at, letter in enumerate(title) if letter.isalpha()]
    num_typos = max(1, min(round(len(places) / LETTERS_PER_TYPO), 3, len(places)))
    typed = list(title)
    for at in sorted(rng.sample(places, num_typos), reverse=True):
        _mistype(typed, at, rng)
    changed = "".join(typed)
    return changed if changed != title else title + title[-1]


def _mistype(letters: list[str], at: int, rng: Random) -> None:
    mistake = rng.choice(("lost", "doubled", "swapped", "beside"))
    if mistake == "lost":
        del letters[at]
    elif mistake == "doubled":
        letters.insert(at, letters[at].lower())
    elif mistake == "swapped" and at > 0 and letters[at - 1] != letters[at]:
        letters[at - 1], letters[at] = letters[at], letters[at - 1]
    else:
        letters[at] = _key_beside(letters[at], rng)


def _key_beside(letter: str, rng: Random) -> str:
    for row in KEYBOARD_ROWS:
        at = row.find(letter.lower())
        if at >= 0:
            return rng.choice([row[near] for near in (at - 1, at + 1) if 0 <= near < len(row)])
    return "e" if letter != "e" else "a"


def _with_markup(title: str, rng: Random) -> str:
    """Wrap a title in tags and entities, as an export from another shop leaves them."""
    escaped = html.escape(title).replace(" ", "&nbsp;", 1)
    tag = rng.choice(("b", "h1", "span", "p"))
    attribute = rng.choice(("", ' class="title"', ' style="color:#333"'))
    tail = f" &ndash; {rng.choice(SHOUTS)}" if rng.random() < 0.5 else ""
    return f"<{tag}{attribute}>{escaped}</{tag}>{tail}"


def _with_code(title: str, rng: Random) -> str:
    """Put an article number before or after a title."""
    letters = "".join(rng.choice(CODE_LETTERS) for _ in range(2))
    number = "".join(rng.choice("0123456789") for _ in range(5))
    code = rng.choice(
        (f"SKU-{number}", f"Art. {letters}{number}", f"{letters}-{number[:3]}/{number[3:]}", f"#{number}")
    )
    return f"{code} {title}" if rng.random() < 0.5 else f"{title} {code}"
