"""Bodies of requests: read whole before anything looks at them, up to a size, a time and a depth."""

from __future__ import annotations

import asyncio
import json

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

MAX_DISCARDED = 8
"""A body of up to so many times the limit is taken and thrown away: a client that is still sending sees a closed
connection instead of the answer."""
MAX_JSON_DEPTH = 32
"""Lists and objects inside one another; a query with a filter needs fewer than ten."""
OPENERS_AND_CLOSERS = bytes.maketrans(b"[]{}", b"()()")
NO_BRACKETS = bytes(code for code in range(256) if code not in b"[]{}")


class BodyError(Exception):
    """A body that is not taken, and the status that says so."""

    def __init__(self, detail: str, *, status: int = 400) -> None:
        super().__init__(detail)
        self.status = status


class ClientGoneError(Exception):
    """The connection closed before the body was complete."""


async def read_body(scope: Scope, receive: Receive, *, max_bytes: int, timeout_s: float) -> bytes:
    """Return the body of a request; one that says it is far too large is not read at all.

    Args:
        scope: of ASGI.
        receive: of ASGI.
        max_bytes: longest body.
        timeout_s: for the whole body, so that a byte now and then does not hold a place.

    Raises:
        BodyError: it is too large (413), too slow (408), or nested too deep or not UTF-8 although JSON (400).
        ClientGoneError: nobody waits for an answer any more.
    """
    headers = Headers(scope=scope)
    length = headers.get("content-length", "0")
    if length == "0" and "transfer-encoding" not in headers:
        return b""  # RFC 9112, section 6.3
    if length.isdecimal() and int(length[:20]) > MAX_DISCARDED * max_bytes:
        raise _too_large(max_bytes)
    try:
        async with asyncio.timeout(timeout_s):
            body = await _read(receive, max_bytes)
    except TimeoutError as error:
        raise BodyError(f"the body did not arrive within {timeout_s:g} seconds", status=408) from error
    if "json" in headers.get("content-type", "").lower():
        refuse_deep_json(body)
    return body


async def _read(receive: Receive, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    num_bytes = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        num_bytes += len(chunk)
        if num_bytes <= max_bytes:
            chunks.append(chunk)
        if num_bytes > MAX_DISCARDED * max_bytes:
            raise _too_large(max_bytes)
        if not message.get("more_body", False):
            break
    if num_bytes > max_bytes:
        raise _too_large(max_bytes)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> BodyError:
    return BodyError(f"the body is larger than {max_bytes} bytes", status=413)


def replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver that gives a body in one piece, and after it what the first receiver gives."""
    is_given = False

    async def receive_body() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_body


def refuse_deep_json(body: bytes) -> None:
    """Refuse JSON that is nested too deep, before a parser that calls itself for each level meets it.

    Malformed JSON passes, unless it opens too much: the parser words it better. No step here is a loop over bytes in
    Python: strings are cut out, brackets kept, and each round of replacing takes the innermost level away.

    Raises:
        BodyError: deeper than MAX_JSON_DEPTH, or not UTF-8 (RFC 8259, section 8.1, asks for it).
    """
    if not json.detect_encoding(body).startswith("utf-8"):
        raise BodyError("the body is JSON in another encoding than UTF-8")
    if body.count(b"[") + body.count(b"{") <= MAX_JSON_DEPTH:
        return
    unescaped = body.replace(rb"\\", b"").replace(rb"\"", b"")
    without_strings = b"".join(unescaped.split(b'"')[::2])
    brackets = without_strings.translate(OPENERS_AND_CLOSERS, NO_BRACKETS)
    for _ in range(MAX_JSON_DEPTH):
        brackets = brackets.replace(b"()", b"")
    if brackets.count(b"(") > MAX_JSON_DEPTH or b"()" in brackets:
        raise BodyError(f"the body is nested deeper than {MAX_JSON_DEPTH} levels")
