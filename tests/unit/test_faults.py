"""The place to die does nothing unless it is told to."""

from __future__ import annotations

import multiprocessing
import signal
from pathlib import Path

import pytest

from product_retrieval.faults import VARIABLE, fault_point


def die_at(points: list[str]) -> int | None:
    """Pass the points in a process of their own and return its exit code."""
    process = multiprocessing.get_context("fork").Process(target=lambda: [fault_point(point) for point in points])
    process.start()
    process.join()
    return process.exitcode


def test_nothing_happens_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    fault_point("staged data/part-000000.parquet")


def test_named_point_kills_as_often_as_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"staged data@{tmp_path}@2")
    assert die_at(["read data/1", "published data/1"]) == 0
    assert die_at(["read data/1", "staged data/1"]) == -signal.SIGKILL
    assert die_at(["staged data/2"]) == -signal.SIGKILL
    assert die_at(["staged data/3"]) == 0
