"""Everything that stands around a request, put around an application in one call."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from product_retrieval.errors import OptionsError
from serve.access_log import AccessLog, RequestMetrics
from serve.door import refuse_open_door
from serve.key_guard import KeyGuard
from serve.keys import ENVIRONMENT, KeyRing
from serve.problems import BODY_TIMEOUT_S, MAX_BODY_BYTES
from serve.problems import install as install_problems

ORIGIN = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:[0-9]{1,5})?")
ASKED_HEADERS = ("authorization", "content-type", "x-api-key", "x-request-id")
SHOWN_HEADERS = ("x-request-id", "server-timing", "retry-after")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardOptions:
    """Who may ask, from where, how much, and what is kept of it."""

    keys_file: str | None = None
    """File of API key hashes, on each machine with a replica; more may be in MPR_API_KEYS_SHA256."""
    allow_open: bool = False
    """Answer without keys although HTTP listens beyond this machine."""
    cors_origins: tuple[str, ...] = ()
    """Other origins whose pages may ask, such as https://shop.example; `*` for any."""
    log_queries: bool = False
    """Write the texts that are searched for to the access log."""
    max_body_bytes: int = MAX_BODY_BYTES
    """Longest body of a request."""
    body_timeout_s: float = BODY_TIMEOUT_S
    """Longest time for a body to arrive, in seconds."""

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise OptionsError(f"max_body_bytes is {self.max_body_bytes}; it must be at least 1")
        if not self.body_timeout_s > 0:
            raise OptionsError(f"body_timeout_s is {self.body_timeout_s}; it must be above 0")
        for origin in self.cors_origins:
            if origin != "*" and not ORIGIN.fullmatch(origin):
                raise OptionsError(
                    f"cors_origins: {origin!r} is no origin; write it as a browser sends it, in lower case and without "
                    "a path: https://shop.example or http://localhost:3000"
                )


def install(app: FastAPI, guard: GuardOptions, *, metrics: RequestMetrics | None = None) -> KeyRing:
    """Put id, log, CORS, keys, limits and problem documents around an application, in this order from the outside.

    Args:
        app: with its routes; not yet started, and without `problems.install`.
        guard: what is allowed.
        metrics: counts the requests.

    Returns:
        The keys that may ask.

    Raises:
        OptionsError: the keys cannot be read, or there are none although strangers can reach the service.
    """
    keys = KeyRing(guard.keys_file, os.environ.get(ENVIRONMENT, ""))
    refuse_open_door(keys, allow_open=guard.allow_open)
    install_problems(app, max_body_bytes=guard.max_body_bytes, body_timeout_s=guard.body_timeout_s)
    app.add_middleware(KeyGuard, keys=keys)
    if guard.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=guard.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=ASKED_HEADERS,
            expose_headers=SHOWN_HEADERS,
        )
    app.add_middleware(AccessLog, log_queries=guard.log_queries, metrics=metrics)
    return keys
