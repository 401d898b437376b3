"""The report in a few sentences: what it means for those who search, and what to mend first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

K = "hit@10"
NOTEWORTHY_LOSS = 0.01


def verdict(record: Mapping[str, Any]) -> list[str]:
    """Return the sentences, the most important first."""
    results = record["results"]
    lines = [_quality(result) for result in _headlines(results)]
    lines += filter(
        None, [_index(record), _gallery(results), _misses(record), _slices(record), _noise(record), _texts(record)]
    )
    return lines


def _headlines(results: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return what people do: search by words, by the file's queries, and by another photo."""
    names = ("query text -> image", "query image -> image", "text -> image", "image -> text", "photo -> image")
    found = [result for name in names for result in results if result["name"] == name]
    first: dict[str, Mapping[str, Any]] = {}
    for result in found:
        first.setdefault(result["name"], result)
    return list(first.values()) or list(results[:1])


def _quality(result: Mapping[str, Any]) -> str:
    measure = K if K in result["measures"] else next(iter(result["measures"]))
    e = result["measures"][measure]
    k = measure.partition("@")[2]
    chance = f", by chance {100 * e['chance']:.1f}" if e["chance"] is not None else ""
    return (
        f"{result['name']}: {100 * e['mean']:.0f} of 100 queries find a right product among the first {k} of "
        f"{result['num_products']:,} (95 % interval {100 * e['low']:.0f} to {100 * e['high']:.0f}{chance})."
    )


def _index(record: Mapping[str, Any]) -> str | None:
    chosen = [point for point in record["index_quality"] if point["is_chosen"]]
    if not chosen:
        return None
    worst = max(chosen, key=lambda point: point["lost_hit"])
    if worst["lost_hit"] < NOTEWORTHY_LOSS:
        return (
            f"The index is not what limits it: as it is served it loses {100 * max(worst['lost_hit'], 0):.1f} of 100 "
            f"queries at most ({worst['direction']}, recall@10 of exact search {worst['recall']:.3f})."
        )
    return (
        f"The index loses {100 * worst['lost_hit']:.1f} of 100 queries of {worst['direction']} (recall@10 of exact "
        f"search {worst['recall']:.3f}): build it with a higher --target-recall."
    )


def _gallery(results: Sequence[Mapping[str, Any]]) -> str | None:
    result = _headlines(results)[0]
    points = result["gallery"]
    if len(points) < 2 or points[-1]["size"] < 2 * points[-2]["size"]:
        points = points[:-2] + points[-1:] if len(points) > 2 else points
    if len(points) < 2:
        return None
    small, whole = points[-2], points[-1]
    return (
        f"The size of the gallery matters: {result['name']} hit@10 is {small['mean']:.2f} among {small['size']:,} "
        f"products and {whole['mean']:.2f} among {whole['size']:,}; expect less as the catalogue grows."
    )


def _misses(record: Mapping[str, Any]) -> str | None:
    misses = next((each for each in record.get("misses", ()) if each["num_misses"]), None)
    misses = next((each for each in record.get("misses", ()) if each["direction"] == "text -> image"), misses)
    if misses is None or not misses["num_misses"]:
        return None
    largest = sorted((kind for kind in misses["kinds"] if kind["num_misses"]), key=lambda kind: -kind["num_misses"])[:3]
    causes = ", ".join(f"{kind['heading']} {100 * kind['share']:.0f} %" for kind in largest)
    return f"Of the {misses['num_misses']:,} misses of {misses['direction']}: {causes}."


def _slices(record: Mapping[str, Any]) -> str | None:
    """Return the slice that is surely worse than its direction: its whole interval lies below the mean."""
    means = {(r["name"], r["relevant"]): r["measures"][K]["mean"] for r in record["results"] if K in r["measures"]}
    direction = _headlines(record["results"])[0]["name"]
    worse = [
        (part["measures"][K]["mean"], part)
        for part in record["slices"]
        if part["direction"] == direction
        and K in part["measures"]
        and part["measures"][K]["high"] < means.get((part["direction"], part["relevant"]), 0.0)
    ]
    if not worse:
        return None
    mean, part = min(worse, key=lambda each: each[0])
    return (
        f"Weakest part of {direction}: {part['column']} = {part['value']} with hit@10 {mean:.2f} "
        f"({part['num_queries']:,} queries)."
    )


def _noise(record: Mapping[str, Any]) -> str | None:
    results = record.get("robustness", {}).get("results", [])
    lightest = [
        result for number, result in enumerate(results) if number and results[number - 1]["kind"] != result["kind"]
    ]
    if not lightest:
        return None
    worst = max(lightest, key=lambda result: result["lost"])
    return (
        f"Most sensitive to {worst['kind']}: already an amount of {worst['amount']:g} takes hit@10 from "
        f"{results[0]['hit_at_10']:.2f} to {worst['hit_at_10']:.2f}."
    )


def _texts(record: Mapping[str, Any]) -> str | None:
    kinds = [kind for kind in record.get("texts", {}).get("kinds", ()) if kind["num_products"]]
    if not kinds:
        return None
    found = ", ".join(f"{kind['kind']} {kind['num_products']:,}" for kind in kinds)
    return f"Suspicious texts among {record['texts']['num_products']:,} products: {found}."
