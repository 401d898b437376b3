"""The page that tells how the indexes compare."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from benchmarks.peers.index_fronts import Point, is_lower_bound, points_of, qps_at
from benchmarks.peers.index_plot import plot
from benchmarks.peers.index_systems import SYSTEMS, System
from benchmarks.peers.process_tree import Usage
from benchmarks.peers.report import cpu_name

KINDS = ("image", "text")
RECALLS = (0.90, 0.95, 0.98)
REFERENCE = SYSTEMS["faiss-hnsw"].title


@dataclass(slots=True)
class Measured:
    """An index and what is known of it so far."""

    system: System
    build: Usage | None = None
    missing: str | None = None
    """Why it was not measured."""
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def points(self, kind: str) -> list[Point]:
        """Return its settings for a kind of query."""
        return points_of(self.rounds, kind)

    def default(self, kind: str) -> Point | None:
        """Return its own choice of a setting."""
        return next((point for point in self.points(kind) if point.knobs == "default"), None)

    def median(self, name: str) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(measured[name] for measured in self.rounds)


def page(indexes: Sequence[Measured], options: argparse.Namespace, load: float) -> str:
    """Return the measurements as Markdown.

    Args:
        indexes: all of them; the first is this project's.
        options: of the command.
        load: of the machine when the run began.
    """
    there = [index for index in indexes if index.rounds]
    lines = [
        "# Recall and speed of indexes on the same vectors",
        "",
        f"`python -m benchmarks.index_recall --products {options.products} --queries {options.queries} --rounds "
        f"{options.rounds} ...`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu_name()}, no GPU), load "
        f"{load:.1f} at the start, Python {platform.python_version()}, numpy {version('numpy')}; median of "
        f"{options.rounds} rounds in which the indexes took turns.",
        "",
        f"{options.products:,} picture vectors of 512 dimensions with the geometry of CLIP's (clip_like.py), "
        f"{options.queries} other pictures and {options.queries} other texts of their products as queries, the 10 "
        "nearest of each, recall against exact search. Speed is queries in a CPU-second, on one thread, all asked at "
        "once; at a given recall it is interpolated between two neighbours on an index's front.",
        "",
        "Memory is what opening and a first search add to a process that no file backs; *disk* is all files that a "
        "search reads or a build leaves. This project's index holds the pictures' and the texts' vectors, and its "
        "build makes and calibrates both sides: memory and disk are per vector of either, its build time is for both.",
        "",
        f"![recall and speed]({options.output.with_suffix('.svg').name})",
        "",
        *_table(there),
        "",
        *_at_recalls(there),
        "",
        *_defaults(there),
        "",
        "Indexes: "
        + "; ".join(f"{i.system.title}: {i.rounds[0]['description']} ({i.rounds[0]['versions']})" for i in there)
        + ".",
    ]
    absent = [f"{index.system.title}: {index.missing}" for index in indexes if index.missing]
    return "\n".join([*lines, *(["", "Not measured: " + "; ".join(absent) + "."] if absent else []), ""])


def plot_page(indexes: Sequence[Measured], options: argparse.Namespace) -> str:
    """Return the curves as SVG."""
    curves = {i.system.title: {kind: i.points(kind) for kind in KINDS} for i in indexes if i.rounds}
    return plot(curves, f"{options.products:,} picture vectors of 512 dimensions, one thread")


def _table(indexes: Sequence[Measured]) -> list[str]:
    lines = [
        "| | bytes a vector in memory | on disk | build, wall s | build, CPU-s | open, s | best recall, image / text |",
        "|---|---|---|---|---|---|---|",
    ]
    for index in indexes:
        best = " / ".join(f"{max(p.recall for p in index.points(kind)):.3f}" for kind in KINDS)
        build = (f"{index.build.wall_s:,.0f}", f"{index.build.cpu_s:,.0f}") if index.build else ("", "")
        sizes = [f"{index.median(name):,.0f}" for name in ("memory_bytes_per_vector", "disk_bytes_per_vector")]
        cells = [index.system.title, *sizes, *build, f"{index.median('open_s'):.2f}", best]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _at_recalls(indexes: Sequence[Measured]) -> list[str]:
    titles = [f"{kind} {recall:.2f}" for kind in KINDS for recall in RECALLS]
    lines = [
        "Queries in a CPU-second at a recall@10 (not reached: -):",
        "",
        f"| | {' | '.join(titles)} |",
        "|---|" + "---|" * len(titles),
    ]
    for index in indexes:
        cells = []
        for kind in KINDS:
            for recall in RECALLS:
                qps = qps_at(index.points(kind), recall)
                bound = "at least " if is_lower_bound(index.points(kind), recall) else ""
                cells.append("-" if qps is None else f"{bound}{qps:,.0f}")
        lines.append(f"| {index.system.title} | {' | '.join(cells)} |")
    return lines


def _defaults(indexes: Sequence[Measured]) -> list[str]:
    """Compare an index that chooses its own setting with the reference at the same recall."""
    lines = [
        f"With nothing said, each that has a default; beside it {REFERENCE} at the same recall:",
        "",
        "| | queries | recall@10 | queries in a CPU-second (range) | one by one | times the reference |",
        "|---|---|---|---|---|---|",
    ]
    reference = next((index for index in indexes if index.system.title == REFERENCE), None)
    for index in indexes:
        for kind in KINDS:
            point = index.default(kind)
            if point is None:
                continue
            other = qps_at(reference.points(kind), point.recall) if reference else None
            bound = "at most " if reference and is_lower_bound(reference.points(kind), point.recall) else ""
            times = "" if other is None else f"{bound}{point.qps / other:.2f}"
            speeds = f"{point.qps:,.0f} ({point.slowest_qps:,.0f} to {point.fastest_qps:,.0f})"
            lines.append(
                f"| {index.system.title} | {kind} | {point.recall:.3f} | {speeds} | {point.single_qps:,.0f} | {times} |"
            )
    return lines
