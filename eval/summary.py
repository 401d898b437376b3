"""What an evaluation prints on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = ("hit@1", "hit@10", "recall@10", "mrr", "ndcg@10")


def format_results(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the directions as a table."""
    names = [name for name in SHOWN if name in results[0]["measures"]]
    names = names or list(results[0]["measures"])[:3]
    wide = [name for name in names if name.startswith("hit")]
    header = f"  {'':<22} {'right':<8} {'queries':>7} {'gallery':>9}"
    for name in names:
        header += f"  {name + ' (95 %)':>20}" if name in wide else f"  {name:>9}"
    lines = [f"{header}  {'median rank':>11}"]
    for result in results:
        line = (
            f"  {result['name']:<22} {result['relevant']:<8} {result['num_queries']:>7,} {result['num_products']:>9,}"
        )
        for name in names:
            e = result["measures"][name]
            interval = f"{e['mean']:.3f} ({e['low']:.3f}-{e['high']:.3f})"
            line += f"  {interval:>20}" if name in wide else f"  {e['mean']:>9.3f}"
        rank = result["median_rank"]
        lines.append(f"{line}  {'not found' if rank is None else format(rank, ',.0f'):>11}")
    unanswerable = {f"{r['name']} {r['num_unanswerable']:,}" for r in results if r["num_unanswerable"]}
    if unanswerable:
        lines.append(
            f"  without anything right that has the side, counted as misses: {', '.join(sorted(unanswerable))}"
        )
    return "\n".join(lines)


def format_comparison(comparison: Mapping[str, Any]) -> str:
    """Return what differs from another report as a table; a star is significant after Holm's correction."""
    lines = [f"  against {comparison['index']}, version {comparison['version']}, model {comparison['model']}:"]
    for difference in comparison["differences"]:
        if difference["measure"] not in SHOWN:
            continue
        change = difference["now"] - difference["before"]
        star = "*" if difference["is_significant"] else " "
        name = f"{difference['direction']} ({difference['relevant']}) {difference['measure']}"
        interval = f"({difference['low']:+.3f} to {difference['high']:+.3f})"
        lines.append(
            f"  {name:<44} {difference['before']:.3f} -> {difference['now']:.3f}  {change:+.3f} {interval} "
            f"p {difference['p_value']:.4f} {star}"
        )
    return "\n".join(lines)
