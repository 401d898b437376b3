"""Fixtures that several tests share: bytes of small pictures, and a catalogue small enough to read in full."""

from __future__ import annotations

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

# Set before FAISS and torch start their threads: on a busy machine, threads that wait for one another spin.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell without job control starts what ends in `&` with SIGINT ignored, and children inherit that: no command that a
# test starts could be interrupted. A handler is not inherited, so with one here they begin with the default.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Color = tuple[int, int, int]


def encode_picture(color: Color, size: tuple[int, int], image_format: str, **how: Any) -> bytes:
    """Return the bytes of a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, color).save(buffer, format=image_format, **how)
    return buffer.getvalue()


@pytest.fixture
def png() -> Callable[..., bytes]:
    """Return a maker of PNG bytes: png((255, 0, 0), (8, 8))."""

    def make(color: Color = (255, 0, 0), size: tuple[int, int] = (8, 8)) -> bytes:
        return encode_picture(color, size, "PNG")

    return make


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    """Return a maker of JPEG bytes; noisy, so that the file has a length worth cutting."""

    def make(size: tuple[int, int] = (64, 48), seed: int = 0) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="JPEG", quality=90)
        return buffer.getvalue()

    return make


@pytest.fixture
def tiny_catalog(tmp_path: Path, png: Callable[..., bytes]) -> Path:
    """Write a catalogue of five products, two of which cannot be encoded, and return its path.

    mug: picture and text; cup: text only; jug: picture only; pot: a picture that is HTML; lid: nothing at all.
    """
    table = pa.table(
        {
            "product_id": ["mug", "cup", "jug", "pot", "lid"],
            "title": ["Red mug", "Blue cup", None, "Green pot", None],
            "price": pa.array([4.5, 3.0, None, 9.0, 1.0], pa.float32()),
            "image": pa.array([png((255, 0, 0)), None, png((0, 0, 255)), b"<html>404</html>", None], pa.binary()),
        }
    )
    path = tmp_path / "shop" / "catalog.parquet"
    path.parent.mkdir()
    pq.write_table(table, path)
    return path


@pytest.fixture
def process_state() -> Iterator[None]:
    """Put back what a command changes in its process: the root logger's handlers and the SIGTERM handler."""
    root = logging.getLogger()
    handlers, level, terminate = root.handlers[:], root.level, signal.getsignal(signal.SIGTERM)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    signal.signal(signal.SIGTERM, terminate)
