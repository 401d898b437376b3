"""Hits with their products, as people and programs read them: a table, JSON records, tiles of a contact sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from product_retrieval.index import IndexManifest, ProductIndex, Side
from product_retrieval.index.spec import SIDES
from product_retrieval.pictures import Tile, load_picture
from product_retrieval.querying import Answer

TITLE_COLUMNS = ("title", "name", "text")
"""The first of these that the catalogue has is what a product is called."""
SCORE_NOTES = {
    "cosine similarity": "cosine similarity",
    "reciprocal rank": "scores are sums of 1 / (60 + place) over both sides: good for this order, not for comparing",
}


@dataclass(frozen=True, slots=True)
class Hit:
    """One product found."""

    rank: int
    score: float
    product_id: str
    title: str
    product: dict[str, Any]
    ranks: Mapping[Side, int]
    """Place on each side that was compared."""


def describe_hits(index: ProductIndex, answer: Answer) -> list[Hit]:
    """Return the hits of an answer with their products."""
    products = index.describe([found.row for found in answer.hits])
    return [
        Hit(rank, found.score, str(product["product_id"]), title_of(product), product, found.ranks)
        for rank, (found, product) in enumerate(zip(answer.hits, products, strict=True), start=1)
    ]


def title_of(product: Mapping[str, Any]) -> str:
    """Return what a product is called; empty where it has no words."""
    return next((str(product[name]) for name in TITLE_COLUMNS if product.get(name)), "")


def format_hits(hits: Sequence[Hit], answer: Answer) -> str:
    """Return the hits as a table for a terminal, and what its numbers are."""
    is_fused = answer.score_kind == "reciprocal rank"
    digits, sides = (4, SIDES) if is_fused else (3, ())
    width = max([len(hit.product_id) for hit in hits] + [2])
    places = "".join(f"  {side:>5}" for side in sides)
    lines = [f"{'#':>3}  {'score':>6}{places}  {'id':<{width}}  title"]
    for hit in hits:
        places = "".join(f"  {hit.ranks.get(side, '-'):>5}" for side in sides)
        lines.append(
            f"{hit.rank:>3}  {hit.score:>6.{digits}f}{places}  {hit.product_id:<{width}}  {printable(hit.title)}"
        )
    return "\n".join([*lines, f"{SCORE_NOTES[answer.score_kind]}; index version {answer.version}"])


def printable(text: str) -> str:
    """Return text without control characters, which could rewrite a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def hit_record(hit: Hit) -> dict[str, Any]:
    """Return a hit for JSON; values that JSON has no type for become text."""
    product = json.loads(json.dumps(hit.product, default=str))
    record = {"rank": hit.rank, "score": round(hit.score, 6), "product_id": hit.product_id, "ranks": dict(hit.ranks)}
    return {**record, "product": product}


def tiles(hits: Sequence[Hit], manifest: IndexManifest) -> list[Tile]:
    """Return the hits with their pictures."""
    catalog = manifest.catalog
    root, column = catalog["image_root"], catalog["image_column"]
    return [
        Tile(
            load_picture(root, hit.product.get("image_ref"), image_column=column, catalog_root=catalog.get("root")),
            hit.title,
            f"{hit.rank}.  {hit.score:.3f}  {hit.product_id}",
        )
        for hit in hits
    ]
