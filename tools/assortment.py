"""Which products the household shop makes of one mesh: colours, sizes, second listings, and what each listing says.

Everything is drawn from seeds made of the item's own words, so that a product stays the same when others come or go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from tools import listing, noise
from tools.furniture import Furniture

MAX_COLORS = 4
"""Named colourways of a mesh, beside the colours that it is made with."""
SIZED_CATEGORIES = frozenset({"Bathroom", "Bedroom", "Exterior", "Kitchen", "Lights", "Living room", "Office"})
UNSIZED_TAGS = frozenset({"Electronics", "Food", "Clothes", "Jewelry", "Game", "Cutlery"})
SIZED_SHARE = 0.42
"""Share of the families of such categories that come in more than one size."""
SIZED_COLORWAYS = 3
"""Colourways of such a family that come in every size."""
SCALES = (0.75, 0.85, 1.2, 1.35)
SECOND_LISTING_SHARE = 0.021
NOISY_SHARE = 0.2
SECOND_TITLES = ("{name} in {color}", "{name} ({color})", "{color} {name}", "{name}, {color}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """One listing of the shop, without its photos."""

    product_id: str
    furniture: Furniture
    color: str | None
    size: listing.Size
    clean_title: str
    title: str
    title_noise: str
    duplicate_of: str | None = None

    @property
    def name(self) -> str:
        """The product's name without colour and size."""
        return listing.product_name(self.furniture)


def products_of(furniture: Furniture, colors: Sequence[str]) -> list[Product]:
    """Return every listing of a family.

    Args:
        furniture: the mesh.
        colors: the named colourways that it can be made in.
    """
    rng = Random(listing.seed(furniture.source, "assortment"))
    chosen = rng.sample(list(colors), min(MAX_COLORS, len(colors)))
    scales = _scales(furniture, rng)
    products: list[Product] = []
    for position, color in enumerate([None, *chosen]):
        in_sizes = scales if position < SIZED_COLORWAYS else ()
        for scale in (1.0, *in_sizes):
            products.append(_product(furniture, color, scale, is_sized=bool(in_sizes)))
    seconds = [_second_listing(product) for product in products if _is_listed_twice(product)]
    return [_with_noise(product) for product in [*products, *seconds]]


def ambiguities(products: Sequence[Product]) -> list[list[str]]:
    """Say for each product in what alone some other product differs from it: size, color, or name (another mesh).

    Second listings are the same product and make nothing ambiguous.
    """
    sizes, colors, meshes = defaultdict(set), defaultdict(set), defaultdict(set)
    for product in products:
        source = product.furniture.source
        sizes[source, product.color].add(product.size)
        colors[source, product.size].add(product.color)
        meshes[product.name.lower(), product.color].add(source)
    return [
        [
            word
            for word, alternatives in (
                ("size", sizes[product.furniture.source, product.color]),
                ("color", colors[product.furniture.source, product.size]),
                ("name", meshes[product.name.lower(), product.color]),
            )
            if len(alternatives) > 1
        ]
        for product in products
    ]


def _scales(furniture: Furniture, rng: Random) -> tuple[float, ...]:
    can_vary = furniture.category in SIZED_CATEGORIES and not UNSIZED_TAGS & set(furniture.tags)
    if not can_vary or rng.random() >= SIZED_SHARE:
        return ()
    seen = {listing.own_size(furniture)}
    kept = []
    for scale in rng.sample(SCALES, rng.choice((1, 2, 2))):
        size = listing.scaled_size(furniture, scale)
        if listing.size_text(size) not in {listing.size_text(other) for other in seen}:
            seen.add(size)
            kept.append(scale)
    return tuple(sorted(kept))


def _product(furniture: Furniture, color: str | None, scale: float, *, is_sized: bool) -> Product:
    size = listing.own_size(furniture) if scale == 1.0 else listing.scaled_size(furniture, scale)
    shown_size = listing.size_text(size) if is_sized else None
    title = listing.title(listing.product_name(furniture), color, shown_size)
    return Product(
        product_id=listing.product_id(furniture, color, *([] if scale == 1.0 else [f"x{scale}"])),
        furniture=furniture,
        color=color,
        size=size,
        clean_title=title,
        title=title,
        title_noise="none",
    )


def _is_listed_twice(product: Product) -> bool:
    return Random(listing.seed(product.product_id, "second listing")).random() < SECOND_LISTING_SHARE


def _second_listing(product: Product) -> Product:
    """Return the same product offered again by another seller, who words the title in another way."""
    product_id = f"{product.product_id}-again"
    rng = Random(listing.seed(product_id, "title"))
    words = product.name
    if product.color is not None:
        words = rng.choice(SECOND_TITLES).format(name=product.name, color=product.color)
    end = product.clean_title.partition(",")[2].strip()
    title = listing.title(words, None, end or None)
    return replace(product, product_id=product_id, clean_title=title, title=title, duplicate_of=product.product_id)


def _with_noise(product: Product) -> Product:
    rng = Random(listing.seed(product.product_id, "noise"))
    if rng.random() >= NOISY_SHARE:
        return product
    names = product.furniture.names
    possible = noise.possible_kinds(product.title, color=product.color, names=names)
    kind = rng.choice(noise.KINDS)
    if kind not in possible:
        kind = rng.choice(possible)
    noisy = noise.apply(kind, product.title, color=product.color, names=names, rng=rng)
    return replace(product, title=noisy, title_noise=kind)
