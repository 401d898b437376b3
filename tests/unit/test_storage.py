"""Files that become visible whole, once, and in one step."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.storage import ABANDONED_AFTER_S, STAGING, Storage, to_buffer

NUM_WRITERS = 8


def test_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Storage.at("out/index").uri == f"{tmp_path}/out/index"


def test_file_url_is_a_local_folder(tmp_path: Path) -> None:
    assert Storage.at(f"file://{tmp_path}") == Storage.at(tmp_path)
    assert Storage.at(f"file://{tmp_path}").is_local


def test_trailing_slash_is_no_difference(tmp_path: Path) -> None:
    assert Storage.at(f"{tmp_path}/") == Storage.at(tmp_path)
    assert Storage.at("memory://bucket/a/").uri == "memory://bucket/a"


def test_unknown_scheme_is_a_wrong_option() -> None:
    with pytest.raises(OptionsError, match="nosuchscheme"):
        Storage.at("nosuchscheme://bucket")


def test_storage_survives_pickle(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path).sub("a")
    assert pickle.loads(pickle.dumps(storage)) == storage


def test_first_put_wins_and_the_second_changes_nothing(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    assert storage.put_if_absent("data/part.bin", b"first") is True
    assert storage.put_if_absent("data/part.bin", b"second") is False
    assert storage.read("data/part.bin") == b"first"


def test_empty_file_can_be_put_once(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    assert storage.put_if_absent("empty", b"") is True
    assert storage.put_if_absent("empty", b"x") is False
    assert storage.read("empty") == b""


def test_of_many_writers_exactly_one_puts(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    start = threading.Barrier(NUM_WRITERS)

    def put(writer: int) -> bool:
        start.wait()
        return storage.put_if_absent("part", str(writer).encode())

    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        won = list(threads.map(put, range(NUM_WRITERS)))
    assert sum(won) == 1
    assert storage.read("part") == str(won.index(True)).encode()


def test_nothing_half_written_is_left_behind(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.put_if_absent("data/a", b"1")
    storage.put_if_absent("data/a", b"2")
    storage.swap("data/a", b"3", expected=b"1")
    assert list((tmp_path / STAGING).iterdir()) == []
    assert storage.names("data") == ["a", "a.lock"]


def test_new_file_is_published_once_and_whole(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    for content in (b"first", b"second"):
        with storage.new_file("shard/image.faiss") as path:
            path.write_bytes(content)
            assert storage.exists("shard/image.faiss") == (content == b"second")
    assert storage.read("shard/image.faiss") == b"first"
    with pytest.raises(ValueError, match="broken"), storage.new_file("other") as path:
        raise ValueError("broken")
    assert not storage.exists("other")
    assert not list((tmp_path / ".staging").iterdir())


def test_files_below_a_folder_have_names_sizes_and_times(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    assert storage.files_below("builds") == []
    for name in ("builds/a/one", "builds/b/c/two", "versions/three"):
        storage.put_if_absent(name, b"12345")
    found = storage.files_below("builds")
    assert [(name, size) for name, size, _ in found] == [("builds/a/one", 5), ("builds/b/c/two", 5)]
    assert all(changed > 1.6e9 for _, _, changed in found)


def test_put_where_the_parent_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(ArtifactError, match="taken/part: cannot write there"):
        Storage.at(tmp_path).put_if_absent("taken/part", b"x")


def test_swap_with_a_stale_expectation_loses(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.put_if_absent("alias", b"1")
    assert storage.swap("alias", b"2", expected=b"1") is True
    assert storage.swap("alias", b"3", expected=b"1") is False
    assert storage.read("alias") == b"2"


def test_swap_that_expects_nothing_loses_to_a_file(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    assert storage.swap("alias", b"1", expected=None) is True
    assert storage.swap("alias", b"2", expected=None) is False
    assert storage.read("alias") == b"1"


def test_swap_of_a_file_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="alias: no such file"):
        Storage.at(tmp_path).swap("alias", b"2", expected=b"1")


def test_of_many_swaps_of_one_state_exactly_one_succeeds(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.put_if_absent("alias", b"before")
    start = threading.Barrier(NUM_WRITERS)

    def swap(writer: int) -> bool:
        start.wait()
        return storage.swap("alias", str(writer).encode(), expected=b"before")

    with ThreadPoolExecutor(NUM_WRITERS) as threads:
        won = list(threads.map(swap, range(NUM_WRITERS)))
    assert sum(won) == 1
    assert storage.read("alias") == str(won.index(True)).encode()


def test_swaps_count_without_losing_one(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.put_if_absent("count", b"0")

    def add_five(_writer: int) -> None:
        added = 0
        while added < 5:
            seen = storage.read("count")
            added += storage.swap("count", str(int(seen) + 1).encode(), expected=seen)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_five, range(4)))
    assert storage.read("count") == b"20"


def test_names_are_sorted_files_without_folders(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    for name in ("data/b", "data/a", "data/deep/c"):
        storage.put_if_absent(name, b"")
    assert storage.names("data") == ["a", "b"]
    assert storage.names("nowhere") == []


def test_missing_file_is_an_artifact_error_with_its_path(tmp_path: Path) -> None:
    for read in (Storage.read, Storage.open, Storage.sha256):
        with pytest.raises(ArtifactError, match="nothing: no such file") as raised:
            read(Storage.at(tmp_path), "nothing")
        assert raised.value.path == f"{tmp_path}/nothing"


def test_size_and_sha256_are_those_of_the_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000  # more than one chunk of the hash
    storage = Storage.at(tmp_path)
    storage.put_if_absent("data", data)
    assert storage.size_bytes("data") == 1_280_000
    assert storage.sha256("data") == hashlib.sha256(data).hexdigest()


def test_delete_twice_is_fine(tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    storage.put_if_absent("a", b"")
    storage.delete("a")
    storage.delete("a")
    assert storage.exists("a") is False


def test_clear_staging_deletes_old_files_and_keeps_young_ones(tmp_path: Path) -> None:
    staging = tmp_path / STAGING
    staging.mkdir()
    for name in ("old", "young"):
        (staging / name).write_bytes(b"half")
    long_ago = os.stat(staging / "young").st_mtime - ABANDONED_AFTER_S - 60
    os.utime(staging / "old", (long_ago, long_ago))
    Storage.at(tmp_path).clear_staging()
    assert [file.name for file in staging.iterdir()] == ["young"]


def test_clear_staging_removes_an_empty_folder_and_accepts_none(tmp_path: Path) -> None:
    (tmp_path / STAGING).mkdir()
    Storage.at(tmp_path).clear_staging()
    Storage.at(tmp_path).clear_staging()
    assert not (tmp_path / STAGING).exists()


def test_to_buffer_returns_what_was_written() -> None:
    assert to_buffer(lambda file: file.write(b"abc")) == b"abc"
