"""Make the marketplace catalogue, and training pictures, from the Open Clip Art Library.

    apt-get download openclipart-png openclipart-svg      (unpack each with dpkg-deb -x)
    python -m tools.marketplace --openclipart-png DIR --openclipart-svg DIR --output demo/marketplace [--training DIR]

Reads: the two unpacked Debian packages.
Writes: `catalog.parquet` in the output folder; `openclipart-*.parquet` in the training folder with all usable pictures,
those of the catalogue among them, under cleaned names. `split` is "train" everywhere until tools/split.py has run.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from tools.duplicates import DRAWING_TOLERANCE, duplicate_pairs, signatures
from tools.groups import connected
from tools.openclipart import Clipart, read_library
from tools.training_set import SIDE_PX, TrainingPicture, square_on_background, webp_bytes, write_parts, write_table

NUM_PRODUCTS = 2_000
PICTURE_PX = 112
WEBP_QUALITY = 76
TRAINING_WEBP_QUALITY = 88
LEAST_DRAWN_SHARE = 0.2
"""Share of the picture's side that the drawing must reach: some pages hold a stamp in one corner."""
WHITE = (255, 255, 255)
LICENSE = "Public Domain"
SOURCE = "openclipart-0.18"

PRODUCT_FOLDERS = re.compile(
    r"(food|tools|office|electronics|containers|recreation|transportation|plants|animals|education|decorations|science"
    r"|computer|people/clothing|buildings/furniture|buildings/homes)(/|$)"
)
NOT_PRODUCTS = re.compile(r"computer/(folders|diagrams)")
NOT_DRAWINGS_OF_THINGS = re.compile(
    r"^shapes|^special|^logos|^buttons|computer/(icons|buttons)|^signs_and_symbols|/cards|roadsigns|aiga-symbols"
    r"|^people(?!/clothing)|^geography|recreation/religion|tools/weapons|people/clothing/pantyhose"
)
"""Interface parts, signs, flags, people: not even training pictures."""
ROAD_SIGNS = re.compile(r"\broad ?signs?\b", re.IGNORECASE)
"""Title of a collection that also lies in the folders of vehicles."""
TITLES_OF_COLLECTIONS = 6
"""A title that more drawings than this share names their collection, not the drawing."""
LONGEST_TITLE = 60
BLACK_AND_WHITE = re.compile(r"\bb( and |[ &/])?w\b")
WORDS_ABOUT_THE_FILE = re.compile(r"\b(clip ?art|by|svg|icon|icone|hash|unsorted|theme|remix|sibmission|submission)\b")

SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("category", pa.string()),
        ("tags", pa.list_(pa.string())),
        ("creator", pa.string()),
        ("license", pa.string()),
        ("source", pa.string()),
        ("group_id", pa.string()),
        ("split", pa.string()),
        ("image", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A drawing with its picture and the id of the group of equal pictures it belongs to."""

    clipart: Clipart
    product_id: str
    group_id: str
    image: bytes
    training_image: bytes


def main() -> None:
    """Read the library, choose the products, write the catalogue and the training pictures."""
    options = parse_options()
    shown = in_groups(list(usable_drawings(options.openclipart_png, options.openclipart_svg)))
    products = choose_products(shown)
    options.output.mkdir(parents=True, exist_ok=True)
    catalog = options.output / "catalog.parquet"
    write_table(pa.Table.from_pylist([product_row(product) for product in products], schema=SCHEMA), catalog)
    num_groups = len({product.group_id for product in products})
    print(f"marketplace: {len(products)} products, {num_groups} different pictures, {catalog.stat().st_size} bytes")
    if options.training:
        num_pictures = write_parts(training_pictures(shown), options.training, "openclipart")
        print(f"marketplace: {num_pictures} training pictures in {options.training}")


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the marketplace catalogue from the Open Clip Art Library.")
    parser.add_argument("--openclipart-png", type=Path, required=True, help="unpacked package openclipart-png")
    parser.add_argument("--openclipart-svg", type=Path, required=True, help="unpacked package openclipart-svg")
    parser.add_argument("--output", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--training", type=Path, help="folder of the training set")
    return parser.parse_args()


def usable_drawings(png_package: Path, svg_package: Path) -> Iterator[tuple[Clipart, Image.Image]]:
    """Yield the public-domain drawings of things, each with a square picture on white."""
    for clipart in read_library(png_package, svg_package):
        if not clipart.is_public_domain or NOT_DRAWINGS_OF_THINGS.search(clipart.folder):
            continue
        if ROAD_SIGNS.search(clipart.title):
            continue
        picture = open_picture(clipart.picture)
        if picture is not None and is_drawn_large(picture):
            yield clipart, picture


def open_picture(path: Path) -> Image.Image | None:
    """Open a picture, square and on white; None for the posters of 170 million pixels that Pillow warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as picture:
                return square_on_background(picture, PICTURE_PX, WHITE)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            return None


def is_drawn_large(picture: Image.Image) -> bool:
    """Whether the drawing reaches over enough of the white picture to be recognised."""
    drawn = picture.convert("L").point(lambda grey: 255 if grey < 240 else 0).getbbox()
    return drawn is not None and max(drawn[2] - drawn[0], drawn[3] - drawn[1]) >= LEAST_DRAWN_SHARE * PICTURE_PX


def in_groups(drawings: list[tuple[Clipart, Image.Image]]) -> list[Shown]:
    """Number the drawings and group those with equal or nearly equal pictures.

    A group is called after its first member, so a picture without a twin is a group of its own.
    """
    ids = [f"mk-{number:04d}" for number in range(len(drawings))]
    images = [webp_bytes(picture, WEBP_QUALITY) for _, picture in drawings]
    tolerances = np.full(len(images), DRAWING_TOLERANCE, dtype=np.float32)
    twins = duplicate_pairs(signatures(images), tolerances=tolerances)
    first = connected(len(drawings), twins)
    return [
        Shown(
            clipart=clipart,
            product_id=ids[row],
            group_id=f"mkg-{first[row]:04d}",
            image=images[row],
            training_image=webp_bytes(square_on_background(picture, SIDE_PX, WHITE), TRAINING_WEBP_QUALITY),
        )
        for row, (clipart, picture) in enumerate(drawings)
    ]


def choose_products(shown: list[Shown]) -> list[Shown]:
    """Choose at most `NUM_PRODUCTS` products, whole groups of twins at a time, and keep their order."""
    candidates = [drawing for drawing in shown if is_product(drawing.clipart)]
    group_sizes = Counter(drawing.group_id for drawing in candidates)
    chosen: set[str] = set()
    num_chosen = 0
    for group_id in sorted(group_sizes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if num_chosen + group_sizes[group_id] <= NUM_PRODUCTS:
            chosen.add(group_id)
            num_chosen += group_sizes[group_id]
    return [drawing for drawing in candidates if drawing.group_id in chosen]


def is_product(clipart: Clipart) -> bool:
    """Whether the drawing lies in a folder of things that a marketplace could offer."""
    return PRODUCT_FOLDERS.match(clipart.folder) is not None and not NOT_PRODUCTS.search(clipart.folder)


def product_row(product: Shown) -> dict[str, object]:
    """Return a row of the catalogue with the author's words untouched; a missing title becomes the file's name."""
    clipart = product.clipart
    return {
        "product_id": product.product_id,
        "title": clipart.title if clipart.title.strip() else clipart.file_name,
        "description": clipart.description,
        "category": clipart.folder,
        "tags": clipart.keywords,
        "creator": clipart.creator,
        "license": LICENSE,
        "source": f"{SOURCE}:{clipart.path}",
        "group_id": product.group_id,
        "split": "train",
        "image": product.image,
    }


def training_pictures(shown: list[Shown]) -> Iterator[TrainingPicture]:
    """Yield the drawings with cleaned names; those without a usable name are left out."""
    title_counts = Counter(drawing.clipart.title.lower() for drawing in shown)
    for drawing in shown:
        clipart = drawing.clipart
        num_so_called = title_counts[clipart.title.lower()]
        is_own = num_so_called <= TITLES_OF_COLLECTIONS and len(clipart.title) < LONGEST_TITLE
        title = clean(clipart.title, clipart.creator) if is_own else ""
        title = title or clean(clipart.file_name, clipart.creator)
        if title:
            yield TrainingPicture(
                product_id=drawing.product_id,
                title=title,
                category=clipart.folder.replace("/", " ").replace("_", " "),
                tags=[tag for tag in (clean(keyword, "") for keyword in clipart.keywords) if tag],
                group_id=drawing.group_id,
                source=SOURCE,
                image=drawing.training_image,
            )


def clean(name: str, creator: str) -> str:
    """Reduce a title or file name to the words that say what is drawn.

    Numbers, words about files, and the author's name, which file names often cut short, are left out.
    """
    authors = [word for word in re.findall(r"[^\W\d_]+", creator.lower()) if len(word) > 1]
    spaced = BLACK_AND_WHITE.sub(" black and white ", name.lower().replace("_", " "))
    words = re.findall(r"[^\W\d_]+", WORDS_ABOUT_THE_FILE.sub(" ", spaced))
    kept = [word for word in words if not any(word == author or is_cut(word, author) for author in authors)]
    return " ".join(word for word in kept if len(word) > 1)


def is_cut(word: str, author: str) -> bool:
    """Whether a word of three letters or more is the beginning of the author's name."""
    return len(word) >= 3 and author.startswith(word)


if __name__ == "__main__":
    main()
