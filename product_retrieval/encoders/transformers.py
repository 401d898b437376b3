"""Dual encoders that transformers loads: CLIP, SigLIP, ALIGN, Chinese-CLIP, AltCLIP, VisionTextDualEncoder, ...

A model is a folder, local or from the hub. Only safetensors weights are read and no code from the folder is run.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_retrieval.encoders.folders import explain, fingerprint_of
from product_retrieval.encoders.loading import load_model, load_text_preparer, pooled
from product_retrieval.encoders.preparing import ImagePreparer
from product_retrieval.encoders.protocol import EncoderOptions
from product_retrieval.errors import EncoderError
from product_retrieval.images import Box

TEXTS_A_PASS = 16
"""On a CPU, texts of like length go together: of batches of 64 of the demo's titles 0.55 of the tokens are left, of its
descriptions, which fill the model's length, 0.99. A GPU takes a batch in one pass."""
TRIAL_TEXTS = ("a red mug", "a", "")


class TransformersEncoder:
    """A dual encoder with its weights in memory, on one device."""

    def __init__(self, options: EncoderOptions) -> None:
        """Load the model and encode one picture and a few texts.

        Raises:
            EncoderError: there is no such model, it is broken, no dual encoder, or too large for the device.
        """
        import torch

        self.fingerprint = fingerprint_of(options)
        self._device = torch.device(_device(options))
        # Weights are cast once instead of by autocast in each pass: half the memory, up to 1.6 times the speed, and a
        # cosine to float32 above 0.9999 for transformers, 0.999 on average for convolutions (docs/encoders.md).
        self._model = load_model(options, _precision(options, self._device.type)).to(self._device)
        self._texts = load_text_preparer(options, self._model)
        self._tokenizing = threading.Lock()  # a tokenizer keeps its padding as state, and two threads would borrow it
        self._images = ImagePreparer.load(options)
        self.min_side = self._images.min_side
        self._scale = torch.tensor(self._images.scale, device=self._device).view(1, 3, 1, 1)
        self._offset = torch.tensor(self._images.offset, device=self._device).view(1, 3, 1, 1)
        self._image_features, self._text_features = self._model.get_image_features, self._model.get_text_features
        if options.compile:
            self._image_features = torch.compile(self._image_features, dynamic=True)
            self._text_features = torch.compile(self._text_features, dynamic=True)
        self._try_out(options)

    def prepare_image(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
        return self._images.prepare_image(pixels, box)

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Encoder.encode_images."""
        import torch

        if not len(prepared):
            return np.zeros((0, self.fingerprint.dim), np.float32)
        with torch.inference_mode():
            pixels = torch.tensor(prepared, device=self._device).permute(0, 3, 1, 2)
            pixels = (pixels * self._scale + self._offset).to(self._model.dtype)
            return _unit_rows(self._image_features(pixel_values=pixels))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Encoder.encode_texts."""
        if not len(texts):
            return np.zeros((0, self.fingerprint.dim), np.float32)
        shortest_first = np.argsort([len(text) for text in texts], kind="stable")
        size = TEXTS_A_PASS if self._device.type == "cpu" else len(texts)
        passes = [shortest_first[at : at + size] for at in range(0, len(texts), size)]
        encoded = np.concatenate([self._encode_padded([texts[row] for row in rows]) for rows in passes])
        vectors = np.empty_like(encoded)
        vectors[shortest_first] = encoded
        return vectors

    def _encode_padded(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts in one pass, float32 [N, D]."""
        import torch

        with self._tokenizing:
            prepared = self._texts(texts)
        tokens = {name: tensor.to(self._device) for name, tensor in prepared.items()}
        with torch.inference_mode():
            return _unit_rows(self._text_features(**tokens))

    def limit_threads(self, num_threads: int) -> None:
        """See Encoder.limit_threads."""
        import torch

        torch.set_num_threads(num_threads)

    def _try_out(self, options: EncoderOptions) -> None:
        """Encode a grey picture and a few texts, so that a model that cannot encode fails here and not amid a job."""
        try:
            images = self.encode_images(self.prepare_image(self._images.blank())[None])
            texts = self.encode_texts(TRIAL_TEXTS)
        except Exception as error:  # whatever a model, a compiler or a device raises, the user must choose another
            hint = "; --encoder.compile needs a C++ compiler, leave it out" if options.compile else ""
            raise EncoderError(f"--encoder.model {options.model}: cannot encode: {explain(error)}{hint}") from error
        for vectors in (images, texts):
            if vectors.shape[1:] != (self.fingerprint.dim,):
                raise EncoderError(
                    f"--encoder.model {options.model}: gives vectors of shape {vectors.shape[1:]}, not of the "
                    f"{self.fingerprint.dim} numbers that its configuration says"
                )
            if not np.isfinite(vectors).all():
                raise EncoderError(
                    f"--encoder.model {options.model}: its vectors are not finite: the weights are broken, or "
                    "--encoder.precision is too small for them (take bfloat16 or float32)"
                )
        if np.ptp(texts, axis=0).max() == 0:
            raise EncoderError(
                f"--encoder.model {options.model}: gives every text the same vector: the end token of its config.json "
                "is not the one of its tokenizer"
            )


def _unit_rows(features: Any) -> NDArray[np.float32]:
    import torch

    unit = torch.nn.functional.normalize(pooled(features).float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), np.float32)


def _device(options: EncoderOptions) -> str:
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise EncoderError("--encoder.device cuda: no GPU that torch can use; take cpu or auto")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.device


def _precision(options: EncoderOptions, device: str) -> str:
    import torch

    if options.precision != "auto":
        return options.precision
    # Several times faster where the processor multiplies such matrices itself, slower where it does not.
    is_native = torch.cuda.is_bf16_supported() if device == "cuda" else torch.cpu._is_amx_tile_supported()
    return "bfloat16" if is_native else "float32"
