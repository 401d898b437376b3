"""Around Ray Serve itself: what the process that accepts connections does before Serve, and after it.

    export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.at_proxy.middlewares
    serve run serve.app:build index=out/index

Serve names every request before an application hears of it, and writes the id that a request brought into the answer
after everything that the application writes (RequestIdMiddleware in ray/serve/_private/http_util.py, Ray 2.60). It
refuses some requests by itself, in plain text. Only out here can either be changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import RETRY_AFTER_S, marked, problem, unexpected
from serve.requests import HEADER, start_record

ID = HEADER.encode()
OWN_PATHS = "/-/"
"""Below it are Serve's own probes, which load balancers read as they are."""
SAID_BY_SERVE = {b"content-type", b"retry-after", ID}
"""Headers of what Serve says itself (convert_object_to_asgi_messages); what an application says has a length too."""
DETAILS = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.REQUEST_TIMEOUT: "there was no answer within the time that a request may take",
    HTTPStatus.TOO_MANY_REQUESTS: "more requests than can be answered in time; try again",
    HTTPStatus.SERVICE_UNAVAILABLE: "more requests than can be answered in time, or nothing that answers; try again",
}


def middlewares() -> list[Middleware]:
    """Return what Serve puts around itself, in each of its processes that accepts connections."""
    return [Middleware(AtProxy)]


class AtProxy:
    """ASGI middleware: one harmless id a request, and problem documents for what Serve refuses by itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and its answer back."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        name = (ID, start_record(scope).request_id.encode())
        named = {**scope, "headers": [*(header for header in scope["headers"] if header[0] != ID), name]}
        if scope["type"] != "http" or scope["path"].startswith(OWN_PATHS):
            await self._app(named, receive, send)
            return
        is_started = is_replaced = False

        async def send_named(message: Message) -> None:
            start = marked(message)
            await send({**start, "headers": [*start["headers"], name]} if start is not message else message)

        async def send_checked(message: Message) -> None:
            nonlocal is_started, is_replaced
            if message["type"] == "http.response.start":
                is_started, is_replaced = True, is_refusal_by_serve(message)
                if is_replaced:
                    await refusal(message["status"], message["headers"])(scope, receive, send_named)
            if not is_replaced:
                await send(message)

        await self._app(named, receive, send_checked)
        if not is_started:  # a replica died, or there is nothing that Serve has words for
            await unexpected()(scope, receive, send_named)


def is_refusal_by_serve(start: Message) -> bool:
    """Say whether it is Serve, and not an application behind it, that answers so."""
    names = {name.lower() for name, _ in start["headers"]}
    return start["status"] >= HTTPStatus.BAD_REQUEST and names <= SAID_BY_SERVE


def refusal(status: int, headers: Iterable[tuple[bytes, bytes]]) -> Response:
    """Return the problem document in place of what Serve says."""
    answer = problem(status, DETAILS.get(HTTPStatus(status), "the request could not be answered"))
    retry_after = next((value.decode() for name, value in headers if name.lower() == b"retry-after"), None)
    if retry_after is None and status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after = str(RETRY_AFTER_S)
    if retry_after is not None:
        answer.headers["Retry-After"] = retry_after
    return answer
