"""Search an index from the terminal, by text, by a picture, or by a product.

    python -m product_retrieval.search --index out/demo/index "blue sofa"
    python -m product_retrieval.search --index out/demo/index --image photo.jpg --sheet hits.png
    python -m product_retrieval.search --index out/demo/index --id hh-0001 --collapse group_id --json
    python -m product_retrieval.search --index out/demo/index "chair" --filter '{"field": "color", "equals": "red"}'

Exit codes: 0 done, 2 options, 4 artefact, 5 encoder, 1 anything else.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from product_retrieval.command import LogLevel, run
from product_retrieval.encoders import Encoder, EncoderOptions, load_encoder
from product_retrieval.encoders.protocol import Device, fingerprint_of
from product_retrieval.errors import EncoderError, OptionsError
from product_retrieval.hits import describe_hits, format_hits, hit_record, tiles
from product_retrieval.images import decode
from product_retrieval.index import IndexManifest
from product_retrieval.pictures import write_sheet
from product_retrieval.querying import (
    Against,
    Part,
    ProductPart,
    Query,
    VectorPart,
    open_search,
    parse_filter_text,
)
from product_retrieval.querying.query import MAX_K
from product_retrieval.storage import Storage

PROGRAM = "python -m product_retrieval.search"


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
    against: Against = "image"
    """Whether products are compared by their picture, by their text, by the weighted sum of the two (fused, where the
    index has that side), or by picture and text apart, ranks fused (both)."""
    filter: str | None = None
    """Which products may be hits, as JSON: {"field": "color", "equals": "red"}; see docs/search.md."""
    collapse: str | None = None
    """Column that products of one group share, such as group_id; of each group the best is shown."""
    min_score: float | None = None
    """Least cosine similarity of a hit."""
    recall: float | None = None
    """Search as hard as was measured to reach this recall@10; default: what the index was built for."""
    exact: bool = False
    """Compare with every product."""
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


def search(options: SearchOptions) -> None:
    """Search and print; see the module's text."""
    allowed = None if options.filter is None else parse_filter_text(options.filter)
    opened, manifest = open_search(Storage.at(options.index), options.version)
    if allowed is not None:
        opened.masks.mask(allowed)  # a wrong field is said before a model is loaded for nothing
    query = Query(
        parts=(query_part(options, manifest),),
        against=options.against,
        k=options.k,
        filter=allowed,
        min_score=options.min_score,
        collapse=options.collapse,
        recall=options.recall,
        exact=options.exact,
    )
    answer = opened.ask(query)
    hits = describe_hits(opened.index, answer)
    if options.json:
        print(json.dumps([hit_record(hit) for hit in hits], indent=1, ensure_ascii=False))
    else:
        print(format_hits(hits, answer))
    if options.sheet:
        write_sheet(options.sheet, describe_query(options), tiles(hits, manifest))


def query_part(options: SearchOptions, manifest: IndexManifest) -> Part:
    """Return what is looked for; a text or a picture is encoded.

    Raises:
        OptionsError: there is no such picture.
        EncoderError: the model is not the one that the index was made with.
    """
    if options.id is not None:
        return ProductPart(product_id=options.id)
    encoder = open_encoder(manifest, options.model, options.device)
    if options.text is not None:
        return VectorPart(vector=encoder.encode_texts([options.text])[0], made_from="text")
    path = Path(str(options.image))
    try:
        decoded = decode(path.read_bytes(), min_side=encoder.min_side)
    except OSError as error:
        raise OptionsError(f"--image {path}: {error.strerror}") from error
    if decoded.pixels is None:
        raise OptionsError(f"--image {path}: {decoded.reason} {decoded.detail}".rstrip())
    prepared = encoder.prepare_image(decoded.pixels, decoded.box)
    return VectorPart(vector=encoder.encode_images(prepared[None])[0], made_from="image")


def open_encoder(manifest: IndexManifest, model: str | None, device: Device = "auto") -> Encoder:
    """Load the encoder for an index's queries, and make sure that it is the index's own.

    Raises:
        EncoderError: it cannot be loaded, or its vectors are not comparable with the index's.
    """
    digest = manifest.fingerprint.digest
    return open_encoder_as(model or manifest.model, digest, made_with=manifest.model, device=device)


def open_encoder_as(model: str, fingerprint: str, *, made_with: str, device: Device = "auto") -> Encoder:
    """Load an encoder, and make sure that it is the one of a fingerprint.

    Args:
        model: folder or hub id.
        fingerprint: digest of what makes its vectors comparable.
        made_with: what the index calls its model, for the error.
        device: where it runs.

    Raises:
        EncoderError: it cannot be loaded, or its vectors are not comparable with the index's.
    """
    options = EncoderOptions(model=model, device=device)
    if fingerprint_of(options).digest != fingerprint:
        raise EncoderError(
            f"{model} is not the model that this index was made with ({made_with}): other weights or "
            "preprocessing, so scores would mean nothing; name the right one with --model"
        )
    return load_encoder(options)


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
