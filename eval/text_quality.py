"""Texts that help nobody to find their product: empty, too short, boilerplate, shared, or about something else."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_EXAMPLES = 12
MIN_WORDS = 3
BOILERPLATE_SHARE, MIN_BOILERPLATE = 0.01, 10
"""A sentence of so many different products' texts, and of at least so many, is not about any of them."""
WORD = re.compile(r"\w+")
SENTENCE = re.compile(r"[.!?;|\n\r]+")
MARKUP = re.compile(r"<[a-zA-Z/][^>]{0,200}>|&(?:[a-zA-Z]{2,10}|#\d{1,6});")
CODE = re.compile(r"\b(?=\w*\d)(?=\w*[A-Za-z])[\w-]{5,}\b")
LENGTHS = ((0, "no words"), (2, "1 to 2 words"), (5, "3 to 5 words"), (10, "6 to 10 words"), (20, "11 to 20 words"),
           (50, "21 to 50 words"))  # fmt: skip
LONGEST = "more than 50 words"
CONTRADICTS = 0.01
"""A picture that is more similar to 99 % of other products' texts than to its own contradicts it."""
SCRIPTS = (
    "LATIN",
    "CYRILLIC",
    "GREEK",
    "ARABIC",
    "HEBREW",
    "CJK",
    "HIRAGANA",
    "KATAKANA",
    "HANGUL",
    "THAI",
    "DEVANAGARI",
)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Products whose texts have one kind of fault."""

    kind: str
    meaning: str
    num_products: int
    rows: list[int]
    """The first MAX_EXAMPLES of them."""


def suspicious_texts(
    texts: Sequence[str], rows: NDArray[np.int64], groups: NDArray[np.int64], percentiles: NDArray[np.float64] | None
) -> list[Suspicion]:
    """Return every kind of fault with how many products have it.

    Args:
        texts: N texts, empty where there is none.
        rows: int64 [N], their products, for the examples.
        groups: int64 [N]; products of one group may share a text.
        percentiles: float64 [N] from alignment.pair_percentiles, NaN where there is no picture; None without pictures.
    """
    words = [len(WORD.findall(text)) for text in texts]
    found = {
        ("empty", "no word at all"): [n == 0 for n in words],
        ("short", f"fewer than {MIN_WORDS} words"): [0 < n < MIN_WORDS for n in words],
        ("boilerplate", "half of the words or more stand in a sentence that many products share"): is_boilerplate(
            texts
        ),
        ("shared", "the same text as a product of another group"): is_shared(texts, groups),
        ("markup", "tags or entities of HTML"): [bool(MARKUP.search(text)) for text in texts],
        ("codes", "half of the words or more are article numbers and the like"): [
            is_mostly_codes(text) for text in texts
        ],
        ("shouting", "all letters are capitals"): [
            n >= MIN_WORDS and text.isupper() for n, text in zip(words, texts, strict=True)
        ],
    }
    suspicions = [_suspicion(*name, np.array(values, bool), rows) for name, values in found.items()]
    if percentiles is not None:
        known = np.nan_to_num(percentiles, nan=1.0)
        order = np.argsort(known, kind="stable")
        order = order[known[order] < CONTRADICTS]
        meaning = "the picture is more similar to 99 % of other products' texts: likely a wrong picture or a wrong text"
        suspicions.append(Suspicion("contradicts", meaning, len(order), rows[order[:MAX_EXAMPLES]].tolist()))
    return suspicions


def is_boilerplate(texts: Sequence[str]) -> list[bool]:
    """Return which texts consist, by half of their words or more, of sentences that many different texts have."""
    sentences = [list(dict.fromkeys(_sentences(text))) for text in texts]
    distinct = dict(zip(texts, sentences, strict=True))
    counts = Counter(sentence for own in distinct.values() for sentence in own)
    least = max(BOILERPLATE_SHARE * len(distinct), MIN_BOILERPLATE)
    shared = {sentence for sentence, count in counts.items() if count >= least}
    results = []
    for own in sentences:
        length = sum(len(sentence.split()) for sentence in own)
        results.append(length > 0 and 2 * sum(len(s.split()) for s in own if s in shared) >= length)
    return results


def is_shared(texts: Sequence[str], groups: NDArray[np.int64]) -> list[bool]:
    """Return which texts, but for case and spaces, a product of another group has too."""
    owners: dict[str, set[int]] = defaultdict(set)
    keys = [normalized(text) for text in texts]
    for key, group in zip(keys, groups.tolist(), strict=True):
        if key and len(owners[key]) < 2:
            owners[key].add(group)
    return [bool(key) and len(owners[key]) > 1 for key in keys]


def is_mostly_codes(text: str) -> bool:
    """Return whether half of a text's words or more mix letters and digits as article numbers do."""
    words = WORD.findall(text)
    return bool(words) and 2 * len(CODE.findall(text)) >= len(words)


def normalized(text: str) -> str:
    """Return a text in which case, width and spaces do not matter."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def length_label(text: str) -> str:
    """Return how long a text is, in words."""
    length = len(WORD.findall(text))
    return next((name for most, name in LENGTHS if length <= most), LONGEST)


def script_of(text: str) -> str:
    """Return the script of most of a text's letters, such as `Latin`; `none` without letters.

    Source: names of the Unicode character database.
    """
    counts: Counter[str] = Counter()
    for letter, count in Counter(text[:2000]).items():
        if letter.isalpha():
            name = unicodedata.name(letter, "").replace("FULLWIDTH ", "").replace("HALFWIDTH ", "")
            counts[next((script for script in SCRIPTS if name.startswith(script)), "other")] += count
    if not counts:
        return "none"
    most = max(counts, key=lambda script: (counts[script], script))
    return most if most in ("CJK", "other") else most.capitalize()


def _sentences(text: str) -> Iterable[str]:
    for sentence in SENTENCE.split(text):
        key = normalized(sentence)
        if len(key.split()) >= MIN_WORDS:
            yield key


def _suspicion(kind: str, meaning: str, is_found: NDArray[np.bool_], rows: NDArray[np.int64]) -> Suspicion:
    return Suspicion(kind, meaning, int(is_found.sum()), rows[is_found][:MAX_EXAMPLES].tolist())
