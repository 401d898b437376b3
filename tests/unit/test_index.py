"""Indexes filled in pieces, searched and re-scored: exact where they say so, the same however they were cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from product_retrieval.embeddings import EncodedProducts, Manifest, publish_part, vector_array
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError, OptionsError
from product_retrieval.index import OperatingPoint, ProductIndex, Side, choose_spec
from product_retrieval.index.build_steps import (
    Build,
    calibrate_side,
    check_gates,
    count_vectors,
    fill_piece,
    gather_products,
    gather_vectors,
    merge_pieces,
    sample_vectors,
)
from product_retrieval.index.calibration import exact_neighbours, recall_at_k
from product_retrieval.index.construction import check, deserialize, fill, merge, num_training_points, serialize, train
from product_retrieval.index.searcher import SideIndex, rescore
from product_retrieval.index.spec import EXACT, IndexSpec, choose_num_lists, num_lists
from product_retrieval.storage import Storage

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
) -> ProductIndex:
    """Return an index of one image side; `rows` overrides the rows that FAISS is told."""
    numbers = np.array(rows or range(len(vectors)), np.int64)
    present = np.flatnonzero(vectors.any(axis=1))
    trained = trained or train(vectors[present], spec, seed=0)
    filled = deserialize(fill(trained, vectors[present], numbers[present]))
    side = SideIndex(filled, vectors.astype(np.float16), {"image": point, "text": point}, spec.is_exact)
    ids = [f"p{row}" for row in range(len(vectors))]
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), np.int64)
    return ProductIndex(1, {"image": side}, pa.table({"product_id": ids, "title": ids}), order)


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
def test_cut_through_a_tie_keeps_the_best_scores_and_orders_them_by_row(k: int) -> None:
    vectors = unit([[1, 1], [1, 1], [1, 0], [1, 1], [0, 1]])
    hits = product_index(vectors).search(unit([[1, 0]]), against="image", k=k)
    assert hits.rows[0, 0] == 2
    assert set(hits.rows[0, 1:]) <= {0, 1, 3}
    assert hits.rows[0, 1:].tolist() == sorted(hits.rows[0, 1:])
    np.testing.assert_allclose(hits.scores[0], [1.0, *[0.5**0.5] * (k - 1)], atol=1e-6)


@pytest.mark.parametrize("num_queries", [1, 7, 50])
def test_exact_index_finds_what_exact_search_finds(num_queries: int) -> None:
    vectors, queries = random_unit(500), random_unit(num_queries, seed=1)
    hits = product_index(vectors).search(queries, against="image", k=10)
    exact = queries.astype(np.float64) @ vectors.T.astype(np.float64)
    best = -np.sort(-exact, axis=1)[:, :10]
    np.testing.assert_allclose(hits.scores, best, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(exact, hits.rows, axis=1), best, atol=1e-6)
    found = exact_neighbours(queries, vectors.astype(np.float16), 10)
    np.testing.assert_allclose(np.take_along_axis(exact, found, axis=1), best, atol=1e-3)  # float16 rounds


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
    side = index.sides["image"]
    parameters = faiss.SearchParametersPreTransform(index_params=faiss.SearchParametersIVF(nprobe=8))
    _, candidates = side.faiss_index.search(queries, 40, params=parameters)
    hits = index.search(queries, against="image", k=10)
    exact = queries @ side.vectors.astype(np.float32).T
    for query, rows in enumerate(candidates):
        expected = sorted(rows.tolist(), key=lambda row, q=query: (-exact[q, row], row))[:10]
        assert hits.rows[query].tolist() == expected
        np.testing.assert_allclose(hits.scores[query], exact[query, expected], atol=1e-6)


def test_all_lists_and_all_candidates_are_exact_search(trained_ivf_pq: bytes) -> None:
    vectors, queries = random_unit(1500), random_unit(20, seed=1)
    index = product_index(vectors, IVF_PQ, point=OperatingPoint(8, 150), trained=trained_ivf_pq)
    hits = index.search(queries, against="image", k=10)
    assert hits.rows.tolist() == exact_neighbours(queries, index.sides["image"].vectors, 10).tolist()


def test_more_hits_than_candidates_are_padded(trained_ivf_pq: bytes) -> None:
    index = product_index(random_unit(400), IVF_PQ, point=OperatingPoint(1, 2), trained=trained_ivf_pq)
    hits = index.search(random_unit(5, seed=1), against="image", k=399)
    num_found = (hits.rows >= 0).sum(axis=1)
    assert ((num_found > 0) & (num_found < 399)).all()
    for rows, scores, found in zip(hits.rows, hits.scores, num_found, strict=True):
        assert (rows[found:] == -1).all()
        assert np.isnan(scores[found:]).all()
        assert (np.diff(scores[:found]) <= 0).all()


def test_rescore_is_the_same_in_blocks_and_at_once() -> None:
    vectors, queries = random_unit(40).astype(np.float16), random_unit(600, seed=1)
    rows = np.random.default_rng(2).integers(-1, 40, (600, 3))
    scores = rescore(queries, rows, vectors)
    alone = [rescore(queries[i : i + 1], rows[i : i + 1], vectors)[0] for i in range(600)]
    np.testing.assert_allclose(scores, np.stack(alone), atol=1e-6)


# Construction


@pytest.mark.parametrize("cuts", [[], [150], [1, 2, 299], [32, 96, 257]])
@pytest.mark.parametrize("spec", [FLAT, IVF_PQ, IndexSpec("IVF4,Flat", "")], ids=lambda spec: spec.factory)
def test_merged_pieces_answer_as_one_serial_fill(spec: IndexSpec, cuts: list[int]) -> None:
    vectors, rows = random_unit(300), np.arange(300)
    trained = train(vectors, spec, seed=0)
    serial = deserialize(fill(trained, vectors, rows))
    merged = deserialize(merge(fill(trained, vectors[part], rows[part]) for part in np.split(rows, cuts)))
    assert merged.ntotal == 300
    queries = random_unit(30, seed=1)
    for found, expected in zip(merged.search(queries, 10), serial.search(queries, 10), strict=True):
        assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("factory", ["IVF4,PQ8x4fsr", "OPQ8_16,IVF8,PQ8x4fsr", "IVF4,PQ8x4", "IVF4,Flat"])
def test_merged_pieces_hold_the_lists_and_codes_of_one_serial_fill(factory: str) -> None:
    vectors, rows = random_unit(300), np.arange(300)
    trained = train(vectors, IndexSpec(factory, ""), seed=0)
    serial = deserialize(fill(trained, vectors, rows))
    merged = deserialize(merge(fill(trained, vectors[part], rows[part]) for part in np.split(rows, [32, 96, 257])))
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
    assert deserialize(merge([empty, empty])).ntotal == 0


def test_no_pieces_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no pieces to merge"):
        merge([])


@pytest.mark.parametrize("factory", ["Nonsense", "IVF512,Flat", "PQ7"])
def test_factory_that_does_not_fit_is_a_wrong_option(factory: str) -> None:
    with pytest.raises(OptionsError, match=f"FAISS cannot make '{factory}' of 300 x 32"):
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
        (200_000_000, 512, "OPQ128_256,IVF262144,PQ128x4fsr"),
    ],
)
def test_choice_by_number_of_vectors(num_vectors: int, dim: int, factory: str) -> None:
    spec = choose_spec(num_vectors, dim)
    assert spec.factory == factory
    assert spec.is_exact == (factory == "Flat")


def test_named_factory_is_taken() -> None:
    assert choose_spec(5, 8, "IVF1,Flat").factory == "IVF1,Flat"


@pytest.mark.parametrize("num_vectors", [1000, 4096, 99_999, 1_000_000, 3_000_000, 70_000_000, 2_000_000_000])
def test_lists_are_a_power_of_two_with_enough_points_to_train_on(num_vectors: int) -> None:
    lists = choose_num_lists(num_vectors)
    assert lists & (lists - 1) == 0
    assert num_vectors / lists >= 39


@pytest.mark.parametrize(("factory", "lists"), [("Flat", 1), ("OPQ8_16,IVF4096,PQ8", 4096), ("IVF7,Flat", 7)])
def test_lists_are_read_from_the_factory(factory: str, lists: int) -> None:
    assert num_lists(factory) == lists


def test_training_points_are_at_most_the_vectors_and_enough_for_the_lists() -> None:
    assert num_training_points(500, IVF_PQ) == 500
    assert num_training_points(10**6, IVF_PQ) == 65_536
    assert num_training_points(10**8, IndexSpec("IVF65536,PQ8", "")) == 65_536 * 64


# Exact neighbours and recall


def test_exact_neighbours_skip_missing_vectors_and_pad() -> None:
    vectors = np.array([[0, 0], [-1, 0], [0, 0], [0, 1]], np.float16)
    found = exact_neighbours(unit([[1, 0]]), vectors, 3)
    assert found.tolist() == [[3, 1, -1]]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 100])
def test_exact_neighbours_do_not_depend_on_blocks(block: int) -> None:
    generator = np.random.default_rng(0)  # small whole numbers: every sum is exact, so that ties are ties
    vectors = generator.integers(-2, 3, (20, 8)).astype(np.float16)
    vectors[5] = vectors[11] = vectors[2]
    queries = generator.integers(-2, 3, (6, 8)).astype(np.float32)
    expected = np.argsort(-(queries @ vectors.astype(np.float32).T), axis=1, kind="stable")[:, :6]
    assert exact_neighbours(queries, vectors, 6, block=block).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("found", "truth", "recall"),
    [
        ([[1, 2]], [[1, 2]], 1.0),
        ([[2, 1]], [[1, 2]], 1.0),
        ([[1, 3]], [[1, 2]], 0.5),
        ([[3, 4]], [[1, 2]], 0.0),
        ([[1, -1]], [[1, -1]], 1.0),
        ([[-1, -1]], [[1, -1]], 0.0),
        ([[1, 2], [5, 6]], [[1, 2], [6, 7]], 0.75),
    ],
)
def test_recall_counts_true_neighbours_found(found: list[list[int]], truth: list[list[int]], recall: float) -> None:
    assert recall_at_k(np.array(found), np.array(truth)) == recall


# The steps of a build


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Publish embeddings of 24 products in parts of 10, 4 and 10; product 5 has no picture, 20 no text."""
    storage = Storage.at(tmp_path / "embeddings")
    images, texts = random_unit(24, 8), random_unit(24, 8, seed=1)
    parts = []
    for part, rows in enumerate(np.split(np.arange(24), [10, 14])):
        table = pa.table(
            {
                "product_id": [f"p{row:02d}" for row in rows],
                "text": [None if row == 20 else f"text {row}" for row in rows],
                "image_vector": vector_array(images[rows], rows != 5, "float16"),
                "text_vector": vector_array(texts[rows], rows != 20, "float16"),
            }
        )
        parts.append(publish_part(storage, "run", EncodedProducts(part, table)))
    fingerprint = Fingerprint("hash", "", "", "sum", 8)
    manifest = Manifest("run", fingerprint, "hash", "float16", {}, {}, tuple(parts), {})
    return Build(storage, manifest, Storage.at(tmp_path / "index"), "build")


def test_vectors_are_unit_and_know_their_rows(build: Build) -> None:
    assert [build.first_row(part) for part in range(3)] == [0, 10, 14]
    vectors, rows = build.vectors(0, "image")
    assert rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert build.vectors(2, "text")[1].tolist() == [14, 15, 16, 17, 18, 19, 21, 22, 23]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_vectors_are_counted_by_side(build: Build) -> None:
    assert [count_vectors(build, part) for part in range(3)] == [
        {"image": 9, "text": 10},
        {"image": 4, "text": 4},
        {"image": 10, "text": 9},
    ]


def test_sample_is_the_same_for_one_seed_and_whole_for_share_one(build: Build) -> None:
    half = [sample_vectors(build, 0, "text", share=0.5, seed=seed) for seed in (1, 1, 2)]
    assert half[0].tolist() == half[1].tolist()
    assert half[0].tolist() != half[2].tolist()
    assert len(sample_vectors(build, 0, "text", share=1, seed=1)) == 10


@pytest.mark.parametrize("groups", [[[0, 1, 2]], [[0], [1], [2]], [[0, 1], [2]]])
def test_parts_in_any_pieces_make_one_index(build: Build, groups: list[list[int]]) -> None:
    trained = train(random_unit(24, 8), FLAT, seed=0)
    pieces = [fill_piece(build, trained, group, "image", number) for number, group in enumerate(groups)]
    index = deserialize(build.output.read(merge_pieces(build, pieces, "image")))
    vectors, rows = zip(*(build.vectors(part, "image") for part in range(3)), strict=True)
    whole = deserialize(fill(trained, np.concatenate(vectors), np.concatenate(rows)))
    queries = random_unit(10, 8, seed=5)
    for found, expected in zip(index.search(queries, 23), whole.search(queries, 23), strict=True):
        assert found.tolist() == expected.tolist()


def test_gathered_vectors_are_by_row_with_zeros_for_missing(build: Build) -> None:
    stored = np.load(build.output.path(gather_vectors(build, "image")))
    assert (stored.dtype, stored.shape) == (np.float16, (24, 8))
    assert np.flatnonzero(~stored.any(axis=1)).tolist() == [5]
    vectors, rows = build.vectors(1, "image")
    assert (stored[rows] == vectors.astype(np.float16)).all()


def test_gathered_products_are_by_row_and_in_order_of_ids(build: Build) -> None:
    products, order = gather_products(build)
    table = pa.ipc.open_file(pa.memory_map(build.output.path(products))).read_all()
    assert table.column_names == ["product_id", "text"]
    assert table.column("product_id").to_pylist() == [f"p{row:02d}" for row in range(24)]
    assert np.load(build.output.path(order)).tolist() == list(range(24))


def test_id_that_occurs_in_two_parts_is_refused(build: Build) -> None:
    twice = replace(build, manifest=replace(build.manifest, parts=(build.manifest.parts[1],) * 2))
    with pytest.raises(ArtifactError, match="product id 'p10' occurs twice"):
        gather_products(twice)


def test_steps_that_were_done_are_not_done_again(build: Build) -> None:
    trained = train(random_unit(24, 8), FLAT, seed=0)

    def run() -> dict[str, int]:
        piece = fill_piece(build, trained, [0, 1, 2], "text", 0)
        names = [piece, merge_pieces(build, [piece], "text"), gather_vectors(build, "text"), *gather_products(build)]
        return {name: Path(build.output.path(name)).stat().st_mtime_ns for name in names}

    assert run() == run()


# Gates and calibration


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
    side = replace(index.sides["image"], vectors=random_unit(300, seed=9).astype(np.float16))
    with pytest.raises(ArtifactError, match="only 0% of sampled products find themselves"):
        check_gates(replace(index, sides={"image": side}), seed=0)


def test_exact_index_needs_no_calibration() -> None:
    index = product_index(random_unit(50))
    points = calibrate_side(index, "image", num_lists=1, target_recall=0.95, num_queries=10, seed=0)
    assert points == {"image": EXACT}


def test_calibrated_point_reaches_its_target_and_cheaper_ones_do_not(trained_ivf_pq: bytes) -> None:
    index = product_index(random_unit(1500), IVF_PQ, trained=trained_ivf_pq)
    points = {
        target: calibrate_side(index, "image", num_lists=8, target_recall=target, num_queries=100, seed=0)["image"]
        for target in (0.2, 0.9)
    }
    assert (points[0.2].recall_at_10 or 0) >= 0.2
    assert (points[0.9].recall_at_10 or 0) >= 0.9
    cost = {target: point.num_probes * point.rescore_factor for target, point in points.items()}
    assert cost[0.2] < cost[0.9]


def test_calibration_that_cannot_reach_its_target_gives_its_best(trained_ivf_pq: bytes) -> None:
    index = product_index(random_unit(1500), IVF_PQ, trained=trained_ivf_pq)
    point = calibrate_side(index, "image", num_lists=1, target_recall=1.0, num_queries=50, seed=0)["image"]
    assert point.num_probes == 1
    assert 0 < (point.recall_at_10 or 0) < 1
