"""A weightless encoder for tests and dry runs: deterministic, instant, and without any idea of meaning.

Texts become signed hashed character trigrams, pictures a coarse colour layout, each through a fixed random
projection. Equal inputs give equal vectors, similar inputs similar ones, but the two modalities are not aligned.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from product_retrieval.encoders.protocol import Fingerprint
from product_retrieval.images import Box

DIM = 64
SIDE = 16
TRIGRAM_BUCKETS = 4096
PROJECTION_SEED = 20_261_123
VERSION = "hash-1"


class HashEncoder:
    """Encodes by hashing; see the module's text."""

    def __init__(self) -> None:
        generator = np.random.default_rng(PROJECTION_SEED)
        self._text_projection = generator.standard_normal((TRIGRAM_BUCKETS, DIM), np.float32)
        self._image_projection = generator.standard_normal((SIDE * SIDE * 3 + 1, DIM), np.float32)

    @property
    def fingerprint(self) -> Fingerprint:
        """Constant: there are no weights."""
        return Fingerprint(VERSION, "", "", "sum", DIM)

    @property
    def min_side(self) -> int | None:
        """See Preparer.min_side; a hash of pixels wants all of them."""
        return None

    def prepare_image(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
        return np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX, box=box))

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Encoder.encode_images."""
        layout = prepared.reshape(len(prepared), SIDE * SIDE * 3).astype(np.float32) / 255 - 0.5
        constant = np.ones((len(prepared), 1), np.float32)  # a mid-grey picture must not become a zero vector
        return _unit(np.hstack([layout, constant]) @ self._image_projection)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Encoder.encode_texts."""
        counts = np.zeros((len(texts), TRIGRAM_BUCKETS), np.float32)
        for row, text in enumerate(texts):
            padded = f"  {text.lower()} "
            for start in range(len(padded) - 2):
                counts[row, zlib.crc32(padded[start : start + 3].encode()) % TRIGRAM_BUCKETS] += 1
        return _unit(counts @ self._text_projection)

    def limit_threads(self, num_threads: int) -> None:
        """See Encoder.limit_threads; hashing has one thread."""


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
