"""What comes back over the wire."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from product_retrieval.index import OperatingPoint, Side
from product_retrieval.querying.answer import ScoreKind
from serve.schemas import MAX_BATCH, MAX_K, Against, QueryKind


class HitRecord(BaseModel):
    """One product found."""

    model_config = ConfigDict(frozen=True, ser_json_bytes="base64")

    rank: int
    retrieval_rank: int
    """Place among the candidates of the index, from 1: `rank`, unless a re-ranker ordered them."""
    score: float
    """Of the answer's `score_kind`; a re-ranker does not change it."""
    product_id: str
    title: str
    image_url: str | None
    """Relative to the service's root; null where the product has no picture."""
    ranks: dict[Side, int]
    """Place on each side that was compared and ranked it, from 1."""
    product: dict[str, Any]
    """The catalogue's columns, or those that `fields` names."""


class StageTimes(BaseModel):
    """Where the time of an answer went, in milliseconds."""

    model_config = ConfigDict(frozen=True)

    encode: float
    search: float
    products: float
    rerank: float

    def header(self) -> str:
        """Return the value of a `Server-Timing` header (W3C Server Timing, section 3)."""
        return ", ".join(f"{name};dur={value:.3f}" for name, value in self.model_dump().items())


class SearchAnswer(BaseModel):
    """The hits, best first, and where they come from."""

    model_config = ConfigDict(frozen=True)

    index_version: int
    query_kind: QueryKind
    against: Against
    score_kind: ScoreKind
    """A cosine similarity from -1 to 1; or, against both sides, a sum of 1 / (60 + place), good for this order only."""
    ranking: Literal["retrieval", "reranked"]
    """Whose order this is: the index's, or the re-ranker's, if the service has one and it answered in time."""
    num_allowed: int
    """Products that might have been hits: all of them, or those that the filter leaves."""
    points: dict[Side, OperatingPoint | None]
    """Sides that were compared, and how hard they were searched; null is exactly."""
    hits: list[HitRecord]
    timings_ms: StageTimes


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    field: str
    detail: str


class Problem(BaseModel):
    """Why there is no answer (RFC 9457)."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


class BatchAnswer(BaseModel):
    """For each query of a batch, in its order, an answer or a problem."""

    index_version: int
    answers: list[SearchAnswer | Problem]


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


class FacetValue(BaseModel):
    """A value of a column, and how many products have it."""

    model_config = ConfigDict(frozen=True)

    value: str | bool
    count: int


class Facet(BaseModel):
    """A column of few values."""

    model_config = ConfigDict(frozen=True)

    field: str
    values: list[FacetValue]


class RefusedVersion(BaseModel):
    """A version that became current and is not served."""

    model_config = ConfigDict(frozen=True)

    version: int
    reason: str


class ReplicaState(BaseModel):
    """Where a replica stands after it looked for another version."""

    model_config = ConfigDict(frozen=True)

    replica: str
    index_version: int
    """The version that it answers from."""
    refused: RefusedVersion | None
    """The current version, where it is not that one, and why."""
    is_done: bool
    """Whether it has looked; if not, it is still opening a version, and will move by itself."""


class RefreshAnswer(BaseModel):
    """Where all replicas stand."""

    model_config = ConfigDict(frozen=True)

    replicas: list[ReplicaState]
    num_silent: int
    """Replicas that did not answer; one that died is replaced by one that opens the current version."""


class ServiceInfo(BaseModel):
    """What is served."""

    model_config = ConfigDict(frozen=True)

    index_version: int
    created: str
    """When the version was published, UTC, ISO 8601."""
    build_id: str
    model: str
    fingerprint: str
    """SHA-256 of what makes vectors comparable; the query encoder's and the index's are equal."""
    num_products: int
    dim: int
    columns: list[str]
    sides: dict[Side, SideInfo]
    facets: list[Facet]
    examples: list[str]
    """Titles of some products."""
    refused: RefusedVersion | None
    """The current version, where it is not the one that answers, and why."""
    max_k: int = MAX_K
    max_batch: int = MAX_BATCH
