"""HTTP requests over connections that are pinned to checked addresses and end when their time is over.

A host's name is resolved first, every address that it has is checked, and the connection is made to one of these
numbers: whatever the name means a moment later cannot matter. Certificate, SNI and Host header are the name's. Nothing
comes from the environment but the trusted certificates: a proxy would resolve names itself, past every check here.

The protocol is h11's, which does no input or output: each time the socket is waited for is a line of this module.
"""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import h11

from product_retrieval import __version__
from product_retrieval.catalog.fetch_errors import FetchError
from product_retrieval.catalog.http_answers import Response
from product_retrieval.catalog.picture_urls import PictureUrl
from product_retrieval.catalog.resolved import CheckedAddresses, Deadline, Resolver

Connector = Callable[[str, int, float], socket.socket]
"""Connects to a numeric address and a port within seconds; raises OSError."""

MAX_ADDRESSES_TRIED = 3
MAX_HEADER_BYTES = 1 << 16
"""Of one answer; servers send some kilobytes."""
READ_BYTES = 1 << 16
HEADERS = [
    ("User-Agent", f"multimodal-product-retrieval/{__version__}"),
    ("Accept", "image/jpeg,image/png,image/webp,image/gif,image/bmp,image/tiff,*/*;q=0.1"),
    ("Accept-Encoding", "identity"),  # pictures are compressed already
]


def connect(address: str, port: int, timeout_s: float) -> socket.socket:
    """Connect by the system's own means."""
    connected = socket.create_connection((address, port), timeout_s)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connected


class PinnedConnection:
    """A connection for requests to one scheme, host and port, at one address."""

    def __init__(self, connected: socket.socket, address: str) -> None:
        """Speak HTTP over a connected socket."""
        self.address = address
        self._socket = connected
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADER_BYTES)

    def get(self, url: PictureUrl, deadline: Deadline) -> Response:
        """Send a request and return the answer with its body unread.

        Raises:
            TimeoutError: the deadline is over.
            OSError: the connection is broken.
            h11.RemoteProtocolError: the answer is not HTTP.
        """
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        request = h11.Request(method="GET", target=url.target, headers=[("Host", url.authority), *HEADERS])
        self._socket.settimeout(deadline.remaining_s())
        self._socket.sendall(self._http.send(request) or b"")
        self._http.send(h11.EndOfMessage())
        event = self._next_event(deadline)
        while isinstance(event, h11.InformationalResponse):
            event = self._next_event(deadline)
        if not isinstance(event, h11.Response):
            raise h11.RemoteProtocolError("no answer")
        return Response(event.status_code, dict(event.headers), self._body(deadline))

    @property
    def is_reusable(self) -> bool:
        """Whether the last answer was read to its end, nothing follows it, and the server keeps the connection open."""
        is_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return is_done and not self._http.trailing_data[0] and not self._is_readable()

    def close(self) -> None:
        """Close it."""
        self._socket.close()

    def _body(self, deadline: Deadline) -> Iterator[bytes]:
        while isinstance(event := self._next_event(deadline), h11.Data):
            yield bytes(event.data)

    def _next_event(self, deadline: Deadline) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        while True:
            event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            self._socket.settimeout(deadline.remaining_s())
            self._http.receive_data(self._socket.recv(READ_BYTES))

    def _is_readable(self) -> bool:
        """Return whether something has come in that nobody asked for: most often the end of the connection."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(0))


class PinnedConnections:
    """Connections to checked addresses, kept open for the next picture of the same host."""

    def __init__(self, *, resolver: Resolver, connector: Connector, ssl_context: ssl.SSLContext | None) -> None:
        """Start without any."""
        self._addresses = CheckedAddresses(resolver)
        self._connector = connector
        self._ssl_context = ssl_context
        self._idle: dict[tuple[str, str, int], list[PinnedConnection]] = defaultdict(list)
        self._lock = threading.Lock()

    @contextmanager
    def get(self, url: PictureUrl, deadline: Deadline, *, private_is_allowed: bool) -> Iterator[Response]:
        """Request a URL; at the end the connection is kept if its answer was read whole.

        Args:
            url: what to ask for; no redirect is followed.
            deadline: when everything ends, reading the body too.
            private_is_allowed: whether the host may have a private address.

        Raises:
            FetchError: an address is not allowed, there is no connection, or no answer.
        """
        addresses = self._addresses.of(url, deadline, private_is_allowed=private_is_allowed)
        try:
            connection, response = self._ask_idle(url, addresses, deadline) or self._ask_new(url, addresses, deadline)
            try:
                yield response
            finally:
                self._keep(url, connection)
        except TimeoutError as error:
            raise FetchError("image_timeout", url.shown) from error
        except (OSError, h11.RemoteProtocolError) as error:
            raise FetchError("image_not_readable", f"{url.shown}: broken off", may_pass=True) from error

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
    ) -> tuple[PinnedConnection, Response] | None:
        """Return an answer over a connection that is already there, if the server still listens to it."""
        while True:
            with self._lock:
                idle = self._idle[(url.scheme, url.host, url.port)]
                connection = idle.pop() if idle else None
            if connection is None:
                return None
            if connection.address in addresses and connection.is_reusable:
                try:
                    return _ask(connection, url, deadline)
                except (ConnectionError, ssl.SSLError, h11.RemoteProtocolError):
                    continue  # closed by the server since the last picture, which is its right
            connection.close()

    def _ask_new(
        self, url: PictureUrl, addresses: Sequence[str], deadline: Deadline
    ) -> tuple[PinnedConnection, Response]:
        connected, address = self._connect(url, addresses, deadline)
        if url.scheme == "https":
            connected = self._secure(connected, url, deadline)
        return _ask(PinnedConnection(connected, address), url, deadline)

    def _connect(self, url: PictureUrl, addresses: Sequence[str], deadline: Deadline) -> tuple[socket.socket, str]:
        """Connect to the first address that answers, each within its share of the time."""
        tried = addresses[:MAX_ADDRESSES_TRIED]
        for number, address in enumerate(tried):
            share_s = deadline.remaining_s() / (len(tried) - number)
            try:
                return self._connector(address, url.port, share_s), address
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise failure
        raise FetchError("image_not_readable", f"{url.shown}: no connection", may_pass=True) from failure

    def _secure(self, connected: socket.socket, url: PictureUrl, deadline: Deadline) -> ssl.SSLSocket:
        """Shake hands with the host that the URL names, whatever its address."""
        try:
            connected.settimeout(deadline.remaining_s())
            return self._trust().wrap_socket(connected, server_hostname=url.host)
        except ssl.SSLCertVerificationError as error:
            connected.close()
            raise FetchError("image_not_readable", f"{url.shown}: certificate: {error.verify_message}") from error
        except (ssl.SSLError, ConnectionError) as error:
            connected.close()
            raise FetchError("image_not_readable", f"{url.shown}: TLS", may_pass=True) from error
        except TimeoutError:
            connected.close()
            raise

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


def _ask(connection: PinnedConnection, url: PictureUrl, deadline: Deadline) -> tuple[PinnedConnection, Response]:
    """Ask over a connection, which is closed where there is no answer."""
    try:
        return connection, connection.get(url, deadline)
    except BaseException:
        connection.close()
        raise
