"""Requests are checked before anything is computed, and the files in cluster/ say what their readers understand."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from eval.options import EvaluateOptions
from product_retrieval.options import parse
from rayjobs.build_index import BuildOptions
from rayjobs.embed import EmbedOptions
from rayjobs.train import TrainOptions
from serve.answers import HitRecord, StageTimes
from serve.arguments import SearchArgs
from serve.page import page_response
from serve.schemas import SearchRequest

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"


def test_defaults_are_ten_hits_by_picture() -> None:
    request = SearchRequest(text="blue sofa")
    assert (request.k, request.against, request.fields) == (10, "image", None)


def test_base64_becomes_the_bytes_of_the_picture() -> None:
    assert SearchRequest.model_validate({"image": base64.b64encode(b"\x89PNG").decode()}).image == b"\x89PNG"


@pytest.mark.parametrize("text", ["a" * 2000, "\N{SNOWMAN}", "<script>", "' OR 1=1", "\0"])
def test_any_text_that_says_something_is_a_query(text: str) -> None:
    assert SearchRequest(text=text).text == text


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"text": ""},
        {"text": " \n"},
        {"text": "a" * 2001},
        {"text": 7},
        {"text": "lamp", "vector": [1.0]},
        {"text": "lamp", "k": 0},
        {"text": "lamp", "k": 201},
        {"text": "lamp", "k": True},
        {"text": "lamp", "k": "10"},
        {"text": "lamp", "against": "sound"},
        {"text": "lamp", "recall": 0.9, "exact": True},
        {"text": "lamp", "point": {"num_probes": 0, "rescore_factor": 4}},
        {"text": "lamp", "min_score": 2},
        {"mix": []},
        {"mix": [{"text": "lamp", "weight": 0}]},
        {"mix": [{"text": "lamp", "product_id": "p1"}]},
        {"mix": [{"text": "lamp"}], "text": "lamp"},
        {"mix": [{"text": "lamp"}] * 17},
        {"text": "lamp", "page": 2},
        {"image": "AAA"},
        {"image": "AAA\nA"},
        {"image": 5},
        {"vector": []},
        {"vector": [0.0, 0.0]},
        {"vector": [float("nan"), 1.0]},
        {"vector": [float("inf"), 1.0]},
        {"vector": [10**400, 1]},
        {"vector": ["1.0"]},
    ],
    ids=str,
)
def test_a_wrong_request_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SearchRequest.model_validate(body)


def test_two_queries_are_named_in_the_refusal() -> None:
    with pytest.raises(ValidationError, match="got text and product_id"):
        SearchRequest(text="lamp", product_id="p1")


def test_words_of_the_command_line_become_arguments() -> None:
    args = SearchArgs.model_validate({"index": "out/index", "version": "3"})
    assert (args.version, args.model, args.device) == (3, None, "auto")
    with pytest.raises(ValidationError, match="indx"):
        SearchArgs.model_validate({"index": "out/index", "indx": "typo"})
    with pytest.raises(ValidationError, match="min_replicas=5 is more than max_replicas=4"):
        SearchArgs.model_validate({"index": "out/index", "min_replicas": "5"})


def test_numbers_without_a_word_in_json_become_null() -> None:
    hit = HitRecord(
        rank=1,
        retrieval_rank=1,
        score=0.5,
        product_id="p1",
        title="",
        image_url=None,
        ranks={"image": 1},
        product={"price": float("nan"), "raw": b"\xff"},
    )
    assert json.loads(hit.model_dump_json())["product"] == {"price": None, "raw": "_w=="}


def test_stage_times_become_a_header() -> None:
    times = StageTimes(encode=1.5, search=0.25, products=0, rerank=2)
    assert times.header() == "encode;dur=1.500, search;dur=0.250, products;dur=0.000, rerank;dur=2.000"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    page = page_response()
    text = bytes(page.body).decode()
    assert all(word not in text for word in ("http:", "https:", "@import", "innerHTML", " style=", " onclick="))
    assert page.headers["content-security-policy"].count("'sha256-") == 8


@pytest.mark.parametrize(
    ("name", "options_type"),
    [("embed", EmbedOptions), ("build_index", BuildOptions), ("train", TrainOptions), ("evaluate", EvaluateOptions)],
)
def test_option_files_are_understood_by_their_jobs(name: str, options_type: type) -> None:
    file = CLUSTER / "options" / f"{name}.yaml"
    options = parse(options_type, ["--config", str(file)], program=name, description="")
    expected = yaml.safe_load(file.read_text(encoding="utf-8"))["output"]
    assert getattr(options, "output") == expected  # noqa: B009 - the type differs from case to case


@pytest.mark.parametrize(
    ("name", "options_type"),
    [("embed", EmbedOptions), ("build_index", BuildOptions), ("train", TrainOptions), ("evaluate", EvaluateOptions)],
)
def test_option_files_hold_differences_only(name: str, options_type: type) -> None:
    tree = yaml.safe_load((CLUSTER / "options" / f"{name}.yaml").read_text(encoding="utf-8"))
    defaults = {key: field.default for key, field in options_type.__dataclass_fields__.items()}  # type: ignore[attr-defined]
    assert [key for key, value in tree.items() if defaults[key] == value] == []


def test_the_service_file_is_understood_by_serve_and_by_the_application() -> None:
    schema = ServeDeploySchema.model_validate(yaml.safe_load((CLUSTER / "serve.yaml").read_text(encoding="utf-8")))
    (application,) = schema.applications
    assert application.import_path == "serve.app:build"
    assert schema.http_options.host == "127.0.0.1"
    assert SearchArgs.model_validate(application.args).index == "s3://shop/index"
    assert {d.name for d in application.deployments} == {"SearchService", "QueryEncoder"}
