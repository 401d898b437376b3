"""What the service adds to the library: one request at a time over HTTP, beside the same calls in this process.

    python -m benchmarks.serve_overhead --index out/demo/index --repeats 5 --output benchmarks/serve_overhead.md

In turns, for texts, products and pictures: the request on a connection that stays open, and encoding, search and
reading of products in this process with the same options. Milliseconds by the clock; median and 95th percentile of
each repeat, then the median of the repeats with their range. Both sides share the machine, and the service's processes
are at rest while the library runs.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.served import circumstances, percentile, service
from product_retrieval.encoders import Encoder, EncoderOptions, load_encoder
from product_retrieval.images import decode
from product_retrieval.pictures import load_picture
from product_retrieval.querying import Part, ProductPart, ProductSearch, Query, VectorPart, open_search
from product_retrieval.storage import Storage

T = TypeVar("T")
K = 10
WARM_UP = 20


@dataclass(slots=True)
class Times:
    """Milliseconds of one kind of query, a list a repeat."""

    service: list[list[float]] = field(default_factory=list)
    library: list[list[float]] = field(default_factory=list)


class Library:
    """The calls that a replica makes, in this process."""

    def __init__(self, index: str) -> None:
        """Open the index and its model."""
        self.search: ProductSearch
        self.search, self.manifest = open_search(Storage.at(index))
        self._encoder: Encoder = load_encoder(EncoderOptions(model=self.manifest.model))

    def text(self, text: str) -> None:
        """Search by a text."""
        self._ask(VectorPart(vector=self._encoder.encode_texts([text])[0], made_from="text"))

    def product(self, product_id: str) -> None:
        """Search by a product."""
        self._ask(ProductPart(product_id=product_id))

    def picture(self, data: bytes) -> None:
        """Search by a picture."""
        decoded = decode(data, min_side=self._encoder.min_side)
        assert decoded.pixels is not None
        prepared = self._encoder.prepare_image(decoded.pixels, decoded.box)
        self._ask(VectorPart(vector=self._encoder.encode_images(prepared[None])[0], made_from="image"))

    def _ask(self, part: Part) -> None:
        hits = self.search.ask(Query(parts=(part,), k=K)).hits
        self.search.index.describe([hit.row for hit in hits])


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="What the service adds to the library.")
    parser.add_argument("--index", required=True)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    library = Library(options.index)
    texts, ids, pictures = queries_of(library, options.requests)
    measured = {kind: Times() for kind in ("text", "product", "picture")}
    with service(options.index, "max_replicas=1"):
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=30)

        def ask(path: str, body: bytes, content_type: str) -> None:
            connection.request("POST", path, body, {"Content-Type": content_type})
            response = connection.getresponse()
            if len(json.loads(response.read())["hits"]) != K:
                raise SystemExit(f"{path}: not {K} hits")

        def ask_json(**query: object) -> None:
            ask("/v1/search", json.dumps({**query, "k": K}).encode(), "application/json")

        for _ in range(options.repeats):
            both(measured["text"], texts, lambda text: ask_json(text=text), library.text)
            both(measured["product"], ids, lambda one: ask_json(product_id=one), library.product)
            both(
                measured["picture"], pictures, lambda jpeg: ask("/v1/search/image", jpeg, "image/jpeg"), library.picture
            )
    command = f"python -m benchmarks.serve_overhead --index {options.index} --requests {options.requests} "
    command += f"--repeats {options.repeats} --output {options.output}"
    options.output.write_text(page(measured, command, library), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


def queries_of(library: Library, number: int) -> tuple[list[str], list[str], list[bytes]]:
    """Return titles, ids and catalogue pictures of products that lie evenly over the index."""
    index = library.search.index
    rows = [int(at * index.num_rows / number) for at in range(number)]
    products = index.describe(rows, ["product_id", "title", "image_ref"])
    catalog = library.manifest.catalog
    loaded = [
        load_picture(
            catalog["image_root"],
            product["image_ref"],
            image_column=catalog["image_column"],
            catalog_root=catalog.get("root"),
        )
        for product in products
    ]
    titles = [str(product["title"]) for product in products if product["title"]]
    return titles, [str(product["product_id"]) for product in products], [data for data in loaded if data]


def both(times: Times, queries: Sequence[T], over_http: Callable[[T], None], here: Callable[[T], None]) -> None:
    """Time one repeat of both sides, after some queries that do not count."""
    for side, call in ((times.service, over_http), (times.library, here)):
        for query in queries[:WARM_UP]:
            call(query)
        spent = []
        for query in queries:
            started = time.perf_counter()
            call(query)
            spent.append((time.perf_counter() - started) * 1000)
        side.append(spent)


def page(measured: dict[str, Times], command: str, library: Library) -> str:
    """Return the measurements as Markdown."""
    lines = [
        "# What the service adds to the library",
        "",
        circumstances(command, "ray", "torch", "transformers", "faiss-cpu"),
        f"{library.search.index.num_rows:,} products, {K} hits with all columns; one request at a time on a connection "
        "that stays open, Ray Serve's default ingress. Milliseconds: median of the repeats (range).",
        "",
        "| query | library, p50 | service, p50 | added, p50 | library, p95 | service, p95 |",
        "|---|---|---|---|---|---|",
    ]
    for kind, times in measured.items():
        at = {
            (side, share): [percentile(one, share) for one in spent]
            for side, spent in (("library", times.library), ("service", times.service))
            for share in (0.5, 0.95)
        }
        added = [ours - bare for ours, bare in zip(at["service", 0.5], at["library", 0.5], strict=True)]
        cells = [at["library", 0.5], at["service", 0.5], added, at["library", 0.95], at["service", 0.95]]
        lines.append(f"| {kind} | {' | '.join(map(spread, cells))} |")
    return "\n".join([*lines, ""])


def spread(values: list[float]) -> str:
    """Return a median with its range."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
