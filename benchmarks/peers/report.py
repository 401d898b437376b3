"""The page that tells what was measured."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

from benchmarks.peers.process_tree import Usage

Runs = dict[tuple[str, int], list[Usage]]
"""By system and number of products, in the order of the rounds."""
RATIOS = (
    ("product_retrieval, pairs", "clip-retrieval, pairs"),
    ("product_retrieval, pairs, float32", "clip-retrieval, pairs"),
    ("product_retrieval, pictures", "clip-retrieval, pictures"),
    ("product_retrieval, pictures", "Ray's pattern, pictures"),
    ("product_retrieval, pictures, float32", "Ray's pattern, pictures"),
)
INTRODUCTION = (
    "# The embedding job beside Ray's pattern and clip-retrieval",
    "",
    "The same JPEG files, the same weights (random: quality is not compared), batches of 64, a torch thread per core, "
    "all else as each system does by default: the others compute in float32, this project in bfloat16 where the "
    "processor has it (AMX), unless a row says float32. *Pairs* are a picture and its "
    "title; Ray's pattern embeds no text. Steady state is the difference between a system's two runs, so without "
    "start-up; *whole run* is the larger one with it.",
    "",
    "CPU-seconds are of the whole process tree, sampled every 0.1 s from /proc; what a process does after its last "
    "sample is lost, up to 0.1 s for each of the 5 to 15 that a run starts. Compare these: the machine "
    "is shared, and wall clock tells as much about its other work. *Likeness* is the mean cosine between a system's "
    "picture vectors and those of the first row, both less their mean.",
    "",
)


def page(runs: Runs, agreement: Mapping[str, float], options: argparse.Namespace, jpeg_bytes: float, peers: str) -> str:
    """Return the measurements as Markdown.

    Args:
        runs: all of them.
        agreement: of each system's vectors with ours.
        options: of the command.
        jpeg_bytes: mean size of a picture's file.
        peers: versions in clip-retrieval's environment.
    """
    small, large = options.small, options.large
    names = list(dict.fromkeys(name for name, _ in runs))
    ours = ", ".join(f"{name} {version(name)}" for name in ("ray", "torch", "transformers", "Pillow", "numpy"))
    lines = [
        *INTRODUCTION,
        f"Model `{options.size}`, {small} and {large} products, {len(runs[names[0], large])} rounds, "
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({cpu_name()}, no GPU), Python "
        f"{platform.python_version()}; JPEG files of {jpeg_bytes / 1000:.0f} kB. Here and for Ray's pattern: {ours}. "
        f"There: {peers}.",
        "",
        "| | steady products per CPU-second | steady products/s "
        f"| CPU-s of {large} | wall s of {large} | CPU-s of {small} | likeness |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        few, many = runs[name, small], runs[name, large]
        steady_cpu = [(large - small) / (b.cpu_s - a.cpu_s) for a, b in zip(few, many, strict=True)]
        steady_wall = [(large - small) / (b.wall_s - a.wall_s) for a, b in zip(few, many, strict=True)]
        columns = [steady_cpu, steady_wall, [u.cpu_s for u in many], [u.wall_s for u in many], [u.cpu_s for u in few]]
        lines.append(f"| {name} | {' | '.join(map(spread, columns))} | {agreement[name]:.4f} |")
    lines += ["", "| ratio of products per CPU-second | steady state | whole run |", "|---|---|---|"]
    for better, other in RATIOS:
        if better in names and other in names:
            steady = cost(runs, other, lambda few, many: many - few, options) / cost(
                runs, better, lambda few, many: many - few, options
            )
            whole = cost(runs, other, lambda _, many: many, options) / cost(runs, better, lambda _, many: many, options)
            lines.append(f"| {better} / {other} | {steady:.2f} | {whole:.2f} |")
    return "\n".join([*lines, ""])


def cost(runs: Runs, name: str, of: Callable[[float, float], float], options: argparse.Namespace) -> float:
    """Return the median over the rounds of something made of the CPU-seconds of a system's two runs."""
    pairs = zip(runs[name, options.small], runs[name, options.large], strict=True)
    return statistics.median(of(few.cpu_s, many.cpu_s) for few, many in pairs)


def spread(values: Sequence[float]) -> str:
    """Return the median and the range."""
    digits = 2 if statistics.median(values) < 10 else 1 if statistics.median(values) < 100 else 0
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def cpu_name() -> str:
    """Return what the processor calls itself."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
