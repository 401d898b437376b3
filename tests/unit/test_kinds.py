"""One shop in every kind of catalogue: the same products, pictures, types and vectors."""

from __future__ import annotations

import csv
import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import CatalogPlan, plan_catalog
from product_retrieval.catalog.kinds import SUFFIXES
from product_retrieval.embedding_steps import PartPublisher, embed_serially
from product_retrieval.embeddings import read_part
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.images import ImageLimits
from product_retrieval.pictures import load_picture
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage

Maker = Callable[..., bytes]
ROWS = [
    {"product_id": "mug", "title": "red mug", "price": 4.5, "stock": 3},
    {"product_id": "cup", "title": "blue; tall | cup", "price": 3.0, "stock": None},
    {"product_id": "jug", "title": "jug, 2 l", "price": None, "stock": 0},
    {"product_id": "pot", "title": None, "price": 1.25, "stock": 7},
]
PICTURES = ["mug.png", None, "jug.png", "pot.png"]


def with_paths(folder: Path, pictures: list[bytes | None]) -> list[dict[str, object]]:
    """Write the pictures beside the table, and return its rows."""
    for name, picture in zip(PICTURES, pictures, strict=True):
        if name and picture:
            (folder / name).write_bytes(picture)
    return [{**row, "image": name} for row, name in zip(ROWS, PICTURES, strict=True)]


def as_csv(rows: list[dict[str, object]], delimiter: str) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def with_cells(pictures: list[bytes | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {**row, "image": picture and {"bytes": picture, "path": "x.png"}}
            for row, picture in zip(ROWS, pictures, strict=True)
        ]
    )


def as_tar(pictures: list[bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for key, (row, picture) in enumerate(zip(ROWS, pictures, strict=True)):
            for name, data in ((f"{key}.json", json.dumps(row).encode()), (f"{key}.png", picture)):
                member = tarfile.TarInfo(name)
                member.size = len(data or b"")
                if data:
                    archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def write_shop(folder: Path, what: str, pictures: list[bytes | None]) -> str:
    """Write the shop in some kind and return its URI."""
    folder.mkdir()
    match what:
        case "shop.parquet":
            pq.write_table(with_cells(pictures), folder / what, row_group_size=3)
        case "shop.csv" | "shop.tsv" | "shop.csv.gz":
            data = as_csv(with_paths(folder, pictures), {"shop.csv": ";", "shop.tsv": "\t"}.get(what, ","))
            (folder / what).write_bytes(gzip.compress(data) if what.endswith(".gz") else data)
        case "shop.jsonl":
            (folder / what).write_text("\n".join(json.dumps(row) for row in with_paths(folder, pictures)))
        case "shop.tar":
            (folder / what).write_bytes(as_tar(pictures))
        case "shop.tar.gz":
            (folder / what).write_bytes(gzip.compress(as_tar(pictures)))
        case "shop.arrow":
            table = with_cells(pictures)
            with pa.ipc.new_stream(str(folder / what), table.schema) as writer:
                writer.write_table(table, max_chunksize=3)
        case "metadata.jsonl":
            rows = with_paths(folder, pictures)
            named = [{**{k: v for k, v in row.items() if k != "image"}, "file_name": row["image"]} for row in rows]
            (folder / what).write_text("\n".join(json.dumps(row) for row in named))
            return str(folder)
    return str(folder / what)


KINDS = ["shop.csv", "shop.tsv", "shop.csv.gz", "shop.jsonl", "shop.tar", "shop.tar.gz", "shop.arrow", "metadata.jsonl"]


def vectors_of(plan: CatalogPlan, output: Path) -> pa.Table:
    """Embed a catalogue, and return its rows but for where each picture lies."""
    encoder = HashEncoder()
    storage = Storage.at(output)
    parts = embed_serially(
        SliceReader(plan, encoder, ImageLimits()),
        encoder,
        PartPublisher(storage, "run"),
        slices=plan.slices,
        batch_size=2,
        vector_type="float32",
    )
    table = pa.concat_tables([read_part(storage, part).replace_schema_metadata(None) for part in parts])
    names = ["product_id", "text", "title", "price", "stock", "image_key", "text_key", "image_vector", "text_vector"]
    assert set(table.column_names) == {*names, "image_ref"}
    return table.select(names)


@pytest.mark.parametrize("what", KINDS)
@pytest.mark.parametrize("rows_per_part", [1, 3])
def test_same_shop_gives_the_same_rows(tmp_path: Path, png: Maker, what: str, rows_per_part: int) -> None:
    pictures = [name and png((n * 40, 9, 9)) for n, name in enumerate(PICTURES)]
    expected = plan_catalog(write_shop(tmp_path / "expected", "shop.parquet", pictures), rows_per_part=rows_per_part)
    plan = plan_catalog(write_shop(tmp_path / "shop", what, pictures), rows_per_part=rows_per_part)
    assert len(plan.slices) == len(expected.slices)
    found = vectors_of(plan, tmp_path / "found")
    assert found.equals(vectors_of(expected, tmp_path / "out"))
    assert found.column("image_vector").is_valid().to_pylist() == [True, False, True, True]


@pytest.mark.parametrize("what", ["shop.parquet", *KINDS])
def test_pictures_are_found_again_by_their_references(tmp_path: Path, png: Maker, what: str) -> None:
    pictures = [name and png((n * 40, 9, 9)) for n, name in enumerate(PICTURES)]
    plan = plan_catalog(write_shop(tmp_path / "shop", what, pictures))
    table = SliceReader(plan, HashEncoder(), ImageLimits())(plan.slices[0])
    references = table.column("image_ref").to_pylist()
    found = [load_picture(plan.image_root, ref, image_column=plan.columns.image) for ref in references]
    assert found == pictures


@pytest.mark.parametrize("what", ["shop.parquet", "shop.tar", "shop.arrow"])
def test_pictures_inside_files_are_found_again_whatever_the_image_root(tmp_path: Path, png: Maker, what: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    uri = write_shop(tmp_path / "shop", what, [png(), None, None, None])
    plan = plan_catalog(uri, image_root=str(tmp_path / "elsewhere"))
    reference = SliceReader(plan, HashEncoder(), ImageLimits())(plan.slices[0]).column("image_ref")[0].as_py()
    assert load_picture(plan.image_root, reference, catalog_root=plan.root) == png()
    assert load_picture(plan.image_root, reference) is None


@pytest.mark.parametrize("what", ["shop.parquet", *KINDS])
def test_slice_and_plan_travel_and_stay_small(tmp_path: Path, png: Maker, what: str) -> None:
    pictures = [name and png((n * 40, 9, 9)) for n, name in enumerate(PICTURES)]
    plan = plan_catalog(write_shop(tmp_path / "shop", what, pictures))
    assert pickle.loads(pickle.dumps(plan)) == plan
    assert max(len(pickle.dumps(slice_)) for slice_ in plan.slices) < 400


def test_every_suffix_belongs_to_one_kind() -> None:
    suffixes = [suffix for group in SUFFIXES.values() for suffix in group]
    assert len(suffixes) == len(set(suffixes))
    assert not [(a, b) for a in suffixes for b in suffixes if a != b and a.endswith(b)]
