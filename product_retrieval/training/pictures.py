"""The training pictures: read from catalogue files into memory, drawn into batches, moved a little on the way.

Letters: N pictures, B pictures of a batch, S side in pixels.
"""

from __future__ import annotations

import io
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import pyarrow.dataset
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from product_retrieval.training.captions import Depicted, folded
from product_retrieval.training.losses import Pictured
from product_retrieval.training.towers import PIXEL_MEAN, PIXEL_STD

TEXT_COLUMNS = ("product_id", "title", "description", "category", "color", "tags", "names", "group_id", "source")
OWN_TITLE = "clean_title"
"""Column of a catalogue whose `title` is damaged on purpose; where it exists it is the title."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures with their words; entry i of each field belongs to picture i."""

    product_ids: tuple[str, ...]
    """One product may have several pictures."""
    pixels: NDArray[np.uint8]
    """[N, S, S, 3], RGB on white."""
    depicted: tuple[Depicted, ...]
    """The words."""
    pictured: tuple[Pictured, ...]
    """Who is shown, for the matches of a batch."""
    sources: tuple[str, ...]
    """Which collection it comes from."""

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.product_ids)


def read_pictures(uris: Sequence[str], *, split: str, image_size: int, num_threads: int) -> Pictures:
    """Read and decode each picture of one split.

    Args:
        uris: catalogue files or folders (Parquet).
        split: value of the column `split` to keep.
        image_size: side in pixels that each picture is stretched to.
        num_threads: threads that decode.

    Returns:
        The pictures, in the order of the files' rows.
    """
    table = _rows(uris, (*TEXT_COLUMNS, "image"), split)
    rows = table.drop_columns(["image"]).to_pylist()
    images = table.column("image").combine_chunks() if rows else table.column("image")
    pixels = np.empty((len(rows), image_size, image_size, 3), dtype=np.uint8)

    def decode(row: int) -> None:
        pixels[row] = square_pixels(images[row].as_py(), image_size)

    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(decode, range(len(rows)), chunksize=256))
    depicted = tuple(_depicted(row) for row in rows)
    return Pictures(
        product_ids=tuple(row["product_id"] for row in rows),
        pixels=pixels,
        depicted=depicted,
        pictured=tuple(_pictured(row, words) for row, words in zip(rows, depicted, strict=True)),
        sources=tuple(collection(row["source"] or "") for row in rows),
    )


def read_encoded(uris: Sequence[str], *, split: str) -> list[bytes]:
    """Read the bytes of each picture of one split, in the order of `read_pictures`; arguments as there."""
    images: list[bytes] = _rows(uris, ("image",), split).column("image").to_pylist()
    return images


def read_words(uris: Sequence[str], *, split: str) -> list[Depicted]:
    """Read the distinct words of one split, without the pictures; arguments as for `read_pictures`."""
    return list(dict.fromkeys(_depicted(row) for row in _rows(uris, TEXT_COLUMNS, split).to_pylist()))


def count_pictures(uris: Sequence[str], *, split: str) -> dict[str, int]:
    """Count the pictures of one split by collection; arguments as for `read_pictures`."""
    sources = _rows(uris, ("source",), split).column("source").to_pylist()
    return dict(Counter(collection(source or "") for source in sources))


def square_pixels(encoded: bytes, image_size: int) -> NDArray[np.uint8]:
    """Decode a picture as the exported image processor would: on white, stretched to a square, bicubic.

    Args:
        encoded: bytes of a PNG, WebP or JPEG file.
        image_size: side in pixels.

    Returns:
        uint8 [S, S, 3].
    """
    opaque: Image.Image = Image.open(io.BytesIO(encoded))
    if opaque.mode in ("RGBA", "LA", "P"):
        transparent = opaque.convert("RGBA")
        opaque = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    return np.asarray(opaque.convert("RGB").resize((image_size, image_size), Image.Resampling.BICUBIC))


def collection(source: str) -> str:
    """Name the collection of a source such as `iconify:noto` or `Sweet Home 3D, Scopia`: its part before the mark."""
    return re.split("[:,]", source, maxsplit=1)[0]


def as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """Turn pixels into the image tower's input, float32 [B, 3, S, S] in channels-last memory."""
    values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    return values.sub_(PIXEL_MEAN).div_(PIXEL_STD)


def moved(images: Tensor, generator: torch.Generator) -> Tensor:
    """Zoom, stretch, shift, turn and mirror each picture a little and change its brightness, never its colour.

    Args:
        images: float [B, 3, S, S], normalised.
        generator: source of the choices.

    Returns:
        float [B, 3, S, S]; what comes in from outside repeats the border.
    """
    num_images = len(images)

    def between(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(num_images, generator=generator)

    zoom, stretch, angle = between(0.75, 1.1), between(-0.1, 0.1), between(-0.12, 0.12)
    mirror = (torch.rand(num_images, generator=generator) < 0.5).float().mul(-2).add(1)
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    across = torch.stack((mirror * cos * (1 + stretch), -sin, between(-0.12, 0.12)), dim=1)
    down = torch.stack((mirror * sin, cos * (1 - stretch), between(-0.12, 0.12)), dim=1)
    grid = functional.affine_grid(torch.stack((across, down), dim=1), list(images.shape), align_corners=False)
    placed = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
    white, black = (1 - PIXEL_MEAN) / PIXEL_STD, -PIXEL_MEAN / PIXEL_STD
    light = between(0.85, 1.1)[:, None, None, None]
    return ((placed - black) * light + black).clamp_(black, white)


class BatchDrawer:
    """Draws the pictures of step n: sources by share, families evenly, now and then from one category only."""

    def __init__(self, pictures: Pictures, shares: Mapping[str, float], *, one_category: float = 0.3) -> None:
        """Sort the pictures by source, family and category.

        Args:
            pictures: the training pictures.
            shares: source -> share of a batch; a source without pictures gives its share to the rest. Empty: a share
                for each source by its number of families.
            one_category: probability that the pictures of a source with few categories come from one of them.
        """
        self._members: dict[str, dict[str, list[int]]] = {}
        self._by_category: dict[str, dict[str, list[str]]] = {}
        for at, source in enumerate(pictures.sources):
            group = pictures.pictured[at].group_id
            self._members.setdefault(source, {}).setdefault(group, []).append(at)
            groups = self._by_category.setdefault(source, {}).setdefault(pictures.depicted[at].category, [])
            if not groups or groups[-1] != group:
                groups.append(group)
        self._weights = {
            source: {group: len(members) ** 0.5 for group, members in families.items()}
            for source, families in self._members.items()
        }
        wanted = shares or {source: float(len(families)) for source, families in self._members.items()}
        present = {source: share for source, share in wanted.items() if source in self._members}
        self._shares = {source: share / sum(present.values()) for source, share in present.items()}
        self._one_category = one_category

    def draw(self, size: int, rng: Random) -> list[int]:
        """Draw one batch.

        Args:
            size: pictures of the batch.
            rng: source of the choices; equal states give equal batches.

        Returns:
            Indices of the pictures, `size` of them, none twice as long as a source has enough.
        """
        sources = list(self._shares)
        chosen: list[int] = []
        for source, wanted in zip(sources, _counts(size, list(self._shares.values())), strict=True):
            groups, weights = self._pool(source, rng)
            seen: set[int] = set()
            for group in rng.choices(groups, weights, k=wanted):
                members = self._members[source][group]
                at = rng.choice(members)
                if at in seen:
                    at = rng.choice(members)
                seen.add(at)
                chosen.append(at)
        return chosen

    def _pool(self, source: str, rng: Random) -> tuple[list[str], list[float]]:
        categories = self._by_category[source]
        weights = self._weights[source]
        if 1 < len(categories) <= 30 and rng.random() < self._one_category:
            large = [groups for groups in categories.values() if len(set(groups)) >= 20]
            if large:
                groups = sorted(set(rng.choice(large)))
                return groups, [weights[group] for group in groups]
        return list(weights), list(weights.values())


def _counts(size: int, shares: Sequence[float]) -> list[int]:
    edges = [round(size * sum(shares[:at])) for at in range(len(shares) + 1)]
    edges[-1] = size
    return [high - low for low, high in itertools.pairwise(edges)]


def _rows(uris: Sequence[str], columns: Sequence[str], split: str) -> pyarrow.Table:
    """Read files that differ in their further columns; null where an optional column is missing."""
    tables = []
    for file in _files(uris):
        dataset = pyarrow.dataset.dataset(file, format="parquet")
        wanted = {name: pyarrow.dataset.field(name) for name in columns if name in dataset.schema.names}
        if OWN_TITLE in dataset.schema.names:
            wanted["title"] = pyarrow.dataset.field(OWN_TITLE)
        tables.append(dataset.to_table(columns=wanted, filter=pyarrow.dataset.field("split") == split))
    return pyarrow.concat_tables(tables, promote_options="permissive")


def _files(uris: Sequence[str]) -> list[str]:
    files: list[str] = []
    for uri in uris:
        path = Path(uri)
        files += sorted(str(file) for file in path.glob("*.parquet")) if path.is_dir() else [str(path)]
    return files


def _depicted(row: Mapping[str, object]) -> Depicted:
    names = row.get("names") or []
    assert isinstance(names, list)
    tags = row.get("tags") or []
    assert isinstance(tags, list)
    return Depicted(
        title=str(row["title"] or ""),
        color=str(row.get("color") or ""),
        category=str(row["category"] or ""),
        tags=tuple(str(tag) for tag in tags if tag),
        translations=tuple(dict.fromkeys(str(entry["name"]) for entry in names if entry["name"])),
        description=str(row["description"] or ""),
    )


def _pictured(row: Mapping[str, object], words: Depicted) -> Pictured:
    group = str(row["group_id"] or row["product_id"])
    return Pictured(
        identity=f"{group}|{folded(words.color)}", group_id=group, title=folded(words.title), name=folded(words.name)
    )
