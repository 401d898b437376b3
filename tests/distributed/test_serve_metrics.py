"""What the service measures is on Ray's Prometheus endpoint, under the documented names and with right values."""

from __future__ import annotations

import asyncio
import re
import select
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from ray import serve as ray_serve
from ray.serve.config import HTTPOptions

from product_retrieval.index.versions import promote, publish, read_manifest, rollback
from product_retrieval.storage import Storage
from serve.app import build
from serve.arguments import SearchArgs
from serve.metrics import PREFIX, EncoderMetrics, ServiceMetrics
from serve.ranking import RankingTask
from tests.distributed.lamp_shop import Call, caller, free_port, make_index, picture

pytestmark = pytest.mark.distributed

SERVING = (Path(__file__).resolve().parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
SAMPLE = re.compile(r"(\w+)\{(.*)\} (\S+)")
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
Samples = dict[str, list[tuple[dict[str, str], float]]]


def late_reranker() -> ray_serve.Application:
    """Return a re-ranker that never answers in time."""

    @ray_serve.deployment(ray_actor_options={"num_cpus": 0.1})
    class Late:
        async def rerank(self, task: RankingTask) -> list[int]:
            await asyncio.sleep(1)
            return list(range(len(task.candidates)))

    return Late.bind()


def scrape(port: int) -> Samples:
    """Return all samples of a node's endpoint by name."""
    found: Samples = defaultdict(list)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            sample = SAMPLE.fullmatch(line)
            if sample:
                found[sample[1]].append((dict(LABEL.findall(sample[2])), float(sample[3])))
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have some labels."""
    return sum(number for given, number in samples[f"ray_{PREFIX}{name}"] if labels.items() <= given.items())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    """Ask a service a few things, and return what the endpoint shows as soon as it shows all of it."""
    metrics_port, port = free_port(), free_port()
    ray.init(
        num_cpus=3,
        include_dashboard=False,
        log_to_driver=False,
        _metrics_export_port=metrics_port,
        _system_config={"metrics_report_interval_ms": 500},
    )
    try:
        index_uri = make_index(tmp_path_factory.mktemp("shop"))
        ray_serve.start(http_options=HTTPOptions(host="127.0.0.1", port=port))
        args = SearchArgs(
            index=index_uri, poll_s=0.2, max_replicas=1, reranker=f"{__name__}:late_reranker", rerank_timeout_s=0.05
        )
        ray_serve.run(build(args), name="search", route_prefix="/")
        ask_a_few_things(caller(port), Storage.at(index_uri))
        yield wait_for_samples(metrics_port)
    finally:
        ray_serve.shutdown()
        ray.shutdown()


def ask_a_few_things(call: Call, storage: Storage) -> None:
    """Send 3 texts, 2 pictures, one re-ranking that is late, one wrong request, and promote a version without gates."""
    for number in range(3):
        assert call("POST", "/v1/search", {"text": f"lamp number {number}", "rerank": False})[0] == 200
    for number in range(2):
        assert call("POST", "/v1/search/image?rerank=false", picture(number), "image/png")[0] == 200
    assert call("POST", "/v1/search", {"product_id": "p07"})[2]["ranking"] == "retrieval"
    assert call("POST", "/v1/search", {"k": 5})[0] == 422
    assert call("GET", "/admin.php")[0] == 404
    promote(storage, publish(storage, replace(read_manifest(storage, 1), gates={})).version)
    (state,) = call("POST", "/v1/refresh", b"")[2]["replicas"]
    assert state["refused"] is not None
    rollback(storage)


def wait_for_samples(metrics_port: int) -> Samples:
    for _ in range(300):
        found = scrape(metrics_port)
        has_last_request = value(found, "requests_total", route="/v1/refresh") == 1
        if has_last_request and value(found, "encoder_batch_size_count") == 5:
            return found
        select.select([], [], [], 0.2)
    pytest.fail(f"only {sorted(name for name in found if PREFIX in name)} after a minute")


def declared() -> list[str]:
    made = [*vars(ServiceMetrics()).values(), *vars(EncoderMetrics()).values()]
    return sorted(str(metric.info["name"]) for metric in made)


def test_every_metric_that_is_declared_is_exported_and_documented(samples: Samples) -> None:
    assert len(declared()) == 9
    for name in declared():
        assert any(shown.removesuffix("_total").removesuffix("_count") == f"ray_{name}" for shown in samples), name
        assert f"`{name}`" in SERVING


def test_requests_are_counted_by_route_and_status(samples: Samples) -> None:
    assert value(samples, "requests_total", route="/v1/search", status="200") == 4
    assert value(samples, "requests_total", route="/v1/search", status="422") == 1
    assert value(samples, "requests_total", route="/v1/search/image", status="200") == 2
    assert value(samples, "requests_total", route="none", status="404") == 1
    assert not any("admin" in str(labels) for labels, _ in samples[f"ray_{PREFIX}requests_total"])
    assert value(samples, "request_ms_count", route="/v1/search") == 5
    assert value(samples, "request_ms_bucket", route="/v1/search", le="+Inf") == 5
    assert value(samples, "request_ms_bucket", route="/v1/search", le="1.0") < 5


@pytest.mark.parametrize("stage", ["encode", "search", "products", "rerank"])
def test_each_stage_of_each_search_is_timed(samples: Samples, stage: str) -> None:
    assert value(samples, "stage_ms_count", stage=stage) == 6
    num_quick = value(samples, "stage_ms_bucket", stage=stage, le="20.0")
    assert num_quick <= value(samples, "stage_ms_bucket", stage=stage, le="5000.0") == 6
    if stage == "rerank":
        assert num_quick == 5  # the sixth waited for 50 ms


def test_the_index_its_refusal_and_the_late_reranker_are_shown(samples: Samples) -> None:
    assert value(samples, "index_version") == 1
    assert 0 < value(samples, "index_age_seconds") < 3600
    assert value(samples, "refused_swaps_total", reason="ArtifactError") == 1
    assert value(samples, "rerank_failures_total", reason="timeout") == 1


def test_the_encoder_shows_its_batches_and_that_nothing_waits(samples: Samples) -> None:
    for kind, num_queries in (("text", 3), ("image", 2)):  # one after the other, so each is a batch
        assert value(samples, "encoder_batch_size_count", kind=kind) == num_queries
        assert value(samples, "encoder_batch_size_bucket", kind=kind, le="1.0") == num_queries
    assert value(samples, "encoder_queue_length") == 0
