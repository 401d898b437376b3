"""A shop of forty lamps as an index, and how its service is asked over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from product_retrieval.catalog import ColumnOptions
from product_retrieval.encoders import EncoderOptions
from rayjobs.build_index import BuildOptions, build_index
from rayjobs.embed import EmbedOptions, embed
from rayjobs.encoder_pool import PoolOptions

NUM_PRODUCTS = 40
HOSTILE = "<img src=x onerror=document.title='broken'>"
ODD_ID = "sets/a b%2F?é"
Answer = tuple[int, dict[str, str], Any]
Call = Callable[..., Answer]


def picture(number: int) -> bytes:
    pixels = np.full((24, 24, 3), 255, np.uint8)
    pixels[4:20, 2 + number % 8 : 12 + number % 12] = (number * 6, 255 - number * 6, number * 37 % 256)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_catalog(file: Path) -> None:
    rows = [
        {
            "product_id": f"p{number:02d}",
            "title": f"lamp number {number}",
            "price": float(number),
            "color": "red" if number % 2 else "blue",
            "group_id": f"g{number // 4}",
            "image": picture(number),
        }
        for number in range(NUM_PRODUCTS)
    ]
    rows[1] |= {"title": HOSTILE, "price": float("nan")}
    rows[2] |= {"product_id": ODD_ID}
    rows[3] |= {"image": None}
    pq.write_table(pa.Table.from_pylist(rows), file)


def make_index(folder: Path) -> str:
    """Embed and index the shop with the hash encoder, on the Ray that runs; return the index's folder."""
    write_catalog(folder / "catalog.parquet")
    embed(
        EmbedOptions(
            catalog=str(folder / "catalog.parquet"),
            output=str(folder / "embeddings"),
            encoder=EncoderOptions(model="hash"),
            pool=PoolOptions(max_actors=1),
            columns=ColumnOptions(text="{title}"),
        )
    )
    build_index(BuildOptions(embeddings=str(folder / "embeddings"), output=str(folder / "index")))
    return str(folder / "index")


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def caller(port: int) -> Call:
    """Return a function that sends a request and returns status, headers, and the body: JSON read, else bytes."""

    def send(method: str, path: str, body: bytes | dict[str, Any] | None = None, content_type: str = "") -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        kind = content_type or ("application/json" if data is not None else "")
        connection.request(method, path, data, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        content = response.read()
        connection.close()
        return response.status, headers, json.loads(content) if "json" in headers["content-type"] else content

    return send
