"""What goes over the wire: requests, answers, and the arguments of the application.

D is the dimension of the index.
"""

import base64
import binascii
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from product_retrieval.encoders.protocol import Device
from product_retrieval.index import OperatingPoint, Side

MAX_K = 200
MAX_TEXT_CHARS = 2_000
MAX_ID_CHARS = 2_000
MAX_FIELDS = 200
MAX_DIM = 65_536
"""Longest vector that is parsed at all; the index then asks for exactly its own D."""
QueryKind = Literal["text", "image", "product_id", "vector"]
QUERY_KINDS: tuple[QueryKind, ...] = get_args(QueryKind)


class SearchArgs(BaseModel):
    """Arguments of `serve run serve.app:build NAME=VALUE ...` and of `args` in a config file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: str
    """Folder of the index; local or in an object store."""
    version: int | None = None
    """Version of the index; default: the current one when the application is built."""
    model: str | None = None
    """Folder or hub id of the model; default: the one the index was made with."""
    device: Device = "auto"
    """Where queries are encoded."""


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


class SearchRequest(BaseModel):
    """One query: exactly one of text, image, product_id and vector."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: str | None = Field(default=None, max_length=MAX_TEXT_CHARS)
    image: Picture | None = Field(default=None, description="bytes of a JPEG, PNG, WebP, GIF, BMP or TIFF, as base64")
    product_id: str | None = Field(default=None, max_length=MAX_ID_CHARS, description="more like this product")
    vector: list[Coordinate] | None = Field(default=None, max_length=MAX_DIM, description="D numbers, of any length")
    k: int = Field(default=10, ge=1, le=MAX_K, description="hits wanted")
    against: Side = Field(default="image", description="compare with the products' pictures or with their texts")
    fields: list[str] | None = Field(default=None, max_length=MAX_FIELDS, description="columns to return; default: all")

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

    @model_validator(mode="after")
    def exactly_one_query(self) -> "SearchRequest":
        """Refuse none and several."""
        given = [kind for kind in QUERY_KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(QUERY_KINDS)}; got {' and '.join(given) or 'none'}")
        return self


class SideParams(BaseModel):
    """URL parameters of a search whose query is a picture in the body."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    k: int = Field(default=10, ge=1, le=MAX_K)
    against: Side = "image"


class TextParams(SideParams):
    """URL parameters of a search by text."""

    q: Annotated[str, Field(max_length=MAX_TEXT_CHARS), BeforeValidator(refuse_blank)]


class HitRecord(BaseModel):
    """One product found."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64")

    rank: int
    score: float
    """Cosine similarity."""
    product_id: str
    title: str
    image_url: str | None
    """Relative to the service's root; null where the product has no picture."""
    product: dict[str, Any]
    """The catalogue's columns, or those that `fields` names."""


class StageTimes(BaseModel):
    """Where the time of an answer went, in milliseconds."""

    model_config = ConfigDict(frozen=True)

    encode: float
    search: float
    products: float

    def header(self) -> str:
        """Return the value of a `Server-Timing` header (W3C Server Timing, section 3)."""
        return ", ".join(f"{name};dur={value:.3f}" for name, value in self.model_dump().items())


class SearchAnswer(BaseModel):
    """The hits, best first, and where they come from."""

    model_config = ConfigDict(frozen=True)

    index_version: int
    query_kind: QueryKind
    against: Side
    hits: list[HitRecord]
    timings_ms: StageTimes


class ProductRecord(BaseModel):
    """One product."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64")

    index_version: int
    product_id: str
    title: str
    image_url: str | None
    product: dict[str, Any]


class SideInfo(BaseModel):
    """One side of the index."""

    model_config = ConfigDict(frozen=True)

    factory: str
    num_vectors: int
    operating_points: dict[str, OperatingPoint]
    """By kind of query."""


class ServiceInfo(BaseModel):
    """What is served."""

    model_config = ConfigDict(frozen=True)

    index_version: int
    build_id: str
    model: str
    fingerprint: str
    """SHA-256 of what makes vectors comparable; the query encoder's and the index's are equal."""
    num_products: int
    dim: int
    columns: list[str]
    sides: dict[Side, SideInfo]
    max_k: int = MAX_K
