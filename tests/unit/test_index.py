"""Indexes filled in pieces, searched and re-scored: exact where they say so, the same however they were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index import OperatingPoint, ProductIndex, Side, choose_spec
from product_retrieval.index.calibration import (
    Calibration,
    calibrate,
    held_out,
    recall_at_k,
    sample_queries,
    with_fronts,
)
from product_retrieval.index.construction import check, deserialize, fill, merge, num_training_points, serialize, train
from product_retrieval.index.gates import check_gates
from product_retrieval.index.halves import BIAS_SCALE, to_float32, widen
from product_retrieval.index.searcher import MAX_EXACT_ROWS, SearchedSide
from product_retrieval.index.shard import OpenShard, OpenSide
from product_retrieval.index.spec import EXACT, IndexSpec, Kind, MeasuredPoint, choose_num_lists, num_lists
from product_retrieval.index.two_stage import rescore, search_exactly

FLAT = IndexSpec("Flat", "")
IVF_PQ = IndexSpec("OPQ8_16,IVF8,PQ8x4fsr", "")
DIM = 32


def unit(values: Sequence[Sequence[float]] | NDArray[np.float32]) -> NDArray[np.float32]:
    vectors = np.asarray(values, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def random_unit(num: int, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Return random vectors of unit length."""
    return unit(np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32))


def product_index(
    vectors: NDArray[np.float32],
    spec: IndexSpec = FLAT,
    *,
    point: OperatingPoint = EXACT,
    rows: Sequence[int] = (),
    trained: bytes | None = None,
    cuts: Sequence[int] = (),
    tombstones: Sequence[int] = (),
) -> ProductIndex:
    """Return an index of one image side, cut into shards before some rows; `rows` overrides the rows FAISS is told."""
    vectors = vectors.astype(np.float16).astype(np.float32)
    trained = trained or train(vectors[vectors.any(axis=1)], spec, seed=0)
    shards = []
    for part in np.split(np.arange(len(vectors)), list(cuts)):
        numbers = np.array([rows[row] for row in part], np.int64) if rows else np.arange(len(part))
        present = np.flatnonzero(vectors[part].any(axis=1))
        filled = deserialize(fill(trained, vectors[part][present], numbers[present]))
        ids = [f"p{row}" for row in part]
        shards.append(
            OpenShard(
                first_row=int(part[0]),
                products=pa.table({"product_id": ids, "title": ids}),
                rows_by_id=np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64),
                sides={"image": OpenSide(filled, vectors[part].astype(np.float16))} if len(present) else {},
                tombstones=np.array([row - part[0] for row in tombstones if row in part], np.int64),
            )
        )
    side = SearchedSide({"image": point, "text": point}, spec.is_exact)
    return ProductIndex(1, vectors.shape[1], {"image": side}, tuple(shards))


def exact_rows(queries: NDArray[np.float32], vectors: NDArray[np.float16], k: int) -> list[list[int]]:
    """Return the rows of the k nearest stored vectors by brute force."""
    scores = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    return np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()


@pytest.fixture(scope="module")
def trained_ivf_pq() -> bytes:
    """Train once on vectors that several tests fill in: training is most of their time."""
    return train(random_unit(1500), IVF_PQ, seed=0)


# Exact search


def test_nearest_comes_first_and_short_lists_are_padded() -> None:
    index = product_index(unit([[1, 0], [0, 1]]))
    hits = index.search(unit([[0.9, 0.1]]), against="image", k=3)
    assert hits.rows.tolist() == [[0, 1, -1]]
    np.testing.assert_allclose(hits.scores, [[0.993884, 0.110432, np.nan]], atol=1e-5)
    assert (hits.rows.dtype, hits.scores.dtype) == (np.int64, np.float32)


def test_no_queries_give_no_hits() -> None:
    hits = product_index(unit([[1, 0]])).search(np.zeros((0, 2), np.float32), against="image", k=2)
    assert hits.rows.shape == (0, 2)


def test_ties_are_ordered_by_row() -> None:
    vectors = unit([[0, 1], [1, 0], [0, 1], [1, 0], [1, 0]])
    hits = product_index(vectors).search(unit([[1, 0]]), against="image", k=5)
    assert hits.rows.tolist() == [[1, 3, 4, 0, 2]]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_cut_through_a_tie_keeps_the_lowest_rows(k: int) -> None:
    vectors = unit([[1, 1], [1, 1], [1, 0], [1, 1], [0, 1]])
    hits = product_index(vectors).search(unit([[1, 0]]), against="image", k=k)
    assert hits.rows[0].tolist() == [2, 0, 1, 3][:k]
    np.testing.assert_allclose(hits.scores[0], [1.0, *[0.5**0.5] * (k - 1)], atol=1e-3)  # float16 rounds


@pytest.mark.parametrize("num_queries", [1, 7, 50])
def test_exact_index_finds_what_exact_search_finds(num_queries: int) -> None:
    vectors, queries = random_unit(500), random_unit(num_queries, seed=1)
    index = product_index(vectors)
    hits = index.search(queries, against="image", k=10)
    exact = queries.astype(np.float64) @ vectors.astype(np.float16).T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :10]
    np.testing.assert_allclose(hits.scores, best, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, hits.rows, axis=1), best, atol=1e-6)
    assert index.search(queries, against="image", k=10, exact=True).rows.tolist() == hits.rows.tolist()


def test_queries_alone_find_what_they_find_together() -> None:
    index, queries = product_index(random_unit(300)), random_unit(9, seed=1)
    together = index.search(queries, against="image", k=5)
    alone = [index.search(query[None], against="image", k=5).rows[0].tolist() for query in queries]
    assert alone == together.rows.tolist()


@pytest.mark.parametrize(
    ("queries", "against", "k"),
    [
        (np.zeros((1, 2), np.float32), "image", 0),
        (np.zeros((1, 3), np.float32), "image", 1),
        (np.zeros(2, np.float32), "image", 1),
        (np.zeros((1, 2), np.float32), "text", 1),
    ],
)
def test_wrong_search_raises(queries: NDArray[np.float32], against: Side, k: int) -> None:
    with pytest.raises(ValueError, match=r"need queries \[Q, 2\] and k >= 1|no text side"):
        product_index(unit([[1, 0]])).search(queries, against=against, k=k)


def test_queries_of_another_type_or_layout_are_taken() -> None:
    index, queries = product_index(random_unit(50)), random_unit(4, seed=2)
    expected = index.search(queries, against="image", k=3).rows.tolist()
    for other in (queries.astype(np.float64), np.asfortranarray(queries), np.repeat(queries, 2, axis=0)[::2]):
        assert index.search(other, against="image", k=3).rows.tolist() == expected


# Products


def test_products_are_found_by_id() -> None:
    index = product_index(random_unit(25))
    assert [index.row_of(f"p{row}") for row in range(25)] == list(range(25))
    assert [index.row_of(name) for name in ("", "a", "p", "p25", "z", "p1\0")] == [None] * 6


def test_vector_of_a_product_is_of_unit_length_or_none() -> None:
    index = product_index(np.array([[0.6, 0.8], [0, 0]], np.float32))
    vector = index.vector(0, "image")
    assert vector is not None
    np.testing.assert_allclose(vector, [0.6, 0.8], atol=1e-3)
    assert abs(float(np.linalg.norm(vector)) - 1) < 1e-6
    assert index.vector(1, "image") is None
    assert index.vector(0, "text") is None


def test_products_are_described_in_the_asked_order() -> None:
    index = product_index(random_unit(3))
    assert index.describe([2, 0], ["product_id"]) == [{"product_id": "p2"}, {"product_id": "p0"}]
    assert index.describe([]) == []


# IVF-PQ


def test_rescored_hits_are_the_exact_order_of_the_candidates(trained_ivf_pq: bytes) -> None:
    vectors, queries = random_unit(1500), random_unit(20, seed=1)
    index = product_index(vectors, IVF_PQ, point=OperatingPoint(8, 4), trained=trained_ivf_pq)
    side = index.shards[0].sides["image"]
    parameters = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=8))
    faiss_scores, candidates = side.faiss_index.search(queries, 60, params=parameters)
    hits = index.search(queries, against="image", k=10)
    exact = queries @ side.vectors.astype(np.float32).T
    for query, (near, rows) in enumerate(zip(faiss_scores, candidates, strict=True)):
        wanted = rows[near >= near[39]]  # forty, and what ties with the fortieth
        expected = sorted(wanted.tolist(), key=lambda row, q=query: (-exact[q, row], row))[:10]
        assert hits.rows[query].tolist() == expected
        np.testing.assert_allclose(hits.scores[query], exact[query, expected], atol=1e-6)


def test_all_lists_and_all_candidates_are_exact_search(trained_ivf_pq: bytes) -> None:
    vectors, queries = random_unit(1500), random_unit(20, seed=1)
    index = product_index(vectors, IVF_PQ, point=OperatingPoint(8, 150), trained=trained_ivf_pq)
    hits = index.search(queries, against="image", k=10)
    assert hits.rows.tolist() == exact_rows(queries, vectors.astype(np.float16), 10)


@pytest.mark.parametrize("k", [10, 200, 399])
def test_hits_fill_k_though_few_lists_are_probed(trained_ivf_pq: bytes, k: int) -> None:
    index = product_index(random_unit(400), IVF_PQ, point=OperatingPoint(1, 2), trained=trained_ivf_pq)
    hits = index.search(random_unit(5, seed=1), against="image", k=k)
    assert (hits.rows >= 0).all()
    assert all(len(set(rows)) == k for rows in hits.rows.tolist())
    assert (np.diff(hits.scores) <= 0).all()


def test_rescored_candidates_have_the_inner_products_of_their_stored_vectors() -> None:
    vectors, queries = random_unit(40), random_unit(600, seed=1)
    rows = np.random.default_rng(2).integers(0, 40, (600, 3))
    for cuts in ([], [1, 30]):
        scores = rescore(product_index(vectors, cuts=cuts).shards, queries, rows, "image")
        expected = np.einsum("qcd,qd->qc", vectors.astype(np.float16)[rows].astype(np.float32), queries)
        np.testing.assert_allclose(scores, expected, atol=1e-6)


# Shards, filters and tombstones


@pytest.mark.parametrize("cuts", [[1], [700], [100, 101, 1499], [300, 600, 900, 1200]])
@pytest.mark.parametrize("spec", [FLAT, IVF_PQ], ids=lambda spec: spec.factory)
def test_sharded_answers_as_single(trained_ivf_pq: bytes, spec: IndexSpec, cuts: list[int]) -> None:
    vectors, queries = random_unit(1500), random_unit(50, seed=1)
    trained = train(vectors, FLAT, seed=0) if spec.is_exact else trained_ivf_pq
    point = EXACT if spec.is_exact else OperatingPoint(3, 4)
    single, sharded = (
        product_index(vectors, spec, point=point, trained=trained, cuts=c, tombstones=[3, 1200]) for c in ([], cuts)
    )
    allowed = np.random.default_rng(2).random(1500) < 0.5
    for mask in (None, allowed):
        one, many = (index.search(queries, against="image", k=10, allowed=mask) for index in (single, sharded))
        assert many.rows.tolist() == one.rows.tolist()
        np.testing.assert_allclose(many.scores, one.scores, atol=1e-6)
    assert [sharded.row_of(f"p{row}") for row in range(1500)] == [single.row_of(f"p{row}") for row in range(1500)]
    assert sharded.describe([1499, 0, 700]) == single.describe([1499, 0, 700])
    assert sharded.column("title").to_pylist() == single.column("title").to_pylist()
    together = np.concatenate([block for _, block in sharded.blocks("image", 64)])
    assert (together == np.concatenate([block for _, block in single.blocks("image")])).all()
    assert [first for first, _ in single.blocks("image", 1000)] == [0, 1000]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.3, 0.9])
@pytest.mark.parametrize("limit", [0, MAX_EXACT_ROWS], ids=["by FAISS", "exactly"])
def test_filtered_hits_are_those_of_brute_force_over_the_filter(
    trained_ivf_pq: bytes, share: float, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("product_retrieval.index.searcher.MAX_EXACT_ROWS", limit)
    vectors, queries = random_unit(1500), random_unit(20, seed=1)
    allowed = np.random.default_rng(3).random(1500) < share
    everything = OperatingPoint(8, 150)
    index = product_index(vectors, IVF_PQ, point=everything, trained=trained_ivf_pq, cuts=[500])
    hits = index.search(queries, against="image", k=10, allowed=allowed)
    rows = np.flatnonzero(allowed)
    expected = [[int(rows[i]) for i in found] for found in exact_rows(queries, vectors[rows].astype(np.float16), 10)]
    assert [[row for row in found if row >= 0] for found in hits.rows.tolist()] == expected


@pytest.mark.parametrize("num_allowed", [0, 1, 9, 10, 11, 400])
def test_filtered_hits_fill_k_when_k_products_are_allowed(
    trained_ivf_pq: bytes, num_allowed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("product_retrieval.index.searcher.MAX_EXACT_ROWS", 0)
    index = product_index(random_unit(1500), IVF_PQ, point=OperatingPoint(1, 1), trained=trained_ivf_pq)
    allowed = np.zeros(1500, np.bool_)
    allowed[np.random.default_rng(4).choice(1500, num_allowed, replace=False)] = True
    hits = index.search(random_unit(20, seed=1), against="image", k=10, allowed=allowed)
    assert ((hits.rows >= 0).sum(axis=1) == min(10, num_allowed)).all()
    assert allowed[hits.rows[hits.rows >= 0]].all()


@pytest.mark.parametrize("how", ["plain", "exact", "allowed"])
def test_tombstones_are_never_found(trained_ivf_pq: bytes, how: str) -> None:
    vectors = random_unit(1500)
    gone = [0, 5, 700, 1499]
    index = product_index(vectors, IVF_PQ, point=OperatingPoint(8, 4), trained=trained_ivf_pq, tombstones=gone)
    allowed = np.ones(1500, np.bool_) if how == "allowed" else None
    hits = index.search(vectors, against="image", k=3, exact=how == "exact", allowed=allowed)
    assert not np.isin(hits.rows, gone).any()
    assert [index.row_of(f"p{row}") for row in gone] == [None] * 4
    assert (index.num_rows, index.num_products) == (1500, 1496)
    assert np.flatnonzero(~index.listed).tolist() == gone
    blocks = np.concatenate([block for _, block in index.blocks("image", 700)])
    assert np.flatnonzero(~blocks.any(axis=1)).tolist() == gone


def test_shard_without_a_side_is_passed_over() -> None:
    vectors = np.concatenate([random_unit(5, 4), np.zeros((3, 4), np.float32), random_unit(5, 4, seed=1)])
    index = product_index(vectors, cuts=[5, 8])
    hits = index.search(unit([[1, 0, 0, 0]]), against="image", k=13)
    assert sorted(hits.rows[0].tolist()) == [-1, -1, -1, 0, 1, 2, 3, 4, 8, 9, 10, 11, 12]
    assert not index.vectors_of(np.array([5, 6, 7]), "image").any()
    assert index.vector(6, "image") is None


@pytest.mark.parametrize("allowed", [np.ones(3, np.bool_), np.ones(2), np.ones((2, 1), np.bool_)])
def test_filter_of_another_shape_or_type_raises(allowed: NDArray[np.bool_]) -> None:
    with pytest.raises(ValueError, match=r"need allowed bool \[2\]"):
        product_index(unit([[1, 0], [0, 1]])).search(unit([[1, 0]]), against="image", k=1, allowed=allowed)


@pytest.mark.parametrize("row", [-1, 2])
def test_row_that_no_product_has_raises(row: int) -> None:
    index = product_index(unit([[1, 0], [0, 1]]), cuts=[1])
    with pytest.raises(IndexError, match="rows are from 0 to 1"):
        index.describe([row])
    with pytest.raises(IndexError, match="rows are from 0 to 1"):
        index.vectors_of(np.array([row]), "image")


# Construction


@pytest.mark.parametrize("cuts", [[], [150], [1, 2, 299], [32, 96, 257]])
@pytest.mark.parametrize("spec", [FLAT, IVF_PQ, IndexSpec("IVF4,Flat", "")], ids=lambda spec: spec.factory)
def test_merged_pieces_answer_as_one_serial_fill(spec: IndexSpec, cuts: list[int]) -> None:
    vectors, rows = random_unit(300), np.arange(300)
    trained = train(vectors, spec, seed=0)
    serial = deserialize(fill(trained, vectors, rows))
    merged = merge(fill(trained, vectors[part], rows[part]) for part in np.split(rows, cuts))
    assert merged.ntotal == 300
    queries = random_unit(30, seed=1)
    for found, expected in zip(merged.search(queries, 10), serial.search(queries, 10), strict=True):
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("factory", ["IVF4,PQ8x4fsr", "OPQ8_16,IVF8,PQ8x4fsr", "IVF4,PQ8x4", "IVF4,Flat"])
def test_merged_pieces_hold_the_lists_and_codes_of_one_serial_fill(factory: str) -> None:
    vectors, rows = random_unit(300), np.arange(300)
    trained = train(vectors, IndexSpec(factory, ""), seed=0)
    serial = deserialize(fill(trained, vectors, rows))
    merged = merge(fill(trained, vectors[part], rows[part]) for part in np.split(rows, [32, 96, 257]))
    assert lists_of(merged) == lists_of(serial)
    assert sum(len(ids) for ids, _ in lists_of(serial)) == 300


def lists_of(index: Any) -> list[tuple[list[int], list[list[int]]]]:
    """Return the ids and the codes in each list of an IVF."""
    ivf = faiss.extract_index_ivf(index)
    inverted = faiss.downcast_InvertedLists(ivf.invlists)
    lists = []
    for number in range(ivf.nlist):
        length = inverted.list_size(number)
        ids = faiss.rev_swig_ptr(inverted.get_ids(number), length).tolist() if length else []
        lists.append((ids, codes_of(inverted, number, length)))
    return lists


def codes_of(inverted: Any, number: int, length: int) -> list[list[int]]:
    """Return the codes of a list; fast-scan codes lie in blocks of 32 whose padding means nothing."""
    if not length:
        return []
    if not isinstance(inverted, faiss.BlockInvertedLists):
        return faiss.rev_swig_ptr(inverted.get_codes(number), length * inverted.code_size).reshape(length, -1).tolist()
    packer = inverted.packer
    num_blocks = -(-length // packer.nvec)
    blocks = faiss.rev_swig_ptr(inverted.get_codes(number), num_blocks * packer.block_size).reshape(num_blocks, 1, -1)
    return [packer.unpack_1(blocks[i // packer.nvec], i % packer.nvec).tolist() for i in range(length)]


@pytest.mark.parametrize("spec", [FLAT, IVF_PQ], ids=lambda spec: spec.factory)
def test_training_with_one_seed_gives_equal_bytes(spec: IndexSpec) -> None:
    vectors = random_unit(500)
    assert train(vectors, spec, seed=3) == train(vectors, spec, seed=3)


def test_rows_are_the_ids_that_are_found() -> None:
    vectors, rows = unit([[1, 0], [0, 1]]), np.array([70, 7])
    index = deserialize(fill(train(vectors, FLAT, seed=0), vectors, rows))
    assert index.search(vectors, 1)[1].tolist() == [[70], [7]]


def test_piece_without_vectors_is_an_index() -> None:
    trained = train(random_unit(300), IVF_PQ, seed=0)
    empty = fill(trained, np.zeros((0, DIM), np.float32), np.zeros(0, np.int64))
    assert merge([empty, empty]).ntotal == 0


def test_no_pieces_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no pieces to merge"):
        merge([])


@pytest.mark.parametrize("factory", ["Nonsense", "IVF512,Flat", "PQ7"])
def test_factory_that_does_not_fit_is_a_wrong_option(factory: str) -> None:
    with pytest.raises(OptionsError, match=f"FAISS cannot make '{factory}' of "):
        train(random_unit(300), IndexSpec(factory, ""), seed=0)


@pytest.mark.parametrize("data", [b"", b"IxFI", b"not an index" * 10])
def test_bytes_that_are_no_index_are_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError, match="not a FAISS index"):
        deserialize(data)


def test_index_with_wrong_count_dimension_or_metric_is_refused() -> None:
    vectors = random_unit(300)
    index = deserialize(fill(train(vectors, IVF_PQ, seed=0), vectors, np.arange(300)))
    check(index, num_vectors=300, dim=DIM)
    for num_vectors, dim in [(299, DIM), (300, DIM + 1)]:
        with pytest.raises(ArtifactError, match="index has"):
            check(index, num_vectors=num_vectors, dim=dim)
    by_distance = faiss.IndexFlatL2(DIM)
    by_distance.add(vectors)
    with pytest.raises(ArtifactError, match="index has"):
        check(by_distance, num_vectors=300, dim=DIM)


def test_index_with_a_centroid_that_is_not_finite_is_refused() -> None:
    quantizer = faiss.IndexFlatIP(2)
    quantizer.add(np.array([[1, 0], [np.nan, 0]], np.float32))
    ivf = faiss.IndexIVFFlat(quantizer, 2, 2, faiss.METRIC_INNER_PRODUCT)
    with pytest.raises(ArtifactError, match="not finite"):
        check(deserialize(serialize(ivf)), num_vectors=0, dim=2)


# Choice


@pytest.mark.parametrize(
    ("num_vectors", "dim", "factory"),
    [
        (1, 192, "Flat"),
        (999, 192, "Flat"),
        (1000, 192, "OPQ96_192,IVF16,PQ96x4fsr"),
        (50_000, 512, "OPQ128_256,IVF512,PQ128x4fsr"),
        (1_000_000, 512, "OPQ128_256,IVF2048,PQ128x4fsr"),
        (1_000_001, 512, "OPQ128_256,IVF16384,PQ128x4fsr"),
        (200_000_000, 512, "OPQ128_256,IVF262144_HNSW32,PQ128x4fsr"),
    ],
)
def test_choice_by_number_of_vectors(num_vectors: int, dim: int, factory: str) -> None:
    spec = choose_spec(num_vectors, dim)
    assert spec.factory == factory
    assert spec.is_exact == (factory == "Flat")


def test_named_factory_is_taken() -> None:
    assert choose_spec(5, 8, factory="IVF1,Flat").factory == "IVF1,Flat"


@pytest.mark.parametrize(
    ("kind", "factory"),
    [
        ("flat", "Flat"),
        ("ivf-pq", "OPQ128_256,IVF2048,PQ128x4fsr"),
        ("ivf-sq8", "IVF2048,SQ8"),
        ("ivf-rabitq", "RR512,IVF2048,RaBitQ"),
    ],
)
def test_named_kind_is_taken(kind: Kind, factory: str) -> None:
    assert choose_spec(1_000_000, 512, kind=kind).factory == factory


@pytest.mark.parametrize(
    ("memory_bytes", "target", "factory"),
    [
        (73_000_000, 0.95, "OPQ128_256,IVF2048,PQ128x4fsr"),
        (50_000_000, 0.95, "OPQ64_256,IVF2048,PQ64x4fsr"),
        (50_000_000, 0.99, "OPQ128_256,IVF2048,PQ128x4fsr"),
    ],
)
def test_small_codes_are_chosen_where_memory_is_short_and_the_target_low(
    memory_bytes: int, target: float, factory: str
) -> None:
    spec = choose_spec(1_000_000, 512, target_recall=target, memory_bytes=memory_bytes)
    assert spec.factory == factory
    assert ("in spite of --memory-gib" in spec.reason) == (target == 0.99)


@pytest.mark.parametrize("num_vectors", [1000, 4096, 99_999, 1_000_000, 3_000_000, 70_000_000, 2_000_000_000])
def test_lists_are_a_power_of_two_with_enough_points_to_train_on(num_vectors: int) -> None:
    lists = choose_num_lists(num_vectors)
    assert lists & (lists - 1) == 0
    assert num_vectors / lists >= 39


@pytest.mark.parametrize(("factory", "lists"), [("Flat", 1), ("OPQ8_16,IVF4096,PQ8", 4096), ("IVF7,Flat", 7)])
def test_lists_are_read_from_the_factory(factory: str, lists: int) -> None:
    assert num_lists(factory) == lists


def test_training_points_are_enough_for_the_lists_and_no_more_than_vectors_or_memory() -> None:
    assert num_training_points(500, IVF_PQ, 512, 2**40) == 500
    assert num_training_points(10**6, IVF_PQ, 512, 2**40) == 65_536
    assert num_training_points(10**8, IndexSpec("IVF65536,PQ8", ""), 512, 2**40) == 65_536 * 64
    assert num_training_points(10**8, IndexSpec("IVF65536,PQ8", ""), 512, 2**33) == 2**33 // (4 * 512 * 4)


# Exact search by blocks


def test_exact_search_skips_missing_vectors_and_pads() -> None:
    index = product_index(np.array([[0, 0], [-1, 0], [0, 0], [0, 1]], np.float32))
    assert index.search(unit([[1, 0]]), against="image", k=3, exact=True).rows.tolist() == [[3, 1, -1]]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("cuts", [(), (1, 11)])
def test_exact_search_does_not_depend_on_blocks(
    block: int, cuts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)  # small whole numbers: every sum is exact, so that ties are ties
    vectors = generator.integers(-2, 3, (20, 8)).astype(np.float32)
    vectors[5] = vectors[11] = vectors[2]
    queries = generator.integers(-2, 3, (6, 8)).astype(np.float32)
    monkeypatch.setattr("product_retrieval.index.two_stage.BLOCK_ROWS", block)
    index = product_index(vectors, cuts=cuts)
    found = search_exactly(index.shards, queries, "image", 6, [None] * len(index.shards)).rows
    assert found.tolist() == exact_rows(queries, vectors.astype(np.float16), 6)


def test_every_half_widens_exactly() -> None:
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)]
    assert len(halves) == 63488
    assert (to_float32(halves) == halves.astype(np.float32)).all()
    assert (widen(halves) * BIAS_SCALE == halves.astype(np.float32)).all()


# Gates and calibration


@pytest.mark.parametrize(
    ("found", "truth", "recall"),
    [
        ([[1, 2]], [[1, 2]], 1.0),
        ([[2, 1]], [[1, 2]], 1.0),
        ([[1, 3]], [[1, 2]], 0.5),
        ([[3, 4]], [[1, 2]], 0.0),
        ([[1, -1]], [[1, -1]], 1.0),
        ([[-1, -1]], [[1, -1]], 0.0),
        ([[-1, -1]], [[-1, -1]], 1.0),
        ([[1, 2], [5, 6]], [[1, 2], [6, 7]], 0.75),
    ],
)
def test_recall_counts_true_neighbours_found(found: list[list[int]], truth: list[list[int]], recall: float) -> None:
    assert recall_at_k(np.array(found), np.array(truth)) == recall


def test_gates_pass_an_exact_index_with_duplicates() -> None:
    vectors = random_unit(300)
    vectors[100:200] = vectors[:100]
    assert check_gates(product_index(vectors), seed=0) == {"image_self_found": 1.0}


def test_gates_pass_a_coded_index(trained_ivf_pq: bytes) -> None:
    found = check_gates(product_index(random_unit(1500), IVF_PQ, trained=trained_ivf_pq), seed=0)
    assert found["image_self_found"] >= 0.99


def test_gates_refuse_an_exact_index_whose_rows_are_shifted() -> None:
    shifted = [*range(1, 300), 0]
    with pytest.raises(ArtifactError, match=r"image side: only .* find themselves; not published"):
        check_gates(product_index(random_unit(300), rows=shifted), seed=0)


def test_gates_refuse_a_coded_index_whose_rows_are_shifted(trained_ivf_pq: bytes) -> None:
    shifted = [*range(1, 1500), 0]
    broken = product_index(random_unit(1500), IVF_PQ, rows=shifted, trained=trained_ivf_pq)
    with pytest.raises(ArtifactError, match=r"image side: only .* find themselves; not published"):
        check_gates(broken, seed=0)


def test_gates_refuse_an_index_of_other_vectors() -> None:
    index = product_index(random_unit(300))
    (shard,) = index.shards
    side = replace(shard.sides["image"], vectors=random_unit(300, seed=9).astype(np.float16))
    with pytest.raises(ArtifactError, match="only 0% of sampled products find themselves"):
        check_gates(replace(index, shards=(replace(shard, sides={"image": side}),)), seed=0)


def test_exact_index_needs_no_calibration() -> None:
    index = product_index(random_unit(50))
    queries = held_out(index, against="image", kind="image", num_queries=10, seed=0)
    assert calibrate(index, queries, target_recall=0.95) == Calibration(EXACT, ())


def test_queries_do_not_count_finding_themselves() -> None:
    vectors = unit([[1, 0], [0.9, 0.1], [0, 1]])
    queries = held_out(product_index(vectors), against="image", kind="image", num_queries=3, seed=0)
    assert queries.own_rows.tolist() == [0, 1, 2]
    assert queries.truth[1].tolist() == [[1], [0], [1]]
    assert queries.truth[10][0].tolist() == [1, 2, *[-1] * 8]


def test_sampled_queries_have_the_side_and_are_listed() -> None:
    vectors = random_unit(40)
    vectors[::2] = 0
    vectors, rows = sample_queries(product_index(vectors, tombstones=[1, 3]), "image", 100, seed=0)
    assert rows.tolist() == list(range(5, 40, 2))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_index_of_one_product_finds_all_there_is_to_find() -> None:
    index = product_index(unit([[1, 0]]))
    queries = held_out(index, against="image", kind="image", num_queries=10, seed=0)
    assert calibrate(index, queries, target_recall=1.0).point.recall_at_10 == 1.0
    assert check_gates(index, seed=0) == {"image_self_found": 1.0}


def test_calibrated_point_is_the_cheapest_that_reaches_its_target(trained_ivf_pq: bytes) -> None:
    index = product_index(random_unit(1500), IVF_PQ, trained=trained_ivf_pq)
    queries = held_out(index, against="image", kind="image", num_queries=50, seed=0)
    for target in (0.2, 0.9):
        found = calibrate(index, queries, target_recall=target)
        assert (found.point.recall_at_10 or 0) >= target
        chosen = [p for p in found.measured if p.num_probes == found.point.num_probes]
        (chosen,) = [p for p in chosen if p.rescore_factor == found.point.rescore_factor]
        assert all(p.cpu_ms >= chosen.cpu_ms for p in found.measured if p.recall_at_10 >= target)
        assert 10 in chosen.front_of


def test_calibration_that_cannot_reach_its_target_gives_its_best(trained_ivf_pq: bytes) -> None:
    index = product_index(random_unit(1500), IVF_PQ, trained=trained_ivf_pq)
    queries = held_out(index, against="image", kind="image", num_queries=20, seed=0)
    found = calibrate(index, queries, target_recall=1.1)
    assert found.point.num_probes == 8
    assert found.point.recall_at_10 == max(p.recall_at_10 for p in found.measured)


def test_front_holds_what_no_cheaper_point_reaches() -> None:
    points = [MeasuredPoint(n, 2, *recalls, ms) for n, recalls, ms in [
        (1, (0.5, 0.4, 0.3), 1.0), (2, (0.5, 0.5, 0.3), 2.0), (4, (0.6, 0.4, 0.4), 3.0), (8, (0.4, 0.4, 0.2), 4.0)
    ]]  # fmt: skip
    assert [p.front_of for p in with_fronts(points)] == [(1, 10, 100), (10,), (1, 100), ()]
