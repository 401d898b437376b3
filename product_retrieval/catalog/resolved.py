"""Names of hosts turned to addresses, all of which are checked before any is used.

The name servers of a host are its owner's, who may answer one thing now and another in a second: what was checked is
what is connected to, and one address that is not allowed spoils the rest.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from product_retrieval.catalog.addresses import why_refused
from product_retrieval.catalog.fetch_errors import FetchError
from product_retrieval.catalog.picture_urls import PictureUrl

Resolver = Callable[[str, int], Sequence[str]]
"""Numeric addresses of a host and port, best first; raises OSError where it has none."""

KEPT_S = 30.0
"""How long an answer is used for further connections: a slice has a thousand pictures of one host."""
NUM_THREADS = 4
"""They wait for name servers, which cannot be hurried."""


class Deadline:
    """The end of the time that one picture may take."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self._end = time.monotonic() + seconds

    def remaining_s(self) -> float:
        """Return how much is left.

        Raises:
            TimeoutError: nothing.
        """
        remaining = self._end - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        return remaining

    def allows(self, seconds: float) -> bool:
        """Return whether that much is left."""
        return time.monotonic() + seconds < self._end

    def extend(self, seconds: float) -> None:
        """Give back time that the picture spent waiting for others."""
        self._end += seconds


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host, in its order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


class CheckedAddresses:
    """Asks a resolver once for each host and hands out only what is allowed."""

    def __init__(self, resolver: Resolver) -> None:
        """Start without any answer."""
        self._resolver = resolver
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="resolve")
        self._answers: dict[tuple[str, int], tuple[float, Future[Sequence[str]]]] = {}
        self._lock = threading.Lock()

    def of(self, url: PictureUrl, deadline: Deadline, *, private_is_allowed: bool) -> Sequence[str]:
        """Return the addresses of a URL's host.

        Raises:
            FetchError: it has none, one of them is not allowed, or the name servers are too slow.
        """
        try:
            addresses = self._answer(url.host, url.port).result(deadline.remaining_s())
        except TimeoutError as error:
            raise FetchError("image_timeout", f"{url.host}: no answer from name servers") from error
        except (OSError, UnicodeError) as error:
            may_pass = isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN
            if may_pass:
                with self._lock:
                    self._answers.pop((url.host, url.port), None)
            raise FetchError("image_not_readable", f"{url.host}: no such host", may_pass=may_pass) from error
        if not addresses:
            raise FetchError("image_not_readable", f"{url.host}: no such host")
        for address in addresses:
            why = why_refused(address, private_is_allowed=private_is_allowed)
            if why is not None:
                raise FetchError("image_address_not_allowed", f"{url.host} is at {address}: {why}")
        return addresses

    def close(self) -> None:
        """Ask nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answer(self, host: str, port: int) -> Future[Sequence[str]]:
        """Return the answer of the resolver, on its way or not older than KEPT_S."""
        with self._lock:
            expires, answer = self._answers.get((host, port), (0.0, None))
            if answer is None or time.monotonic() > expires:
                answer = self._threads.submit(self._resolver, host, port)
                self._answers[(host, port)] = (time.monotonic() + KEPT_S, answer)
            return answer
