"""The page that tells what building and opening an index costs."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from benchmarks.peers.index_libraries import BYTES_PER_VECTOR
from benchmarks.peers.process_tree import Usage
from benchmarks.peers.report import cpu_name

OURS, ONE_WORKER, AUTOFAISS = "product_retrieval", "product_retrieval, 1 worker on 1 core", "autofaiss"
TWO_WORKERS = "product_retrieval, 2 workers on 2 cores"
NUM_OPENINGS = 5
NUM_READERS = 3


@dataclass(frozen=True, slots=True)
class BuildRun:
    """One build from nothing."""

    usage: Usage
    peak_bytes: int
    largest_process_bytes: int
    steps: Mapping[str, float]
    """Seconds from the start to the end of each step, by name."""


def page(
    runs: Mapping[str, Sequence[BuildRun]],
    failures: Mapping[str, str],
    readers: Mapping[str, Any],
    options: argparse.Namespace,
    load: float,
) -> str:
    """Return the measurements as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("faiss-cpu", "ray", "numpy"))
    lines = [
        "# Building and opening an index",
        "",
        f"`python -m benchmarks.index_build --products {options.products} --rounds {options.rounds} ...`, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu_name()}, no GPU), load {load:.1f} at the start, "
        f"Python {platform.python_version()}, {versions}; median and range.",
        "",
        f"{options.products:,} picture vectors of 512 dimensions (clip_like.py), from Parquet here and from one .npy "
        f"file in autofaiss, which is given {BYTES_PER_VECTOR} bytes a vector; the whole command, with start-up, "
        "calibration and publishing. *Peak* is the proportional set size of all processes together, every 0.25 s.",
        "",
        "| | wall s | CPU-s | peak memory, MB | largest process, MB |",
        "|---|---|---|---|---|",
    ]
    for name, done in runs.items():
        cells = [
            spread(run.usage.wall_s for run in done),
            spread(run.usage.cpu_s for run in done),
            spread(run.peak_bytes / 1e6 for run in done),
            spread(run.largest_process_bytes / 1e6 for run in done),
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *_ratios(runs), "", *_steps(runs.get(OURS, ())), "", *_readers(readers)]
    lines += [f"{name} was not built: {why}." for name, why in failures.items()]
    return "\n".join([*lines, ""])


def _ratios(runs: Mapping[str, Sequence[BuildRun]]) -> list[str]:
    pairs = ((OURS, AUTOFAISS), (TWO_WORKERS, ONE_WORKER))
    lines = []
    for better, other in pairs:
        if runs.get(better) and runs.get(other):
            ratio = wall(runs[better]) / wall(runs[other])
            lines.append(f"Wall clock of {better} / {other}: {ratio:.2f}.")
    return lines


def _steps(done: Sequence[BuildRun]) -> list[str]:
    names = list(dict.fromkeys(name for run in done for name in run.steps))
    if not names:
        return []
    ends = [spread(run.steps[name] for run in done if name in run.steps) for name in names]
    lines = ["Steps of the build, seconds from its start until the files were there:", ""]
    return [*lines, f"| {' | '.join(names)} |", "|" + "---|" * len(names), f"| {' | '.join(ends)} |"]


def _readers(readers: Mapping[str, Any]) -> list[str]:
    if not readers:
        return []
    lines = [
        f"Opening, {NUM_OPENINGS} times after each build, in a process that has imported faiss:",
        "",
        "| files | open, s | first search, ms | resident, MB | of it no file's, MB |",
        "|---|---|---|---|---|",
    ]
    for name, title in (("cold", "dropped from the page cache"), ("warm", "in the page cache")):
        found = readers[name]
        cells = [
            spread(r["open_s"] for r in found),
            spread(r["first_search_s"] * 1e3 for r in found),
            spread(r["Rss"] / 1e6 for r in found),
            spread(r["Anonymous"] / 1e6 for r in found),
        ]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    one = spread(r["Pss"] / 1e6 for r in readers["warm"])
    together = spread(sum(r["Pss"] for r in group) / 1e6 for group in readers["together"])
    before = spread(r["before"]["Anonymous"] / 1e6 for r in readers["warm"])
    return [
        *lines,
        "",
        f"Proportional set size of one reader {one} MB, of {NUM_READERS} at once {together} MB together; before they "
        f"open the index, {before} MB of each are no file's.",
        "",
    ]


def wall(done: Sequence[BuildRun]) -> float:
    """Return the median wall clock of builds."""
    return statistics.median(run.usage.wall_s for run in done)


def spread(numbers: Iterable[float]) -> str:
    """Return the median and the range."""
    values = list(numbers)
    digits = 2 if statistics.median(values) < 10 else 0
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
