"""The search command on a small index: by text, by picture, by product, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import plan_catalog
from product_retrieval.command import run
from product_retrieval.embedding_steps import PartPublisher, embed_serially
from product_retrieval.embeddings import Manifest
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.errors import OptionsError
from product_retrieval.images import ImageLimits
from product_retrieval.index import IndexManifest, ProductIndex, open_index
from product_retrieval.index.build_steps import Build, fill_piece, gather_products, gather_vectors, merge_pieces
from product_retrieval.index.construction import train
from product_retrieval.index.spec import EXACT, SIDES, IndexSpec
from product_retrieval.index.versions import SideManifest, describe_file, promote, publish
from product_retrieval.search import PROGRAM, SearchOptions, find, hit_record, printable, search
from product_retrieval.slice_reader import SliceReader
from product_retrieval.storage import Storage

pytestmark = pytest.mark.usefixtures("process_state")
Maker = Callable[..., bytes]


@pytest.fixture
def index(tiny_catalog: Path, tmp_path: Path) -> Path:
    """Build an index of the tiny catalogue: mug (picture, text), cup (text), jug (picture)."""
    encoder, embeddings, output = HashEncoder(), Storage.at(tmp_path / "embeddings"), Storage.at(tmp_path / "index")
    plan = plan_catalog(str(tiny_catalog))
    parts = embed_serially(
        SliceReader(plan, encoder, ImageLimits()),
        encoder,
        PartPublisher(embeddings, "run"),
        slices=plan.slices,
        batch_size=8,
        vector_type="float16",
    )
    catalog = {"uri": plan.uri, "image_root": plan.image_root, "image_column": "image"}
    manifest = Manifest("run", encoder.fingerprint, "hash", "float16", {}, catalog, tuple(parts), {})
    build = Build(embeddings, manifest, output, "b")
    sides = {}
    for side in SIDES:
        vectors, _ = build.vectors(0, side)
        trained = train(vectors, IndexSpec("Flat", ""), seed=0)
        name = merge_pieces(build, [fill_piece(build, trained, [0], side, 0)], side)
        stored = describe_file(output, gather_vectors(build, side))
        points = {"image": EXACT, "text": EXACT}
        sides[side] = SideManifest("Flat", "few", len(vectors), describe_file(output, name), stored, points)
    products, order = gather_products(build)
    published = publish(
        output,
        IndexManifest(
            build_id="b",
            fingerprint=encoder.fingerprint,
            model="hash",
            embeddings_uri=embeddings.uri,
            embeddings_run_id="run",
            catalog=catalog,
            num_products=3,
            dim=encoder.fingerprint.dim,
            options={},
            sides=sides,
            products=describe_file(output, products),
            rows_by_id=describe_file(output, order),
        ),
    )
    promote(output, published.version)
    return tmp_path / "index"


def run_search(*words: str) -> int:
    return run(search, SearchOptions, program=PROGRAM, description="Search.", argv=list(words))


def ids_of(shown: str) -> list[str]:
    return [hit["product_id"] for hit in json.loads(shown)]


def test_text_finds_the_product_of_that_text(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search("Red mug", "--index", str(index), "--against", "text", "--json") == 0
    hits = json.loads(capsys.readouterr().out)
    assert [hit["product_id"] for hit in hits] == ["mug", "cup"]
    assert hits[0]["rank"] == 1
    assert hits[0]["score"] == pytest.approx(1, abs=1e-3)
    assert hits[0]["product"] == {
        "product_id": "mug",
        "text": "Red mug",
        "image_ref": "catalog.parquet#row=0",
        "title": "Red mug",
        "price": 4.5,
    }


def test_picture_finds_the_product_of_that_picture(
    index: Path, tmp_path: Path, png: Maker, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photo.png").write_bytes(png((0, 0, 255), (30, 20)))
    assert run_search("--image", str(tmp_path / "photo.png"), "--index", str(index), "--json") == 0
    assert ids_of(capsys.readouterr().out) == ["jug", "mug"]


def test_product_is_not_a_hit_of_its_own(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search("--id", "mug", "--index", str(index), "--k", "1", "--json") == 0
    assert ids_of(capsys.readouterr().out) == ["jug"]


def test_table_shows_rank_score_id_and_title(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search("Red mug", "--index", str(index), "--against", "text", "--k", "1") == 0
    assert capsys.readouterr().out.splitlines() == [
        "  #   score  id   title",
        "  1   1.000  mug  Red mug",
        "cosine similarity; index version 1",
    ]


def test_sheet_shows_the_hits_with_their_pictures(index: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "hits.html"
    assert run_search("--id", "mug", "--index", str(index), "--sheet", str(sheet)) == 0
    page = sheet.read_text()
    assert "More like mug" in page
    assert page.count("data:image/png") == 1


@pytest.mark.parametrize(
    ("words", "exit_code", "says"),
    [
        (["--id", "nothing"], 2, "--id nothing: no such product in this index"),
        (["--id", "cup"], 2, "--id cup: this product has no image; try the other --against"),
        (["--image", "gone.jpg"], 2, "--image gone.jpg: No such file or directory"),
        (["--image", __file__], 2, "image_not_decodable"),
        (["mug", "--version", "7"], 4, "versions/000007.json: no such file"),
        (["mug", "--model", "nowhere/at/all/"], 5, "nowhere/at/all/"),
        ([], 2, "give one of a text"),
        (["mug", "--id", "cup"], 2, "give one of a text"),
        (["  "], 2, "the text to look for is empty"),
        (["mug", "--k", "0"], 2, "--k is from 1 to 1000, not 0"),
        (["mug", "--k", "1001"], 2, "--k is from 1 to 1000, not 1001"),
        (["mug", "--sheet", "hits.pdf"], 2, "a contact sheet is a .png or a .html file"),
        (["mug", "--against", "price"], 2, "against"),
    ],
)
def test_search_that_cannot_be_is_one_line_and_a_code(
    index: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    exit_code: int,
    says: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run_search("--index", str(index), *words) == exit_code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert says in shown.err


def test_folder_without_an_index_is_code_four(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search("mug", "--index", str(tmp_path)) == 4
    assert "either no index or not finished: run build_index" in capsys.readouterr().err


def test_model_that_the_index_was_not_made_with_is_refused(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = Path(__file__).resolve().parents[2] / "demo" / "model"
    assert run_search("mug", "--index", str(index), "--model", str(model)) == 5
    assert "is not the model that this index was made with (hash)" in capsys.readouterr().err


def test_hits_are_as_many_as_wanted_and_never_more(index: Path) -> None:
    opened, _ = open_index(Storage.at(index))
    query = HashEncoder().encode_texts(["mug"])[0]
    numbers = [len(find(opened, query, k=k, against="text", kind="text")) for k in (1, 2, 3, 10)]
    assert numbers == [1, 2, 2, 2]
    assert [hit.rank for hit in find(opened, query, k=10, against="text", kind="text")] == [1, 2]


def test_side_that_the_index_lacks_is_a_wrong_option(index: Path) -> None:
    opened, _ = open_index(Storage.at(index))
    images = ProductIndex(1, {"image": opened.sides["image"]}, opened.products, opened.rows_by_id)
    with pytest.raises(OptionsError, match="this index has no text side; it has image"):
        find(images, np.zeros(64, np.float32), k=1, against="text", kind="text")


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[31mb", "a [31mb"), ("a\nb\tc", "a b c"), ("Tüte 杯", "Tüte 杯"), ("a\u202eb", "a b")]
)
def test_title_cannot_rewrite_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_values_without_a_json_type_become_text(index: Path) -> None:
    opened, _ = open_index(Storage.at(index))
    (hit,) = find(opened, HashEncoder().encode_texts(["mug"])[0], k=1, against="text", kind="text")
    product: dict[str, Any] = {**hit.product, "seen": np.datetime64("2024-01-02")}
    record = hit_record(type(hit)(1, 0.5, "mug", "Mug", product))
    assert json.loads(json.dumps(record))["product"]["seen"] == "2024-01-02"


def test_catalogue_that_is_gone_leaves_the_sheet_without_pictures(
    index: Path, tiny_catalog: Path, tmp_path: Path
) -> None:
    assert pq.read_metadata(tiny_catalog).num_rows == 5
    tiny_catalog.unlink()
    assert run_search("--id", "mug", "--index", str(index), "--sheet", str(tmp_path / "hits.html")) == 0
    assert "no picture" in (tmp_path / "hits.html").read_text()
