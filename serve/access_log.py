"""The outermost layer: every request gets an id, an answer, and one line of JSON in the log.

Logged is what an operator needs and a customer can live with: no texts, ids of products, keys or addresses.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import marked, unexpected
from serve.requests import HEADER, RequestRecord, id_sent_by_serve, start_record

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log
access_logger = logging.getLogger("ray.serve.access")

STATUS_CLIENT_GONE = 499
"""What nginx logs for a client that did not wait."""
NO_ROUTE = "none"
"""Instead of a path that no route has: what strangers try would otherwise be the log's contents."""


class RequestMetrics(Protocol):
    """What counts requests; ServiceMetrics does."""

    def count_request(self, *, route: str, status: int, ms: float) -> None:
        """Count a request."""
        ...


class AccessLog:
    """ASGI middleware: names, answers and logs each request."""

    def __init__(self, app: ASGIApp, *, log_queries: bool = False, metrics: RequestMetrics | None = None) -> None:
        self._app = app
        self._log_queries = log_queries
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; what fails on the way is answered and logged here, with the id that the answer names."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        record = start_record(scope)
        # Serve adds the header itself; only in place of an id that it should not have taken is there another one.
        is_named_by_serve = id_sent_by_serve() == record.request_id
        status = STATUS_CLIENT_GONE
        has_started = False

        async def named_send(message: Message) -> None:
            nonlocal status, has_started
            if message["type"] == "http.response.start":
                status, has_started = message["status"], True
                message = marked(message)
                if not is_named_by_serve:
                    message["headers"] = [*message["headers"], (HEADER.encode(), record.request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, named_send)
        except asyncio.CancelledError:
            status = STATUS_CLIENT_GONE
            raise
        except Exception:  # whatever it is, the client gets an answer and the log the traceback
            logger.exception("request_failed request_id=%s", record.request_id)
            if has_started:
                raise  # the server must break the answer off: half of one is none
            await unexpected()(scope, receive, named_send)
        finally:
            self._write(scope, record, status=status, ms=(time.perf_counter() - started_s) * 1000)

    def _write(self, scope: Scope, record: RequestRecord, *, status: int, ms: float) -> None:
        # The route's own template: routers are to be included without a prefix, which FastAPI keeps to itself.
        route = getattr(scope.get("route"), "path_format", NO_ROUTE)
        line: dict[str, Any] = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": record.request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(ms, 3),
            "stages_ms": {stage: round(value, 3) for stage, value in record.stages_ms.items()},
            "key": record.key_name,
            "body_bytes": record.num_body_bytes,
        }
        if self._log_queries and record.query is not None:
            line["query"] = record.query
        access_logger.info("%s", json.dumps(line, ensure_ascii=True))
        if self._metrics is not None:
            self._metrics.count_request(route=route, status=status, ms=ms)
