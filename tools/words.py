"""List English names of things, with and without a colour, and what dictionaries say of them.

    python -m tools.words --output out/words.txt

A text tower that reads these learns words that no picture of the training set shows. Reads the nouns of WordNet 3.0,
which Debian's `wordnet-base` carries. Writes one text a line, each once, in a fixed order.
Source: Fellbaum (ed.), WordNet: An Electronic Lexical Database, 1998; file format: wndb(5).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

NOUNS = Path("/usr/share/wordnet/data.noun")
THINGS = {
    "05": "animal",
    "06": "artifact",
    "08": "body",
    "13": "food",
    "17": "object",
    "20": "plant",
    "25": "shape",
    "27": "substance",
}
"""Lexicographer files of what a shop may show, by number."""
GOODS = ("06", "13")
"""Lexicographer files that most of a shop's products come from; these are listed with colours more often."""
COLORS = (
    "beige", "black", "blue", "brass", "brown", "charcoal", "chrome", "copper", "cream", "crimson", "dark blue",
    "dark brown", "dark green", "dark red", "gold", "golden", "gray", "green", "grey", "ivory", "lavender",
    "light blue", "light green", "light grey", "lime", "magenta", "maroon", "mint green", "multicolored",
    "mustard yellow", "navy blue", "oak", "olive green", "orange", "pale pink", "pink", "purple", "red", "rose",
    "salmon", "silver", "sky blue", "striped", "tan", "teal", "terracotta", "turquoise", "violet", "walnut", "white",
    "wooden", "yellow",
)  # fmt: skip
COLORED_PER_GOOD, COLORED_PER_THING = 3, 1
MAX_WORDS = 24
SEED = 0


@dataclass(frozen=True, slots=True)
class Meaning:
    """One meaning of WordNet."""

    file: str
    """Two digits of the lexicographer file."""
    names: tuple[str, ...]
    """Words for it, the usual one first."""
    definition: str
    """What it is, in a few words."""


def meanings(lines: Iterator[str]) -> Iterator[Meaning]:
    """Read the meanings of a WordNet data file; its licence, indented by two spaces, is passed over."""
    for line in lines:
        if line.startswith("  "):
            continue
        words, _, gloss = line.partition(" | ")
        fields = words.split(" ")
        num_words = int(fields[3], 16)
        names = tuple(fields[4 + 2 * at].replace("_", " ") for at in range(num_words))
        yield Meaning(fields[1], names, gloss.split(";")[0].strip().strip("()").lower())


def texts(found: Iterator[Meaning], rng: Random) -> Iterator[str]:
    """Put the things among the meanings into texts."""
    for meaning in found:
        if meaning.file not in THINGS:
            continue
        if meaning.names[0] != meaning.names[0].lower():
            continue  # a name of its own: a place, a family of plants
        definition = " ".join(meaning.definition.split()[:MAX_WORDS])
        yield f"{meaning.names[0]}: {definition}"
        for name in meaning.names:
            if name != name.lower():
                continue
            yield name
            num_colored = COLORED_PER_GOOD if meaning.file in GOODS else COLORED_PER_THING
            for color in rng.sample(COLORS, num_colored):
                yield f"{color} {name}"
        if meaning.file in GOODS:
            yield f"{rng.choice(COLORS)} {meaning.names[0]}. {definition}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="text file to write")
    parser.add_argument("--nouns", type=Path, default=NOUNS, help="WordNet's data.noun")
    options = parser.parse_args(argv)
    with options.nouns.open(encoding="utf-8") as lines:
        listed = list(dict.fromkeys(texts(meanings(lines), Random(SEED))))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text("".join(f"{text}\n" for text in listed), encoding="utf-8")
    print(f"{options.output}: {len(listed):,} texts")


if __name__ == "__main__":
    main()
