"""Pictures fetched from real servers on loopback that answer well, badly, slowly, endlessly, or not at all.

The servers stand in for public ones: a resolver of the test's own gives names public addresses, and the last step, the
connection to such an address, is made to the server instead. Everything before that step is as it is outside.
"""

from __future__ import annotations

import datetime
import gzip
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from product_retrieval.catalog.contained import UnreadableImageError
from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.fetched import GIVEN_UP_AFTER, NUM_THREADS, ImageFetcher
from product_retrieval.catalog.pinned import connect

PUBLIC, OTHER_PUBLIC = "93.184.215.14", "93.184.215.15"
PATIENCE_S = 5.0
"""Far more than a time-out of 0.2 s needs on a busy machine, far less than what the servers would take."""
Answer = Callable[[BaseHTTPRequestHandler], None]


class Shop:
    """A server whose answers are functions by path; it notes what it was asked."""

    def __init__(self, ssl_context: ssl.SSLContext | None = None) -> None:
        shop = self
        self.answers: dict[str, Answer | list[Answer]] = {}
        self.asked: list[str] = []
        self.names: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        self.num_connections = 0
        self.num_now = 0
        self.most_at_once = 0
        self.lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                with shop.lock:
                    shop.num_connections += 1

            def do_GET(self) -> None:
                with shop.lock:
                    shop.asked.append(self.path)
                    shop.headers.append({name.lower(): value for name, value in self.headers.items()})
                    shop.num_now += 1
                    shop.most_at_once = max(shop.most_at_once, shop.num_now)
                    answer = shop.answers.get(self.path, status(404))
                    if isinstance(answer, list):
                        answer = answer.pop(0) if len(answer) > 1 else answer[0]
                try:
                    answer(self)
                except OSError:
                    self.close_connection = True
                finally:
                    with shop.lock:
                        shop.num_now -= 1

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: Any) -> None:
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        if ssl_context is not None:
            self.server.socket = ssl_context.wrap_socket(
                self.server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Wire:
    """Connects to a server of the test whatever the address, and notes the address."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses: list[str] = []
        self.dead: set[str] = set()

    def __call__(self, address: str, port: int, timeout_s: float) -> socket.socket:
        assert port in (80, 443)
        self.addresses.append(address)
        if address in self.dead:
            raise ConnectionRefusedError
        return connect("127.0.0.1", self.port, timeout_s)


def body(data: bytes, code: int = 200, **headers: str | int) -> Answer:
    """An answer with a body; headers are written with underscores, None leaves one out."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content_Length": len(data), **headers}.items():
            request.send_header(name.replace("_", "-"), str(value))
        request.end_headers()
        request.wfile.write(data)

    return answer


def status(code: int, **headers: str | int) -> Answer:
    return body(b"no picture", code, **headers)


def redirect(location: str, code: int = 302) -> Answer:
    return body(b"", code, Location=location)


def raw(*pieces: bytes, pause_s: float = 0.0) -> Answer:
    """An answer of these very bytes, after which the connection is closed."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        for piece in pieces:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(pause_s)

    return answer


def endless(head: bytes, piece: bytes, pause_s: float = 0.0) -> Answer:
    """An answer that goes on until nobody listens, or for ten seconds."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True
        request.wfile.write(head)
        end = time.monotonic() + 10
        while time.monotonic() < end:
            request.wfile.write(piece)
            request.wfile.flush()
            time.sleep(pause_s)

    return answer


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    shop.answers["/mug.jpg"] = body(b"mug")
    yield shop
    shop.close()


class Fetching:
    """A fetcher of a shop with what it used."""

    def __init__(self, shop: Shop, *, hosts: dict[str, list[str]] | None = None, **options: Any) -> None:
        self.hosts = hosts or {"img.shop.example": [PUBLIC]}
        self.moves: list[list[str]] = []
        self.resolved: list[str] = []
        self.pauses: list[float] = []
        self.wire = Wire(shop.port)
        ssl_context = options.pop("ssl_context", None)
        self.options = FetchOptions(**{"allowed_hosts": ("img.shop.example",), "timeout_s": 5.0, **options})
        self.fetcher = ImageFetcher(
            self.options,
            resolver=self.resolve,
            connector=self.wire,
            sleep=self.pauses.append,
            ssl_context=ssl_context,
        )

    def resolve(self, host: str, _: int) -> list[str]:
        """Return what the next of the moves says, or else the host's addresses."""
        self.resolved.append(host)
        if self.moves:
            return self.moves.pop(0)
        if host not in self.hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.hosts[host]

    def __call__(self, *urls: str) -> list[Any]:
        """Return the bytes, or the reason, of each URL."""
        with self.fetcher:
            return [
                found.reason if isinstance(found, UnreadableImageError) else found for found in self.fetcher.fetch(urls)
            ]

    def failure(self, url: str) -> UnreadableImageError:
        with self.fetcher:
            found = self.fetcher.fetch([url])[0]
        assert isinstance(found, UnreadableImageError)
        return found


MUG = "http://img.shop.example/mug.jpg"


# What is fetched


def test_nothing_is_fetched_for_nothing(shop: Shop) -> None:
    assert Fetching(shop)() == []


def test_picture_is_fetched_as_it_is(shop: Shop) -> None:
    assert Fetching(shop)(MUG) == [b"mug"]
    assert shop.headers[0]["host"] == "img.shop.example"


def test_request_carries_our_name_and_nothing_of_the_user(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".netrc").write_text("machine img.shop.example login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    shop.answers["/mug.jpg"] = body(b"mug", Set_Cookie="visit=1; Path=/")
    shop.answers["/cup.jpg"] = body(b"cup")
    assert Fetching(shop, per_host=1)(MUG, "http://img.shop.example/cup.jpg") == [b"mug", b"cup"]
    for headers in shop.headers:
        assert headers["user-agent"].startswith("multimodal-product-retrieval/")
        assert set(headers) == {"host", "user-agent", "accept", "accept-encoding"}


def test_answers_come_in_the_order_of_the_urls_and_each_is_fetched_once(shop: Shop) -> None:
    shop.answers.update({"/a": body(b"a"), "/b": body(b"b")})
    a, b = "http://img.shop.example/a", "http://img.shop.example/b"
    assert Fetching(shop)(b, a, "nonsense", b, "HTTP://IMG.shop.example:80/a") == [
        b"b", b"a", "image_url_not_allowed", b"b", b"a",
    ]  # fmt: skip
    assert sorted(shop.asked) == ["/a", "/b"]


def test_path_arrives_percent_encoded(shop: Shop) -> None:
    shop.answers["/Bild%201%20gr%C3%B6%C3%9Fe.jpg?s=a%20b"] = body(b"mug")
    assert Fetching(shop)("http://img.shop.example/Bild 1 größe.jpg?s=a b#zoom") == [b"mug"]


def test_empty_body_is_an_empty_picture(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = body(b"")
    assert Fetching(shop)(MUG) == [b""]


def test_chunked_body_and_one_that_ends_with_the_connection_are_read(shop: Shop) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    shop.answers["/chunked"] = raw(chunked, b"2\r\nmu\r\n", b"1\r\ng\r\n0\r\n\r\n")
    shop.answers["/closed"] = raw(b"HTTP/1.0 200 OK\r\n\r\n", b"m", b"ug")
    assert Fetching(shop)("http://img.shop.example/chunked", "http://img.shop.example/closed") == [b"mug", b"mug"]


def test_body_that_was_packed_unasked_is_unpacked(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = body(gzip.compress(b"mug"), Content_Encoding="gzip")
    assert Fetching(shop)(MUG) == [b"mug"]


def test_thousand_pictures_use_few_connections_and_one_question_to_name_servers(shop: Shop) -> None:
    shop.answers.update({f"/{number}": body(b"%d" % number) for number in range(1000)})
    fetching = Fetching(shop, per_host=4, timeout_s=30)
    assert fetching(*[f"http://img.shop.example/{number}" for number in range(1000)]) == [
        b"%d" % n for n in range(1000)
    ]
    assert shop.num_connections <= 4
    assert fetching.resolved == ["img.shop.example"]


# Which hosts


def test_without_allowed_hosts_nobody_is_asked(shop: Shop) -> None:
    fetching = Fetching(shop, allowed_hosts=())
    assert fetching(MUG) == ["image_url_not_allowed"]
    assert (fetching.resolved, shop.asked) == ([], [])


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/mug.jpg",
        "http://img.shop.example.other.example/mug.jpg",
        "http://img.shop.example:8080/mug.jpg",
        "http://user:secret@img.shop.example/mug.jpg",
        "ftp://img.shop.example/mug.jpg",
        "file:///etc/passwd",
    ],
)
def test_other_host_port_scheme_or_user_is_not_asked(shop: Shop, url: str) -> None:
    fetching = Fetching(shop)
    failure = fetching.failure(url)
    assert failure.reason == "image_url_not_allowed"
    assert "secret" not in failure.detail
    assert (fetching.resolved, fetching.wire.addresses) == ([], [])


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254",
     "100.64.0.1", "0", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "10.0.0.1", "[fe80::1]"],
)  # fmt: skip
def test_private_address_in_any_spelling_is_not_asked_even_where_all_hosts_are_allowed(shop: Shop, host: str) -> None:
    fetching = Fetching(shop, allowed_hosts=("*",))
    assert fetching(f"http://{host}/mug.jpg") == ["image_address_not_allowed"]
    assert fetching.wire.addresses == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["10.0.0.1"], ["169.254.169.254"], ["::1"], [PUBLIC, "127.0.0.1"], ["fe80::1%eth0", PUBLIC]],
)
def test_allowed_name_at_a_private_address_is_not_asked(shop: Shop, addresses: list[str]) -> None:
    fetching = Fetching(shop, hosts={"img.shop.example": addresses})
    assert fetching(MUG) == ["image_address_not_allowed"]
    assert fetching.wire.addresses == []


def test_connection_goes_to_the_address_that_was_checked(shop: Shop) -> None:
    fetching = Fetching(shop)
    fetching.moves = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]]
    assert fetching(MUG) == [b"mug"]
    assert fetching.wire.addresses == [PUBLIC]


def test_name_that_moves_to_a_private_address_is_left(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_retrieval.catalog.resolved.KEPT_S", -1.0)
    fetching = Fetching(shop, per_host=1)
    shop.answers["/cup.jpg"] = body(b"cup")
    fetching.moves = [[PUBLIC], ["127.0.0.1"]]
    assert fetching(MUG, "http://img.shop.example/cup.jpg") == [b"mug", "image_address_not_allowed"]


def test_connection_is_not_reused_for_a_name_that_moved(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_retrieval.catalog.resolved.KEPT_S", -1.0)
    fetching = Fetching(shop, per_host=1)
    fetching.moves = [[PUBLIC], [OTHER_PUBLIC]]
    assert fetching(MUG, f"{MUG}?again") == [b"mug", "image_not_found"]
    assert fetching.wire.addresses == [PUBLIC, OTHER_PUBLIC]


def test_private_host_is_asked_by_the_systems_own_means() -> None:
    shop = Shop()
    shop.answers["/mug.jpg"] = body(b"mug")
    host = f"localhost:{shop.port}"
    with ImageFetcher(FetchOptions(allowed_hosts=(host,), private_hosts=(host,))) as fetcher:
        assert fetcher.fetch([f"http://{host}/mug.jpg", f"http://127.0.0.1:{shop.port}/mug.jpg"])[0] == b"mug"
    with ImageFetcher(FetchOptions(allowed_hosts=(host,))) as fetcher:
        refused = fetcher.fetch([f"http://{host}/mug.jpg"])[0]
    assert isinstance(refused, UnreadableImageError)
    assert refused.reason == "image_address_not_allowed"
    assert shop.asked == ["/mug.jpg"]
    shop.close()


def test_proxy_of_the_environment_is_not_used(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = Shop()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{canary.port}")
    assert Fetching(shop)(MUG) == [b"mug"]
    assert canary.num_connections == 0
    canary.close()


# Redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirect_is_followed(shop: Shop, code: int) -> None:
    shop.answers["/old"] = redirect("/mug.jpg", code)
    assert Fetching(shop)("http://img.shop.example/old") == [b"mug"]


def test_redirect_to_another_allowed_host_names_that_host(shop: Shop) -> None:
    shop.answers["/old"] = redirect("http://cdn.example/mug.jpg")
    hosts = {"img.shop.example": [PUBLIC], "cdn.example": [OTHER_PUBLIC]}
    fetching = Fetching(shop, hosts=hosts, allowed_hosts=("img.shop.example", "cdn.example"))
    assert fetching("http://img.shop.example/old") == [b"mug"]
    assert [headers["host"] for headers in shop.headers] == ["img.shop.example", "cdn.example"]
    assert fetching.wire.addresses == [PUBLIC, OTHER_PUBLIC]


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://other.example/mug.jpg", "image_url_not_allowed"),
        ("//other.example/mug.jpg", "image_url_not_allowed"),
        ("http://img.shop.example:6379/", "image_url_not_allowed"),
        ("http://me@img.shop.example/mug.jpg", "image_url_not_allowed"),
        ("file:///etc/passwd", "image_url_not_allowed"),
        ("gopher://img.shop.example/", "image_url_not_allowed"),
        ("http://127.0.0.1/mug.jpg", "image_address_not_allowed"),
        ("http://[::1]/mug.jpg", "image_address_not_allowed"),
        ("http://2852039166/latest/meta-data/", "image_address_not_allowed"),
        ("http://internal.shop.example/mug.jpg", "image_address_not_allowed"),
        ("http:///mug.jpg", "image_url_malformed"),
        ("http://img.shop.example:99999/", "image_url_malformed"),
    ],
)
def test_redirect_is_checked_like_the_first_url(shop: Shop, location: str, reason: str) -> None:
    shop.answers["/old"] = redirect(location)
    hosts = {"img.shop.example": [PUBLIC], "internal.shop.example": ["10.0.0.7"]}
    fetching = Fetching(shop, hosts=hosts, allowed_hosts=("*.shop.example",))
    assert fetching("http://img.shop.example/old") == [reason]
    assert shop.asked == ["/old"]


def test_redirect_loop_ends(shop: Shop) -> None:
    shop.answers["/a"], shop.answers["/b"] = redirect("/b"), redirect("/a")
    assert Fetching(shop, max_redirects=3)("http://img.shop.example/a") == ["image_redirected_too_often"]
    assert shop.asked == ["/a", "/b", "/a", "/b"]


def test_redirects_are_followed_up_to_their_number(shop: Shop) -> None:
    shop.answers["/0"] = redirect("/1")
    shop.answers["/1"] = redirect("/mug.jpg")
    assert Fetching(shop, max_redirects=2)("http://img.shop.example/0") == [b"mug"]
    assert Fetching(shop, max_redirects=1)("http://img.shop.example/0") == ["image_redirected_too_often"]
    assert Fetching(shop, max_redirects=0)(MUG) == [b"mug"]


def test_redirect_to_nowhere_is_an_http_error(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = status(302)
    assert Fetching(shop)(MUG) == ["image_http_error"]


def test_hosts_that_redirect_to_one_another_do_not_wait_for_one_another(shop: Shop) -> None:
    for number in range(8):
        shop.answers[f"/a{number}"] = redirect(f"http://b.example/{number}")
        shop.answers[f"/b{number}"] = redirect(f"http://a.example/{number}")
        shop.answers[f"/{number}"] = body(b"mug")
    hosts = {"a.example": [PUBLIC], "b.example": [OTHER_PUBLIC]}
    fetching = Fetching(shop, hosts=hosts, allowed_hosts=("*",), per_host=1)
    urls = [f"http://{host}.example/{host}{number}" for number in range(8) for host in "ab"]
    assert fetching(*urls) == [b"mug"] * 16


# Statuses and retries


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (204, "image_http_error"),
        (206, "image_http_error"),
        (304, "image_http_error"),
        (400, "image_http_error"),
        (401, "image_http_error"),
        (403, "image_http_error"),
        (404, "image_not_found"),
        (410, "image_not_found"),
        (451, "image_http_error"),
    ],
)
def test_status_that_will_not_pass_is_asked_for_once(shop: Shop, code: int, reason: str) -> None:
    shop.answers["/mug.jpg"] = body(b"", code) if code in (204, 304) else status(code)
    fetching = Fetching(shop)
    failure = fetching.failure(MUG)
    assert (failure.reason, failure.detail) == (reason, f"http://img.shop.example/mug.jpg: HTTP {code}")
    assert (len(shop.asked), fetching.pauses) == (1, [])


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504])
def test_status_that_may_pass_is_tried_again_after_growing_pauses(shop: Shop, code: int) -> None:
    shop.answers["/mug.jpg"] = [status(code), status(code), body(b"mug")]
    fetching = Fetching(shop)
    assert fetching(MUG) == [b"mug"]
    first, second = fetching.pauses
    assert 0.125 <= first <= 0.25 <= second <= 0.5


def test_server_that_stays_ill_is_asked_a_bounded_number_of_times(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = status(500)
    assert Fetching(shop, num_retries=2)(MUG) == ["image_server_error"]
    assert len(shop.asked) == 3


def test_server_is_not_asked_before_it_wants_to_be(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = [status(429, Retry_After="3"), body(b"mug")]
    fetching = Fetching(shop)
    assert fetching(MUG) == [b"mug"]
    assert fetching.pauses == [3.0]


def test_server_that_names_a_date_is_asked_after_it(shop: Shop) -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=4)
    shop.answers["/mug.jpg"] = [status(503, Retry_After=format_datetime(then, usegmt=True)), body(b"mug")]
    fetching = Fetching(shop)
    assert fetching(MUG) == [b"mug"]
    assert 2.5 < fetching.pauses[0] <= 4


@pytest.mark.parametrize("wait", ["60", "99999999999999999999"])
def test_server_that_wants_more_time_than_there_is_is_not_waited_for(shop: Shop, wait: str) -> None:
    shop.answers["/mug.jpg"] = status(429, Retry_After=wait)
    fetching = Fetching(shop)
    assert fetching(MUG) == ["image_server_error"]
    assert (len(shop.asked), fetching.pauses) == (1, [])


@pytest.mark.parametrize("wait", ["soon", "-1", "", "Wed, 99 Nov 2026 00:00:00 GMT", "\xb2"])
def test_senseless_retry_after_is_passed_over(shop: Shop, wait: str) -> None:
    shop.answers["/mug.jpg"] = [status(503, Retry_After=wait), body(b"mug")]
    assert Fetching(shop)(MUG) == [b"mug"]


def chunked_page(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n")


def test_error_page_does_not_cost_the_connection(shop: Shop) -> None:
    shop.answers["/other"] = chunked_page
    fetching = Fetching(shop, per_host=1)
    urls = [f"http://img.shop.example/{name}" for name in ("gone", "other", "mug.jpg")]
    assert fetching(*urls) == ["image_not_found", "image_http_error", b"mug"]
    assert shop.num_connections == 1


def test_long_error_page_is_not_read(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = endless(b"HTTP/1.1 404 Not Found\r\n\r\n", b"x" * 4096)
    began = time.monotonic()
    assert Fetching(shop)(MUG) == ["image_not_found"]
    assert time.monotonic() - began < PATIENCE_S


# Bounds


def test_silent_server_is_left_when_its_time_is_over(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = raw(b"", pause_s=10.0)
    began = time.monotonic()
    assert Fetching(shop, timeout_s=0.2)(MUG) == ["image_timeout"]
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nX-Slow: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 10000\r\n\r\n",
    ],
    ids=["status", "header", "body", "chunk", "error page"],
)
def test_byte_now_and_then_does_not_buy_time(shop: Shop, head: bytes) -> None:
    shop.answers["/mug.jpg"] = endless(head, b"1", pause_s=0.03)
    began = time.monotonic()
    assert Fetching(shop, timeout_s=0.2)(MUG)[0] in ("image_timeout", "image_not_found")
    assert time.monotonic() - began < PATIENCE_S


def test_interim_answer_is_passed_over(shop: Shop) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    shop.answers["/mug.jpg"] = raw(hints + hints, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nmug")
    assert Fetching(shop)(MUG) == [b"mug"]


def test_interim_answers_do_not_buy_time(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", pause_s=0.03)
    assert Fetching(shop, timeout_s=0.2)(MUG) == ["image_timeout"]


def test_redirects_and_retries_share_one_time(shop: Shop) -> None:
    def late(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.08)
        redirect("/a")(request)

    shop.answers["/a"] = late
    began = time.monotonic()
    assert Fetching(shop, timeout_s=0.2, max_redirects=100)("http://img.shop.example/a") == ["image_timeout"]
    assert time.monotonic() - began < PATIENCE_S


def test_host_that_many_redirect_to_is_asked_in_turn_and_waiting_costs_no_time(shop: Shop) -> None:
    at_work: list[str] = []
    most: list[int] = []

    def late(request: BaseHTTPRequestHandler) -> None:
        at_work.append(request.path)
        most.append(len(at_work))
        time.sleep(0.05)
        at_work.remove(request.path)
        body(b"mug")(request)

    hosts = {f"shop{number}.example": [PUBLIC] for number in range(8)} | {"cdn.example": [OTHER_PUBLIC]}
    for number in range(8):
        shop.answers[f"/{number}"] = redirect(f"http://cdn.example/late{number}")
        shop.answers[f"/late{number}"] = late
    fetching = Fetching(shop, hosts=hosts, allowed_hosts=("*",), per_host=1, timeout_s=0.3)
    assert fetching(*[f"http://shop{number}.example/{number}" for number in range(8)]) == [b"mug"] * 8
    assert most == [1] * 8


def test_slow_name_server_is_left_when_time_is_over(shop: Shop) -> None:
    answered = threading.Event()
    options = FetchOptions(allowed_hosts=("img.shop.example",), timeout_s=0.2)
    began = time.monotonic()
    with ImageFetcher(
        options, resolver=lambda *_: answered.wait(10) and [PUBLIC], connector=Wire(shop.port)
    ) as fetcher:
        assert [str(found) for found in fetcher.fetch([MUG])] == ["image_timeout"]
    assert time.monotonic() - began < PATIENCE_S
    answered.set()


def test_body_is_read_up_to_the_limit_and_not_beyond(shop: Shop) -> None:
    shop.answers["/100"], shop.answers["/101"] = body(b"x" * 100), body(b"x" * 101)
    fetching = Fetching(shop, max_bytes=100)
    assert fetching("http://img.shop.example/100", "http://img.shop.example/101") == [b"x" * 100, "image_too_large"]


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", b"x" * 4096),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"x" * 4096 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n", b"x" * 4096),
    ],
    ids=["unannounced", "announced", "chunks", "one chunk"],
)
def test_endless_body_is_left_at_the_limit(shop: Shop, head: bytes, piece: bytes) -> None:
    shop.answers["/mug.jpg"] = endless(head, piece)
    assert Fetching(shop, max_bytes=100_000)(MUG) == ["image_too_large"]


def test_endless_header_is_left(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"x" * 4096 + b"\r\n")
    assert Fetching(shop, num_retries=0)(MUG) == ["image_not_readable"]


def test_announced_size_beyond_the_limit_is_not_waited_for(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 101\r\n\r\n", pause_s=10.0)
    began = time.monotonic()
    assert Fetching(shop, max_bytes=100, timeout_s=8)(MUG) == ["image_too_large"]
    assert time.monotonic() - began < PATIENCE_S


def test_bomb_is_not_unpacked(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = body(gzip.compress(b"\0" * 20_000_000), Content_Encoding="gzip")
    tracemalloc.start()
    assert Fetching(shop, max_bytes=1_000_000)(MUG) == ["image_too_large"]
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
def test_unknown_packing_is_not_guessed(shop: Shop, coding: str) -> None:
    shop.answers["/mug.jpg"] = body(b"mug", Content_Encoding=coding)
    assert Fetching(shop)(MUG) == ["image_not_readable"]


@pytest.mark.parametrize("data", [b"mug", gzip.compress(b"mug")[:-4]], ids=["not gzip", "cut off"])
def test_broken_packing_is_no_picture(shop: Shop, data: bytes) -> None:
    shop.answers["/mug.jpg"] = body(data, Content_Encoding="gzip")
    assert Fetching(shop)(MUG) == ["image_not_readable"]


@pytest.mark.parametrize(
    "broken",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nmug",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nmug",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nmug\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nmug",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nmug",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/9.9 yes\r\n\r\n",
        b"\x15\x03\x01\x00\x02\x02",
        b"",
    ],
)
def test_broken_answer_is_tried_again_and_then_no_picture(shop: Shop, broken: bytes) -> None:
    shop.answers["/mug.jpg"] = raw(broken)
    assert Fetching(shop, num_retries=1)(MUG) == ["image_not_readable"]
    assert len(shop.asked) == 2
    shop.answers["/mug.jpg"] = [raw(broken), body(b"mug")]
    assert Fetching(shop)(MUG) == [b"mug"]


def test_more_bytes_than_announced_are_not_read_into_the_next_picture(shop: Shop) -> None:
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    shop.answers["/mug.jpg"] = raw(smuggled + b"mug" + smuggled + b"bad")
    shop.answers["/cup.jpg"] = body(b"cup")
    assert Fetching(shop, per_host=1)(MUG, "http://img.shop.example/cup.jpg") == [b"mug", b"cup"]


def test_bytes_that_come_unasked_are_not_the_next_picture(shop: Shop) -> None:
    picture = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
    shop.answers["/mug.jpg"] = raw(picture + b"mug", picture + b"bad", pause_s=0.02)
    shop.answers["/cup.jpg"] = body(b"cup")
    with Fetching(shop).fetcher as fetcher:
        assert fetcher.fetch([MUG]) == [b"mug"]
        time.sleep(0.1)
        assert fetcher.fetch(["http://img.shop.example/cup.jpg"]) == [b"cup"]


def test_failure_keeps_nothing_of_the_picture(shop: Shop) -> None:
    shop.answers["/mug.jpg"] = body(b"x" * 101)
    failure = Fetching(shop, max_bytes=100).failure(MUG)
    assert (failure.reason, failure.__traceback__, failure.__context__) == ("image_too_large", None, None)


# Connections


def test_connection_that_the_server_closed_meanwhile_is_replaced(shop: Shop) -> None:
    def close_after(request: BaseHTTPRequestHandler) -> None:
        body(b"mug")(request)
        request.close_connection = True

    shop.answers["/a"], shop.answers["/b"] = close_after, close_after
    fetching = Fetching(shop, per_host=1, num_retries=0)
    assert fetching("http://img.shop.example/a", "http://img.shop.example/b") == [b"mug", b"mug"]
    assert shop.num_connections == 2


def test_reset_connection_is_tried_again(shop: Shop) -> None:
    def reset(request: BaseHTTPRequestHandler) -> None:
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.close_connection = True
        request.rfile.close()
        request.wfile.close()
        request.connection.close()

    shop.answers["/mug.jpg"] = [reset, body(b"mug")]
    assert Fetching(shop)(MUG) == [b"mug"]


def test_closed_port_and_unknown_name_are_reasons(shop: Shop) -> None:
    shop.close()
    fetching = Fetching(shop, num_retries=1)
    failure = fetching.failure(MUG)
    assert (failure.reason, failure.detail) == ("image_not_readable", "http://img.shop.example/mug.jpg: no connection")
    assert len(fetching.wire.addresses) == 2
    failure = Fetching(shop, allowed_hosts=("no.example",)).failure("http://no.example/")
    assert (failure.reason, failure.detail) == ("image_not_readable", "no.example: no such host")


def test_second_address_is_tried_when_the_first_does_not_answer(shop: Shop) -> None:
    fetching = Fetching(shop, hosts={"img.shop.example": ["2606:4700::1111", PUBLIC]})
    fetching.wire.dead.add("2606:4700::1111")
    assert fetching(MUG) == [b"mug"]


@pytest.mark.parametrize("per_host", [1, 3])
def test_host_is_asked_by_so_many_at_once_and_no_more(shop: Shop, per_host: int) -> None:
    def late(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.02)
        body(b"mug")(request)

    shop.answers.update({f"/{number}": late for number in range(12)})
    Fetching(shop, per_host=per_host)(*[f"http://img.shop.example/{number}" for number in range(12)])
    assert shop.most_at_once == per_host


def test_slow_host_does_not_hold_up_another(shop: Shop) -> None:
    finished: list[str] = []

    def late(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        finished.append("slow")
        body(b"mug")(request)

    def quick(request: BaseHTTPRequestHandler) -> None:
        finished.append("quick")
        body(b"mug")(request)

    slow = [f"http://slow.example/s{number}" for number in range(2 * NUM_THREADS)]
    fast = [f"http://quick.example/q{number}" for number in range(20)]
    shop.answers.update({f"/s{number}": late for number in range(2 * NUM_THREADS)})
    shop.answers.update({f"/q{number}": quick for number in range(20)})
    hosts = {"slow.example": [PUBLIC], "quick.example": [OTHER_PUBLIC]}
    assert Fetching(shop, hosts=hosts, allowed_hosts=("*",))(*slow, *fast) == [b"mug"] * (2 * NUM_THREADS + 20)
    assert finished[:40].count("quick") == 20


def test_host_that_never_answers_is_given_up_for_the_rest(shop: Shop) -> None:
    shop.close()
    urls = [f"http://img.shop.example/{number}" for number in range(100)]
    fetching = Fetching(shop, num_retries=0, per_host=1)
    assert fetching(*urls) == ["image_not_readable"] * GIVEN_UP_AFTER + ["image_host_given_up"] * (100 - GIVEN_UP_AFTER)
    assert len(fetching.wire.addresses) == GIVEN_UP_AFTER


def test_host_that_lacks_many_pictures_is_not_given_up(shop: Shop) -> None:
    urls = [f"http://img.shop.example/gone{number}" for number in range(3 * GIVEN_UP_AFTER)]
    assert Fetching(shop)(*urls, MUG) == ["image_not_found"] * 3 * GIVEN_UP_AFTER + [b"mug"]


# TLS


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for img.shop.example, signed by itself, and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("img.shop.example")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem", folder / "key.pem"


@pytest.fixture
def tls_shop(authority: tuple[Path, Path]) -> Iterator[Shop]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority)
    shop = Shop(context)
    shop.answers["/mug.jpg"] = body(b"mug")
    context.sni_callback = lambda _, name, __: shop.names.append(name)
    yield shop
    shop.close()


def test_certificate_and_sni_are_of_the_name_and_not_of_the_address(
    tls_shop: Shop, authority: tuple[Path, Path]
) -> None:
    context = ssl.create_default_context(cafile=str(authority[0]))
    fetching = Fetching(tls_shop, ssl_context=context)
    assert fetching("https://img.shop.example/mug.jpg") == [b"mug"]
    assert tls_shop.names == ["img.shop.example"]
    assert tls_shop.headers[0]["host"] == "img.shop.example"


def test_secure_connection_is_kept_for_the_next_picture(tls_shop: Shop, authority: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(authority[0]))
    fetching = Fetching(tls_shop, ssl_context=context, per_host=1)
    urls = [f"https://img.shop.example/mug.jpg?{number}" for number in range(5)]
    assert fetching(*urls) == ["image_not_found"] * 5
    assert len(fetching.wire.addresses) == 1


def test_certificate_of_another_name_is_refused_at_once(tls_shop: Shop, authority: tuple[Path, Path]) -> None:
    context = ssl.create_default_context(cafile=str(authority[0]))
    fetching = Fetching(tls_shop, ssl_context=context, hosts={"other.example": [PUBLIC]}, allowed_hosts=("*",))
    failure = fetching.failure("https://other.example/mug.jpg")
    assert failure.reason == "image_not_readable"
    assert "certificate: Hostname mismatch" in failure.detail
    assert (tls_shop.asked, fetching.pauses) == ([], [])


def test_certificate_that_nobody_signed_is_refused(tls_shop: Shop) -> None:
    failure = Fetching(tls_shop).failure("https://img.shop.example/mug.jpg")
    assert failure.reason == "image_not_readable"
    assert "certificate: self-signed certificate" in failure.detail
    assert tls_shop.asked == []


def test_plain_server_on_the_tls_port_is_no_picture(shop: Shop) -> None:
    failure = Fetching(shop, num_retries=0).failure("https://img.shop.example/mug.jpg")
    assert (failure.reason, failure.detail) == ("image_not_readable", "https://img.shop.example/mug.jpg: TLS")


def test_handshake_that_never_ends_is_left(shop: Shop) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    fetching = Fetching(shop, timeout_s=0.2)
    fetching.wire.port = listening.getsockname()[1]
    began = time.monotonic()
    assert fetching("https://img.shop.example/mug.jpg") == ["image_timeout"]
    assert time.monotonic() - began < PATIENCE_S
    listening.close()
