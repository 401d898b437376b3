"""Draw the training pictures of the household shop: every mesh in every colourway from several sides.

    python -m tools.household_training --furniture DIR --output out/training

Reads: the unpacked Debian package sweethome3d-furniture.
Writes: `household-*.parquet` in the output folder, see `tools/training_set.py`; `split` stays empty for tools/split.py.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from tools import listing, shop
from tools.render import View, render
from tools.training_set import SIDE_PX, TrainingPicture, webp_bytes, write_parts

NUM_COLOR_VIEWS = 7
NUM_AS_MADE_VIEWS = 10
"""More: the colours a mesh is made with look more like other people's pictures than ours do."""
WEBP_QUALITY = 85
TINTED_SHARE = 0.3
"""Share of pictures on a pale tinted background, so that white is no sign of anything."""
SIZED_SHARE = 0.15
"""Share of titles that end in the size."""
AZIMUTHS_DEG = (-32, 30, -8, -62, 58, 130)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Draw the training pictures of the household shop.")
    parser.add_argument("--furniture", type=Path, required=True, help="unpacked package sweethome3d-furniture")
    parser.add_argument("--output", type=Path, required=True, help="folder of the training set")
    parser.add_argument("--processes", type=int, default=2, help="processes that draw")
    return parser.parse_args()


def pictures(furniture: Path, part: int, num_parts: int) -> Iterator[TrainingPicture]:
    """Yield the pictures of one share of the families, in an order that mixes libraries and categories."""
    mixed = sorted(shop.furniture_for_sale(furniture), key=lambda item: listing.seed(item.source))
    for family in shop.read_families(furniture, mixed[part::num_parts]):
        for color in (None, *family.colors):
            yield from _colorway_pictures(family, color)


def random_view(rng: random.Random) -> View:
    """Return a view that a shop's photographer might take."""
    is_tinted = rng.random() < TINTED_SHARE
    red, green, blue = (rng.uniform(0.8, 1.0) if is_tinted else 1.0 for _ in range(3))
    return View(
        azimuth_deg=rng.choice(AZIMUTHS_DEG) + rng.uniform(-15, 15),
        elevation_deg=min(max(rng.gauss(18, 9), -2), 50),
        zoom=rng.uniform(0.82, 1.05),
        background=(red, green, blue),
        brightness=rng.uniform(0.88, 1.12),
    )


def draw_share(furniture: Path, output: Path, part: int, num_parts: int) -> int:
    """Draw one share of the families and return the number of pictures."""
    return write_parts(pictures(furniture, part, num_parts), output, f"household-{part}")


def main() -> None:
    """Run the command."""
    options = parse_options()
    shares = [(options.furniture, options.output, part, options.processes) for part in range(options.processes)]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        counts = pool.starmap(draw_share, shares)
    print(f"{sum(counts)} pictures in {options.output}")


def _colorway_pictures(family: shop.Family, color: str | None) -> Iterator[TrainingPicture]:
    furniture, mesh = family.furniture, family.painted(color)
    rng = random.Random(listing.seed(family.group_id, color or "", "training"))
    name, size = listing.product_name(furniture), listing.own_size(furniture)
    for number in range(NUM_AS_MADE_VIEWS if color is None else NUM_COLOR_VIEWS):
        image = Image.fromarray(render(mesh, random_view(rng), SIDE_PX))
        shown_size = listing.size_text(size) if rng.random() < SIZED_SHARE else None
        yield TrainingPicture(
            product_id=listing.product_id(furniture, color),
            view=f"training-{number}",
            title=listing.title(name, color, shown_size),
            description=listing.description(furniture, color, size),
            category=furniture.category,
            color=color,
            tags=[tag.lower() for tag in furniture.tags],
            names=[{"language": language, "name": word} for language, word in furniture.names],
            group_id=family.group_id,
            source="household",
            split="",
            image=webp_bytes(image, WEBP_QUALITY),
        )


if __name__ == "__main__":
    main()
