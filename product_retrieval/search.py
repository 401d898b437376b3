"""Search an index from the terminal, by text, by a picture, or by a product.

    python -m product_retrieval.search --index out/demo/index "blue sofa"
    python -m product_retrieval.search --index out/demo/index --image photo.jpg --sheet hits.png
    python -m product_retrieval.search --index out/demo/index --id hh-0001 --json

Exit codes: 0 done, 2 options, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from product_retrieval.command import LogLevel, run
from product_retrieval.encoders import Encoder, EncoderOptions, load_encoder
from product_retrieval.encoders.protocol import Device, fingerprint_of
from product_retrieval.errors import EncoderError, OptionsError
from product_retrieval.images import decode
from product_retrieval.index import IndexManifest, ProductIndex, Side, open_index
from product_retrieval.pictures import Tile, load_picture, write_sheet
from product_retrieval.storage import Storage

PROGRAM = "python -m product_retrieval.search"
TITLE_COLUMNS = ("title", "name", "text")
"""The first of these that the catalogue has is what the table shows."""
MAX_K = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOptions:
    """What to look for, and where."""

    text: Annotated[str | None, tyro.conf.Positional] = None
    """What to look for, in words."""
    index: str
    """Folder of the index; local or in an object store."""
    image: str | None = None
    """File with a picture to look for."""
    id: str | None = None
    """Product to find more like."""
    k: int = 10
    """Hits wanted."""
    against: Side = "image"
    """Whether products are compared by their picture or by their text."""
    version: int | None = None
    """Version of the index; default: the current one."""
    model: str | None = None
    """Folder or hub id of the model; default: the one the index was made with."""
    device: Device = "auto"
    """Where the query is encoded."""
    json: bool = False
    """Print JSON instead of a table."""
    sheet: str | None = None
    """Also draw the hits into this .png or .html file."""
    log_level: LogLevel = "warning"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        given = [self.text, self.image, self.id]
        if sum(value is not None for value in given) != 1:
            raise ValueError('give one of a text ("blue sofa"), --image FILE or --id PRODUCT')
        if self.text is not None and not self.text.strip():
            raise ValueError("the text to look for is empty")
        if not 1 <= self.k <= MAX_K:
            raise ValueError(f"--k is from 1 to {MAX_K}, not {self.k}")
        if self.sheet is not None and Path(self.sheet).suffix not in (".png", ".html"):
            raise ValueError(f"--sheet {self.sheet}: a contact sheet is a .png or a .html file")


@dataclass(frozen=True, slots=True)
class Hit:
    """One product found."""

    rank: int
    score: float
    product_id: str
    title: str
    product: dict[str, Any]


def search(options: SearchOptions) -> None:
    """Search and print; see the module's text."""
    index, manifest = open_index(Storage.at(options.index), options.version)
    query, kind = encode_query(options, index, manifest)
    hits = find(index, query, k=options.k, against=options.against, kind=kind, without=options.id)
    if options.json:
        print(json.dumps([hit_record(hit) for hit in hits], indent=1, ensure_ascii=False))
    else:
        print(format_hits(hits, index.version))
    if options.sheet:
        write_sheet(options.sheet, describe_query(options), tiles(hits, manifest))


def encode_query(
    options: SearchOptions, index: ProductIndex, manifest: IndexManifest
) -> tuple[NDArray[np.float32], Side]:
    """Return the query's vector, float32 [D], and what it was made from.

    Raises:
        OptionsError: no such product or picture.
        EncoderError: the model is not the one that the index was made with.
    """
    if options.id is not None:
        return stored_vector(index, options.id, options.against), options.against
    encoder = open_encoder(manifest, options.model, options.device)
    if options.text is not None:
        return encoder.encode_texts([options.text])[0], "text"
    path = Path(str(options.image))
    try:
        decoded = decode(path.read_bytes(), min_side=encoder.min_side)
    except OSError as error:
        raise OptionsError(f"--image {path}: {error.strerror}") from error
    if decoded.pixels is None:
        raise OptionsError(f"--image {path}: {decoded.reason} {decoded.detail}".rstrip())
    return encoder.encode_images(encoder.prepare_image(decoded.pixels, decoded.box)[None])[0], "image"


def stored_vector(index: ProductIndex, product_id: str, side: Side) -> NDArray[np.float32]:
    """Return a product's own vector, float32 [D].

    Raises:
        OptionsError: there is no such product, or it has no such side.
    """
    row = index.row_of(product_id)
    if row is None:
        raise OptionsError(f"--id {product_id}: no such product in this index")
    vector = index.vector(row, side)
    if vector is None:
        raise OptionsError(f"--id {product_id}: this product has no {side}; try the other --against")
    return vector


def open_encoder(manifest: IndexManifest, model: str | None, device: Device = "auto") -> Encoder:
    """Load the encoder for an index's queries, and make sure that it is the index's own.

    Raises:
        EncoderError: it cannot be loaded, or its vectors are not comparable with the index's.
    """
    options = EncoderOptions(model=model or manifest.model, device=device)
    if fingerprint_of(options).digest != manifest.fingerprint.digest:
        raise EncoderError(
            f"{options.model} is not the model that this index was made with ({manifest.model}): other weights or "
            "preprocessing, so scores would mean nothing; name the right one with --model"
        )
    return load_encoder(options)


def find(
    index: ProductIndex,
    query: NDArray[np.float32],
    *,
    k: int,
    against: Side,
    kind: Side,
    without: str | None = None,
) -> list[Hit]:
    """Return the hits of one query, best first, leaving out a product that is the query itself."""
    if against not in index.sides:
        raise OptionsError(f"this index has no {against} side; it has {' and '.join(index.sides)}")
    found = index.search(query[None], against=against, k=k + (without is not None), query_kind=kind)
    rows = [int(row) for row in found.rows[0] if row >= 0]
    hits: list[Hit] = []
    for score, product in zip(found.scores[0], index.describe(rows), strict=False):
        if product["product_id"] != without and len(hits) < k:
            title = next((str(product[c]) for c in TITLE_COLUMNS if product.get(c)), "")
            hits.append(Hit(len(hits) + 1, float(score), product["product_id"], title, product))
    return hits


def format_hits(hits: list[Hit], version: int) -> str:
    """Return the hits as a table for a terminal."""
    width = max([len(hit.product_id) for hit in hits] + [2])
    lines = [f"{'#':>3}  {'score':>6}  {'id':<{width}}  title"]
    lines += [f"{hit.rank:>3}  {hit.score:>6.3f}  {hit.product_id:<{width}}  {printable(hit.title)}" for hit in hits]
    return "\n".join([*lines, f"cosine similarity; index version {version}"])


def printable(text: str) -> str:
    """Return text without control characters, which could rewrite a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def hit_record(hit: Hit) -> dict[str, Any]:
    """Return a hit for JSON; values that JSON has no type for become text."""
    product = json.loads(json.dumps(hit.product, default=str))
    return {"rank": hit.rank, "score": round(hit.score, 6), "product_id": hit.product_id, "product": product}


def tiles(hits: list[Hit], manifest: IndexManifest) -> list[Tile]:
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


def describe_query(options: SearchOptions) -> str:
    """Return the heading of a sheet."""
    if options.text is not None:
        return f'Hits for "{options.text}"'
    return f"Hits for {options.image}" if options.image else f"More like {options.id}"


def main() -> int:
    """Run the command."""
    return run(search, SearchOptions, program=PROGRAM, description=(__doc__ or "").split("\n")[0])


if __name__ == "__main__":
    sys.exit(main())
