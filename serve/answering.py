"""From what the library answers to what goes over the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from product_retrieval.errors import QueryError
from serve.answers import HitRecord, SearchAnswer, StageTimes
from serve.problems import ProblemError
from serve.ranking import Ranked
from serve.schemas import SearchRequest
from serve.served_index import ServedIndex, heading

PART_FIELD = re.compile(r"^parts(?:\[(\d+)\])?\.?")


def check_fields(request: SearchRequest, served: ServedIndex) -> None:
    """Refuse columns that the index does not have.

    Raises:
        ProblemError: there is one.
    """
    unknown = sorted(set(request.fields or ()) - set(served.columns))
    if unknown:
        raise ProblemError(f"no column {unknown[0]!r}; there are {', '.join(served.columns)}", field="fields")


def answered(
    served: ServedIndex, request: SearchRequest, found: Ranked | QueryError, times: StageTimes
) -> SearchAnswer | ProblemError:
    """Return the hits that were asked for, with their products, or why there are none."""
    if isinstance(found, QueryError):
        return problem_of(found, request)
    columns = served.columns if request.fields is None else request.fields
    answer, products = found.described.answer, found.described.products
    hits = [
        HitRecord(
            rank=rank,
            retrieval_rank=at + 1,
            score=round(answer.hits[at].score, 6),
            ranks=dict(answer.hits[at].ranks),
            product=shown(products[at], columns),
            **heading(products[at]),
        )
        for rank, at in enumerate(found.order[: request.k], start=1)
    ]
    return SearchAnswer(
        index_version=served.version,
        query_kind=request.kind,
        against=request.against,
        score_kind=answer.score_kind,
        ranking=found.ranking,
        num_allowed=answer.num_allowed,
        points=dict(answer.points),
        hits=hits,
        timings_ms=times,
    )


def problem_of(error: QueryError, request: SearchRequest) -> ProblemError:
    """Return the library's error with the name that the field has in the request."""
    matched = PART_FIELD.match(error.field)
    if matched is None:
        return ProblemError(str(error), field=error.field or None)
    rest = error.field[matched.end() :]
    if request.mix is None:
        return ProblemError(str(error), field=rest or request.kind)
    return ProblemError(str(error), field=".".join(step for step in ("mix", matched.group(1), rest) if step))


def shown(product: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """Return some columns of a product."""
    return {name: product[name] for name in columns}
