"""The vectors that the index is measured on have the shape that they claim, and are the same wherever they are made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.clip_like import BLOCK_ROWS, ClipLike, Geometry, write_embeddings
from product_retrieval.embeddings import iterate_parts, read_manifest, vectors_of
from product_retrieval.errors import ArtifactError
from product_retrieval.storage import Storage

SMALL = Geometry(dim=64, content_dims=16, local_dims=6, num_categories=50)


@pytest.fixture(scope="module")
def source() -> ClipLike:
    return ClipLike(SMALL, seed=7)


@pytest.fixture(scope="module")
def full_size() -> ClipLike:
    return ClipLike(Geometry(), seed=7)


def test_vectors_are_float32_of_unit_length(source: ClipLike) -> None:
    for vectors in (source.vectors(0, "image"), source.vectors(0, "text"), source.queries("text", 5, num_products=9)):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(source: ClipLike) -> None:
    again, other = ClipLike(SMALL, seed=7), ClipLike(SMALL, seed=8)
    assert (again.vectors(3, "text") == source.vectors(3, "text")).all()
    assert (again.queries("image", 4, num_products=9) == source.queries("image", 4, num_products=9)).all()
    assert not (other.vectors(3, "text") == source.vectors(3, "text")).any()


def test_blocks_differ_from_one_another_and_sides_too(source: ClipLike) -> None:
    assert not (source.vectors(0, "image") == source.vectors(1, "image")).any()
    assert not (source.vectors(0, "image") == source.vectors(0, "text")).any()


def test_each_side_lies_in_a_cone_of_its_own(full_size: ClipLike) -> None:
    images, texts = full_size.vectors(0, "image"), full_size.vectors(0, "text")
    first, second = slice(0, 1000), slice(1000, 2000)
    assert 0.45 < float((images[first] @ images[second].T).mean()) < 0.55
    assert 0.45 < float((texts[first] @ texts[second].T).mean()) < 0.55
    assert 0.12 < float((images[first] @ texts[second].T).mean()) < 0.20
    assert 0.75 < float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0))) < 0.90


def test_a_text_is_nearer_to_its_own_picture_than_to_most_but_far_from_all(source: ClipLike) -> None:
    images, texts = source.vectors(0, "image"), source.vectors(0, "text")
    own = (images * texts).sum(axis=1)
    others = texts[:500] @ images.T
    assert float((others < own[:500, None]).mean()) > 0.9
    assert others.max() < 0.75


def test_pictures_vary_in_few_dimensions_and_texts_in_more(full_size: ClipLike) -> None:
    needed = {}
    for side in ("image", "text"):
        variances = np.sort(np.linalg.eigvalsh(np.cov(full_size.vectors(0, side).T)))[::-1]
        needed[side] = int(np.searchsorted(np.cumsum(variances) / variances.sum(), 0.5)) + 1
    assert needed["image"] < 40
    assert needed["image"] < needed["text"] < 150


def test_categories_are_of_very_unequal_size(source: ClipLike) -> None:
    sizes = np.sort(np.bincount(source.categories(0), minlength=50))[::-1]
    assert sizes.sum() == BLOCK_ROWS
    assert sizes[0] > 10 * sizes[-1] > 0


def test_products_of_a_category_are_alike(source: ClipLike) -> None:
    images, categories = source.vectors(0, "image"), source.categories(0)
    largest = images[categories == np.bincount(categories).argmax()][:300]
    assert float((largest @ largest.T).mean()) > float((images[:300] @ images[-300:].T).mean()) + 0.1


def test_a_picture_query_finds_one_product_that_is_much_nearer_than_others(source: ClipLike) -> None:
    queries = source.queries("image", 50, num_products=BLOCK_ROWS)
    best = np.sort(queries @ source.vectors(0, "image").T, axis=1)[:, ::-1]
    assert float(best[:, 0].mean()) > 0.85
    assert best.max() < 0.9999


def test_queries_are_about_the_first_products_only(full_size: ClipLike) -> None:
    queries = full_size.queries("image", 50, num_products=20)
    scores = queries @ full_size.vectors(0, "image").T
    assert set(scores.argmax(axis=1)) <= set(range(20))


def test_written_embeddings_hold_the_vectors_and_are_a_prefix_of_larger_ones(source: ClipLike, tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    num_products = BLOCK_ROWS + 5
    write_embeddings(storage, source, num_products)
    manifest = read_manifest(storage)
    assert [part.num_products for part in manifest.parts] == [BLOCK_ROWS, 5]
    first, second = iterate_parts(storage, manifest)
    assert first.column("product_id")[0].as_py() == "p000000000"
    assert second.column("product_id")[4].as_py() == "p000010004"
    vectors, rows = vectors_of(second, "text_vector")
    assert rows.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(vectors, source.vectors(1, "text")[:5], atol=1e-3)


def test_a_side_that_is_not_wanted_is_null(source: ClipLike, tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    write_embeddings(storage, source, 3, sides=["image"])
    (table,) = iterate_parts(storage, read_manifest(storage))
    assert table.column("text_vector").null_count == 3
    assert table.column("image_vector").null_count == 0


def test_keys_are_of_the_type_that_the_embedding_job_writes(source: ClipLike, tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    write_embeddings(storage, source, 3)
    (table,) = iterate_parts(storage, read_manifest(storage))
    for name in ("image_key", "text_key"):
        assert table.schema.field(name).type == pa.binary(16)
        assert len(set(table.column(name).to_pylist())) == 3


def test_a_second_run_keeps_the_parts_and_another_set_is_refused(source: ClipLike, tmp_path: Path) -> None:
    storage = Storage.at(tmp_path)
    first = write_embeddings(storage, source, 3)
    assert write_embeddings(storage, source, 3) == first
    with pytest.raises(ArtifactError, match="belongs to another run"):
        write_embeddings(storage, ClipLike(SMALL, seed=8), 3)
