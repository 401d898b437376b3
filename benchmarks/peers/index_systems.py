"""The indexes under comparison, this project's first: where each runs, and what is swept.

Imported in the environment of each library, so nothing is imported here that is not numpy.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.index_libraries import (
    K,
    Kind,
    Knobs,
    Search,
    Source,
    build_autofaiss,
    build_faiss_hnsw,
    build_hnswlib,
    build_lancedb,
    build_scann,
    build_usearch,
    open_autofaiss,
    open_faiss_hnsw,
    open_hnswlib,
    open_lancedb,
    open_scann,
    open_usearch,
)

EF = (10, 16, 32, 64, 128, 256, 512)
PROBES = (4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True, slots=True)
class System:
    """One index."""

    title: str
    distributions: tuple[str, ...]
    """On PyPI."""
    modules: tuple[str, ...]
    """Imported before memory is measured."""
    build: Callable[[Source, Path], None]
    """Into an empty folder."""
    open: Callable[[Path], tuple[Search, str]]
    """From that folder, with what it is in words."""
    grid: tuple[Knobs, ...]
    """An empty one is what the library takes where nothing is said."""
    venv: str | None = None
    """Name of its environment; None is the project's own."""
    num_sides: int = 1
    """Sides that the index holds; sizes are per vector of all of them."""


def _grid(**values: tuple[int, ...]) -> tuple[Knobs, ...]:
    return tuple(dict(zip(values, combination, strict=True)) for combination in product(*values.values()))


def _build_ours(source: Source, folder: Path) -> None:
    command = [sys.executable, "-m", "rayjobs.build_index"]
    done = subprocess.run([*command, "--embeddings", str(source.embeddings), "--output", str(folder)], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)  # it has said why, in one line


def _open_ours(folder: Path) -> tuple[Search, str]:
    from product_retrieval.index import OperatingPoint, open_index
    from product_retrieval.storage import Storage

    index, manifest = open_index(Storage.at(folder))
    for row in (0, 10_001):
        if index.row_of(f"p{row:09d}") != row:
            raise RuntimeError(f"{folder}: product p{row:09d} is not row {row}, so rows cannot be compared")

    def search(queries: NDArray[np.float32], kind: Kind, knobs: Knobs) -> NDArray[np.int64]:
        point = OperatingPoint(knobs["num_probes"], knobs["rescore_factor"]) if knobs else None
        return index.search(queries, against="image", k=K, query_kind=kind, point=point).rows

    return search, manifest.sides["image"].factory


OURS = "product_retrieval"
REFERENCE = "faiss-hnsw"
RESCORED = _grid(num_probes=PROBES, rescore_factor=(4, 8, 16, 32))
SYSTEMS: dict[str, System] = {
    OURS: System(
        "product_retrieval",
        ("faiss-cpu",),
        ("faiss", "product_retrieval.index"),
        _build_ours,
        _open_ours,
        ({}, *RESCORED),
        num_sides=2,
    ),
    REFERENCE: System(
        "faiss HNSW32,SQ8", ("faiss-cpu",), ("faiss",), build_faiss_hnsw, open_faiss_hnsw, _grid(efSearch=EF)
    ),
    "autofaiss": System(
        "autofaiss",
        ("autofaiss", "faiss-cpu"),
        ("faiss",),
        build_autofaiss,
        open_autofaiss,
        ({}, *_grid(nprobe=PROBES)),
        venv="autofaiss",
    ),
    "hnswlib": System("hnswlib", ("hnswlib",), ("hnswlib",), build_hnswlib, open_hnswlib, _grid(ef=EF), venv="hnswlib"),
    "usearch-f16": System(
        "usearch f16",
        ("usearch",),
        ("usearch.index",),
        build_usearch("f16"),
        open_usearch,
        _grid(expansion=EF),
        venv="usearch",
    ),
    "usearch-i8": System(
        "usearch i8",
        ("usearch",),
        ("usearch.index",),
        build_usearch("i8"),
        open_usearch,
        _grid(expansion=EF),
        venv="usearch",
    ),
    "scann": System(
        "ScaNN",
        ("scann",),
        ("scann",),
        build_scann,
        open_scann,
        _grid(leaves=PROBES, reorder=(40, 100, 200, 400)),
        venv="scann",
    ),
    "lancedb": System(
        "LanceDB IVF_PQ",
        ("lancedb",),
        ("lancedb",),
        build_lancedb,
        open_lancedb,
        _grid(nprobes=(8, 32, 128, 512), refine=(4, 16, 32)),
        venv="lancedb",
    ),
}
"""By the name that options use."""
