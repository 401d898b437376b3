"""The jobs where Ray runs them: submitted to a head with token authentication, and over a cluster of three nodes."""

from __future__ import annotations

import os
import secrets
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset
import pytest
from ray.cluster_utils import Cluster

from product_retrieval.index import open_index
from product_retrieval.storage import Storage

pytestmark = pytest.mark.distributed

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Head:
    """A Ray head on this machine."""

    dashboard: str
    env: dict[str, str]

    def submit(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Submit a command with the repository as its working directory, and wait for it."""
        return subprocess.run(
            [str(BIN / "ray"), "job", "submit", "--working-dir", ".", "--address", self.dashboard, "--", *command],
            cwd=ROOT,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Start a head with a dashboard on loopback that asks for a token; end all its processes after."""
    port, dashboard_port = free_port(), free_port()
    env = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    temporary = Path("/tmp") / f"mpr-{os.getpid()}"  # sockets need a short path
    process = subprocess.Popen(
        [
            *(str(BIN / "ray"), "start", "--head", "--block", "--num-cpus", "3", "--node-ip-address", "127.0.0.1"),
            *("--port", str(port), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(dashboard_port)),
            *("--temp-dir", str(temporary)),
        ],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    head = Head(f"http://127.0.0.1:{dashboard_port}", env)
    try:
        wait_for_jobs(head, process)
        yield head
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_submitted_jobs_write_what_local_ones_do_and_report_failures(head: Head, catalog: Path, tmp_path: Path) -> None:
    embeddings, index = tmp_path / "embeddings", tmp_path / "index"
    embedded = head.submit(
        *("python", "-m", "rayjobs.embed", "--catalog", str(catalog), "--output", str(embeddings)),
        *("--encoder.model", "hash", "--rows-per-part", "100"),
    )
    assert embedded.returncode == 0, embedded.stdout + embedded.stderr
    built = head.submit("python", "-m", "rayjobs.build_index", "--embeddings", str(embeddings), "--output", str(index))
    assert built.returncode == 0, built.stdout + built.stderr
    opened, _ = open_index(Storage.at(index))
    assert opened.num_products == 398
    failed = head.submit("python", "-m", "rayjobs.embed", "--catalog", "/no/such", "--output", str(tmp_path / "x"))
    assert failed.returncode == 1
    assert "error: /no/such: no such file or folder" in failed.stdout + failed.stderr


def test_a_caller_without_the_token_is_turned_away(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=30)
    assert refused.value.code == 401


def test_three_nodes_give_the_rows_of_one(
    catalog: Path, tmp_path: Path, run_module: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    options = ("--catalog", catalog, "--encoder.model", "hash", "--rows-per-part", "50")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        spread = run_module(
            *(
                "rayjobs.embed",
                *options,
                "--output",
                tmp_path / "three",
                "--pool.min-actors",
                "1",
                "--pool.max-actors",
                "3",
            ),
            env={"RAY_ADDRESS": cluster.address},
        )
        assert spread.returncode == 0, spread.stderr
    finally:
        cluster.shutdown()
    alone = run_module("rayjobs.embed", *options, "--output", tmp_path / "one")
    assert alone.returncode == 0, alone.stderr
    assert rows(tmp_path / "three").equals(rows(tmp_path / "one"))


def rows(output: Path) -> pa.Table:
    """Return the embedded products in the order of their ids."""
    return pyarrow.dataset.dataset(output / "data").to_table().sort_by("product_id")


def wait_for_jobs(head: Head, process: subprocess.Popen[str]) -> None:
    """Wait until a job is accepted: the job server answers before the agent that runs jobs has registered."""
    request = urllib.request.Request(
        f"{head.dashboard}/api/jobs/",
        data=b'{"entrypoint": "true"}',
        headers={"Authorization": f"Bearer {head.env['RAY_AUTH_TOKEN']}", "Content-Type": "application/json"},
    )
    for _ in range(240):
        assert process.poll() is None, process.communicate()
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError:
            select.select([], [], [], 0.5)
    pytest.fail("no job was accepted by the head")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
