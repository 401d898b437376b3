"""Peak memory of the embedding job by size of the catalogue: it must not grow with the number of products.

    python -m benchmarks.embed_memory --sizes 10000 100000 1000000 --output benchmarks/embed_memory.md

Every product has a text of its own and one of a thousand pictures; the hash encoder stands for the model, so that what
is measured is the job and not torch. The highest resident memory (VmHWM) of each process is read while the job runs.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
NUM_PICTURES = 1000
WRITE_ROWS = 10_000
SAMPLE_INTERVAL_S = 0.5
ROLES = {"driver": "rayjobs.embed", "reader": "ReadStep", "encoder": "EncodeStep", "publisher": "PublishStep"}


def main() -> None:
    """Measure each size and write the table."""
    parser = argparse.ArgumentParser(description="Peak memory of the embedding job by size of the catalogue.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for size in options.sizes:
            catalog = write_catalog(Path(name), size)
            seconds, peaks = run_job(catalog, Path(name) / f"out-{size}")
            rows.append((size, catalog.stat().st_size, seconds, peaks))
            print(size, f"{seconds:.0f} s", {role: f"{peak / 1e6:.0f} MB" for role, peak in peaks.items()}, flush=True)
    options.output.write_text(page(rows, options.sizes), encoding="utf-8")


def write_catalog(folder: Path, size: int) -> Path:
    """Write a catalogue of so many products and return its file."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(NUM_PICTURES):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(buffer, format="PNG")
        pictures.append(buffer.getvalue())
    schema = pa.schema([("product_id", pa.string()), ("title", pa.string()), ("image", pa.binary())])
    path = folder / f"catalog-{size}.parquet"
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, size, WRITE_ROWS):
            numbers = range(start, min(start + WRITE_ROWS, size))
            columns = [
                [f"sku-{n:09d}" for n in numbers],
                [f"thing number {n}" for n in numbers],
                [pictures[n % NUM_PICTURES] for n in numbers],
            ]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=WRITE_ROWS)
    return path


def run_job(catalog: Path, output: Path) -> tuple[float, dict[str, int]]:
    """Run the job; return its seconds and the highest resident bytes of any process by role."""
    command = [sys.executable, "-m", "rayjobs.embed", "--encoder.model", "hash"]
    command += ["--catalog", str(catalog), "--output", str(output)]
    started = time.monotonic()
    job = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peaks: dict[str, int] = defaultdict(int)
    while job.poll() is None:
        for folder in Path("/proc").glob("[0-9]*"):
            note_peak(folder, peaks, driver=job.pid)
        time.sleep(SAMPLE_INTERVAL_S)
    if job.returncode:
        raise SystemExit(f"the job failed with exit code {job.returncode}")
    return time.monotonic() - started, dict(peaks)


def note_peak(process: Path, peaks: dict[str, int], *, driver: int) -> None:
    """Raise the peak of a process's role, if it is one of the job's."""
    try:
        title = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        status = (process / "status").read_text()
    except OSError:  # gone meanwhile
        return
    is_driver = int(process.name) == driver
    roles = [role for role, mark in ROLES.items() if mark in title and title.startswith("ray::")]
    role = "driver" if is_driver else (roles[0] if roles else None)
    if role is not None and "VmHWM:" in status:
        kibibytes = int(status.split("VmHWM:")[1].split()[0])
        peaks[role] = max(peaks[role], kibibytes << 10)


def page(rows: list[tuple[int, int, float, dict[str, int]]], sizes: list[int]) -> str:
    """Return the measurements as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "pyarrow"))
    roles = [role for role in ROLES if any(role in peaks for *_, peaks in rows)]
    lines = [
        "# Peak memory of the embedding job by size of the catalogue",
        "",
        f"`python -m benchmarks.embed_memory --sizes {' '.join(map(str, sizes))} --output "
        f"benchmarks/embed_memory.md`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}, "
        f"no GPU), Python {platform.python_version()}, {versions}; hash encoder; one run each.",
        "",
        "Highest resident memory of any process of each kind, MB; pages of Ray's object store that it has mapped "
        "are counted in.",
        "",
        "| products | catalogue, MB | " + " | ".join(roles) + " | time, s | products/s |",
        "|" + "---|" * (len(roles) + 4),
    ]
    for size, size_bytes, seconds, peaks in rows:
        cells = [f"{size:,}", f"{size_bytes / 1e6:,.1f}", *(f"{peaks.get(role, 0) / 1e6:,.0f}" for role in roles)]
        lines.append("| " + " | ".join([*cells, f"{seconds:,.0f}", f"{size / seconds:,.0f}"]) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
