"""Curves of recall and speed are read as they were measured, and never beyond."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from benchmarks.peers.index_data import exact_neighbours
from benchmarks.peers.index_fronts import Point, front, is_lower_bound, points_of, qps_at
from benchmarks.peers.index_plot import plot


def point(recall: float, qps: float) -> Point:
    return Point("", recall, qps, qps, qps, qps)


def test_the_front_leaves_out_what_is_beaten_in_both() -> None:
    fast, good, beaten, slower_twin = point(0.8, 400), point(0.9, 100), point(0.85, 90), point(0.9, 50)
    assert front([good, beaten, slower_twin, fast]) == [fast, good]


def test_nothing_has_no_front() -> None:
    assert front([]) == []
    assert qps_at([], 0.9) is None


def test_speed_between_two_settings_is_their_geometric_mean_half_way() -> None:
    assert qps_at([point(0.8, 400), point(0.9, 100)], 0.85) == pytest.approx(sqrt(400 * 100))


def test_speed_at_a_setting_is_that_settings() -> None:
    assert qps_at([point(0.8, 400), point(0.9, 100)], 0.9) == pytest.approx(100)


def test_above_the_best_recall_there_is_no_speed_and_below_the_lowest_a_lower_bound() -> None:
    assert qps_at([point(0.8, 400), point(0.9, 100)], 0.95) is None
    assert qps_at([point(0.8, 400), point(0.9, 100)], 0.5) == 400
    assert is_lower_bound([point(0.8, 400), point(0.9, 100)], 0.5)
    assert not is_lower_bound([point(0.8, 400), point(0.9, 100)], 0.8)
    assert not is_lower_bound([], 0.5)


def test_settings_have_the_median_over_rounds_and_the_spread() -> None:
    rounds = [
        {"points": [{"kind": kind, "knobs": {"ef": 8}, "recall": 0.9, "batch_qps": qps, "single_qps": qps / 2}]}
        for kind, qps in (("text", 10.0), ("text", 30.0), ("text", 20.0), ("image", 99.0))
    ]
    assert points_of(rounds, "text") == [Point("ef 8", 0.9, 20.0, 10.0, 30.0, 10.0)]


def test_exact_neighbours_are_best_first_over_blocks_and_ties_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.peers.index_data.TRUTH_BLOCK", 2)
    vectors = np.array([[0, 1], [1, 0], [1, 0], [0.6, 0.8]], np.float32)
    assert exact_neighbours(np.array([[1, 0]], np.float32), vectors, 3).tolist() == [[1, 2, 3]]


def test_the_plot_has_a_line_for_each_index_and_kind_that_was_measured() -> None:
    curve = [point(0.85, 400), point(0.95, 100)]
    drawn = plot({"ours": {"image": curve, "text": curve}, "a < b": {"image": curve}}, "title")
    assert drawn.count("<polyline") == 3
    assert "a &lt; b" in drawn
