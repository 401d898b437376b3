"""What a build costs: wall clock beside autofaiss, one worker beside two, memory; then opening, and readers' memory.

    python -m benchmarks.index_build --products 50000 --venvs venvs --folder out/index-build --output out/quick.md
    python -m benchmarks.index_build --venvs venvs --folder out/index-build --output benchmarks/index_build.md

The environment of autofaiss is made as index_recall.py says; without one it is left out. Builds take turns, each from
nothing, on the picture vectors of clip_like.py; the text side is left out, as autofaiss has none. When each file
appears is watched from outside and tells how long the steps took. Opening is measured with the index's files dropped
from the page cache, and again with them in it. A page to keep should come from a quiet machine: it says how loaded it
was. Linux only.

Writes the page given by --output after each round, so that a run that is stopped has a result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.clip_like import ClipLike, Geometry, write_embeddings
from benchmarks.peers.build_report import (
    AUTOFAISS,
    NUM_OPENINGS,
    NUM_READERS,
    ONE_WORKER,
    OURS,
    TWO_WORKERS,
    BuildRun,
    page,
)
from benchmarks.peers.index_data import SEED, write_vectors
from benchmarks.peers.process_tree import measure
from benchmarks.peers.tree_watch import TreeWatch
from product_retrieval.embeddings import MANIFEST
from product_retrieval.storage import Storage

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Build several times, open what was built, and write the page."""
    parser = argparse.ArgumentParser(description="Cost of building and opening an index.")
    parser.add_argument("--products", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venvs", type=Path, help="folder with the environment of autofaiss; left out: without it")
    parser.add_argument("--build-timeout", type=float, default=7200.0, help="seconds for one build")
    parser.add_argument("--folder", type=Path, required=True, help="for vectors and indexes; vectors are kept")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    folder = options.folder.absolute() / str(options.products)
    make_data(folder, options.products)
    load = os.getloadavg()[0]
    runs: dict[str, list[BuildRun]] = defaultdict(list)
    failures: dict[str, str] = {}
    readers: dict[str, Any] = {}
    for _ in range(options.rounds):
        for name, command in commands(folder, options.venvs).items():
            if name in failures:
                continue
            try:
                runs[name].append(build(command, folder, name, options.build_timeout))
            except RuntimeError as error:
                failures[name] = str(error).strip().splitlines()[-1][:200]
                continue
            if name == OURS:
                readers = read(output_of(folder, OURS), readers)
            print(name, json.dumps(vars_of(runs[name][-1])), flush=True)
        options.output.write_text(page(runs, failures, readers, options, load), encoding="utf-8")


def make_data(folder: Path, num_products: int) -> None:
    """Make embeddings of pictures, and the same vectors as one file."""
    folder.mkdir(parents=True, exist_ok=True)
    embeddings = Storage.at(folder / "embeddings")
    if not embeddings.exists(MANIFEST):
        write_embeddings(embeddings, ClipLike(Geometry(), seed=SEED), num_products, sides=["image"], num_threads=2)
    if not (folder / "vectors.npy").exists():
        write_vectors(embeddings, folder / "vectors.npy")


def output_of(folder: Path, name: str) -> Path:
    """Return where a system builds to."""
    return folder / name.replace(" ", "-").replace(",", "")


def commands(folder: Path, venvs: Path | None) -> dict[str, list[str]]:
    """Return the builds in the order in which they take turns."""

    def job(name: str) -> list[str]:
        return [
            "rayjobs.build_index",
            "--embeddings",
            str(folder / "embeddings"),
            "--output",
            str(output_of(folder, name)),
        ]

    limited = [sys.executable, "-m", "benchmarks.peers.ray_limited"]
    found = {
        OURS: [sys.executable, "-m", *job(OURS)],
        ONE_WORKER: [*limited, "1", *job(ONE_WORKER)],
        TWO_WORKERS: [*limited, "2", *job(TWO_WORKERS)],
    }
    if venvs is not None:
        python = venvs.absolute() / AUTOFAISS / "bin" / "python"
        worker = [str(python), "-m", "benchmarks.peers.index_worker", "build", AUTOFAISS]
        found[AUTOFAISS] = [*worker, "--data", str(folder), "--folder", str(output_of(folder, AUTOFAISS))]
    return found


def build(command: Sequence[str], folder: Path, name: str, timeout_s: float) -> BuildRun:
    """Build from nothing.

    Raises:
        RuntimeError: it failed or did not end in time.
    """
    output = output_of(folder, name)
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    with TreeWatch(output) as watch:
        usage = measure(command, env=os.environ, cwd=ROOT, log=output.with_suffix(".log"), timeout_s=timeout_s)
    return BuildRun(usage, watch.peak_bytes, watch.largest_process_bytes, steps_of(watch.files))


def steps_of(files: Mapping[str, float]) -> dict[str, float]:
    """Return when each step of a build ended, from when its files appeared; steps without a file are left out.

    Args:
        files: seconds since the start by path below the index's folder.
    """

    def times(belongs: Callable[[str], bool]) -> list[float]:
        return [seconds for name, seconds in files.items() if belongs(name)]

    trained = times(lambda name: name.endswith(".trained.faiss"))
    pieces = times(lambda name: "/pieces/" in name)
    merged = times(
        lambda name: name.endswith(".faiss") and not name.endswith(".trained.faiss") and "/pieces/" not in name
    )
    published = times(lambda name: name.startswith("versions/"))
    ends = {
        "trained": max(trained, default=None),
        "first piece": min(pieces, default=None),
        "last piece": max(pieces, default=None),
        "merged": max(merged, default=None),
        "published": min(published, default=None),
    }
    return {name: end for name, end in ends.items() if end is not None}


def read(index: Path, earlier: Mapping[str, Any]) -> dict[str, Any]:
    """Open an index from disk and from memory, then by several processes at once; add to what was measured earlier."""
    cold, warm = [], []
    for _ in range(NUM_OPENINGS):
        drop_from_page_cache(index)
        cold += readers_of(index, 1)
        warm += readers_of(index, 1)
    return {
        "cold": [*earlier.get("cold", []), *cold],
        "warm": [*earlier.get("warm", []), *warm],
        "together": [*earlier.get("together", []), readers_of(index, NUM_READERS)],
    }


def readers_of(index: Path, number: int) -> list[dict[str, Any]]:
    """Open an index in so many processes; return what each says once all of them are open."""
    command = [sys.executable, "-m", "benchmarks.peers.index_reader", str(index)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(number)
    ]
    opened = [answer(process) for process in processes]
    for process in processes:
        assert process.stdin is not None
        print(file=process.stdin, flush=True)
    later = [answer(process) for process in processes]
    for process in processes:
        process.communicate()
    return [{**first, **last} for first, last in zip(opened, later, strict=True)]


def answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the next line of a reader."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a reader ended with exit code {process.wait()}")
    said: dict[str, Any] = json.loads(line)
    return said


def drop_from_page_cache(folder: Path) -> None:
    """Make the next reader of these files go to the disk; pages that a process has mapped stay."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def vars_of(run: BuildRun) -> dict[str, Any]:
    """Return a build as JSON takes it."""
    return {"wall_s": run.usage.wall_s, "cpu_s": run.usage.cpu_s, "peak_mb": run.peak_bytes / 1e6, **run.steps}


if __name__ == "__main__":
    main()
