"""The query encoder: a deployment of its own, so that it scales by itself and holds the only copy of the model.

D is the dimension of the index, S the side of the model's input.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ray import serve

from product_retrieval.encoders.protocol import Device
from product_retrieval.images import ImageLimits, decode
from product_retrieval.search import open_encoder_as
from serve.metrics import EncoderMetrics

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log

MAX_BATCH_SIZE = 16
BATCH_WAIT_S = 0.002
"""What a lone query waits for company: little beside the milliseconds of its own forward pass."""
NUM_DECODERS = 2
"""Pictures decoded at once in a replica: bounds memory at about this x the pixels below x 8 bytes."""
QUERY_LIMITS = ImageLimits(max_pixels=32_000_000)


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """A picture's vector, or the reason why there is none."""

    vector: NDArray[np.float32] | None
    """float32 [D], unit length."""
    reason: str = ""


# Half a CPU each, so that both deployments fit a laptop's; a failed start is not repeated twenty times.
@serve.deployment(
    max_ongoing_requests=64,
    max_queued_requests=256,
    max_constructor_retry_count=2,
    ray_actor_options={"num_cpus": 0.5},
)
class QueryEncoder:
    """Encodes queries, several in one forward pass."""

    def __init__(self, model: str, fingerprint: str, made_with: str, device: Device) -> None:
        """Load the model.

        Args:
            model: folder or hub id.
            fingerprint: digest that it must have.
            made_with: what the index calls its model, for the error.
            device: where it runs.

        Raises:
            EncoderError: it cannot be loaded, or it is not the one that the index was made with.
        """
        self._encoder = open_encoder_as(model, fingerprint, made_with=made_with, device=device)
        self._decoders = asyncio.Semaphore(NUM_DECODERS)
        self._metrics = EncoderMetrics()
        self._num_waiting = 0
        logger.info("encoder_ready model=%s fingerprint=%s", model, fingerprint[:12])

    def fingerprint(self) -> str:
        """Return the digest of what makes this encoder's vectors comparable."""
        return self._encoder.fingerprint.digest

    async def encode_text(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a text, float32 [D]."""
        with self._waiting():
            return await self._encode_texts(text)

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _encode_texts(self, texts: list[str]) -> list[NDArray[np.float32]]:
        """Encode a batch; Serve gathers it and hands each caller its own."""
        self._metrics.observe_batch(kind="text", size=len(texts))
        return list(await asyncio.to_thread(self._encoder.encode_texts, texts))

    async def encode_picture(self, data: bytes) -> EncodedPicture:
        """Decode and encode the untrusted bytes of a picture."""
        with self._waiting():
            async with self._decoders:
                prepared = await asyncio.to_thread(self._prepare, data)
            return (
                EncodedPicture(None, prepared) if isinstance(prepared, str) else await self._encode_prepared(prepared)
            )

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=BATCH_WAIT_S)
    async def _encode_prepared(self, prepared: list[NDArray[np.uint8]]) -> list[EncodedPicture]:
        self._metrics.observe_batch(kind="image", size=len(prepared))
        vectors = await asyncio.to_thread(self._encoder.encode_images, np.stack(prepared))
        return [EncodedPicture(vector) for vector in vectors]

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        """Count a query that is not answered yet."""
        self._num_waiting += 1
        self._metrics.show_queue(self._num_waiting)
        try:
            yield
        finally:
            self._num_waiting -= 1
            self._metrics.show_queue(self._num_waiting)

    def _prepare(self, data: bytes) -> NDArray[np.uint8] | str:
        """Return the model's input, uint8 [S, S, 3], or why there is none."""
        decoded = decode(data, QUERY_LIMITS, min_side=self._encoder.min_side)
        if decoded.pixels is None:
            return f"{decoded.reason} {decoded.detail}".rstrip()
        return self._encoder.prepare_image(decoded.pixels, decoded.box)
