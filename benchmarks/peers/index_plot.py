"""Curves of recall and speed as an SVG file, drawn without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from benchmarks.peers.index_fronts import Point, front

COLOURS = ("#d62728", "#1f77b4", "#8c564b", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#7f7f7f")
PANEL_WIDTH, PANEL_HEIGHT, MARGIN, GAP, LEGEND_HEIGHT = 430, 340, 60, 50, 60
MIN_RECALL = 0.8
RECALLS = (0.80, 0.85, 0.90, 0.95, 0.99)


def plot(curves: Mapping[str, Mapping[str, Sequence[Point]]], title: str) -> str:
    """Return a panel for each kind of query: recall to the right, speed upwards on a logarithmic axis.

    Recall is drawn as the logarithm of what is missed, since 0.99 is as far from 0.90 as that is from 0.

    Args:
        curves: points by name of the index and kind of query.
        title: above all.
    """
    kinds = list(dict.fromkeys(kind for by_kind in curves.values() for kind in by_kind))
    speeds = [p.qps for by_kind in curves.values() for points in by_kind.values() for p in _visible(points)]
    low, high = (math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)))) if speeds else (1, 4)
    width = 2 * MARGIN + len(kinds) * PANEL_WIDTH + (len(kinds) - 1) * GAP
    height = 2 * MARGIN + PANEL_HEIGHT + LEGEND_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{width / 2}" y="24" text-anchor="middle" font-size="15">{escape(title)}</text>',
    ]
    for number, kind in enumerate(kinds):
        left = MARGIN + number * (PANEL_WIDTH + GAP)
        lines += _axes(left, f"{kind} queries", low, high)
        for colour, by_kind in zip(_colours(len(curves)), curves.values(), strict=True):
            lines += _curve(left, _visible(by_kind.get(kind, ())), colour, low, high)
    for number, (colour, name) in enumerate(zip(_colours(len(curves)), curves, strict=True)):
        x, y = MARGIN + number % 4 * 230, MARGIN + PANEL_HEIGHT + 56 + number // 4 * 20
        lines.append(f'<line x1="{x}" y1="{y - 4}" x2="{x + 24}" y2="{y - 4}" stroke="{colour}" stroke-width="3"/>')
        lines.append(f'<text x="{x + 30}" y="{y}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _visible(points: Sequence[Point]) -> list[Point]:
    return [point for point in front(points) if point.recall >= MIN_RECALL]


def _colours(number: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(number)]


def _x(left: float, recall: float) -> float:
    missed = math.log10(max(1 - recall, 0.002))
    least, most = math.log10(0.002), math.log10(1 - MIN_RECALL)
    return left + PANEL_WIDTH * (most - missed) / (most - least)


def _y(qps: float, low: int, high: int) -> float:
    return MARGIN + PANEL_HEIGHT * (high - math.log10(qps)) / (high - low)


def _axes(left: float, title: str, low: int, high: int) -> list[str]:
    bottom = MARGIN + PANEL_HEIGHT
    lines = [f'<text x="{left + PANEL_WIDTH / 2}" y="{MARGIN - 12}" text-anchor="middle">{escape(title)}</text>']
    for recall in RECALLS:
        x = _x(left, recall)
        lines.append(f'<line x1="{x:.1f}" y1="{MARGIN}" x2="{x:.1f}" y2="{bottom}" stroke="#ddd"/>')
        lines.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{recall:.2f}</text>')
    for exponent in range(low, high + 1):
        y = _y(10**exponent, low, high)
        lines.append(f'<line x1="{left}" y1="{y:.1f}" x2="{left + PANEL_WIDTH}" y2="{y:.1f}" stroke="#ddd"/>')
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10**exponent:,}</text>')
    label = "recall@10 against exact search; upwards: queries in a CPU-second"
    lines.append(f'<text x="{left + PANEL_WIDTH / 2}" y="{bottom + 34}" text-anchor="middle">{label}</text>')
    return lines


def _curve(left: float, points: Sequence[Point], colour: str, low: int, high: int) -> list[str]:
    if not points:
        return []
    places = [(_x(left, p.recall), _y(p.qps, low, high)) for p in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in places]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>', *dots]
