"""The measured operating points of a side as SVG: recall@10 over the queries that one core answers in a second."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from product_retrieval.index.spec import MeasuredPoint, OperatingPoint, Side

WIDTH, HEIGHT = 720, 440
LEFT, RIGHT, TOP, BOTTOM = 64, 24, 40, 48
COLORS: dict[Side, str] = {"image": "#2166ac", "text": "#b2182b"}
"""By kind of query."""


def plot_side(
    side: Side,
    measured: Mapping[Side, Sequence[MeasuredPoint]],
    points: Mapping[Side, OperatingPoint],
    *,
    target_recall: float,
) -> str:
    """Draw the points of each kind of query, a line through those of the front at k = 10, and the one chosen.

    Args:
        side: that was searched.
        measured: by kind of query, all that was tried.
        points: by kind of query, the one chosen.
        target_recall: drawn as a line.

    Returns:
        The text of an SVG file.
    """
    speeds = [1000 / max(p.cpu_ms, 1e-6) for grid in measured.values() for p in grid]
    low, high = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)) + 1e-9)
    high = max(high, low + 1)
    bottom = math.floor(10 * min(p.recall_at_10 for grid in measured.values() for p in grid)) / 10
    bottom = min(bottom, 0.9)

    def place(point: MeasuredPoint) -> tuple[float, float]:
        across = (math.log10(1000 / max(point.cpu_ms, 1e-6)) - low) / (high - low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), _height(point.recall_at_10, bottom)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(side)} side: recall@10 against exact search</text>',
        *_axes(low, high, bottom, target_recall),
    ]
    for number, (kind, grid) in enumerate(measured.items()):
        color = COLORS[kind]
        front = sorted(place(p) for p in grid if 10 in p.front_of)
        lines += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}" opacity="0.4"/>' for x, y in map(place, grid)
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in front)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        chosen = points[kind]
        for p in grid:
            if (p.num_probes, p.rescore_factor) == (chosen.num_probes, chosen.rescore_factor):
                x, y = place(p)
                lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="{color}" stroke-width="2"/>')
        words = f"{kind} queries; chosen: {chosen.num_probes} lists, {chosen.rescore_factor} k re-scored"
        lines.append(f'<text x="{LEFT + 12}" y="{HEIGHT - BOTTOM - 12 - 18 * number}" fill="{color}">{words}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def _height(recall: float, bottom: float) -> float:
    return TOP + (1 - (recall - bottom) / (1 - bottom)) * (HEIGHT - TOP - BOTTOM)


def _axes(low: int, high: int, bottom: float, target_recall: float) -> list[str]:
    lines = []
    for power in range(low, high + 1):
        x = LEFT + (power - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        lines.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{10**power:,g}</text>')
    step = 0.1 if bottom < 0.8 else 0.02
    for number in range(round((1 - bottom) / step) + 1):
        recall = bottom + number * step
        y = _height(recall, bottom)
        lines.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{recall:.2f}</text>')
    y = _height(max(target_recall, bottom), bottom)
    dashes = 'stroke="#555" stroke-dasharray="4 3"'
    lines.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" {dashes}/>')
    words = "queries a second of CPU time, ten nearest, batch"
    lines.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">{words}</text>')
    return lines
