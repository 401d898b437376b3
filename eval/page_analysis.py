"""The sections of a report's page that explain its numbers, with pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.page_parts import product_card, table, text
from eval.plots import Bar, Line, bar_chart, line_chart

MAX_SHOWN_ATTRIBUTES = 4
MAX_SHOWN_WORDS = 8

Record = Mapping[str, Any]
Pictures = Mapping[str, str]


def analysis_sections(record: Record, pictures: Pictures) -> list[tuple[str, str, str]]:
    """Return name, title and body of each section; a body is empty where nothing was measured."""
    return [
        ("misses", "Why it was not found", _misses(record, pictures)),
        ("alike", "Products that look alike", _lookalikes(record, pictures)),
        ("noise", "When texts are disturbed", _robustness(record)),
        ("texts", "Suspicious texts", _texts(record, pictures)),
        ("alignment", "How well pictures and texts lie together", _alignment(record)),
        ("hubs", "Products that crowd the hits", _hubs(record)),
        ("vectors", "Vectors", _health(record)),
    ]


def shown_products(record: Record) -> list[str]:
    """Return the ids of the products that these sections show."""
    return list(dict.fromkeys(str(product["product_id"]) for product in _products(record)))


def _products(record: Record) -> Iterator[Record]:
    for misses in record.get("misses", ()):
        for kind in misses["kinds"]:
            yield from _of_examples(kind["examples"])
    yield from _of_examples(record.get("worst", ()))
    for pair in record.get("confusions", ()):
        yield from pair["products"]
    for group in record.get("lookalikes", {}).get("groups", ()):
        yield from group
    for kind in record.get("texts", {}).get("kinds", ()):
        yield from kind["examples"]


def _of_examples(examples: Sequence[Record]) -> Iterator[Record]:
    for example in examples:
        yield example["asked"]
        if example["found"] is not None:
            yield example["found"]


def _misses(record: Record, pictures: Pictures) -> str:
    parts = []
    for misses in record.get("misses", ()):
        if not misses["num_misses"]:
            continue
        shown = [kind for kind in misses["kinds"] if kind["num_misses"]]
        bars = [Bar(kind["heading"], kind["share"], note=f"n={kind['num_misses']:,}") for kind in shown]
        label = f"causes of the misses of {misses['direction']}"
        cards = "".join(
            f"<details><summary>{text(kind['heading'])}: {kind['num_misses']:,}</summary><p class=quiet>{text(kind['meaning'])}.</p>"
            f"<div class=cards>{''.join(_example_card(example, pictures) for example in kind['examples'])}</div></details>"
            for kind in shown
        )
        top = max(kind["share"] for kind in shown)
        parts.append(
            f"<h3>{text(misses['direction'])}: {misses['num_misses']:,} of {misses['num_queries']:,} queries find nothing right "
            f"among the first ten</h3>{bar_chart(bars, label=label, top=top, form='.0%')}{cards}"
        )
    if not parts:
        return ""
    intro = "<p>Every miss stands under the first heading that fits, so the shares add up to all of them.</p>"
    worst = "".join(_example_card(example, pictures) for example in record.get("worst", ()))
    ending = (
        f"<details><summary>The queries that rank lowest</summary><div class=cards>{worst}</div></details>"
        if worst
        else ""
    )
    return intro + "".join(parts) + ending


def _example_card(example: Record, pictures: Pictures) -> str:
    asked, found = example["asked"], example["found"]
    rank = "not found" if example["rank"] is None else f"rank {example['rank']:,.0f}"
    shown = [("asked for", pictures.get(asked["product_id"]), asked["title"], f"{asked['product_id']}, {rank}")]
    if found is not None:
        shown.append(("found first", pictures.get(found["product_id"]), found["title"], found["product_id"]))
    return product_card(shown)


def _lookalikes(record: Record, pictures: Pictures) -> str:
    found = record.get("lookalikes")
    if not found:
        return ""
    parts = [
        f"<p>{found['num_ambiguous']:,} of {found['num_products']:,} products that ask have a look-alike: another product whose "
        f"picture has a cosine similarity of {found['tau']:.3f} or more. They form {found['num_groups']:,} groups, the largest of "
        f"{found['largest']:,}.</p>"
    ]
    if found.get("hit_at_10_ambiguous") is not None and found.get("hit_at_10_others") is not None:
        parts.append(
            f"<p>hit@10 of {text(found['direction'])} is {found['hit_at_10_ambiguous']:.3f} for them and "
            f"{found['hit_at_10_others']:.3f} for the others; {found['share_of_misses_alike']:.0%} of all misses have a look-alike "
            "of the right product on top.</p>"
        )
    cards = []
    for pair in record.get("confusions", ()):
        own, other = pair["products"]
        shown = [
            ("asked for", pictures.get(own["product_id"]), own["title"], own["product_id"]),
            ("found first", pictures.get(other["product_id"]), other["title"], other["product_id"]),
        ]
        attributes = ", ".join(
            f"<b>{text(name, 30)}</b> {text(_brief(mine), 30)} / {text(_brief(theirs), 30)}"
            for name, (mine, theirs) in list(pair["attributes"].items())[:MAX_SHOWN_ATTRIBUTES]
        )
        words = f"words only here: {text(' '.join(pair['own_words'][:MAX_SHOWN_WORDS]), 80)} / {text(' '.join(pair['other_words'][:MAX_SHOWN_WORDS]), 80)}"
        mutual = ", in both directions" if pair["is_mutual"] else ""
        cards.append(
            product_card(
                shown, f"similarity {pair['similarity']:.3f}{mutual}<br>{attributes}<br><small>{words}</small>"
            )
        )
    if cards:
        parts.append(
            f"<h3>Confusion pairs</h3><p>What is found above the right product, and what would tell the two apart.</p><div class=cards>{''.join(cards)}</div>"
        )
    groups = "".join(
        f"<div class=cards>{product_card([('', pictures.get(p['product_id']), p['title'], p['product_id']) for p in group[:4]])}</div>"
        for group in found["groups"]
    )
    if groups:
        parts.append(f"<details><summary>Largest groups of look-alikes</summary>{groups}</details>")
    return "".join(parts)


def _brief(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _robustness(record: Record) -> str:
    measured = record.get("robustness")
    if not measured:
        return ""
    results = measured["results"]
    if not results:
        return f"<p>Not measured: {text(measured['reason'], 300)}.</p>"
    base = results[0]
    lines = []
    for kind in dict.fromkeys(result["kind"] for result in results[1:]):
        own = [base, *(result for result in results if result["kind"] == kind)]
        lines.append(Line(kind, [(result["amount"], result["hit_at_10"]) for result in own]))
    rows = [
        [
            text(result["kind"]),
            text(result["meaning"]),
            f"{result['amount']:g}",
            f"{result['hit_at_10']:.3f}<br><small>{result['low']:.3f}&ndash;{result['high']:.3f}</small>",
            f"{-result['lost']:+.3f}",
            f"{result['mrr']:.3f}",
            text(result["example"], 110),
        ]
        for result in results
    ]
    top = max(result["high"] for result in results)
    return (
        f"<p>The same {measured['num_queries']:,} texts of {text(measured['direction'])}, disturbed on purpose and encoded again.</p>"
        + line_chart(lines, label="hit at 10 over the amount of noise", across="amount", up="hit@10", top=top)
        + "<details><summary>All amounts, with an example of each</summary>"
        + table(["kind", "what it is", "amount", "hit@10", "change", "MRR", "such as"], rows, words=2)
        + "</details>"
    )


def _texts(record: Record, pictures: Pictures) -> str:
    texts = record.get("texts")
    if not texts:
        return ""
    rows = [[text(kind["kind"]), text(kind["meaning"]), f"{kind['num_products']:,}"] for kind in texts["kinds"]]
    parts = []
    for kind in texts["kinds"]:
        if kind["examples"]:
            cards = "".join(
                product_card([("", pictures.get(p["product_id"]), p["text"] or "(no text)", p["product_id"])])
                for p in kind["examples"]
            )
            parts.append(
                f"<details><summary>{text(kind['kind'])}: {kind['num_products']:,}</summary><div class=cards>{cards}</div></details>"
            )
    return (
        f"<p>Among {texts['num_products']:,} products; {texts['num_compared_with_pictures']:,} of them were compared with their pictures.</p>"
        + table(["kind", "what it is", "products"], rows, words=2)
        + "".join(parts)
    )


def _alignment(record: Record) -> str:
    found = record.get("alignment")
    if not found:
        return ""
    rows = [
        [
            "alignment",
            "mean squared distance of a picture and its own text; lower is better",
            f"{found['alignment']:.3f}",
        ],
        ["uniformity of pictures", "0 is one point, lower is spread out more", f"{found['image_uniformity']:.2f}"],
        ["uniformity of texts", "", f"{found['text_uniformity']:.2f}"],
        ["modality gap", "distance of the mean picture and the mean text", f"{found['gap']:.3f}"],
        ["cosine of the means", "", f"{found['centroid_cosine']:.3f}"],
        [
            "own pair above another",
            "chance that an own pair is the more similar one; 0.5 is none",
            f"{found['similarities']['auc']:.4f}",
        ],
        ["overlap", "of the two distributions below", f"{found['similarities']['overlap']:.3f}"],
        [
            "median percentile of own pairs",
            "share of other texts that a picture is less similar to",
            f"{found['median_percentile']:.4f}",
        ],
        [
            "agreement of neighbourhoods",
            f"share of ten neighbours by picture that are neighbours by text; by chance {found['agreement_by_chance']:.4f}",
            f"{found['agreement']:.3f}",
        ],
        ["dimensions of pictures", "directions that the vectors really use", f"{found['image_dimensions']:.1f}"],
        ["dimensions of texts", "", f"{found['text_dimensions']:.1f}"],
    ]
    alike = found["similarities"]
    middles = [(low + high) / 2 for low, high in zip(alike["edges"], alike["edges"][1:], strict=False)]
    drawing = line_chart(
        [
            Line("a picture and its own text", list(zip(middles, alike["own"], strict=True))),
            Line("a picture and another text", list(zip(middles, alike["other"], strict=True))),
        ],
        label="similarity of own and other pairs",
        across="cosine similarity",
        up="share of the pairs",
    )
    corrections = [
        [
            text(each["direction"]),
            text(each["correction"]),
            f"{each['num_queries']:,}",
            f"{each['hit_at_10']:.3f}",
            f"{each['gained']:+.3f}<br><small>{each['low']:+.3f} to {each['high']:+.3f}</small>",
            f"{each['mrr']:.3f}",
        ]
        for each in record.get("corrections", ())
    ]
    slices = [
        [
            text(part["column"]),
            text(part["value"]),
            f"{part['num_products']:,}",
            f"{part['alignment']:.3f}",
            f"{part['gap']:.3f}",
            f"{part['auc']:.4f}",
            f"{part['agreement']:.3f}",
            f"{part['median_percentile']:.4f}",
        ]
        for part in found["slices"]
    ]
    parts = [
        f"<p>Measured on {found['num_pairs']:,} products.</p>",
        table(["number", "what it is", "value"], rows, words=2),
        drawing,
    ]
    if corrections:
        header = ["direction", "correction", "queries", "hit@10", "gained", "MRR"]
        parts.append(f"<h3>What corrections would bring</h3>{table(header, corrections, words=2)}")
    if slices:
        header = [
            "column",
            "value",
            "products",
            "alignment",
            "gap",
            "own above other",
            "agreement",
            "median percentile",
        ]
        parts.append(f"<details><summary>By part of the catalogue</summary>{table(header, slices, words=2)}</details>")
    return "".join(parts)


def _hubs(record: Record) -> str:
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
    header = [
        "direction",
        "skewness",
        "most frequent hit",
        "hubs",
        "nobody's hit",
        "share of the top 1 %",
        "Robin Hood",
    ]
    return (
        "<p>How often each product is among somebody's first ten hits: 0 skewness is even; above about 1.5 a few products are in "
        "everybody's way.</p>" + table(header, rows)
    )


def _health(record: Record) -> str:
    rows = [
        [
            text(side),
            *(
                f"{each[name]:,}"
                for name in (
                    "num_products",
                    "num_missing",
                    "num_not_finite",
                    "num_not_unit",
                    "num_constant",
                    "num_duplicated",
                )
            ),
        ]
        for side, each in record.get("health", {}).items()
    ]
    if not rows:
        return ""
    header = [
        "side",
        "products",
        "without it",
        "not finite",
        "not of unit length",
        "constant",
        "same as another product's",
    ]
    return table(header, rows)
