"""The words of the household shop: names, titles, descriptions, sizes and made-up prices from real properties."""

from __future__ import annotations

import hashlib
import math
import re

import numpy as np

from tools.furniture import Furniture

Size = tuple[float, float, float]
"""Width, depth and height in cm."""

CORRECTIONS = {
    "Air conditioning - External unit": "Air conditioning, external unit",
    "Air conditioning - Internal unit": "Air conditioning, internal unit",
    "Barnum": "Party tent",
    "Bended coconut tree": "Bent coconut tree",
    "Black table": "Dining table",
    "Children game": "Playground slide",
    "Clear sofa": "Light sofa",
    "Cup cake": "Cupcake",
    "Dart game": "Dartboard",
    "Dryer machine": "Tumble dryer",
    "Flipper": "Pinball machine",
    "Frame Chambord": "Picture frame Chambord",
    "Frame Hôi An": "Picture frame Hoi An",
    "Football table": "Table football",
    "Furnace": "Stove heater",
    "Gaz water heater": "Gas water heater",
    "Hashtray": "Ashtray",
    "Hood": "Cooker hood",
    "Island": "Kitchen island",
    "Island extension": "Kitchen island extension",
    "Letters box": "Letter box",
    "Lip stick": "Lipstick",
    "Little bank": "Small bench",
    "Mocassin": "Moccasin",
    "Motorbike": "Spring rider motorbike",
    "Penbox": "Pen box",
    "Puff": "Pouf",
    "Punching ball": "Punching bag",
    "Rigged fan": "Standing fan",
    "Screen": "Folding screen",
    "Seat Leon": "Leon car",
    "Short": "Shorts",
    "Socket": "Sock",
    "Sofa 2 seats": "Two-seat sofa",
    "Sofa 3 seats": "Three-seat sofa",
    "Tape": "Adhesive tape",
    "Teck chair": "Teak chair",
    "Tool": "Kitchen tool",
    "Toilets unit": "Toilet",
    "Trunck": "Trunk",
    "White board": "Whiteboard",
    "Wood bank": "Wooden bench",
}
"""False friends and slips in the libraries' English names."""
QUALIFYING_TAGS = {("Bed", "Double"): "Double bed", ("Iron bed", "Double"): "Double iron bed"}
PROPER_NOUNS = {
    "An", "Apple", "Chambord", "Chevrolet", "Ford", "Focus", "French", "Hoi", "Japanese", "Leon", "Oriental",
    "Osaka", "Peugeot", "Renault", "Rubik's", "Scenic", "Smart", "Winchester", "Yamaha",
}  # fmt: skip
"""Words of names that keep their capital inside a sentence; others keep it if they have another capital or a digit."""
ROOMS = {
    "Bathroom": "for the bathroom",
    "Bedroom": "for the bedroom",
    "Exterior": "for outdoors",
    "Kitchen": "for the kitchen",
    "Lights": "to light the home",
    "Living room": "for the living room",
    "Office": "for the office",
    "Vehicles": "to get around",
}
TALL, LOW, WIDE = 2.0, 0.4, 2.2
"""Ratios of the sides from which a thing is called tall, low or wide."""
SMALL_CM, LARGE_CM = 15, 220
"""Longest side up to which a thing is called small, and from which large."""
ROUND_TO_5_FROM_CM = 40
PRICE_BASE_EUR = {
    "Bathroom": 240.0,
    "Bedroom": 210.0,
    "Exterior": 150.0,
    "Kitchen": 260.0,
    "Lights": 170.0,
    "Living room": 230.0,
    "Miscellaneous": 160.0,
    "Office": 220.0,
    "Vehicles": 900.0,
}
"""Price of a cubic metre; chosen for plausible numbers, without any source."""
PRICE_EXPONENT = 0.55


def seed(*parts: str) -> int:
    """Return a number that depends on the words only, the same on every machine."""
    return int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8], "little")


def product_name(furniture: Furniture) -> str:
    """Return the item's English name as it stands inside a sentence, such as `double bed` or `Winchester sofa`."""
    name = CORRECTIONS.get(furniture.name, furniture.name)
    for tag in furniture.tags:
        name = QUALIFYING_TAGS.get((name, tag), name)
    return " ".join(_inside_sentence(word) for word in name.split())


def product_id(furniture: Furniture, color: str | None, *variant: str) -> str:
    """Return an identifier made of the item, its colour and what else tells it from its siblings."""
    parts = list(dict.fromkeys(furniture.source.split("/")))
    return "hh-" + slug(" ".join([*parts, color or "as made", *variant]))


def title(name: str, color: str | None, size: str | None = None) -> str:
    """Return a clean title such as `Navy blue double bed, 140 x 200 cm`."""
    words = f"{color} {name}" if color else name
    return words[:1].upper() + words[1:] + (f", {size}" if size else "")


def own_size(furniture: Furniture) -> Size:
    """Return the item's size, in whole centimetres and at least 1."""
    sides = (furniture.width_cm, furniture.depth_cm, furniture.height_cm)
    return tuple(float(max(1, round(side))) for side in sides)  # type: ignore[return-value]


def scaled_size(furniture: Furniture, scale: float) -> Size:
    """Return the size of the same item made larger or smaller, in the round numbers that shops use."""
    return tuple(_shop_cm(side * scale) for side in own_size(furniture))  # type: ignore[return-value]


def size_text(size: Size) -> str:
    """Return the sides that matter for the shape: `140 x 200 cm`, `180 cm high` or `60 x 60 x 85 cm`."""
    width, depth, height = (f"{side:.0f}" for side in size)
    if size[2] > 1.3 * max(size[0], size[1]):
        return f"{height} cm high"
    if size[2] < 0.7 * max(size[0], size[1]):
        return f"{width} x {depth} cm"
    return f"{width} x {depth} x {height} cm"


def shape_words(size: Size) -> list[str]:
    """Return words for an unusual shape or size: small, large, tall, low, wide."""
    width, depth, height = size
    base, longest = max(width, depth), max(size)
    words = ["small"] if longest <= SMALL_CM else ["large"] if longest >= LARGE_CM else []
    if height > TALL * base:
        words.append("tall")
    elif height < LOW * base:
        words.append("low")
    if width > WIDE * depth:
        words.append("wide")
    return words


def description(furniture: Furniture, color: str | None, size: Size) -> str:
    """Return sentences made of real properties only; which sentences depends on the item and its colour."""
    name = product_name(furniture)
    room = ROOMS.get(furniture.category, "for the home")
    width, depth, height = (f"{side:.0f}" for side in size)
    shape = " ".join(shape_words(size))
    kind = seed(furniture.source, color or "", "description") % 3
    if kind == 0:
        words = " ".join(part for part in (shape, color, name) if part)
        first = f"{_article(words)} {words} {room}."
        second = f"It is {width} cm wide, {depth} cm deep and {height} cm high."
    elif kind == 1:
        first = f"{title(name, None)} {room}, {f'in {color}' if color else 'in its original colours'}."
        second = f"Size {width} x {depth} x {height} cm{f' ({shape})' if shape else ''}."
    else:
        first = f"{title(name, color)}, {width} x {depth} x {height} cm."
        second = title(f"{shape}, {room}." if shape else f"{room}.", None)
    keywords = ", ".join(tag.lower() for tag in furniture.tags if tag.lower() not in name.lower())
    rest = [f"Keywords: {keywords}."] if keywords else []
    return " ".join([first, second, *rest, f"Model by {furniture.creator}."])


def price_eur(furniture: Furniture, color: str | None, size: Size) -> float:
    """Return a made-up price: the category and the size decide, with noise by item and a little by colour."""
    cubic_metres = math.prod(max(side, 2.0) for side in size) / 1e6
    by_item = np.random.default_rng(seed(furniture.source, "price")).normal(0, 0.35)
    by_color = np.random.default_rng(seed(furniture.source, color or "", "price")).normal(0, 0.06)
    base = PRICE_BASE_EUR.get(furniture.category, PRICE_BASE_EUR["Miscellaneous"])
    euros = base * cubic_metres**PRICE_EXPONENT * math.exp(by_item + by_color)
    return float(max(1, round(euros)) - 0.01)


def slug(words: str) -> str:
    """Return lower-case words joined by hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _inside_sentence(word: str) -> str:
    is_kept = word in PROPER_NOUNS or any(letter.isupper() or letter.isdigit() for letter in word[1:])
    return word if is_kept or len(word) == 1 else word.lower()


def _shop_cm(side: float) -> float:
    return float(5 * round(side / 5)) if side >= ROUND_TO_5_FROM_CM else float(max(1, round(side)))


def _article(words: str) -> str:
    return "An" if words[:1].lower() in "aeiou" else "A"
