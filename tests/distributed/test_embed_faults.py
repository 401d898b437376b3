"""Whatever is killed, whenever: the job or its rerun ends with every row once, and nothing half-written is seen."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer
from ray.cluster_utils import Cluster

from product_retrieval.embeddings import read_manifest
from product_retrieval.faults import VARIABLE
from product_retrieval.storage import Storage

pytestmark = pytest.mark.distributed

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]

OPTIONS = ("--encoder.model", "hash", "--rows-per-part", "16")
NUM_PARTS = 26


@pytest.fixture(scope="module")
def expected(catalog: Path, tmp_path_factory: pytest.TempPathFactory, run_module: Run) -> pa.Table:
    """Return the rows of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("undisturbed")
    assert run_module("rayjobs.embed", "--catalog", catalog, "--output", output, *OPTIONS).returncode == 0
    return rows_of(str(output))


@pytest.fixture(scope="module")
def s3() -> Iterator[dict[str, str]]:
    """Start an S3 server with a bucket; yield the environment that leads to it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    env = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="shop")
        yield env
    server.stop()


def rows_of(output: str) -> pa.Table:
    """Return the embedded products by id, after checking that the parts are those of the manifest."""
    storage = Storage.at(output)
    manifest = read_manifest(storage)
    names = [f"data/{name}" for name in storage.names("data")]
    assert sorted(part.name for part in manifest.parts) == sorted(names)
    tables = []
    for part in manifest.parts:
        assert storage.sha256(part.name) == part.sha256
        with storage.open(part.name) as file:
            tables.append(pq.read_table(file).replace_schema_metadata(None))
    rows = pa.concat_tables(tables).sort_by("product_id")
    assert len(set(rows.column("product_id").to_pylist())) == len(rows) == manifest.num_products == 398
    return rows


# Whom the kill hits, and whether the job survives it.
DRIVER, WORKER = False, True


@pytest.mark.parametrize(
    ("point", "times", "survives"),
    [
        ("published run.json", 1, DRIVER),
        ("collected data/", 2, DRIVER),
        ("staged manifest.json", 2, DRIVER),
        ("published manifest.json", 1, DRIVER),
        ("read data/part-000003", 2, WORKER),
        ("encode data/part-000005", 2, WORKER),
        ("staged data/part-000007", 2, WORKER),
        ("published data/part-000007", 1, WORKER),
        ("published rejected/part-000000", 1, WORKER),
    ],
)
def test_killed_anywhere_the_job_ends_with_every_row_once(
    point: str, times: int, survives: bool, catalog: Path, expected: pa.Table, tmp_path: Path, run_module: Run
) -> None:
    marks, output = tmp_path / "marks", tmp_path / "out"
    marks.mkdir()
    command = ("rayjobs.embed", "--catalog", catalog, "--output", output, *OPTIONS)
    env = {VARIABLE: f"{point}@{marks}@{times}"}
    result = run_module(*command, env=env)
    for _ in range(0 if survives else times):
        assert result.returncode == -signal.SIGKILL
        for file in output.glob("data/*"):
            pq.read_table(file)
        before = {path: path.read_bytes() for path in output.glob("data/*")}
        result = run_module(*command, env=env)
        assert {path: path.read_bytes() for path in before} == before, "a published part was made again"
    assert result.returncode == 0, result.stderr
    assert len(list(marks.iterdir())) == times, "the fault was never reached"
    assert rows_of(str(output)).equals(expected)
    named = {part.rejected_name for part in read_manifest(Storage.at(output)).parts} - {None}
    assert named == {f"rejected/{path.name}" for path in output.glob("rejected/*")}


def test_object_store_gives_the_same_guarantees(
    s3: dict[str, str], catalog: Path, expected: pa.Table, tmp_path: Path, run_module: Run, start_module: Start
) -> None:
    client = boto3.client("s3")
    for file in catalog.iterdir():
        client.upload_file(str(file), "shop", f"catalog/{file.name}")
    marks = tmp_path / "marks"
    marks.mkdir()
    command = ("rayjobs.embed", "--catalog", "s3://shop/catalog", "--output", "s3://shop/out", *OPTIONS)
    killed = run_module(*command, env={**s3, VARIABLE: f"collected data/part-000006@{marks}@1"})
    assert killed.returncode == -signal.SIGKILL
    names = Storage.at("s3://shop/out").names("data")
    assert 0 < len(names) <= NUM_PARTS
    # Two drivers at once finish it.
    drivers = [start_module(*command, env=s3) for _ in range(2)]
    for driver in drivers:
        _, stderr = driver.communicate(timeout=240)
        assert driver.returncode == 0, stderr
    assert rows_of("s3://shop/out").equals(expected)


def test_lost_node_costs_nothing(
    catalog: Path, expected: pa.Table, tmp_path: Path, start_module: Start, wait_for_parts: Callable[..., None]
) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
        cluster.wait_for_nodes()
        env = {"RAY_ADDRESS": cluster.address}
        job = start_module("rayjobs.embed", "--catalog", catalog, "--output", tmp_path, *OPTIONS, env=env)
        wait_for_parts(tmp_path, job, at_least=2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        _, stderr = job.communicate(timeout=240)
        assert job.returncode == 0, stderr
    finally:
        cluster.shutdown()
    assert rows_of(str(tmp_path)).equals(expected)
