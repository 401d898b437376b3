"""What a build's files tell of its steps, and what is seen of a command from beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from benchmarks.index_build import drop_from_page_cache, steps_of
from benchmarks.peers.process_tree import measure
from benchmarks.peers.tree_watch import TreeWatch


def test_steps_end_when_their_last_file_appears() -> None:
    files = {
        "builds/ab/image.trained.faiss": 3.0,
        "builds/ab/shard-00000/pieces/image-00000.faiss": 5.0,
        "builds/ab/shard-00000/pieces/image-00001.faiss": 8.0,
        "builds/ab/shard-00000/image.faiss": 9.0,
        "versions/000001.json": 12.0,
        "current.json": 12.1,
    }
    assert steps_of(files) == {
        "trained": 3.0,
        "first piece": 5.0,
        "last piece": 8.0,
        "merged": 9.0,
        "published": 12.0,
    }


def test_steps_without_files_are_left_out() -> None:
    assert steps_of({}) == {}
    assert steps_of({"versions/000001.json": 1.0}) == {"published": 1.0}


def test_memory_and_files_of_a_command_are_seen_while_it_runs(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    (folder / ".staging").mkdir(parents=True)
    (folder / ".staging" / "half").write_text("")
    code = "import sys, time; b = bytearray(60_000_000); open(sys.argv[1], 'w').close(); time.sleep(0.6)"
    command = [sys.executable, "-c", code, str(folder / "made")]
    with TreeWatch(folder) as watch:
        measure(command, env=os.environ, cwd=tmp_path, log=tmp_path / "log", timeout_s=60)
    assert list(watch.files) == ["made"]
    assert 60e6 < watch.peak_bytes < 200e6
    assert 60e6 < watch.largest_process_bytes < 200e6


def test_files_keep_their_bytes_when_they_are_dropped_from_the_page_cache(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    drop_from_page_cache(tmp_path)
    assert (tmp_path / "file").read_bytes() == b"abc"
