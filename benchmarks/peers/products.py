"""The household demo's pictures, enlarged to the size of a shop's, in the layouts that the systems read."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

SIDE_PX = 512
JPEG_QUALITY = 90
NUM_SHARDS = 4


@dataclass(frozen=True, slots=True)
class Layouts:
    """The same products three times."""

    pairs: Path
    """Folder of JPEG files with a .txt beside each."""
    images: Path
    """The same JPEG files alone."""
    shards: Path
    """WebDataset tars of the pairs."""
    mean_jpeg_bytes: float


def write_layouts(folder: Path, catalog: Path, num_products: int) -> Layouts:
    """Write the first products of a catalogue.

    Args:
        folder: to be made.
        catalog: Parquet file with `title` and `image`.
        num_products: how many.
    """
    layouts = Layouts(folder / "pairs", folder / "images", folder / "shards", 0.0)
    for path in (layouts.pairs, layouts.images, layouts.shards):
        path.mkdir(parents=True)
    table = pq.read_table(catalog, columns=["title", "image"]).slice(0, num_products)
    products = [(enlarged(image), title) for title, image in zip(*table.to_pydict().values(), strict=True)]
    for number, (jpeg, title) in enumerate(products):
        (layouts.pairs / f"{number:06d}.jpg").write_bytes(jpeg)
        (layouts.pairs / f"{number:06d}.txt").write_text(title, encoding="utf-8")
        (layouts.images / f"{number:06d}.jpg").write_bytes(jpeg)
    for shard in range(NUM_SHARDS):
        with tarfile.open(layouts.shards / f"{shard:05d}.tar", "w") as tar:
            for number in range(shard, len(products), NUM_SHARDS):
                for suffix in (".jpg", ".txt"):
                    tar.add(layouts.pairs / f"{number:06d}{suffix}", f"{number:06d}{suffix}")
    mean = sum(len(jpeg) for jpeg, _ in products) / len(products)
    return Layouts(layouts.pairs, layouts.images, layouts.shards, mean)


def enlarged(picture: bytes) -> bytes:
    """Return a picture as a JPEG of 512 x 512 pixels."""
    resized = Image.open(io.BytesIO(picture)).convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)
    sink = io.BytesIO()
    resized.save(sink, "JPEG", quality=JPEG_QUALITY)
    return sink.getvalue()
