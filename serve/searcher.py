"""From a request to an answer: its parts become vectors, the vectors hits, the hits products."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from product_retrieval.errors import QueryError
from product_retrieval.index import OperatingPoint
from product_retrieval.querying import Part, ProductPart, Query, VectorPart, parse_filter
from serve.answering import answered, check_fields, problem_of, shown
from serve.answers import (
    ProductRecord,
    RefusedVersion,
    SearchAnswer,
    ServiceInfo,
    SideInfo,
    StageTimes,
)
from serve.deployments import EncodedPicture
from serve.following import VersionFollower
from serve.problems import RETRY_AFTER_S, ProblemError
from serve.query_pictures import QueryPictures
from serve.ranking import Ranking
from serve.schemas import MixPart, QueryPart, SearchRequest
from serve.served_index import ServedIndex, heading

BUSY = "the encoders of queries have more to do than they can; try again"
LOST = "there is no encoder of queries at the moment; try again"


class QueryVectors:
    """Turns texts and pictures into vectors, by the deployment that does so."""

    def __init__(self, encoder: DeploymentHandle[Any], pictures: QueryPictures) -> None:
        """Remember the deployment, and what fetches pictures that are named by URL."""
        self._encoder = encoder
        self._pictures = pictures

    async def fingerprint(self) -> str:
        """Return the digest of what makes the vectors comparable."""
        return str(await self._encoder.fingerprint.remote())

    async def encode(self, part: QueryPart, *, weight: float = 1.0, where: str = "") -> VectorPart:
        """Return a text, a picture or a vector as a part of a query.

        Args:
            part: not a product.
            weight: of the part.
            where: the part stands in the request, for errors: `mix.1.`, or nothing.

        Raises:
            ProblemError: the picture cannot be fetched or decoded, or it cannot be encoded in time.
        """
        try:
            if part.text is not None:
                encoded = await self._encoder.encode_text.remote(part.text)
                return VectorPart(vector=encoded, made_from="text", weight=weight)
            if part.image is not None or part.image_url is not None:
                field = f"{where}image" if part.image_url is None else f"{where}image_url"
                data = part.image if part.image_url is None else await self._pictures.fetch(part.image_url, field=field)
                picture: EncodedPicture = await self._encoder.encode_picture.remote(data)
                if picture.vector is None:
                    raise ProblemError(picture.reason, field=field)
                return VectorPart(vector=picture.vector, made_from="image", weight=weight)
        except BackPressureError as error:
            raise ProblemError(BUSY, status=503, retry_after_s=RETRY_AFTER_S) from error
        except (DeploymentUnavailableError, RayActorError) as error:
            raise ProblemError(LOST, status=503, retry_after_s=RETRY_AFTER_S) from error
        return VectorPart(vector=np.asarray(part.vector, np.float64), weight=weight)


class Searcher:
    """Answers requests from the version that is served at that moment."""

    def __init__(self, follower: VersionFollower, vectors: QueryVectors, ranking: Ranking) -> None:
        """Remember the version that is served, the encoder of queries, and the order after retrieval."""
        self._follower = follower
        self._vectors = vectors
        self._ranking = ranking

    async def is_ready(self) -> bool:
        """Say whether the encoder answers and its vectors are comparable with the index's."""
        served = self._follower.served.manifest.fingerprint.digest
        return await self._vectors.fingerprint() == served

    async def search(self, request: SearchRequest) -> SearchAnswer:
        """Answer one request.

        Raises:
            ProblemError: it does not fit this index.
        """
        _, (answer,) = await self.search_all([request])
        if isinstance(answer, ProblemError):
            raise answer
        return answer

    async def search_all(self, requests: Sequence[SearchRequest]) -> tuple[int, list[SearchAnswer | ProblemError]]:
        """Answer requests together, all from one version.

        Returns:
            The version, and for each request its answer or why there is none.
        """
        served = self._follower.served
        started = time.perf_counter()
        prepared = await asyncio.gather(*(self._prepare(served, request) for request in requests))
        encode_s = time.perf_counter() - started
        queries = [query for query in prepared if isinstance(query, Query)]
        described, search_s, products_s = await asyncio.to_thread(served.ask, queries)
        started = time.perf_counter()
        asked = [request for request, query in zip(requests, prepared, strict=True) if isinstance(query, Query)]
        ranked = iter(await asyncio.gather(*map(self._ranking.order, asked, described)))
        seconds = {
            "encode": encode_s, "search": search_s, "products": products_s, "rerank": time.perf_counter() - started
        }  # fmt: skip
        times = StageTimes(**{stage: round(spent * 1000, 3) for stage, spent in seconds.items()})
        return served.version, [
            answered(served, request, next(ranked), times) if isinstance(query, Query) else query
            for request, query in zip(requests, prepared, strict=True)
        ]

    def product(self, product_id: str) -> ProductRecord:
        """Return a product.

        Raises:
            ProblemError: there is none of that id.
        """
        served = self._follower.served
        product = served.product(product_id)
        return ProductRecord(index_version=served.version, product=shown(product, served.columns), **heading(product))

    def picture(self, product_id: str) -> bytes:
        """Return a product's picture as JPEG.

        Raises:
            ProblemError: there is no such product, or it has no picture.
        """
        return self._follower.served.picture(product_id)

    def describe(self) -> ServiceInfo:
        """Return what is served."""
        served, refused = self._follower.served, self._follower.refused
        manifest = served.manifest
        return ServiceInfo(
            index_version=manifest.version,
            created=manifest.created,
            build_id=manifest.build_id,
            model=manifest.model,
            fingerprint=manifest.fingerprint.digest,
            num_products=served.index.num_products,
            dim=manifest.dim,
            columns=served.columns,
            sides={
                name: SideInfo(factory=side.factory, num_vectors=side.num_vectors, operating_points={**side.points})
                for name, side in manifest.sides.items()
            },
            facets=served.facets,
            examples=served.examples,
            refused=None if refused is None else RefusedVersion(version=refused.version, reason=refused.reason),
        )

    async def _prepare(self, served: ServedIndex, request: SearchRequest) -> Query | ProblemError:
        """Return what a request asks of the index, its cheap mistakes found before anything is encoded."""
        try:
            wanted = None if request.filter is None else parse_filter(request.filter)
            if wanted is not None:
                await asyncio.to_thread(served.search.masks.mask, wanted)
            check_fields(request, served)
            point = None if request.point is None else OperatingPoint(**request.point.model_dump())
            return Query(
                parts=await self._parts(served, request),
                against=request.against,
                k=self._ranking.depth(request),
                filter=wanted,
                min_score=request.min_score,
                collapse=request.collapse,
                recall=request.recall,
                point=point,
                exact=request.exact,
            )
        except QueryError as error:
            return problem_of(error, request)
        except ProblemError as error:
            return error

    async def _parts(self, served: ServedIndex, request: SearchRequest) -> tuple[Part, ...]:
        given: Sequence[QueryPart] = [request] if request.mix is None else request.mix
        named = [(part, "" if request.mix is None else f"mix.{at}.") for at, part in enumerate(given)]
        for part, where in named:
            if part.product_id is not None:
                served.row(part.product_id, field=f"{where}product_id")
        return tuple(await asyncio.gather(*(self._part(part, where) for part, where in named)))

    async def _part(self, part: QueryPart, where: str) -> Part:
        weight = part.weight if isinstance(part, MixPart) else 1.0
        if part.product_id is not None:
            return ProductPart(product_id=part.product_id, weight=weight)
        return await self._vectors.encode(part, weight=weight, where=where)
