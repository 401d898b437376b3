"""Parts that any Parquet reader understands, published once, and a manifest that names them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog.rejections import Rejection
from product_retrieval.embeddings import (
    EncodedProducts,
    Manifest,
    Part,
    VectorType,
    count_reasons,
    iterate_parts,
    parse_manifest,
    part_name,
    publish_part,
    published_parts,
    read_manifest,
    read_part,
    read_part_record,
    sweep_rejections,
    vector_array,
    vectors_of,
)
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage

UNIT = np.array([[1, 0, 0], [0, 0.6, 0.8]], np.float32)
BOTH = np.array([True, True])


def encoded(
    part: int = 0,
    ids: tuple[str, ...] = ("mug", "cup"),
    rejections: tuple[Rejection, ...] = (),
    vector_type: VectorType = "float16",
) -> EncodedProducts:
    """Return products with an image vector each and a text vector for the first only."""
    vectors = np.tile(np.array([[0.6, 0.8, 0]], np.float32), (len(ids), 1))
    is_first = np.arange(len(ids)) == 0
    table = pa.table(
        {
            "product_id": list(ids),
            "text": list(ids),
            "image_ref": [f"{name}.png" for name in ids],
            "image_vector": vector_array(vectors, np.ones(len(ids), bool), vector_type),
            "text_vector": vector_array(vectors, is_first, vector_type),
        }
    )
    return EncodedProducts(part, table, rejections)


def manifest_of(*parts: Part) -> Manifest:
    return Manifest(
        run_id="run",
        fingerprint=Fingerprint("clip", "w", "p", "model", 3),
        model="demo/model",
        vector_type="float16",
        options={"k": 1},
        catalog={"uri": "shop"},
        parts=parts,
        rejected_by_reason={"missing_id": 2},
    )


@pytest.mark.parametrize(("vector_type", "arrow_type"), [("float16", pa.float16()), ("float32", pa.float32())])
def test_vectors_are_plain_fixed_size_lists(tmp_path: Path, vector_type: VectorType, arrow_type: pa.DataType) -> None:
    publish_part(Storage.at(tmp_path), "run", encoded(vector_type=vector_type))
    table = pq.read_table(tmp_path / "data" / "part-000000.parquet")
    for column in ("image_vector", "text_vector"):
        assert table.schema.field(column).type.equals(pa.list_(arrow_type, 3))
    expected = np.array([0.6, 0.8, 0], vector_type).astype(float).tolist()
    assert [float(x) for x in table.column("image_vector")[0].as_py()] == expected
    assert table.column("text_vector").is_valid().to_pylist() == [True, False]


@pytest.mark.parametrize("vector_type", ["float16", "float32"])
def test_vectors_read_back_without_nulls_and_with_their_rows(vector_type: VectorType) -> None:
    vectors = np.array([[1, 0], [9, 9], [0, 1]], np.float32)
    table = pa.table({"v": vector_array(vectors, np.array([True, False, True]), vector_type)})
    found, rows = vectors_of(table, "v")
    assert found.dtype == np.float32
    assert found.tolist() == [[1, 0], [0, 1]]
    assert rows.tolist() == [0, 2]


def test_vectors_of_a_sliced_and_chunked_table_are_its_own() -> None:
    vectors = np.eye(4, dtype=np.float32)
    table = pa.table({"v": vector_array(vectors, np.array([True, False, True, True]), "float32")})
    both = pa.concat_tables([table.slice(1, 2), table.slice(3)])
    found, rows = vectors_of(both, "v")
    assert found.tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]
    assert rows.tolist() == [1, 2]


def test_column_without_any_vector_reads_as_none() -> None:
    array = vector_array(np.zeros((2, 3), np.float32), np.array([False, False]), "float16")
    found, rows = vectors_of(pa.table({"v": array}), "v")
    assert found.shape == (0, 3)
    assert rows.tolist() == []


def test_no_rows_are_an_empty_array() -> None:
    array = vector_array(np.zeros((0, 3), np.float32), np.zeros(0, bool), "float16")
    assert len(array) == 0
    assert array.type.list_size == 3


@pytest.mark.parametrize("bad", [[np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0], [1.01, 0, 0], [3, 4, 0]])
def test_vector_that_is_not_finite_or_not_of_unit_length_raises(bad: list[float]) -> None:
    vectors = np.array([[1, 0, 0], bad], np.float32)
    with pytest.raises(ValueError, match="not finite or not of unit length"):
        vector_array(vectors, BOTH, "float16")


def test_invalid_rows_may_hold_anything() -> None:
    vectors = np.array([[np.nan, 0, 0], [0, 0.6, 0.8]], np.float32)
    assert vector_array(vectors, np.array([False, True]), "float32").is_valid().to_pylist() == [False, True]


def test_vector_array_leaves_its_input_alone() -> None:
    vectors, is_valid = UNIT.copy(), BOTH.copy()
    vector_array(vectors, is_valid, "float16")
    assert (vectors == UNIT).all()
    assert (is_valid == BOTH).all()


def test_part_says_what_it_holds(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    rejection = Rejection("shop.csv:7", "read", "missing_id")
    part = publish_part(storage, "run", encoded(part=12, rejections=(rejection,)))
    assert part.name == part_name(12) == "data/part-000012.parquet"
    assert (part.num_products, part.num_rejected) == (2, 1)
    assert (part.size_bytes, part.sha256) == (storage.size_bytes(part.name), storage.sha256(part.name))
    assert read_part_record(storage, part.name, "run") == part
    assert pq.read_table(tmp_path / str(part.rejected_name)).to_pylist() == [
        {"product_id": None, "source": "shop.csv:7", "stage": "read", "reason": "missing_id", "detail": ""}
    ]


def test_part_without_rejections_has_no_rejected_file(tmp_path: Path) -> None:
    part = publish_part(Storage.at(tmp_path), "run", encoded())
    assert part.rejected_name is None
    assert not (tmp_path / "rejected").exists()


def test_part_put_twice_keeps_the_first(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    first = publish_part(storage, "run", encoded(ids=("mug", "cup")))
    second = publish_part(storage, "run", encoded(ids=("pot", "lid")))
    assert second == first
    assert read_part(storage, first).column("product_id").to_pylist() == ["mug", "cup"]


def test_losing_writer_takes_its_rejected_file_away(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    rejection = Rejection("shop.csv:1", "read", "missing_id")
    first = publish_part(storage, "run", encoded(rejections=(rejection,)))
    second = publish_part(storage, "run", encoded(rejections=(rejection,)))
    assert second == first
    assert [f"rejected/{name}" for name in storage.names("rejected")] == [first.rejected_name]


def test_part_of_products_that_were_all_rejected_is_a_part(tmp_path: Path) -> None:
    rejection = Rejection("shop.csv:1", "read", "missing_id")
    part = publish_part(Storage.at(tmp_path), "run", encoded(ids=(), rejections=(rejection,)))
    assert (part.num_products, part.num_rejected) == (0, 1)
    assert read_part(Storage.at(tmp_path), part).num_rows == 0


def test_part_of_another_run_is_refused(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    part = publish_part(storage, "theirs", encoded())
    with pytest.raises(ArtifactError, match="belongs to another run"):
        publish_part(storage, "ours", encoded())
    with pytest.raises(ArtifactError, match="belongs to another run"):
        read_part_record(storage, part.name, "ours")


def test_parquet_file_of_somebody_else_is_refused_as_a_part(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "data" / "part-000000.parquet")
    with pytest.raises(ArtifactError, match="belongs to another run"):
        publish_part(Storage.at(tmp_path), "run", encoded())


def test_part_that_is_no_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-000000.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(ArtifactError, match="not a readable part"):
        read_part_record(Storage.at(tmp_path), part_name(0), "run")


def test_damaged_part_is_refused(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    part = publish_part(storage, "run", encoded())
    file = tmp_path / part.name
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match="SHA-256 differs from the manifest"):
        read_part(storage, part)


def test_missing_part_is_refused(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    part = publish_part(storage, "run", encoded())
    (tmp_path / part.name).unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        read_part(storage, part)


def test_parts_are_iterated_in_order_with_the_asked_columns(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    second = publish_part(storage, "run", encoded(part=1, ids=("pot",)))
    first = publish_part(storage, "run", encoded(part=0, ids=("mug", "cup")))
    assert published_parts(storage) == {first.name, second.name}
    tables = list(iterate_parts(storage, manifest_of(first, second), ["product_id"]))
    assert [table.to_pydict() for table in tables] == [{"product_id": ["mug", "cup"]}, {"product_id": ["pot"]}]


def test_reasons_are_counted_most_frequent_first(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    reasons = [("image_empty",), ("missing_id", "image_empty"), (), ("missing_id", "image_empty", "a_reason")]
    parts = [
        publish_part(storage, "run", encoded(part, rejections=tuple(Rejection("s", "read", why) for why in rejected)))
        for part, rejected in enumerate(reasons)
    ]
    assert list(count_reasons(storage, parts).items()) == [("image_empty", 3), ("missing_id", 2), ("a_reason", 1)]
    assert count_reasons(storage, []) == {}


def test_rejected_files_that_no_part_names_are_swept(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    part = publish_part(storage, "run", encoded(rejections=(Rejection("s", "read", "missing_id"),)))
    storage.put_if_absent("rejected/part-000000-dead.parquet", b"")
    sweep_rejections(storage, [part])
    assert [f"rejected/{name}" for name in storage.names("rejected")] == [part.rejected_name]


def test_manifest_reads_back_equal(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    part = publish_part(storage, "run", encoded())
    manifest = manifest_of(part, replace(part, name=part_name(1), num_rejected=3))
    storage.put_if_absent("manifest.json", manifest.to_bytes())
    assert read_manifest(storage) == manifest
    assert (manifest.num_products, manifest.num_rejected) == (4, 3)


def test_folder_without_a_manifest_is_not_finished(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not finished: run embed again"):
        read_manifest(Storage.at(tmp_path))


def test_manifest_of_a_newer_format_is_refused() -> None:
    newer = json.loads(manifest_of().to_bytes()) | {"format": 2}
    with pytest.raises(ArtifactError, match=r"newer version \(format 2\)"):
        parse_manifest(json.dumps(newer).encode(), "manifest.json")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 1}', b"\xff\xfe"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"manifest.json: not a manifest of embeddings"):
        parse_manifest(data, "manifest.json")


def test_fingerprints_differ_when_one_field_differs() -> None:
    fingerprint = Fingerprint("clip", "w", "p", "model", 3)
    changes = [{"family": "x"}, {"weights_sha256": "x"}, {"preprocessing_sha256": "x"}, {"pooling": "x"}, {"dim": 4}]
    digests = {fingerprint.digest, *(replace(fingerprint, **change).digest for change in changes)}
    assert len(digests) == 6
