"""The report as one offline page for someone who has three minutes: a verdict, plots, and what to mend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eval.page_alignment import alignment_section, health_section, hubs_section
from eval.page_errors import lookalikes_section, misses_section, robustness_section, shown_products, texts_section
from eval.page_parts import section, table, text
from eval.page_quality import comparison_section, gallery_section, index_section, quality_section, slices_section
from eval.verdict import verdict

STYLE = Path(__file__).with_name("report.css")
DEFINITIONS = (
    "<b>hit@k</b>: share of queries with a right product among the first k hits; papers on CLIP call it R@K.",
    "<b>recall@k</b>: share of a query's right products among the first k; <b>capped recall@k</b>: of as many as "
    "could be there.",
    "<b>MRR</b>: mean of 1 / rank of the first right product. <b>nDCG@10</b>: discounted gain of the first ten over "
    "the best order's.",
    "Right is the product itself and its other listings (<i>product</i>), any product of its group (<i>group</i>), or "
    "what a file says (<i>judged</i>).",
    "Ties are broken at random, in expectation; where they matter, the worst and the best order stand beside.",
    "Queries with nothing right to be found count as misses.",
    "Intervals: 95 %, 1,000 bootstrap samples of whole groups of products.",
    "All but the index's own section is measured by exact search.",
)


def pictured(record: Mapping[str, Any]) -> list[str]:
    """Return the ids of the products whose pictures the page shows."""
    return shown_products(record)


def render_report(record: Mapping[str, Any], pictures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        record: what report.json holds.
        pictures: by product_id, as data URIs.
    """
    sections = [
        ("quality", "Can people find it?", quality_section(record["results"])),
        ("gallery", "As the catalogue grows", gallery_section(record["results"])),
        ("index", "What the index loses", index_section(record["index_quality"])),
        ("slices", "Where it is better and worse", slices_section(record["slices"])),
        ("misses", "Why it was not found", misses_section(record, pictures)),
        ("alike", "Products that look alike", lookalikes_section(record, pictures)),
        ("noise", "When texts are disturbed", robustness_section(record)),
        ("texts", "Suspicious texts", texts_section(record, pictures)),
        ("alignment", "How well pictures and texts lie together", alignment_section(record)),
        ("hubs", "Products that crowd the hits", hubs_section(record)),
        ("vectors", "Vectors", health_section(record)),
        ("method", "How each number is defined", _method(record)),
    ]
    if "comparison" in record:
        sections.insert(1, ("comparison", "Against the other run", comparison_section(record["comparison"])))
    sections = [(name, title, body) for name, title, body in sections if body]
    contents = "".join(f"<a href='#{name}'>{title}</a>" for name, title, _ in sections)
    asked = record["options"]["where"] or "all products"
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        "<meta http-equiv=Content-Security-Policy "
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>Search quality</title><style>{STYLE.read_text(encoding='utf-8')}</style><main><h1>Search quality</h1>"
        f"<p class=quiet>Index {text(record['index'])}, version {record['version']} &middot; "
        f"model {text(record['model'])} &middot; {record['num_products']:,} products "
        f"&middot; queries: {text(asked)}</p>"
        f"<div class=verdict><ul>{''.join(f'<li>{text(line, 400)}</li>' for line in verdict(record))}</ul></div>"
        f"<nav>{contents}</nav>{''.join(section(*each) for each in sections)}</main></html>\n"
    )


def _method(record: Mapping[str, Any]) -> str:
    options = [
        [text(name), f"<code>{text(value)}</code>"]
        for name, value in (
            *record["options"].items(),
            ("fingerprint", record["fingerprint"]),
            ("seconds", record["seconds"]),
        )
        if value is not None
    ]
    dropped = "".join(f"<li>{text(name)}: {count:,}</li>" for name, count in record["queries"].items())
    return (
        f"<ul>{''.join(f'<li>{line}</li>' for line in DEFINITIONS)}</ul>"
        + (f"<p>Left out:</p><ul>{dropped}</ul>" if dropped else "")
        + "<details><summary>Options and fingerprint</summary>"
        + table(["option", "value"], options, words=2)
        + "</details>"
    )
