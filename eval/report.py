"""The report as one offline page: a table with intervals, a curve, and how to read them."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

WIDTH, HEIGHT, PAD = 640, 300, 44
LINES = ("#1f6feb", "#d1480f", "#2da44e", "#8250df", "#bf8700", "#57606a", "#cf222e", "#0a7ea4")
STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1f2328}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}"
    "td,th{padding:.35rem .6rem;border-bottom:1px solid #d0d7de;text-align:right}"
    "td:first-child,th:first-child,td:nth-child(2),th:nth-child(2){text-align:left}"
    "small{color:#57606a}svg{max-width:100%;height:auto}.scroll{overflow-x:auto}"
)


def render_report(record: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        record: what report.json holds.
    """
    results = record["results"]
    asked = record["options"]["where"] or "all products"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Search quality</title><style>{STYLE}</style><h1>Search quality</h1>"
        f"<p>Index {_text(record['index'])}, version {record['version']}, model {_text(record['model'])}, "
        f"{record['num_products']:,} products in the gallery, queries from {_text(asked)}.</p>"
        f"<div class=scroll>{_table(results)}</div>{_curve(results)}{_index_table(record['index_recall_at_10'])}"
        "<h2>How to read this</h2><p>hit@k is the share of queries whose right product is among the first k hits; "
        "papers on CLIP call it R@K. Right is the product itself and its other listings, or any product of its group. "
        "Small print: the 95 % interval, from 1,000 bootstrap samples of whole groups, and what a random order would "
        "get. Products that tie with the right one count by their expected place. The numbers are of exact search, "
        "so they are the model's; how much of exact search the index finds is a table of its own.</p></html>\n"
    )


def _table(results: list[dict[str, Any]]) -> str:
    names = list(results[0]["hits"])
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = []
    for result in results:
        cells = "".join(
            f"<td>{e['mean']:.3f}<br><small>{e['low']:.3f}&ndash;{e['high']:.3f}; chance {e['chance']:.4f}</small></td>"
            for e in (result["hits"][name] for name in names)
        )
        rows.append(
            f"<tr><td>{_text(result['name'])}</td><td>{result['relevant']}</td><td>{result['num_queries']:,}</td>{cells}"
            f"<td>{result['mean_reciprocal_rank']:.3f}</td><td>{result['median_rank']:.0f}</td>"
            f"<td>{result['num_tied']:,}</td></tr>"
        )
    return (
        f"<table><tr><th>direction</th><th>right hit</th><th>queries</th>{head}<th>MRR</th><th>median rank</th>"
        f"<th>tied</th></tr>{''.join(rows)}</table>"
    )


def _index_table(recalls: Mapping[str, float | None]) -> str:
    rows = "".join(
        f"<tr><td>{_text(name)}</td><td>{'not measured' if recall is None else f'{recall:.3f}'}</td></tr>"
        for name, recall in recalls.items()
    )
    return f"<h2>Recall@10 of the index against exact search</h2><table>{rows}</table>"


def _curve(results: list[dict[str, Any]]) -> str:
    """Return hit@k over k as an inline drawing; k is on a logarithmic axis."""
    import math

    longest = max(len(result["curve"]) for result in results)

    def place(k: float, value: float) -> tuple[float, float]:
        across = math.log(k) / math.log(longest) if longest > 1 else 0.0
        return PAD + across * (WIDTH - 2 * PAD), HEIGHT - PAD - value * (HEIGHT - 2 * PAD)

    parts = []
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = place(1, value)
        parts.append(f"<line x1={x:.0f} x2={WIDTH - PAD} y1={y:.0f} y2={y:.0f} stroke='#d0d7de'/>")
        parts.append(f"<text x={x - 8:.0f} y={y + 4:.0f} text-anchor=end font-size=12>{value:g}</text>")
    for k in (1, 2, 5, 10, 20, 50, 100):
        if k <= longest:
            x, y = place(k, 0)
            parts.append(f"<text x={x:.0f} y={y + 18:.0f} text-anchor=middle font-size=12>{k}</text>")
    legend = []
    for number, result in enumerate(results):
        color = LINES[number % len(LINES)]
        points = " ".join("{:.1f},{:.1f}".format(*place(k, v)) for k, v in enumerate(result["curve"], start=1))
        parts.append(f"<polyline points='{points}' fill=none stroke='{color}' stroke-width=2 />")
        name = f"{_text(result['name'])}, right: {result['relevant']}"
        legend.append(f"<span style='color:{color}'>&#9632;</span> {name}")
    return (
        f"<h2>hit@k over k</h2><svg viewBox='0 0 {WIDTH} {HEIGHT}' width={WIDTH} role=img "
        f"aria-label='hit at k over k'>{''.join(parts)}</svg><p>{' &nbsp; '.join(legend)}</p>"
    )


def _text(value: object) -> str:
    return html.escape(str(value))
