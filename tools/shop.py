"""What the household shop sells: which meshes, and in which colours each of them can be made."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.furniture import Furniture, open_libraries, read_libraries
from tools.meshes import Mesh, read_mesh
from tools.render import View, dominant_materials, recolored, visible_change, visible_materials

PALETTE: dict[str, tuple[float, float, float]] = {
    "red": (0.75, 0.10, 0.10),
    "navy blue": (0.10, 0.16, 0.42),
    "green": (0.10, 0.42, 0.18),
    "yellow": (0.88, 0.68, 0.10),
    "black": (0.13, 0.13, 0.14),
    "white": (0.93, 0.93, 0.93),
    "brown": (0.36, 0.20, 0.10),
    "teal": (0.05, 0.48, 0.48),
    "pink": (0.92, 0.50, 0.62),
    "purple": (0.38, 0.15, 0.50),
    "orange": (0.92, 0.45, 0.08),
    "grey": (0.50, 0.50, 0.52),
}
"""Diffuse colours of the named colourways."""
CATEGORIES_LEFT_OUT = frozenset({"Characters", "Staircases", "Doors and windows"})
NAMES_LEFT_OUT = re.compile(
    r"arrow |parking slot|pedestrian crossing|concrete sidewalk|rail crossing|rails$|bill \d|elevator|escalator"
    r"|contemporary living room",
    re.IGNORECASE,
)
"""Road markings, parts of buildings, bank notes and furnished rooms: nothing that one buys in a household shop."""
TAGS_THAT_KEEP_COLOR = frozenset(
    {"Food", "Plant", "Tree", "Flowers", "Animal", "Television", "Computer", "Smartphone", "Jewelry", "Money"}
)
NAMES_THAT_KEEP_COLOR = re.compile(
    r"\b(plant|tree|cactus|ficus|hedge|bush|orchids|tulips|lily|rock|snowman|logs|newspaper|sign|extinguisher|deer|doll"
    r"|card game|puzzle|rubik's|chessboard|calendar|frame|board|basketball|soccer ball|tv|tablet|iphone|hydrant"
    r"|swimming pool|fountain|fireplace|aquarium|keys|mirror|thermometer|keyboard|playstation|bowl with)\b",
    re.IGNORECASE,
)
"""Things that no shop sells in teal, and things whose largest surface is a screen or a picture."""
RECOLORED_ALL_THE_SAME = frozenset({"Coffee cup", "Salt shaker", "Spice tower", "Dog house", "Chopping board"})
FRONT_VIEW = View(azimuth_deg=-30, elevation_deg=20)
MIN_VISIBLE_CHANGE = 20.0
"""Mean change, of 255, over the object's pixels that makes a colourway a different picture."""
MIN_COLORED_SHARE = 0.3
"""Share of the object's pixels that must change for the object to be called by the colour."""
MIN_COVERED_SHARE = 0.03
"""Share of the picture that an object must cover to be worth a photo."""


@dataclass(frozen=True, slots=True)
class Family:
    """One mesh: a product in all its colours and sizes."""

    furniture: Furniture
    mesh: Mesh
    materials: tuple[int, ...]
    """The ones that a colourway paints."""
    colors: tuple[str, ...]
    """Named colourways beside the colours that it is made with, in the palette's order."""

    @property
    def group_id(self) -> str:
        """Identifier that does not change between runs."""
        return self.furniture.source

    def painted(self, color: str | None) -> Mesh:
        """Return the mesh in a colourway; None is as made."""
        return self.mesh if color is None else recolored(self.mesh, self.materials, PALETTE[color])


def furniture_for_sale(folder: Path) -> list[Furniture]:
    """List what the shop may sell, in a stable order.

    Args:
        folder: the unpacked Debian package `sweethome3d-furniture`.
    """
    return [
        furniture
        for furniture in read_libraries(folder)
        if furniture.category not in CATEGORIES_LEFT_OUT
        and not furniture.is_door_or_window
        and not NAMES_LEFT_OUT.match(furniture.name)
    ]


def read_families(folder: Path, wanted: Iterable[Furniture]) -> Iterator[Family]:
    """Yield the families of some items, without those that are hardly visible in a photo."""
    libraries = open_libraries(folder)
    for furniture in wanted:
        family = _family(libraries[furniture.library], furniture)
        if family is not None:
            yield family


def keeps_its_color(furniture: Furniture) -> bool:
    """Return whether an item is sold as it is made only."""
    if furniture.name in RECOLORED_ALL_THE_SAME:
        return False
    return bool(TAGS_THAT_KEEP_COLOR & set(furniture.tags) or NAMES_THAT_KEEP_COLOR.search(furniture.name))


def _family(library: zipfile.ZipFile, furniture: Furniture) -> Family | None:
    mesh = read_mesh(library, furniture)
    if (visible_materials(mesh, FRONT_VIEW) >= 0).mean() < MIN_COVERED_SHARE:
        return None
    materials, share = dominant_materials(mesh, FRONT_VIEW)
    colors: list[str] = []
    if share >= MIN_COLORED_SHARE and not keeps_its_color(furniture):
        for color, value in PALETTE.items():
            if visible_change(mesh, recolored(mesh, materials, value), FRONT_VIEW) >= MIN_VISIBLE_CHANGE:
                colors.append(color)
    return Family(furniture, mesh, materials, tuple(colors))
