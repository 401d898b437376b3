"""What is known about the request that is being answered: its id, and what its line in the access log will say."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

from ray.serve import context as serve_context
from starlette.datastructures import Headers
from starlette.types import Scope

HEADER = "x-request-id"
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(slots=True)
class RequestRecord:
    """A request on its way; filled in by those that handle it."""

    request_id: str
    key_name: str | None = None
    num_body_bytes: int = 0
    stages_ms: dict[str, float] = field(default_factory=dict)
    query: str | None = None
    """The text searched for; logged only if an option says so."""


_current: ContextVar[RequestRecord | None] = ContextVar("product_search_request", default=None)


def start_record(scope: Scope) -> RequestRecord:
    """Begin the record of a request; it is the current one from here on, in this task and those it starts."""
    record = RequestRecord(choose_id(Headers(scope=scope).get(HEADER)))
    _current.set(record)
    return record


def current_record() -> RequestRecord | None:
    """Return the record of the request being answered; None outside of one."""
    return _current.get()


def note_search(stages_ms: Mapping[str, float], *, query: str | None = None) -> None:
    """Add to the current request's line how long each stage took, and the text that was searched for.

    Args:
        stages_ms: milliseconds by stage.
        query: kept from the log unless GuardOptions.log_queries.
    """
    record = _current.get()
    if record is not None:
        record.stages_ms.update(stages_ms)
        record.query = query


def choose_id(given: str | None) -> str:
    """Return a request's own id if it is harmless in logs and headers, else a new one."""
    return given if given is not None and VALID_ID.fullmatch(given) else uuid.uuid4().hex


def id_sent_by_serve() -> str | None:
    """Return the id that Ray Serve will write into the answer's header itself; None outside of Serve.

    Serve gives a request without an id a new one, which reaches the application as the request's header, and echoes
    the id of any other as it came (RequestIdMiddleware in ray/serve/_private/http_util.py, Ray 2.60).
    """
    found = serve_context._serve_request_context.get()
    return None if found is None else found.request_id or None
