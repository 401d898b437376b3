"""What a server's answer to a picture's URL is: the picture, another place to look, or a failure."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import h11

from product_retrieval.catalog.fetch_errors import FetchError
from product_retrieval.catalog.picture_urls import PictureUrl

REDIRECTS = (301, 302, 303, 307, 308)
NOT_FOUND = (404, 410)
PASSING = (408, 425, 429)
"""Statuses below 500 that say "not now" (RFC 9110, section 15.5; RFC 8470; RFC 6585)."""
DISCARDED_BYTES = 1 << 14
"""Longest body of an error or a redirect that is read, so that its connection can be kept."""
GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Response:
    """What a server sent."""

    status: int
    headers: dict[bytes, bytes]
    """By lower-case name; of several the last."""
    body: Iterator[bytes]
    """Read from the connection as it is taken; without the framing, but packed as the headers say."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """An answer that points elsewhere."""

    location: bytes


def read_answer(response: Response, url: PictureUrl, *, max_bytes: int) -> bytes | Redirect:
    """Read the answer to a request.

    Args:
        response: with its body unread.
        url: that was asked for.
        max_bytes: size beyond which reading stops, on the way and unpacked.

    Raises:
        FetchError: it is no picture.
    """
    headers = response.headers
    if response.status == 200:
        return _read_body(response, url, max_bytes)
    _discard_body(response)
    status = f"{url.shown}: HTTP {response.status}"
    if response.status in REDIRECTS and b"location" in headers:
        return Redirect(headers[b"location"])
    if response.status in NOT_FOUND:
        raise FetchError("image_not_found", status)
    if response.status in PASSING or response.status >= 500:
        wait_s = _retry_after_s(headers.get(b"retry-after", b""))
        raise FetchError("image_server_error", status, may_pass=True, retry_after_s=wait_s)
    raise FetchError("image_http_error", status)


def _read_body(response: Response, url: PictureUrl, max_bytes: int) -> bytes:
    """Read a body, however long it claims to be, and unpack it where the server packed it unasked."""
    coding = response.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"identity", b"", b"gzip", b"x-gzip"):
        raise FetchError("image_not_readable", f"{url.shown}: content encoding {coding[:20]!r}")
    too_large = FetchError("image_too_large", f"{url.shown}: more than {max_bytes} bytes")
    if _claimed_size(response) > max_bytes:
        raise too_large
    unpacker = zlib.decompressobj(GZIP) if coding.endswith(b"gzip") else None
    received, body = 0, bytearray()
    for chunk in response.body:
        received += len(chunk)
        try:
            body += chunk if unpacker is None else unpacker.decompress(chunk, max_bytes + 1 - len(body))
        except zlib.error as error:
            raise FetchError("image_not_readable", f"{url.shown}: not gzip") from error
        if max(received, len(body)) > max_bytes:
            raise too_large
    if unpacker is not None and not unpacker.eof:
        raise FetchError("image_not_readable", f"{url.shown}: broken off", may_pass=True)
    return bytes(body)


def _discard_body(response: Response) -> None:
    """Read a short body that nobody needs; a long one costs its connection instead."""
    if _claimed_size(response) > DISCARDED_BYTES:
        return
    received = 0
    try:
        for chunk in response.body:
            received += len(chunk)
            if received > DISCARDED_BYTES:
                return
    except (OSError, h11.RemoteProtocolError):
        return  # the status was what mattered


def _claimed_size(response: Response) -> int:
    claim = response.headers.get(b"content-length", b"0")
    return int(claim) if claim.isdigit() else 0


def _retry_after_s(value: bytes) -> float | None:
    """Return how long a Retry-After header asks to wait: seconds or a date (RFC 9110, section 10.2.3)."""
    text = value.decode("latin-1").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
