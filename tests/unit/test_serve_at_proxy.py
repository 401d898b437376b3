"""What stands around Ray Serve in its proxy, around Serve's own middleware and the answers that Serve itself gives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest
from ray.serve._private.http_util import _apply_middlewares, convert_object_to_asgi_messages, retry_after_headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.at_proxy import middlewares

Headers = Sequence[tuple[bytes, bytes]]


def ask(app: ASGIApp, headers: Headers = (), *, path: str = "/v1/search") -> tuple[int, list[tuple[str, str]], bytes]:
    """Ask Serve's proxy, as far as it stands around `app`, and return status, headers and body."""
    sent: list[Message] = []

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": list(headers)}
    asyncio.run(_apply_middlewares(app, middlewares())(scope, receive, send))
    assert [message["type"] for message in sent].count("http.response.start") == 1
    start = sent[0]
    found = [(name.decode().lower(), value.decode()) for name, value in start["headers"]]
    return start["status"], found, b"".join(message.get("body", b"") for message in sent[1:])


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the ids that the application is given."""
    ids = [value.decode() for name, value in scope["headers"] if name == b"x-request-id"]
    await PlainTextResponse(",".join(ids))(scope, receive, send)


def ids_of(headers: Sequence[tuple[str, str]]) -> list[str]:
    return [value for name, value in headers if name == "x-request-id"]


def test_a_harmless_id_is_the_applications_and_the_answers() -> None:
    _, headers, body = ask(echo, [(b"accept", b"*/*"), (b"x-request-id", b"order-17")])
    assert (ids_of(headers), body) == (["order-17"], b"order-17")


@pytest.mark.parametrize(
    "given",
    [[], [b""], [b"a b"], [b'a"b'], [b"x" * 65], [b"\xff"], [b"a b", b"c d"]],
    ids=["none", "empty", "blank", "quote", "long", "no ASCII", "two"],
)
def test_any_other_id_is_replaced_by_one_in_a_single_header(given: list[bytes]) -> None:
    _, headers, body = ask(echo, [(b"x-request-id", one) for one in given])
    (made,) = ids_of(headers)
    assert (len(made), made.encode()) == (32, body)


def test_of_two_harmless_ids_the_first_counts() -> None:
    _, headers, _ = ask(echo, [(b"x-request-id", b"one"), (b"x-request-id", b"two")])
    assert ids_of(headers) == ["one"]


def said_by_serve(status: int, text: str, retry_after_s: float | None = None) -> ASGIApp:
    """Return what answers as Serve's proxy does where no application is asked."""

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in convert_object_to_asgi_messages(text, status, retry_after_headers(retry_after_s)):
            await send(message)

    return app


@pytest.mark.parametrize(
    ("status", "retry_after_s", "shown"),
    [(503, 7, "7"), (503, None, "1"), (429, 2.5, "3"), (408, None, None), (404, None, None), (500, None, None)],
)
def test_what_serve_refuses_in_plain_text_becomes_a_problem(
    status: int, retry_after_s: float | None, shown: str | None
) -> None:
    app = said_by_serve(status, "Deployment(name='SearchService', app='search') is unavailable", retry_after_s)
    found, given, body = ask(app, [(b"x-request-id", b"order-17")])
    headers, document = dict(given), json.loads(body)
    assert (found, headers["content-type"], headers.get("retry-after")) == (status, "application/problem+json", shown)
    assert (document["status"], document["request_id"], ids_of(given)) == (status, "order-17", ["order-17"])
    assert int(headers["content-length"]) == len(body)
    assert headers["x-content-type-options"] == "nosniff"
    assert b"SearchService" not in body


def test_a_request_that_serve_has_no_words_for_is_answered_too() -> None:
    async def silent(_scope: Scope, _receive: Receive, _send: Send) -> None:
        pass

    status, headers, body = ask(silent, [(b"x-request-id", b"order-17")])
    assert (status, json.loads(body)["request_id"], ids_of(headers)) == (500, "order-17", ["order-17"])


@pytest.mark.parametrize("status", [200, 404, 503])
def test_what_an_application_says_stays_as_it_is(status: int) -> None:
    found, headers, body = ask(PlainTextResponse("closed on Sundays", status))
    assert (found, dict(headers)["content-type"], body) == (status, "text/plain; charset=utf-8", b"closed on Sundays")


def test_the_probes_of_serve_stay_as_they_are() -> None:
    assert ask(said_by_serve(503, "draining"), path="/-/healthz")[::2] == (503, b"draining")
