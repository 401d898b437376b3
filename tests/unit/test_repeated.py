"""Repeated ids: every later row of an id is found, in memory or on disk."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pyarrow as pa
import pytest

from product_retrieval.catalog.repeated import RepeatedIds


def rows(ids: Sequence[str | None], *, run: int = 100, max_in_memory: int = 1000) -> list[int]:
    found = RepeatedIds(max_in_memory=max_in_memory)
    for start in range(0, len(ids), run):
        found.add(pa.array(ids[start : start + run], pa.string()))
    return found.rows().tolist()


def test_no_rows_repeat_nothing() -> None:
    assert RepeatedIds().rows().tolist() == []
    assert rows([None, None, "", ""]) == []


def test_later_rows_of_an_id_are_found_and_the_first_is_not() -> None:
    assert rows(["mug", "cup", "mug", None, "Mug", "mug", "cup "]) == [2, 5]


def test_numbers_are_compared_as_text() -> None:
    found = RepeatedIds()
    found.add(pa.array([7, 70]))
    found.add(pa.chunked_array([pa.array([7]), pa.array([77])]))
    assert found.rows().tolist() == [2]


@pytest.mark.parametrize("max_in_memory", [1, 7, 50, 10_000])
def test_what_goes_to_disk_is_found_as_well(max_in_memory: int) -> None:
    rng = random.Random(0)
    ids = [rng.choice([None, f"\u00e4-{rng.randrange(300)}"]) for _ in range(1000)]
    seen: set[str] = set()
    expected = []
    for row, product_id in enumerate(ids):
        if product_id in seen:
            expected.append(row)
        elif product_id is not None:
            seen.add(product_id)
    assert rows(ids, run=33, max_in_memory=max_in_memory) == expected
