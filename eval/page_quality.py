"""The sections of a report's page that say how good the search is: as a whole, by part, and against another run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.page_parts import interval, table, text
from eval.plots import Bar, Line, bar_chart, line_chart

MEASURES = ("hit@1", "hit@5", "hit@10", "recall@10", "capped_recall@10", "mrr", "ndcg@10")
CURVE_MARKS = (1, 2, 5, 10, 20, 50, 100)


def quality_section(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the measures of every direction, and their curves."""
    names = [name for name in MEASURES if name in results[0]["measures"]]
    rows = []
    for result in results:
        cells = []
        for name in names:
            estimate = result["measures"][name]
            chance = estimate["chance"]
            beside = "" if chance is None else f"<br><small>by chance {chance:.4f}</small>"
            if estimate["best"] - estimate["worst"] >= 0.0005:
                beside += f"<br><small>ties {estimate['worst']:.3f}&ndash;{estimate['best']:.3f}</small>"
            cells.append(interval(estimate) + beside)
        rank = "not found" if result["median_rank"] is None else f"{result['median_rank']:,.0f}"
        mean_rank = "" if result["mean_rank"] is None else f"{result['mean_rank']:,.0f}"
        rows.append(
            [
                text(result["name"]),
                result["relevant"],
                f"{result['num_queries']:,}",
                f"{result['num_right']:,.1f}",
                *cells,
                rank,
                mean_rank,
                f"{result['num_tied']:,}",
                f"{result['num_unanswerable']:,}",
            ]
        )
    header = [
        "direction",
        "right hit",
        "queries",
        "right each",
        *names,
        "median rank",
        "mean rank",
        "tied",
        "unanswerable",
    ]
    curves = [
        Line(f"{result['name']} ({result['relevant']})", list(enumerate(result["curve"], start=1)))
        for result in _first_of_each(results)
    ]
    longest = max(len(result["curve"]) for result in results)
    drawing = ""
    if longest > 1:
        marks = [k for k in CURVE_MARKS if k <= longest]
        drawing = line_chart(curves, label="hit at k over k", across="k", up="hit@k", is_log=True, top=1.0, marks=marks)
    return table(header, rows, words=2) + drawing


def _first_of_each(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return of each direction the result of its first notion of what is right: more lines could not be told apart."""
    first: dict[str, Mapping[str, Any]] = {}
    for result in results:
        first.setdefault(result["name"], result)
    return list(first.values())


def gallery_section(results: Sequence[Mapping[str, Any]]) -> str:
    """Return what the same queries would find in smaller catalogues."""
    lines = [
        Line(
            f"{result['name']} ({result['relevant']})",
            [(point["size"], point["mean"]) for point in result["gallery"]],
            [(point["low"], point["high"]) for point in result["gallery"]],
        )
        for result in _first_of_each(results)
        if len(result["gallery"]) > 1
    ]
    if not lines:
        return ""
    return (
        "<p>The same model and the same queries in a random part of the catalogue, by the exact formula: a figure "
        "without the size of its gallery says nothing.</p>"
        + line_chart(
            lines,
            label="hit at 10 over the size of the gallery",
            across="products in the gallery",
            up="hit@10",
            is_log=True,
            top=1.0,
        )
    )


def index_section(points: Sequence[Mapping[str, Any]]) -> str:
    """Return what the index loses at each operating point."""
    if not points:
        return ""
    rows = [
        [
            text(point["direction"]),
            f"{point['num_probes']}",
            f"{point['rescore_factor']} k",
            f"{point['recall']:.3f}<br><small>{point['low']:.3f}&ndash;{point['high']:.3f}</small>",
            f"{point['hit']:.3f}",
            f"{point['lost_hit']:+.3f}",
            f"{point['cpu_ms']:.2f}",
            f"{1000 / max(point['cpu_ms'], 1e-6):,.0f}",
            f"{point['latency_ms']:.2f}",
        ]
        for point in points
    ]
    header = [
        *("direction", "lists probed", "re-scored", "recall@10 of exact search", "hit@10 through it", "lost hit@10"),
        *("CPU ms a query", "queries a CPU second", "ms asked alone"),
    ]
    lines = []
    for direction in dict.fromkeys(point["direction"] for point in points):
        own = [point for point in points if point["direction"] == direction]
        if len(own) > 1:
            lines.append(Line(direction, [(point["num_probes"], point["recall"]) for point in _by_probes(own)]))
    drawing = ""
    if lines:
        drawing = line_chart(
            lines,
            label="recall at 10 over lists probed",
            across="lists probed (best re-score)",
            up="recall@10 of exact search",
            is_log=True,
            top=1.0,
        )
    return (
        "<p>Of exact search's ten nearest, how many the index finds at each operating point, and what that costs "
        "people and machines. Marked: how it is searched unless asked otherwise.</p>"
        + table(header, rows, chosen=[point["is_chosen"] for point in points])
        + drawing
    )


def _by_probes(points: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    best: dict[int, Mapping[str, Any]] = {}
    for point in points:
        if point["num_probes"] not in best or point["recall"] > best[point["num_probes"]]["recall"]:
            best[point["num_probes"]] = point
    return [best[probes] for probes in sorted(best)]


def slices_section(slices: Sequence[Mapping[str, Any]]) -> str:
    """Return the measure of each part of the queries."""
    if not slices:
        return ""
    parts = ["<p>hit@10 of parts of the queries with 95 % intervals; parts of fewer than 30 are counted together.</p>"]
    for direction in dict.fromkeys(part["direction"] for part in slices):
        own = [part for part in slices if part["direction"] == direction]
        measure = "hit@10" if "hit@10" in own[0]["measures"] else next(iter(own[0]["measures"]))
        groups = []
        for column in dict.fromkeys(part["column"] for part in own):
            bars = [
                Bar(part["value"], estimate["mean"], estimate["low"], estimate["high"], f"n={part['num_queries']:,}")
                for part in own
                if part["column"] == column
                for estimate in [part["measures"][measure]]
            ]
            groups.append(f"<div><h3>{text(column)}</h3>{bar_chart(bars, label=f'{measure} by {column}')}</div>")
        is_open = " open" if direction in ("text -> image", "query text -> image") else ""
        title = f"{text(direction)} ({text(own[0]['relevant'])})"
        bars = "".join(groups)
        parts.append(f"<details{is_open}><summary>{title}</summary><div class=bars>{bars}</div></details>")
    return "".join(parts)


def comparison_section(comparison: Mapping[str, Any]) -> str:
    """Return what changed since another run, and whether by more than chance."""
    rows = [
        [
            text(each["direction"]),
            each["relevant"],
            each["measure"],
            f"{each['num_queries']:,}",
            f"{each['before']:.3f}",
            f"{each['now']:.3f}",
            f"{each['now'] - each['before']:+.3f}<br><small>{each['low']:+.3f} to {each['high']:+.3f}</small>",
            f"{each['p_value']:.4f}",
            "yes" if each["is_significant"] else "no",
        ]
        for each in comparison["differences"]
    ]
    header = ["direction", "right hit", "measure", "queries", "before", "now", "change", "p", "more than chance"]
    changed = [
        [text(each["direction"]), text(each["query_id"]), _rank(each["rank_before"]), _rank(each["rank_now"])]
        for each in comparison["changed"]
    ]
    return (
        f"<p>Before: {text(comparison['index'])}, version {comparison['version']}, model {text(comparison['model'])}."
        "</p>"
        + table(header, rows, words=3, chosen=[each["is_significant"] for each in comparison["differences"]])
        + "<details><summary>Queries whose first right product moved most</summary>"
        + table(["direction", "query", "rank before", "rank now"], changed, words=2)
        + "</details>"
    )


def _rank(rank: float | None) -> str:
    return "not found" if rank is None else f"{rank:,.0f}"
