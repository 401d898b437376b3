"""Names of emoji in several languages, read from npm's emojibase-data (MIT)."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

LANGUAGES = ("de", "es", "fr", "it")
OBJECT_GROUPS = frozenset({3, 4, 5, 6, 7})
"""Animals and nature, food, travel and places, activities, objects: not faces, people, symbols or flags."""
CLOCK_FACES = re.compile(r"o.clock|thirty")
MAX_TAGS = 8


@dataclass(frozen=True, slots=True)
class EmojiConcept:
    """What an emoji shows, in words."""

    label: str
    category: str
    tags: list[str]
    names: list[dict[str, str]]


def read_concepts(folder: Path) -> dict[str, EmojiConcept]:
    """Read the emoji that show things, keyed by their English label without spaces and punctuation.

    Args:
        folder: the unpacked package, with a folder for each language and `meta/groups.json`.

    Returns:
        One concept for each label that shows an object, animal, plant, food or place.
    """
    subgroups = json.loads((folder / "meta" / "groups.json").read_text(encoding="utf-8"))["subgroups"]
    translated = {language: read_labels(folder, language) for language in LANGUAGES}
    concepts = {}
    for emoji in json.loads((folder / "en" / "data.json").read_text(encoding="utf-8")):
        label = emoji["label"].lower()
        if emoji.get("group") not in OBJECT_GROUPS or CLOCK_FACES.search(label):
            continue
        concepts[compact(label)] = EmojiConcept(
            label=re.sub(r"[^\w\s]+", " ", label.replace("\u2019", "")).strip(),
            category=subgroups[str(emoji["subgroup"])].replace("-", " "),
            tags=emoji.get("tags", [])[:MAX_TAGS],
            names=[
                {"language": language, "name": labels[emoji["hexcode"]]}
                for language, labels in translated.items()
                if emoji["hexcode"] in labels
            ],
        )
    return concepts


def read_labels(folder: Path, language: str) -> dict[str, str]:
    """Read the labels of one language, keyed by code point."""
    rows = json.loads((folder / language / "data.json").read_text(encoding="utf-8"))
    return {row["hexcode"]: row["label"] for row in rows}


def compact(name: str) -> str:
    """Reduce a name to its letters and digits, the form in which the icon sets agree on it."""
    return re.sub(r"[^a-z0-9]+", "", name.lower())
