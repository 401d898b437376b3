"""Fixtures of the tests that start Ray: a catalogue with faults in it, and commands run as a user runs them."""

from __future__ import annotations

import io
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NUM_PRODUCTS = 400
BROKEN, TEXT_ONLY, EMPTY = 7, 11, 13
"""Rows of the catalogue whose picture is junk, missing, or missing together with the text."""

Run = Callable[..., subprocess.CompletedProcess[str]]
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a catalogue of 400 products in two files; row 7 is broken, 11 has no picture, 13 has nothing."""
    folder = tmp_path_factory.mktemp("catalog")
    rows = [product(number) for number in range(NUM_PRODUCTS)]
    rows[BROKEN]["image"] = b"not a picture"
    rows[TEXT_ONLY]["image"] = None
    rows[EMPTY].update(image=None, title=None)
    pq.write_table(pa.Table.from_pylist(rows[:250]), folder / "a.parquet", row_group_size=100)
    pq.write_table(pa.Table.from_pylist(rows[250:]), folder / "b.parquet")
    return folder


def product(number: int) -> dict[str, object]:
    """Return a product whose picture is noise of its own."""
    pixels = np.random.default_rng(number).integers(0, 256, (24, 24, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    title = f"{['red', 'blue', 'green'][number % 3]} thing number {number}"
    return {"product_id": f"p{number:03d}", "title": title, "price": number / 4, "image": buffer.getvalue()}


@pytest.fixture(scope="session")
def run_module() -> Run:
    """Return a function that runs `python -m MODULE ARGS` to its end."""

    def run(module: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


@pytest.fixture
def start_module() -> Iterator[Start]:
    """Return a function that starts `python -m MODULE ARGS` in a group of its own; what still runs is ended after."""
    started: list[subprocess.Popen[str]] = []

    def start(module: str, *arguments: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="session")
def wait_for_parts() -> Callable[..., None]:
    """Return a function that waits until a running job has published some parts."""

    def wait(output: Path, process: subprocess.Popen[str], *, at_least: int) -> None:
        for _ in range(18_000):
            if len(list(output.glob("data/*.parquet"))) >= at_least:
                return
            assert process.poll() is None, process.communicate()
            select.select([], [], [], 0.01)
        pytest.fail("no parts after three minutes")

    return wait
