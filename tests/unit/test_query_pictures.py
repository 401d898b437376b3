"""Pictures that a query names by URL, asked of a real server on loopback, or of nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pydantic import ValidationError

from product_retrieval.catalog.fetched import GIVEN_UP_AFTER, ImageFetcher
from serve.arguments import SearchArgs
from serve.problems import MAX_BODY_BYTES, ProblemError
from serve.query_pictures import MAX_WAITING, QueryPictures, fetch_options
from serve.schemas import MAX_URLS, BatchRequest, SearchRequest

PICTURE = b"\x89PNG of a lamp"


class Shop:
    """A server with a picture, a redirect to elsewhere, and one that keeps its clients waiting."""

    def __init__(self) -> None:
        shop = self
        self.asked: list[str] = []
        self.may_answer = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked.append(self.path)
                if self.path == "/slow.png":
                    shop.may_answer.wait(10)
                self.send_response({"/away": 302, "/none.png": 404}.get(self.path, 200))
                self.send_header("Location", "http://169.254.169.254/latest/meta-data")
                self.send_header(
                    "Content-Length", str(MAX_BODY_BYTES + 1 if self.path == "/large.png" else len(PICTURE))
                )
                self.end_headers()
                self.wfile.write(PICTURE)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def shop() -> Iterator[Shop]:
    shop = Shop()
    yield shop
    shop.may_answer.set()
    shop.server.shutdown()
    shop.server.server_close()


def fetched(pictures: QueryPictures, url: str) -> bytes | ProblemError:
    try:
        return asyncio.run(pictures.fetch(url, field="mix.1.image_url"))
    except ProblemError as error:
        return error


def refused(pictures: QueryPictures, url: str) -> str:
    error = fetched(pictures, url)
    assert isinstance(error, ProblemError)
    assert (error.status, error.field) == (422, "mix.1.image_url")
    return str(error).partition(":")[0]


def test_by_default_nobody_is_asked(shop: Shop) -> None:
    assert "no host is allowed" in refused(QueryPictures(fetch_options((), ())), f"http://{shop.host}/lamp.png")
    assert shop.asked == []


def test_an_allowed_host_is_asked_and_its_failures_are_named(shop: Shop) -> None:
    pictures = QueryPictures(fetch_options((shop.host,), (shop.host,)))
    assert fetched(pictures, f"http://{shop.host}/lamp.png") == PICTURE
    assert refused(pictures, f"http://{shop.host}/none.png") == "image_not_found"
    assert refused(pictures, f"http://{shop.host}/large.png") == "image_too_large"
    assert refused(pictures, f"http://{shop.host}/away") == "image_address_not_allowed"
    assert shop.asked == ["/lamp.png", "/none.png", "/large.png", "/away"]


def test_a_host_that_failed_often_is_asked_again(shop: Shop) -> None:
    hosts = ("127.0.0.1:1", shop.host)
    dead = QueryPictures(fetch_options(hosts, hosts), fetcher=partial(ImageFetcher, sleep=lambda _: None))
    assert {refused(dead, "http://127.0.0.1:1/lamp.png") for _ in range(2 * GIVEN_UP_AFTER)} == {"image_not_readable"}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://other.example/lamp.png", "image_url_not_allowed"),
        ("file:///etc/passwd", "image_url_not_allowed"),
        ("/etc/passwd", "image_url_not_allowed"),
        ("http://me@HOST/lamp.png", "image_url_not_allowed"),
        ("http://169.254.169.254/latest", "image_address_not_allowed"),
        ("http://[::ffff:127.0.0.1]/", "image_address_not_allowed"),
        ("http://HOST@other.example/", "image_url_not_allowed"),
        ("http://", "image_url_malformed"),
        ("", "image_url_not_allowed"),
    ],
)
def test_a_url_that_is_not_allowed_is_refused_before_anybody_is_asked(shop: Shop, url: str, reason: str) -> None:
    pictures = QueryPictures(fetch_options((shop.host,), (shop.host,)))
    assert refused(pictures, url.replace("HOST", shop.host)) == reason
    assert shop.asked == []


def test_a_private_address_needs_to_be_named_as_one(shop: Shop) -> None:
    assert refused(QueryPictures(fetch_options((shop.host,), ())), f"http://{shop.host}/lamp.png") == (
        "image_address_not_allowed"
    )
    assert shop.asked == []


def test_more_than_can_wait_are_refused_at_once_and_the_rest_are_fetched(shop: Shop) -> None:
    pictures = QueryPictures(fetch_options((shop.host,), (shop.host,)))

    async def ask() -> list[Any]:
        asked = [asyncio.ensure_future(pictures.fetch(f"http://{shop.host}/slow.png")) for _ in range(MAX_WAITING + 2)]
        done, _ = await asyncio.wait(asked, timeout=5, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 2
        shop.may_answer.set()
        found = await asyncio.gather(*asked, return_exceptions=True)
        return [*found, await pictures.fetch(f"http://{shop.host}/lamp.png")]

    found = asyncio.run(ask())
    assert [one for one in found if isinstance(one, bytes)] == [PICTURE] * (MAX_WAITING + 1)
    (first, second) = [one for one in found if isinstance(one, ProblemError)]
    assert (first.status, first.retry_after_s, second.status) == (503, 1, 503)


def test_one_request_names_few_urls() -> None:
    query = {"mix": [{"image_url": "http://img.shop.example/lamp.png"}] * 8}
    assert len(BatchRequest.model_validate({"queries": [query] * (MAX_URLS // 8)}).queries) == 2
    with pytest.raises(ValidationError, match="24 pictures by URL: at most 16"):
        BatchRequest.model_validate({"queries": [query] * 3})
    assert SearchRequest.model_validate(query).kind == "mix"


def test_hosts_come_from_the_command_line_and_wrong_ones_are_refused_by_their_argument() -> None:
    args = SearchArgs.model_validate({"index": "out", "image_hosts": "img.shop.example,*.cdn.example"})
    assert args.fetch().allowed_hosts == ("img.shop.example", "*.cdn.example")
    assert not SearchArgs(index="out").fetch().is_on
    with pytest.raises(ValidationError, match=r"image_hosts: 'https://img.shop.example' is not a host"):
        SearchArgs.model_validate({"index": "out", "image_hosts": "https://img.shop.example"})
    with pytest.raises(ValidationError, match=r"private_image_hosts 'a.example' is not among image_hosts"):
        SearchArgs.model_validate({"index": "out", "private_image_hosts": "a.example"})
