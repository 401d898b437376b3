"""Who made the meshes that the household shop shows, and under which licence, as a Markdown page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tools.furniture import Furniture

LICENSE_TEXTS = {
    "CC0-1.0": ("CC0 1.0, public domain", "https://creativecommons.org/publicdomain/zero/1.0/"),
    "CC-BY-3.0": ("Creative Commons Attribution 3.0 Unported", "https://creativecommons.org/licenses/by/3.0/"),
    "CC-BY-3.0-US": (
        "Creative Commons Attribution 3.0 United States",
        "https://creativecommons.org/licenses/by/3.0/us/",
    ),
}
LIBRARIES = {
    "BlendSwap-CC-0": "models of Blend Swap's members, https://www.blendswap.com",
    "BlendSwap-CC-BY": "models of Blend Swap's members, https://www.blendswap.com",
    "KatorLegaz": "(C) 2003-2008 Andrew Kator & Jennifer Legaz",
    "Scopia": "(C) Emmanuel Puybaret / eTeks and Scopia Visual Interfaces Systems, http://www.scopia.es",
}


def attribution(items: Sequence[Furniture]) -> str:
    """Return the page: the licences, the libraries, and a line for each mesh.

    Args:
        items: every mesh of which the catalogue shows a picture.
    """
    by_license = Counter(item.license for item in items)
    licenses = [
        f"- {name}: {text} ({address}), {by_license[name]} meshes" for name, (text, address) in LICENSE_TEXTS.items()
    ]
    libraries = [f"- {name}: {who}" for name, who in LIBRARIES.items()]
    meshes = [
        f"| {item.name} | {_cell(item.creator)} | {item.license} | {item.source} |"
        for item in sorted(items, key=lambda item: item.source)
    ]
    return "\n".join(
        [
            "# Who made the meshes of the household shop",
            "",
            "The photos of this catalogue were rendered from 3-D models of the furniture libraries of Sweet Home 3D",
            "(https://www.sweethome3d.com, Debian package `sweethome3d-furniture` 1.8, converted to OBJ by Emmanuel",
            "Puybaret / eTeks). Changes: the models were turned, lit and drawn as pictures, and most pictures show",
            "them in other colours than their makers gave them. Prices and the sizes of variants are made up. The",
            "makers endorse none of it. This page is generated.",
            "",
            *licenses,
            "",
            *libraries,
            "",
            "| Mesh | Creator | Licence | Library and file |",
            "|---|---|---|---|",
            *meshes,
            "",
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "not named"
