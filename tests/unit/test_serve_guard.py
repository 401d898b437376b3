"""What stands around a request, around a real application: ids, keys, limits, origins, and the log."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from hypothesis import given, settings, strategies
from pydantic import BaseModel, Field
from ray.serve import context as serve_context

from product_retrieval.errors import OptionsError
from serve import bodies
from serve.bodies import MAX_JSON_DEPTH, MAX_JSON_MEMBERS, MAX_JSON_VALUES, BodyError, refuse_heavy_json
from serve.guard import GuardOptions, install
from serve.key_guard import is_open
from serve.keys import line_of
from serve.metrics import EncoderMetrics, ServiceMetrics
from serve.problems import ProblemError
from serve.requests import note_search

RED = "red-0123456789-0123456789"
BLUE = "blue-0123456789-0123456789"
JSON = {"content-type": "application/json"}
SECRET_TEXT = "a gift for my wife"


class Asked(BaseModel):
    text: str = ""
    vector: list[float] | None = None
    weight: float = Field(default=1, allow_inf_nan=False)
    filter: dict[str, Any] | None = None


@dataclass
class Answer:
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) <= 1
        return found[0] if found else None

    @property
    def problem(self) -> dict[str, Any]:
        assert self.header("content-type") == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        assert document["request_id"] == self.header("x-request-id")
        return document


def make_app(guard: GuardOptions | None = None) -> FastAPI:
    app, more = FastAPI(), APIRouter()

    @app.get("/")
    @app.get("/livez")
    @app.get("/readyz")
    async def opened() -> str:
        return "open"

    @app.post("/v1/search")
    async def search(asked: Asked) -> dict[str, str]:
        note_search({"encode": 1.25, "search": 0.5}, query=asked.text)
        return {"text": asked.text}

    @app.post("/v1/search/image")
    async def picture(request: Request) -> int:
        return len(await request.body())

    @more.get("/v1/products/{product_id:path}")
    async def product(product_id: str) -> str:
        if product_id == "broken":
            raise ZeroDivisionError(product_id)
        raise ProblemError("is not there", field="product_id", status=404)

    app.include_router(more)
    install(app, guard or GuardOptions(), metrics=ServiceMetrics())
    return app


def ask(
    app: FastAPI,
    method: str,
    path: str,
    *,
    headers: dict[str, str] | None = None,
    chunks: Iterable[bytes] = (),
    receive: Callable[[], Awaitable[Any]] | None = None,
) -> Answer:
    parts, answer = list(chunks), Answer()
    given = {"content-length": str(sum(map(len, parts))), **(headers or {})}
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)} for number, part in enumerate(parts, 1)
    ]

    async def receive_message() -> Any:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
        else:
            answer.body += message.get("body", b"")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http",
        "server": ("shop", 80),
        "root_path": "",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in given.items()],
    }
    asyncio.run(app(scope, receive or receive_message, send))
    return answer


@pytest.fixture
def app() -> FastAPI:
    return make_app()


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    monkeypatch.setenv("MPR_API_KEYS_SHA256", f"{line_of(RED, 'red')},{line_of(BLUE, 'blue')}")
    return make_app(GuardOptions(cors_origins=("https://shop.example",)))


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, keeper = logging.getLogger("ray.serve.access"), Keeper()
    level = logger.level
    logger.addHandler(keeper)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(keeper)
    logger.setLevel(level)


def test_every_route_but_page_and_probes_asks_for_a_key(locked: FastAPI) -> None:
    closed = [("GET", "/openapi.json"), ("GET", "/docs"), ("POST", "/v1/search"), ("POST", "/v1/search/image")]
    closed += [("GET", "/v1/products/p1"), ("GET", "/v1/products/p1/image"), ("GET", "/nothing"), ("DELETE", "/")]
    closed += [
        ("GET", "/livez/"),
        ("GET", "//"),
        ("GET", "/livez/../v1/info"),
        ("POST", "/livez"),
        ("OPTIONS", "/docs"),
    ]
    assert [ask(locked, method, path).status for method, path in closed] == [401] * len(closed)
    assert [ask(locked, "GET", path).status for path in ("/", "/livez", "/readyz")] == [200] * 3


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Bearer "},
        {"authorization": RED},
        {"authorization": f"Basic {RED}"},
        {"authorization": f"Bearer {RED}x"},
        {"authorization": "Bearer \xff\xfe"},
        {"x-api-key": ""},
        {"x-api-key": f"Bearer {RED}"},
        {"cookie": f"x-api-key={RED}"},
    ],
    ids=str,
)
def test_without_a_right_key_every_answer_is_the_same(locked: FastAPI, headers: dict[str, str]) -> None:
    refused = ask(locked, "GET", "/v1/products/p1", headers=headers)
    assert (refused.status, refused.header("www-authenticate")) == (401, "Bearer")
    assert refused.problem | {"request_id": ""} == {
        "type": "about:blank",
        "title": "Unauthorized",
        "status": 401,
        "detail": "an API key is needed, as Authorization: Bearer KEY or as X-API-Key: KEY",
        "request_id": "",
    }


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": f"Bearer {RED}"}, "red"),
        ({"authorization": f"bearer  {BLUE}"}, "blue"),
        ({"x-api-key": BLUE}, "blue"),
        ({"authorization": "Basic of-the-proxy", "x-api-key": RED}, "red"),
    ],
)
def test_each_key_opens_in_either_header_and_its_name_is_logged(
    locked: FastAPI, log: list[str], headers: dict[str, str], name: str
) -> None:
    assert ask(locked, "GET", "/v1/products/p1", headers=headers).status == 404
    assert json.loads(log[0])["key"] == name
    assert RED not in log[0]
    assert BLUE not in log[0]


def test_a_refused_request_is_answered_before_its_body_is_read(locked: FastAPI) -> None:
    async def never() -> Any:
        raise AssertionError("the body was asked for")

    assert ask(locked, "POST", "/v1/search", headers={"content-length": "9"}, receive=never).status == 401


def test_a_path_below_a_prefix_is_open_only_where_the_application_is() -> None:
    scope = {"type": "http", "method": "GET", "root_path": "/shop"}
    assert is_open({**scope, "path": "/shop/livez"})
    assert not is_open({**scope, "path": "/shop/v1/info"})
    assert not is_open({**scope, "path": "/shopping/livez"})


def test_a_preflight_needs_no_key_and_another_origin_gets_none(locked: FastAPI) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    allowed = ask(locked, "OPTIONS", "/v1/search", headers={"origin": "https://shop.example", **asked})
    assert (allowed.status, allowed.header("access-control-allow-origin")) == (200, "https://shop.example")
    assert allowed.header("x-request-id")
    refused = ask(locked, "OPTIONS", "/v1/search", headers={"origin": "https://evil.example", **asked})
    assert (refused.status, refused.header("access-control-allow-origin")) == (400, None)
    unlocked = ask(locked, "POST", "/v1/search", headers={"origin": "https://shop.example"})
    assert (unlocked.status, unlocked.header("access-control-allow-origin")) == (401, "https://shop.example")


def test_other_origins_get_nothing_by_default(app: FastAPI) -> None:
    assert (
        ask(app, "GET", "/", headers={"origin": "https://shop.example"}).header("access-control-allow-origin") is None
    )


@pytest.mark.parametrize("origin", ["shop.example", "https://shop.example/", "https://Shop.example", "null", ""])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(OptionsError, match="cors_origins"):
        GuardOptions(cors_origins=(origin,))


@pytest.mark.parametrize("given", ["a", "A-z_0.9", "x" * 64])
def test_a_harmless_id_comes_back(app: FastAPI, given: str) -> None:
    answer = ask(app, "GET", "/v1/products/p1", headers={"x-request-id": given})
    assert answer.problem["request_id"] == given


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", 'a"b', "é", "a\n"])
def test_any_other_id_is_replaced(app: FastAPI, given: str | None) -> None:
    headers = {} if given is None else {"x-request-id": given}
    made = ask(app, "GET", "/v1/products/p1", headers=headers).problem["request_id"]
    assert len(made) == 32
    assert made != ask(app, "GET", "/v1/products/p1", headers=headers).problem["request_id"]


@pytest.mark.parametrize(("given", "is_replaced"), [("abc", False), ("a b", True)])
def test_behind_serve_an_id_is_added_only_in_place_of_a_harmful_one(
    app: FastAPI, given: str, is_replaced: bool
) -> None:
    token = serve_context._serve_request_context.set(serve_context._RequestContext(request_id=given))
    answer = ask(app, "GET", "/v1/products/p1", headers={"x-request-id": given})
    serve_context._serve_request_context.reset(token)
    made = json.loads(answer.body)["request_id"]
    assert (made != given) is is_replaced
    assert answer.header("x-request-id") == (made if is_replaced else None)


def test_an_unexpected_error_is_a_problem_with_its_id_and_no_detail(app: FastAPI) -> None:
    answer = ask(app, "GET", "/v1/products/broken")
    assert answer.status == 500
    assert "broken" not in answer.problem["detail"]
    assert answer.header("x-content-type-options") == "nosniff"


def test_a_body_that_says_it_is_far_too_large_is_not_read(app: FastAPI) -> None:
    async def never() -> Any:
        raise AssertionError("the body was asked for")

    refused = ask(app, "POST", "/v1/search/image", headers={"content-length": str(8 * 8388608 + 1)}, receive=never)
    assert (refused.status, refused.header("connection")) == (413, "close")
    assert "8388608 bytes" in refused.problem["detail"]


@pytest.mark.parametrize(("num_bytes", "status"), [(100, 200), (101, 413), (801, 413)])
def test_a_body_in_chunks_is_counted(num_bytes: int, status: int) -> None:
    app = make_app(GuardOptions(max_body_bytes=100))
    chunked = {"transfer-encoding": "chunked", "content-length": "0"}
    chunks = [bytes(60), b"", bytes(num_bytes - 60), b""]
    answer = ask(app, "POST", "/v1/search/image", headers=chunked, chunks=chunks)
    assert (answer.status, answer.body == b"100") == (status, status == 200)


def test_a_slow_body_is_given_up() -> None:
    async def drip() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    app = make_app(GuardOptions(body_timeout_s=0.1))
    refused = ask(app, "POST", "/v1/search", headers={"content-length": "99", **JSON}, receive=drip)
    assert (refused.status, refused.header("connection")) == (408, "close")
    assert "within 0.1 seconds" in refused.problem["detail"]


def test_a_client_that_leaves_amid_its_body_costs_nothing_but_a_line(app: FastAPI, log: list[str]) -> None:
    answer = ask(app, "POST", "/v1/search", headers={"content-length": "99", **JSON}, chunks=[])
    assert answer.status == 0
    assert json.loads(log[0])["status"] == 499


DEEP = {
    "lists": b"[" * 100_000,
    "objects": b'{"filter":' * 50_000,
    "closed": b'{"filter":' + b'{"a":[' * 40 + b"]}" * 40 + b"}",
    "with brackets in strings": b'{"filter":{"a":' + b'["]\\"]\\\\",' * 40 + b"1" + b"]" * 40 + b"}}",
    "UTF-16": '{"filter": {}}'.encode("utf-16"),
    "cut off": b'{"filter": {"a": [',
    "not JSON": b"}{" * 99,
}


@pytest.mark.parametrize("body", DEEP.values(), ids=DEEP.keys())
def test_json_that_is_too_deep_or_none_is_a_400(app: FastAPI, body: bytes) -> None:
    refused = ask(app, "POST", "/v1/search", headers=JSON, chunks=[body])
    assert (refused.status, refused.problem["title"]) == (400, "Bad Request")


def test_depth_is_counted_exactly_and_not_in_strings() -> None:
    refuse_heavy_json(b"[" * MAX_JSON_DEPTH + b"]" * MAX_JSON_DEPTH)
    refuse_heavy_json(b"[" + b'{"a":[]},' * 1000 + b'"' + b"[" * 1000 + b'\\"[["]')
    with pytest.raises(BodyError, match="deeper than 32"):
        refuse_heavy_json(b"[" * (MAX_JSON_DEPTH + 1) + b"]" * (MAX_JSON_DEPTH + 1))


def weight_of(body: bytes) -> tuple[int, int, int]:
    """Return depth, values and members of JSON, counted one byte after the other."""
    depth = deepest = num_openers = num_commas = num_colons = 0
    is_string = is_escaped = False
    for code in body.decode():
        if is_string:
            is_string, is_escaped = code != '"' or is_escaped, code == "\\" and not is_escaped
        else:
            is_string = code == '"'
            depth += (code in "[{") - (code in "]}")
            deepest = max(deepest, depth)
            num_openers, num_commas, num_colons = (
                count + (code in kind) for count, kind in ((num_openers, "[{"), (num_commas, ","), (num_colons, ":"))
            )
    return deepest, num_openers + num_commas, num_openers + num_colons


json_values = strategies.recursive(
    strategies.none() | strategies.text('"\\[]{},:a', max_size=6),
    lambda inner: (
        strategies.lists(inner, max_size=4) | strategies.dictionaries(strategies.text('"\\[{:', max_size=2), inner)
    ),
    max_leaves=20,
)


@given(
    value=json_values,
    limits=strategies.tuples(*[strategies.integers(0, 12)] * 3),
    chunk_bytes=strategies.integers(1, 9),
)
@settings(max_examples=150, deadline=None)
def test_json_is_refused_exactly_where_counting_byte_by_byte_says_so(
    value: Any, limits: tuple[int, int, int], chunk_bytes: int
) -> None:
    body = json.dumps(value).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bodies, "CHUNK_BYTES", chunk_bytes)
        for name, limit in zip(("MAX_JSON_DEPTH", "MAX_JSON_VALUES", "MAX_JSON_MEMBERS"), limits, strict=True):
            patch.setattr(bodies, name, limit)
        is_refused = False
        try:
            refuse_heavy_json(body)
        except BodyError:
            is_refused = True
    assert is_refused == any(weight > limit for weight, limit in zip(weight_of(body), limits, strict=True))


def filled(unit: bytes, num_bytes: int = 8 * 1024 * 1024) -> bytes:
    return (unit * (num_bytes // len(unit) + 1))[:num_bytes]


HEAVY = {
    "openers": filled(b"["),
    "pairs": filled(b"[]{}"),
    "lists side by side": b"[" + filled(b"[],")[:-4] + b"[]]",
    "lists of lists": filled(b"[" * 31 + b"]" * 31 + b","),
    "escaped quotes in a string, deep": b'{"a":' * 40 + b'"' + filled(b'\\"')[:-400],
    "texts": b"[" + filled(b'"",')[:-4] + b'""]',
    "numbers": b"[" + filled(b"0,")[:-3] + b"0]",
    "names": b"{" + b",".join(b'"%d":0' % number for number in range(MAX_JSON_MEMBERS + 1)) + b"}",
}


@pytest.mark.parametrize("body", HEAVY.values(), ids=HEAVY.keys())
def test_hostile_json_of_any_size_is_refused(app: FastAPI, body: bytes) -> None:
    refused = ask(app, "POST", "/v1/search", headers=JSON, chunks=[body])
    assert (refused.status, refused.problem["title"]) == (400, "Bad Request")


@pytest.mark.parametrize(("num_bytes", "is_beside"), [(bodies.INLINE_BYTES, False), (bodies.INLINE_BYTES + 1, True)])
def test_a_long_body_is_looked_through_beside_the_event_loop(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, num_bytes: int, is_beside: bool
) -> None:
    seen: list[tuple[int, bool]] = []

    def look(body: bytes) -> None:
        seen.append((len(body), threading.current_thread() is not threading.main_thread()))

    monkeypatch.setattr(bodies, "refuse_heavy_json", look)
    ask(app, "POST", "/v1/search", headers=JSON, chunks=[b"{}" + b" " * (num_bytes - 2)])
    assert seen == [(num_bytes, is_beside)]


def test_pictures_and_batches_of_vectors_are_not_too_heavy() -> None:
    picture = {"image": "A" * 6_000_000, "filter": {"all": [{"field": ":,[{", "equals": 1}] * 40}}
    refuse_heavy_json(json.dumps(picture).encode())
    refuse_heavy_json(json.dumps({"queries": [{"vector": [0.25] * 4_000, "k": 10}] * 64}).encode())
    assert MAX_JSON_VALUES > 64 * 4_000


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_a_number_that_is_none_is_refused_by_its_field(app: FastAPI, number: bytes) -> None:
    refused = ask(app, "POST", "/v1/search", headers=JSON, chunks=[b'{"weight": ' + number + b"}"])
    assert (refused.status, refused.problem["errors"][0]["field"]) == (422, "weight")


def test_a_line_says_what_happened_and_not_what_was_searched_for(app: FastAPI, log: list[str]) -> None:
    body = json.dumps({"text": SECRET_TEXT}).encode()
    answer = ask(app, "POST", "/v1/search", headers=JSON, chunks=[body])
    assert json.loads(answer.body) == {"text": SECRET_TEXT}
    line = json.loads(log[0])
    assert line.pop("ms") > 0
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "request_id": answer.header("x-request-id"),
        "method": "POST",
        "route": "/v1/search",
        "status": 200,
        "stages_ms": {"encode": 1.25, "search": 0.5},
        "key": None,
        "body_bytes": len(body),
    }
    assert (len(log), SECRET_TEXT in log[0]) == (1, False)


def test_an_option_adds_the_query_to_the_line(log: list[str]) -> None:
    ask(make_app(GuardOptions(log_queries=True)), "POST", "/v1/search", headers=JSON, chunks=[b'{"text": "sofa\\n"}'])
    assert json.loads(log[0])["query"] == "sofa\n"
    assert "\n" not in log[0]


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/v1/products/a/b", 404, "/v1/products/{product_id}"),
        ("/v1/products/broken", 500, "/v1/products/{product_id}"),
        ("/wp-login.php", 404, "none"),
    ],
)
def test_a_line_has_the_route_and_never_the_path(
    app: FastAPI, log: list[str], path: str, status: int, route: str
) -> None:
    ask(app, "GET", path)
    line = json.loads(log[0])
    assert (line["status"], line["route"]) == (status, route)
    assert path not in log[0]


def test_metrics_take_everything_without_ray() -> None:
    metrics, encoder = ServiceMetrics(), EncoderMetrics()
    metrics.count_request(route="/v1/search", status=200, ms=3)
    metrics.observe_stages({"encode": 1.5, "search": 0.5, "products": 0.0})
    metrics.show_index(version=3, age_s=60.5)
    metrics.count_refused_swap("sha256")
    encoder.observe_batch(kind="text", size=4)
    encoder.show_queue(2)
    with pytest.raises(TypeError):
        encoder.observe_batch(kind="text", size="4")  # type: ignore[arg-type]
