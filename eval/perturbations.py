"""Disturbed texts: how much of the quality is left when people and shops write less well than the catalogue does.

A disturbance depends on the seed, its kind, its amount and the text alone, so neither the order nor the number of the
texts changes it. An amount is the share of the words that it touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from product_retrieval.training.noise import in_markup, with_code, with_typos

Disturb = Callable[[str, float, Random, Sequence[str]], str]
"""Takes the text, an amount above 0 and up to 1, a source of choices, and words of the shop's categories."""

STOP_WORDS = ("the", "a", "of", "and", "for", "with", "in", "to", "is", "very", "this", "my")
BOILERPLATE = (
    "Free shipping on all orders.", "Best price guaranteed!", "100 % original, new in box.",
    "Please read the description before you buy.", "Visit our shop for more offers.", "30 days return.",
)  # fmt: skip
OTHER_LANGUAGES = (
    "[DE] {} - versandkostenfrei, neu und originalverpackt", "[FR] {} - livraison gratuite, neuf dans sa boîte",
    "[ES] {} - envío gratis, nuevo en su caja", "[PL] {} - darmowa wysyłka, nowy w pudełku",
    "[RU] {} - бесплатная доставка, новый в коробке", "[JA] {} - 送料無料 新品",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One kind of noise."""

    name: str
    meaning: str
    amounts: tuple[float, ...]
    """That are measured."""
    disturb: Disturb


def disturbed(
    texts: Sequence[str], kind: Disturbance, amount: float, *, categories: Sequence[str], seed: int
) -> list[str]:
    """Return disturbed texts.

    Args:
        texts: N texts.
        kind: of the noise.
        amount: from 0, which changes nothing, to 1.
        categories: words of the shop's categories; empty where it has none.
        seed: of the choices.
    """
    if amount <= 0:
        return list(texts)
    return [kind.disturb(text, amount, Random(f"{seed}|{kind.name}|{amount}|{text}"), categories) for text in texts]


def _typos(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    return with_typos(text, rng, num_typos=_num_touched(text.split(), amount))


def _dropped(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    gone = set(rng.sample(range(len(words)), min(_num_touched(words, amount), max(len(words) - 1, 0))))
    return " ".join(word for place, word in enumerate(words) if place not in gone)


def _shuffled(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    places = rng.sample(range(len(words)), min(max(_num_touched(words, amount), 2), len(words)))
    moved = dict(zip(places, places[1:] + places[:1], strict=True))  # a cycle, so that every one moves
    return " ".join(words[moved.get(place, place)] for place in range(len(words)))


def _truncated(text: str, amount: float, _rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    return " ".join(words[: max(len(words) - _num_touched(words, amount), 1)])


def _upper(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    loud = set(rng.sample(range(len(words)), _num_touched(words, amount)))
    return " ".join(word.upper() if place in loud else word for place, word in enumerate(words))


def _stop_words(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    for _ in range(_num_touched(words, amount)):
        words.insert(rng.randint(0, len(words)), rng.choice(STOP_WORDS))
    return " ".join(words)


def _wrong_category(text: str, amount: float, rng: Random, categories: Sequence[str]) -> str:
    others = [name for name in categories if name.casefold() not in text.casefold()]
    if not others or rng.random() >= amount:
        return text
    return f"{rng.choice(others)} {text}"


def _boilerplate(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    words = text.split()
    added: list[str] = []
    while len(" ".join(added).split()) < _num_touched(words, amount):
        added.append(rng.choice(BOILERPLATE))
    front = with_code(in_markup(text, rng), rng)
    return " ".join([front, *added])


def _other_language(text: str, amount: float, rng: Random, _categories: Sequence[str]) -> str:
    return rng.choice(OTHER_LANGUAGES).format(text) if rng.random() < amount else text


def _num_touched(words: Sequence[str], amount: float) -> int:
    """Return how many of some words an amount touches: at least one, where there is one."""
    return min(max(round(amount * len(words)), 1), len(words))


DISTURBANCES = (
    Disturbance("typos", "letters swapped, lost, doubled or hit beside, in some words", (0.1, 0.2, 0.4), _typos),
    Disturbance("dropped words", "a share of the words is missing", (0.2, 0.4, 0.6), _dropped),
    Disturbance("shuffled words", "a share of the words stands elsewhere", (0.5, 1.0), _shuffled),
    Disturbance("cut end", "the text ends early by a share of its words", (0.25, 0.5, 0.75), _truncated),
    Disturbance("capitals", "a share of the words is in capitals", (0.5, 1.0), _upper),
    Disturbance("filler words", "little words in between, as a share of the words", (0.25, 0.5), _stop_words),
    Disturbance("wrong category", "in a share of the texts, the name of another category", (0.5, 1.0), _wrong_category),
    Disturbance(
        "mark-up and boilerplate", "left-over HTML, codes and slogans, as a share", (0.25, 0.5, 1.0), _boilerplate
    ),
    Disturbance(
        "other language", "in a share of the texts, words of another language around it", (0.5, 1.0), _other_language
    ),
)
