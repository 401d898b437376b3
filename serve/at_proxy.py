"""Around Ray Serve itself: what the process that accepts connections does before Serve, and after it.

    export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.at_proxy.middlewares
    serve run serve.app:build index=out/index

Serve names every request before an application hears of it, and writes the id that a request brought into the answer after
everything that the application writes (RequestIdMiddleware in ray/serve/_private/http_util.py, Ray 2.60). Only out here can
a harmful id be replaced.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve.requests import HEADER, start_record


def middlewares() -> list[Middleware]:
    """Return what Serve puts around itself, in each of its processes that accepts connections."""
    return [Middleware(NamedRequests)]


class NamedRequests:
    """ASGI middleware: every request has exactly one id, and a harmless one."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        await self._app(scope if scope["type"] == "lifespan" else named(scope), receive, send)


def named(scope: Scope) -> Scope:
    """Return the scope of a request with the request's own id if that is harmless, else with a new one."""
    name = HEADER.encode()
    record = start_record(scope)
    others = [header for header in scope["headers"] if header[0] != name]
    return {**scope, "headers": [*others, (name, record.request_id.encode())]}
