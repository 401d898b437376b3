"""Draw training pictures from permissively licensed colour icons and emoji.

    npm pack @iconify/json emojibase-data      (unpack both; the folders hold `package/`)
    python -m tools.icons --iconify iconify/package --emoji emojibase/package --output out/training

Reads: the icon sets and `collections.json` of @iconify/json; the labels of emojibase-data.
Writes: `icons-*.parquet` in the output folder, see `tools/training_set.py`.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import resvg_py
from PIL import Image

from tools.emoji_labels import EmojiConcept, compact, read_concepts
from tools.icon_words import ABSTRACT_WORDS, CONCRETE_CATEGORIES, words_of
from tools.training_set import SIDE_PX, TrainingPicture, square_on_background, webp_bytes, write_parts

LICENSES = frozenset({"MIT", "Apache-2.0", "CC-BY-3.0", "CC-BY-4.0", "CC0-1.0"})
EMOJI_SETS = (
    "noto",
    "twemoji",
    "fluent-emoji-flat",
    "fluent-emoji",
    "noto-v1",
    "emojione",
    "fxemoji",
    "streamline-emojis",
)
ICON_SETS = (
    "streamline-color",
    "streamline-plump-color",
    "streamline-freehand-color",
    "streamline-flex-color",
    "streamline-sharp-color",
    "streamline-ultimate-color",
    "streamline-cyber-color",
    "streamline-kameleon-color",
    "streamline-stickies-color",
    "fluent-color",
    "icon-park",
    "marketeq",
    "flat-color-icons",
    "glyphs-poly",
)
TINTS = ((232, 240, 250), (250, 240, 228), (234, 246, 234), (248, 234, 240), (244, 244, 236), (226, 228, 232))
TINTED_SHARE = 0.15
"""Share of pictures on a tinted background, so that white is no sign of anything."""
BOX_DEFAULTS = {"left": 0, "top": 0, "width": 16, "height": 16}
LEAST_CONTRAST = 4.0
"""Standard deviation of grey below which a drawing counts as blank."""
WEBP_QUALITY = 88
MAX_WORDS = 4
SHORTEST_WORD = 3
SMALLER_SIZES = re.compile(r"-(16|20|24|28|48)$")
"""Endings of the sizes that fluent-color has beside its 32 px drawing of the same thing."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """One icon of a set: its SVG body and the box it is drawn in."""

    name: str
    category: str
    body: str
    left: float
    top: float
    width: float
    height: float


def main() -> None:
    """Draw every usable icon and write the parts of the training set."""
    options = parse_options()
    concepts = read_concepts(options.emoji)
    num_pictures = write_parts(draw_all(options.iconify, concepts), options.output, "icons")
    print(f"icons: {num_pictures} pictures in {options.output}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw training pictures from colour icons and emoji.")
    parser.add_argument("--iconify", type=Path, required=True, help="unpacked @iconify/json")
    parser.add_argument("--emoji", type=Path, required=True, help="unpacked emojibase-data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training set")
    return parser.parse_args()


def draw_all(iconify: Path, concepts: dict[str, EmojiConcept]) -> Iterator[TrainingPicture]:
    """Yield the pictures of every set, emoji first, each set in the order of its names."""
    collections = json.loads((iconify / "collections.json").read_text(encoding="utf-8"))
    label_words = {word for concept in concepts.values() for word in words_of(concept.label)}
    for set_name in (*EMOJI_SETS, *ICON_SETS):
        check_license(set_name, collections[set_name]["license"])
        icon_set = json.loads((iconify / "json" / f"{set_name}.json").read_text(encoding="utf-8"))
        num_drawn = 0
        for drawing in drawings(icon_set):
            if set_name in EMOJI_SETS:
                picture = emoji_picture(set_name, drawing, concepts)
            else:
                picture = icon_picture(set_name, drawing, concepts, label_words)
            if picture is not None:
                num_drawn += 1
                yield picture
        print(f"icons: {set_name}: {num_drawn} pictures", flush=True)


def check_license(set_name: str, license_: dict[str, str]) -> None:
    """Refuse a set whose licence is not on the permissive list, should a newer package change it."""
    if license_.get("spdx") not in LICENSES:
        raise ValueError(f"{set_name}: licence {license_.get('spdx')!r} is not one of {sorted(LICENSES)}")


def drawings(icon_set: dict[str, Any]) -> Iterator[Drawing]:
    """Yield the visible icons of a set in the order of their names.

    Source: Iconify, "IconifyJSON type": width and height default to 16, left and top to 0.
    """
    category_of = {name: category for category, names in icon_set.get("categories", {}).items() for name in names}
    for name, icon in sorted(icon_set["icons"].items()):
        if icon.get("hidden"):
            continue
        box = {key: icon.get(key, icon_set.get(key, default)) for key, default in BOX_DEFAULTS.items()}
        yield Drawing(name=name, category=split_camel(category_of.get(name, "")), body=icon["body"], **box)


def emoji_picture(set_name: str, drawing: Drawing, concepts: dict[str, EmojiConcept]) -> TrainingPicture | None:
    """Return the picture of an emoji that shows a thing, an animal, a plant, food or a place; otherwise None."""
    concept = concepts.get(compact(drawing.name))
    if concept is None:
        return None
    return drawn(
        set_name,
        drawing,
        title=concept.label,
        category=concept.category,
        tags=concept.tags,
        names=concept.names,
    )


def icon_picture(
    set_name: str, drawing: Drawing, concepts: dict[str, EmojiConcept], label_words: set[str]
) -> TrainingPicture | None:
    """Return the picture of an interface icon whose name and subject say that it shows a thing; otherwise None."""
    words = words_of(drawing.name)
    if SMALLER_SIZES.search(drawing.name) or ABSTRACT_WORDS.intersection(words):
        return None
    if not 1 <= len(words) <= MAX_WORDS or max(map(len, words)) < SHORTEST_WORD:
        return None
    subject_is_concrete = CONCRETE_CATEGORIES.search(drawing.category) is not None
    if not subject_is_concrete and not label_words.issuperset(words):
        return None
    title = " ".join(words)
    concept = concepts.get(compact(title))
    return drawn(
        set_name,
        drawing,
        title=title,
        category=concept.category if concept else drawing.category,
        tags=concept.tags if concept else [],
        names=concept.names if concept else [],
    )


def drawn(
    set_name: str, drawing: Drawing, *, title: str, category: str, tags: list[str], names: list[dict[str, str]]
) -> TrainingPicture | None:
    """Draw an icon and put it together with its words; None where nothing visible comes out."""
    product_id = f"ic-{set_name}-{drawing.name}"
    picture = render(drawing, background_of(product_id))
    if picture is None:
        return None
    return TrainingPicture(
        product_id=product_id,
        title=title,
        category=category,
        tags=tags,
        names=names,
        group_id="icon:" + title.replace(" ", "-"),
        source=f"iconify:{set_name}",
        image=webp_bytes(picture, WEBP_QUALITY),
    )


def render(drawing: Drawing, background: tuple[int, int, int]) -> Image.Image | None:
    """Draw an icon on a plain background; None if it cannot be drawn or shows nothing."""
    box = f"{drawing.left} {drawing.top} {drawing.width} {drawing.height}"
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{box}" '
        f'width="{drawing.width}" height="{drawing.height}" color="#222">{drawing.body}</svg>'
    )
    width, height = (SIDE_PX, None) if drawing.width >= drawing.height else (None, SIDE_PX)
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True, width=width, height=height))
    except ValueError:  # resvg refuses the few bodies that are not valid SVG
        return None
    picture = square_on_background(Image.open(io.BytesIO(png)), SIDE_PX, background)
    if np.asarray(picture.convert("L"), dtype=np.float32).std() < LEAST_CONTRAST:
        return None
    return picture


def background_of(product_id: str) -> tuple[int, int, int]:
    """White, or for a fixed share of the pictures a pale tint; the same id always gets the same colour."""
    number = int(hashlib.sha256(product_id.encode()).hexdigest()[:8], 16)
    if number % 1_000 >= TINTED_SHARE * 1_000:
        return (255, 255, 255)
    return TINTS[number // 1_000 % len(TINTS)]


def split_camel(category: str) -> str:
    """Turn a subject such as "FoodDrink" or "Food & Drink" into "food drink"."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", category)
    return " ".join(re.findall(r"[a-z]+", spaced.lower()))


if __name__ == "__main__":
    main()
