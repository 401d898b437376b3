"""What a plan of a catalogue is made of: columns, slices of rows, and the plan itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import pyarrow as pa

from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.gzip_points import AccessPoint
from product_retrieval.catalog.kinds import Kind

SOURCE, IMAGE, IMAGE_CELL, KNOWN_KEY = "__source", "__image", "__image_cell", "__known_key"
"""Our columns beside the catalogue's own: where the row stands, its picture's bytes, the cell that leads to them, and
the content key of a picture that was not read."""
REFERENCE = "__reference"
"""Field of a picture's cell that says where its bytes are found again."""
TEMPLATE_FIELD = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnOptions:
    """Which columns of the catalogue mean what; all others travel along as attributes."""

    product_id: str = "product_id"
    """Column with the unique id of a product."""
    image: str = "image"
    """Column with the picture: bytes, a path below --image-root, or a URL of one of --fetch.allowed-hosts."""
    text: str | None = None
    """Column or template such as '{title}. {description}'; default: `text`, else title and description."""
    group_id: str = "group_id"
    """Column that is equal for listings and variants of one product; optional."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Rows of one file that become one part of the embeddings."""

    part: int
    file: str
    start: int
    """First row (Parquet), byte (CSV, JSON lines, tar, Arrow) or file of the sorted listing (folder)."""
    stop: int
    """One past the last."""
    num_rows: int
    """Products and unreadable records in it."""
    first_row: int = 0
    """Number of its first row in the file."""
    skipped: int = 0
    """Arrow: rows between `start` and the first row."""
    point: AccessPoint | None = None
    """Compressed files: where decompression begins; `start` and `stop` count decompressed bytes."""
    header: bytes = b""
    members: tuple[str, ...] = ()
    """Folder catalogues: the pictures, relative to the root."""
    repeated: tuple[int, ...] = ()
    """Rows of this slice whose product id was already taken by an earlier row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogPlan:
    """A catalogue, ready to be read part by part."""

    uri: str
    kind: Kind
    root: str
    image_root: str
    columns: ColumnOptions
    text_template: str | None
    """Template over columns, or None where the catalogue has no text."""
    schema: pa.Schema
    slices: tuple[Slice, ...]
    fingerprint: str
    """SHA-256 over what the rows and parts depend on."""
    num_files: int
    size_bytes: int
    """Of all files."""
    fetch: FetchOptions = field(default_factory=FetchOptions)
    """Whether and how pictures that are URLs are fetched."""

    @property
    def num_products(self) -> int:
        """Rows of the catalogue."""
        return sum(slice_.num_rows for slice_ in self.slices)

    @property
    def has_image(self) -> bool:
        """Whether products have pictures."""
        return self.kind == "folder" or self.columns.image in self.schema.names

    @property
    def attribute_names(self) -> list[str]:
        """Columns that travel along with their types: all but the id, the picture and the text column itself."""
        consumed = {self.columns.product_id, self.columns.image, "product_id", "text"}
        return [name for name in self.schema.names if name not in consumed]
