"""The order after retrieval: where a shop's own ranking takes what the index found and says what comes first.

A re-ranker is a Ray Serve deployment of the shop's with one method, `async def rerank(self, task: RankingTask) ->
Sequence[int]`. It scales, and fails, by itself: an answer waits for it for a stated time, and keeps the order of the
index where it is late, breaks, or returns what is no order. serve/word_match.py is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ImportString, TypeAdapter, ValidationError
from ray.exceptions import RayError
from ray.serve import Application, Deployment
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from product_retrieval.errors import OptionsError, QueryError
from product_retrieval.index import Side
from product_retrieval.querying.answer import ScoreKind
from serve.metrics import ServiceMetrics
from serve.problems import ProblemError
from serve.schemas import QueryKind, SearchRequest
from serve.served_index import HIDDEN_COLUMN, Described

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log


@dataclass(frozen=True, slots=True)
class WeightedText:
    """A text that is looked for."""

    text: str
    weight: float
    """A negative one leads away."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A product that the index found, and what is known about it."""

    product: dict[str, Any]
    """The catalogue's columns."""
    score: float
    """Of the task's `score_kind`."""
    ranks: dict[Side, int]
    """Place on each side that was compared and ranked it, from 1."""


@dataclass(frozen=True, slots=True)
class RankingTask:
    """What a re-ranker is asked."""

    kind: QueryKind
    texts: tuple[WeightedText, ...]
    """Of the query; empty where it is a picture, a product or a vector."""
    k: int
    """Hits that will be shown: the order beyond them does not matter."""
    score_kind: ScoreKind
    candidates: tuple[Candidate, ...]
    """In the order of the index, best first; filters and groups are applied."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """An answer in the order in which it is shown."""

    described: Described
    order: Sequence[int]
    """Places among its hits, from 0."""
    ranking: Literal["retrieval", "reranked"]


class Ranking:
    """Orders answers by the service's re-ranker, if it has one."""

    def __init__(
        self, reranker: DeploymentHandle[Any] | None, *, depth: int, timeout_s: float, metrics: ServiceMetrics
    ) -> None:
        """Remember how.

        Args:
            reranker: the deployment, or None.
            depth: candidates that it is given, at least.
            timeout_s: how long an answer waits for it.
            metrics: counts its failures.
        """
        self._reranker = reranker
        self._depth = depth
        self._timeout_s = timeout_s
        self._metrics = metrics

    def depth(self, request: SearchRequest) -> int:
        """Return how many candidates a request needs from the index.

        Raises:
            ProblemError: it asks for a re-ranker and there is none.
        """
        if request.rerank and self._reranker is None:
            raise ProblemError("this service has no re-ranker", field="rerank")
        return max(request.k, self._depth) if self._is_asked(request) else request.k

    async def order(self, request: SearchRequest, found: Described | QueryError) -> Ranked | QueryError:
        """Return an answer in the order in which it is shown; an error as it is."""
        if isinstance(found, QueryError):
            return found
        as_found = range(len(found.answer.hits))
        if self._is_asked(request) and as_found:
            order = await self._asked(task_of(request, found))
            if order is not None:
                return Ranked(found, order, "reranked")
        return Ranked(found, as_found, "retrieval")

    def _is_asked(self, request: SearchRequest) -> bool:
        return self._reranker is not None and request.rerank is not False

    async def _asked(self, task: RankingTask) -> Sequence[int] | None:
        """Return the re-ranker's order, or None where it has none in time."""
        assert self._reranker is not None
        response = self._reranker.rerank.remote(task)
        try:
            order = await asyncio.wait_for(_value_of(response), self._timeout_s)
        except TimeoutError:
            response.cancel()
            return self._failed("timeout", f"no order after {self._timeout_s} s")
        except (RayError, RayServeException) as error:
            return self._failed("error", str(error).strip().splitlines()[-1])
        if not is_order(order, len(task.candidates)):
            return self._failed("order", "not distinct places among the candidates")
        return [int(at) for at in order]

    def _failed(self, reason: str, detail: str) -> None:
        logger.warning("rerank_failed reason=%s %s", reason, detail)
        self._metrics.count_rerank_failure(reason)


async def _value_of(response: Any) -> Any:
    return await response


def task_of(request: SearchRequest, found: Described) -> RankingTask:
    """Return what a re-ranker is asked about an answer."""
    if request.mix is None:
        texts = [WeightedText(request.text, 1.0)] if request.text is not None else []
    else:
        texts = [WeightedText(part.text, part.weight) for part in request.mix if part.text is not None]
    candidates = (
        Candidate(
            product={name: value for name, value in product.items() if name != HIDDEN_COLUMN},
            score=hit.score,
            ranks=dict(hit.ranks),
        )
        for hit, product in zip(found.answer.hits, found.products, strict=True)
    )
    return RankingTask(request.kind, tuple(texts), request.k, found.answer.score_kind, tuple(candidates))


def is_order(order: object, num_candidates: int) -> bool:
    """Say whether this is a sequence of distinct places among the candidates; some may be left out."""
    try:
        places = [int(at) for at in order]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        return False
    return len(set(places)) == len(places) and all(0 <= at < num_candidates for at in places)


def load_reranker(name: str) -> Application:
    """Return the application that `MODULE:NAME` is, or that it returns when called.

    Raises:
        OptionsError: there is none.
    """
    try:
        found = TypeAdapter(ImportString[Any]).validate_python(name)
    except ValidationError as error:
        raise OptionsError(f"reranker={name} cannot be imported: {error.errors()[0]['msg']}") from error
    is_function = callable(found) and not isinstance(found, Application | Deployment)
    application = found() if is_function else found
    if not isinstance(application, Application):
        raise OptionsError(f"reranker={name} is no Serve application, but {type(application).__name__}: bind it")
    return application
