"""The index job: pieces merged as filled serially, published whole, reused, and clear about what is wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from product_retrieval.faults import VARIABLE
from product_retrieval.index import open_index
from product_retrieval.index.fused import describe_fusion, fuse_vectors
from product_retrieval.index.spec import SIDES
from product_retrieval.index.versions import current_version, versions
from product_retrieval.storage import Storage

pytestmark = pytest.mark.distributed

Run = Callable[..., subprocess.CompletedProcess[str]]


def embed(catalog: Path, output: Path, run_id: str) -> Path:
    """Embed a catalogue with the hash encoder, in this process and without Ray."""
    from product_retrieval.catalog import plan_catalog
    from product_retrieval.embedding_steps import PartPublisher, embed_serially
    from product_retrieval.embeddings import Manifest
    from product_retrieval.encoders.hashing import HashEncoder
    from product_retrieval.images import ImageLimits
    from product_retrieval.slice_reader import SliceReader

    plan = plan_catalog(str(catalog), rows_per_part=64)
    encoder = HashEncoder()
    storage = Storage.at(output)
    publisher = PartPublisher(storage, run_id)
    reader = SliceReader(plan, encoder, ImageLimits())
    parts = embed_serially(reader, encoder, publisher, slices=plan.slices, batch_size=64, vector_type="float16")
    manifest = Manifest(
        run_id=run_id,
        fingerprint=encoder.fingerprint,
        model="hash",
        vector_type="float16",
        options={},
        catalog={"image_root": plan.image_root, "image_column": "image"},
        parts=tuple(parts),
        rejected_by_reason={},
    )
    storage.put_if_absent("manifest.json", manifest.to_bytes())
    return output


@pytest.fixture(scope="module")
def embeddings(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed the catalogue."""
    return embed(catalog, tmp_path_factory.mktemp("embeddings"), "run")


def test_flat_index_answers_as_the_vectors_do_and_is_reused(embeddings: Path, tmp_path: Path, run_module: Run) -> None:
    first = run_module("rayjobs.build_index", "--embeddings", embeddings, "--output", tmp_path)
    assert first.returncode == 0, first.stderr
    assert "exact search: 397 vectors are too few to train IVF-PQ on" in first.stdout
    index, manifest = open_index(Storage.at(tmp_path))
    assert (manifest.version, manifest.num_products) == (1, 398)
    vectors = index.vectors_of(np.arange(398), "image")
    queries = np.stack([vector for row in (0, 100, 397) if (vector := index.vector(row, "image")) is not None])
    hits = index.search(queries, against="image", k=398)
    expected = queries @ vectors.T
    expected[:, ~vectors.any(axis=1)] = -np.inf
    assert hits.rows[:, 0].tolist() == [0, 100, 397]
    assert (hits.rows[:, -1] == -1).all(), "the product without a picture must not be found by picture"
    np.testing.assert_allclose(hits.scores[:, :50], -np.sort(-expected, axis=1)[:, :50], atol=2e-3)
    second = run_module("rayjobs.build_index", "--embeddings", embeddings, "--output", tmp_path)
    assert second.returncode == 0
    assert "already built as version 1; nothing to do" in second.stdout


def test_other_options_make_another_version_and_move_the_alias(
    embeddings: Path, tmp_path: Path, run_module: Run
) -> None:
    arguments = ("rayjobs.build_index", "--embeddings", embeddings, "--output", tmp_path)
    assert run_module(*arguments).returncode == 0
    ivf = run_module(*arguments, "--factory", "IVF8,PQ16x4fsr")
    assert ivf.returncode == 0, ivf.stderr
    assert current_version(Storage.at(tmp_path)) == 2
    flat, _ = open_index(Storage.at(tmp_path), 1)
    quantized, manifest = open_index(Storage.at(tmp_path))
    assert manifest.sides["image"].factory == "IVF8,PQ16x4fsr"
    for side in SIDES:
        queries = flat.vectors_of(np.arange(50, 90), side)
        exact = flat.search(queries, against=side, k=10, query_kind=side).rows
        found = quantized.search(queries, against=side, k=10, query_kind=side).rows
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)])
        measured = manifest.sides[side].points[side].recall_at_10
        assert measured is not None
        assert abs(recall - measured) < 0.15


CODED = ("--factory", "IVF8,PQ16x4fsr", "--shard-rows", "150")


@pytest.fixture(scope="module")
def undisturbed(embeddings: Path, tmp_path_factory: pytest.TempPathFactory, run_module: Run) -> Path:
    """Build an index of several shards that nothing disturbs."""
    output = tmp_path_factory.mktemp("undisturbed")
    result = run_module("rayjobs.build_index", "--embeddings", embeddings, "--output", output, *CODED)
    assert result.returncode == 0, result.stderr
    return output


def test_shards_answer_as_one(embeddings: Path, undisturbed: Path, tmp_path: Path, run_module: Run) -> None:
    whole = ("rayjobs.build_index", "--embeddings", embeddings, "--output", tmp_path, *CODED[:2])
    assert run_module(*whole).returncode == 0
    many, manifest = open_index(Storage.at(undisturbed))
    one, _ = open_index(Storage.at(tmp_path))
    assert [shard.num_rows for shard in manifest.shards] == [126, 122, 150]
    assert set(manifest.peak_memory) >= {"train", "fill_piece", "merge_pieces", "gather_vectors", "gather_products"}
    assert all(held > 0 for held in manifest.peak_memory.values())
    for side in SIDES:
        queries = one.vectors_of(np.arange(40, 90), side)
        point = one.sides[side].points[side]
        hits = [index.search(queries, against=side, k=10, point=point) for index in (one, many)]
        assert hits[0].rows.tolist() == hits[1].rows.tolist()


# Whom the kill hits, and whether the job survives it.
DRIVER, WORKER = False, True


@pytest.mark.parametrize(
    ("point", "survives"),
    [
        ("published builds/", DRIVER),
        ("staged versions/", DRIVER),
        ("published versions/", DRIVER),
        ("image.trained.faiss", WORKER),
        ("published pieces/image-00000", WORKER),
        ("staged shard-00001/text.faiss", WORKER),
        ("published shard-00002/products.arrow", WORKER),
        ("staged shard-00000/image.vectors.npy", WORKER),
    ],
)
def test_killed_anywhere_the_build_ends_with_the_same_index(
    point: str, survives: bool, embeddings: Path, undisturbed: Path, tmp_path: Path, run_module: Run
) -> None:
    marks, output = tmp_path / "marks", tmp_path / "index"
    marks.mkdir()
    command = ("rayjobs.build_index", "--embeddings", embeddings, "--output", output, *CODED)
    build = open_index(Storage.at(undisturbed))[1].build_id
    moment, _, name = point.rpartition(" ")
    name = name if name.endswith("/") else f"builds/{build}/" + ("shard-00000/" * name.startswith("pieces")) + name
    env = {VARIABLE: f"{moment} {name}".strip() + f"@{marks}@1"}
    result = run_module(*command, env=env)
    if not survives:
        assert result.returncode == -signal.SIGKILL
        assert not (output / "current.json").exists()
        result = run_module(*command, env=env)
    assert result.returncode == 0, result.stderr
    assert len(list(marks.iterdir())) == 1, "the fault was never reached"
    _, found = open_index(Storage.at(output))
    _, expected = open_index(Storage.at(undisturbed))
    assert (found.shards, found.num_products) == (expected.shards, expected.num_products)
    assert versions(Storage.at(output)) == [1]
    assert not list(output.rglob("pieces/*.faiss"))


def test_update_applies_what_changed(catalog: Path, undisturbed: Path, tmp_path: Path, run_module: Run) -> None:
    index = tmp_path / "index"
    shutil.copytree(undisturbed, index)
    rows = pq.read_table(catalog / "a.parquet").to_pylist()
    rows[20]["title"] = "a violet thing"
    rows[21]["price"] = 1234.5
    del rows[22]
    changed = tmp_path / "catalog"
    changed.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), changed / "a.parquet")
    shutil.copy(catalog / "b.parquet", changed / "b.parquet")
    tuesday = embed(changed, tmp_path / "tuesday", "tuesday")
    arguments = ("rayjobs.build_index", "--embeddings", tuesday, "--output", index, "--update")
    result = run_module(*arguments)
    assert result.returncode == 0, result.stderr
    assert "1 added, 2 gone of 398 trained on" in result.stdout
    opened, manifest = open_index(Storage.at(index))
    assert (manifest.version, manifest.num_products, opened.row_of("p022")) == (2, 397, None)
    texts = {name: opened.describe([row])[0] for name in ("p020", "p021") if (row := opened.row_of(name)) is not None}
    assert texts["p020"]["text"] == "a violet thing"
    assert texts["p021"]["price"] == 1234.5
    _, before = open_index(Storage.at(index), 1)
    assert [shard.sides for shard in manifest.shards[:-1]] == [shard.sides for shard in before.shards]
    again = run_module(*arguments)
    assert again.returncode == 0, again.stderr
    assert "already built as version 2; nothing to do" in again.stdout


def test_fused_side_is_weighed_by_the_groups_of_products(
    catalog: Path, embeddings: Path, tmp_path: Path, run_module: Run
) -> None:
    arguments = ("rayjobs.build_index", "--output", tmp_path / "index", "--fused", "--embeddings")
    without = run_module(*arguments, embeddings)
    assert without.returncode == 2, without.stderr
    assert "name the share of the picture instead: --fused-weight 0.5" in without.stderr.splitlines()[-1]
    grouped = tmp_path / "catalog"
    grouped.mkdir()
    for name in ("a.parquet", "b.parquet"):
        table = pq.read_table(catalog / name)
        groups = [f"g{int(product_id[1:]) // 3}" for product_id in table.column("product_id").to_pylist()]
        pq.write_table(table.append_column("group_id", pa.array(groups)), grouped / name)
    result = run_module(*arguments, embed(grouped, tmp_path / "grouped", "grouped"), "--shard-rows", "150")
    assert result.returncode == 0, result.stderr
    index, manifest = open_index(Storage.at(tmp_path / "index"))
    fusion = manifest.sides["fused"].fusion
    assert fusion is not None
    assert (len(fusion.measured), fusion.num_products) == (11, 398)
    assert f"fused side: {describe_fusion(fusion)}" in result.stdout
    image, text = (index.vectors_of(np.arange(398), side) for side in SIDES)
    expected = fuse_vectors(image, text, fusion.image_weight)
    np.testing.assert_allclose(index.vectors_of(np.arange(398), "fused"), expected, atol=2e-3)
    for kind, queries in (("image", image[:9]), ("text", text[:9])):
        hits = index.search(queries, against="fused", k=5, query_kind=kind)
        np.testing.assert_allclose(hits.scores, -np.sort(-(queries @ expected.T), axis=1)[:, :5], atol=4e-3)


def test_embeddings_of_nothing_are_refused(embeddings: Path, tmp_path: Path, run_module: Run) -> None:
    record = json.loads((embeddings / "manifest.json").read_text())
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "manifest.json").write_text(json.dumps({**record, "parts": []}))
    result = run_module("rayjobs.build_index", "--embeddings", tmp_path / "empty", "--output", tmp_path / "index")
    assert result.returncode == 4, result.stderr
    assert "holds no vectors, so there is nothing to index" in result.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--embeddings", "/no/such/folder"), 4, "no manifest.json"),
        (("--factory", "IVF99999,Flat"), 2, "FAISS cannot make 'IVF99999,Flat'"),
        (("--factory", "NOPE"), 2, "FAISS cannot make 'NOPE'"),
        (("--target-recall", "1.5"), 2, "--target-recall is a share"),
    ],
)
def test_mistakes_end_in_one_line_and_their_exit_code(
    arguments: tuple[str, ...], code: int, message: str, embeddings: Path, tmp_path: Path, run_module: Run
) -> None:
    default = () if "--embeddings" in arguments else ("--embeddings", embeddings)
    result = run_module("rayjobs.build_index", *default, "--output", tmp_path / "index", *arguments)
    assert result.returncode == code, result.stderr
    assert message in result.stderr.splitlines()[-1]
    assert not (tmp_path / "index" / "current.json").exists()


def test_damaged_part_is_refused(embeddings: Path, tmp_path: Path, run_module: Run) -> None:
    copy = tmp_path / "copy"
    for path in embeddings.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(embeddings)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    part = sorted((copy / "data").iterdir())[2]
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    part.write_bytes(damaged)
    result = run_module("rayjobs.build_index", "--embeddings", copy, "--output", tmp_path / "index")
    assert result.returncode == 4, result.stderr
    assert "part-000002.parquet: SHA-256 differs from the manifest" in result.stderr.splitlines()[-1]


def test_evaluation_of_the_index_is_written_whole(embeddings: Path, tmp_path: Path, run_module: Run) -> None:
    built = run_module("rayjobs.build_index", "--embeddings", embeddings, "--output", tmp_path / "index")
    assert built.returncode == 0, built.stderr
    result = run_module(
        "eval.evaluate", "--index", tmp_path / "index", "--output", tmp_path / "report", "--where", "price!=1.0"
    )
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [r["name"] for r in record["results"]] == ["text -> image", "image -> text"]
    queries = pq.read_table(tmp_path / "report" / "queries.parquet")
    # 398 products, less p004 which does not ask; p011 has no picture to ask with.
    assert queries.num_rows == 396 + 397
    assert record["results"][0]["num_products"] == 397
    assert record["results"][1]["num_products"] == 398
    page = (tmp_path / "report" / "report.html").read_text()
    assert "hit@10" in page
    assert "http" not in page.replace("http-equiv", "")
    arguments = ("eval.evaluate", "--index", tmp_path / "index", "--output", tmp_path / "report")
    again = run_module(*arguments, "--where", "price!=1.0")
    assert again.returncode == 0, again.stderr
    assert "already evaluated; nothing to do" in again.stdout
    assert again.stdout.splitlines()[1:-1] == result.stdout.splitlines()[:-1]
    wrong = run_module(*arguments, "--where", "brand=x")
    assert wrong.returncode == 2
    assert "no column 'brand'" in wrong.stderr


def test_folder_of_clip_retrieval_is_indexed(tmp_path: Path, run_module: Run) -> None:
    from product_retrieval.encoders.hashing import HashEncoder

    source, output = tmp_path / "clip", tmp_path / "index"
    captions = [f"thing number {row}" for row in range(40)]
    vectors = HashEncoder().encode_texts(captions).astype(np.float16)
    for folder in ("text_emb", "metadata"):
        (source / folder).mkdir(parents=True)
    for number, rows in enumerate(np.split(np.arange(40), [25])):
        np.save(source / "text_emb" / f"text_emb_{number}.npy", vectors[rows])
        table = pa.table({"caption": [captions[row] for row in rows], "sku": [f"s{row}" for row in rows]})
        pq.write_table(table, source / "metadata" / f"metadata_{number}.parquet")
    arguments = ("rayjobs.build_index", "--embeddings", source, "--output", output)
    unnamed = run_module(*arguments)
    assert (unnamed.returncode, "--clip-retrieval.model" in unnamed.stderr) == (2, True)
    arguments = (*arguments, "--clip-retrieval.model", "hash", "--clip-retrieval.product-id", "sku")
    built = run_module(*arguments)
    assert built.returncode == 0, built.stderr
    index, manifest = open_index(Storage.at(output))
    assert (manifest.num_products, manifest.fingerprint) == (40, HashEncoder().fingerprint)
    found = index.search(HashEncoder().encode_texts(captions), against="text", k=1).rows[:, 0]
    assert [product["product_id"] for product in index.describe(found.tolist())] == [f"s{row}" for row in range(40)]
    again = run_module(*arguments)
    assert "already built as version 1; nothing to do" in again.stdout
    np.save(source / "text_emb" / "text_emb_1.npy", vectors[[25, *range(27, 40), 26]])
    updated = run_module(*arguments, "--update")
    assert updated.returncode == 0, updated.stderr
    assert open_index(Storage.at(output))[1].num_products == 40
