"""Versions published once, an alias that moves in one step, and files that are checked before they are used."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from product_retrieval.command import run
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexManifest, open_index
from product_retrieval.index.construction import fill, train
from product_retrieval.index.manifest import Shard, ShardSide, SideManifest, describe_file
from product_retrieval.index.retention import Garbage, collect, find_garbage
from product_retrieval.index.spec import EXACT, IndexSpec
from product_retrieval.index.versions import (
    ALIAS,
    current_version,
    find_build,
    promote,
    promote_if_never_served,
    publish,
    read_alias,
    read_manifest,
    rollback,
    version_name,
    versions,
)
from product_retrieval.storage import Storage, to_buffer
from product_retrieval.versions import PROGRAM, VersionsOptions, manage

VECTORS = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
SEARCHED = (
    "builds/b/image.faiss",
    "builds/b/image.vectors.npy",
    "builds/b/products.arrow",
    "builds/b/rows_by_id.npy",
)
FILES = (*SEARCHED, "builds/b/keys.npy", "builds/b/image.trained.faiss")


def write_build(storage: Storage) -> IndexManifest:
    """Write the files of an index of three products and return its manifest."""
    products = pa.table({"product_id": ["mug", "cup", "jug"], "title": ["Mug", "Cup", "Jug"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, products.schema) as writer:
        writer.write_table(products)
    trained_flat = train(VECTORS, IndexSpec("Flat", ""), seed=0)
    contents = (
        fill(trained_flat, VECTORS, np.arange(3)),
        to_buffer(lambda file: np.save(file, VECTORS.astype(np.float16))),
        sink.getvalue().to_pybytes(),
        to_buffer(lambda file: np.save(file, np.array([1, 2, 0]))),
        to_buffer(lambda file: np.save(file, np.zeros((3, 32), np.uint8))),
        trained_flat,
    )
    for name, data in zip(FILES, contents, strict=True):
        storage.put_if_absent(name, data)
    faiss_file, vectors, arrow, order, keys, trained = (describe_file(storage, name) for name in FILES)
    shard = Shard(0, 3, arrow, order, keys, {"image": ShardSide(faiss_file, vectors, 3)})
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
        sides={"image": SideManifest("Flat", "few", 3, trained, {"image": EXACT, "text": EXACT})},
        shards=(shard,),
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


def test_rollback_goes_back_step_by_step(storage: Storage, published: IndexManifest) -> None:
    for build in "ab":
        promote(storage, publish(storage, replace(published, build_id=build)).version)
    promote(storage, 3)  # already there: nothing to go back to
    assert read_alias(storage).history == (1, 2)
    assert [rollback(storage), rollback(storage)] == [2, 1]
    assert (current_version(storage), read_alias(storage).generation) == (1, 6)
    with pytest.raises(ArtifactError, match="no version was served before 1"):
        rollback(storage)


def test_version_that_was_never_served_is_promoted_and_one_taken_back_is_not(
    storage: Storage, published: IndexManifest
) -> None:
    publish(storage, replace(published, build_id="c"))
    promote_if_never_served(storage, 2)
    assert current_version(storage) == 2
    rollback(storage)
    promote_if_never_served(storage, 2)
    assert current_version(storage) == 1


def test_rollback_to_a_version_that_is_gone_is_refused(storage: Storage, published: IndexManifest) -> None:
    promote(storage, publish(storage, replace(published, build_id="c")).version)
    storage.delete(version_name(published.version))
    with pytest.raises(ArtifactError, match=r"no version 1; it has \[2\]"):
        rollback(storage)
    assert current_version(storage) == 2


# Cleaning up

LATER_S = 4e9
"""2096: everything is old by then."""


def clean(storage: Storage, *, keep: int = 1, now_s: float = LATER_S) -> Garbage:
    garbage = find_garbage(storage, keep=keep, min_age_s=3600, now_s=now_s)
    return collect(storage, garbage, keep=keep, min_age_s=3600, now_s=now_s)


def with_own_file(storage: Storage, manifest: IndexManifest, build: str) -> IndexManifest:
    """Return a version of a build that has tombstones of its own and shares everything else."""
    name = f"builds/{build}/tombstones.npy"
    storage.put_if_absent(name, to_buffer(lambda file: np.save(file, np.array([0]))))
    (shard,) = manifest.shards
    shard = replace(shard, tombstones=describe_file(storage, name), num_tombstones=1)
    return replace(manifest, build_id=build, shards=(shard,), num_products=2)


def test_clean_up_leaves_what_is_served_and_the_files_that_it_shares(
    storage: Storage, published: IndexManifest
) -> None:
    for build in "cd":
        promote(storage, publish(storage, with_own_file(storage, published, build)).version)
    assert clean(storage) == Garbage((1, 2), ("builds/c/tombstones.npy",), 136)
    assert versions(storage) == [3]
    index, _ = open_index(storage)
    assert (index.num_products, index.row_of("mug"), index.row_of("cup")) == (2, None, 1)


def test_clean_up_leaves_the_newest_versions_and_the_served_one(storage: Storage, published: IndexManifest) -> None:
    for build in "cde":
        publish(storage, with_own_file(storage, published, build))
    assert clean(storage, keep=2).versions == (2,)
    assert versions(storage) == [1, 3, 4]
    for version in versions(storage):
        open_index(storage, version)


def test_clean_up_leaves_what_is_young(storage: Storage, published: IndexManifest) -> None:
    promote(storage, publish(storage, with_own_file(storage, published, "c")).version)
    storage.put_if_absent("builds/running/shard-00000/pieces/image-00000.faiss", b"half a build")
    assert clean(storage, now_s=time.time()) == Garbage((), (), 0)
    assert clean(storage).files == ("builds/running/shard-00000/pieces/image-00000.faiss",)


def test_version_that_was_served_a_moment_ago_is_left(storage: Storage, published: IndexManifest) -> None:
    old = replace(read_manifest(storage, 1), created="2020-01-01T00:00:00+00:00")
    storage.delete(version_name(1))
    storage.put_if_absent(version_name(1), old.to_bytes())
    promote(storage, publish(storage, with_own_file(storage, published, "c")).version)
    assert clean(storage, now_s=time.time()).versions == ()
    assert clean(storage).versions == (1,)


def test_version_that_is_promoted_while_it_is_deleted_comes_back(
    storage: Storage, published: IndexManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for build in "cd":
        publish(storage, with_own_file(storage, published, build))
    delete = Storage.delete

    def promote_first(self: Storage, name: str) -> None:
        if name == version_name(2):
            promote(storage, 2)
        delete(self, name)

    garbage = find_garbage(storage, keep=1, min_age_s=0, now_s=LATER_S)
    assert garbage.versions == (2,)
    monkeypatch.setattr(Storage, "delete", promote_first)
    assert collect(storage, garbage, keep=1, min_age_s=0, now_s=LATER_S).versions == ()
    assert open_index(storage)[1].version == 2


def test_nothing_is_deleted_when_a_manifest_that_stays_cannot_be_read(
    storage: Storage, published: IndexManifest
) -> None:
    storage.put_if_absent(version_name(2), b"{")
    with pytest.raises(ArtifactError, match="not a manifest"):
        clean(storage)
    assert open_index(storage)[1].version == published.version


# The command


def run_versions(*words: object) -> int:
    return run(manage, VersionsOptions, program=PROGRAM, description="", argv=[str(word) for word in words])


@pytest.mark.usefixtures("process_state")
def test_command_lists_shows_moves_and_cleans_up(
    storage: Storage, published: IndexManifest, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(storage, with_own_file(storage, published, "c"))

    def output(*words: object) -> str:
        assert run_versions(words[0], storage.uri, *words[1:]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    stars = [line.split()[:2] for line in output("list").splitlines()[1:]]
    assert stars == [["*", "1"], ["2", read_manifest(storage, 2).created]]
    storage.put_if_absent(version_name(9), b"{")
    assert "9  " in output("list")
    assert "not a manifest of an index" in output("list")
    storage.delete(version_name(9))
    assert "Flat, 3 vectors" in output("show")
    assert "version 2 is served" in output("promote", 2)
    assert "2, published" in output("show")
    assert "back to version 1" in output("rollback")
    assert "would delete versions: none; 0 files" in output("gc", "--dry-run")
    publish(storage, with_own_file(storage, published, "d"))
    assert "deleted versions: 2; 1 files, 136 B" in output("gc", "--keep", 1, "--min-age-hours", 0)


@pytest.mark.usefixtures("process_state", "published")
@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["promote"], 2, "promote which version?"),
        (["promote", "9"], 4, "no version 9; it has [1]"),
        (["rollback"], 4, "no version was served before 1"),
        (["gc", "1"], 2, "gc takes no version"),
        (["gc", "--keep", "0"], 2, "--keep must be at least 1"),
        (["frob"], 2, "frob"),
    ],
)
def test_mistakes_end_in_one_line(
    storage: Storage, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_versions(words[0], storage.uri, *words[1:]) == code
    assert message in capsys.readouterr().err


def test_alias_cannot_name_a_missing_version(storage: Storage, published: IndexManifest) -> None:
    with pytest.raises(ArtifactError, match=r"no version 7; it has \[1\]"):
        promote(storage, 7)
    assert current_version(storage) == published.version


def test_version_that_was_deleted_under_the_alias_is_refused(storage: Storage, published: IndexManifest) -> None:
    storage.delete(version_name(published.version))
    with pytest.raises(ArtifactError, match=r"versions/000001\.json: no such file"):
        open_index(storage)


@pytest.mark.parametrize("name", SEARCHED)
def test_flipped_bit_in_any_file_is_refused(storage: Storage, published: IndexManifest, name: str) -> None:
    file = Path(storage.path(name))
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(bytes(damaged))
    with pytest.raises(ArtifactError, match=f"{name}: SHA-256 differs from the manifest") as raised:
        open_index(storage, published.version)
    assert raised.value.path == name


@pytest.mark.parametrize("name", SEARCHED)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file_is_refused(storage: Storage, published: IndexManifest, name: str, share: float) -> None:
    file = Path(storage.path(name))
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArtifactError, match="differs from the manifest"):
        open_index(storage, published.version)


@pytest.mark.parametrize("name", SEARCHED)
def test_missing_file_is_refused(storage: Storage, published: IndexManifest, name: str) -> None:
    Path(storage.path(name)).unlink()
    with pytest.raises(ArtifactError, match=f"{name}"):
        open_index(storage, published.version)


def test_index_that_holds_fewer_vectors_than_its_manifest_says_is_refused(storage: Storage) -> None:
    manifest = write_build(storage)
    (shard,) = manifest.shards
    side = replace(shard.sides["image"], num_vectors=4)
    publish(storage, replace(manifest, shards=(replace(shard, sides={"image": side}),)))
    with pytest.raises(ArtifactError, match="index has"):
        open_index(storage, 1)


@pytest.mark.parametrize(("number", "age"), [(1, "an older"), (3, "a newer")])
def test_manifest_of_another_format_is_refused(
    storage: Storage, published: IndexManifest, number: int, age: str
) -> None:
    other = replace(published, format=number)
    storage.put_if_absent(version_name(2), other.to_bytes())
    with pytest.raises(ArtifactError, match=rf"{age} version \(format {number}\)"):
        read_manifest(storage, 2)
    assert find_build(storage, "b") == published, "what cannot be read is no reason not to build again"


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"{}", b'{"format": 2}', b"\xff"])
def test_damaged_manifest_is_refused(storage: Storage, data: bytes) -> None:
    storage.put_if_absent(version_name(1), data)
    with pytest.raises(ArtifactError, match=r"versions/000001\.json: not a manifest of an index"):
        open_index(storage, 1)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"generation": 1, "version": 1}', b'{"version": null}'])
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
        index.shards[0].sides["image"].vectors[0] = 0
