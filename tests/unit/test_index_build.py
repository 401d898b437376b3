"""The steps of a build: the same index however the products are cut into pieces and shards, and nothing done twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from product_retrieval.embeddings import EncodedProducts, Manifest, publish_part, vector_array
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index.build_steps import Build, count_vectors, fill_piece, publish_trained, sample_vectors
from product_retrieval.index.construction import deserialize, fill, train
from product_retrieval.index.layout import PartRows, ShardPlan, all_rows, plan_shards, rows_for_memory
from product_retrieval.index.shard_files import (
    check_ids,
    describe_shard,
    gather_products,
    gather_vectors,
    merge_pieces,
)
from product_retrieval.index.spec import IndexSpec
from product_retrieval.storage import Storage

FLAT = IndexSpec("Flat", "")


def random_unit(num: int, dim: int, seed: int = 0) -> NDArray[np.float32]:
    """Return random vectors of unit length."""
    vectors = np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


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
                "image_key": [None if row == 5 else bytes([row]) * 16 for row in rows],
                "text_key": [None if row == 20 else bytes([100 + row]) * 16 for row in rows],
                "image_vector": vector_array(images[rows], rows != 5, "float16"),
                "text_vector": vector_array(texts[rows], rows != 20, "float16"),
            }
        )
        parts.append(publish_part(storage, "run", EncodedProducts(part, table)))
    fingerprint = Fingerprint("hash", "", "", "sum", 8)
    manifest = Manifest("run", fingerprint, "hash", "float16", {}, {}, tuple(parts), {})
    return Build(storage, manifest, Storage.at(tmp_path / "index"), "build")


@pytest.fixture
def plan(build: Build) -> ShardPlan:
    """Return the plan of one shard of all products."""
    (plan,) = plan_shards(all_rows(build.manifest), shard_rows=100)
    return plan


def whole(build: Build, part: int) -> PartRows:
    return PartRows(part, build.manifest.parts[part].num_products)


def publish_flat(build: Build) -> str:
    return publish_trained(build, "image", FLAT, [np.zeros((0, 8), np.float16)], seed=0)


def build_shard(build: Build, plan: ShardPlan) -> str:
    """Fill and merge the image side of a shard; return the name of its index."""
    trained = publish_flat(build)
    for piece in range(len(plan.pieces())):
        fill_piece(build, plan, "image", piece, trained)
    return merge_pieces(build, plan, "image")


# Layout


@pytest.mark.parametrize(
    ("shard_rows", "shards"),
    [(1, [[0], [1], [2]]), (13, [[0], [1], [2]]), (14, [[0, 1], [2]]), (23, [[0, 1], [2]]), (24, [[0, 1, 2]])],
)
def test_shards_are_whole_parts_within_their_rows(build: Build, shard_rows: int, shards: list[list[int]]) -> None:
    plans = plan_shards(all_rows(build.manifest), shard_rows)
    assert [[source.part for source in plan.sources] for plan in plans] == shards
    assert [plan.name for plan in plans] == [f"shard-{number:05d}" for number in range(len(shards))]
    assert sum(plan.num_rows for plan in plans) == 24


def test_nothing_makes_no_shards() -> None:
    assert plan_shards([], 10) == []


def test_less_memory_makes_smaller_shards() -> None:
    spec = IndexSpec("OPQ8_16,IVF8,PQ8x4fsr", "")
    rows = [rows_for_memory([FLAT, spec], 512, gib * 2**30) for gib in (1, 2, 8, 1024)]
    assert rows == [131072, 262144, 1048576, 16777216]
    assert rows_for_memory([spec], 512, 2**30) == 2**19
    assert rows_for_memory([FLAT], 512, 1) == 1024


# Steps


def test_part_whose_products_were_all_rejected_has_no_vectors(build: Build) -> None:
    table = pq.read_table(build.embeddings.path(build.manifest.parts[0].name)).slice(0, 0)
    empty = publish_part(build.embeddings, "run", EncodedProducts(9, table))
    assert count_vectors(replace(build, manifest=replace(build.manifest, parts=(empty,))), 0) == {"image": 0, "text": 0}


def test_vectors_are_unit_and_know_their_places(build: Build) -> None:
    vectors, rows = build.vectors(whole(build, 0), "image")
    assert rows.tolist() == [0, 1, 2, 3, 4, 6, 7, 8, 9]
    assert build.vectors(whole(build, 2), "text")[1].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)  # float16 rounds
    assert (vectors == vectors.astype(np.float16)).all(), "not as they will be stored"


def test_chosen_rows_of_a_part_are_read(build: Build) -> None:
    chosen = PartRows(0, 3, np.array([2, 5, 9]))
    assert build.read(chosen, ["product_id"]).column(0).to_pylist() == ["p02", "p05", "p09"]
    assert build.vectors(chosen, "image")[1].tolist() == [0, 2]


def test_vectors_are_counted_by_side(build: Build) -> None:
    assert [count_vectors(build, part) for part in range(3)] == [
        {"image": 9, "text": 10},
        {"image": 4, "text": 4},
        {"image": 10, "text": 9},
    ]


def test_sample_is_the_same_for_one_seed_and_whole_for_share_one(build: Build) -> None:
    part = whole(build, 0)
    half = [sample_vectors(build, part, shares={"text": 0.5}, seed=seed)["text"] for seed in (1, 1, 2)]
    assert half[0].tolist() == half[1].tolist()
    assert half[0].tolist() != half[2].tolist()
    both = sample_vectors(build, part, shares={"image": 1, "text": 0}, seed=1)
    assert {side: len(vectors) for side, vectors in both.items()} == {"image": 9, "text": 0}


def test_sampling_refuses_a_damaged_part(build: Build) -> None:
    file = Path(build.embeddings.path(build.manifest.parts[1].name))
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ArtifactError, match="SHA-256 differs from the manifest"):
        sample_vectors(build, whole(build, 1), shares={"image": 1.0}, seed=0)


def test_reading_refuses_a_part_damaged_since(build: Build) -> None:
    file = Path(build.embeddings.path(build.manifest.parts[1].name))
    damaged = bytearray(file.read_bytes())
    damaged[100] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(ArtifactError, match=build.manifest.parts[1].name):
        build.read(whole(build, 1))


@pytest.mark.parametrize("rows", [1, 14, 100])
def test_parts_in_any_pieces_make_one_index(build: Build, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_retrieval.index.layout.PIECE_ROWS", rows)
    (plan,) = plan_shards(all_rows(build.manifest), shard_rows=100)
    assert len(plan.pieces()) == {1: 3, 14: 2, 100: 1}[rows]
    index = deserialize(build.output.read(build_shard(build, plan)))
    found = [build.vectors(source, "image") for source in plan.sources]
    vectors = np.concatenate([vectors for vectors, _ in found])
    numbers = np.concatenate([places + first for (_, places), first in zip(found, (0, 10, 14), strict=True)])
    serial = deserialize(fill(train(vectors, FLAT, seed=0), vectors, numbers))
    queries = random_unit(10, 8, seed=5)
    for some, expected in zip(index.search(queries, 23), serial.search(queries, 23), strict=True):
        assert some.tolist() == expected.tolist()


def test_gathered_vectors_are_by_row_with_zeros_for_missing(build: Build, plan: ShardPlan) -> None:
    stored = np.load(build.output.path(gather_vectors(build, plan, "image")), mmap_mode="r")
    assert (stored.dtype, stored.shape) == (np.float16, (24, 8))
    assert np.flatnonzero(~stored.any(axis=1)).tolist() == [5]
    vectors, rows = build.vectors(whole(build, 1), "image")
    assert (stored[rows + 10] == vectors.astype(np.float16)).all()


def test_gathered_products_are_by_row_and_in_order_of_ids(build: Build, plan: ShardPlan) -> None:
    products, order, keys = gather_products(build, plan)
    table = pa.ipc.open_file(pa.memory_map(build.output.path(products))).read_all()
    assert table.column_names == ["product_id", "text"]
    assert table.column("product_id").to_pylist() == [f"p{row:02d}" for row in range(24)]
    assert table.column("product_id").num_chunks == 1
    assert np.load(build.output.path(order)).tolist() == list(range(24))
    known = np.load(build.output.path(keys))
    assert known.shape == (24, 32)
    assert known[[4, 5, 20], 0].tolist() == [4, 0, 20]
    assert known[[4, 5, 20], 16].tolist() == [104, 105, 0]


def test_id_that_occurs_in_two_parts_of_a_shard_is_refused(build: Build, plan: ShardPlan) -> None:
    twice = replace(build, manifest=replace(build.manifest, parts=(build.manifest.parts[1],) * 2))
    (plan,) = plan_shards(all_rows(twice.manifest), shard_rows=100)
    with pytest.raises(ArtifactError, match="product id 'p10' occurs twice"):
        gather_products(twice, plan)


def test_id_that_occurs_in_two_shards_is_refused(build: Build) -> None:
    twice = replace(build, manifest=replace(build.manifest, parts=(*build.manifest.parts, build.manifest.parts[0])))
    plans = plan_shards(all_rows(twice.manifest), shard_rows=14)
    products = [gather_products(twice, plan)[0] for plan in plans]
    check_ids(twice, products, 1)
    with pytest.raises(ArtifactError, match="product id 'p00' occurs twice"):
        check_ids(twice, products, 2)


def test_shard_is_described_by_its_files_and_sides_that_it_has(build: Build) -> None:
    no_picture = ShardPlan("shard-00000", (PartRows(0, 1, np.array([5])),))
    name, vectors = build_shard(build, no_picture), gather_vectors(build, no_picture, "image")
    shard = describe_shard(build, no_picture, 7, gather_products(build, no_picture), {"image": (name, vectors)})
    assert (shard.first_row, shard.num_rows, shard.sides) == (7, 1, {})
    some = ShardPlan("shard-00001", (PartRows(0, 3, np.array([4, 5, 6])),))
    name, vectors = build_shard(build, some), gather_vectors(build, some, "image")
    shard = describe_shard(build, some, 0, gather_products(build, some), {"image": (name, vectors)})
    assert shard.sides["image"].num_vectors == 2


def test_steps_that_were_done_are_not_done_again(build: Build, plan: ShardPlan) -> None:
    def run() -> dict[str, int]:
        names = [build_shard(build, plan), gather_vectors(build, plan, "image"), *gather_products(build, plan)]
        return {name: Path(build.output.path(name)).stat().st_mtime_ns for name in names}

    assert run() == run()


def test_merged_pieces_are_deleted(build: Build, plan: ShardPlan) -> None:
    build_shard(build, plan)
    assert build.output.names(build.path(f"{plan.name}/pieces")) == []
