"""Versions published once, an alias that moves in one step, and files that are checked before they are used."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexManifest, open_index
from product_retrieval.index.construction import fill, train
from product_retrieval.index.spec import EXACT, IndexSpec
from product_retrieval.index.versions import (
    ALIAS,
    SideManifest,
    current_version,
    describe_file,
    find_build,
    promote,
    publish,
    read_manifest,
    version_name,
    versions,
)
from product_retrieval.storage import Storage, to_buffer

VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
FILES = ("builds/b/image.faiss", "builds/b/image.vectors.npy", "builds/b/products.arrow", "builds/b/rows_by_id.npy")


def write_build(storage: Storage) -> IndexManifest:
    """Write the files of an index of three products and return its manifest."""
    products = pa.table({"product_id": ["mug", "cup", "jug"], "title": ["Mug", "Cup", "Jug"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, products.schema) as writer:
        writer.write_table(products)
    contents = (
        fill(train(VECTORS, IndexSpec("Flat", ""), seed=0), VECTORS, np.arange(3)),
        to_buffer(lambda file: np.save(file, VECTORS.astype(np.float16))),
        sink.getvalue().to_pybytes(),
        to_buffer(lambda file: np.save(file, np.array([1, 2, 0]))),
    )
    for name, data in zip(FILES, contents, strict=True):
        storage.put_if_absent(name, data)
    faiss_file, vectors, arrow, order = (describe_file(storage, name) for name in FILES)
    return IndexManifest(
        build_id="b",
        fingerprint=Fingerprint("hash", "", "", "sum", 2),
        model="hash",
        embeddings_uri="embeddings",
        embeddings_run_id="run",
        catalog={"uri": "shop", "image_root": "shop", "image_column": "image"},
        num_products=3,
        dim=2,
        options={"seed": 0},
        sides={"image": SideManifest("Flat", "few", 3, faiss_file, vectors, {"image": EXACT, "text": EXACT})},
        products=arrow,
        rows_by_id=order,
    )


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.at(tmp_path / "index")


@pytest.fixture
def published(storage: Storage) -> Iterator[IndexManifest]:
    """Publish and promote one version."""
    manifest = publish(storage, write_build(storage))
    promote(storage, manifest.version)
    return manifest


def test_nothing_published_is_not_an_index(storage: Storage) -> None:
    assert versions(storage) == []
    assert find_build(storage, "b") is None
    with pytest.raises(ArtifactError, match=r"no current.json; either no index or not finished: run build_index"):
        open_index(storage)


def test_published_version_opens_and_answers(storage: Storage, published: IndexManifest) -> None:
    index, manifest = open_index(storage)
    assert manifest == published
    assert index.version == 1
    hits = index.search(np.array([[0, 1]], np.float32), against="image", k=3)
    assert [product["product_id"] for product in index.describe(hits.rows[0].tolist())] == ["jug", "cup", "mug"]
    assert index.row_of("cup") == 1


def test_manifest_reads_back_equal(storage: Storage, published: IndexManifest) -> None:
    assert read_manifest(storage, 1) == published
    assert find_build(storage, "b") == published
    assert find_build(storage, "other") is None


def test_versions_count_up_and_the_alias_stays_until_moved(storage: Storage, published: IndexManifest) -> None:
    second = publish(storage, replace(published, build_id="c"))
    assert (second.version, versions(storage)) == (2, [1, 2])
    assert current_version(storage) == 1
    assert open_index(storage, 2)[0].version == 2
    promote(storage, 2)
    assert current_version(storage) == 2
    promote(storage, 1)
    assert current_version(storage) == 1


def test_newest_version_of_a_build_is_found(storage: Storage, published: IndexManifest) -> None:
    publish(storage, replace(published, build_id="c"))
    publish(storage, published)
    found = find_build(storage, "b")
    assert found is not None
    assert found.version == 3


def test_threads_that_publish_at_once_get_a_version_each(storage: Storage) -> None:
    manifest = write_build(storage)
    start = threading.Barrier(6)

    def put(writer: int) -> int:
        start.wait()
        return publish(storage, replace(manifest, build_id=str(writer))).version

    with ThreadPoolExecutor(6) as threads:
        given = list(threads.map(put, range(6)))
    assert sorted(given) == [1, 2, 3, 4, 5, 6]
    assert [read_manifest(storage, version).build_id for version in given] == list("012345")
    assert all(read_manifest(storage, version).version == version for version in given)


def test_threads_that_promote_at_once_lose_no_move_unseen(storage: Storage, published: IndexManifest) -> None:
    for build in "abc":
        publish(storage, replace(published, build_id=build))
    start = threading.Barrier(4)

    def move(version: int) -> bool:
        start.wait()
        try:
            promote(storage, version)
        except ArtifactError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        moved = list(threads.map(move, [1, 2, 3, 4]))
    alias = json.loads(storage.read(ALIAS))
    assert sum(moved) >= 1
    assert moved[alias["version"] - 1]
    assert alias["generation"] == 1 + sum(moved)


def test_alias_cannot_name_a_missing_version(storage: Storage, published: IndexManifest) -> None:
    with pytest.raises(ArtifactError, match=r"no version 7; it has \[1\]"):
        promote(storage, 7)
    assert current_version(storage) == published.version


def test_version_that_was_deleted_under_the_alias_is_refused(storage: Storage, published: IndexManifest) -> None:
    storage.delete(version_name(published.version))
    with pytest.raises(ArtifactError, match=r"versions/000001\.json: no such file"):
        open_index(storage)


@pytest.mark.parametrize("name", FILES)
def test_flipped_bit_in_any_file_is_refused(storage: Storage, published: IndexManifest, name: str) -> None:
    file = Path(storage.path(name))
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match=f"{name}: SHA-256 differs from the manifest") as raised:
        open_index(storage, published.version)
    assert raised.value.path == name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file_is_refused(storage: Storage, published: IndexManifest, name: str, share: float) -> None:
    file = Path(storage.path(name))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArtifactError, match="differs from the manifest"):
        open_index(storage, published.version)


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_refused(storage: Storage, published: IndexManifest, name: str) -> None:
    Path(storage.path(name)).unlink()
    with pytest.raises(ArtifactError, match=f"{name}"):
        open_index(storage, published.version)


def test_index_that_holds_fewer_vectors_than_its_manifest_says_is_refused(storage: Storage) -> None:
    manifest = write_build(storage)
    side = replace(manifest.sides["image"], num_vectors=4)
    publish(storage, replace(manifest, sides={"image": side}))
    with pytest.raises(ArtifactError, match="index has"):
        open_index(storage, 1)


def test_manifest_of_a_newer_format_is_refused(storage: Storage, published: IndexManifest) -> None:
    newer = replace(published, format=2)
    storage.put_if_absent(version_name(2), newer.to_bytes())
    with pytest.raises(ArtifactError, match=r"newer version \(format 2\)"):
        read_manifest(storage, 2)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 1}', b"\xff"])
def test_damaged_manifest_is_refused(storage: Storage, data: bytes) -> None:
    storage.put_if_absent(version_name(1), data)
    with pytest.raises(ArtifactError, match=r"versions/000001\.json: not a manifest of an index"):
        open_index(storage, 1)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"generation": 1}', b'{"version": null}'])
@pytest.mark.usefixtures("published")
def test_damaged_alias_is_refused(storage: Storage, data: bytes) -> None:
    Path(storage.path(ALIAS)).write_bytes(data)
    with pytest.raises(ArtifactError, match=r"current\.json"):
        open_index(storage)


def test_stray_file_beside_the_versions_is_no_version(storage: Storage, published: IndexManifest) -> None:
    storage.put_if_absent("versions/notes.json", b"{}")
    assert versions(storage) == [published.version]


def test_opened_arrays_cannot_be_written(storage: Storage, published: IndexManifest) -> None:
    index, _ = open_index(storage, published.version)
    with pytest.raises(ValueError, match="read-only"):
        index.sides["image"].vectors[0] = 0
