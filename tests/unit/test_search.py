"""The search command on a small index: by text, by picture, by product, and what it says when it cannot."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from product_retrieval.catalog import plan_catalog
from product_retrieval.command import run
from product_retrieval.embedding_steps import PartPublisher, embed_serially
from product_retrieval.embeddings import Manifest
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.hits import Hit, hit_record, printable
from product_retrieval.images import ImageLimits
from product_retrieval.index import IndexManifest
from product_retrieval.index.build_steps import Build, fill_piece, publish_trained
from product_retrieval.index.layout import all_rows, plan_shards
from product_retrieval.index.manifest import SideManifest, describe_file
from product_retrieval.index.shard_files import describe_shard, gather_products, gather_vectors, merge_pieces
from product_retrieval.index.spec import EXACT, SIDES, IndexSpec
from product_retrieval.index.versions import promote, publish
from product_retrieval.search import PROGRAM, SearchOptions, search
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
    sides, filled = {}, {}
    (plan,) = plan_shards(all_rows(manifest), shard_rows=100)
    for side in SIDES:
        vectors, _ = build.vectors(plan.sources[0], side)
        trained = publish_trained(build, side, IndexSpec("Flat", ""), [vectors.astype(np.float16)], seed=0)
        fill_piece(build, plan, side, 0, trained)
        filled[side] = (merge_pieces(build, plan, side), gather_vectors(build, plan, side))
        emptied = describe_file(output, trained)
        sides[side] = SideManifest("Flat", "few", len(vectors), emptied, {"image": EXACT, "text": EXACT})
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
            shards=(describe_shard(build, plan, 0, gather_products(build, plan), filled),),
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
        (["--id", "nothing"], 2, "no such product in this index: 'nothing'"),
        (["--id", "cup"], 2, "product 'cup' has no image: ask against the other side"),
        (["mug", "--filter", "red"], 2, "filter: not JSON"),
        (["mug", "--filter", '{"field": "prize", "exists": true}'], 2, "no 'prize'; did you mean 'price'?"),
        (["mug", "--filter", '{"field": "price", "equals": "4"}'], 2, "'price' holds numbers; '4' is none"),
        (["mug", "--collapse", "group_id"], 2, "collapse: these products have no 'group_id'; there are product_id"),
        (["mug", "--recall", "95"], 2, "recall is above 0 and at most 1, not 95"),
        (["mug", "--recall", "0.9", "--exact"], 2, "recall and exact contradict each other"),
        (["mug", "--against", "both", "--min-score", "0.2"], 2, "min_score is a cosine similarity"),
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


def test_hits_are_as_many_as_wanted_and_never_more(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, expected in ((1, 1), (2, 2), (10, 2)):
        assert run_search("mug", "--index", str(index), "--against", "text", "--k", str(k), "--json") == 0
        assert [hit["rank"] for hit in json.loads(capsys.readouterr().out)] == list(range(1, expected + 1))


def test_filter_leaves_only_what_matches(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cheap = '{"field": "price", "range": {"lt": 4}}'
    assert run_search("Red mug", "--index", str(index), "--against", "text", "--filter", cheap, "--json") == 0
    assert ids_of(capsys.readouterr().out) == ["cup"]
    unpriced = '{"not": {"field": "price", "exists": true}}'
    assert run_search("Red mug", "--index", str(index), "--filter", unpriced, "--exact", "--json") == 0
    assert ids_of(capsys.readouterr().out) == ["jug"]


def test_filter_that_is_wrong_is_said_before_a_model_is_loaded(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("mug", "--model", "nowhere/at/all", "--filter", '{"field": "prize", "exists": true}')
    assert run_search("--index", str(index), *words) == 2
    assert "no 'prize'" in capsys.readouterr().err


def test_both_sides_show_their_places(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_search("--id", "mug", "--index", str(index), "--against", "both") == 0
    assert capsys.readouterr().out.splitlines() == [
        "  #   score  image   text  id   title",
        "  1  0.0164      -      1  cup  Blue cup",
        "  2  0.0164      1      -  jug  ",
        "scores are sums of 1 / (60 + place) over both sides: good for this order, not for comparing; index version 1",
    ]


def test_groups_and_thresholds_reach_the_query(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("Red mug", "--index", str(index), "--against", "text", "--json")
    assert run_search(*words, "--collapse", "product_id", "--recall", "0.9") == 0
    assert ids_of(capsys.readouterr().out) == ["mug", "cup"]
    assert run_search(*words, "--min-score", "0.95") == 0
    assert ids_of(capsys.readouterr().out) == ["mug"]


@pytest.mark.parametrize(
    ("text", "shown"), [("a\x1b[31mb", "a [31mb"), ("a\nb\tc", "a b c"), ("Tüte 杯", "Tüte 杯"), ("a\u202eb", "a b")]
)
def test_title_cannot_rewrite_a_terminal(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_values_without_a_json_type_become_text() -> None:
    hit = Hit(1, 0.5, "mug", "Mug", {"seen": np.datetime64("2024-01-02")}, {"image": 1})
    assert json.loads(json.dumps(hit_record(hit))) == {
        "rank": 1,
        "score": 0.5,
        "product_id": "mug",
        "ranks": {"image": 1},
        "product": {"seen": "2024-01-02"},
    }


def test_catalogue_that_is_gone_leaves_the_sheet_without_pictures(
    index: Path, tiny_catalog: Path, tmp_path: Path
) -> None:
    assert pq.read_metadata(tiny_catalog).num_rows == 5
    tiny_catalog.unlink()
    assert run_search("--id", "mug", "--index", str(index), "--sheet", str(tmp_path / "hits.html")) == 0
    assert "no picture" in (tmp_path / "hits.html").read_text()
