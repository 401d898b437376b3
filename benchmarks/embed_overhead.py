"""How much of the encoder's speed the embedding job keeps: the job beside a bare loop over the same products.

    python -m benchmarks.embed_overhead --repeats 3 --output benchmarks/embed_overhead.md

The bare loop reads, decodes and encodes in one process, with as many threads as there are cores, and writes nothing.
The job is run on a small and on a large part of the household catalogue in turns with the loop; the difference of its
two times is free of start-up. Medians of the repeats, with the range.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow.parquet as pq

from product_retrieval.catalog import plan_catalog
from product_retrieval.embedding_steps import encode_table
from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.encoders.protocol import load_preparer
from product_retrieval.images import ImageLimits
from product_retrieval.slice_reader import SliceReader

ROOT = Path(__file__).resolve().parent.parent
CATALOG = ROOT / "demo" / "household" / "catalog.parquet"
SMALL, LARGE = 1024, 4096


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="The embedding job beside a bare encoder loop.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    bare, small, large = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        catalogs = {size: write_part(folder, size) for size in (SMALL, LARGE)}
        for repeat in range(options.repeats):
            bare.append(time_bare_loop(catalogs[LARGE]))
            small.append(time_job(catalogs[SMALL], folder / f"small-{repeat}"))
            large.append(time_job(catalogs[LARGE], folder / f"large-{repeat}"))
    options.output.write_text(page(bare, small, large, options.repeats), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


def write_part(folder: Path, size: int) -> Path:
    """Write the first products of the household catalogue and return the file."""
    path = folder / f"catalog-{size}.parquet"
    pq.write_table(pq.read_table(CATALOG).slice(0, size), path)
    return path


def time_bare_loop(catalog: Path) -> float:
    """Return the seconds of reading and encoding every product in this process, without loading the model."""
    encoder = load_encoder(EncoderOptions())
    encoder.limit_threads(os.cpu_count() or 1)
    plan = plan_catalog(str(catalog))
    reader = SliceReader(plan, load_preparer(EncoderOptions()), ImageLimits())
    encoder.encode_texts(["warm up"])
    started = time.perf_counter()
    for slice_ in plan.slices:
        encode_table(reader(slice_), encoder, batch_size=64, vector_type="float16")
    return time.perf_counter() - started


def time_job(catalog: Path, output: Path) -> float:
    """Return the seconds of the whole job, start-up and all."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "rayjobs.embed", "--catalog", str(catalog), "--output", str(output)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def page(bare: list[float], small: list[float], large: list[float], repeats: int) -> str:
    """Return the measurements as Markdown."""
    marginal = [(LARGE - SMALL) / (b - a) for a, b in zip(small, large, strict=True)]
    loop = [LARGE / seconds for seconds in bare]
    ratio = statistics.median(marginal) / statistics.median(loop)
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "transformers", "pyarrow"))
    rows = [
        ("bare loop, products/s", loop),
        ("job without start-up, products/s", marginal),
        (f"job of {LARGE:,} products, s", large),
        (f"job of {SMALL:,} products, s", small),
    ]
    lines = [
        "# The embedding job beside a bare encoder loop",
        "",
        f"`python -m benchmarks.embed_overhead --repeats {repeats} --output benchmarks/embed_overhead.md`, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}, no GPU), Python "
        f"{platform.python_version()}, {versions}; demo model, picture and text of each product.",
        "",
        "| | median | range |",
        "|---|---|---|",
        *(f"| {name} | {statistics.median(v):,.1f} | {min(v):,.1f} to {max(v):,.1f} |" for name, v in rows),
        f"| job without start-up / bare loop | {ratio:.2f} | |",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
