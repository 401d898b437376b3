"""HTTP requests over connections that are pinned to checked addresses and end when their time is over.

A host's name is resolved first, every address that it has is checked, and the connection is made to one of these
numbers: whatever the name means a moment later cannot matter. Certificate, SNI and Host header are the name's. Nothing
comes from the environment but the trusted certificates: a proxy would resolve names itself, past every check here.
"""

from __future__ import annotations

import ssl
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpcore2

from product_retrieval import __version__
from product_retrieval.catalog.fetch_errors import FetchError
from product_retrieval.catalog.picture_urls import PictureUrl
from product_retrieval.catalog.resolved import CheckedAddresses, Deadline, Resolver

MAX_ADDRESSES_TRIED = 3
HEADERS = [
    (b"User-Agent", f"multimodal-product-retrieval/{__version__}".encode()),
    (b"Accept", b"image/jpeg,image/png,image/webp,image/gif,image/bmp,image/tiff,*/*;q=0.1"),
    (b"Accept-Encoding", b"identity"),  # pictures are compressed already
]


class TimedStream(httpcore2.NetworkStream):
    """A stream whose every step ends at the deadline of the request that it serves."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        """Wrap a connected stream."""
        self._stream = stream
        self.deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline knows
        """Read what is there."""
        return self._stream.read(max_bytes, self.deadline.remaining_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline knows
        """Write everything."""
        self._stream.write(buffer, self.deadline.remaining_s())

    def close(self) -> None:
        """Close the socket."""
        self._stream.close()

    def get_extra_info(self, info: str) -> object:
        """Return what the socket knows."""
        return self._stream.get_extra_info(info)


class PinnedConnection:
    """A connection for requests to one scheme, host and port, at one address."""

    def __init__(self, url: PictureUrl, address: str, stream: TimedStream) -> None:
        """Speak HTTP over a connected stream."""
        self.address = address
        self._stream = stream
        origin = httpcore2.Origin(url.scheme.encode(), url.host.encode(), url.port)
        self._http = httpcore2.HTTP11Connection(origin, stream)

    def get(self, url: PictureUrl, deadline: Deadline) -> httpcore2.Response:
        """Send a request and return status, headers and the unread body."""
        self._stream.deadline = deadline
        target = httpcore2.URL(
            scheme=url.scheme.encode(), host=url.host.encode(), port=url.port, target=url.target.encode()
        )
        headers = [(b"Host", url.authority.encode()), *HEADERS]
        return self._http.handle_request(httpcore2.Request(b"GET", target, headers=headers))

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer was read to its end and the server keeps the connection open."""
        return self._http.is_available() and not self._http.has_expired()

    def close(self) -> None:
        """Close it."""
        self._http.close()


class PinnedConnections:
    """Connections to checked addresses, kept open for the next picture of the same host."""

    def __init__(
        self, *, resolver: Resolver, ssl_context: ssl.SSLContext | None, backend: httpcore2.NetworkBackend
    ) -> None:
        """Start without any."""
        self._addresses = CheckedAddresses(resolver)
        self._ssl_context = ssl_context
        self._backend = backend
        self._idle: dict[tuple[str, str, int], list[PinnedConnection]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def get(self, url: PictureUrl, deadline: Deadline, *, private_is_allowed: bool) -> Iterator[httpcore2.Response]:
        """Request a URL; at the end the connection is kept if its answer was read whole.

        Args:
            url: what to ask for; no redirect is followed.
            deadline: when everything ends, reading the body too.
            private_is_allowed: whether the host may have a private address.

        Raises:
            FetchError: an address is not allowed, there is no connection, or no answer.
        """
        addresses = self._addresses.of(url, deadline, private_is_allowed=private_is_allowed)
        with _named_failures(url):
            connection, response = self._ask_idle(url, addresses, deadline) or self._ask_new(url, addresses, deadline)
            try:
                yield response
            finally:
                response.close()
                self._keep(url, connection)

    def close(self) -> None:
        """Close all connections."""
        self._addresses.close()
        with self._lock:
            idle = [connection for connections in self._idle.values() for connection in connections]
            self._idle.clear()
        for connection in idle:
            connection.close()

    def _ask_idle(
        self, url: PictureUrl, addresses: Sequence[str], deadline: Deadline
    ) -> tuple[PinnedConnection, httpcore2.Response] | None:
        """Return an answer over a connection that is already there, if the server still listens to it."""
        while True:
            with self._lock:
                idle = self._idle[(url.scheme, url.host, url.port)]
                connection = idle.pop() if idle else None
            if connection is None:
                return None
            if connection.address in addresses and connection.is_reusable:
                try:
                    return connection, connection.get(url, deadline)
                except (httpcore2.NetworkError, httpcore2.RemoteProtocolError):
                    continue  # closed by the server since the last picture, which is its right
            connection.close()

    def _ask_new(
        self, url: PictureUrl, addresses: Sequence[str], deadline: Deadline
    ) -> tuple[PinnedConnection, httpcore2.Response]:
        connection = self._connect(url, addresses, deadline)
        return connection, connection.get(url, deadline)

    def _connect(self, url: PictureUrl, addresses: Sequence[str], deadline: Deadline) -> PinnedConnection:
        """Connect to the first address that answers, each within its share of the time."""
        tried = addresses[:MAX_ADDRESSES_TRIED]
        for number, address in enumerate(tried, start=1):
            share_s = deadline.remaining_s() / (len(tried) - number + 1)
            try:
                stream = self._backend.connect_tcp(address, url.port, timeout=share_s)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(tried):
                    raise
                continue
            if url.scheme == "https":
                stream = stream.start_tls(self._trust(), server_hostname=url.host, timeout=deadline.remaining_s())
            return PinnedConnection(url, address, TimedStream(stream, deadline))
        raise FetchError("image_not_readable", f"{url.host}: no such host")

    def _keep(self, url: PictureUrl, connection: PinnedConnection) -> None:
        if connection.is_reusable:
            with self._lock:
                self._idle[(url.scheme, url.host, url.port)].append(connection)
        else:
            connection.close()

    def _trust(self) -> ssl.SSLContext:
        with self._lock:
            if self._ssl_context is None:
                self._ssl_context = ssl.create_default_context()
            return self._ssl_context


@contextmanager
def _named_failures(url: PictureUrl) -> Iterator[None]:
    """Turn what goes wrong on a connection into a reason; the messages are the same on every machine and run."""
    try:
        yield
    except (TimeoutError, httpcore2.TimeoutException) as error:
        raise FetchError("image_timeout", url.shown) from error
    except httpcore2.ConnectError as error:
        cause = error.__cause__
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise FetchError("image_not_readable", f"{url.shown}: certificate: {cause.verify_message}") from error
        why = "TLS" if isinstance(cause, ssl.SSLError) else "no connection"
        raise FetchError("image_not_readable", f"{url.shown}: {why}", may_pass=True) from error
    except (httpcore2.NetworkError, httpcore2.RemoteProtocolError) as error:
        raise FetchError("image_not_readable", f"{url.shown}: broken off", may_pass=True) from error
