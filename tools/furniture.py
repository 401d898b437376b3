"""Furniture libraries of Sweet Home 3D: what their catalogues say of each item.

A `.sh3f` file is a zip of a properties file (one numbered entry an item, one file a language) and of 3-D models.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

CATALOG = "PluginFurnitureCatalog"
ENTRY = re.compile(r"([A-Za-z]+)#(\d+)\s*=\s*(.*)")
UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
UPRIGHT = "1 0 0 0 1 0 0 0 1"
SELLERS = frozenset({"blend swap", "scopia", "kator legaz", "scpts"})
"""Tags that say where a model is from, not what it is."""
LICENSES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "Scopia": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
}
"""Licence by library; a library that is not here is not used (Reallusion holds people)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Furniture:
    """One item of a library."""

    library: str
    number: int
    name: str
    category: str
    tags: tuple[str, ...]
    width_cm: float
    depth_cm: float
    height_cm: float
    creator: str
    names: tuple[tuple[str, str], ...]
    """(language, name) of every translation."""
    model_path: str
    rotation: tuple[float, ...]
    """Row-major 3 x 3 matrix that turns the model's axes to x right, y up, z to the front."""
    is_door_or_window: bool

    @property
    def license(self) -> str:
        """SPDX-like name of the licence."""
        return LICENSES[self.library]

    @property
    def source(self) -> str:
        """What the item is called in its library, stable between releases: its model file's folder and name."""
        return f"{self.library}/{posixpath.splitext(self.model_path)[0].split('/', 1)[-1]}"


def read_libraries(folder: Path) -> list[Furniture]:
    """List the usable items of all libraries below a folder, in a stable order.

    Args:
        folder: unpacked Debian package `sweethome3d-furniture`, or any folder with its `.sh3f` files.
    """
    items: list[Furniture] = []
    for path in sorted(folder.rglob("*.sh3f")):
        if path.stem in LICENSES:
            with zipfile.ZipFile(path) as library:
                items += _read_library(path.stem, library)
    return items


def open_libraries(folder: Path) -> dict[str, zipfile.ZipFile]:
    """Open every library below a folder, by its name."""
    return {path.stem: zipfile.ZipFile(path) for path in sorted(folder.rglob("*.sh3f")) if path.stem in LICENSES}


def _read_library(name: str, library: zipfile.ZipFile) -> Iterable[Furniture]:
    entries = _properties(library, f"{CATALOG}.properties")
    translations = {
        file.removeprefix(f"{CATALOG}_").removesuffix(".properties"): _properties(library, file)
        for file in sorted(library.namelist())
        if file.startswith(f"{CATALOG}_") and file.endswith(".properties")
    }
    for number, entry in sorted(entries.items()):
        if "model" not in entry or "name" not in entry:
            continue
        names = [("en", entry["name"])]
        names += [(lang, t[number]["name"]) for lang, t in translations.items() if t.get(number, {}).get("name")]
        tags = [tag.strip() for tag in entry.get("tags", "").split(",")]
        yield Furniture(
            library=name,
            number=number,
            name=entry["name"].strip(),
            category=entry.get("category", "").strip(),
            tags=tuple(tag for tag in tags if tag and tag.lower() not in SELLERS),
            width_cm=float(entry["width"]),
            depth_cm=float(entry["depth"]),
            height_cm=float(entry["height"]),
            creator=entry.get("creator", "").strip(),
            names=tuple(names),
            model_path=entry["model"].lstrip("/"),
            rotation=tuple(float(x) for x in entry.get("modelRotation", UPRIGHT).split()),
            is_door_or_window=entry.get("doorOrWindow") == "true",
        )


def _properties(library: zipfile.ZipFile, file: str) -> dict[int, dict[str, str]]:
    r"""Read the numbered entries of a Java properties file (ISO 8859-1 with \u escapes, lines continued by \)."""
    text = library.read(file).decode("latin-1")
    text = re.sub(r"\\\r?\n\s*", "", text)
    entries: dict[int, dict[str, str]] = defaultdict(dict)
    for line in text.splitlines():
        if found := ENTRY.match(line.strip()):
            key, number, value = found.groups()
            entries[int(number)][key] = UNICODE_ESCAPE.sub(lambda m: chr(int(m.group(1), 16)), value).replace("\\", "")
    return entries
