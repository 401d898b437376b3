"""Whole builds and updates without Ray: sharded == single, update == rebuild, and never a stale product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from product_retrieval.earlier import content_key
from product_retrieval.embeddings import EncodedProducts, Manifest, publish_part, vector_array
from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.errors import ArtifactError
from product_retrieval.index import IndexManifest, IndexSpec, OperatingPoint, ProductIndex
from product_retrieval.index.build_steps import Build, publish_trained, sample_vectors
from product_retrieval.index.gates import check_recall
from product_retrieval.index.layout import all_rows, plan_shards
from product_retrieval.index.manifest import SideManifest, describe_file, parse_index_manifest
from product_retrieval.index.opening import load
from product_retrieval.index.operating_points import CalibrationOptions, calibrated, recalibrated
from product_retrieval.index.spec import SIDES, Side
from product_retrieval.index.update import drift_of
from product_retrieval.storage import Storage
from rayjobs.index_tasks import Cluster, build_shards, count_all, train_sides
from rayjobs.update_index import update_version

DIM = 16
FLAT = IndexSpec("Flat", "")
IVF_PQ = IndexSpec("OPQ8_16,IVF4,PQ8x4fsr", "")
POINT = OperatingPoint(num_probes=4, rescore_factor=8)


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

    def train(self, build: Build, side: Side, spec: IndexSpec, seed: int, samples: Sequence[Any]) -> Any:
        return publish_trained(build, side, spec, samples, seed=seed)

    def get(self, reference: Any) -> Any:
        return reference


@dataclass(frozen=True)
class Product:
    id: str
    picture: str | None
    text: str | None
    price: float = 1.0


def vector_of(content: str | None) -> NDArray[np.float32]:
    """Return a vector that follows from a content: pictures and texts of one kind (their first letter) lie together."""
    if content is None:
        return np.zeros(DIM, np.float32)
    kind = np.random.default_rng(ord(content[0])).standard_normal(DIM)
    own = np.random.default_rng(list(content.encode())).standard_normal(DIM)
    vector = kind + own
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def embed(folder: Path, products: Sequence[Product], *, rows_per_part: int = 50) -> Build:
    """Write embeddings of products, and return a build of an index from them beside it."""
    storage = Storage.at(folder)
    parts = []
    for number, first in enumerate(range(0, len(products), rows_per_part)):
        chosen = products[first : first + rows_per_part]
        contents = {"image": [p.picture for p in chosen], "text": [p.text for p in chosen]}
        columns: dict[str, Any] = {
            "product_id": [p.id for p in chosen],
            "text": contents["text"],
            "price": [p.price for p in chosen],
        }
        for side, values in contents.items():
            keys = [None if value is None else content_key(value.encode()) for value in values]
            columns[f"{side}_key"] = pa.array(keys, pa.binary(16))
        for side, values in contents.items():
            vectors = np.stack([vector_of(value) for value in values])
            columns[f"{side}_vector"] = vector_array(vectors, vectors.any(axis=1), "float16")
        parts.append(publish_part(storage, folder.name, EncodedProducts(number, pa.table(columns))))
    fingerprint = Fingerprint("hash", "", "", "sum", DIM)
    manifest = Manifest(folder.name, fingerprint, "hash", "float16", {}, {}, tuple(parts), {})
    return Build(storage, manifest, Storage.at(folder.parent / "index"), f"build-{folder.name}")


def build_anew(build: Build, spec: IndexSpec = FLAT, *, shard_rows: int = 1000) -> IndexManifest:
    cluster = Serial(2**30)
    totals = count_all(cluster, build)
    specs: dict[Side, IndexSpec] = {side: spec for side in SIDES if totals[side]}
    sources = all_rows(build.manifest)
    trained = train_sides(cluster, build, sources, specs, totals, 0)
    shards = build_shards(cluster, build, plan_shards(sources, shard_rows), trained)
    points: dict[Side, OperatingPoint] = {"image": POINT, "text": POINT}
    sides = {
        side: SideManifest(spec.factory, "", totals[side], describe_file(build.output, trained[side]), points)
        for side in specs
    }
    return IndexManifest(
        build_id=build.build_id,
        fingerprint=build.manifest.fingerprint,
        model="hash",
        embeddings_uri="",
        embeddings_run_id="",
        catalog={},
        num_products=build.manifest.num_products,
        dim=DIM,
        options={},
        sides=sides,
        shards=tuple(shards),
    )


def update(build: Build, base: IndexManifest) -> IndexManifest:
    updated = update_version(build, base, Serial(2**30), shard_rows=1000)
    return replace(updated, drift=drift_of(base, updated, 0.0))


def shop(num: int = 200) -> list[Product]:
    return [Product(f"p{n:03d}", f"{'ab'[n % 2]} picture {n}", f"{'cd'[n % 2]} text {n}") for n in range(num)]


def changed_shop() -> list[Product]:
    """Return the shop with a new picture, a new text, a new price, two products gone, one lost its text, two new."""
    products = {p.id: p for p in shop()}
    products["p010"] = replace(products["p010"], picture="a new picture")
    products["p011"] = replace(products["p011"], text="d new text")
    products["p012"] = replace(products["p012"], price=99.0)
    products["p013"] = replace(products["p013"], text=None)
    del products["p020"], products["p199"]
    products["n1"] = Product("n1", "a brand new", "c brand new", 5.0)
    products["n2"] = Product("n2", None, "c only words", 6.0)
    return list(products.values())


def contents_of(index: ProductIndex) -> dict[str, tuple[Any, ...]]:
    """Return each product's columns and stored vectors."""
    rows = np.flatnonzero(index.listed)
    found = {}
    for row, product in zip(rows.tolist(), index.describe(rows.tolist()), strict=True):
        vectors = [index.vectors_of(np.array([row]), side)[0].tolist() for side in index.sides]
        found[product["product_id"]] = (tuple(sorted(product.items(), key=lambda item: item[0])), vectors)
    return found


def answers(index: ProductIndex, against: Side) -> list[list[tuple[str, float]]]:
    """Return the ids and scores of the ten best for sixty queries."""
    queries = np.stack([vector_of(f"{'abcd'[n % 4]} query {n}") for n in range(60)])
    hits = index.search(queries, against=against, k=10)
    return [
        [(p["product_id"], round(float(score), 4)) for p, score in zip(index.describe(rows), scores, strict=True)]
        for rows, scores in zip(hits.rows.tolist(), hits.scores, strict=True)
    ]


# Builds


@pytest.mark.parametrize("spec", [FLAT, IVF_PQ], ids=lambda spec: spec.factory)
def test_built_in_shards_answers_as_built_in_one(tmp_path: Path, spec: IndexSpec) -> None:
    build = embed(tmp_path / "monday", shop())
    one = load(build.output, build_anew(build, spec))
    other = replace(build, build_id="many")
    manifest = build_anew(other, spec, shard_rows=100)
    assert [shard.num_rows for shard in manifest.shards] == [100, 100]
    many = load(build.output, manifest)
    for side in SIDES:
        assert answers(many, side) == answers(one, side)
    assert contents_of(many) == contents_of(one)


def recall_of(index: ProductIndex) -> float:
    queries = np.stack([vector_of(f"{'abcdefgh'[n % 8]} query {n}") for n in range(200)])
    exact = index.search(queries, against="image", k=10, exact=True).rows.tolist()
    found = index.search(queries, against="image", k=10, point=OperatingPoint(1, 2)).rows.tolist()
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]))


def test_sorted_input_gives_the_quality_of_shuffled_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("product_retrieval.index.construction.MIN_TRAINING_POINTS", 100)  # else all are trained on
    ordered = [Product(f"p{n:03d}", f"{'abcdefgh'[n // 100]} picture {n}", None) for n in range(800)]
    shuffled = [ordered[n] for n in np.random.default_rng(0).permutation(800)]
    recalls = {}
    for name, products in (("sorted", ordered), ("shuffled", shuffled)):
        build = embed(tmp_path / name, products)
        recalls[name] = recall_of(load(build.output, build_anew(build, IVF_PQ)))
    build = replace(build, build_id="first")
    first = [vector_of(product.picture).astype(np.float16)[None] for product in ordered[:256]]
    publish_trained(build, "image", IVF_PQ, first, seed=0)
    recalls["first rows"] = recall_of(load(build.output, build_anew(build, IVF_PQ)))
    assert recalls["sorted"] > recalls["shuffled"] - 0.05, recalls
    assert recalls["first rows"] < recalls["shuffled"] - 0.1, recalls


def test_one_product_and_a_side_without_vectors_make_an_index(tmp_path: Path) -> None:
    build = embed(tmp_path / "one", [Product("mug", None, "c mug")])
    manifest = build_anew(build)
    assert list(manifest.sides) == ["text"]
    hits = load(build.output, manifest).search(vector_of("c mug")[None], against="text", k=2)
    assert hits.rows.tolist() == [[0, -1]]


def test_build_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    manifest = build_anew(build, shard_rows=100)
    written = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*.*") if path.is_file()}
    for path in sorted(written):
        path.unlink()
        assert build_anew(build, shard_rows=100) == manifest
    assert {path: path.read_bytes() for path in written} == written


# Operating points


ASKED = CalibrationOptions(target_recall=0.9, num_queries=40, seed=0)


def test_operating_points_are_measured_drawn_and_kept_in_the_manifest(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    manifest = build_anew(build, IVF_PQ)
    found = calibrated(load(build.output, manifest), manifest, build.output, ASKED)
    for side in SIDES:
        described = found.sides[side]
        assert set(described.points) == set(described.measured) == set(SIDES)
        assert all((point.recall_at_10 or 0) >= 0.9 for point in described.points.values())
        assert described.plot is not None
        drawing = ElementTree.fromstring(build.output.read(described.plot.path))
        num_points = sum(len(grid) for grid in described.measured.values())
        assert len(drawing.findall("{*}circle")) == num_points + 2
    check_recall(found, 0.9)
    assert parse_index_manifest(found.to_bytes(), "") == found


def test_target_out_of_reach_is_an_error_that_says_how_close_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("product_retrieval.index.calibration.RESCORE_FACTORS", (2,))
    build = embed(tmp_path / "monday", shop())
    manifest = build_anew(build, IVF_PQ)
    found = calibrated(load(build.output, manifest), manifest, build.output, replace(ASKED, target_recall=1.0))
    with pytest.raises(
        ArtifactError, match=r"reach recall@10 0\.\d+ of --target-recall 1 at best \(4 lists probed, 2 k"
    ):
        check_recall(found, 1.0)


def test_update_measures_its_operating_points_again(tmp_path: Path) -> None:
    build = embed(tmp_path / "monday", shop())
    manifest = build_anew(build, IVF_PQ)
    base = calibrated(load(build.output, manifest), manifest, build.output, ASKED)
    tuesday = embed(tmp_path / "tuesday", changed_shop())
    updated = update(tuesday, base)
    found, lost = recalibrated(load(build.output, updated), updated, base, build.output, ASKED)
    assert 0 <= lost < 0.1
    for side in SIDES:
        for kind, point in found.sides[side].points.items():
            assert (point.recall_at_10 or 0) >= 0.9
            if found.sides[side].measured[kind] == base.sides[side].measured[kind]:
                assert point.num_probes == base.sides[side].points[kind].num_probes


# Updates


@pytest.mark.parametrize("spec", [FLAT, IVF_PQ], ids=lambda spec: spec.factory)
@pytest.mark.parametrize("shard_rows", [100, 1000])
def test_update_holds_what_a_rebuild_holds(tmp_path: Path, spec: IndexSpec, shard_rows: int) -> None:
    base = build_anew(embed(tmp_path / "monday", shop()), spec, shard_rows=shard_rows)
    build = embed(tmp_path / "tuesday", changed_shop(), rows_per_part=30)
    updated = load(build.output, update(build, base))
    rebuilt = load(build.output, build_anew(replace(build, build_id="anew"), spec))
    assert contents_of(updated) == contents_of(rebuilt)
    assert updated.num_products == 200
    assert [updated.row_of(name) for name in ("p020", "p199")] == [None, None]
    for side in SIDES:
        same = [len(set(a) & set(b)) for a, b in zip(answers(updated, side), answers(rebuilt, side), strict=True)]
        assert np.mean(same) >= (10 if spec.is_exact else 9.5)


def test_update_shares_what_did_not_change(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop()), shard_rows=100)
    build = embed(tmp_path / "tuesday", changed_shop())
    updated = update(build, base)
    first, second, added = updated.shards
    for old, new in zip(base.shards, (first, second), strict=True):
        assert (new.sides, new.keys, new.rows_by_id) == (old.sides, old.keys, old.rows_by_id)
    assert (first.num_tombstones, second.num_tombstones) == (4, 1)
    assert first.products != base.shards[0].products, "a price changed"
    assert second.products == base.shards[1].products
    assert (added.first_row, added.num_rows) == (200, 5)
    assert updated.drift is not None
    assert (updated.drift.num_added, updated.drift.num_gone, updated.drift.num_trained) == (5, 5, 200)
    assert updated.drift.rebuild_because is None


def test_update_with_nothing_new_is_the_same_index(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop()))
    updated = update(embed(tmp_path / "tuesday", shop()[::-1]), base)
    assert updated.shards == base.shards


def test_updates_of_updates_do_not_pile_up_shards_and_bring_products_back(tmp_path: Path) -> None:
    monday = shop()
    base = build_anew(embed(tmp_path / "monday", monday), IVF_PQ)
    tuesday = update(embed(tmp_path / "tuesday", changed_shop()), base)
    wednesday_shop = [p for p in changed_shop() if p.id != "n1"] + [monday[20], Product("n3", "b three", "c three")]
    wednesday = update(embed(tmp_path / "wednesday", wednesday_shop), tuesday)
    assert len(wednesday.shards) == 2
    index = load(Storage.at(tmp_path / "index"), wednesday)
    anew = load(Storage.at(tmp_path / "index"), build_anew(embed(tmp_path / "thursday", wednesday_shop), IVF_PQ))
    assert contents_of(index) == contents_of(anew)
    assert index.row_of("p020") == 20, "its vectors were still there"
    assert index.row_of("n1") is None


def test_new_column_is_there_for_all_products(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop(60)))
    build = embed(tmp_path / "tuesday", shop(61))
    part = build.manifest.parts[0]
    table = build.read(all_rows(build.manifest)[0]).replace_schema_metadata(None)
    table = table.drop_columns(["price"]).append_column("brand", pa.array(["Acme"] * len(table)))
    other = Storage.at(tmp_path / "other")
    renamed = publish_part(other, "other", EncodedProducts(0, table))
    (tmp_path / "tuesday" / part.name).unlink()
    (tmp_path / "other" / part.name).rename(tmp_path / "tuesday" / part.name)
    build = replace(build, manifest=replace(build.manifest, parts=(renamed, *build.manifest.parts[1:])))
    index = load(build.output, update(build, base))
    assert index.describe([3], ["product_id", "brand"]) == [{"product_id": "p003", "brand": "Acme"}]
    assert len(index.column("brand")) == index.num_rows


def test_drift_says_when_to_build_anew(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop()))
    half = [replace(p, picture="a" + str(p.picture)) if n % 2 else p for n, p in enumerate(shop())]
    updated = update_version(embed(tmp_path / "tuesday", half), base, Serial(2**30), shard_rows=1000)
    drift = drift_of(base, updated, 0.02)
    assert (drift.num_added, drift.num_gone, drift.share) == (100, 100, 1.0)
    assert drift.rebuild_because == (
        "added and gone products are 100% of those trained on and recall@10 fell by 0.020 since training"
    )


def test_embeddings_of_another_model_are_refused(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop(20)))
    build = embed(tmp_path / "tuesday", shop(20))
    other = replace(build.manifest, fingerprint=Fingerprint("other", "", "", "", DIM))
    with pytest.raises(ArtifactError, match="another model"):
        update(replace(build, manifest=other), base)


def test_embeddings_without_products_are_refused(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", shop(20)))
    with pytest.raises(ArtifactError, match="holds no vectors"):
        update(embed(tmp_path / "tuesday", []), base)


def test_side_that_was_not_trained_for_is_refused(tmp_path: Path) -> None:
    base = build_anew(embed(tmp_path / "monday", [replace(p, picture=None) for p in shop(20)]))
    with pytest.raises(ArtifactError, match="has the image side, which version 0 was not trained for"):
        update(embed(tmp_path / "tuesday", shop(20)), base)
