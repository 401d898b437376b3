"""The fused side: what its vectors are, how its weight is measured, and that builds, updates and searches keep it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from product_retrieval.earlier import content_key
from product_retrieval.embeddings import EncodedProducts, Manifest, publish_part, vector_array
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError, OptionsError, QueryError
from product_retrieval.index import IndexManifest, OperatingPoint, ProductIndex, Side
from product_retrieval.index.build_steps import Build, publish_trained, sample_vectors
from product_retrieval.index.calibration import held_out, measure
from product_retrieval.index.fused import Fusion, describe_fusion, fuse_vectors
from product_retrieval.index.fused_weight import WEIGHTS, ProductSample, choose_weight, hash_groups, sample_groups
from product_retrieval.index.gates import check_gates
from product_retrieval.index.layout import PartRows, all_rows
from product_retrieval.index.manifest import parse_index_manifest
from product_retrieval.index.opening import load
from product_retrieval.index.operating_points import CalibrationOptions, calibrated, recalibrated
from product_retrieval.index.searcher import SearchedSide
from product_retrieval.index.spec import SIDES
from product_retrieval.querying import ProductPart, Query, VectorPart
from product_retrieval.querying.product_search import ProductSearch
from product_retrieval.storage import Storage
from product_retrieval.versions import description
from rayjobs.build_index import BuildOptions, build_version, check_fused, identify, updated_version
from rayjobs.index_report import summary
from rayjobs.index_tasks import Cluster

DIM = 16
Vectors = NDArray[np.float32]


def unit(values: Any) -> Vectors:
    vectors = np.asarray(values, np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


# Vectors


def test_fused_is_the_weighted_sum_of_unit_length() -> None:
    fused = fuse_vectors(unit([[1, 0], [1, 0]]), unit([[0, 1], [1, 0]]), 0.75)
    np.testing.assert_allclose(fused, [[3 / 10**0.5, 1 / 10**0.5], [1, 0]], atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_product_with_one_vector_keeps_it_and_one_without_has_none(weight: float) -> None:
    images, texts = np.array([[1, 0], [0, 0], [0, 0]], np.float32), np.array([[0, 0], [0, 1], [0, 0]], np.float32)
    assert fuse_vectors(images, texts, weight).tolist() == [[1, 0], [0, 1], [0, 0]]


def test_of_vectors_that_cancel_the_heavier_one_stays() -> None:
    for weight in (0.5, 0.49999):
        (fused,) = fuse_vectors(unit([[1, 0]]), unit([[-1, 0]]), weight)
        assert fused.tolist() == ([1, 0] if weight == 0.5 else [-1, 0])


# The weight


def random_sample(
    image_noise: float, text_noise: float, *, num_groups: int = 150, members: int = 2, seed: int = 0
) -> ProductSample:
    """Return groups of products around a centre of their own, each side as far from it as its noise says."""
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(num_groups), members)
    centres = unit(generator.standard_normal((num_groups, DIM)))[groups]
    made = {
        side: unit(centres + noise * unit(generator.standard_normal(centres.shape))).astype(np.float16)
        for side, noise in (("image", image_noise), ("text", text_noise))
    }
    return ProductSample(groups.astype(np.uint64), {"image": made["image"], "text": made["text"]})


@pytest.mark.parametrize(
    ("image_noise", "text_noise", "low", "high"), [(0.3, 1e3, 0.8, 1.0), (1e3, 0.3, 0.0, 0.2), (1.0, 1.0, 0.3, 0.7)]
)
def test_weight_follows_the_side_that_tells_groups_apart(
    image_noise: float, text_noise: float, low: float, high: float
) -> None:
    fusion = choose_weight([random_sample(image_noise, text_noise)], 0)
    assert low <= fusion.image_weight <= high
    assert [each.image_weight for each in fusion.measured] == list(WEIGHTS)
    best = max(each.mean_reciprocal_rank for each in fusion.measured)
    assert best == next(e.mean_reciprocal_rank for e in fusion.measured if e.image_weight == fusion.image_weight)
    assert (fusion.num_queries, fusion.num_products) == ({"image": 300, "text": 300}, 300)


def test_of_weights_that_tie_the_one_nearest_a_half_is_chosen() -> None:
    sample = random_sample(0.5, 1.0)
    fusion = choose_weight([replace(sample, vectors=dict.fromkeys(SIDES, sample.vectors["image"]))], 0)
    assert fusion.image_weight == 0.5
    assert len({each.mean_reciprocal_rank for each in fusion.measured}) == 1


def test_measured_ranks_are_those_of_a_search_without_the_product_itself() -> None:
    sample = random_sample(1.0, 1.5, num_groups=20, members=3)
    vectors = {side: sample.vectors[side].astype(np.float32) for side in SIDES}
    fusion = choose_weight([sample], 0)
    for tried in (fusion.measured[3], fusion.measured[10]):
        gallery = fuse_vectors(vectors["image"], vectors["text"], tried.image_weight)
        for kind in SIDES:
            ranks = []
            for own, query in enumerate(vectors[kind]):
                order = [row for row in np.argsort(-(gallery @ query)).tolist() if row != own]
                ranks.append(1 + next(n for n, row in enumerate(order) if sample.groups[row] == sample.groups[own]))
            assert tried.reciprocal_rank[kind] == pytest.approx(np.mean([1 / rank for rank in ranks]), abs=2e-3)
            assert tried.hit_at_10[kind] == pytest.approx(np.mean([rank <= 10 for rank in ranks]), abs=0.02)


def test_product_of_the_group_with_the_very_same_text_is_not_to_be_found_by_text() -> None:
    sample = random_sample(0.3, 0.3, members=2)
    repeated = np.repeat(sample.vectors["text"][::2], 2, axis=0)
    with pytest.raises(OptionsError, match="only 0 of 300 sampled products have a text of their own"):
        choose_weight([replace(sample, vectors={**sample.vectors, "text": repeated})], 0)
    # With a third product of another text, the two that share theirs look for that one only.
    sample = random_sample(0.3, 1e3, members=3)
    texts = sample.vectors["text"].copy()
    texts[1::3] = texts[::3]
    fusion = choose_weight([replace(sample, vectors={**sample.vectors, "text": texts})], 0)
    assert fusion.num_queries == {"image": 450, "text": 450}
    assert fusion.measured[0].reciprocal_rank["text"] < 0.1, "a text found its copy"


def test_too_few_groups_are_an_error_that_says_how_to_name_a_weight() -> None:
    with pytest.raises(OptionsError, match=r"only 18 of 18 sampled products .*, not 20; .*: --fused-weight 0\.5"):
        choose_weight([random_sample(1.0, 1.0, num_groups=9)], 0)


# Builds


@dataclass
class Serial(Cluster):
    """Runs every step at once, in this process."""

    steps: list[str] = field(default_factory=list)

    def share(self, value: object) -> Any:
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any, **_how: Any) -> Any:
        self.steps.append(function.__name__)
        return function(*arguments)

    def sample(self, build: Build, source: Any, shares: Any, seed: int) -> list[Any]:
        return list(sample_vectors(build, source, shares=shares, seed=seed).values())

    def train(self, build: Build, side: Side, spec: Any, seed: int, samples: Sequence[Any]) -> Any:
        return publish_trained(build, side, spec, samples, seed=seed)

    def get(self, reference: Any) -> Any:
        return reference


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch) -> list[Serial]:
    """Let the job run its steps in this process; return the clusters that it made."""
    made: list[Serial] = []

    def make(memory_bytes: int, num_gpus: float) -> Serial:
        made.append(Serial(memory_bytes, num_gpus))
        return made[-1]

    monkeypatch.setattr("rayjobs.build_index.Cluster", make)
    return made


@dataclass(frozen=True)
class Product:
    id: str
    picture: str | None
    text: str | None
    group: Any = None


def vector_of(content: str | None) -> Vectors:
    """Return a vector that follows from a content; those of one first word lie together."""
    if content is None:
        return np.zeros(DIM, np.float32)
    kind, own = (np.random.default_rng(list(part.encode())) for part in (content.split()[0], content))
    return unit(kind.standard_normal(DIM) + 0.4 * own.standard_normal(DIM))


def shop(num: int = 120) -> list[Product]:
    """Return products in pairs; the first has no picture, the last no text."""
    products = [Product(f"p{n:03d}", f"{n // 2} picture {n}", f"{n // 2} text {n}", f"g{n // 2}") for n in range(num)]
    products[0] = replace(products[0], picture=None)
    products[-1] = replace(products[-1], text=None)
    return products


def embed(folder: Path, products: Sequence[Product], *, rows_per_part: int = 50, groups: Any = None) -> Build:
    """Write embeddings of products, and return a build of an index from them beside it."""
    storage = Storage.at(folder)
    parts = []
    for number, first in enumerate(range(0, len(products), rows_per_part)):
        chosen = products[first : first + rows_per_part]
        columns: dict[str, Any] = {"product_id": [p.id for p in chosen]}
        if any(p.group is not None for p in products):
            columns["group_id"] = pa.array([p.group for p in chosen], groups)
        for side, values in (("image", [p.picture for p in chosen]), ("text", [p.text for p in chosen])):
            keys = [None if value is None else content_key(value.encode()) for value in values]
            columns[f"{side}_key"] = pa.array(keys, pa.binary(16))
            vectors = np.stack([vector_of(value) for value in values])
            columns[f"{side}_vector"] = vector_array(vectors, vectors.any(axis=1), "float16")
        parts.append(publish_part(storage, folder.name, EncodedProducts(number, pa.table(columns))))
    fingerprint = Fingerprint("hash", "", "", "sum", DIM)
    manifest = Manifest(folder.name, fingerprint, "hash", "float16", {}, {}, tuple(parts), {})
    return Build(storage, manifest, Storage.at(folder.parent / "index"), f"build-{folder.name}")


def asked(**how: Any) -> BuildOptions:
    return BuildOptions(embeddings="e", output="o", **how)


def measure_points(manifest: IndexManifest, build: Build) -> tuple[ProductIndex, IndexManifest]:
    """Return the index as it opens once its operating points are measured."""
    options = CalibrationOptions(target_recall=0.9, num_queries=40, seed=0)
    found = calibrated(load(build.output, manifest), manifest, build.output, options)
    return load(build.output, found), found


def expected_vectors(products: Sequence[Product], weight: float) -> Vectors:
    """Return the fused vectors by the definition."""
    sums = [
        (weight if p.text else 1.0) * vector_of(p.picture) + ((1 - weight) if p.picture else 1.0) * vector_of(p.text)
        for p in products
    ]
    return unit(sums)


@pytest.mark.usefixtures("clusters")
@pytest.mark.parametrize("how", [{}, {"factory": "IVF4,PQ8x4fsr", "shard_rows": 60}], ids=["flat", "ivf-pq"])
def test_search_against_fused_is_the_best_of_the_weighted_sums(tmp_path: Path, how: dict[str, Any]) -> None:
    build = embed(tmp_path / "monday", shop(), rows_per_part=30)
    manifest = build_version(build, asked(fused_weight=0.3, **how))
    assert {side: described.num_vectors for side, described in manifest.sides.items()} == {
        "image": 119,
        "text": 119,
        "fused": 120,
    }
    index, manifest = measure_points(manifest, build)
    assert set(manifest.sides["fused"].points) == {"image", "text"}
    assert check_gates(index, seed=0)["fused_self_found"] == 1
    vectors = expected_vectors(shop(), 0.3)
    np.testing.assert_allclose(index.vectors_of(np.arange(120), "fused"), vectors, atol=2e-3)
    search = ProductSearch(index)
    for word in ("7 picture x", "40 text y", "3 z"):
        query = VectorPart(vector=vector_of(word), made_from="image" if "picture" in word else "text")
        answer = search.ask(Query(parts=(query,), against="fused", k=5, exact=bool(how)))
        stored = index.vectors_of(np.arange(120), "fused")
        assert [hit.row for hit in answer.hits] == np.argsort(-(stored @ query.vector))[:5].tolist()
        np.testing.assert_allclose(
            [hit.score for hit in answer.hits], -np.sort(-(vectors @ query.vector))[:5], atol=2e-3
        )


@pytest.mark.usefixtures("clusters")
def test_neither_kind_of_query_is_calibrated_by_finding_itself(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    index = load(build.output, build_version(build, asked(fused_weight=0.5)))
    for kind in SIDES:
        queries = held_out(index, against="fused", kind=kind, num_queries=30, seed=0)
        everything = index.search(queries.vectors, against="fused", k=10, exact=True).rows
        assert (everything == queries.own_rows[:, None]).any(axis=1).sum() > 25, "most would find themselves"
        assert not (queries.truth[100] == queries.own_rows[:, None]).any()
        assert measure(index, queries, OperatingPoint(1, 0)).recall_at_10 == 1.0


@pytest.mark.usefixtures("clusters")
def test_products_are_like_others_by_their_fused_vector_and_both_stays_image_and_text(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    index, _ = measure_points(build_version(build, asked(fused=True)), build)
    search = ProductSearch(index)
    for own, other in (("p000", "p001"), ("p050", "p051"), ("p119", "p118")):
        answer = search.ask(Query(parts=(ProductPart(product_id=own),), against="fused", k=3))
        assert index.describe([answer.hits[0].row])[0]["product_id"] == other
        assert (set(answer.points), answer.score_kind) == ({"fused"}, "cosine similarity")
        assert index.row_of(own) not in [hit.row for hit in answer.hits]
    both = search.ask(Query(parts=(ProductPart(product_id="p050"),), against="both"))
    assert set(both.points) == {"image", "text"}


@pytest.mark.usefixtures("clusters")
def test_index_without_a_fused_side_says_so(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    index, manifest = measure_points(build_version(build, asked()), build)
    assert list(manifest.sides) == ["image", "text"]
    assert manifest.image_weight is None
    with pytest.raises(QueryError, match="this index has no fused side; it has image and text"):
        ProductSearch(index).ask(Query(parts=(VectorPart(vector=vector_of("x")),), against="fused"))


def test_query_of_both_kinds_is_searched_as_hard_as_the_hardest() -> None:
    easy, hard = OperatingPoint(4, 8), OperatingPoint(16, 4)
    side = SearchedSide({"image": easy, "text": hard}, is_exact=False)
    assert [side.measured_kind(kind) for kind in ("image", "text", "fused")] == ["image", "text", "text"]
    assert SearchedSide({"image": easy}, is_exact=False).measured_kind("text") == "image"


@pytest.mark.parametrize("rows_per_part", [7, 1000])
def test_whole_groups_are_sampled_the_same_from_any_parts(tmp_path: Path, rows_per_part: int) -> None:
    build = embed(tmp_path / "monday", [*shop(400), Product("alone", "x", "y")], rows_per_part=rows_per_part)
    samples = [sample_groups(build, source, 0.3, 5) for source in all_rows(build.manifest)]
    groups = np.sort(np.concatenate([sample.groups for sample in samples]))
    whole = embed(tmp_path / "whole", [*shop(400), Product("alone", "x", "y")], rows_per_part=1000)
    once = sample_groups(whole, all_rows(whole.manifest)[0], 0.3, 5)
    assert groups.tolist() == np.sort(once.groups).tolist()
    assert 60 < len(groups) < 180
    sizes = np.unique(groups, return_counts=True)[1]
    assert set(sizes.tolist()) <= {1, 2}
    assert (sizes == 1).sum() <= 1
    fusions = [choose_weight(each, 0) for each in (samples, [once])]
    assert fusions[0] == fusions[1]


def test_large_group_is_not_sampled_whole(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", [Product(f"p{n}", f"{n} x", f"{n} y", "one brand") for n in range(50)])
    assert len(sample_groups(build, PartRows(0, 50), 1.0, 0).groups) == 8


def test_groups_are_text_or_numbers() -> None:
    def hashes(groups: pa.Array) -> list[int]:
        table = pa.table({"product_id": ["a", "b", "c", "d"], "group_id": groups})
        return hash_groups(table, 0, where="part").tolist()

    for groups in (pa.array([5, 5, None, 6]), pa.array(["5", "5", "", "6"]).dictionary_encode()):
        first, second, third, fourth = hashes(groups)
        assert first == second
        assert len({first, third, fourth}) == 3
    with pytest.raises(ArtifactError, match="part: group_id is neither text nor numbers"):
        hashes(pa.array([[1], [1], None, [2]]))


@pytest.mark.usefixtures("clusters")
@pytest.mark.parametrize(
    ("products", "message"),
    [
        ([replace(p, group=None) for p in shop()], r"only 0 of 120 sampled products .*: --fused-weight 0\.5"),
        ([replace(p, picture=None) for p in shop()[:-1]], "has no image vectors to fuse; leave it out"),
    ],
    ids=["no groups", "no pictures"],
)
def test_weight_that_cannot_be_measured_is_one_clear_error(
    tmp_path: Path, products: list[Product], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        build_version(embed(tmp_path / "monday", products), asked(fused=True))


def test_weight_is_measured_once_and_written_down(tmp_path: Path, clusters: list[Serial], capsys: Any) -> None:
    build = embed(tmp_path / "monday", shop())
    manifest = build_version(build, asked(fused=True))
    fusion = manifest.sides["fused"].fusion
    assert fusion is not None
    assert f"fused side: {describe_fusion(fusion)}\n" in capsys.readouterr().out
    assert parse_index_manifest(manifest.to_bytes(), "") == manifest
    assert build_version(build, asked(fused=True)) == manifest
    assert [cluster.steps.count("choose_weight") for cluster in clusters] == [1, 0]
    shown = description(manifest)
    assert describe_fusion(fusion) in shown
    assert all(f"picture {weight:g} " in shown for weight in WEIGHTS)
    assert describe_fusion(fusion) in summary(manifest, build.output, total_s=1.0)


def test_manifest_written_before_there_was_a_fused_side_is_read(tmp_path: Path, clusters: list[Serial]) -> None:
    manifest = build_version(embed(tmp_path / "monday", shop()), asked())
    record = json.loads(manifest.to_bytes())
    for side in record["sides"].values():
        del side["fusion"]
    assert parse_index_manifest(json.dumps(record).encode(), "") == manifest
    assert "choose_weight" not in clusters[0].steps


# Updates


@pytest.mark.usefixtures("clusters")
def test_update_keeps_the_weight_and_holds_what_a_rebuild_holds(tmp_path: Path) -> None:
    base = build_version(embed(tmp_path / "monday", shop()), asked(fused=True))
    weight = base.image_weight
    assert weight is not None
    products = shop()
    products[10] = replace(products[10], text="99 new text")
    products[11] = replace(products[11], picture=None)
    products[20:21] = [Product("new", "98 new", "98 new words")]
    tuesday = embed(tmp_path / "tuesday", products)
    updated = updated_version(tuesday, base, asked(update=True))
    assert updated.sides["fused"].fusion == base.sides["fused"].fusion
    index = load(tuesday.output, updated)
    rows = [row for p in products if (row := index.row_of(p.id)) is not None]
    np.testing.assert_allclose(index.vectors_of(np.array(rows), "fused"), expected_vectors(products, weight), atol=2e-3)
    assert index.row_of("p020") is None
    options = CalibrationOptions(target_recall=0.9, num_queries=40, seed=0)
    before = calibrated(load(tuesday.output, base), base, tuesday.output, options)
    again, lost = recalibrated(index, updated, before, tuesday.output, options)
    assert (set(again.sides["fused"].points), lost) == ({"image", "text"}, 0.0)


@pytest.mark.usefixtures("clusters")
def test_update_to_another_fused_side_is_refused(tmp_path: Path) -> None:
    without = build_version(embed(tmp_path / "without", shop()), asked())
    fused = build_version(embed(tmp_path / "with", shop()), asked(fused_weight=0.25))
    assert fused.sides["fused"].fusion == Fusion(0.25)
    check_fused(without, asked(update=True))
    check_fused(fused, asked(update=True, fused=True))
    check_fused(fused, asked(update=True, fused_weight=0.25))
    with pytest.raises(OptionsError, match="version 0 has no fused side; build anew, without --update"):
        check_fused(without, asked(update=True, fused=True))
    with pytest.raises(OptionsError, match=r"--fused-weight 0\.5: version 0 has 0\.25, which an update keeps"):
        check_fused(fused, asked(update=True, fused_weight=0.5))


def test_fused_side_is_another_build_and_a_weight_yet_another(tmp_path: Path) -> None:
    manifest = embed(tmp_path / "monday", shop(4)).manifest
    options = [asked(), asked(fused=True), asked(fused_weight=0.0), asked(fused_weight=0.5)]
    assert len({identify(manifest, each, None) for each in options}) == 4


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weight_is_a_share(weight: float) -> None:
    with pytest.raises(ValueError, match="--fused-weight is a share from 0 to 1"):
        asked(fused_weight=weight)
