"""The sections of a report's page that say what goes wrong: misses, look-alikes, disturbed and suspicious texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eval.page_parts import product_card, table, text
from eval.plots import Bar, Line, bar_chart, line_chart

MAX_SHOWN_ATTRIBUTES = 4
MAX_SHOWN_WORDS = 8
MAX_OF_GROUP = 4

Record = Mapping[str, Any]
Pictures = Mapping[str, str]


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


def misses_section(record: Record, pictures: Pictures) -> str:
    """Return why queries found nothing right, with examples."""
    parts = []
    for misses in record.get("misses", ()):
        if not misses["num_misses"]:
            continue
        shown = [kind for kind in misses["kinds"] if kind["num_misses"]]
        bars = [Bar(kind["heading"], kind["share"], note=f"n={kind['num_misses']:,}") for kind in shown]
        label = f"causes of the misses of {misses['direction']}"
        cards = "".join(
            f"<details><summary>{text(kind['heading'])}: {kind['num_misses']:,}</summary>"
            f"<p class=quiet>{text(kind['meaning'])}.</p>{_example_cards(kind['examples'], pictures)}</details>"
            for kind in shown
        )
        top = max(kind["share"] for kind in shown)
        parts.append(
            f"<h3>{text(misses['direction'])}: {misses['num_misses']:,} of {misses['num_queries']:,} queries find "
            f"nothing right among the first ten</h3>{bar_chart(bars, label=label, top=top, form='.0%')}{cards}"
        )
    if not parts:
        return ""
    intro = "<p>Every miss stands under the first heading that fits, so the shares add up to all of them.</p>"
    worst = record.get("worst", ())
    cards = _example_cards(worst, pictures)
    ending = f"<details><summary>The queries that rank lowest</summary>{cards}</details>" if worst else ""
    return intro + "".join(parts) + ending


def _example_cards(examples: Sequence[Record], pictures: Pictures) -> str:
    return f"<div class=cards>{''.join(_example_card(example, pictures) for example in examples)}</div>"


def _example_card(example: Record, pictures: Pictures) -> str:
    asked, found = example["asked"], example["found"]
    rank = "not found" if example["rank"] is None else f"rank {example['rank']:,.0f}"
    shown = [("asked for", pictures.get(asked["product_id"]), asked["title"], f"{asked['product_id']}, {rank}")]
    if found is not None:
        shown.append(("found first", pictures.get(found["product_id"]), found["title"], found["product_id"]))
    return product_card(shown)


def lookalikes_section(record: Record, pictures: Pictures) -> str:
    """Return which products look alike, and what would tell them apart."""
    found = record.get("lookalikes")
    if not found:
        return ""
    parts = [
        f"<p>{found['num_ambiguous']:,} of {found['num_products']:,} products that ask have a look-alike: another "
        f"product whose picture has a cosine similarity of {found['tau']:.3f} or more. They form "
        f"{found['num_groups']:,} groups, the largest of {found['largest']:,}.</p>"
    ]
    if found.get("hit_at_10_ambiguous") is not None and found.get("hit_at_10_others") is not None:
        parts.append(
            f"<p>hit@10 of {text(found['direction'])} is {found['hit_at_10_ambiguous']:.3f} for them and "
            f"{found['hit_at_10_others']:.3f} for the others; {found['share_of_misses_alike']:.0%} of all misses have "
            "a look-alike of the right product on top.</p>"
        )
    cards = "".join(_confusion_card(pair, pictures) for pair in record.get("confusions", ()))
    if cards:
        parts.append(
            "<h3>Confusion pairs</h3><p>What is found above the right product, and what would tell the two apart.</p>"
            f"<div class=cards>{cards}</div>"
        )
    groups = "".join(
        f"<div class=cards>{_plain_card(group[:MAX_OF_GROUP], pictures)}</div>" for group in found["groups"]
    )
    if groups:
        parts.append(f"<details><summary>Largest groups of look-alikes</summary>{groups}</details>")
    return "".join(parts)


def _confusion_card(pair: Record, pictures: Pictures) -> str:
    own, other = pair["products"]
    shown = [
        (role, pictures.get(product["product_id"]), product["title"], product["product_id"])
        for role, product in (("asked for", own), ("found first", other))
    ]
    attributes = ", ".join(
        f"<b>{text(name, 30)}</b> {text(_brief(mine), 30)} / {text(_brief(theirs), 30)}"
        for name, (mine, theirs) in list(pair["attributes"].items())[:MAX_SHOWN_ATTRIBUTES]
    )
    words = " / ".join(text(" ".join(pair[side][:MAX_SHOWN_WORDS]), 80) for side in ("own_words", "other_words"))
    mutual = ", in both directions" if pair["is_mutual"] else ""
    return product_card(
        shown,
        f"similarity {pair['similarity']:.3f}{mutual}<br>{attributes}<br><small>words only here: {words}</small>",
    )


def _plain_card(products: Sequence[Record], pictures: Pictures, *, title: str = "title") -> str:
    return product_card(
        [
            ("", pictures.get(product["product_id"]), product[title] or "(no text)", product["product_id"])
            for product in products
        ]
    )


def _brief(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def robustness_section(record: Record) -> str:
    """Return what disturbed texts find."""
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
        f"<p>The same {measured['num_queries']:,} texts of {text(measured['direction'])}, disturbed on purpose and "
        "encoded again.</p>"
        + line_chart(lines, label="hit at 10 over the amount of noise", across="amount", up="hit@10", top=top)
        + "<details><summary>All amounts, with an example of each</summary>"
        + table(["kind", "what it is", "amount", "hit@10", "change", "MRR", "such as"], rows, words=2)
        + "</details>"
    )


def texts_section(record: Record, pictures: Pictures) -> str:
    """Return suspicious texts, with examples."""
    texts = record.get("texts")
    if not texts:
        return ""
    rows = [[text(kind["kind"]), text(kind["meaning"]), f"{kind['num_products']:,}"] for kind in texts["kinds"]]
    examples = "".join(
        f"<details><summary>{text(kind['kind'])}: {kind['num_products']:,}</summary><div class=cards>"
        f"{''.join(_plain_card([product], pictures, title='text') for product in kind['examples'])}</div></details>"
        for kind in texts["kinds"]
        if kind["examples"]
    )
    return (
        f"<p>Among {texts['num_products']:,} products; {texts['num_compared_with_pictures']:,} of them were compared "
        f"with their pictures.</p>{table(['kind', 'what it is', 'products'], rows, words=2)}{examples}"
    )
