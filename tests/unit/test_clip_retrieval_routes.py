"""What clip-retrieval's client and front end send, they get an answer to that they can read.

The requests below are those of clip_client.py 2.45.0 and of its front end's clip-service.js: JSON without the header
that says so, every key present, null where nothing was given.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from PIL import Image

from product_retrieval.catalog import FetchOptions
from product_retrieval.encoders.hashing import HashEncoder
from product_retrieval.images import decode
from product_retrieval.index import ProductIndex, Side
from product_retrieval.index.construction import deserialize, fill, train
from product_retrieval.index.searcher import SearchedSide
from product_retrieval.index.shard import OpenShard, OpenSide
from product_retrieval.index.spec import EXACT, IndexSpec
from product_retrieval.querying.near_copies import distinct
from serve.clip_retrieval import CandidateQuery, clip_retrieval_router
from serve.problems import ProblemError, install
from serve.query_pictures import QueryPictures

TITLES = ["red mug", "blue cup", "green jug", "red mug", "tin lid"]
GONE = 4
JPEG = b"\xff\xd8 of a product"


class InProcessSource:
    """A CandidateSource over an index and the hash encoder in this process."""

    def __init__(self, index: ProductIndex, *, max_k: int = 100) -> None:
        self._index, self._encoder = index, HashEncoder()
        self.version, self.dim, self.sides, self.max_k = index.version, index.dim, tuple(index.sides), max_k

    def _vector(self, query: CandidateQuery) -> NDArray[np.float32]:
        if query.text is not None:
            return self._encoder.encode_texts([query.text])[0]
        if query.image_url is not None:
            asyncio.run(QueryPictures(FetchOptions()).fetch(query.image_url))
        if query.image is not None:
            pixels = decode(query.image).pixels
            if pixels is None:
                raise ProblemError("is no picture", field="image")
            return self._encoder.encode_images(self._encoder.prepare_image(pixels)[None])[0]
        assert query.vector is not None
        return query.vector

    async def search(self, query: CandidateQuery, *, against: Side, k: int) -> Sequence[tuple[int, float]]:
        vector = await asyncio.to_thread(self._vector, query)
        found = self._index.search(vector[None], against=against, k=k)
        hits = zip(found.rows[0].tolist(), found.scores[0].tolist(), strict=True)
        return [(row, score) for row, score in hits if row >= 0]

    async def products(self, rows: Sequence[int]) -> Sequence[Mapping[str, Any] | None]:
        is_there = [row < self._index.num_rows and bool(self._index.listed[row]) for row in rows]
        found = iter(self._index.describe([row for row, there in zip(rows, is_there, strict=True) if there]))
        return [next(found) if there else None for there in is_there]

    async def vectors(self, rows: Sequence[int], *, against: Side) -> NDArray[np.float32]:
        return self._index.vectors_of(np.array(rows), against)

    async def picture(self, product_id: str) -> bytes | None:
        return JPEG if product_id == "p0" else None


def picture(color: tuple[int, int, int]) -> bytes:
    """Return a PNG of one colour, with a corner of another."""
    image = Image.new("RGB", (32, 32), color)
    image.paste((255, 255, 0), (0, 0, 8, 8))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


PICTURES = [picture(color) for color in ((255, 0, 0), (0, 0, 255), (0, 255, 0), (254, 0, 0), (90, 90, 90))]


@pytest.fixture(scope="module")
def index() -> ProductIndex:
    """Return an index of five products, the last of which was taken out; p0 and p3 are nearly one."""
    encoder = HashEncoder()
    pixels = [decode(data).pixels for data in PICTURES]
    prepared = np.stack([encoder.prepare_image(each) for each in pixels if each is not None])
    sides: dict[Side, NDArray[np.float32]] = {
        "image": encoder.encode_images(prepared),
        "text": encoder.encode_texts(TITLES),
    }
    table = pa.table(
        {
            "product_id": [f"p{row}" for row in range(5)],
            "text": TITLES,
            "image_ref": ["a/0.png", "a/1.png", None, "a/3.png", None],
            "url": [None, "https://shop.example/1.png", None, None, None],
            "price": [1.5, float("nan"), None, 2.0, 3.0],
        }
    )
    opened = {}
    for side, vectors in sides.items():
        filled = fill(train(vectors, IndexSpec("Flat", ""), seed=0), vectors, np.arange(5))
        opened[side] = OpenSide(deserialize(filled), vectors.astype(np.float16))
    shard = OpenShard(0, table, np.arange(5), opened, np.array([GONE], np.int64))
    searched = SearchedSide({"image": EXACT, "text": EXACT}, is_exact=True)
    return ProductIndex(7, encoder.fingerprint.dim, dict.fromkeys(sides, searched), (shard,))


def client_of(source: InProcessSource) -> TestClient:
    app = FastAPI()
    install(app)
    app.include_router(clip_retrieval_router(lambda: source, name="shop"))
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def client(index: ProductIndex) -> TestClient:
    return client_of(InProcessSource(index))


def query(client: TestClient, **given: Any) -> Any:
    """Send what ClipClient.query sends, and return what it returns."""
    settings = {"deduplicate": True, "use_safety_model": True, "use_violence_detector": True, "use_mclip": False}
    settings |= {"indice_name": "shop", "aesthetic_score": 9, "aesthetic_weight": 0.5, "modality": "image"}
    inputs = dict.fromkeys(("text", "image", "image_url", "embedding_input"))
    record = {**inputs, **settings, "num_images": 40, "num_result_ids": 40, **given}
    answer = client.post("/knn-service", content=json.dumps(record))  # requests sends no Content-Type with a string
    return answer.json()


def test_client_reads_id_similarity_url_and_caption(client: TestClient) -> None:
    results = query(client, text="red mug", modality="text", deduplicate=False)
    assert [result["id"] for result in results][:2] == [0, 3]
    assert sorted(result["id"] for result in results) == [0, 1, 2, 3], "the product that was taken out is no result"
    assert results[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert results[0]["caption"] == "red mug"
    (cup,) = [result for result in results if result["id"] == 1]
    assert (cup["url"], cup["caption"], cup["price"]) == ("https://shop.example/1.png", "blue cup", None)


def test_picture_comes_along_where_there_is_no_url_and_its_path_never(client: TestClient) -> None:
    results = {result["id"]: result for result in query(client, text="red mug", deduplicate=False)}
    assert base64.b64decode(results[0]["image"]) == JPEG
    assert ["image" in results[row] for row in (1, 2, 3)] == [False, False, False]
    assert not any("image_ref" in result for result in results.values())


def test_picture_finds_its_product(client: TestClient) -> None:
    results = query(client, image=base64.b64encode(PICTURES[1]).decode())
    assert (results[0]["id"], results[0]["product_id"]) == (1, "p1")


def test_vector_of_any_length_finds_its_direction(client: TestClient) -> None:
    vector = HashEncoder().encode_texts(["green jug"])[0]
    for scale in (1e-30, 1.0, 1e30):
        results = query(client, embedding_input=(vector.astype(float) * scale).tolist(), modality="text")
        assert results[0]["id"] == 2
        assert results[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_nearly_equal_pictures_are_one_result_when_asked(client: TestClient) -> None:
    red = base64.b64encode(PICTURES[0]).decode()
    assert query(client, image=red)[0]["id"] == 0
    assert 3 not in [result["id"] for result in query(client, image=red)]
    assert 3 in [result["id"] for result in query(client, image=red, deduplicate=False)]


def test_front_end_gets_ids_of_all_results_and_columns_of_the_first(client: TestClient) -> None:
    assert client.get("/indices-list").json() == ["shop"]
    record = {"text": "red mug", "modality": "text", "num_images": 2, "num_result_ids": 3000, "indice_name": "shop"}
    # The front end leaves its field of this option empty, and sends its body as plain text.
    record |= {"aesthetic_score": "", "aesthetic_weight": "0.5", "deduplicate": False, "use_mclip": True}
    headers = {"Content-Type": "text/plain;charset=UTF-8"}
    answer = client.post("/knn-service", content=json.dumps(record), headers=headers)
    assert answer.headers["X-Index-Version"] == "7"
    results = answer.json()
    assert [set(result) == {"id", "similarity"} for result in results] == [False, False, True, True]
    rest = [result["id"] for result in results[2:]]
    metadata = client.post("/metadata", content=json.dumps({"ids": rest, "indice_name": "shop"}), headers=headers)
    assert [one["id"] for one in metadata.json()] == rest
    assert [one["metadata"]["caption"] for one in metadata.json()] == [TITLES[row] for row in rest]


def test_more_results_than_the_index_gives_are_cut(index: ProductIndex) -> None:
    client = client_of(InProcessSource(index, max_k=2))
    assert len(query(client, text="mug", num_images=10_000, num_result_ids=10_000, deduplicate=False)) == 2


def test_metadata_leaves_out_what_is_not_there(client: TestClient) -> None:
    def ids(*asked: int) -> list[int]:
        answer = client.post("/metadata", content=json.dumps({"ids": asked, "indice_name": "shop"}))
        return [one["id"] for one in answer.json()]

    assert ids() == []
    assert ids(2, GONE, 0, 5, 2**62) == [2, 0]


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "text"),
        ({"text": " "}, "text"),
        ({"text": "x" * 2001}, "text"),
        ({"text": 5}, "text"),
        ({"image": "not base64!"}, "image"),
        ({"image": base64.b64encode(b"<svg/>").decode()}, "image"),
        ({"image_url": "http://169.254.169.254/"}, "image_url"),
        ({"embedding_input": [1.0]}, "embedding_input"),
        ({"embedding_input": [0.0] * 64}, "embedding_input"),
        ({"embedding_input": [float("nan")] * 64}, "embedding_input.0"),
        ({"text": "mug", "indice_name": "laion5B"}, "indice_name"),
        ({"text": "mug", "modality": "audio"}, "modality"),
        ({"text": "mug", "num_images": 0}, "num_images"),
        ({"text": "mug", "num_result_ids": 10**9}, "num_result_ids"),
    ],
)
def test_wrong_request_names_its_field(client: TestClient, given: dict[str, Any], field: str) -> None:
    problem = query(client, **given)
    assert problem["status"] == 422
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize("path", ["/knn-service", "/metadata"])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"null", b"[]", b"[" * 100_000, b'{"ids": "x"}', b'{"ids": [-1]}']
)
def test_body_that_is_no_request_is_a_4xx(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_side_that_the_index_lacks_is_refused(index: ProductIndex) -> None:
    source = InProcessSource(index)
    source.sides = ("text",)
    assert query(client_of(source), text="mug")["errors"][0]["field"] == "modality"


@pytest.mark.parametrize(
    ("angles", "kept"),
    [([], []), ([0], [0]), ([0, 90, 1], [0, 1]), ([0, 15, 30, 90], [0, 3]), ([30, 90, 0, 15], [0, 1])],
)
def test_only_the_best_of_a_chain_of_likes_is_kept(angles: list[float], kept: list[int]) -> None:
    """cos 15 degrees is 0.966, cos 30 is 0.866: 0 and 30 are joined by 15 alone, wherever it stands."""
    radians = np.deg2rad(np.array(angles, np.float32))
    vectors = 3 * np.stack([np.cos(radians), np.sin(radians)], axis=1)
    assert distinct(vectors, 0.94) == kept


def test_source_is_asked_for_once_a_request(index: ProductIndex) -> None:
    asked: list[int] = []

    def current(sources: Sequence[InProcessSource] = (InProcessSource(index),)) -> InProcessSource:
        asked.append(1)
        return sources[0]

    app = FastAPI()
    app.include_router(clip_retrieval_router(current, name="shop"))
    query(TestClient(app), text="mug")
    assert len(asked) == 1, "an answer could mix versions"
