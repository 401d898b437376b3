"""How much of the encoder's speed the embedding job keeps: the job beside a bare loop over the same products.

    python -m benchmarks.embed_overhead --repeats 3 --clip-merges FILE --output benchmarks/embed_overhead.md

The bare loop only encodes: pixels and texts are ready in memory, the batches are those of the job and each of as many
threads takes one at a time, nothing is written. The job reads, decodes, encodes and publishes on the same cores. It is
run on a small and on a large catalogue, the household's repeated under new ids, in turns with the loop; the difference
of its two times is free of start-up. Medians of the repeats, with the range.

Two models: the demo's, and with `--clip-merges` (CLIP's gzipped list of byte pairs, such as open_clip's
`bpe_simple_vocab_16e6.txt.gz`) one of the shape of CLIP ViT-B/32 whose weights are random.
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
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers.model import make_model
from product_retrieval.catalog import plan_catalog
from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.encoders.protocol import DEMO_MODEL, load_preparer
from product_retrieval.images import ImageLimits
from product_retrieval.slice_reader import PIXELS, SIDE_PX, SliceReader

ROOT = Path(__file__).resolve().parent.parent
CATALOG = ROOT / "demo" / "household" / "catalog.parquet"
ROWS_PER_GROUP = 1024


@dataclass(frozen=True, slots=True)
class Case:
    """A model, and how many products the job is timed on."""

    name: str
    model: str
    small: int
    large: int


@dataclass(frozen=True, slots=True)
class Seconds:
    """What the repeats of a case took."""

    bare: list[float] = field(default_factory=list)
    small: list[float] = field(default_factory=list)
    large: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="The embedding job beside a bare encoder loop.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clip-merges", type=Path, help="CLIP's gzipped byte pairs, for a model of ViT-B/32's shape")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cases = [Case("demo model", DEMO_MODEL, 4096, 16_384)]
        if options.clip_merges:
            make_model(folder / "clip", "b32", options.clip_merges)
            cases.append(Case("CLIP ViT-B/32, random weights", str(folder / "clip"), 512, 2048))
        measured = {case: measure(case, folder, options.repeats) for case in cases}
    options.output.write_text(page(measured, options.repeats), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


def measure(case: Case, folder: Path, repeats: int) -> Seconds:
    """Run loop and jobs in turns."""
    catalogs = {size: write_catalog(folder, size) for size in (case.small, case.large)}
    seconds = Seconds()
    for _ in range(repeats):
        seconds.bare.append(time_bare_loop(catalogs[case.small], case.model))
        seconds.small.append(time_job(catalogs[case.small], case.model))
        seconds.large.append(time_job(catalogs[case.large], case.model))
    return seconds


def write_catalog(folder: Path, size: int) -> Path:
    """Write the household catalogue as often as the size asks for, each time under new ids, and return the file."""
    path = folder / f"catalog-{size}.parquet"
    once = pq.read_table(CATALOG)
    ids = once.column("product_id").to_pylist()
    at = once.column_names.index("product_id")
    copies = [
        once.set_column(at, "product_id", pa.array([f"{product_id}-{copy}" for product_id in ids]))
        for copy in range(-(-size // len(once)))
    ]
    pq.write_table(pa.concat_tables(copies).slice(0, size), path, row_group_size=ROWS_PER_GROUP)
    return path


def time_bare_loop(catalog: Path, model: str) -> float:
    """Return the seconds of encoding every product in this process when all that comes before is done."""
    options = EncoderOptions(model=model)
    encoder = load_encoder(options)
    encoder.limit_threads(1)
    plan = plan_catalog(str(catalog))
    reader = SliceReader(plan, load_preparer(options), ImageLimits())
    read = pa.concat_tables([reader(slice_) for slice_ in plan.slices])
    side_px = read.column(SIDE_PX)[0].as_py()
    pixels = np.stack([np.frombuffer(picture, np.uint8) for picture in read.column(PIXELS).to_pylist()])
    pixels, texts = pixels.reshape(-1, side_px, side_px, 3), read.column("text").to_pylist()
    batches = [slice(start, start + options.batch_size) for start in range(0, len(pixels), options.batch_size)]

    def encode(batch: slice) -> None:
        encoder.encode_images(pixels[batch])
        encoder.encode_texts(texts[batch])

    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        started = time.perf_counter()
        list(threads.map(encode, batches))
        return time.perf_counter() - started


def time_job(catalog: Path, model: str) -> float:
    """Return the seconds of the whole job, start-up and all."""
    with tempfile.TemporaryDirectory() as output:
        arguments = ["--catalog", str(catalog), "--output", f"{output}/embeddings", "--encoder.model", model]
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "rayjobs.embed", *arguments], cwd=ROOT, check=True, capture_output=True)
        return time.perf_counter() - started


def page(measured: Mapping[Case, Seconds], repeats: int) -> str:
    """Return the measurements as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "transformers", "pyarrow"))
    lines = [
        "# The embedding job beside a bare encoder loop",
        "",
        f"`python -m benchmarks.embed_overhead --repeats {repeats} --clip-merges FILE --output "
        f"benchmarks/embed_overhead.md`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}, "
        f"no GPU), Python {platform.python_version()}, {versions}. Picture and text of each product; the loop encodes "
        "what is ready in memory, the job also reads, decodes, resizes and publishes on the same cores.",
    ]
    for case, seconds in measured.items():
        lines += ["", f"## {case.name}", "", "| | median | range |", "|---|---|---|", *rows(case, seconds)]
    return "\n".join([*lines, ""])


def rows(case: Case, seconds: Seconds) -> list[str]:
    """Return the lines of a case's table."""
    marginal = [(case.large - case.small) / (b - a) for a, b in zip(seconds.small, seconds.large, strict=True)]
    loop = [case.small / each for each in seconds.bare]
    ratio = statistics.median(marginal) / statistics.median(loop)
    named = [
        ("bare loop, products/s", loop),
        ("job without start-up, products/s", marginal),
        (f"job of {case.large:,} products, s", seconds.large),
        (f"job of {case.small:,} products, s", seconds.small),
    ]
    lines = [f"| {name} | {statistics.median(v):,.1f} | {min(v):,.1f} to {max(v):,.1f} |" for name, v in named]
    return [*lines, f"| job without start-up / bare loop | {ratio:.2f} | |"]


if __name__ == "__main__":
    main()
