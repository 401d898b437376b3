"""The service on a tiny index: it answers what the library answers, refuses what is wrong, and shows its page."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import secrets
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import ray
import schemathesis
from hypothesis import HealthCheck, settings
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions
from schemathesis.specs.openapi.checks import positive_data_acceptance

from product_retrieval.encoders import EncoderOptions, load_encoder
from product_retrieval.errors import ArtifactError
from product_retrieval.images import decode
from product_retrieval.index import open_index
from product_retrieval.index.versions import current_version, promote, publish, read_manifest, rollback
from product_retrieval.querying import ProductSearch, Query, VectorPart
from product_retrieval.storage import Storage
from serve.app import build
from serve.arguments import SearchArgs
from serve.following import VersionFollower
from serve.keys import line_of
from serve.routes import MAX_SEARCHES
from tests.distributed.lamp_shop import (
    HOSTILE,
    NUM_PRODUCTS,
    ODD_ID,
    Call,
    caller,
    free_port,
    make_index,
    picture,
)

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parents[2]
MAX_URL_CHARS = 65_000
"""Longer ones are none to the HTTP server, which reads at most 64 KiB before a body."""


@pytest.fixture(scope="module")
def index_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve.at_proxy.middlewares")
        ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield make_index(tmp_path_factory.mktemp("shop"))
    ray_serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def picture_host() -> Iterator[str]:
    """Serve the picture of lamp 9 under any path that ends in .png, and name the host."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path.endswith(".png") else 404)
            self.end_headers()
            self.wfile.write(picture(9))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def port(index_uri: str, picture_host: str) -> int:
    port = free_port()
    pictures = {"image_hosts": (picture_host,), "private_image_hosts": (picture_host,)}
    ray_serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    ray_serve.run(
        build(SearchArgs(index=index_uri, poll_s=0.2, max_replicas=1, clip_retrieval=True, **pictures)),
        name="search",
        route_prefix="/",
    )
    return port


@pytest.fixture
def call(port: int) -> Call:
    return caller(port)


def library_hits(index_uri: str, text: str, *, k: int, against: str) -> list[tuple[str, float]]:
    index, manifest = open_index(Storage.at(index_uri))
    vector = load_encoder(EncoderOptions(model=manifest.model)).encode_texts([text])[0]
    query = Query(parts=(VectorPart(vector=vector),), k=k, against=against)  # type: ignore[arg-type]
    found = ProductSearch(index).ask(query).hits
    products = index.describe([hit.row for hit in found], ["product_id"])
    return [(product["product_id"], round(hit.score, 6)) for product, hit in zip(products, found, strict=True)]


def pairs(answer: dict[str, Any]) -> list[tuple[str, float]]:
    return [(hit["product_id"], hit["score"]) for hit in answer["hits"]]


@pytest.mark.parametrize("against", ["image", "text"])
def test_a_text_search_served_equals_the_library(call: Any, index_uri: str, against: str) -> None:
    status, headers, answer = call("POST", "/v1/search", {"text": "lamp number 7", "k": 5, "against": against})
    assert status == 200
    assert pairs(answer) == library_hits(index_uri, "lamp number 7", k=5, against=against)
    assert answer["index_version"] == 1
    assert set(answer["timings_ms"]) == {"encode", "search", "products", "rerank"}
    assert answer["ranking"] == "retrieval"
    assert headers["server-timing"].startswith("encode;dur=")
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2, 3, 4, 5]


def test_the_address_bar_and_the_body_give_the_same_hits(call: Any) -> None:
    _, _, by_address = call("GET", "/v1/search?q=lamp+number+7&k=3&against=text")
    _, _, by_body = call("POST", "/v1/search", {"text": "lamp number 7", "k": 3, "against": "text"})
    assert by_address["hits"] == by_body["hits"]
    assert by_address["hits"][0]["product_id"] == "p07"


def test_requests_at_the_same_time_are_batched_and_each_gets_its_own_answer(call: Any) -> None:
    numbers = range(10, 34)
    with ThreadPoolExecutor(12) as pool:
        by_text = pool.map(lambda n: call("GET", f"/v1/search?q=lamp+number+{n}&k=1&against=text")[2], numbers)
        by_picture = pool.map(lambda n: call("POST", "/v1/search/image?k=1", picture(n), "image/png")[2], numbers)
        expected = [f"p{number}" for number in numbers]
        assert [answer["hits"][0]["product_id"] for answer in by_text] == expected
        assert [answer["hits"][0]["product_id"] for answer in by_picture] == expected


def test_a_picture_finds_itself_in_the_body_and_as_base64(call: Any) -> None:
    _, _, raw = call("POST", "/v1/search/image?k=3", picture(9), "image/png")
    _, _, encoded = call("POST", "/v1/search", {"image": base64.b64encode(picture(9)).decode(), "k": 3})
    assert raw["hits"] == encoded["hits"]
    assert (raw["hits"][0]["product_id"], raw["hits"][0]["score"]) == ("p09", pytest.approx(1, abs=1e-3))


def test_a_picture_by_url_is_the_same_picture(call: Any, picture_host: str) -> None:
    _, _, raw = call("POST", "/v1/search/image?k=3", picture(9), "image/png")
    url = f"http://{picture_host}/lamp.png"
    _, _, found = call("POST", "/v1/search", {"image_url": url, "k": 3})
    assert (found["query_kind"], found["hits"]) == ("image_url", raw["hits"])
    by_client = call("POST", "/knn-service", {"image_url": url, "num_images": 1})[2]
    assert by_client[0]["product_id"] == "p09"
    for wrong, reason in ((f"http://{picture_host}/lamp", "not_found"), ("http://a.example/b.png", "url_not_allowed")):
        status, _, problem = call("POST", "/v1/search", {"mix": [{"text": "lamp"}, {"image_url": wrong}]})
        assert (status, problem["errors"][0]["field"]) == (422, "mix.1.image_url")
        assert problem["errors"][0]["detail"].startswith(f"image_{reason}")


def test_more_like_a_product_leaves_it_out_and_still_gives_k(call: Any) -> None:
    _, _, answer = call("POST", "/v1/search", {"product_id": "p05", "k": 4, "fields": ["price"]})
    assert len(answer["hits"]) == 4
    assert "p05" not in [hit["product_id"] for hit in answer["hits"]]
    assert set(answer["hits"][0]["product"]) == {"price"}


@pytest.mark.parametrize("length", [3, 1e-300, 1e300])
def test_a_vector_of_any_length_is_searched_like_its_text(call: Any, index_uri: str, length: float) -> None:
    vector = load_encoder(EncoderOptions(model="hash")).encode_texts(["lamp number 7"])[0].astype(np.float64)
    _, _, answer = call("POST", "/v1/search", {"vector": (vector * length).tolist(), "k": 3})
    expected = library_hits(index_uri, "lamp number 7", k=3, against="image")
    assert [product_id for product_id, _ in pairs(answer)] == [product_id for product_id, _ in expected]


def test_k_beyond_the_index_gives_every_product_of_that_side_once(call: Any) -> None:
    _, _, answer = call("POST", "/v1/search", {"text": "lamp", "k": 200})
    ids = [hit["product_id"] for hit in answer["hits"]]
    assert len(ids) == len(set(ids)) == NUM_PRODUCTS - 1  # one has no picture


def test_a_product_with_an_odd_id_is_found_and_its_numbers_are_json(call: Any) -> None:
    assert call("GET", f"/v1/products/{quote(ODD_ID, safe='')}")[2]["product_id"] == ODD_ID
    _, _, product = call("GET", "/v1/products/p01")
    assert (product["title"], product["product"]["price"]) == (HOSTILE, None)  # NaN has no word in JSON


def test_a_picture_is_served_by_id_and_as_nothing_but_a_picture(call: Any) -> None:
    status, headers, body = call("GET", f"/v1/products/{quote(ODD_ID, safe='')}/image")
    assert (status, headers["content-type"], headers["x-content-type-options"]) == (200, "image/jpeg", "nosniff")
    assert decode(body).pixels is not None
    assert call("GET", "/v1/products/p03/image")[0] == 404
    assert call("GET", "/v1/products/..%2F..%2Fetc%2Fpasswd/image")[0] == 404


def test_info_names_version_model_and_operating_points(call: Any) -> None:
    _, _, info = call("GET", "/v1/info")
    assert (info["index_version"], info["model"], info["num_products"], info["dim"]) == (1, "hash", 40, 64)
    assert info["fingerprint"] == load_encoder(EncoderOptions(model="hash")).fingerprint.digest
    assert info["sides"]["image"]["num_vectors"] == 39
    assert info["sides"]["image"]["operating_points"]["text"]["recall_at_10"] == 1.0


def test_probes_answer(call: Any) -> None:
    assert [call("GET", path)[0] for path in ("/livez", "/readyz")] == [200, 200]


WRONG = {
    "no query": ({}, 422, "body"),
    "two queries": ({"text": "lamp", "product_id": "p01"}, 422, "body"),
    "empty text": ({"text": "  "}, 422, "text"),
    "long text": ({"text": "a" * 2001}, 422, "text"),
    "lone surrogate": (b'{"text": "\\ud800"}', 422, "text"),
    "k of zero": ({"text": "lamp", "k": 0}, 422, "k"),
    "k too large": ({"text": "lamp", "k": 201}, 422, "k"),
    "k in words": ({"text": "lamp", "k": "ten"}, 422, "k"),
    "k without end": (b'{"text": "lamp", "k": ' + b"9" * 400 + b"}", 422, "k"),
    "unknown side": ({"text": "lamp", "against": "sound"}, 422, "against"),
    "not a filter": ({"text": "lamp", "filter": {"color": "red"}}, 422, "filter"),
    "unknown column in a filter": ({"text": "lamp", "filter": {"field": "colour", "equals": 1}}, 422, "filter"),
    "unknown column to collapse": ({"text": "lamp", "collapse": "family"}, 422, "collapse"),
    "recall out of reach": ({"text": "lamp", "recall": 0.9, "exact": True}, 422, "body"),
    "score of ranks": ({"text": "lamp", "against": "both", "min_score": 0.1}, 422, "min_score"),
    "mix with an unknown product": ({"mix": [{"text": "a"}, {"product_id": "p99"}]}, 404, "mix.1.product_id"),
    "mix with a short vector": ({"mix": [{"vector": [1.0]}]}, 422, "mix.0.vector"),
    "mix of nothing": ({"mix": [{"product_id": "p05"}, {"product_id": "p05", "weight": -1.0}]}, 422, "mix"),
    "unknown field": ({"text": "lamp", "fields": ["colour"]}, 422, "fields"),
    "unknown key": ({"text": "lamp", "limit": 3}, 422, "limit"),
    "unknown product": ({"product_id": "p99"}, 404, "product_id"),
    "product without picture": ({"product_id": "p03"}, 422, "product_id"),
    "not base64": ({"image": "not base64!"}, 422, "image"),
    "no picture": ({"image": "bm8gcGljdHVyZQ=="}, 422, "image"),
    "short vector": ({"vector": [1.0, 2.0]}, 422, "vector"),
    "zero vector": ({"vector": [0.0] * 64}, 422, "vector"),
    "vector with NaN": (b'{"vector": [' + b"NaN," * 63 + b"1]}", 422, "vector.0"),
    "vector with a huge integer": (b'{"vector": [' + b"1," * 63 + b"9" * 400 + b"]}", 422, "vector.63"),
}


@pytest.mark.parametrize(("body", "status", "field"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_field_is_a_problem_that_names_it(call: Any, body: Any, status: int, field: str) -> None:
    found, headers, problem = call("POST", "/v1/search", body)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    assert (problem["status"], problem["errors"][0]["field"]) == (status, field)


MALFORMED = {
    "not JSON": ("POST", "/v1/search", b"{", "application/json", 400),
    "nested without end": ("POST", "/v1/search", b"[" * 100_000, "application/json", 400),
    "not UTF-8": ("POST", "/v1/search", b'{"text": "\xff"}', "application/json", 400),
    "a form": ("POST", "/v1/search", b"text=lamp", "application/x-www-form-urlencoded", 415),
    "a form that is none": ("POST", "/v1/search/image", picture(1), "multipart/form-data; boundary=x", 400),
    "a form without its end": ("POST", "/v1/search/image", b"--x\r\n", "multipart/form-data; boundary=x", 422),
    "a batch of nothing": ("POST", "/v1/search/batch", b'{"queries": []}', "application/json", 422),
    "a filter that is not JSON": ("GET", "/v1/search?q=lamp&filter=red", None, "", 422),
    "an empty picture": ("POST", "/v1/search/image", b"", "image/png", 422),
    "half a picture": ("POST", "/v1/search/image", picture(1)[:40], "image/png", 422),
    "a large body": ("POST", "/v1/search/image", bytes(8 * 1024 * 1024 + 1), "image/png", 413),
    "a blank q": ("GET", "/v1/search?q=", None, "", 422),
    "two efforts": ("GET", "/v1/search?q=lamp&recall=0.9&exact=true", None, "", 422),
    "no q": ("GET", "/v1/search", None, "", 422),
    "a side that is none": ("GET", "/v1/search?q=lamp&against=sound", None, "", 422),
    "an unknown product": ("GET", "/v1/products/p99", None, "", 404),
    "an unknown page": ("GET", "/admin", None, "", 404),
    "a method that is none": ("DELETE", "/v1/search", None, "", 405),
}


@pytest.mark.parametrize(("method", "path", "body", "content_type", "status"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_request_is_a_problem_and_never_a_500(
    call: Any, method: str, path: str, body: bytes | None, content_type: str, status: int
) -> None:
    found, headers, problem = call(method, path, body, content_type)
    assert (found, headers["content-type"]) == (status, "application/problem+json")
    assert problem["status"] == status


API = schemathesis.openapi.from_dict(json.loads((ROOT / "docs/openapi.json").read_text(encoding="utf-8")))


@API.parametrize()
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_whatever_the_documented_api_allows_or_forbids_gets_a_documented_answer(
    case: schemathesis.Case, port: int
) -> None:
    response = case.call(base_url=f"http://127.0.0.1:{port}")
    if len(response.request.url) > MAX_URL_CHARS:  # it never reaches the service
        assert response.status_code == 400
    else:  # what JSON Schema has no words for, such as "one of text, image, ...", may be refused although it fits
        case.validate_response(response, excluded_checks=[positive_data_acceptance])


def form(data: bytes) -> tuple[bytes, str]:
    head = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return head + data + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"


def test_a_picture_may_come_in_a_form(call: Any) -> None:
    _, _, raw = call("POST", "/v1/search/image?k=3", picture(9), "image/png")
    body, content_type = form(picture(9))
    assert call("POST", "/v1/search/image?k=3", body, content_type)[2]["hits"] == raw["hits"]


def test_a_filter_leaves_only_what_it_names_and_still_fills_k(call: Any) -> None:
    wanted = {"field": "color", "equals": "red"}
    _, _, answer = call("POST", "/v1/search", {"text": "lamp", "k": 15, "filter": wanted, "fields": ["color"]})
    assert [hit["product"]["color"] for hit in answer["hits"]] == ["red"] * 15
    assert answer["num_allowed"] == NUM_PRODUCTS / 2
    by_address = call("GET", f"/v1/search?q=lamp&k=15&filter={quote(json.dumps(wanted))}")[2]
    assert pairs(by_address) == pairs(answer)


def test_both_sides_are_fused_by_rank_and_groups_collapse_to_one_hit(call: Any) -> None:
    body = {"text": "lamp number 7", "k": 10, "against": "both", "collapse": "group_id", "fields": ["group_id"]}
    _, _, answer = call("POST", "/v1/search", body)
    groups = [hit["product"]["group_id"] for hit in answer["hits"]]
    assert len(groups) == len(set(groups)) == NUM_PRODUCTS / 4
    assert (answer["score_kind"], set(answer["points"])) == ("reciprocal rank", {"image", "text"})


def test_a_mix_leads_away_from_what_weighs_less_than_nothing(call: Any) -> None:
    body = {"mix": [{"text": "lamp number 7"}, {"product_id": "p08", "weight": -0.5}], "against": "text", "k": 40}
    _, _, answer = call("POST", "/v1/search", body)
    ids = [hit["product_id"] for hit in answer["hits"]]
    assert (answer["query_kind"], ids[0]) == ("mix", "p07")
    assert "p08" not in ids


def test_a_batch_gives_each_query_what_it_would_get_alone(call: Any) -> None:
    queries: list[dict[str, Any]] = [
        {"text": "lamp number 7", "k": 3},
        {"product_id": "p05", "k": 2, "against": "text"},
        {"product_id": "p99"},
        {"text": "lamp", "k": 5, "filter": {"field": "price", "range": {"lt": 10}}},
    ]
    status, _, batch = call("POST", "/v1/search/batch", {"queries": queries})
    assert status == 200
    for query, answer in zip(queries, batch["answers"], strict=True):
        alone = call("POST", "/v1/search", query)[2]
        assert answer.get("hits") == alone.get("hits")
        assert answer.get("status") == alone.get("status")
    assert batch["answers"][2]["status"] == 404


def test_info_offers_facets_and_examples(call: Any) -> None:
    _, _, info = call("GET", "/v1/info")
    (colors,) = [facet for facet in info["facets"] if facet["field"] == "color"]
    assert colors["values"] == [{"value": "blue", "count": 20}, {"value": "red", "count": 20}]
    assert all(example.startswith("lamp number") for example in info["examples"])
    assert 1 <= len(info["examples"]) <= 8


def test_more_searches_than_fit_are_refused_in_time_and_the_rest_are_right(call: Any) -> None:
    query = {"queries": [{"text": f"lamp number {n}", "k": 1, "against": "text"} for n in range(10, 34)]}
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: call("POST", "/v1/search/batch", query), range(36)))
    assert {status for status, _, _ in answers} == {200, 503}
    for status, headers, body in answers:
        if status == 503:
            assert (headers["retry-after"], body["status"]) == ("1", 503)
        else:
            assert [one["hits"][0]["product_id"] for one in body["answers"]] == [f"p{n}" for n in range(10, 34)]
    assert call("GET", "/v1/search?q=lamp")[0] == 200
    assert len(query["queries"]) < MAX_SEARCHES < 2 * len(query["queries"])


def test_the_clients_of_clip_retrieval_are_answered(call: Any) -> None:
    assert call("GET", "/indices-list")[2] == ["products"]
    asked = {
        "text": "lamp number 7",
        "modality": "text",
        "num_images": 2,
        "num_result_ids": 4,
        "indice_name": "products",
    }
    status, _, found = call("POST", "/knn-service", asked)
    assert status == 200
    assert [one.get("product_id") for one in found] == [found[0]["product_id"], found[1]["product_id"], None, None]
    assert (found[0]["product_id"], found[0]["caption"]) == ("p07", "lamp number 7")
    (described,) = call("POST", "/metadata", {"ids": [found[0]["id"]], "indice_name": "products"})[2]
    assert described["metadata"]["product_id"] == "p07"


def test_an_answer_and_a_problem_carry_the_id_of_the_request(call: Any) -> None:
    for path, status in (("/v1/search?q=lamp", 200), ("/v1/search?q=", 422)):
        found, headers, body = call("GET", path)
        assert found == status
        assert headers["x-request-id"]
        assert status == 200 or body["request_id"] == headers["x-request-id"]


@pytest.mark.usefixtures("port")
def test_what_serves_own_queue_refuses_is_a_problem_too(call: Call, tmp_path: Path) -> None:
    @ray_serve.deployment(max_ongoing_requests=1, max_queued_requests=1, ray_actor_options={"num_cpus": 0})
    class Narrow:
        """Answers when a file appears."""

        async def __call__(self) -> str:
            while not (tmp_path / "open").exists():
                await asyncio.sleep(0.02)
            return "done"

    ray_serve.run(Narrow.bind(), name="narrow", route_prefix="/narrow")
    try:
        with ThreadPoolExecutor(6) as pool:
            asked = [pool.submit(call, "GET", "/narrow") for _ in range(6)]
            for _ in range(300):
                if any(one.done() for one in asked):
                    break
                select.select([], [], [], 0.1)
            (tmp_path / "open").touch()
            answers = [one.result() for one in asked]
    finally:
        ray_serve.delete("narrow")
    refused = [(headers, body) for status, headers, body in answers if status == 503]
    assert refused
    assert {status for status, _, _ in answers} == {200, 503}
    for headers, body in refused:
        assert (headers["content-type"], body["status"]) == ("application/problem+json", 503)
        assert (headers["retry-after"], headers["x-request-id"]) == ("1", body["request_id"])


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", ""])
def test_in_place_of_a_malformed_id_the_answer_has_one_new_one(port: int, given: str) -> None:
    for path in ("/v1/search?q=", "/-/healthz"):  # the second is answered by Serve itself
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", path, headers={"X-Request-ID": given})
        response = connection.getresponse()
        (made,) = [value for name, value in response.getheaders() if name.lower() == "x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        if path != "/-/healthz":
            assert json.load(response)["request_id"] == made
        connection.close()


@pytest.mark.usefixtures("port")
def test_with_keys_only_the_page_and_the_probes_are_open(index_uri: str, tmp_path: Path, port: int) -> None:
    key = secrets.token_urlsafe(32)
    (tmp_path / "keys").write_text(line_of(key, "shop") + "\n")
    args = SearchArgs(index=index_uri, max_replicas=1, keys_file=str(tmp_path / "keys"))
    ray_serve.run(build(args), name="locked", route_prefix="/locked")
    try:
        statuses = {}
        for path in (
            "/",
            "/livez",
            "/readyz",
            "/v1/info",
            "/v1/search?q=lamp",
            "/openapi.json",
            "/docs",
            "/v1/refresh",
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", f"/locked{path}")
            statuses[path] = connection.getresponse().status
        assert statuses == dict.fromkeys(statuses, 401) | {"/": 200, "/livez": 200, "/readyz": 200}
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/locked/v1/search?q=lamp", headers={"Authorization": f"Bearer {key}"})
        assert connection.getresponse().status == 200
    finally:
        ray_serve.delete("locked")


def wait_for_info(call: Any, name: str, value: object) -> dict[str, Any]:
    """Return /v1/info as soon as a part of it is as it should be."""
    for _ in range(300):
        info: dict[str, Any] = call("GET", "/v1/info")[2]
        if info[name] == value:
            return info
        select.select([], [], [], 0.1)
    pytest.fail(f"{name} did not become {value}: {info[name]}")


def test_versions_are_swapped_under_load_without_an_error(call: Any, index_uri: str) -> None:
    storage = Storage.at(index_uri)
    second = publish(storage, read_manifest(storage, 1)).version
    seen: list[tuple[int, int, Any]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            status, _, answer = call("GET", "/v1/search?q=lamp+number+7&k=3&against=text")
            seen.append((status, answer.get("index_version"), [hit["product_id"] for hit in answer.get("hits", ())]))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        promote(storage, second)
        wait_for_info(call, "index_version", second)
        rollback(storage)
        wait_for_info(call, "index_version", 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _, _ in seen} == {200}
    assert {version for _, version, _ in seen} == {1, second}
    assert len({tuple(ids) for _, _, ids in seen}) == 1


def test_a_version_that_cannot_be_served_is_refused_and_the_old_one_stays(call: Any, index_uri: str) -> None:
    storage = Storage.at(index_uri)
    good = read_manifest(storage, 1)
    other = replace(good, fingerprint=replace(good.fingerprint, weights_sha256="other"))
    unchecked = replace(good, gates={})
    (shard,) = good.shards
    missing = replace(good, shards=(replace(shard, products=replace(shard.products, path="builds/none")),))
    for manifest, reason in ((other, "another model"), (unchecked, "gates"), (missing, "builds/none")):
        bad = publish(storage, manifest).version
        promote(storage, bad)
        call("POST", "/v1/refresh", b"")
        info = call("GET", "/v1/info")[2]
        assert (info["index_version"], info["refused"]["version"]) == (1, bad)
        assert reason in info["refused"]["reason"]
        assert call("GET", "/v1/search?q=lamp")[2]["index_version"] == 1
        rollback(storage)
    wait_for_info(call, "refused", None)


def test_a_replica_that_starts_on_a_version_it_cannot_serve_takes_the_one_before(
    index_uri: str, tmp_path: Path
) -> None:
    shutil.copytree(index_uri, tmp_path / "index")
    storage = Storage.at(tmp_path / "index")
    good = read_manifest(storage, 1)
    bad = publish(storage, replace(good, gates={})).version
    promote(storage, bad)
    follower = VersionFollower(storage, good.fingerprint.digest)
    assert follower.refused is not None
    assert (follower.served.version, follower.refused.version) == (1, bad)
    with pytest.raises(ArtifactError, match="gates"):
        VersionFollower(storage, good.fingerprint.digest, pinned=bad)
    (tmp_path / "index" / "current.json").write_bytes(b"{")
    follower.check()
    assert follower.served.version == 1
    assert current_version(Storage.at(index_uri)) == 1


@pytest.mark.skipif(shutil.which("chromium") is None and "CI" not in os.environ, reason="needs chromium; CI has it")
def test_the_page_shows_hits_and_lets_no_title_become_markup(port: int, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{port}/?q={quote(HOSTILE)}&against=text"
    page = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"),
            *("--virtual-time-budget=5000", "--dump-dom", address),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
    assert page.count('data-id="') == 24
    assert "&lt;img src=x onerror" in page
    assert "<img src=x onerror" not in page
    assert "Product search</title>" in page
    assert "index version 1" in page


def test_the_api_is_documented_as_it_is(call: Any) -> None:
    served = call("GET", "/openapi.json")[2]
    assert served == json.loads((ROOT / "docs" / "openapi.json").read_text()), "run scripts/openapi.py"
    status, headers, page = call("GET", "/docs")
    assert status == 200
    assert "unsafe" not in headers["content-security-policy"]
    assert all(path.encode() in page for path in served["paths"])


def test_the_page_runs_only_its_own_script(call: Any) -> None:
    status, headers, page = call("GET", "/")
    assert status == 200
    assert "unsafe" not in headers["content-security-policy"]
    assert b"//" not in page.split(b"<style>")[0]


@pytest.mark.usefixtures("port")
def test_another_model_than_the_index_was_made_with_does_not_start_and_says_why(index_uri: str) -> None:
    application = build(SearchArgs(index=index_uri, model="demo/model"))
    with pytest.raises(RuntimeError, match="QueryEncoder"):
        ray_serve.run(application, name="other_model", route_prefix="/other")
    failed = ray_serve.status().applications["other_model"]
    assert failed.status == "DEPLOY_FAILED"
    assert (
        "demo/model is not the model that this index was made with (hash)" in failed.deployments["QueryEncoder"].message
    )
    ray_serve.delete("other_model")


def test_an_index_that_is_not_there_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="run build_index"):
        build(SearchArgs(index=str(tmp_path)))
