"""Earlier vectors are found by content, and only by content."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from product_retrieval.earlier import EarlierVectors, KeyTable, content_key
from product_retrieval.embeddings import EncodedProducts, part_name, publish_part, vector_array, vector_type_of
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage

TYPE = vector_type_of("float16", 2)


def keys(*contents: bytes | None) -> pa.Array:
    return pa.array([None if each is None else content_key(each) for each in contents], pa.binary(16))


def publish(
    storage: Storage,
    part: int,
    contents: list[bytes | None],
    angles: list[float],
    references: list[str | None] | None = None,
) -> None:
    """Publish a part whose pictures have these bytes, and vectors at these angles."""
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    has_image = np.array([content is not None for content in contents])
    table = pa.table(
        {
            "product_id": [f"{part}-{row}" for row in range(len(contents))],
            "image_ref": references or [None] * len(contents),
            "image_key": keys(*contents),
            "text_key": pa.nulls(len(contents), pa.binary(16)),
            "image_vector": vector_array(vectors, has_image, "float16"),
            "text_vector": pa.nulls(len(contents), TYPE),
        }
    )
    publish_part(storage, "run", EncodedProducts(part, table))


def found(earlier: EarlierVectors, *contents: bytes | None) -> list[float | None]:
    """Return the angle of each picture's earlier vector, in tenths."""
    vectors = earlier.find("image", keys(*contents)).to_pylist()
    return [None if v is None else round(float(np.arctan2(v[1], v[0])), 1) for v in vectors]


def test_vectors_are_found_by_content_in_whatever_order(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    publish(storage, 0, [b"mug", None, b"cup"], [0.1, 0.2, 0.3])
    publish(storage, 1, [b"pot"], [0.4])
    earlier = EarlierVectors.of(storage, TYPE)
    assert found(earlier, b"pot", b"new", None, b"cup", b"mug", b"pot") == [0.4, None, None, 0.3, 0.1, 0.4]
    assert found(earlier) == []
    assert earlier.find("text", keys(b"mug")).to_pylist() == [None]


def test_of_equal_contents_the_first_is_taken(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    publish(storage, 1, [b"mug", b"mug"], [0.3, 0.4])
    publish(storage, 0, [b"cup", b"mug"], [0.1, 0.2])
    assert found(EarlierVectors.of(storage, TYPE), b"mug") == [0.2]


def test_nothing_is_found_where_nothing_was_published(tmp_path: Path) -> None:
    assert found(EarlierVectors.of(Storage.at(tmp_path), TYPE), b"mug", None) == [None, None]


def test_keys_that_only_begin_alike_are_not_equal(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    publish(storage, 0, [b"mug"], [0.1])
    earlier = EarlierVectors.of(storage, TYPE)
    alike = content_key(b"mug")[:8] + bytes(8)
    assert earlier.images.find(pa.array([alike], pa.binary(16))).tolist() == [0]
    assert earlier.find("image", pa.array([alike], pa.binary(16))).to_pylist() == [None]


def test_table_finds_every_key_of_many() -> None:
    contents = [str(number).encode() for number in range(2000)]
    table = KeyTable.of([keys(*contents[:700]), keys(), keys(*contents[700:])])
    wanted = keys(*contents[::7], b"none")
    expected = [number if number < 700 else (2 << 32) + number - 700 for number in range(0, 2000, 7)]
    assert table.find(wanted).tolist() == [*expected, -1]


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    publish(Storage.at(tmp_path), 0, [b"mug"], [0.1])
    assert found(pickle.loads(pickle.dumps(EarlierVectors.of(Storage.at(tmp_path), TYPE))), b"mug") == [0.1]


def test_damaged_part_is_named(tmp_path: Path) -> None:
    publish(Storage.at(tmp_path), 0, [b"mug"], [0.1])
    (tmp_path / part_name(0)).write_bytes(b"junk")
    with pytest.raises(ArtifactError, match=r"data/part-000000\.parquet"):
        EarlierVectors.of(Storage.at(tmp_path), TYPE)


def test_keys_of_trusted_references_are_known_unread(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    references: list[str | None] = ["a/mug.jpg", "http://x/cup.jpg", "shop.parquet#row=3", "gone.jpg"]
    publish(storage, 0, [b"mug", b"cup", b"pot", None], [0.1, 0.2, 0.3, 0.4], references)
    trusting = EarlierVectors.of(storage, TYPE, trust_references=True)
    wanted = ["http://x/cup.jpg", "a/mug.jpg", "A/mug.jpg", "shop.parquet#row=3", "gone.jpg"]
    assert trusting.keys_of_references(wanted) == [content_key(b"cup"), content_key(b"mug"), None, None, None]
    assert trusting.keys_of_references([]) == []
    assert EarlierVectors.of(storage, TYPE).keys_of_references(wanted) == [None] * 5
