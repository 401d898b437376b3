"""A process that opens an index as a replica of the service would, and says what it holds.

    python -m benchmarks.peers.index_reader out/index

Prints a line of JSON once it is open and has answered a first query, then one for each line on its standard input.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from product_retrieval.index import open_index
from product_retrieval.storage import Storage

MEMORY = ("Rss", "Pss", "Anonymous")


def main() -> None:
    """Open, search, and report when asked."""
    import faiss  # noqa: F401 - so that what is measured is the index and not the library

    before = memory()
    started = time.perf_counter()
    index, _ = open_index(Storage.at(sys.argv[1]))
    opened = time.perf_counter()
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((64, index.dim), np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    index.search(queries[:1], against="image", k=10, query_kind="image")
    first_s = time.perf_counter() - opened
    index.search(queries, against="image", k=10, query_kind="image")
    report(open_s=opened - started, first_search_s=first_s, before=before)
    for _ in sys.stdin:
        report(before=before)


def memory() -> dict[str, int]:
    """Return what the kernel says of this process, in bytes."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return {name: int(rollup.split(f"{name}:")[1].split()[0]) << 10 for name in MEMORY}


def report(**values: Any) -> None:
    """Print a line with the memory of now."""
    print(json.dumps({**values, **memory()}), flush=True)


if __name__ == "__main__":
    main()
