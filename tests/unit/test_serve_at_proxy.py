"""What stands around Ray Serve in its proxy, around Serve's own middleware and the answers that Serve itself gives."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ray.serve._private.http_util import _apply_middlewares
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
