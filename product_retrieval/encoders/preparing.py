"""Pictures to model input, exactly as the model's own Hugging Face image processor would, but as bytes.

The processor resizes and crops here, on CPU workers; its scaling and normalisation are left to the encoder, so
that uint8 and not float32 travels between them (a quarter of the bytes).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from product_retrieval.encoders.protocol import DEMO_MODEL, EncoderOptions
from product_retrieval.errors import EncoderError

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class ImagePreparer:
    """The resize and crop of a model's image processor, and the constants of its normalisation."""

    processor: Any

    @classmethod
    def load(cls, options: EncoderOptions) -> ImagePreparer:
        """Load the image processor of a model.

        Raises:
            EncoderError: there is no such model, or it has no image processor.
        """
        from transformers import AutoImageProcessor

        name = model_location(options.model)
        try:
            # The processors of Pillow, not of torchvision: one set of pixels on every machine.
            processor = AutoImageProcessor.from_pretrained(name, revision=options.revision or "main", backend="pil")
        except (OSError, ValueError, KeyError) as error:
            raise EncoderError(f"--encoder.model {options.model}: {explain(error)}") from error
        return cls(processor)

    def prepare_image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
        prepared = self.processor(
            pixels,
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
            return_tensors="np",
        )
        return np.ascontiguousarray(prepared["pixel_values"][0].transpose(1, 2, 0)).astype(np.uint8)

    def normalization(self) -> tuple[list[float], list[float]]:
        """Return per channel (RGB) the factor and the offset that turn bytes into the model's input."""
        scale = float(self.processor.rescale_factor) if self.processor.do_rescale else 1.0
        if not self.processor.do_normalize:
            return [scale] * 3, [0.0] * 3
        mean, std = self.processor.image_mean, self.processor.image_std
        return [scale / s for s in std], [-m / s for m, s in zip(mean, std, strict=True)]


def model_location(model: str) -> str:
    """Return the folder or hub id behind a model's name; the demo model is found from any working directory."""
    if model == DEMO_MODEL and not Path(model).is_dir():
        return str(REPOSITORY_ROOT / DEMO_MODEL)
    if Path(model).is_dir() or not model.startswith((".", "/", "~")):
        return model
    expanded = Path(model).expanduser()
    if not expanded.is_dir():
        raise EncoderError(f"--encoder.model {model}: no such folder")
    return str(expanded)


def explain(error: Exception) -> str:
    """Return the first sentence of an error of transformers, which tend to be pages long."""
    text = " ".join(str(error).split())
    return text.split(". ")[0][:300]
