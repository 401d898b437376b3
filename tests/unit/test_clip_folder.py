"""Folders of clip-retrieval become embeddings: every row in its place, what is wrong told once, nothing unpickled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from product_retrieval import clip_folder
from product_retrieval.clip_folder import ClipFolder, ClipFolderOptions, is_clip_folder, open_clip_folder
from product_retrieval.clip_import import check_made_by, import_folder, unit_rows
from product_retrieval.embeddings import iterate_parts, read_manifest, vectors_of
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.errors import ArtifactError, EncoderError, OptionsError
from product_retrieval.index.build_steps import (
    Build,
    as_stored,
    count_vectors,
    fill_piece,
    publish_trained,
    sample_vectors,
)
from product_retrieval.index.construction import deserialize
from product_retrieval.index.layout import all_rows, plan_shards
from product_retrieval.index.shard_files import gather_products, read_products
from product_retrieval.index.spec import IndexSpec
from product_retrieval.options import parse
from product_retrieval.storage import Storage
from rayjobs.build_index import BuildOptions
from rayjobs.clip_source import embeddings_to_index

ENCODER = HashEncoder()
DIM = ENCODER.fingerprint.dim
TITLES = [f"thing {row}" for row in range(7)]
HASH = ClipFolderOptions(model="hash")


def write_set(
    root: Path,
    number: str,
    *,
    images: NDArray[Any] | None = None,
    texts: NDArray[Any] | None = None,
    metadata: Mapping[str, Sequence[Any]] | None = None,
) -> None:
    """Write the files of one number as clip_inference/writer.py does."""
    for folder, prefix, vectors in (("img_emb", "img_emb", images), ("text_emb", "text_emb", texts)):
        if vectors is not None:
            (root / folder).mkdir(parents=True, exist_ok=True)
            np.save(root / folder / f"{prefix}_{number}.npy", vectors)
    if metadata is not None:
        (root / "metadata").mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(metadata)), root / "metadata" / f"metadata_{number}.parquet")


def text_vectors(titles: Sequence[str]) -> NDArray[np.float16]:
    return ENCODER.encode_texts(titles).astype(np.float16)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Write seven products in files 9, 10 and 11, named without zeros: by name, 10 comes before 9."""
    root = tmp_path / "clip"
    for number, rows in (("9", [0, 1, 2]), ("10", [3, 4]), ("11", [5, 6])):
        titles = [TITLES[row] for row in rows]
        metadata = {"image_path": [f"/shop/{row}.jpg" for row in rows], "caption": titles, "price": rows}
        write_set(root, number, images=text_vectors(titles), texts=text_vectors(titles), metadata=metadata)
    return root


def opened(root: Path, options: ClipFolderOptions = HASH) -> ClipFolder:
    return open_clip_folder(Storage.at(root), options, ENCODER.fingerprint)


def imported(root: Path, options: ClipFolderOptions = HASH, *, to: str = "imported") -> pa.Table:
    """Import a folder and return all its rows."""
    output = Storage.at(root.parent / to)
    manifest = import_folder(opened(root, options), output, ENCODER.fingerprint, num_checked=0)
    assert read_manifest(output) == manifest
    return pa.concat_tables(list(iterate_parts(output, manifest)))


def rejected(root: Path, to: str = "imported") -> list[tuple[str, str]]:
    """Return source and reason of what was rejected."""
    tables = [pq.read_table(file) for file in sorted((root.parent / to / "rejected").glob("*.parquet"))]
    return [(row["source"], row["reason"]) for table in tables for row in table.to_pylist()]


# What comes in


def test_rows_come_by_number_of_their_file_with_their_own_vectors(source: Path) -> None:
    table = imported(source)
    assert table.column("product_id").to_pylist() == [f"/shop/{row}.jpg" for row in range(7)]
    assert table.column("text").to_pylist() == TITLES
    assert table.column("price").to_pylist() == list(range(7))
    assert table.column("image_ref").null_count == 7
    for side in ("image", "text"):
        vectors, rows = vectors_of(table, f"{side}_vector")
        assert rows.tolist() == list(range(7))
        np.testing.assert_allclose(vectors, ENCODER.encode_texts(TITLES), atol=1e-3)


def test_blocks_cut_files_anywhere_and_give_the_same_rows(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = imported(source, to="whole")
    monkeypatch.setattr(clip_folder, "BLOCK_ROWS", 2)
    assert len(opened(source).blocks) == 4
    assert imported(source, to="cut").equals(whole)


@pytest.mark.parametrize("lacking", ["img_emb", "text_emb"])
def test_one_side_may_be_missing(source: Path, lacking: str) -> None:
    for file in (source / lacking).iterdir():
        file.unlink()
    (source / lacking).rmdir()
    table = imported(source)
    side = {"img_emb": "image", "text_emb": "text"}[lacking]
    assert len(table) == 7
    assert (table.column(f"{side}_vector").null_count, table.column(f"{side}_key").null_count) == (7, 7)


def test_vectors_are_brought_to_unit_length_and_those_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    images = 5 * text_vectors(TITLES[:4]).astype(np.float32)
    texts = images.copy()
    images[1], texts[1], images[2], texts[2, 3], images[3, 0] = 0, 0, np.nan, np.inf, np.inf
    write_set(tmp_path / "clip", "0", images=images, texts=texts, metadata={"image_path": list("abcd")})
    table = imported(tmp_path / "clip")
    assert table.column("product_id").to_pylist() == ["a", "d"]
    assert table.column("image_vector").is_valid().to_pylist() == [True, False]
    vectors, _ = vectors_of(table, "text_vector")
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3)
    reasons = [(f"metadata/metadata_0.parquet:{row}", "vector_not_finite") for row in (1, 2)]
    assert rejected(tmp_path / "clip") == reasons


def test_wider_numbers_that_no_float32_holds_are_left_out() -> None:
    unit, has = unit_rows(np.array([[3, 4], [np.inf, 0], [0, 0]], np.float32))
    assert has.tolist() == [True, False, False]
    assert unit.tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0], [0, 0]]


def test_ids_that_are_missing_or_taken_are_rejected_across_files(tmp_path: Path) -> None:
    root = tmp_path / "clip"
    write_set(root, "0", images=text_vectors(["a", "b"]), metadata={"sku": ["x", None], "image_path": ["p", "q"]})
    write_set(root, "1", images=text_vectors(["c", "d", "e"]), metadata={"sku": ["y", "x", ""]})
    table = imported(root, ClipFolderOptions(model="hash", product_id="sku"))
    assert table.column("product_id").to_pylist() == ["x", "y"]
    assert table.column("image_path").to_pylist() == ["p", None]
    first, second = "metadata/metadata_0.parquet", "metadata/metadata_1.parquet"
    expected = [(f"{first}:1", "missing_id"), (f"{second}:1", "repeated_id"), (f"{second}:2", "missing_id")]
    assert sorted(rejected(root)) == expected


def test_file_and_row_are_the_id_where_there_is_no_path(tmp_path: Path) -> None:
    write_set(tmp_path / "clip", "07", texts=text_vectors(["a", "b"]), metadata={"caption": ["a", "b"]})
    ids = imported(tmp_path / "clip").column("product_id").to_pylist()
    assert ids == ["metadata/metadata_07.parquet:0", "metadata/metadata_07.parquet:1"]


def test_columns_of_several_files_become_one_schema(tmp_path: Path) -> None:
    root = tmp_path / "clip"
    write_set(root, "0", images=text_vectors(["a"]), metadata={"image_path": ["a"], "price": [1], "note": [None]})
    write_set(root, "1", images=text_vectors(["b"]), metadata={"image_path": ["b"], "price": [1.5], "brand": ["x"]})
    table = imported(root)
    assert table.column("price").to_pylist() == [1.0, 1.5]
    assert table.column("brand").to_pylist() == [None, "x"]
    assert table.schema.field("note").type == pa.string()


def test_columns_called_like_ours_are_renamed(tmp_path: Path) -> None:
    metadata = {"image_path": ["a"], "caption": ["c"], "text": ["t"], "product_id": ["7"], "image_vector": [1]}
    write_set(tmp_path / "clip", "0", images=text_vectors(["a"]), metadata=metadata)
    (row,) = imported(tmp_path / "clip").to_pylist()
    assert (row["product_id"], row["text"]) == ("a", "c")
    assert (row["metadata_product_id"], row["metadata_text"], row["metadata_image_vector"]) == ("7", "t", 1)


def test_pictures_are_found_below_their_root_and_nowhere_else(tmp_path: Path) -> None:
    paths = ["/shop/a/1.jpg", "/shopping/2.jpg", "/etc/passwd", None]
    metadata = {"image_path": paths, "sku": list("1234")}
    write_set(tmp_path / "clip", "0", images=text_vectors(list("abcd")), metadata=metadata)
    options = ClipFolderOptions(model="hash", product_id="sku", image_root="/shop/")
    assert imported(tmp_path / "clip", options).column("image_ref").to_pylist() == ["a/1.jpg", None, None, None]


def test_killed_import_goes_on_where_it_was(source: Path) -> None:
    whole = imported(source, to="whole")
    part = source.parent / "imported" / "data" / "part-000001.parquet"
    imported(source)
    before = part.stat().st_mtime_ns
    (source.parent / "imported" / "manifest.json").unlink()
    (source.parent / "imported" / "data" / "part-000000.parquet").unlink()
    assert imported(source).equals(whole)
    assert part.stat().st_mtime_ns == before, "a part that was there was written again"


def test_changed_folder_is_another_run(source: Path) -> None:
    before = opened(source).run_id
    assert opened(source).run_id == before
    assert opened(source, ClipFolderOptions(model="hash", image_root="/shop")).run_id != before
    write_set(source, "11", texts=text_vectors(["other", "words"]))
    assert opened(source).run_id != before


def test_index_of_a_folder_finds_its_products(source: Path) -> None:
    imported(source)
    storage = Storage.at(source.parent / "imported")
    build = Build(storage, read_manifest(storage), Storage.at(source.parent / "index"), "build")
    assert [count_vectors(build, part) for part in range(3)] == [{"image": n, "text": n} for n in (3, 2, 2)]
    sampled = [sample_vectors(build, part, shares={"text": 1.0}, seed=0)["text"] for part in all_rows(build.manifest)]
    np.testing.assert_array_equal(np.concatenate(sampled), as_stored(ENCODER.encode_texts(TITLES)).astype(np.float16))
    (plan,) = plan_shards(all_rows(build.manifest), shard_rows=100)
    products, _, keys = gather_products(build, plan)
    assert read_products(build.output, products).column("text").to_pylist() == TITLES
    assert np.load(build.output.path(keys)).any(axis=1).all()
    trained = publish_trained(build, "text", IndexSpec("Flat", ""), sampled, seed=0)
    filled = deserialize(build.output.read(fill_piece(build, plan, "text", 0, trained)))
    _, rows = filled.search(ENCODER.encode_texts(["thing 4"]), 1)
    assert rows.tolist() == [[4]]


def test_part_of_rejected_rows_and_missing_sides_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "clip"
    write_set(root, "0", texts=np.zeros((2, DIM), np.float16), metadata={"image_path": ["a", "b"]})
    write_set(root, "1", texts=text_vectors(["c", "d"]), metadata={"image_path": ["c", "d"]})
    assert imported(root).column("product_id").to_pylist() == ["c", "d"]
    storage = Storage.at(tmp_path / "imported")
    build = Build(storage, read_manifest(storage), Storage.at(tmp_path / "index"), "build")
    assert [count_vectors(build, part) for part in range(2)] == [{"image": 0, "text": 0}, {"image": 0, "text": 2}]


# What does not


def cut(file: Path, num_bytes: int) -> None:
    file.write_bytes(file.read_bytes()[:num_bytes])


def save(vectors: NDArray[Any]) -> Callable[[Path], None]:
    """Return what replaces the image vectors of file 10."""
    return lambda root: np.save(root / "img_emb" / "img_emb_10.npy", vectors, allow_pickle=True)


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "fewer vectors": (save(text_vectors(["a"])), "img_emb_10.npy: has 1 rows, but metadata/metadata_10.parquet has 2"),
    "other dimension": (save(np.ones((2, 8), np.float16)), "vectors of 8 dimensions, but those of hash have 64"),
    "objects": (save(np.array([["a", {}]], object)), "floating-point numbers are wanted"),
    "whole numbers": (save(np.ones((2, DIM), np.int8)), "holds int8"),
    "one dimension": (save(np.ones(2 * DIM, np.float16)), "floating-point numbers are wanted"),
    "Fortran order": (save(np.asfortranarray(np.ones((2, DIM), np.float16))), "Fortran order"),
    "cut numbers": (lambda root: cut(root / "img_emb/img_emb_10.npy", 200), "cut off or damaged"),
    "cut header": (lambda root: cut(root / "img_emb/img_emb_10.npy", 40), "not a readable .npy file"),
    "empty file": (lambda root: cut(root / "img_emb/img_emb_10.npy", 0), "not a readable .npy file"),
    "no vectors": (lambda root: (root / "img_emb/img_emb_10.npy").unlink(), "img_emb: has no file number 10"),
    "no metadata": (lambda root: (root / "metadata/metadata_10.parquet").unlink(), "metadata: has no file number 10"),
    "cut metadata": (lambda root: cut(root / "metadata/metadata_10.parquet", 99), "not a readable Parquet file"),
    "same number": (
        lambda root: (root / "img_emb/img_emb_010.npy").write_bytes(b""),
        "img_emb_10.npy: has the same number as img_emb/img_emb_010.npy",
    ),
    "no number": (lambda root: (root / "img_emb/mine.npy").write_bytes(b""), "mine.npy: has no number"),
    "mixed columns": (
        lambda root: write_set(root, "10", metadata={"image_path": ["a", "b"], "price": ["cheap", "dear"]}),
        "do not fit together",
    ),
    "captions of lists": (
        lambda root: [
            write_set(root, n, metadata={"caption": [["a"]] * r}) for n, r in (("9", 3), ("10", 2), ("11", 2))
        ],
        "caption holds list",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_folder_is_one_clear_error(source: Path, what: str) -> None:
    spoil, message = BROKEN[what]
    spoil(source)
    with pytest.raises(ArtifactError) as caught:
        opened(source)
    assert message in str(caught.value)
    assert str(source) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pickled_objects_are_never_loaded(source: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (source / "sprung",))

    save(np.array([[Trap()]], object))(source)
    with pytest.raises(ArtifactError):
        opened(source)
    assert not (source / "sprung").exists()


def test_damaged_page_of_metadata_is_named(source: Path) -> None:
    file = source / "metadata" / "metadata_10.parquet"
    data = bytearray(file.read_bytes())
    data[4:40] = b"\xff" * 36
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"metadata_10\.parquet: cannot read ids from 'image_path'"):
        opened(source)


def test_file_that_shrinks_meanwhile_is_told(source: Path) -> None:
    folder = opened(source)
    cut(source / "text_emb" / "text_emb_10.npy", 200)
    with pytest.raises(ArtifactError, match=r"text_emb_10\.npy: ends too soon"):
        import_folder(folder, Storage.at(source.parent / "imported"), ENCODER.fingerprint, num_checked=0)


@pytest.mark.parametrize("vectors", [np.zeros((2, DIM), np.float16), np.zeros((0, DIM), np.float16)])
def test_folder_without_any_vector_is_refused(tmp_path: Path, vectors: NDArray[np.float16]) -> None:
    paths = pa.array([str(row) for row in range(len(vectors))], pa.string())
    write_set(tmp_path / "clip", "0", images=vectors, metadata={"image_path": paths})
    with pytest.raises(ArtifactError, match="no product has an id and a vector"):
        imported(tmp_path / "clip")


def test_column_for_ids_must_be_there(source: Path) -> None:
    with pytest.raises(ArtifactError, match="no column 'sku' for the ids; it has image_path, caption, price"):
        opened(source, ClipFolderOptions(model="hash", product_id="sku"))


# Which model


def test_captions_say_whether_the_model_made_the_vectors(source: Path) -> None:
    assert check_made_by(opened(source), ENCODER) == 3, "the captions of the first file"
    for number, rows in (("9", 3), ("10", 2), ("11", 2)):
        other = np.random.default_rng(0).standard_normal((rows, DIM)).astype(np.float16)
        write_set(source, number, texts=other)
    with pytest.raises(EncoderError, match="hash did not make these vectors"):
        check_made_by(opened(source), ENCODER)


def test_without_captions_the_model_is_only_stated(tmp_path: Path) -> None:
    write_set(tmp_path / "clip", "0", images=text_vectors(["a"]), metadata={"image_path": ["a"]})
    assert check_made_by(opened(tmp_path / "clip"), ENCODER) == 0


# The job


def test_job_takes_its_embeddings_from_the_import_and_makes_it_once(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = Storage.at(source.parent / "index")
    embeddings = embeddings_to_index(Storage.at(source), HASH, output)
    assert "7 products of clip-retrieval, 0 rejected; model checked by 3 captions" in capsys.readouterr().out
    manifest = read_manifest(embeddings)
    assert (manifest.model, manifest.fingerprint) == ("hash", ENCODER.fingerprint)
    assert (manifest.catalog["kind"], manifest.catalog["captions_checked"]) == ("clip-retrieval", 3)
    assert json.loads(embeddings.read("run.json"))["options"]["model"] == "hash"
    assert embeddings_to_index(Storage.at(source), HASH, output) == embeddings
    assert capsys.readouterr().out == ""


def test_job_asks_for_the_model_and_leaves_embeddings_alone(source: Path) -> None:
    output = Storage.at(source.parent / "index")
    with pytest.raises(OptionsError, match=r"name it with --clip-retrieval\.model"):
        embeddings_to_index(Storage.at(source), ClipFolderOptions(), output)
    ours = embeddings_to_index(Storage.at(source), HASH, output)
    assert not is_clip_folder(ours)
    assert embeddings_to_index(ours, ClipFolderOptions(), output) == ours


def test_options_of_the_job_name_the_model() -> None:
    words = ["--embeddings", "a", "--output", "b", "--clip-retrieval.model", "m", "--clip-retrieval.product-id", "sku"]
    options = parse(BuildOptions, words, program="p", description="")
    assert options.clip_retrieval == ClipFolderOptions(model="m", product_id="sku")
