"""A stand-in for the service that answers its HTTP contract from a short list, and can be told to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from serve.page import page_response

Record = dict[str, Any]


@dataclass
class StubService:
    """What it answers; tests change it between requests."""

    products: list[Record]
    """Columns of each product; product_id and title among them."""
    pictures: dict[str, tuple[str, bytes]]
    """Media type and bytes by product id."""
    facet_fields: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    key: str = ""
    num_refusals: int = 0
    """How many searches from now on are refused with 503."""
    retry_after_s: int = 1
    problem: Record | None = None
    """Answer of every search, where set."""
    delays_s: dict[str, float] = field(default_factory=dict)
    """How long the answer to a text waits."""
    has_info: bool = True
    searches: list[Record] = field(default_factory=list)
    """The searches seen: the JSON, or the URL parameters and the picture's bytes under `body`."""
    headers: list[dict[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        handler = type("Handler", (_Handler,), {"stub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()

    def info(self) -> Record:
        """Describe what is served."""
        facets = []
        for name in self.facet_fields:
            counts = Counter(product[name] for product in self.products if product.get(name) is not None)
            facets.append({"field": name, "values": [{"value": v, "count": n} for v, n in counts.most_common()]})
        columns = list(self.products[0])
        number = len(self.products)
        return {
            "index_version": 3,
            "build_id": "b",
            "model": "stub",
            "num_products": number,
            "columns": columns,
            "max_k": 100,
            "facets": facets,
            "examples": list(self.examples),
        }

    def answer(self, search: Record) -> Record:
        """Rank by words in common with the query; a product is nearest to itself, a picture to all in their order."""
        allowed = [product for product in self.products if _passes(product, search.get("filter"))]
        ranked = sorted(((_score(product, search), product) for product in allowed), key=lambda pair: -pair[0])
        hits = [self._hit(at, score, product) for at, (score, product) in enumerate(ranked[: int(search["k"])], 1)]
        kind = next((kind for kind in ("text", "image", "product_id", "mix") if kind in search), "image")
        return {
            "request_id": "r1",
            "index_version": 3,
            "query_kind": kind,
            "against": search.get("against", "image"),
            "score_kind": "cosine similarity",
            "ranking": "retrieval",
            "num_allowed": len(allowed),
            "points": {},
            "hits": hits,
            "timings_ms": {"encode": 12.34, "search": 1.5, "products": 0.25, "rerank": 0.0},
        }

    def _hit(self, rank: int, score: float, product: Record) -> Record:
        return {"rank": rank, "retrieval_rank": rank, "score": score, "ranks": {"image": rank}, **self.record(product)}

    def record(self, product: Record) -> Record:
        """Return a product as the service shows it."""
        name = product["product_id"]
        url = f"v1/products/{name}/image" if name in self.pictures else None
        return {"product_id": name, "title": product["title"], "image_url": url, "product": product}


def _passes(product: Record, clause: Record | None) -> bool:
    if clause is None:
        return True
    if "and" in clause:
        return all(_passes(product, one) for one in clause["and"])
    return product[clause["field"]] in clause["in"]


def _score(product: Record, search: Record) -> float:
    parts = search.get("mix") or [{**search, "weight": 1}]
    return float(sum(part["weight"] * _similarity(product, part) for part in parts))


def _similarity(product: Record, part: Record) -> float:
    if "product_id" in part:
        return float(product["product_id"] == part["product_id"])
    asked = set(part.get("text", "").lower().split())
    return len(asked & set(product["title"].lower().split())) / max(1, len(asked))


class _Handler(BaseHTTPRequestHandler):
    stub: StubService
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path == "/":
            page = page_response()
            return self._send(200, bytes(page.body), dict(page.headers))
        if not self._is_allowed():
            return None
        if path == "/v1/info" and self.stub.has_info:
            return self._send_json(200, self.stub.info())
        name = path.removeprefix("/v1/products/")
        if name.removesuffix("/image") in self.stub.pictures and name.endswith("/image"):
            media_type, content = self.stub.pictures[name.removesuffix("/image")]
            return self._send(200, content, {"Content-Type": media_type})
        product = next((one for one in self.stub.products if one["product_id"] == name), None)
        return self._send_json(200, self.stub.record(product)) if product else self._send_problem(404, f"no {path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._is_allowed():
            return None
        url = urlsplit(self.path)
        if url.path == "/v1/search":
            search = json.loads(body)
        else:
            search = {name: values[0] for name, values in parse_qs(url.query).items()} | {"body": body}
            search |= {"filter": json.loads(search["filter"])} if "filter" in search else {}
        self.stub.searches.append(search)
        time.sleep(self.stub.delays_s.get(search.get("text", ""), 0))
        if self.stub.num_refusals > 0:
            self.stub.num_refusals -= 1
            return self._send_problem(503, "too many searches", {"Retry-After": str(self.stub.retry_after_s)})
        if self.stub.problem:
            return self._send_json(self.stub.problem["status"], self.stub.problem)
        return self._send_json(200, self.stub.answer(search))

    def _is_allowed(self) -> bool:
        self.stub.headers.append(dict(self.headers))
        if self.stub.key and self.headers["Authorization"] != f"Bearer {self.stub.key}":
            self._send_problem(401, "a key is needed")
            return False
        return True

    def _send_problem(self, status: int, detail: str, headers: dict[str, str] | None = None) -> None:
        self._send_json(status, {"status": status, "detail": detail, "errors": [], "request_id": "r9"}, headers)

    def _send_json(self, status: int, record: Record, headers: dict[str, str] | None = None) -> None:
        kind = "application/json" if status == 200 else "application/problem+json"
        self._send(status, json.dumps(record).encode(), {"Content-Type": kind, **(headers or {})})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True  # the browser gave this answer up

    def log_message(self, *_: object) -> None:
        """Say nothing."""
