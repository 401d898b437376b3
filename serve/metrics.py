"""What the service measures of itself, on Ray's Prometheus endpoint of each node.

Made outside of a replica, or without Ray, the same objects take the same calls, and nothing is exported.
"""

from __future__ import annotations

from collections.abc import Mapping

from ray.serve.metrics import Counter, Gauge, Histogram

PREFIX = "product_search_"
LATENCY_BOUNDS_MS = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0]
BATCH_BOUNDS = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]


class ServiceMetrics:
    """Metrics of the replicas that answer requests."""

    def __init__(self) -> None:
        self._requests = Counter(f"{PREFIX}requests", "Requests answered.", tag_keys=("route", "status"))
        self._request_ms = Histogram(
            f"{PREFIX}request_ms",
            "Time from a request's first byte in the replica to the end of its answer.",
            boundaries=LATENCY_BOUNDS_MS,
            tag_keys=("route",),
        )
        self._stage_ms = Histogram(
            f"{PREFIX}stage_ms",
            "Time of a stage of a search: encode, search, products, rerank.",
            boundaries=LATENCY_BOUNDS_MS,
            tag_keys=("stage",),
        )
        self._version = Gauge(f"{PREFIX}index_version", "Version of the index that answers.")
        self._age_s = Gauge(f"{PREFIX}index_age_seconds", "Seconds since that version was published.")
        self._refused = Counter(
            f"{PREFIX}refused_swaps", "Versions of the index that were not moved to.", tag_keys=("reason",)
        )

        self._rerank_failures = Counter(
            f"{PREFIX}rerank_failures",
            "Answers that kept the index's order though asked otherwise.",
            tag_keys=("reason",),
        )

    # Serve fills a missing tag `route` with the application's prefix, so it is always given here.
    def count_request(self, *, route: str, status: int, ms: float) -> None:
        """Count a request.

        Args:
            route: template of its path, never the path itself.
            status: of HTTP.
            ms: milliseconds that it took.
        """
        self._requests.inc(tags={"route": route, "status": str(status)})
        self._request_ms.observe(ms, tags={"route": route})

    def observe_stages(self, stages_ms: Mapping[str, float]) -> None:
        """Take the milliseconds of each stage of one search."""
        for stage, ms in stages_ms.items():
            self._stage_ms.observe(ms, tags={"stage": stage})

    def show_index(self, *, version: int, age_s: float) -> None:
        """Show which version answers, and how many seconds ago it was built."""
        self._version.set(version)
        self._age_s.set(age_s)

    def count_refused_swap(self, reason: str) -> None:
        """Count a version that was refused; the reason is one of a few words, such as sha256 or fingerprint."""
        self._refused.inc(tags={"reason": reason})

    def count_rerank_failure(self, reason: str) -> None:
        """Count an answer without its re-ranker's order; the reason is timeout, error or order."""
        self._rerank_failures.inc(tags={"reason": reason})


class EncoderMetrics:
    """Metrics of the replicas that encode queries."""

    def __init__(self) -> None:
        self._batch_size = Histogram(
            f"{PREFIX}encoder_batch_size",
            "Queries in one forward pass.",
            boundaries=BATCH_BOUNDS,
            tag_keys=("kind",),
        )
        self._queue_length = Gauge(f"{PREFIX}encoder_queue_length", "Queries that are not encoded yet.")

    def observe_batch(self, *, kind: str, size: int) -> None:
        """Take the size of a batch of texts or of pictures."""
        self._batch_size.observe(size, tags={"kind": kind})

    def show_queue(self, length: int) -> None:
        """Show how many queries wait."""
        self._queue_length.set(length)
