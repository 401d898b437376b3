"""clip-retrieval's back end over our index: `/knn-service`, `/metadata` and `/indices-list`, for its clients to go on.

Requests and answers have the shapes of clip_retrieval/clip_back.py 2.45.0, as clip_client.py and the front end send and
read them; docs/migration.md says what differs. D is the dimension of the index.
"""

import asyncio
import base64
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, TypeVar

import numpy as np
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from product_retrieval.catalog.picture_urls import MAX_URL_CHARS
from product_retrieval.index import Side
from product_retrieval.querying.near_copies import distinct
from serve.problems import ProblemError
from serve.schemas import MAX_DIM, MAX_TEXT_CHARS, Coordinates, decode_base64

DEFAULT_NAME = "products"
"""What the one index is called where clients choose among several."""
SAME_PICTURE = 0.94
"""Similarity of two hits above which `deduplicate` takes them for one. Source: clip_back.py, get_non_uniques."""
MAX_RESULTS = 1_000_000
MAX_IDS = 1_000
"""In one request for metadata; the front end asks for 40."""
MAX_INLINED = 100
"""Pictures inside one answer, of some 30 KB each."""
HIDDEN_COLUMNS = ("image_ref",)
"""Where a picture lies is nobody's business outside."""

RequestT = TypeVar("RequestT", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CandidateQuery:
    """What is looked for: exactly one of the four."""

    text: str | None = None
    image: bytes | None = None
    """A picture's file, not yet decoded."""
    image_url: str | None = None
    """Where it may be fetched, if it may."""
    vector: NDArray[np.float32] | None = None
    """float32 [D], unit length."""


class CandidateSource(Protocol):
    """One version of an index; all calls for one request go to one source, so that no answer mixes versions.

    A row is a product's number in this version, from 0; it is what clip-retrieval calls an id.
    """

    version: int
    """Of the index."""
    dim: int
    sides: Collection[Side]
    """By which products can be compared."""
    max_k: int
    """Hits that can be asked for; clients that ask for more get so many."""

    async def search(self, query: CandidateQuery, *, against: Side, k: int) -> Sequence[tuple[int, float]]:
        """Return the row and the cosine similarity of at most k products, best first.

        Raises:
            ProblemError: the picture cannot be fetched or decoded, or the encoder is overloaded.
        """

    async def products(self, rows: Sequence[int]) -> Sequence[Mapping[str, Any] | None]:
        """Return the columns of each product; None where there is no such row or it was taken out of this version."""

    async def vectors(self, rows: Sequence[int], *, against: Side) -> NDArray[np.float32]:
        """Return stored vectors, float32 [len(rows), D], of products that a search found."""

    async def picture(self, product_id: str) -> bytes | None:
        """Return a product's picture as JPEG, or None where it has none that can be shown."""


class KnnRequest(BaseModel):
    """Body of `/knn-service`; of text, image, image_url and embedding_input the first that is given counts.

    Keys that are not listed (`use_mclip`, `use_safety_model`, `use_violence_detector`, `aesthetic_score`,
    `aesthetic_weight`) are accepted and do nothing.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str | None = Field(default=None, max_length=MAX_TEXT_CHARS)
    image: str | None = None
    """File as base64."""
    image_url: str | None = Field(default=None, max_length=MAX_URL_CHARS)
    embedding_input: Coordinates | None = Field(default=None, max_length=MAX_DIM)
    modality: Side = "image"
    num_images: int = Field(default=100, ge=1, le=MAX_RESULTS)
    """Results with metadata."""
    num_result_ids: int | None = Field(default=None, ge=1, le=MAX_RESULTS)
    """Results; those beyond num_images have only their id and similarity."""
    indice_name: str | None = None
    deduplicate: bool = False


class MetadataRequest(BaseModel):
    """Body of `/metadata`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    ids: list[Annotated[int, Field(ge=0, lt=2**63)]] = Field(max_length=MAX_IDS)
    indice_name: str | None = None


def clip_retrieval_router(current: Callable[[], CandidateSource], *, name: str = DEFAULT_NAME) -> APIRouter:
    """Return the three routes.

    Args:
        current: gives the version that answers; called once a request.
        name: of the index in `/indices-list`, and the only one that `indice_name` may give.
    """
    router = APIRouter(include_in_schema=False)  # for clients that exist; nothing new should be built on it

    @router.get("/indices-list")
    async def indices_list() -> list[str]:
        """Name the index."""
        return [name]

    @router.post("/knn-service")
    async def knn_service(request: Request) -> Response:
        """Search."""
        return await answer_knn(current(), await request.body(), name=name)

    @router.post("/metadata")
    async def metadata(request: Request) -> Response:
        """Return the columns of products by their rows."""
        return await answer_metadata(current(), await request.body(), name=name)

    return router


async def answer_knn(source: CandidateSource, body: bytes, *, name: str) -> Response:
    """Answer `/knn-service`.

    Args:
        source: the version that answers.
        body: of the request: JSON, whatever its Content-Type says, for neither client sends one that is right.
        name: of the index.

    Raises:
        RequestValidationError: the body is not such a request.
        ProblemError: it does not fit this index.
    """
    request = _parsed(KnnRequest, body)
    _check_name(request.indice_name, name)
    if request.modality not in source.sides:
        raise ProblemError(f"this index has no {request.modality} side", field="modality")
    k = min(request.num_result_ids or request.num_images, source.max_k)
    hits = await source.search(query_of(request, source.dim), against=request.modality, k=k)
    if request.deduplicate and hits:
        vectors = await source.vectors([row for row, _ in hits], against=request.modality)
        hits = [hits[place] for place in await asyncio.to_thread(distinct, vectors, SAME_PICTURE)]
    described = await source.products([row for row, _ in hits[: request.num_images]])
    shown = [await metadata_of(source, product, has_room=at < MAX_INLINED) for at, product in enumerate(described)]
    shown += [{}] * (len(hits) - len(shown))
    results = [{**columns, "id": row, "similarity": score} for columns, (row, score) in zip(shown, hits, strict=True)]
    return _json(results, source)


async def answer_metadata(source: CandidateSource, body: bytes, *, name: str) -> Response:
    """Answer `/metadata`; ids that this version does not have are left out, as the front end looks them up by id.

    Raises:
        RequestValidationError: the body is not such a request.
        ProblemError: there is no index of that name.
    """
    request = _parsed(MetadataRequest, body)
    _check_name(request.indice_name, name)
    described = zip(request.ids, await source.products(request.ids), strict=True)
    found = [(row, product) for row, product in described if product is not None]
    answers = [
        {"id": row, "metadata": await metadata_of(source, product, has_room=at < MAX_INLINED)}
        for at, (row, product) in enumerate(found)
    ]
    return _json(answers, source)


def query_of(request: KnnRequest, dim: int) -> CandidateQuery:
    """Return what a request looks for.

    Raises:
        ProblemError: nothing, or a vector that does not fit.
    """
    if request.text is not None and request.text.strip():
        return CandidateQuery(text=request.text)
    if request.image:
        try:
            return CandidateQuery(image=decode_base64(request.image))
        except ValueError as error:
            raise ProblemError(str(error), field="image") from error
    if request.image_url:
        return CandidateQuery(image_url=request.image_url)
    if request.embedding_input is None:
        raise ProblemError("give one of text, image, image_url and embedding_input", field="text")
    given = np.asarray(request.embedding_input, np.float64)
    if len(given) != dim:
        raise ProblemError(f"has {len(given)} numbers; this index has {dim}", field="embedding_input")
    if not given.any():
        raise ProblemError("has no direction: its length is zero", field="embedding_input")
    scaled = given / np.abs(given).max()  # so that no square overflows
    return CandidateQuery(vector=(scaled / np.linalg.norm(scaled)).astype(np.float32))


async def metadata_of(
    source: CandidateSource, product: Mapping[str, Any] | None, *, has_room: bool = True
) -> dict[str, Any]:
    """Return a product's columns under clip-retrieval's names, with its picture where it has no URL.

    Args:
        source: the version that the product is of.
        product: its columns; None has none.
        has_room: whether a picture may be put into the answer.
    """
    if product is None:
        return {}
    columns = {key: value for key, value in product.items() if key not in HIDDEN_COLUMNS and value is not None}
    if "text" in columns:
        columns.setdefault("caption", columns["text"])
    if has_room and not columns.get("url") and product.get("image_ref"):
        jpeg = await source.picture(str(product["product_id"]))
        if jpeg is not None:
            columns["image"] = base64.b64encode(jpeg).decode()
    return columns


def _parsed(request_type: type[RequestT], body: bytes) -> RequestT:
    try:
        return request_type.model_validate_json(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in found]) from error


def _check_name(asked: str | None, name: str) -> None:
    if asked and asked != name:
        raise ProblemError(f"no index {asked[:100]!r}; there is {name!r}", field="indice_name")


def _json(answers: Sequence[Mapping[str, Any]], source: CandidateSource) -> Response:
    body = to_json(answers, inf_nan_mode="null", bytes_mode="base64", fallback=str)
    return Response(body, media_type="application/json", headers={"X-Index-Version": str(source.version)})
