"""Lets those in who have a key; everything else about a request is looked at only after that."""

from __future__ import annotations

from collections.abc import Iterator

from starlette.types import ASGIApp, Receive, Scope, Send

from serve.keys import KeyRing
from serve.problems import problem
from serve.requests import current_record

OPEN_PATHS = frozenset({"/", "/livez", "/readyz"})
"""The page holds nothing of the catalogue, and a browser must load it to ask its user for the key."""
CLOSE_POLICY_VIOLATION = 1008
"""RFC 6455, section 7.4.1."""


class KeyGuard:
    """ASGI middleware: answers 401 to a request without a key, whatever it asks for; with no keys, all may ask."""

    def __init__(self, app: ASGIApp, *, keys: KeyRing) -> None:
        self._app = app
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or len(self._keys) == 0:
            await self._app(scope, receive, send)
            return
        name = self._name_of(scope)
        record = current_record()
        if record is not None:
            record.key_name = name
        if name is not None or is_open(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": CLOSE_POLICY_VIOLATION})
        else:
            refusal = problem(401, "an API key is needed, as Authorization: Bearer KEY or as X-API-Key: KEY")
            refusal.headers["WWW-Authenticate"] = "Bearer"
            await refusal(scope, receive, send)

    def _name_of(self, scope: Scope) -> str | None:
        names = [self._keys.find(key) for key in given_keys(scope)]
        return next((name for name in names if name is not None), None)


def given_keys(scope: Scope) -> Iterator[str]:
    """Return what a request's headers give as keys."""
    for name, value in scope["headers"]:
        text = value.decode("latin-1")
        if name == b"x-api-key":
            yield text.strip()
        elif name == b"authorization":
            scheme, _, key = text.partition(" ")
            if scheme.lower() == "bearer":  # RFC 9110, section 11.1: a scheme's case does not matter
                yield key.strip()


def is_open(scope: Scope) -> bool:
    """Say whether a path needs no key; only these very paths, so that no other spelling of one gets through."""
    if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
        return False
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return (path[len(root) :] if path.startswith(root + "/") else path) in OPEN_PATHS
