"""Pictures to model input as the model's own Hugging Face image processor would, several times faster and as bytes.

The resize and the centre crop of a processor are done here by Pillow alone, on CPU workers; its scaling and
normalisation are left to the encoder, so that uint8 and not float32 travels between them (a quarter of the bytes).
A processor that does anything else runs itself, which is exact and slow.
"""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from product_retrieval.encoders.folders import explain, resolve_folder
from product_retrieval.encoders.protocol import EncoderOptions
from product_retrieval.errors import EncoderError
from product_retrieval.images import Box

SHARPER_BELOW = 1.25
"""A JPEG reduced to less than so many times the model's input is already as soft as the bicubic filter would leave it;
Lanczos then comes closer to what the processor makes of the full picture (benchmarks/preprocessing.md)."""
FOLDED_FROM = 4
"""A crop that keeps less than such a share of a side is folded into the resize: a picture of 2 x 10,000 pixels would
need gigabytes before it. Below that, resize and crop are two steps, because Pillow chooses the order of its two passes
by the output's shape, and the bytes shall be the processor's."""
OTHER_FILTERS_NEED = 2
"""Filters that nobody has measured get at least twice the pixels that they keep."""
PROBE_SHAPES = ((60, 97), (331, 240))
"""Height and width of the pictures on which a preparer is compared with its processor."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """One resize that equals a processor's resize and the centre crop after it."""

    shortest_edge: int | None
    """Side to which the shorter edge is brought, the other in proportion; None for an exact size."""
    exact: tuple[int, int]
    """Width and height after the resize where there is no shortest_edge."""
    crop: tuple[int, int] | None
    """Width and height of the centre that is kept."""
    filter: Image.Resampling

    @classmethod
    def of(cls, processor: Any) -> Geometry | None:
        """Return what a processor does to the shape of a picture, or None if it is anything else."""
        from transformers.image_processing_backends import PilBackend

        kind = type(processor)
        is_plain = issubclass(kind, PilBackend) and all(
            getattr(kind, step) is getattr(PilBackend, step) for step in ("resize", "center_crop")
        )
        if not is_plain or not processor.do_resize or processor.do_pad:
            return None
        size, crop = processor.size, processor.crop_size if processor.do_center_crop else None
        kept = None if crop is None else (crop.width, crop.height)
        resampling = Image.Resampling(int(processor.resample))
        if size.shortest_edge and not size.longest_edge:
            return cls(size.shortest_edge, (0, 0), kept, resampling)
        if size.height and size.width and not size.shortest_edge:
            return cls(None, (size.width, size.height), kept, resampling)
        return None

    @property
    def min_side(self) -> int:
        """Pixels that the shorter side of a picture must keep when it is decoded at reduced size."""
        measured = self.filter in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
        return (self.shortest_edge or max(self.exact)) * (1 if measured else OTHER_FILTERS_NEED)

    def apply(self, image: Image.Image, box: Box | None) -> Image.Image | None:
        """Resize a picture, or the part of it within the box, and crop; None where the crop is larger than that."""
        left, top, right, bottom = box or (0.0, 0.0, float(image.width), float(image.height))
        width, height = self._resized(right - left, bottom - top)
        kept_width, kept_height = self.crop or (width, height)
        if kept_width > width or kept_height > height:
            return None
        across, down = (right - left) / width, (bottom - top) / height
        is_soft = box is not None and math.sqrt(across * down) < SHARPER_BELOW
        is_sharpened = is_soft and self.filter == Image.Resampling.BICUBIC
        resampling = Image.Resampling.LANCZOS if is_sharpened else self.filter
        crop_left, crop_top = (width - kept_width) // 2, (height - kept_height) // 2
        if max(width / kept_width, height / kept_height) <= FOLDED_FROM:
            resized = image.resize((width, height), resampling, box=(left, top, right, bottom))
            return resized.crop((crop_left, crop_top, crop_left + kept_width, crop_top + kept_height))
        centre = (
            left + crop_left * across,
            top + crop_top * down,
            min(left + (crop_left + kept_width) * across, right),
            min(top + (crop_top + kept_height) * down, bottom),
        )
        return image.resize((kept_width, kept_height), resampling, box=centre)

    def _resized(self, width: float, height: float) -> tuple[int, int]:
        """Return the size after the resize, cut to whole pixels as the processors do."""
        if self.shortest_edge is None:
            return self.exact
        longer = int(self.shortest_edge * max(width, height) / min(width, height))
        return (self.shortest_edge, longer) if width <= height else (longer, self.shortest_edge)


@dataclass(frozen=True, slots=True)
class ImagePreparer:
    """The resize and crop of a model's image processor, and the constants of its normalisation."""

    packed: bytes
    """The pickled processor: a worker that does not need it is spared the import of transformers, some seconds."""
    geometry: Geometry | None
    """None: the processor itself resizes."""
    scale: tuple[float, float, float]
    """Per channel (RGB): the model's input is a byte times the scale plus the offset."""
    offset: tuple[float, float, float]

    @classmethod
    def load(cls, options: EncoderOptions) -> ImagePreparer:
        """Load the image processor of a model.

        Raises:
            EncoderError: there is no such model, or its image processor makes something else than one picture of fixed
                size with normalised channels.
        """
        from transformers import AutoImageProcessor

        folder = resolve_folder(options.model, options.revision)
        try:
            # The processors of Pillow, not of torchvision: one set of pixels on every machine.
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil", trust_remote_code=False)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise EncoderError(
                f"--encoder.model {options.model}: no usable image processor: {explain(error)}"
            ) from error
        for preparer in cls._candidates(processor):
            if preparer._equals_processor():
                return preparer
        raise EncoderError(
            f"--encoder.model {options.model}: its image processor, a {type(processor).__name__}, does more than to "
            "resize, crop and normalise, which is not supported; take a model whose input has a fixed resolution"
        )

    @classmethod
    def _candidates(cls, processor: Any) -> Iterator[ImagePreparer]:
        """Yield the fast way if there is one, then the processor's own."""
        constants = _normalization(processor)
        if constants is None:
            return
        geometry = Geometry.of(processor)
        if geometry is not None:
            yield cls(pickle.dumps(processor), geometry, *constants)
        yield cls(pickle.dumps(processor), None, *constants)

    @property
    def processor(self) -> Any:
        """The model's own image processor."""
        return _unpacked(self.packed)

    @property
    def min_side(self) -> int | None:
        """See Preparer.min_side."""
        return None if self.geometry is None else self.geometry.min_side

    def prepare_image(self, pixels: NDArray[np.uint8], box: Box | None = None) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
        if self.geometry is not None:
            resized = self.geometry.apply(Image.fromarray(pixels), box)
            if resized is not None:
                return np.asarray(resized)
        prepared = self.processor(
            pixels,
            do_rescale=False,
            do_normalize=False,
            input_data_format="channels_last",
            return_tensors="np",
        )
        return np.ascontiguousarray(prepared["pixel_values"][0].transpose(1, 2, 0)).astype(np.uint8)

    @staticmethod
    def blank() -> NDArray[np.uint8]:
        """Return a grey picture to try a model with, uint8 [H, W, 3]."""
        return np.full((*PROBE_SHAPES[0], 3), 127, np.uint8)

    def _equals_processor(self) -> bool:
        """Tell whether this makes what the processor makes, up to the rounding of a byte."""
        noise = np.random.default_rng(0)
        for height, width in PROBE_SHAPES:
            pixels = noise.integers(0, 256, (height, width, 3), np.uint8)
            expected = _processed(self.processor, pixels)
            found = self.prepare_image(pixels) * np.array(self.scale) + np.array(self.offset)
            if found.shape != expected.shape or (np.abs(found - expected) > 1.5 * np.abs(self.scale)).any():
                return False
        return True


@functools.lru_cache(maxsize=4)
def _unpacked(packed: bytes) -> Any:
    return pickle.loads(packed)  # our own, made by ImagePreparer


def _processed(processor: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return what a processor makes of a picture, float64 [H, W, 3]; of another shape if it makes something else."""
    prepared = np.asarray(processor(pixels, input_data_format="channels_last", return_tensors="np")["pixel_values"][0])
    return (prepared.transpose(1, 2, 0) if prepared.ndim == 3 else prepared).astype(np.float64)


def _normalization(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]] | None:
    """Return the scale and the offset that a processor applies to the bytes of each channel, found by asking it.

    None if what it makes of pictures of one colour is no picture.
    """
    black, white = (_processed(processor, np.full((32, 32, 3), value, np.uint8)) for value in (0, 255))
    if black.ndim != 3 or black.shape[2] != 3:
        return None
    middle = (black.shape[0] // 2, black.shape[1] // 2)
    scale = (white[middle] - black[middle]) / 255
    red, green, blue = (float(s) for s in scale)
    return (red, green, blue), (float(black[middle][0]), float(black[middle][1]), float(black[middle][2]))
