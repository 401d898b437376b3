"""What is asked over the wire; answers.py has what comes back, arguments.py what the application is started with.

D is the dimension of the index.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from product_retrieval.catalog.picture_urls import MAX_URL_CHARS
from product_retrieval.index.spec import MAX_LISTS
from product_retrieval.querying import parse_filter_text
from product_retrieval.querying.filters import MAX_JSON_CHARS
from product_retrieval.querying.query import MAX_PARTS, MAX_RESCORE_FACTOR

MAX_K = 200
MAX_TEXT_CHARS = 2_000
MAX_ID_CHARS = 2_000
MAX_FIELDS = 200
MAX_DIM = 65_536
"""Longest vector that is parsed at all; the index then asks for exactly its own D."""
MAX_NAME_CHARS = 1_000
MAX_BATCH = 64
MAX_URLS = 16
"""Pictures that one request can have fetched: it should not be a means to ask others a thousand things."""
Against = Literal["image", "text", "fused", "both"]  # one literal, so that a wrong value is one mistake
QueryKind = Literal["text", "image", "image_url", "product_id", "vector", "mix"]
QUERY_KINDS: tuple[QueryKind, ...] = get_args(QueryKind)
PART_KINDS = QUERY_KINDS[:-1]


def decode_base64(value: object) -> bytes:
    """Return the bytes behind base64 text; bytes are a picture's own, and no other character is skipped over."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise ValueError("must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is not valid base64") from error


def refuse_blank(text: str) -> str:
    """Return a text that says something."""
    if not text.strip():
        raise ValueError("is empty")
    return text


Picture = Annotated[
    bytes, BeforeValidator(decode_base64), WithJsonSchema({"type": "string", "contentEncoding": "base64"})
]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]
Coordinates = Annotated[list[Coordinate], Field(fail_fast=True)]  # thousands of wrong numbers are one mistake


class QueryPart(BaseModel):
    """What is looked for: one of these."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(default=None, max_length=MAX_TEXT_CHARS)
    image: Picture | None = Field(default=None, description="bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF, as base64")
    image_url: str | None = Field(
        default=None, max_length=MAX_URL_CHARS, description="http or https URL of a picture, if the service fetches any"
    )
    product_id: str | None = Field(default=None, max_length=MAX_ID_CHARS, description="more like this product")
    vector: Coordinates | None = Field(default=None, max_length=MAX_DIM, description="D numbers, of any length")

    @field_validator("text")
    @classmethod
    def text_says_something(cls, text: str | None) -> str | None:
        """Refuse a blank text."""
        return None if text is None else refuse_blank(text)

    @field_validator("vector")
    @classmethod
    def vector_has_direction(cls, vector: list[float] | None) -> list[float] | None:
        """Refuse a vector that cannot be brought to unit length."""
        if vector is not None and not any(vector):
            raise ValueError("has no direction: its length is zero")
        return vector


class MixPart(QueryPart):
    """One part of a mix."""

    weight: Coordinate = Field(default=1.0, description="a negative one leads away")

    @model_validator(mode="after")
    def exactly_one(self) -> "MixPart":
        """Refuse none, several, and what weighs nothing."""
        _one_of(self, PART_KINDS)
        if self.weight == 0:
            raise ValueError("a part of weight 0 says nothing: leave it out")
        return self


class PointRequest(BaseModel):
    """How hard to search."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    num_probes: int = Field(ge=1, le=MAX_LISTS, description="lists of the index that are scanned")
    rescore_factor: int = Field(ge=0, le=MAX_RESCORE_FACTOR, description="candidates re-scored, as a multiple of k")


class SearchRequest(QueryPart):
    """One query: exactly one of text, image, image_url, product_id, vector and mix."""

    mix: list[MixPart] | None = Field(default=None, min_length=1, max_length=MAX_PARTS, description="a weighted sum")
    k: int = Field(default=10, ge=1, le=MAX_K, description="hits wanted")
    against: Against = Field(
        default="image",
        description="what is compared: pictures, texts, the two fused into one vector, or both by rank",
    )
    filter: dict[str, Any] | None = Field(default=None, description="which products may be hits; see docs/search.md")
    collapse: str | None = Field(default=None, max_length=MAX_NAME_CHARS, description="column of which one hit a value")
    min_score: float | None = Field(default=None, ge=-1, le=1, description="least cosine similarity of a hit")
    recall: float | None = Field(default=None, gt=0, le=1, description="least recall@10, as measured for the index")
    point: PointRequest | None = Field(default=None, description="how hard to search, instead of a recall")
    exact: bool = Field(default=False, description="compare with every product")
    fields: list[str] | None = Field(default=None, max_length=MAX_FIELDS, description="columns to return; default: all")
    rerank: bool | None = Field(default=None, description="let the re-ranker order the hits; default: if there is one")

    @model_validator(mode="after")
    def exactly_one_query(self) -> "SearchRequest":
        """Refuse none and several."""
        _one_of(self, QUERY_KINDS)
        return self

    @model_validator(mode="after")
    def one_effort(self) -> "SearchRequest":
        """Refuse two ways to say how hard to search."""
        _at_most_one_of(self, ("recall", "point", "exact"))
        return self

    @property
    def kind(self) -> "QueryKind":
        """What the query is given as."""
        return next(kind for kind in QUERY_KINDS if getattr(self, kind) is not None)


def _one_of(part: QueryPart, kinds: Sequence[str]) -> None:
    given = [kind for kind in kinds if getattr(part, kind) is not None]
    if len(given) != 1:
        raise ValueError(f"give one of {', '.join(kinds)}; got {' and '.join(given) or 'none'}")


def _at_most_one_of(request: BaseModel, names: Sequence[str]) -> None:
    given = [name for name in names if getattr(request, name) not in (None, False)]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} contradict each other: give one")


class BatchRequest(BaseModel):
    """Several queries, each with options of its own, answered from one version of the index."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    queries: list[SearchRequest] = Field(min_length=1, max_length=MAX_BATCH)

    @field_validator("queries")
    @classmethod
    def few_urls(cls, queries: list[SearchRequest]) -> list[SearchRequest]:
        """Refuse to fetch a great many pictures for one request."""
        parts = [part for query in queries for part in (query, *(query.mix or ()))]
        num_urls = sum(part.image_url is not None for part in parts)
        if num_urls > MAX_URLS:
            raise ValueError(f"{num_urls} pictures by URL: at most {MAX_URLS} in a request")
        return queries


class SideParams(BaseModel):
    """URL parameters of a search whose query is a picture in the body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=10, ge=1, le=MAX_K)
    against: Against = "image"
    filter: str | None = Field(default=None, max_length=MAX_JSON_CHARS, description="as in the body of POST, as JSON")
    collapse: str | None = Field(default=None, max_length=MAX_NAME_CHARS)
    min_score: float | None = Field(default=None, ge=-1, le=1)
    recall: float | None = Field(default=None, gt=0, le=1)
    exact: bool = False
    rerank: bool | None = None

    @model_validator(mode="after")
    def one_effort(self) -> "SideParams":
        """Refuse two ways to say how hard to search."""
        _at_most_one_of(self, ("recall", "exact"))
        return self

    def request(self, *, text: str | None = None, image: bytes | None = None) -> SearchRequest:
        """Return the same as a request.

        Raises:
            QueryError: the filter is not one.
        """
        if self.filter is not None:
            parse_filter_text(self.filter)
        given = self.model_dump(exclude={"filter", "q"})
        wanted = None if self.filter is None else json.loads(self.filter)
        return SearchRequest(text=text, image=image, filter=wanted, **given)


class TextParams(SideParams):
    """URL parameters of a search by text."""

    q: Annotated[str, Field(max_length=MAX_TEXT_CHARS), BeforeValidator(refuse_blank)]
