"""The index that a service answers from: a query becomes a vector, the vector rows, the rows products.

D is the dimension of the index.
"""

from __future__ import annotations

import asyncio
import io
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypedDict
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from ray.serve.handle import DeploymentHandle

from product_retrieval.hits import title_of
from product_retrieval.images import decode
from product_retrieval.index import Side, open_index
from product_retrieval.index.versions import current_version, read_manifest
from product_retrieval.pictures import load_picture
from product_retrieval.storage import Storage
from serve.deployments import EncodedPicture
from serve.problems import ProblemError
from serve.schemas import (
    HitRecord,
    ProductRecord,
    QueryKind,
    SearchAnswer,
    SearchRequest,
    ServiceInfo,
    SideInfo,
    StageTimes,
)

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log

SHOWN_SIDE_PX = 640
CACHED_PICTURES = 512
"""Of some 30 KB each."""


class Heading(TypedDict):
    """What every product is shown with, whatever its columns."""

    product_id: str
    title: str
    image_url: str | None


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked up."""

    vector: NDArray[np.float32]
    """float32 [D], unit length."""
    side: Side
    """What it was made from, which chooses the operating point."""
    without: str | None = None
    """Product that is the query itself."""


def resolve_version(storage: Storage, version: int | None) -> int:
    """Return the version to serve, so that all replicas serve the same one however the alias moves.

    Raises:
        ArtifactError: there is no such version, or none at all.
    """
    return read_manifest(storage, current_version(storage) if version is None else version).version


class Searcher:
    """One version of an index, and the products in it."""

    def __init__(self, index_uri: str, version: int, encoder: DeploymentHandle[Any]) -> None:
        """Open the index.

        Raises:
            ArtifactError: a file of it is missing or damaged.
        """
        self._index, self._manifest = open_index(Storage.at(index_uri), version)
        self._encoder = encoder
        self._columns = [name for name in self._index.column_names if name != "image_ref"]
        self.picture: Callable[[str], bytes] = lru_cache(CACHED_PICTURES)(self._picture)
        logger.info("index_ready uri=%s version=%s products=%s", index_uri, version, self._manifest.num_products)

    async def is_ready(self) -> bool:
        """Say whether the encoder answers and its vectors are comparable with the index's."""
        return bool(await self._encoder.fingerprint.remote() == self._manifest.fingerprint.digest)

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer one query.

        Raises:
            ProblemError: it does not fit this index.
        """
        self._check(request)
        started = time.perf_counter()
        kind, query = await self._query(request)
        encoded = time.perf_counter()
        found = await asyncio.to_thread(
            self._index.search,
            query.vector[None],
            against=request.against,
            k=request.k + (query.without is not None),
            query_kind=query.side,
        )
        searched = time.perf_counter()
        ranked = [(int(row), float(score)) for row, score in zip(found.rows[0], found.scores[0], strict=True)]
        ranked = [(row, score) for row, score in ranked if row >= 0]
        products = await asyncio.to_thread(self._index.describe, [row for row, _ in ranked])
        others = [
            (score, product)
            for (_, score), product in zip(ranked, products, strict=True)
            if product["product_id"] != query.without
        ]
        columns = self._columns if request.fields is None else request.fields
        hits = [
            HitRecord(rank=rank, score=round(score, 6), product=shown(product, columns), **heading(product))
            for rank, (score, product) in enumerate(others[: request.k], start=1)
        ]
        times = np.diff([started, encoded, searched, time.perf_counter()]).round(6) * 1000
        return SearchAnswer(
            index_version=self._index.version,
            query_kind=kind,
            against=request.against,
            hits=hits,
            timings_ms=StageTimes(encode=times[0], search=times[1], products=times[2]),
        )

    def product(self, product_id: str) -> ProductRecord:
        """Return a product.

        Raises:
            ProblemError: there is none of that id.
        """
        (product,) = self._index.describe([self._row(product_id)])
        return ProductRecord(
            index_version=self._index.version, product=shown(product, self._columns), **heading(product)
        )

    def _picture(self, product_id: str) -> bytes:
        """Return a product's picture as JPEG: drawn anew, so that only its pixels reach a browser.

        Raises:
            ProblemError: there is no such product, or it has no picture.
        """
        (product,) = self._index.describe([self._row(product_id)], ["image_ref"])
        catalog = self._manifest.catalog
        data = load_picture(
            catalog["image_root"],
            product["image_ref"],
            image_column=catalog["image_column"],
            catalog_root=catalog.get("root"),
        )
        pixels = decode(data).pixels if data else None
        if pixels is None:
            raise ProblemError("this product has no picture", field="product_id", status=404)
        image = Image.fromarray(pixels)
        image.thumbnail((SHOWN_SIDE_PX, SHOWN_SIDE_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def describe(self) -> ServiceInfo:
        """Return what is served."""
        manifest = self._manifest
        return ServiceInfo(
            index_version=manifest.version,
            build_id=manifest.build_id,
            model=manifest.model,
            fingerprint=manifest.fingerprint.digest,
            num_products=manifest.num_products,
            dim=manifest.dim,
            columns=self._columns,
            sides={
                name: SideInfo(factory=side.factory, num_vectors=side.num_vectors, operating_points=side.points)
                for name, side in manifest.sides.items()
            },
        )

    def _check(self, request: SearchRequest) -> None:
        if request.against not in self._index.sides:
            raise ProblemError(f"this index has no {request.against} side", field="against")
        unknown = sorted(set(request.fields or ()) - set(self._columns))
        if unknown:
            known = ", ".join(self._columns)
            raise ProblemError(f"no column {unknown[0]!r}; there are {known}", field="fields")

    async def _query(self, request: SearchRequest) -> tuple[QueryKind, Query]:
        """Return the kind of a query, and what is looked up for it."""
        if request.text is not None:
            return "text", Query(await self._encoder.encode_text.remote(request.text), "text")
        if request.image is not None:
            picture: EncodedPicture = await self._encoder.encode_picture.remote(request.image)
            if picture.vector is None:
                raise ProblemError(picture.reason, field="image")
            return "image", Query(picture.vector, "image")
        if request.product_id is not None:
            vector = self._index.vector(self._row(request.product_id), request.against)
            if vector is None:
                raise ProblemError(f"this product has no {request.against}", field="product_id")
            return "product_id", Query(vector, request.against, without=request.product_id)
        given = np.asarray(request.vector, np.float64)
        if len(given) != self._index.dim:
            raise ProblemError(f"has {len(given)} numbers; this index has {self._index.dim}", field="vector")
        scaled = given / np.abs(given).max()  # so that no square overflows
        # Nothing says what it was made from; texts are the harder queries, so they are searched for harder.
        return "vector", Query((scaled / np.linalg.norm(scaled)).astype(np.float32), "text")

    def _row(self, product_id: str) -> int:
        row = self._index.row_of(product_id)
        if row is None:
            raise ProblemError("no such product in this index", field="product_id", status=404)
        return row


def heading(product: Mapping[str, Any]) -> Heading:
    """Return what a product is shown with."""
    product_id = str(product["product_id"])
    return Heading(
        product_id=product_id,
        title=title_of(product),
        image_url=f"v1/products/{quote(product_id, safe='')}/image" if product.get("image_ref") else None,
    )


def shown(product: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return some columns of a product."""
    return {name: product[name] for name in columns}
