"""Catalogues that name their pictures by URL: off by default, a rejected row where a picture cannot be had."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import CatalogPlan, FetchOptions, plan_catalog, read_slice
from product_retrieval.catalog.slices import IMAGE
from product_retrieval.options import parse
from product_retrieval.pictures import load_picture

Maker = Callable[..., bytes]


class Shop(ThreadingHTTPServer):
    """A picture server on loopback that notes what it was asked."""

    daemon_threads = True

    def __init__(self, pictures: dict[str, bytes]) -> None:
        asked = self.asked = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                self.send_response(200 if self.path in pictures else 404)
                self.end_headers()
                self.wfile.write(pictures.get(self.path, b""))

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def shop(png: Maker) -> Iterator[Shop]:
    shop = Shop({"/mug.png": png((255, 0, 0)), "/cup.png": png((0, 255, 0))})
    threading.Thread(target=shop.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield shop
    shop.shutdown()
    shop.server_close()


def allowing(shop: Shop) -> FetchOptions:
    return FetchOptions(allowed_hosts=(shop.host,), private_hosts=(shop.host,))


def write_catalog(folder: Path, images: list[Any], **how: Any) -> str:
    ids = [f"p{number}" for number in range(len(images))]
    pq.write_table(pa.table({"product_id": ids, "title": ids, "image": images}), folder / "a.parquet", **how)
    return str(folder / "a.parquet")


def read_all(plan: CatalogPlan) -> tuple[list[tuple[str, Any, Any]], list[tuple[Any, ...]]]:
    """Return id, reference and bytes of the products, and id, stage, reason and detail of the rejected rows."""
    sliced = [read_slice(plan, slice_) for slice_ in plan.slices]
    rows = [row for part in sliced for row in part.table.to_pylist()]
    rejections = [r for part in sliced for r in part.rejections]
    return (
        [(row["product_id"], row["image_ref"], row[IMAGE]) for row in rows],
        [(r.product_id, r.stage, r.reason, r.detail) for r in rejections],
    )


def test_url_is_rejected_and_nobody_asked_until_its_host_is_allowed(tmp_path: Path, shop: Shop) -> None:
    catalog = write_catalog(tmp_path, [f"http://{shop.host}/mug.png"])
    _, rejected = read_all(plan_catalog(catalog))
    assert rejected == [
        ("p0", "fetch", "image_url_not_allowed", "no URL is fetched without --fetch.allowed-hosts"),
    ]
    assert shop.asked == []


@pytest.mark.parametrize("rows_per_part", [1, 2, 100])
def test_urls_paths_and_nothing_are_read_side_by_side(
    tmp_path: Path, shop: Shop, png: Maker, rows_per_part: int
) -> None:
    (tmp_path / "jug.png").write_bytes(png((0, 0, 255)))
    mug, cup = f"http://{shop.host}/mug.png", f"HTTP://{shop.host}/cup.png"
    other = "http://other.example/mug.png"
    images = [mug, "jug.png", None, cup, f"http://{shop.host}/gone.png", other, "ftp://a/b.png", mug]
    plan = plan_catalog(write_catalog(tmp_path, images), fetch=allowing(shop), rows_per_part=rows_per_part)
    products, rejected = read_all(plan)
    assert products == [
        ("p0", mug, png((255, 0, 0))),
        ("p1", "jug.png", png((0, 0, 255))),
        ("p2", None, None),
        ("p3", cup, png((0, 255, 0))),
        ("p7", mug, png((255, 0, 0))),
    ]
    assert [row[:3] for row in rejected] == [
        ("p4", "fetch", "image_not_found"),
        ("p5", "fetch", "image_url_not_allowed"),
        ("p6", "fetch", "image_url_not_allowed"),
    ]
    assert rejected[0][3] == f"http://{shop.host}/gone.png: HTTP 404"
    assert rejected[1][3] == "http://other.example is not an allowed host"
    assert len(shop.asked) == (4 if rows_per_part < 8 else 3)


def test_url_in_a_struct_of_bytes_and_path_is_fetched(tmp_path: Path, shop: Shop, png: Maker) -> None:
    images = [{"bytes": None, "path": f"http://{shop.host}/mug.png"}, {"bytes": png(), "path": "http://no.example/"}]
    products, rejected = read_all(plan_catalog(write_catalog(tmp_path, images), fetch=allowing(shop)))
    assert [(row[0], row[2]) for row in products] == [("p0", png((255, 0, 0))), ("p1", png())]
    assert rejected == []


def test_rejected_product_is_not_fetched(tmp_path: Path, shop: Shop) -> None:
    url = f"http://{shop.host}/mug.png"
    table = pa.table({"product_id": ["p0", "p0", None], "image": [url, url + "?again", url + "?nobody"]})
    pq.write_table(table, tmp_path / "a.parquet")
    read_all(plan_catalog(str(tmp_path / "a.parquet"), fetch=allowing(shop)))
    assert shop.asked == ["/mug.png"]


def test_picture_of_a_hit_is_never_fetched(tmp_path: Path, shop: Shop) -> None:
    for reference in ("mug.png", "a.parquet#row=0"):
        assert load_picture(str(tmp_path), f"http://{shop.host}/{reference}") is None
    assert shop.asked == []


def test_plan_takes_its_options_along_but_is_the_same_catalogue(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, ["a.png"])
    fetch = FetchOptions(allowed_hosts=("img.shop.example",))
    plan = plan_catalog(catalog, fetch=fetch)
    assert pickle.loads(pickle.dumps(plan)).fetch == fetch
    assert plan.fingerprint == plan_catalog(catalog).fingerprint


def test_job_takes_hosts_as_flags_and_from_a_file(tmp_path: Path) -> None:
    from rayjobs.embed import EmbedOptions

    words = ["--catalog", "a.parquet", "--output", "out"]
    assert parse(EmbedOptions, words, program="embed", description="").fetch == FetchOptions()
    flags = [*words, "--fetch.allowed-hosts", "img.shop.example", "cdn.internal:8080"]
    flags += ["--fetch.private-hosts", "cdn.internal:8080", "--fetch.timeout-s", "5"]
    (tmp_path / "embed.yaml").write_text(
        "fetch:\n  allowed_hosts: [img.shop.example, 'cdn.internal:8080']\n"
        "  private_hosts: ['cdn.internal:8080']\n  timeout_s: 5\n"
    )
    expected = FetchOptions(
        allowed_hosts=("img.shop.example", "cdn.internal:8080"), private_hosts=("cdn.internal:8080",), timeout_s=5.0
    )
    assert parse(EmbedOptions, flags, program="embed", description="").fetch == expected
    config = [*words, "--config", str(tmp_path / "embed.yaml")]
    assert parse(EmbedOptions, config, program="embed", description="").fetch == expected


def test_run_depends_on_the_hosts_but_not_on_the_patience(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path, ["a.png"])
    hosts = FetchOptions(allowed_hosts=("img.shop.example", "b.example"))
    patient = FetchOptions(allowed_hosts=("b.example", "img.shop.example"), timeout_s=60, num_retries=9, per_host=1)
    assert plan_catalog(catalog, fetch=hosts).fetch.allowing == plan_catalog(catalog, fetch=patient).fetch.allowing
    assert FetchOptions().allowing is None
    assert FetchOptions(allowed_hosts=("b.example",)).allowing != hosts.allowing
