"""Exact search of a whole gallery on a Ray cluster: a task a part, in bounded memory, resumable.

The driver reads parts of the gallery from the index and hands each to a task; a task's answer is O(queries), and
answers add up in any order. A search that would take long writes each answer to a file, so that a run that was
killed searches only the parts that are left.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import ray
from numpy.typing import NDArray

from eval.exact import scan
from eval.exact_search import ExactSearch, Found, merge, nothing_found
from eval.neighbourhoods import hub_bias
from product_retrieval.errors import ArtifactError
from product_retrieval.index import ProductIndex, Side
from product_retrieval.storage import Storage

MAX_PART_ROWS = 65_536
MIN_PART_ROWS = 8_192
"""Products of one task: 64 MiB of 512 dimensions at most, and enough to be worth a task."""
PARTS_PER_WORKER = 2
"""Parts under way for each CPU or GPU: one is searched while the next is on its way."""
MIN_KEPT_FLOP = 1e13
"""From here on, minutes of two cores, the answers of parts are kept in files until the report is written."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Workers:
    """What the cluster has for the search."""

    num_slots: int
    device: str
    """`cuda` where there is a GPU, else `cpu`."""


def cluster_workers() -> Workers:
    """Return what the cluster that Ray is connected to has."""
    resources = ray.cluster_resources()
    if num_gpus := int(resources.get("GPU", 0)):
        return Workers(num_gpus, "cuda")
    return Workers(max(int(resources.get("CPU", 1)), 1), "cpu")


def search_gallery(
    search: ExactSearch, index: ProductIndex, side: Side, *, workers: Workers, kept: Storage | None = None
) -> Found:
    """Search all products of a side exactly.

    Args:
        search: what is looked for.
        index: the version.
        side: that is searched.
        workers: of the cluster.
        kept: where answers of parts are kept by a search that takes long; None keeps none.
    """
    flop = 2.0 * len(search.queries) * index.num_rows * index.dim
    kept = kept if flop >= MIN_KEPT_FLOP else None
    part_rows = -(-index.num_rows // (workers.num_slots * PARTS_PER_WORKER))
    part_rows = min(max(part_rows, MIN_PART_ROWS), MAX_PART_ROWS)
    parts = index.blocks(side, part_rows)
    if kept is None:
        return _sum(search, (answer for _, answer in _searched(search, parts, workers)))
    names = _PartNames(f"{describe(search)}-{part_rows}")
    done: list[Found] = []

    def missing() -> Iterator[tuple[int, NDArray[np.float16]]]:
        for first_row, vectors in parts:
            answer = read_answer(kept, names.of(first_row))
            if answer is None:
                yield first_row, vectors
            else:
                done.append(answer)

    def fresh() -> Iterator[Found]:
        for first_row, answer in _searched(search, missing(), workers):
            kept.put_if_absent(names.of(first_row), write_answer(answer))
            yield from _taken(done)
            yield answer
        yield from _taken(done)

    return _sum(search, fresh())


def bias_of_gallery(
    bank: NDArray[np.float32], index: ProductIndex, side: Side, *, workers: Workers
) -> NDArray[np.float32]:
    """Return how similar each product of a side is to queries in general, float32 [num_rows]; see hub_bias.

    Args:
        bank: float32 [B, D], queries that are not measured.
        index: the version.
        side: whose products are compared.
        workers: of the cluster.
    """
    biases = np.zeros(index.num_rows, np.float32)
    shared = ray.put(bank)
    running: dict[ray.ObjectRef[NDArray[np.float32]], int] = {}
    for first_row, vectors in index.blocks(side, MIN_PART_ROWS):
        if len(running) >= workers.num_slots * PARTS_PER_WORKER:
            at, part = _next_ready(running)
            biases[at : at + len(part)] = part
        running[_bias_task.remote(np.asarray(vectors), shared)] = first_row
    while running:
        at, part = _next_ready(running)
        biases[at : at + len(part)] = part
    return biases


def describe(search: ExactSearch) -> str:
    """Return a hash of everything that the answers depend on but the gallery."""
    digest = hashlib.sha256(json.dumps([search.k, len(search.judged)]).encode())
    arrays: list[NDArray[np.generic]] = [search.queries]
    for judged in search.judged:
        arrays += [judged.judgements.query, judged.judgements.row, judged.scores]
    if search.excluded is not None:
        arrays += [search.excluded.query, search.excluded.row]
    if search.correction is not None:
        arrays += [array for array in (search.correction.shift, search.correction.bias) if array is not None]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:24]


def write_answer(answer: Found) -> bytes:
    """Return a part's answer as the bytes of a file."""
    buffer = io.BytesIO()
    arrays = {"rows": answer.rows, "scores": answer.scores}
    for number, (greater, equal) in enumerate(zip(answer.num_greater, answer.num_equal, strict=True)):
        arrays |= {f"greater_{number}": greater, f"equal_{number}": equal}
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # its stub takes the names for its own options
    return buffer.getvalue()


def read_answer(kept: Storage, name: str) -> Found | None:
    """Return a part's answer from its file; None where there is none that can be read."""
    try:
        with np.load(io.BytesIO(kept.read(name)), allow_pickle=False) as arrays:
            num_sets = (len(arrays.files) - 2) // 2
            greater = tuple(arrays[f"greater_{number}"] for number in range(num_sets))
            equal = tuple(arrays[f"equal_{number}"] for number in range(num_sets))
            return Found(arrays["rows"], arrays["scores"], greater, equal)
    except (ArtifactError, OSError, ValueError, KeyError, EOFError):
        return None


@dataclass(frozen=True, slots=True)
class _PartNames:
    folder: str

    def of(self, first_row: int) -> str:
        return f"{self.folder}/{first_row:012d}.npz"


def _searched(
    search: ExactSearch, parts: Iterable[tuple[int, NDArray[np.float16]]], workers: Workers
) -> Iterator[tuple[int, Found]]:
    """Yield first row and answer of each part, as they get ready; few parts are under way at once."""
    shared = ray.put(search)
    task = _scan_task.options(num_gpus=1) if workers.device == "cuda" else _scan_task
    running: dict[ray.ObjectRef[Found], int] = {}
    for first_row, vectors in parts:
        if len(running) >= workers.num_slots * PARTS_PER_WORKER:
            yield _next_ready(running)
        running[task.remote(shared, np.asarray(vectors), first_row, device=workers.device)] = first_row
    while running:
        yield _next_ready(running)


def _next_ready(running: dict[ray.ObjectRef[Answer], int]) -> tuple[int, Answer]:
    (ready,), _ = ray.wait(list(running), num_returns=1)
    first_row = running.pop(ready)
    return first_row, ray.get(ready)


def _taken(answers: list[Found]) -> Iterator[Found]:
    while answers:
        yield answers.pop()


def _sum(search: ExactSearch, answers: Iterable[Found]) -> Found:
    total = nothing_found(search)
    for answer in answers:
        total = merge(total, answer)
    return total


def _bias(vectors: NDArray[np.float16], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    return hub_bias(vectors.astype(np.float32), bank)


_scan_task = ray.remote(scan)
_bias_task = ray.remote(_bias)
