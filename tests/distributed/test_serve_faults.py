"""The service while parts of it are killed, replaced, late or wrong."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import select
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions

from product_retrieval.index.versions import promote, publish, read_manifest
from product_retrieval.storage import Storage
from serve.app import build
from serve.arguments import SearchArgs
from serve.ranking import RankingTask
from tests.distributed.lamp_shop import NUM_PRODUCTS, Call, caller, free_port, make_index

pytestmark = pytest.mark.distributed

NAME = f"lamps-{os.getpid()}"


def odd_reranker() -> ray_serve.Application:
    """Return a re-ranker that does what the query's first word says."""

    @ray_serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Odd:
        async def rerank(self, task: RankingTask) -> Any:
            places = list(range(len(task.candidates)))
            word = task.texts[0].text.split()[0] if task.texts else ""
            if word == "late":
                await asyncio.sleep(30)
            if word == "broken":
                raise RuntimeError("the stock's database is away")
            if word == "dear":
                return sorted(places, key=lambda at: -np.nan_to_num(task.candidates[at].product["price"]))
            return {"twice": [0, 0], "beyond": [99], "nothing": None, "few": places[3:5]}.get(word, places[::-1])

    return Odd.bind()


def arguments(index: str, reranker: str) -> SearchArgs:
    return SearchArgs(
        index=index,
        poll_s=0.2,
        min_replicas=2,
        max_replicas=2,
        reranker=reranker,
        rerank_depth=NUM_PRODUCTS,
        rerank_timeout_s=2,
    )


@pytest.fixture(scope="module")
def index_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    ray.init(num_cpus=6, include_dashboard=False, log_to_driver=False)
    yield make_index(tmp_path_factory.mktemp("shop"))
    ray_serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def port(index_uri: str) -> int:
    port = free_port()
    ray_serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
    ray_serve.run(build(arguments(index_uri, f"{__name__}:odd_reranker")), name=NAME, route_prefix="/")
    return port


@pytest.fixture
def call(port: int) -> Call:
    return caller(port)


class Traffic:
    """Clients that ask one search after another, and keep the statuses."""

    def __init__(self, call: Call, num_clients: int) -> None:
        self.statuses: list[int] = []
        self._call = call
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(num_clients)]

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, num_more: int) -> None:
        """Return once so many more requests were answered."""
        wanted = len(self.statuses) + num_more
        for _ in range(600):
            if len(self.statuses) >= wanted:
                return
            select.select([], [], [], 0.1)
        pytest.fail(f"no {num_more} answers within a minute: {self.statuses[-20:]}")

    def _ask(self) -> None:
        while not self._stop.is_set():
            self.statuses.append(self._call("POST", "/v1/search", {"product_id": "p07", "k": 3, "rerank": False})[0])


def replica_pids(deployment: str, application: str = NAME) -> set[int]:
    """Return the processes of a deployment of this test's application."""
    title = f"ray::ServeReplica:{application}:{deployment}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                command = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue
            if command.startswith(title):
                found.add(int(folder.name))
    return found


def test_a_reranker_orders_what_the_index_found_and_sees_the_catalogues_columns(call: Call) -> None:
    _, headers, plain = call("POST", "/v1/search", {"text": "dear lamp", "k": NUM_PRODUCTS, "rerank": False})
    _, _, ranked = call("POST", "/v1/search", {"text": "dear lamp", "k": 4})
    assert (plain["ranking"], ranked["ranking"]) == ("retrieval", "reranked")
    assert "rerank;dur=" in headers["server-timing"]
    found = [(hit["product_id"], hit["product"]["price"] or 0.0) for hit in plain["hits"]]
    dearest = sorted(found, key=lambda pair: -pair[1])[:4]
    assert [hit["product_id"] for hit in ranked["hits"]] == [product_id for product_id, _ in dearest]
    assert [hit["rank"] for hit in ranked["hits"]] == [1, 2, 3, 4]
    assert [found[hit["retrieval_rank"] - 1][0] for hit in ranked["hits"]] == [name for name, _ in dearest]
    assert [hit["retrieval_rank"] for hit in plain["hits"]] == list(range(1, NUM_PRODUCTS))  # one has no picture


def test_a_reranker_may_leave_products_out(call: Call) -> None:
    hits = call("POST", "/v1/search", {"text": "few lamps", "k": 10})[2]["hits"]
    assert [(hit["rank"], hit["retrieval_rank"]) for hit in hits] == [(1, 4), (2, 5)]


@pytest.mark.parametrize("word", ["late", "broken", "twice", "beyond", "nothing"])
def test_a_reranker_that_is_late_or_wrong_costs_its_order_and_no_answer(call: Call, word: str) -> None:
    query = {"text": f"{word} lamp", "k": 5}
    status, _, answer = call("POST", "/v1/search", query)
    plain = call("POST", "/v1/search", query | {"rerank": False})[2]
    assert (status, answer["ranking"]) == (200, "retrieval")
    assert [hit["product_id"] for hit in answer["hits"]] == [hit["product_id"] for hit in plain["hits"]]
    assert answer["timings_ms"]["rerank"] < 20_000


def test_each_query_of_a_batch_is_ordered_as_it_asks(call: Call) -> None:
    queries = [{"text": "late lamp", "k": 3}, {"text": "any lamp", "k": 3}, {"product_id": "p07", "rerank": False}]
    answers = call("POST", "/v1/search/batch", {"queries": queries})[2]["answers"]
    assert [answer["ranking"] for answer in answers] == ["retrieval", "reranked", "retrieval"]


def test_a_refresh_moves_every_replica_before_it_answers(index_uri: str, port: int) -> None:
    storage = Storage.at(index_uri)
    second = publish(storage, read_manifest(storage, 1)).version
    bad = publish(storage, replace(read_manifest(storage, 1), gates={})).version
    args = arguments(index_uri, "serve.word_match:build").model_copy(update={"poll_s": 3600.0, "reranker": None})
    ray_serve.run(build(args), name="patient", route_prefix="/patient")
    patient = caller(port)
    try:
        for version, served, refused in ((second, second, None), (bad, second, bad), (1, 1, None)):
            promote(storage, version)
            status, _, answer = patient("POST", "/patient/v1/refresh", b"")
            assert (status, answer["num_silent"]) == (200, 0)
            assert [state["index_version"] for state in answer["replicas"]] == [served, served]
            assert all(state["is_done"] for state in answer["replicas"])
            assert [(state["refused"] or {}).get("version") for state in answer["replicas"]] == [refused, refused]
        os.kill(min(replica_pids("SearchService", "patient")), signal.SIGKILL)
        promote(storage, second)
        status, _, answer = patient("POST", "/patient/v1/refresh", b"")
        assert status == 200
        assert {state["index_version"] for state in answer["replicas"]} == {second}
    finally:
        promote(storage, 1)
        ray_serve.delete("patient")


def test_a_killed_replica_costs_at_most_the_requests_inside_it(call: Call) -> None:
    before = replica_pids("SearchService")
    assert len(before) == 2
    num_clients = 4
    with Traffic(call, num_clients) as traffic:
        traffic.wait_for(20)
        os.kill(min(before), signal.SIGKILL)
        traffic.wait_for(200)
        num_failed = sum(status != 200 for status in traffic.statuses)
        for _ in range(600):
            if len(replica_pids("SearchService") - {min(before)}) == 2:
                break
            select.select([], [], [], 0.1)
        traffic.wait_for(50)
    assert num_failed <= num_clients
    assert sum(status != 200 for status in traffic.statuses) == num_failed
    assert len(replica_pids("SearchService") - {min(before)}) == 2


def test_replicas_are_replaced_without_a_failed_request_and_end_what_they_began(
    call: Call, port: int, index_uri: str
) -> None:
    before = replica_pids("SearchService")
    body = json.dumps({"text": "lamp number 17", "k": 3}).encode()
    begun = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    begun.putrequest("POST", "/v1/search")
    begun.putheader("Content-Type", "application/json")
    begun.putheader("Content-Length", str(len(body)))
    begun.endheaders(body[:10])
    with Traffic(call, 2) as traffic:
        traffic.wait_for(10)
        replaced = build(arguments(index_uri, "serve.word_match:build"))
        deploying = threading.Thread(target=ray_serve.run, args=(replaced,), kwargs={"name": NAME, "route_prefix": "/"})
        deploying.start()
        traffic.wait_for(50)
        begun.send(body[10:])
        answer = begun.getresponse()
        assert (answer.status, len(json.load(answer)["hits"])) == (200, 3)
        deploying.join()
        traffic.wait_for(20)
    assert set(traffic.statuses) == {200}
    assert not before & replica_pids("SearchService")
    words_first = call("POST", "/v1/search", {"text": "lamp number 17", "k": 1})[2]["hits"][0]
    assert words_first["product_id"] == "p17"
