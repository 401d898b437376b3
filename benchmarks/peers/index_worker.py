"""Builds one index, or opens it and measures its curve once; run in the environment of its library.

    python -m benchmarks.peers.index_worker build hnswlib --data out/data --folder out/hnswlib
    python -m benchmarks.peers.index_worker measure hnswlib --data out/data --folder out/hnswlib --output curve.json

Speed is CPU time of all threads of the process, so that it can be compared on a machine that has other work too;
queries are asked all at once and, fewer of them, one by one.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import json
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.index_libraries import Kind, Knobs, Search, Source
from benchmarks.peers.index_systems import SYSTEMS, System

KINDS: tuple[Kind, Kind] = ("image", "text")
NUM_SINGLE = 200
"""Queries that are asked one by one."""
MIN_MEASURED_S = 0.2
"""CPU time below which a measurement is repeated: the clock's and the scheduler's grain shall not matter."""


def measure(system: System, folder: Path, data: Path) -> dict[str, Any]:
    """Open an index and measure it at each setting of its grid.

    Args:
        system: whose index.
        folder: that it was built in.
        data: with queries and their true neighbours.
    """
    queries = {kind: np.load(data / f"queries-{kind}.npy") for kind in KINDS}
    truths = {kind: np.load(data / f"truth-{kind}.npy") for kind in KINDS}
    num_vectors = len(np.load(data / "vectors.npy", mmap_mode="r")) * system.num_sides
    for module in system.modules:
        importlib.import_module(module)
    before = anonymous_bytes()
    started = time.perf_counter()
    search, description = system.open(folder)
    open_s = time.perf_counter() - started
    for kind in KINDS:
        search(queries[kind][:1], kind, system.grid[-1])
    memory_bytes = anonymous_bytes() - before
    points = [
        {"kind": kind, "knobs": dict(knobs), **measure_point(search, queries[kind], truths[kind], kind, knobs)}
        for kind in KINDS
        for knobs in system.grid
    ]
    return {
        "description": description,
        "versions": ", ".join(f"{name} {installed(name)}" for name in system.distributions),
        "memory_bytes_per_vector": memory_bytes / num_vectors,
        "disk_bytes_per_vector": disk_bytes(folder) / num_vectors,
        "open_s": open_s,
        "points": points,
    }


def measure_point(
    search: Search, queries: NDArray[np.float32], truth: NDArray[np.int64], kind: Kind, knobs: Knobs
) -> dict[str, float]:
    """Measure recall and speed of one setting.

    Args:
        search: of the index.
        queries: float32 [Q, D].
        truth: int64 [Q, K], the rows of each query's true neighbours.
        kind: what the queries are.
        knobs: the setting.
    """
    found = search(queries, kind, knobs)
    recall = np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
    batch_s = cpu_s(lambda: search(queries, kind, knobs))
    singles = [query[None] for query in queries[:NUM_SINGLE]]
    single_s = cpu_s(lambda: [search(query, kind, knobs) for query in singles])
    return {
        "recall": float(recall),
        "batch_qps": len(queries) / batch_s,
        "single_qps": len(singles) / single_s,
    }


def cpu_s(call: Callable[[], object]) -> float:
    """Return the CPU seconds of a call, on average over enough of them."""
    calls, started = 0, time.process_time()
    while True:
        call()
        calls += 1
        elapsed = time.process_time() - started
        if elapsed >= MIN_MEASURED_S:
            return elapsed / calls


def anonymous_bytes() -> int:
    """Return the memory of this process that no file backs, after what is free was given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) << 10


def disk_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; links are not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def installed(distribution: str) -> str:
    """Return the version of a distribution."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "(not found)"


def main() -> None:
    """Build or measure."""
    parser = argparse.ArgumentParser(description="Build or measure one index.")
    parser.add_argument("step", choices=("build", "measure"))
    parser.add_argument("system", choices=SYSTEMS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="JSON file for the measurements")
    options = parser.parse_args()
    system = SYSTEMS[options.system]
    if options.step == "build":
        system.build(Source(options.data / "vectors.npy", options.data / "embeddings"), options.folder)
    else:
        options.output.write_text(json.dumps(measure(system, options.folder, options.data)))


if __name__ == "__main__":
    main()
