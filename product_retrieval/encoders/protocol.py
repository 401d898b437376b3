"""What an encoder is, and how one is chosen by name.

N is the number of products or queries, D the dimension of the shared space, S the side of the model's input.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from product_retrieval.images import Box

DEMO_MODEL = "demo/model"
"""The small model in this repository; the default, so that everything runs without a model hub."""
HASH_MODEL = "hash"

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """Which model encodes, and how."""

    model: str = DEMO_MODEL
    """Hub id, local folder, or `hash` for the weightless test encoder."""
    revision: str | None = None
    """Commit, tag or branch of a hub id; a commit makes a rerun encode the same."""
    batch_size: int = 64
    """Products in one forward pass."""
    device: Device = "auto"
    """`auto` takes the GPU where there is one."""
    precision: Precision = "auto"
    """Of the weights and the forward pass; `auto` is bfloat16 where the GPU or the CPU (AMX) has it, else float32."""
    compile: bool = False
    """Compile the model with torch.compile: minutes at the start, faster from then on; needs a C++ compiler."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"--encoder.batch-size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What makes two vectors comparable: equal fingerprints, equal space."""

    family: str
    """Kind of model, such as `clip` or `vision-text-dual-encoder`."""
    weights_sha256: str
    """Over the weights and the configuration that says what to do with them."""
    preprocessing_sha256: str
    """Over the image processor's and the tokenizer's files."""
    pooling: str
    dim: int
    normalized: bool = True

    @property
    def digest(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


class Encoder(Protocol):
    """Pictures and texts to unit vectors of one space; several threads may call it at once."""

    @property
    def fingerprint(self) -> Fingerprint:
        """What makes this encoder's vectors comparable with others."""

    @property
    def min_side(self) -> int | None:
        """See Preparer.min_side."""

    def prepare_image(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.uint8]:
        """Resize and crop one picture on the CPU to what the model takes.

        Args:
            pixels: uint8 [H, W, 3], RGB.
            box: of a picture decoded at reduced size, the part of the pixels that it fills.

        Returns:
            uint8 [S, S, 3].
        """

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode prepared pictures.

        Args:
            prepared: uint8 [N, S, S, 3], each from prepare_image.

        Returns:
            float32 [N, D], unit length; a row is not finite where the model's numbers overflowed.
        """

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts.

        Args:
            texts: N texts of any length; what does not fit the model is cut off.

        Returns:
            float32 [N, D], unit length; a row is not finite where the model's numbers overflowed.
        """

    def limit_threads(self, num_threads: int) -> None:
        """Use at most so many threads for a forward pass on CPU, in this process from now on."""


def load_encoder(options: EncoderOptions) -> Encoder:
    """Load the encoder that the options name.

    Raises:
        EncoderError: there is no such model, it is broken, or it is no dual encoder.
    """
    if options.model == HASH_MODEL:
        from product_retrieval.encoders.hashing import HashEncoder

        return HashEncoder()
    from product_retrieval.encoders.transformers import TransformersEncoder

    return TransformersEncoder(options)


def fingerprint_of(options: EncoderOptions) -> Fingerprint:
    """Return the fingerprint of the encoder that the options name, without loading weights.

    Raises:
        EncoderError: there is no such model, or it is no dual encoder.
    """
    if options.model == HASH_MODEL:
        from product_retrieval.encoders.hashing import HashEncoder

        return HashEncoder().fingerprint
    from product_retrieval.encoders import folders

    return folders.fingerprint_of(options)


def check_model(options: EncoderOptions) -> None:
    """Find out in seconds, without reading weights, whether the encoder that the options name can be loaded.

    Raises:
        EncoderError: there is no such model, something of it is missing or does not fit, or it is no dual encoder.
    """
    if options.model == HASH_MODEL:
        return
    from product_retrieval.encoders import loading

    loading.check_model(options)


def load_preparer(options: EncoderOptions) -> Preparer:
    """Load only what prepares pictures, without the weights, for the CPU workers in front of an encoder.

    Raises:
        EncoderError: there is no such model or it has no image processor.
    """
    if options.model == HASH_MODEL:
        from product_retrieval.encoders.hashing import HashEncoder

        return HashEncoder()
    from product_retrieval.encoders.preparing import ImagePreparer

    return ImagePreparer.load(options)


class Preparer(Protocol):
    """The part of an encoder that runs on CPU workers."""

    @property
    def min_side(self) -> int | None:
        """Pixels that a picture's shorter side must keep when decode() reduces it; None: it must not be reduced."""

    def prepare_image(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
