"""From slices to published parts: however the rows are batched, the same parts come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from product_retrieval.catalog import CatalogPlan, ColumnOptions, plan_catalog
from product_retrieval.earlier import EarlierVectors
from product_retrieval.embedding_steps import (
    PartPublisher,
    embed_serially,
    encode_table,
)
from product_retrieval.embeddings import (
    KEY_COLUMNS,
    VECTOR_COLUMNS,
    Part,
    VectorType,
    read_part,
    vector_type_of,
    vectors_of,
)
from product_retrieval.encoders.hashing import DIM, HashEncoder
from product_retrieval.images import ImageLimits, decode
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage

Maker = Callable[..., bytes]


def embed(plan: CatalogPlan, output: Path, *, batch_size: int = 64, vector_type: VectorType = "float32") -> list[Part]:
    encoder = HashEncoder()
    return embed_serially(
        SliceReader(plan, encoder, ImageLimits()),
        encoder,
        PartPublisher(Storage.at(output), "run"),
        slices=plan.slices,
        batch_size=batch_size,
        vector_type=vector_type,
    )


def rows_of(output: Path, parts: list[Part]) -> pa.Table:
    tables = [read_part(Storage.at(output), part) for part in parts]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def rejected_rows(output: Path, parts: list[Part]) -> list[dict[str, Any]]:
    return [row for p in parts if p.rejected_name for row in pq.read_table(output / p.rejected_name).to_pylist()]


def test_each_product_is_encoded_or_rejected_with_a_reason(tiny_catalog: Path, tmp_path: Path) -> None:
    parts = embed(plan_catalog(str(tiny_catalog)), tmp_path / "out")
    rows = rows_of(tmp_path / "out", parts)
    assert rows.column("product_id").to_pylist() == ["mug", "cup", "jug"]
    assert rows.column("image_vector").is_valid().to_pylist() == [True, False, True]
    assert rows.column("text_vector").is_valid().to_pylist() == [True, True, False]
    found = [(r["product_id"], r["source"], r["stage"], r["reason"]) for r in rejected_rows(tmp_path / "out", parts)]
    assert found == [
        ("pot", "catalog.parquet:3", "decode", "image_not_decodable"),
        ("lid", "catalog.parquet:4", "read", "nothing_to_encode"),
    ]


def test_part_has_the_products_columns_and_none_of_ours(tiny_catalog: Path, tmp_path: Path) -> None:
    parts = embed(plan_catalog(str(tiny_catalog)), tmp_path / "out")
    assert rows_of(tmp_path / "out", parts).column_names == [
        "product_id",
        "text",
        "image_ref",
        "title",
        "price",
        "image_key",
        "text_key",
        "image_vector",
        "text_vector",
    ]


def test_vectors_are_those_of_the_encoder(tiny_catalog: Path, tmp_path: Path, png: Maker) -> None:
    parts = embed(plan_catalog(str(tiny_catalog)), tmp_path / "out")
    rows, encoder = rows_of(tmp_path / "out", parts), HashEncoder()
    texts, _ = vectors_of(rows, "text_vector")
    assert (texts == encoder.encode_texts(["Red mug", "Blue cup"])).all()
    pixels = [decode(png(color)).pixels for color in ((255, 0, 0), (0, 0, 255))]
    expected = encoder.encode_images(np.stack([encoder.prepare_image(p) for p in pixels if p is not None]))
    images, _ = vectors_of(rows, "image_vector")
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
@pytest.mark.parametrize("rows_per_part", [1, 2, 4])
def test_batches_and_parts_do_not_change_the_rows(
    tiny_catalog: Path, tmp_path: Path, batch_size: int, rows_per_part: int
) -> None:
    whole = embed(plan_catalog(str(tiny_catalog)), tmp_path / "whole")
    cut = embed(plan_catalog(str(tiny_catalog), rows_per_part=rows_per_part), tmp_path / "cut", batch_size=batch_size)
    expected, found = rows_of(tmp_path / "whole", whole), rows_of(tmp_path / "cut", cut)
    assert found.schema == expected.schema
    plain = [name for name in expected.column_names if not name.endswith("_vector")]
    assert found.select(plain).to_pylist() == expected.select(plain).to_pylist()
    for column in ("image_vector", "text_vector"):
        (vectors, rows), (expected_vectors, expected_rows) = vectors_of(found, column), vectors_of(expected, column)
        assert rows.tolist() == expected_rows.tolist()
        np.testing.assert_allclose(vectors, expected_vectors, atol=1e-6)
    reasons = [(row["source"], row["reason"]) for row in rejected_rows(tmp_path / "cut", cut)]
    assert reasons == [("catalog.parquet:3", "image_not_decodable"), ("catalog.parquet:4", "nothing_to_encode")]


def test_reader_gives_the_same_schema_for_every_slice(tiny_catalog: Path) -> None:
    plan = plan_catalog(str(tiny_catalog), rows_per_part=1)
    read = SliceReader(plan, HashEncoder(), ImageLimits())
    assert [read(slice_).schema for slice_ in plan.slices] == [read.schema()] * 5


@pytest.mark.parametrize("which", ["too few rows", "rows of two parts", "no rows"])
def test_part_that_is_not_whole_is_never_published(tiny_catalog: Path, tmp_path: Path, which: str) -> None:
    plan = plan_catalog(str(tiny_catalog), rows_per_part=3)
    encoder = HashEncoder()
    read = SliceReader(plan, encoder, ImageLimits())
    first, second = (encode_table(read(slice_), encoder, batch_size=8, vector_type="float16") for slice_ in plan.slices)
    table = {
        "too few rows": first.slice(0, 2),
        "rows of two parts": pa.concat_tables([first.slice(0, 2), second.slice(0, 1)]),
        "no rows": first.slice(0, 0),
    }[which]
    with pytest.raises(RuntimeError, match="rows of the parts"):
        PartPublisher(Storage.at(tmp_path / "out"), "run")(table, num_rows=3)
    assert not (tmp_path / "out").exists()


def test_slice_of_nothing_but_malformed_records_is_a_part(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("product_id,title\n1,a\n2,b,c\n3\n")
    parts = embed(plan_catalog(str(tmp_path / "a.csv"), rows_per_part=1), tmp_path / "out")
    assert [(part.num_products, part.num_rejected) for part in parts] == [(1, 0), (0, 1), (0, 1)]
    assert [row["reason"] for row in rejected_rows(tmp_path / "out", parts)] == ["malformed_record"] * 2


def test_blank_lines_do_not_end_the_job(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("product_id,title\n1,a\n\n\n\n2,b\n\n\n")
    parts = embed(plan_catalog(str(tmp_path / "a.csv"), rows_per_part=1), tmp_path / "out")
    assert rows_of(tmp_path / "out", parts).column("product_id").to_pylist() == ["1", "2"]


def test_all_products_may_be_rejected(tmp_path: Path) -> None:
    pq.write_table(pa.table({"product_id": ["1"], "image": ["gone.png"]}), tmp_path / "a.parquet")
    parts = embed(plan_catalog(str(tmp_path / "a.parquet")), tmp_path / "out")
    assert [(part.num_products, part.num_rejected) for part in parts] == [(0, 1)]


def test_large_picture_is_rejected_by_the_given_limits(tiny_catalog: Path, tmp_path: Path) -> None:
    plan = plan_catalog(str(tiny_catalog))
    table = SliceReader(plan, HashEncoder(), ImageLimits(max_pixels=63))(plan.slices[0])
    encoded = encode_table(table, HashEncoder(), batch_size=8, vector_type="float16")
    part = PartPublisher(Storage.at(tmp_path / "out"), "run")(encoded, num_rows=5)
    assert [(row["product_id"], row["reason"]) for row in rejected_rows(tmp_path / "out", [part])] == [
        ("mug", "image_too_large"),
        ("jug", "image_too_large"),
        ("pot", "image_not_decodable"),
        ("lid", "nothing_to_encode"),
    ]


def test_attributes_of_every_type_reach_the_part(tmp_path: Path, png: Maker) -> None:
    names = pa.list_(pa.struct([("language", pa.string()), ("name", pa.string())]))
    table = pa.table(
        {
            "product_id": ["1", "2", None],
            "photo": [png(), b"broken", png()],
            "title": ["mug", "cup", "pot"],
            "source": ["maker"] * 3,
            "image": ["shop's own"] * 3,
            "names": pa.array([[{"language": "de", "name": "Becher"}], None, []], names),
            "shade": pa.array(["red", "blue", None]).dictionary_encode(),
            "size": pa.array([1.5, None, 2.5], pa.float32()),
            "nothing": pa.nulls(3),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    plan = plan_catalog(str(tmp_path / "a.parquet"), columns=ColumnOptions(image="photo"))
    rows = rows_of(tmp_path / "out", embed(plan, tmp_path / "out"))
    (row,) = rows.drop_columns([*KEY_COLUMNS, *VECTOR_COLUMNS]).to_pylist()
    assert row == {
        "product_id": "1",
        "text": "mug",
        "image_ref": "a.parquet#row=0",
        "title": "mug",
        "source": "maker",
        "image": "shop's own",
        "names": [{"language": "de", "name": "Becher"}],
        "shade": "red",
        "size": 1.5,
        "nothing": None,
    }


def test_running_again_publishes_nothing_new(tiny_catalog: Path, tmp_path: Path) -> None:
    plan = plan_catalog(str(tiny_catalog), rows_per_part=2)
    first = embed(plan, tmp_path / "out")
    before = {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.parquet"))}
    assert embed(plan, tmp_path / "out") == first
    assert {path: path.read_bytes() for path in sorted((tmp_path / "out").rglob("*.parquet"))} == before


# Parts that need not be made again


def test_vectors_of_the_same_content_are_taken_over_and_the_rest_is_encoded(
    tiny_catalog: Path, tmp_path: Path, png: Maker
) -> None:
    embed(plan_catalog(str(tiny_catalog), rows_per_part=2), tmp_path / "old")
    table = pa.table(
        {
            "product_id": ["pot", "new", "mug", "jug", "lid"],
            "title": ["Blue cup", "Red mug", "Old mug", None, None],
            "price": pa.array([1.0] * 5, pa.float32()),
            "image": [png((0, 255, 0)), png((255, 0, 0)), png((255, 0, 0)), png((0, 0, 255)), None],
        }
    )
    pq.write_table(table, tmp_path / "new.parquet")
    plan = plan_catalog(str(tmp_path / "new.parquet"), rows_per_part=3)
    full = rows_of(tmp_path / "full", embed(plan, tmp_path / "full"))
    counting = CountingEncoder()
    parts = embed_serially(
        SliceReader(plan, counting, ImageLimits(), earlier_of(tmp_path / "old")),
        counting,
        PartPublisher(Storage.at(tmp_path / "out"), "run"),
        slices=plan.slices,
        batch_size=2,
        vector_type="float32",
    )
    rows = rows_of(tmp_path / "out", parts)
    assert rows.drop_columns([*VECTOR_COLUMNS]).equals(full.drop_columns([*VECTOR_COLUMNS]))
    for column in VECTOR_COLUMNS:
        (found, where), (expected, expected_where) = vectors_of(rows, column), vectors_of(full, column)
        assert where.tolist() == expected_where.tolist()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    assert counting.counted == {"image": 1, "text": 1}  # the green picture, "Old mug"
    assert [(part.num_reused_images, part.num_reused_texts) for part in parts] == [(2, 2), (1, 0)]


def test_trusted_picture_is_not_read_again_and_a_rejected_one_is(tmp_path: Path, png: Maker) -> None:
    table = pa.table({"product_id": ["mug", "cup", "pot"], "image": ["mug.png", "cup.png", "pot.png"]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "mug.png").write_bytes(png((255, 0, 0)))
    (tmp_path / "cup.png").write_bytes(b"broken")
    plan = plan_catalog(str(tmp_path / "a.parquet"))
    old = rows_of(tmp_path / "old", embed(plan, tmp_path / "old"))
    assert old.column("product_id").to_pylist() == ["mug"]
    (tmp_path / "mug.png").unlink()
    for name, color in (("cup", (0, 255, 0)), ("pot", (0, 0, 255))):
        (tmp_path / f"{name}.png").write_bytes(png(color))
    encoder = CountingEncoder()
    earlier = EarlierVectors.of(Storage.at(tmp_path / "old"), vector_type_of("float32", DIM), trust_references=True)
    parts = embed_serially(
        SliceReader(plan, encoder, ImageLimits(), earlier),
        encoder,
        PartPublisher(Storage.at(tmp_path / "out"), "run"),
        slices=plan.slices,
        batch_size=2,
        vector_type="float32",
    )
    rows = rows_of(tmp_path / "out", parts)
    assert rows.column("product_id").to_pylist() == ["mug", "cup", "pot"]
    assert rows.slice(0, 1).equals(old)
    assert encoder.counted == {"image": 2, "text": 0}


def test_picture_of_which_the_encoder_makes_nonsense_is_rejected(tiny_catalog: Path, tmp_path: Path) -> None:
    plan = plan_catalog(str(tiny_catalog))
    encoder = BrokenForBlue()
    parts = embed_serially(
        SliceReader(plan, encoder, ImageLimits()),
        encoder,
        PartPublisher(Storage.at(tmp_path / "out"), "run"),
        slices=plan.slices,
        batch_size=64,
        vector_type="float16",
    )
    assert rows_of(tmp_path / "out", parts).column("product_id").to_pylist() == ["mug", "cup"]
    (row,) = [row for row in rejected_rows(tmp_path / "out", parts) if row["product_id"] == "jug"]
    assert (row["stage"], row["reason"]) == ("encode", "vector_not_finite")


class CountingEncoder(HashEncoder):
    """Counts what it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = {"image": 0, "text": 0}

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.counted["image"] += len(prepared)
        return super().encode_images(prepared)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.counted["text"] += len(texts)
        return super().encode_texts(texts)


class BrokenForBlue(HashEncoder):
    """Makes NaN of blue pictures."""

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        is_blue = prepared[..., 2].mean(axis=(1, 2)) > prepared[..., 0].mean(axis=(1, 2))
        return np.where(is_blue[:, None], np.nan, super().encode_images(prepared)).astype(np.float32)


def earlier_of(output: Path) -> EarlierVectors:
    return EarlierVectors.of(Storage.at(output), vector_type_of("float32", DIM))
