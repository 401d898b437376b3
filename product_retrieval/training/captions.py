"""What can be said about a picture: captions drawn from a product's title, colour, tags, names and description."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from product_retrieval.training.noise import damaged

TEMPLATES = ("a picture of a {}", "a photo of {}", "{} for sale", "buy {}", "the {}", "{} on white", "my {}")
DESCRIPTION_WORDS = 16
"""Words of a description that a caption may use; the text tower reads at most 32 tokens."""


@dataclass(frozen=True, slots=True)
class Depicted:
    """The words that belong to a picture."""

    title: str
    """Clean title, with the colour if there is one."""
    color: str = ""
    """Named colour; empty when the product is as made."""
    category: str = ""
    """Category of the shop."""
    tags: tuple[str, ...] = ()
    """Key words."""
    translations: tuple[str, ...] = ()
    """Names in other languages, without the colour."""
    description: str = ""
    """Sentences about the product."""

    @property
    def name(self) -> str:
        """The title without the colour."""
        return without_color(self.title, self.color)

    @property
    def beginning(self) -> str:
        """The first words of the description."""
        return " ".join(self.description.split()[:DESCRIPTION_WORDS])


@dataclass(frozen=True, slots=True)
class Caption:
    """A text for a picture, and what of it a reader of clean English would understand."""

    text: str
    """What the text tower reads, perhaps damaged."""
    meaning: tuple[str, ...]
    """Clean English parts with the same meaning; each has a teacher's vector."""
    key: str
    """Pictures of this title fit the caption as well, and those of this name if the colour is left out."""
    names_color: bool
    """False if the caption leaves out the colour that the product has."""


def folded(text: str) -> str:
    """Lower-case the text and collapse its spaces, so that equal captions compare equal."""
    return " ".join(text.lower().split())


def without_color(title: str, color: str) -> str:
    """Take the colour's words out of a title; a title without them, or of nothing else, is returned as it is."""
    if not color:
        return title
    at = title.lower().find(color.lower())
    if at < 0:
        return title
    rest = f"{title[:at]} {title[at + len(color) :]}".replace(" ,", ",").strip(" ,-")
    return " ".join(rest.split()) or title


def meanings(depicted: Depicted) -> list[str]:
    """List each clean part that a caption of this picture may mean, folded; the teacher embeds these."""
    parts = [depicted.title, depicted.name, depicted.color, depicted.category, depicted.beginning, *depicted.tags]
    return [folded(part) for part in parts if part.strip()]


def draw_caption(depicted: Depicted, rng: Random, *, noise: float) -> Caption:
    """Draw one caption of a picture.

    Args:
        depicted: the words of the picture.
        rng: source of the choices; equal states give equal captions.
        noise: probability in [0, 1] that the text is damaged.

    Returns:
        The caption; its colour, if it says one, is the picture's.
    """
    caption = _clean_caption(depicted, rng)
    if rng.random() >= noise:
        return caption
    return Caption(damaged(caption.text, rng), caption.meaning, caption.key, caption.names_color)


def _clean_caption(depicted: Depicted, rng: Random) -> Caption:
    title, name = depicted.title, depicted.name
    has_color = bool(depicted.color)
    kind = rng.random()
    if kind < 0.12 and depicted.translations:
        return _translated(depicted, rng)
    if kind < 0.20 and depicted.description:
        return _caption(depicted.beginning, (depicted.beginning,), title, names_color=True)
    if kind < 0.23 and has_color:
        return _caption(name, (name,), name, names_color=False)
    if kind < 0.45 and depicted.tags:
        tags = rng.sample(depicted.tags, min(len(depicted.tags), rng.choice((1, 2))))
        return _caption(", ".join((title, *tags)), (title, title, *tags), title, names_color=True)
    if kind < 0.50 and depicted.category:
        return _caption(f"{title}, {depicted.category}", (title, title, depicted.category), title, names_color=True)
    if kind < 0.56 and has_color:
        return _caption(f"{name}, {depicted.color}", (title,), title, names_color=True)
    if kind < 0.64:
        return _caption(rng.choice(TEMPLATES).format(title), (title,), title, names_color=True)
    return _caption(title, (title,), title, names_color=True)


def _translated(depicted: Depicted, rng: Random) -> Caption:
    foreign = rng.choice(depicted.translations)
    if depicted.color and rng.random() < 0.6:
        text = f"{depicted.color} {foreign}" if rng.random() < 0.7 else f"{foreign}, {depicted.color}"
        return _caption(text, (depicted.title,), depicted.title, names_color=True)
    return _caption(foreign, (depicted.name,), depicted.name, names_color=not depicted.color)


def _caption(text: str, meaning: tuple[str, ...], key: str, *, names_color: bool) -> Caption:
    return Caption(text, tuple(folded(part) for part in meaning if part.strip()), folded(key), names_color)
