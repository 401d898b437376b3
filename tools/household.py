"""Make the household shop of the demo: a catalogue of rendered products, and other photos of them as queries.

    python -m tools.household --furniture DIR --output demo/household

Reads: the unpacked Debian package sweethome3d-furniture.
Writes: `catalog.parquet`, `queries.parquet` and `ATTRIBUTION.md` in the output folder; a rerun writes the same bytes.
Afterwards `tools.split` decides what is held out, over all demo data together.
Exit codes: 0 done, 2 wrong options, 1 anything else.
"""

from __future__ import annotations

import argparse
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import pyarrow as pa
from PIL import Image

from tools import assortment, listing, shop
from tools.attribution import attribution
from tools.furniture import Furniture
from tools.render import View, render
from tools.split import is_provisionally_held_out
from tools.training_set import webp_bytes, write_table

PHOTO_PX = 128
WEBP_QUALITY, SECOND_WEBP_QUALITY = 70, 50
QUERY_VIEWS = {"right": (40.0, 14.0), "far right": (60.0, 24.0), "far left": (-66.0, 14.0), "above": (14.0, 46.0)}
"""Azimuth and elevation in degrees; the catalogue's photo is taken from -30 and 20."""
QUERY_JITTER_DEG, CATALOG_JITTER_DEG = 6.0, 4.0
MAX_CROP_PX = 6

CATALOG_SCHEMA = pa.schema(
    [
        ("product_id", pa.string()),
        ("title", pa.string()),
        ("clean_title", pa.string()),
        ("title_noise", pa.string()),
        ("description", pa.string()),
        ("category", pa.string()),
        ("color", pa.string()),
        ("width_cm", pa.float32()),
        ("depth_cm", pa.float32()),
        ("height_cm", pa.float32()),
        ("price_eur_made_up", pa.float32()),
        ("tags", pa.list_(pa.string())),
        ("names", pa.list_(pa.struct([("language", pa.string()), ("name", pa.string())]))),
        ("group_id", pa.string()),
        ("ambiguous_by", pa.list_(pa.string())),
        ("duplicate_of", pa.string()),
        ("creator", pa.string()),
        ("license", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("image", pa.binary()),
    ]
)
QUERIES_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("query_id", "product_id", "view", "split")] + [("image", pa.binary())]
)


@dataclass(frozen=True, slots=True)
class Photographed:
    """A product with its photo for the catalogue and, unless it is a second listing, another one as a query."""

    product: assortment.Product
    image: bytes
    query_view: str | None
    query_image: bytes | None


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Make the household shop of the demo.")
    parser.add_argument("--furniture", type=Path, required=True, help="unpacked package sweethome3d-furniture")
    parser.add_argument("--output", type=Path, required=True, help="folder of the catalogue")
    parser.add_argument("--processes", type=int, default=2, help="processes that draw")
    parser.add_argument("--families", type=int, help="draw only so many meshes, to try something out")
    return parser.parse_args()


def photograph(furniture_folder: Path, item: Furniture) -> list[Photographed]:
    """Draw every product of one mesh; none if the mesh is hardly visible."""
    photographed = []
    for family in shop.read_families(furniture_folder, [item]):
        for product in assortment.products_of(item, family.colors):
            photographed.append(_photographed(family, product))
    return photographed


def split_of(group_id: str) -> str:
    """Return the part of a family by its identifier alone; `tools/split.py` then corrects it for twins."""
    return "heldout" if is_provisionally_held_out(group_id, "household") else "train"


def catalog_rows(photographed: list[Photographed]) -> list[dict[str, object]]:
    """Return the rows of the catalogue, in the order given."""
    ambiguous_by = assortment.ambiguities([one.product for one in photographed])
    return [_catalog_row(one, words) for one, words in zip(photographed, ambiguous_by, strict=True)]


def query_rows(photographed: list[Photographed]) -> list[dict[str, object]]:
    """Return the rows of the query photos, in the order given."""
    return [
        {
            "query_id": one.product.product_id.replace("hh-", "hq-", 1),
            "product_id": one.product.product_id,
            "view": one.query_view,
            "split": split_of(one.product.furniture.source),
            "image": one.query_image,
        }
        for one in photographed
        if one.query_image is not None
    ]


def main() -> None:
    """Run the command."""
    options = parse_options()
    items = shop.furniture_for_sale(options.furniture)[: options.families]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        families = pool.map(partial(photograph, options.furniture), items, chunksize=4)
    photographed = [one for family in families for one in family]
    options.output.mkdir(parents=True, exist_ok=True)
    catalog = pa.Table.from_pylist(catalog_rows(photographed), schema=CATALOG_SCHEMA)
    queries = pa.Table.from_pylist(query_rows(photographed), schema=QUERIES_SCHEMA)
    write_table(catalog, options.output / "catalog.parquet")
    write_table(queries, options.output / "queries.parquet")
    shown = list(dict.fromkeys(one.product.furniture for one in photographed))
    (options.output / "ATTRIBUTION.md").write_text(attribution(shown), encoding="utf-8")
    num_held_out = catalog["split"].to_pylist().count("heldout")
    size_mb = sum(path.stat().st_size for path in options.output.iterdir()) / 1e6
    print(f"{len(catalog)} products of {len(shown)} meshes, {num_held_out} held out, {len(queries)} queries")
    print(f"{size_mb:.1f} MB in {options.output}")


def _photographed(family: shop.Family, product: assortment.Product) -> Photographed:
    mesh = family.painted(product.color)
    # A second listing starts from the very photo of the first.
    rng = Random(listing.seed(product.duplicate_of or product.product_id, "photo"))
    front = shop.FRONT_VIEW
    catalog_view = View(
        azimuth_deg=front.azimuth_deg + rng.uniform(-CATALOG_JITTER_DEG, CATALOG_JITTER_DEG),
        elevation_deg=front.elevation_deg + rng.uniform(-CATALOG_JITTER_DEG, CATALOG_JITTER_DEG),
    )
    photo = Image.fromarray(render(mesh, catalog_view, PHOTO_PX))
    if product.duplicate_of is not None:
        return Photographed(product, webp_bytes(_recropped(photo, rng), SECOND_WEBP_QUALITY), None, None)
    view = rng.choice(list(QUERY_VIEWS))
    azimuth, elevation = QUERY_VIEWS[view]
    query_view = View(
        azimuth_deg=azimuth + rng.uniform(-QUERY_JITTER_DEG, QUERY_JITTER_DEG),
        elevation_deg=elevation + rng.uniform(-QUERY_JITTER_DEG, QUERY_JITTER_DEG),
        zoom=rng.uniform(0.85, 1.0),
    )
    query = Image.fromarray(render(mesh, query_view, PHOTO_PX))
    return Photographed(product, webp_bytes(photo, WEBP_QUALITY), view, webp_bytes(query, WEBP_QUALITY))


def _recropped(photo: Image.Image, rng: Random) -> Image.Image:
    left, top, right, bottom = (rng.randint(1, MAX_CROP_PX) for _ in range(4))
    cropped = photo.crop((left, top, PHOTO_PX - right, PHOTO_PX - bottom))
    return cropped.resize((PHOTO_PX, PHOTO_PX), Image.Resampling.BICUBIC)


def _catalog_row(one: Photographed, ambiguous_by: list[str]) -> dict[str, object]:
    product, item = one.product, one.product.furniture
    width, depth, height = product.size
    return {
        "product_id": product.product_id,
        "title": product.title,
        "clean_title": product.clean_title,
        "title_noise": product.title_noise,
        "description": listing.description(item, product.color, product.size),
        "category": item.category,
        "color": product.color,
        "width_cm": width,
        "depth_cm": depth,
        "height_cm": height,
        "price_eur_made_up": listing.price_eur(item, product.color, product.size),
        "tags": [tag.lower() for tag in item.tags],
        "names": [{"language": language, "name": name} for language, name in item.names],
        "group_id": item.source,
        "ambiguous_by": ambiguous_by,
        "duplicate_of": product.duplicate_of,
        "creator": item.creator,
        "license": item.license,
        "source": f"Sweet Home 3D, {item.library}",
        "split": split_of(item.source),
        "image": one.image,
    }


if __name__ == "__main__":
    main()
