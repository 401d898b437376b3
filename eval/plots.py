"""Drawings of a report as inline SVG, lines and bars with intervals, in the page's colours of either theme."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 14, 46
NUM_COLORS = 6
"""The page's classes c0 ... c5; more lines begin again, dashed."""
BAR_HEIGHT, BAR_GAP, LABEL_WIDTH = 18, 8, 236


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float]] = field(default=())
    """Lower and upper end at each point; none without."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a chart."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""
    """Behind the bar, such as how many queries it stands for."""


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    across: str,
    up: str,
    is_log: bool = False,
    marks: Sequence[float] = (),
    top: float | None = None,
    bottom: float = 0.0,
) -> str:
    """Return lines over one axis, with a legend below.

    Args:
        lines: at least one with a point.
        label: what the drawing shows, for those who cannot see it.
        across: what the axis across says.
        up: what the axis up says.
        is_log: whether the axis across is logarithmic.
        marks: where the axis across is marked; none chooses them.
        top: end of the axis up; None takes the largest value.
        bottom: start of the axis up.
    """
    values_x = [x for line in lines for x, _ in line.points]
    values_y = [y for line in lines for _, y in line.points] + [high for line in lines for _, high in line.band]
    low_x, high_x = min(values_x), max(values_x)
    top = top if top is not None else max([*values_y, bottom + 1e-9])
    place_x = _scale(low_x, high_x, LEFT, WIDTH - RIGHT, is_log=is_log)
    place_y = _scale(bottom, max(top, bottom + 1e-9), HEIGHT - BOTTOM, TOP)
    parts = [_horizontal(bottom + share * (top - bottom), place_y) for share in (0, 0.25, 0.5, 0.75, 1)]
    for x in marks or _marks(low_x, high_x, is_log=is_log):
        if low_x <= x <= high_x:
            parts.append(f"<text x={place_x(x):.1f} y={HEIGHT - BOTTOM + 18} text-anchor=middle>{_short(x)}</text>")
    parts.append(f"<text x={(LEFT + WIDTH - RIGHT) / 2:.0f} y={HEIGHT - 6} text-anchor=middle>{_text(across)}</text>")
    parts.append(
        f"<text x=12 y={HEIGHT / 2:.0f} text-anchor=middle transform='rotate(-90 12 {HEIGHT / 2:.0f})'>"
        f"{_text(up)}</text>"
    )
    legend = []
    for number, line in enumerate(lines):
        color, dashes = f"c{number % NUM_COLORS}", " stroke-dasharray='5 4'" if number >= NUM_COLORS else ""
        xs = [place_x(x) for x, _ in line.points]
        if line.band:
            outline = [(x, place_y(low)) for x, (low, _) in zip(xs, line.band, strict=True)]
            outline += [(x, place_y(high)) for x, (_, high) in reversed(list(zip(xs, line.band, strict=True)))]
            parts.append(f"<polygon class='band {color}' points='{_path(outline)}'/>")
        spots = [(x, place_y(y)) for x, (_, y) in zip(xs, line.points, strict=True)]
        parts.append(f"<polyline class='line {color}'{dashes} points='{_path(spots)}'/>")
        if len(spots) <= 20:
            parts += [f"<circle class='dot {color}' cx={x:.1f} cy={y:.1f} r=2.5 />" for x, y in spots]
        legend.append(f"<span><i class={color}></i>{_text(line.name)}</span>")
    return _figure(parts, WIDTH, HEIGHT, label, "".join(legend))


def bar_chart(bars: Sequence[Bar], *, label: str, top: float = 1.0, form: str = ".3f") -> str:
    """Return bars from the left with their intervals.

    Args:
        bars: at least one.
        label: what the drawing shows, for those who cannot see it.
        top: value of a bar over the whole width.
        form: how values are written.
    """
    height = len(bars) * (BAR_HEIGHT + BAR_GAP) + BAR_GAP
    place = _scale(0.0, max(top, 1e-9), LABEL_WIDTH, WIDTH - 110)
    parts = []
    for number, bar in enumerate(bars):
        y = BAR_GAP + number * (BAR_HEIGHT + BAR_GAP)
        middle = y + BAR_HEIGHT / 2
        parts.append(
            f"<text x={LABEL_WIDTH - 8} y={middle + 4:.0f} text-anchor=end>{_text(_shortened(bar.name))}</text>"
        )
        parts.append(
            f"<rect class='bar' x={LABEL_WIDTH} y={y} height={BAR_HEIGHT} rx=3 "
            f"width={max(place(bar.value) - LABEL_WIDTH, 0.5):.1f} />"
        )
        end = place(bar.value)
        if bar.low is not None and bar.high is not None:
            end = max(end, place(bar.high))
            left, right = place(bar.low), place(bar.high)
            parts.append(f"<line class='whisker' x1={left:.1f} x2={right:.1f} y1={middle:.1f} y2={middle:.1f} />")
        note = f" <tspan class=note>{_text(bar.note)}</tspan>" if bar.note else ""
        parts.append(f"<text x={end + 6:.1f} y={middle + 4:.0f}>{bar.value:{form}}{note}</text>")
    return _figure(parts, WIDTH, height, label, "")


def _figure(parts: Sequence[str], width: int, height: int, label: str, legend: str) -> str:
    key = f"<figcaption>{legend}</figcaption>" if legend else ""
    return (
        f"<figure><svg viewBox='0 0 {width} {height}' width={width} role=img aria-label='{_text(label)}'>"
        f"{''.join(parts)}</svg>{key}</figure>"
    )


def _scale(low: float, high: float, start: float, end: float, *, is_log: bool = False) -> Callable[[float], float]:
    """Return where on the drawing a value is."""
    measure: Callable[[float], float] = (lambda value: math.log10(max(value, 1e-12))) if is_log else float
    first, last = measure(low), measure(high)
    span = last - first or 1.0
    return lambda value: start + (measure(value) - first) / span * (end - start)


def _horizontal(value: float, place_y: Callable[[float], float]) -> str:
    y = place_y(value)
    return (
        f"<line class=grid x1={LEFT} x2={WIDTH - RIGHT} y1={y:.1f} y2={y:.1f} />"
        f"<text x={LEFT - 6} y={y + 4:.1f} text-anchor=end>{value:.2g}</text>"
    )


def _marks(low: float, high: float, *, is_log: bool) -> list[float]:
    if is_log:
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        found = [10.0**power for power in powers]
        return found if len(found) > 1 else [low, high]
    return [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]


def _short(value: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _path(spots: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)


def _shortened(text: str, length: int = 34) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def _text(value: object) -> str:
    return html.escape(str(value))
