"""Read the Open Clip Art Library as Debian packages it: pictures, and what their SVG files say about them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PNG_ROOT = "usr/share/openclipart/png"
SVG_ROOT = "usr/share/openclipart/svg"
DC = "{http://purl.org/dc/elements/1.1/}"
CREATIVE_COMMONS = ("{http://web.resource.org/cc/}", "{http://creativecommons.org/ns#}")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
PUBLIC_DOMAIN = frozenset(
    {
        "http://web.resource.org/cc/PublicDomain",
        "http://creativecommons.org/licenses/publicdomain/",
        "Public Domain",
    }
)
"""The forms in which the files dedicate a drawing to the public domain."""


@dataclass(frozen=True, slots=True)
class Clipart:
    """One drawing with the words of its author, as they stand in the file."""

    path: str
    title: str
    description: str
    keywords: list[str]
    creator: str
    licenses: frozenset[str]
    picture: Path

    @property
    def folder(self) -> str:
        """The subject, for example "food/fruit"."""
        return self.path.rpartition("/")[0]

    @property
    def file_name(self) -> str:
        """The last part of the path without its ending."""
        return self.path.rpartition("/")[2].removesuffix(".svg")

    @property
    def is_public_domain(self) -> bool:
        """Whether the file says so itself and says nothing else."""
        return bool(self.licenses) and self.licenses <= PUBLIC_DOMAIN


def read_library(png_package: Path, svg_package: Path) -> Iterator[Clipart]:
    """Yield the drawings that have both an SVG file and a PNG picture, in the order of their paths.

    Args:
        png_package: unpacked Debian package openclipart-png, the folder that holds `usr/`.
        svg_package: unpacked Debian package openclipart-svg, the folder that holds `usr/`.

    Raises:
        FileNotFoundError: a folder does not hold the library.
    """
    png_root, svg_root = png_package / PNG_ROOT, svg_package / SVG_ROOT
    for root in (png_root, svg_root):
        if not root.is_dir():
            raise FileNotFoundError(f"{root}: no such folder; unpack the package with dpkg-deb -x")
    for svg in sorted(svg_root.rglob("*.svg")):
        path = svg.relative_to(svg_root).as_posix()
        picture = png_root / (path.removesuffix(".svg") + ".png")
        if picture.is_file():
            yield read_clipart(svg, path, picture)


def read_clipart(svg: Path, path: str, picture: Path) -> Clipart:
    """Read the metadata of one SVG file.

    Source: Creative Commons, "Embedding metadata: RDF", and the Dublin Core elements 1.1.
    """
    document = ET.parse(svg).getroot()
    work = next((found for prefix in CREATIVE_COMMONS for found in document.iter(f"{prefix}Work")), ET.Element("none"))
    creator = work.find(f"{DC}creator")
    return Clipart(
        path=path,
        title=work.findtext(f"{DC}title") or "",
        description=work.findtext(f"{DC}description") or "",
        keywords=[keyword.text for keyword in work.iter(f"{RDF}li") if keyword.text],
        creator=" ".join("".join(creator.itertext()).split()) if creator is not None else "",
        licenses=frozenset(
            license_.get(f"{RDF}resource") or ""
            for prefix in CREATIVE_COMMONS
            for license_ in document.iter(f"{prefix}license")
        ),
        picture=picture,
    )
