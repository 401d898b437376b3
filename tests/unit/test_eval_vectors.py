"""Alignment, hubs and broken vectors: known answers, and direct formulas over small sets."""

from __future__ import annotations

import numpy as np
import pytest

from eval.alignment import (
    alignment,
    area_under_curve,
    effective_dimensions,
    measure_alignment,
    pair_percentiles,
    uniformity,
)
from eval.neighbourhoods import measure_hubness, neighbour_agreement, occurrences
from eval.vector_health import check_vectors


def unit(count: int, dim: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_identical_sides_are_aligned_perfectly() -> None:
    vectors = unit(200, 16)
    measured = measure_alignment(vectors, vectors, seed=0)
    assert measured.alignment == 0
    assert measured.gap == pytest.approx(0, abs=1e-6)
    assert measured.centroid_cosine == pytest.approx(1)
    assert measured.similarities.own_mean == pytest.approx(1, abs=1e-5)
    assert measured.similarities.auc == pytest.approx(1)
    assert (pair_percentiles(vectors, vectors, seed=0) == 1).all()


def test_independent_sides_are_at_chance() -> None:
    measured = measure_alignment(unit(2_000, 64, 1), unit(2_000, 64, 2), seed=0)
    assert measured.alignment == pytest.approx(2, abs=0.03)
    assert measured.similarities.auc == pytest.approx(0.5, abs=0.03)
    assert measured.similarities.overlap > 0.85
    assert pair_percentiles(unit(500, 64, 1), unit(500, 64, 2), seed=0).mean() == pytest.approx(0.5, abs=0.05)


def test_gap_is_the_distance_of_the_means() -> None:
    images, texts = unit(300, 8, 1), unit(300, 8, 2)
    texts[:, 0] += 0.7
    measured = measure_alignment(images, texts, seed=0)
    assert measured.gap == pytest.approx(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0)), rel=1e-4)
    assert alignment(images, texts) == pytest.approx(
        np.mean([np.sum((a - b) ** 2) for a, b in zip(images, texts, strict=True)])
    )


def test_uniformity_of_opposite_points_and_of_one_point() -> None:
    poles = np.array([[1, 0], [-1, 0]], np.float32)
    assert uniformity(poles, seed=0) == pytest.approx(-8)  # squared distance 4, times -2
    assert uniformity(np.repeat(poles[:1], 5, axis=0), seed=0) == pytest.approx(0)


def test_dimensions_of_a_line_a_plane_and_a_point() -> None:
    generator = np.random.default_rng(0)
    line = generator.normal(size=(500, 1)) * np.ones((1, 6))
    plane = np.hstack([generator.normal(size=(5_000, 2)), np.zeros((5_000, 4))])
    assert effective_dimensions(line.astype(np.float32)) == pytest.approx(1)
    assert effective_dimensions(plane.astype(np.float32)) == pytest.approx(2, abs=0.05)
    assert effective_dimensions(np.ones((9, 6), np.float32)) == 0


def test_area_under_the_curve_counts_ties_half() -> None:
    own, other = np.array([1, 2, 2], np.float32), np.array([0, 2, 3, 2], np.float32)
    brute = np.mean([(a > b) + (a == b) / 2 for a in own for b in other])
    assert area_under_curve(own, other) == pytest.approx(brute)


def test_a_wrong_text_has_a_low_percentile() -> None:
    vectors = unit(100, 32)
    texts = vectors.copy()
    texts[[3, 70]] = texts[[70, 3]]
    percentiles = pair_percentiles(vectors, texts, seed=0)
    assert set(np.flatnonzero(percentiles < 1)) == {3, 70}


def test_occurrences_and_hubness_by_hand() -> None:
    rows = np.array([[0, 1], [0, 2], [0, -1]])
    is_listed = np.array([True, True, True, True, False])
    assert occurrences(rows, 5).tolist() == [3, 1, 1, 0, 0]
    measured = measure_hubness(rows, is_listed)
    counts = np.array([3, 1, 1, 0])
    assert measured.largest == 3
    assert measured.anti_hubs == 0.25
    assert measured.top_share == pytest.approx(3 / 5)
    assert measured.robin_hood == pytest.approx(np.abs(counts - 1.25).sum() / 2 / 5)
    assert measured.skewness == pytest.approx(((counts - 1.25) ** 3).mean() / counts.std() ** 3)


def test_even_hits_are_no_hubs() -> None:
    rows = np.arange(20).reshape(10, 2)
    measured = measure_hubness(rows, np.ones(20, np.bool_))
    assert (measured.skewness, measured.robin_hood, measured.num_hubs) == (0, 0, 0)


def test_agreement_of_neighbourhoods_ignores_padding() -> None:
    images, texts = np.array([[1, 2, 3], [4, -1, -1]]), np.array([[3, 1, 9], [5, -1, -1]])
    assert neighbour_agreement(images, texts).tolist() == pytest.approx([2 / 3, 0])


def test_every_kind_of_broken_vector_is_counted() -> None:
    vectors = unit(10, 8).astype(np.float16)
    vectors[0] = 0  # has no such side
    vectors[1, 3] = np.nan
    vectors[2] *= 2
    vectors[3] = vectors[4]
    vectors[5] = np.float16(1 / np.sqrt(8))
    blocks = [(0, vectors[:4]), (4, vectors[4:])]
    health = check_vectors(blocks, np.ones(10, np.bool_))
    assert (health.num_products, health.num_missing, health.num_not_finite) == (10, 1, 1)
    assert (health.num_not_unit, health.num_constant) == (1, 1)
    assert (health.num_duplicated, health.num_duplicate_groups) == (2, 1)
    assert health.largest_groups == [[3, 4]]
