"""The sections of a report's page about the vectors themselves: how the two sides lie, hubs, and broken vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eval.page_parts import table, text
from eval.plots import Line, line_chart

Record = Mapping[str, Any]
SLICE_HEADER = ("column", "value", "products", "alignment", "gap", "own above other", "agreement", "median percentile")
HUB_HEADER = (
    *("direction", "skewness", "most frequent hit", "hubs", "nobody's hit"),
    *("share of the top 1 %", "Robin Hood"),
)
HEALTH = {
    "num_products": "products",
    "num_missing": "without it",
    "num_not_finite": "not finite",
    "num_not_unit": "not of unit length",
    "num_constant": "constant",
    "num_duplicated": "same as another product's",
}


def alignment_section(record: Record) -> str:
    """Return how well pictures and texts lie together, and what corrections would bring."""
    found = record.get("alignment")
    if not found:
        return ""
    parts = [
        f"<p>Measured on {found['num_pairs']:,} products.</p>",
        table(["number", "what it is", "value"], _numbers(found), words=2),
        _similarities(found["similarities"]),
    ]
    if record.get("corrections"):
        header = ["direction", "correction", "queries", "hit@10", "gained", "MRR"]
        rows = [_correction_row(each) for each in record["corrections"]]
        parts.append(f"<h3>What corrections would bring</h3>{table(header, rows, words=2)}")
    if found["slices"]:
        rows = [_slice_row(part) for part in found["slices"]]
        parts.append(
            f"<details><summary>By part of the catalogue</summary>{table(SLICE_HEADER, rows, words=2)}</details>"
        )
    return "".join(parts)


def _numbers(found: Record) -> Sequence[Sequence[str]]:
    alike = found["similarities"]
    by_chance = f"by chance {found['agreement_by_chance']:.4f}"
    numbers = {
        "alignment": ("mean squared distance of a picture and its own text; lower is better", found["alignment"], 3),
        "uniformity of pictures": ("0 is one point, lower is spread out more", found["image_uniformity"], 2),
        "uniformity of texts": ("", found["text_uniformity"], 2),
        "modality gap": ("distance of the mean picture and the mean text", found["gap"], 3),
        "cosine of the means": ("", found["centroid_cosine"], 3),
        "own pair above another": (
            "chance that an own pair is the more similar one; 0.5 is none",
            alike["auc"],
            4,
        ),
        "overlap": ("of the two distributions below", alike["overlap"], 3),
        "median percentile of own pairs": (
            "share of other texts that a picture is less similar to",
            found["median_percentile"],
            4,
        ),
        "agreement of neighbourhoods": (
            f"share of ten neighbours by picture that are neighbours by text; {by_chance}",
            found["agreement"],
            3,
        ),
        "dimensions of pictures": ("directions that the vectors really use", found["image_dimensions"], 1),
        "dimensions of texts": ("", found["text_dimensions"], 1),
    }
    return [[name, meaning, f"{value:.{digits}f}"] for name, (meaning, value, digits) in numbers.items()]


def _similarities(alike: Record) -> str:
    middles = [(low + high) / 2 for low, high in zip(alike["edges"], alike["edges"][1:], strict=False)]
    lines = [
        Line("a picture and its own text", list(zip(middles, alike["own"], strict=True))),
        Line("a picture and another text", list(zip(middles, alike["other"], strict=True))),
    ]
    label = "similarity of own and other pairs"
    return line_chart(lines, label=label, across="cosine similarity", up="share of the pairs")


def _correction_row(each: Record) -> Sequence[str]:
    return [
        text(each["direction"]),
        text(each["correction"]),
        f"{each['num_queries']:,}",
        f"{each['hit_at_10']:.3f}",
        f"{each['gained']:+.3f}<br><small>{each['low']:+.3f} to {each['high']:+.3f}</small>",
        f"{each['mrr']:.3f}",
    ]


def _slice_row(part: Record) -> Sequence[str]:
    return [
        text(part["column"]),
        text(part["value"]),
        f"{part['num_products']:,}",
        f"{part['alignment']:.3f}",
        f"{part['gap']:.3f}",
        f"{part['auc']:.4f}",
        f"{part['agreement']:.3f}",
        f"{part['median_percentile']:.4f}",
    ]


def hubs_section(record: Record) -> str:
    """Return which directions have products that are among everybody's hits."""
    rows = [
        [
            text(name),
            f"{each['skewness']:.2f}",
            f"{each['largest']:,}",
            f"{each['num_hubs']:,}",
            f"{each['anti_hubs']:.3f}<br><small>by chance {each['anti_hubs_by_chance']:.3f}</small>",
            f"{each['top_share']:.3f}",
            f"{each['robin_hood']:.3f}",
        ]
        for name, each in record.get("hubness", {}).items()
    ]
    if not rows:
        return ""
    return (
        "<p>How often each product is among somebody's first ten hits: 0 skewness is even; above about 1.5 a few "
        f"products are in everybody's way.</p>{table(HUB_HEADER, rows)}"
    )


def health_section(record: Record) -> str:
    """Return how many vectors of each side are missing or broken."""
    rows = [[text(side), *(f"{each[name]:,}" for name in HEALTH)] for side, each in record.get("health", {}).items()]
    return table(["side", *HEALTH.values()], rows) if rows else ""
