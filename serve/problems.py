"""Wrong requests become problem documents (RFC 9457) that name the field; bodies are bounded before they are parsed."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_retrieval.errors import QueryError
from serve.bodies import BodyError, ClientGoneError, read_body, replay
from serve.requests import current_record

MAX_BODY_BYTES = 8 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
RETRY_AFTER_S = 1
"""What a client is told to wait where there is too much to do at once."""
MARKS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))
MAX_ERRORS = 20
"""Named in one answer; a vector of thousands of wrong numbers is one mistake."""


class ProblemError(Exception):
    """A request that cannot be answered, and why."""

    def __init__(
        self, detail: str, *, field: str | None = None, status: int = 422, retry_after_s: int | None = None
    ) -> None:
        super().__init__(detail)
        self.field = field
        self.status = status
        self.retry_after_s = retry_after_s


class RequestGuard:
    """ASGI middleware: takes a body only up to its limits, and marks every answer as what it says it is."""

    def __init__(
        self, app: ASGIApp, *, max_body_bytes: int = MAX_BODY_BYTES, body_timeout_s: float = BODY_TIMEOUT_S
    ) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with its body in one piece."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def marked_send(message: Message) -> None:
            await send(marked(message))

        try:
            body = await read_body(scope, receive, max_bytes=self._max_body_bytes, timeout_s=self._body_timeout_s)
        except ClientGoneError:
            return
        except BodyError as error:
            refusal = problem(error.status, str(error))
            if error.status != HTTPStatus.BAD_REQUEST:
                refusal.headers["Connection"] = "close"  # the rest of the body is not read
            await refusal(scope, receive, marked_send)
            return
        record = current_record()
        if record is not None:
            record.num_body_bytes = len(body)
        await self._app(scope, replay(body, receive), marked_send)


def marked(message: Message) -> Message:
    """Return a message of ASGI; the start of an answer with the marks that it lacks."""
    if message["type"] != "http.response.start":
        return message
    present = {name.lower() for name, _ in message["headers"]}
    return {**message, "headers": [*message["headers"], *(mark for mark in MARKS if mark[0] not in present)]}


def install(app: FastAPI, *, max_body_bytes: int = MAX_BODY_BYTES, body_timeout_s: float = BODY_TIMEOUT_S) -> None:
    """Let an application answer every failure with a problem document.

    Args:
        app: not yet started.
        max_body_bytes: longest body that is taken.
        body_timeout_s: longest time that a body may take to arrive.
    """
    app.add_middleware(RequestGuard, max_body_bytes=max_body_bytes, body_timeout_s=body_timeout_s)
    app.add_exception_handler(ProblemError, _answer_problem)
    app.add_exception_handler(QueryError, _answer_query_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(Exception, _answer_unexpected)


def problem(status: int, detail: str, errors: Sequence[dict[str, str]] = ()) -> JSONResponse:
    """Return a problem document.

    Args:
        status: of HTTP.
        detail: one sentence for the person who sent the request.
        errors: each with `field` and `detail`.
    """
    return JSONResponse(_document(status, detail, errors), status_code=status, media_type="application/problem+json")


def record_of(error: ProblemError) -> dict[str, Any]:
    """Return the problem document of an error."""
    if error.field is None:
        return _document(error.status, str(error))
    detail = str(error) if str(error).startswith(error.field) else f"{error.field}: {error}"
    return _document(error.status, detail, [{"field": error.field, "detail": str(error)}])


def _document(status: int, detail: str, errors: Sequence[dict[str, str]] = ()) -> dict[str, Any]:
    document: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    document |= {"detail": detail, "errors": list(errors)} if errors else {"detail": detail}
    record = current_record()
    return document if record is None else document | {"request_id": record.request_id}


def unexpected() -> JSONResponse:
    """Return the problem document of a failure that is not the request's."""
    return problem(500, "an error of the service, not of the request; its log says more")


async def _answer_problem(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ProblemError)
    answer = JSONResponse(record_of(error), status_code=error.status, media_type="application/problem+json")
    if error.retry_after_s is not None:
        answer.headers["Retry-After"] = str(error.retry_after_s)
    return answer


async def _answer_query_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, QueryError)
    field = error.field or "query"
    return problem(422, str(error), [{"field": field, "detail": str(error)}])


async def _answer_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    found = error.errors()[:MAX_ERRORS]
    if any(one["type"] == "json_invalid" for one in found):
        return problem(400, "the body is not JSON")
    is_json = "json" in request.headers.get("content-type", "")
    if not is_json and any(one["loc"] == ("body",) and one["type"] == "model_attributes_type" for one in found):
        return problem(415, "the body must be JSON, with Content-Type: application/json")
    errors = [{"field": _field(one["loc"]), "detail": one["msg"].removeprefix("Value error, ")} for one in found]
    return problem(422, "; ".join(f"{one['field']}: {one['detail']}" for one in errors), errors)


async def _answer_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        answer.headers["Allow"] = ", ".join(_allowed_methods(request))
    return answer


def _allowed_methods(request: Request) -> list[str]:
    """Return the methods that a path takes; Starlette names those of the first of its routes only."""
    routes = request.app.routes
    return sorted(
        {method for route in routes if route.matches(request.scope)[0] != Match.NONE for method in route.methods or ()}
    )


async def _answer_unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return unexpected()


def _field(location: Sequence[int | str]) -> str:
    """Return a field's name: without the part of the request that it was in, unless it is the whole body."""
    return ".".join(str(step) for step in location[1:]) or str(location[0])
