"""Draw a labelled grid of a catalogue's pictures, to look at.

    python -m tools.contact_sheet --catalog demo/household/catalog.parquet --output docs/images/household.png
    python -m tools.contact_sheet --catalog ... --queries demo/household/queries.parquet --output ...

Reads: a catalogue with `title`, `image` and, if it has one, `group_id`; with --queries, photos by `product_id`.
Writes: a PNG; each cell shows a product (beside its query photo, if there is one) over its title.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import io
import textwrap
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

LABEL_PX = 10
LINE_PX = 12
NUM_LABEL_LINES = 2
LETTER_PX = 5.2
"""Mean width of a letter of the label, to wrap by."""
GAP_PX = 6
PNG_COLORS = 200


@dataclass(frozen=True, slots=True)
class Cell:
    """One or two pictures and what to write below them."""

    pictures: tuple[bytes, ...]
    label: str


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw a labelled grid of a catalogue's pictures.")
    parser.add_argument("--catalog", type=Path, required=True)
    parser.add_argument("--queries", type=Path, help="other photos, shown beside the catalogue's")
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--rows", type=int, default=9)
    parser.add_argument("--side-px", type=int, default=96, help="side of a picture")
    parser.add_argument("--seed", type=int, default=0, help="which products")
    return parser.parse_args()


def choose_cells(catalog: Path, queries: Path | None, num_cells: int, seed: int) -> list[Cell]:
    """Choose products at random, each of another group where the catalogue has groups."""
    rows = pq.read_table(catalog).to_pylist()
    photos = {}
    if queries is not None:
        photos = {row["product_id"]: row["image"] for row in pq.read_table(queries).to_pylist()}
    Random(seed).shuffle(rows)
    rows = [row for row in rows if queries is None or row["product_id"] in photos]
    by_group = {row.get("group_id") or row["product_id"]: row for row in reversed(rows)}
    return [
        Cell((row["image"], *([photos[row["product_id"]]] if queries is not None else [])), row["title"])
        for row in list(by_group.values())[:num_cells]
    ]


def draw_sheet(cells: list[Cell], columns: int, side_px: int) -> Image.Image:
    """Draw the grid.

    Args:
        cells: at least one; all with the same number of pictures.
        columns: cells in a row.
        side_px: side of a picture.
    """
    width = len(cells[0].pictures) * side_px + GAP_PX
    height = side_px + NUM_LABEL_LINES * LINE_PX + GAP_PX
    num_rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + GAP_PX, num_rows * height + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(LABEL_PX)
    for position, cell in enumerate(cells):
        left = GAP_PX + position % columns * width
        top = GAP_PX + position // columns * height
        for number, picture in enumerate(cell.pictures):
            fitted = Image.open(io.BytesIO(picture)).convert("RGB").resize((side_px, side_px), Image.Resampling.LANCZOS)
            sheet.paste(fitted, (left + number * side_px, top))
        # The font that Pillow carries draws Latin letters only.
        label = cell.label.encode("latin-1", "replace").decode("latin-1")
        lines = textwrap.wrap(label, int((width - GAP_PX) / LETTER_PX))
        for number, line in enumerate(lines[:NUM_LABEL_LINES]):
            draw.text((left, top + side_px + number * LINE_PX), line, fill="black", font=font)
    return sheet


def main() -> None:
    """Run the command."""
    options = parse_options()
    cells = choose_cells(options.catalog, options.queries, options.columns * options.rows, options.seed)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sheet = draw_sheet(cells, options.columns, options.side_px)
    sheet.quantize(PNG_COLORS).save(options.output, optimize=True)
    print(f"{len(cells)} products in {options.output}, {options.output.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
