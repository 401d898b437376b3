"""The systems under comparison: how each is run on the same products, and where its vectors end up."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.peers.products import Layouts

BATCH_SIZE = 64
ROWS_PER_PART = 64
"""Two batches: a run of a few hundred products shall have parts to overlap, as one of millions has by default."""
VectorsById = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    layouts: Layouts
    model: Path
    output: Path


@dataclass(frozen=True, slots=True)
class System:
    """One way to embed the products."""

    name: str
    command: Callable[[Task], list[str]]
    image_vectors: Callable[[Path], VectorsById]
    """From the output folder."""


def systems(clip_retrieval: Path) -> list[System]:
    """Return all of them, in the order in which they take turns.

    Args:
        clip_retrieval: program in its virtual environment.
    """
    return [
        System("product_retrieval, pairs", lambda task: _ours(task, task.layouts.pairs), _vectors_of_ours),
        System("clip-retrieval, pairs", lambda task: _webdataset(clip_retrieval, task), _vectors_of_clip_retrieval),
        System("product_retrieval, pictures", lambda task: _ours(task, task.layouts.images), _vectors_of_ours),
        System("Ray's pattern, pictures", _ray_pattern, _vectors_of_ray_pattern),
        System("clip-retrieval, pictures", lambda task: _files(clip_retrieval, task), _vectors_of_clip_retrieval),
        System(
            "product_retrieval, pairs, float32",
            lambda task: [*_ours(task, task.layouts.pairs), "--encoder.precision", "float32"],
            _vectors_of_ours,
        ),
        System(
            "product_retrieval, pictures, float32",
            lambda task: [*_ours(task, task.layouts.images), "--encoder.precision", "float32"],
            _vectors_of_ours,
        ),
    ]


def _ours(task: Task, catalog: Path) -> list[str]:
    options = {
        "--catalog": catalog,
        "--output": task.output,
        "--encoder.model": task.model,
        "--encoder.batch-size": BATCH_SIZE,
        "--rows-per-part": ROWS_PER_PART,
    }
    return [sys.executable, "-m", "rayjobs.embed", *(str(word) for pair in options.items() for word in pair)]


def _ray_pattern(task: Task) -> list[str]:
    words = [str(path) for path in (task.layouts.images, task.model, task.output)]
    threads = str(os.cpu_count() or 1)  # as many as our one encoder gets
    options = ["--batch-size", str(BATCH_SIZE), "--threads", threads]
    return [sys.executable, "-m", "benchmarks.peers.ray_pattern", *words, *options]


def _files(program: Path, task: Task) -> list[str]:
    return _clip_retrieval(program, task, task.layouts.images, ["--input_format", "files", "--enable_text", "False"])


def _webdataset(program: Path, task: Task) -> list[str]:
    # Its reader of files fails where there are texts: https://github.com/rom1504/clip-retrieval/issues/345
    last = len(list(task.layouts.shards.iterdir())) - 1
    shards = task.layouts.shards / f"{{00000..{last:05d}}}.tar"
    return _clip_retrieval(program, task, shards, ["--input_format", "webdataset", "--enable_metadata", "False"])


def _clip_retrieval(program: Path, task: Task, dataset: Path, options: list[str]) -> list[str]:
    shared = {
        "--input_dataset": dataset,
        "--output_folder": task.output,
        "--clip_model": f"hf_clip:{task.model}",
        "--use_jit": False,
        "--batch_size": BATCH_SIZE,
        "--num_prepro_workers": os.cpu_count() or 1,
    }
    return [str(program), "inference", *(str(word) for pair in shared.items() for word in pair), *options]


def _vectors_of_ours(output: Path) -> VectorsById:
    table = pq.read_table(output / "data", columns=["product_id", "image_vector"])
    return _by_id(table.column("product_id").to_pylist(), table.column("image_vector"))


def _vectors_of_ray_pattern(output: Path) -> VectorsById:
    table = pq.read_table(output, columns=["path", "embedding"])
    vectors = table.column("embedding").combine_chunks()
    storage = vectors.storage if isinstance(vectors, pa.ExtensionArray) else vectors
    return _by_id(table.column("path").to_pylist(), storage)


def _vectors_of_clip_retrieval(output: Path) -> VectorsById:
    found: VectorsById = {}
    for metadata in sorted((output / "metadata").glob("*.parquet")):
        vectors = np.load(output / "img_emb" / f"{metadata.stem.replace('metadata', 'img_emb')}.npy")
        paths = pq.read_table(metadata, columns=["image_path"]).column("image_path").to_pylist()
        found |= {Path(path).stem: vector for path, vector in zip(paths, vectors.astype(np.float32), strict=True)}
    return found


def _by_id(ids: list[str], vectors: pa.Array | pa.ChunkedArray) -> VectorsById:
    rows = vectors.to_pylist()
    return {Path(id_).stem: np.asarray(row, np.float32) for id_, row in zip(ids, rows, strict=True)}
