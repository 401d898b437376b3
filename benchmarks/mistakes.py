"""How soon the embedding job notices a mistake: seconds from the command to its one line, beside a run that is right.

    python -m benchmarks.mistakes --repeats 3 --output benchmarks/mistakes.md

Every mistake must end with its exit code and one line, before Ray is started and before anything is written.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CATALOG = ROOT / "demo" / "household" / "catalog.parquet"
MODEL = ROOT / "demo" / "model"


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="How soon the embedding job notices a mistake.")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        cases = mistakes(Path(name))
        for _ in range(options.repeats):
            for what, (arguments, code) in cases.items():
                times[what, code].append(run(arguments, code, Path(name) / "out"))
    options.output.write_text(page(times, options.repeats), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


def mistakes(folder: Path) -> dict[str, tuple[list[str], int]]:
    """Return, by what is wrong, the arguments and the exit code that they must lead to."""
    without_tokenizer, broken = folder / "no-tokenizer", folder / "broken-weights"
    shutil.copytree(MODEL, without_tokenizer, ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copytree(MODEL, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    text_only = folder / "text-only"
    shutil.copytree(MODEL, text_only)
    (text_only / "config.json").write_text(json.dumps({"model_type": "bert"}))
    return {
        "unknown option": (["--catalogue", "shop.parquet"], 2),
        "no such catalogue": (["--catalog", str(folder / "nothing.parquet")], 3),
        "no such column": (["--catalog", str(CATALOG), "--columns.product-id", "sku"], 3),
        "no such column in the template": (["--catalog", str(CATALOG), "--columns.text", "{name}"], 3),
        "no such model folder": (["--catalog", str(CATALOG), "--encoder.model", str(folder / "nothing")], 5),
        "model without a tokenizer": (["--catalog", str(CATALOG), "--encoder.model", str(without_tokenizer)], 5),
        "model with half its weights": (["--catalog", str(CATALOG), "--encoder.model", str(broken)], 5),
        "text model": (["--catalog", str(CATALOG), "--encoder.model", str(text_only)], 5),
        "nothing wrong, --dry-run": (["--catalog", str(CATALOG), "--dry-run"], 0),
    }


def run(arguments: list[str], code: int, output: Path) -> float:
    """Run the job with a mistake; return its seconds."""
    command = [sys.executable, "-m", "rayjobs.embed", *arguments, "--output", str(output)]
    started = time.monotonic()
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    if result.returncode != code or output.exists() or (code and len(result.stderr.splitlines()) != 1):
        raise SystemExit(f"{' '.join(arguments)}: exit code {result.returncode}, stderr: {result.stderr}")
    return seconds


def page(times: dict[tuple[str, int], list[float]], repeats: int) -> str:
    """Return the measurements as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "transformers"))
    lines = [
        "# How soon the embedding job notices a mistake",
        "",
        f"`python -m benchmarks.mistakes --repeats {repeats} --output benchmarks/mistakes.md`, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {versions}; the household catalogue, 4,117 products. Seconds from the command "
        "to the end of the process, imports included. Each ended with one line, and nothing was written.",
        "",
        "| mistake | exit code | median, s | range |",
        "|---|---|---|---|",
    ]
    for (what, code), seconds in times.items():
        span = f"{min(seconds):.1f} to {max(seconds):.1f}"
        lines.append(f"| {what} | {code} | {statistics.median(seconds):.1f} | {span} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
