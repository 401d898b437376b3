"""Bodies of requests: read whole before anything looks at them, up to a size, a time, and what JSON may hold."""

from __future__ import annotations

import asyncio
import json

import numpy as np
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

MAX_DISCARDED = 8
"""A body of up to so many times the limit is taken and thrown away: a client that is still sending sees a closed
connection instead of the answer."""
MAX_JSON_DEPTH = 32
"""Lists and objects inside one another; a query with a filter needs fewer than ten."""
MAX_JSON_VALUES = 2**18
"""Numbers, texts, lists and objects: a batch of 64 vectors of 4,000 numbers fits. The parser holds the event loop for
up to a third of a microsecond for each, and cannot be interrupted."""
MAX_JSON_MEMBERS = 2**14
"""Lists, objects and the names in objects: a batch needs some thousand. Each may be a mistake to be named, which takes
microseconds."""
INLINE_BYTES = 1 << 16
"""A body up to here is looked through at once; a longer one by another thread."""
CHUNK_BYTES = 1 << 18
QUOTE = ord('"')
NO_STRUCTURE = bytes(code for code in range(256) if code not in b'[]{},:"')
LEVELS = np.zeros(256, np.int8)
LEVELS[list(b"[{")] = 1
LEVELS[list(b"]}")] = -1


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
        BodyError: it is too large (413), too slow (408), or JSON that is nested too deep, holds too much or is not
            UTF-8 (400).
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
        if len(body) <= INLINE_BYTES:
            refuse_heavy_json(body)
        else:
            await asyncio.to_thread(refuse_heavy_json, body)
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


def refuse_heavy_json(body: bytes) -> None:
    """Refuse JSON that is nested too deep or holds too much, before a parser meets it.

    Malformed JSON passes, unless it opens too much: the parser words it better. No step is a loop over bytes in Python,
    and none holds Python's lock for long: what is within strings, as pictures are, is cut out first.

    Raises:
        BodyError: deeper than MAX_JSON_DEPTH, more than MAX_JSON_VALUES or MAX_JSON_MEMBERS, or not UTF-8 (RFC 8259,
            section 8.1, asks for it).
    """
    if not json.detect_encoding(body).startswith("utf-8"):
        raise BodyError("the body is JSON in another encoding than UTF-8")
    num_openers = body.count(b"[") + body.count(b"{")
    is_small = num_openers + body.count(b",") < MAX_JSON_VALUES and num_openers + body.count(b":") <= MAX_JSON_MEMBERS
    if num_openers <= MAX_JSON_DEPTH and is_small:
        return
    structure = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, NO_STRUCTURE)
    codes = np.frombuffer(structure, np.uint8)
    depth = num_values = num_members = num_quotes = 0
    for start in range(0, len(codes), CHUNK_BYTES):
        chunk = codes[start : start + CHUNK_BYTES]
        quotes = np.cumsum(chunk == QUOTE, dtype=np.int32) + num_quotes
        outside = chunk[quotes % 2 == 0]
        depths = np.cumsum(LEVELS[outside], dtype=np.int32) + depth
        counts = np.bincount(outside, minlength=256)
        num_quotes, depth = int(quotes[-1]), int(depths[-1]) if len(depths) else depth
        opened = int(counts[list(b"[{")].sum())
        num_values += opened + int(counts[ord(",")])
        num_members += opened + int(counts[ord(":")])
        if depths.max(initial=0) > MAX_JSON_DEPTH:
            raise BodyError(f"the body is nested deeper than {MAX_JSON_DEPTH} levels")
        if num_values > MAX_JSON_VALUES:
            raise BodyError(f"the body holds more than {MAX_JSON_VALUES} numbers, texts, lists and objects")
        if num_members > MAX_JSON_MEMBERS:
            raise BodyError(f"the body holds more than {MAX_JSON_MEMBERS} lists, objects and names in objects")
