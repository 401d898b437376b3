"""Evaluations as a user runs them: reports, limits, files of queries, another run beside, and several nodes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.cluster_utils import Cluster

from eval.exact import scan
from eval.exact_search import ExactSearch
from product_retrieval.index import open_index
from product_retrieval.storage import Storage

pytestmark = pytest.mark.distributed

Run = Callable[..., subprocess.CompletedProcess[str]]
HOSTILE = "</title><script>document.title='taken'</script><img src=x onerror=alert(1)> chair"


@pytest.fixture(scope="module")
def index(catalog: Path, tmp_path_factory: pytest.TempPathFactory, run_module: Run) -> Path:
    """Build an index of the catalogue, in which some products share words and a group, and one has a hostile title."""
    folder = tmp_path_factory.mktemp("evaluated")
    table = pa.concat_tables([pq.read_table(file) for file in sorted(catalog.iterdir())])
    titles = [HOSTILE if row == 20 else title for row, title in enumerate(table["title"].to_pylist())]
    table = table.set_column(table.column_names.index("title"), "title", pa.array(titles))
    table = table.append_column("group_id", pa.array([f"g{row // 4}" for row in range(table.num_rows)]))
    (folder / "catalog").mkdir()
    pq.write_table(table, folder / "catalog" / "all.parquet")
    for module, *arguments in (
        ("rayjobs.embed", "--catalog", folder / "catalog", "--output", folder / "vectors", "--encoder.model", "hash"),
        ("rayjobs.build_index", "--embeddings", folder / "vectors", "--output", folder / "index"),
    ):
        done = run_module(module, *arguments)
        assert done.returncode == 0, done.stderr
    return folder / "index"


@pytest.fixture(scope="module")
def report(index: Path, tmp_path_factory: pytest.TempPathFactory, run_module: Run) -> Path:
    """Evaluate the index with everything that there is."""
    folder = tmp_path_factory.mktemp("report")
    done = run_module("eval.evaluate", "--index", index, "--output", folder, "--trec")
    assert done.returncode == 0, done.stderr
    return folder


def record_of(report: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((report / "report.json").read_text())
    return record


def test_report_says_what_brute_force_says(index: Path, report: Path) -> None:
    opened, _ = open_index(Storage.at(index))
    listed = np.flatnonzero(opened.listed)
    texts, images = (opened.vectors_of(listed, side).astype(np.float32) for side in ("text", "image"))
    asks = texts.any(axis=1)
    scores = np.where(images.any(axis=1), texts @ images.T, -np.inf)[asks]
    own = np.flatnonzero(asks)
    right = scores[np.arange(len(own)), own]
    is_hit = np.isfinite(right) & ((scores > right[:, None]).sum(axis=1) < 10)
    result = next(
        each
        for each in record_of(report)["results"]
        if (each["name"], each["relevant"]) == ("text -> image", "product")
    )
    assert result["num_queries"] == len(own)
    assert result["measures"]["hit@10"]["mean"] == pytest.approx(is_hit.mean(), abs=2 / len(own))
    assert result["measures"]["hit@10"]["worst"] <= result["measures"]["hit@10"]["best"]


def test_every_miss_has_a_cause_and_nothing_is_left_behind(report: Path) -> None:
    record = record_of(report)
    for misses in record["misses"]:
        assert sum(kind["num_misses"] for kind in misses["kinds"]) == misses["num_misses"] <= misses["num_queries"]
    assert {path.name for path in report.iterdir()} == {"report.html", "report.json", "queries.parquet", "trec"}
    queries = pq.read_table(report / "queries.parquet")
    assert queries.num_rows == sum({each["name"]: each["num_queries"] for each in record["results"]}.values())


def test_catalogue_cannot_put_a_script_into_the_page(report: Path) -> None:
    page = (report / "report.html").read_text()
    assert "<script" not in page
    assert "onerror=alert" not in page.replace("onerror=alert(1)&gt;", "")
    assert "default-src 'none'" in page


def test_limits_decide_the_exit_code(index: Path, report: Path, run_module: Run) -> None:
    arguments = ("eval.evaluate", "--index", index, "--output", report, "--trec")
    mean = record_of(report)["results"][0]["measures"]["hit@10"]["mean"]
    held = run_module(*arguments, "--fail-under", f"text_to_image.hit@10={mean - 0.001}")
    assert held.returncode == 0, held.stderr
    below = run_module(*arguments, "--fail-under", f"text_to_image.hit@10={mean + 0.001}")
    assert below.returncode == 1
    assert f"text_to_image.product.hit@10 is {mean:.4f}, below" in below.stderr.splitlines()[-1]
    unknown = run_module(*arguments, "--fail-under", "text_to_image.hit@7=0.1")
    assert unknown.returncode == 2
    assert "no such measure" in unknown.stderr


def test_queries_and_judgements_from_files(index: Path, tmp_path: Path, run_module: Run) -> None:
    queries, judgements = tmp_path / "asked.jsonl", tmp_path / "asked.qrels"
    texts = {"exact": "red thing number 30", "lost": "green thing number 32", "unjudged": "anything"}
    queries.write_text("".join(json.dumps({"query_id": name, "text": text}) + "\n" for name, text in texts.items()))
    judgements.write_text("exact 0 p030 2\nexact 0 p031 0\nlost 0 no-such-product 1\nother 0 p001 1\n")
    arguments = ("eval.evaluate", "--index", index, "--num-queries", 20)
    files = ("--queries", queries, "--judgements", judgements)
    done = run_module(*arguments, "--output", tmp_path / "report", *files)
    assert done.returncode == 0, done.stderr
    record = record_of(tmp_path / "report")
    result = next(each for each in record["results"] if each["name"] == "query text -> text")
    assert (result["relevant"], result["num_queries"], result["num_unanswerable"]) == ("judged", 2, 1)
    assert result["measures"]["hit@1"]["mean"] == pytest.approx(1 / 2)
    assert record["queries"]["query text without a right product"] == 1
    judgements.write_text("exact 0 p030\n")
    wrong = run_module(*arguments, "--output", tmp_path / "wrong", *files)
    assert wrong.returncode == 3
    assert "a line of qrels is QUERY 0 PRODUCT RELEVANCE" in wrong.stderr.splitlines()[-1]


def test_another_run_is_compared_query_by_query(index: Path, report: Path, tmp_path: Path, run_module: Run) -> None:
    arguments = ("eval.evaluate", "--index", index, "--output", tmp_path, "--where", "price!=1.0", "--no-analysis")
    done = run_module(*arguments, "--baseline", report)
    assert done.returncode == 0, done.stderr
    comparison = record_of(tmp_path)["comparison"]
    assert comparison["differences"]
    for each in comparison["differences"]:  # the same index: nothing can have changed
        assert (each["before"], each["p_value"], each["is_significant"]) == (pytest.approx(each["now"]), 1.0, False)
    missing = run_module(*arguments, "--baseline", tmp_path / "none")
    assert missing.returncode == 4


def test_parts_searched_on_three_nodes_add_up_to_one_search(index: Path) -> None:
    import ray

    from eval.exact_pass import Workers, search_gallery

    opened, _ = open_index(Storage.at(index))
    vectors = opened.vectors_of(np.arange(opened.num_rows), "image")
    search = ExactSearch(vectors[:50].astype(np.float32), k=12)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        spread = search_gallery(search, opened, "image", workers=Workers(3, "cpu"))
    finally:
        ray.shutdown()
        cluster.shutdown()
    alone = scan(search, vectors.astype(np.float16), 0)
    np.testing.assert_array_equal(spread.rows, alone.rows)
    np.testing.assert_array_equal(spread.scores, alone.scores)
