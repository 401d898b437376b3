"""Wrong requests become problem documents (RFC 9457) that name the field; bodies are bounded before they are parsed."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from product_retrieval.errors import QueryError

MAX_BODY_BYTES = 8 * 1024 * 1024
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
    """ASGI middleware: stops reading a body at its limit, and marks every answer as what it says it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        num_bytes = 0

        async def bounded_receive() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > MAX_BODY_BYTES:
                raise HTTPException(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
            return message

        async def marked_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                marks = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message["headers"], *marks]}
            await send(message)

        await self._app(scope, bounded_receive, marked_send)


def install(app: FastAPI) -> None:
    """Let an application answer every failure with a problem document."""
    app.add_middleware(RequestGuard)
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
    return document | ({"detail": detail, "errors": list(errors)} if errors else {"detail": detail})


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


async def _answer_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    answer = problem(error.status_code, error.detail)
    answer.headers.update(error.headers or {})
    return answer


async def _answer_unexpected(_request: Request, _error: Exception) -> JSONResponse:
    return problem(500, "an error of the service, not of the request; its log says more")


def _field(location: Sequence[int | str]) -> str:
    """Return a field's name: without the part of the request that it was in, unless it is the whole body."""
    return ".".join(str(step) for step in location[1:]) or str(location[0])
