"""How much faster pictures are decoded and prepared than by the Hugging Face processor, and how equal the results are.

    python -m benchmarks.preprocessing --repeats 5 --photos FOLDER --output benchmarks/preprocessing.md

Both sides start from the same JPEG bytes, in one thread, in turns, timed in CPU seconds: the processor of CLIP at 224
pixels (`AutoImageProcessor`, `backend="pil"`) on pictures opened by Pillow, and decode() with prepare_image(). The
processor returns normalised float32; ours returns bytes and leaves the normalisation to the encoder's device, so its
time on this CPU is also given. How equal: the difference of the bytes at 224 pixels, and the cosine of the demo model's
vectors at 64 pixels. Without --photos the pictures are renders of the household catalogue, enlarged.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from PIL import Image

from product_retrieval.encoders import EncoderOptions
from product_retrieval.encoders.preparing import ImagePreparer
from product_retrieval.encoders.transformers import TransformersEncoder
from product_retrieval.images import decode

CATALOG = Path(__file__).resolve().parent.parent / "demo" / "household" / "catalog.parquet"
SIZES = ((300, 300), (640, 480), (1024, 1024), (1200, 1600), (2000, 1500))
QUALITY = 90
NUM_PICTURES = 32


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured at one size; a value for each repeat."""

    size: tuple[int, int]
    processor: list[float]
    """Pictures per CPU second."""
    ours: list[float]
    normalized: list[float]
    """As ours, with the normalisation on this CPU."""
    cosines: NDArray[np.float64]
    byte_difference: float
    """Mean over all channels of all pictures."""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description="Decoding and preparing beside the Hugging Face processor.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--photos", type=Path, help="folder of photographs, each at least 600 pixels on a side")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = read_photos(options.photos) if options.photos else read_renders()
    with tempfile.TemporaryDirectory() as folder:
        preparer = clip_preparer(Path(folder))
        encoder = TransformersEncoder(EncoderOptions(device="cpu"))
        own = ImagePreparer.load(EncoderOptions())
        measured = [measure(size, pictures, preparer, encoder, own, options.repeats) for size in SIZES]
    what = f"{len(pictures)} {'photographs' if options.photos else 'enlarged renders of the demo catalogue'}"
    options.output.write_text(page(measured, what, options.repeats), encoding="utf-8")
    print(options.output.read_text(encoding="utf-8"))


def read_photos(folder: Path) -> list[Image.Image]:
    """Return the photographs in a folder that are large enough, spread over its files by name."""
    opened = [Image.open(path) for path in sorted(folder.iterdir()) if path.suffix in {".jpg", ".png", ".webp"}]
    large = [image for image in opened if min(image.size) >= 600]
    chosen = large[:: max(len(large) // NUM_PICTURES, 1)][:NUM_PICTURES]
    return [image.convert("RGB") for image in chosen]


def read_renders() -> list[Image.Image]:
    """Return pictures of the household catalogue."""
    table = pq.read_table(CATALOG, columns=["image"])
    step = len(table) // NUM_PICTURES
    return [Image.open(io.BytesIO(table["image"][row * step].as_py())).convert("RGB") for row in range(NUM_PICTURES)]


def clip_preparer(folder: Path) -> ImagePreparer:
    """Return the preparer of CLIP's own processor at 224 pixels."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    CLIPImageProcessorPil().save_pretrained(folder)
    return ImagePreparer.load(EncoderOptions(model=str(folder)))


def as_jpeg(picture: Image.Image, size: tuple[int, int]) -> bytes:
    """Return the centre of a picture as a JPEG of exactly this size."""
    scale = max(size[0] / picture.width, size[1] / picture.height)
    width, height = (max(round(side * scale), least) for side, least in zip(picture.size, size, strict=True))
    resized = picture.resize((width, height), Image.Resampling.LANCZOS)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    file = io.BytesIO()
    resized.crop((left, top, left + size[0], top + size[1])).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def measure(
    size: tuple[int, int],
    pictures: Sequence[Image.Image],
    preparer: ImagePreparer,
    encoder: TransformersEncoder,
    own: ImagePreparer,
    repeats: int,
) -> Measured:
    """Return speeds and differences at one size."""
    files = [as_jpeg(picture, size) for picture in pictures]
    scale = torch.tensor(preparer.scale).view(3, 1, 1)
    offset = torch.tensor(preparer.offset).view(3, 1, 1)

    def with_processor(data: bytes) -> Any:
        return process(preparer, data)

    def with_ours(data: bytes) -> Any:
        return prepare(preparer, data)

    def with_normalization(data: bytes) -> Any:
        return torch.tensor(prepare(preparer, data)).permute(2, 0, 1) * scale + offset

    speeds: dict[Callable[[bytes], Any], list[float]] = {with_processor: [], with_ours: [], with_normalization: []}
    for _ in range(repeats):
        for way, values in speeds.items():
            started = time.process_time()
            for data in files:
                way(data)
            values.append(len(files) / (time.process_time() - started))
    theirs = np.stack([to_bytes(preparer, process(preparer, data)) for data in files])
    ours = np.stack([prepare(preparer, data) for data in files])
    expected = encoder.encode_images(np.stack([to_bytes(own, process(own, data)) for data in files]))
    found = encoder.encode_images(np.stack([prepare(own, data) for data in files]))
    cosines = (expected.astype(np.float64) * found).sum(axis=1)
    return Measured(size, *speeds.values(), cosines, float(np.abs(theirs.astype(int) - ours).mean()))


def process(preparer: ImagePreparer, data: bytes) -> NDArray[np.float32]:
    """Return what the processor makes of a JPEG, float32 [3, S, S]."""
    processed = preparer.processor(Image.open(io.BytesIO(data)), return_tensors="np")
    return np.asarray(processed["pixel_values"][0])


def prepare(preparer: ImagePreparer, data: bytes) -> NDArray[np.uint8]:
    """Return what this library makes of a JPEG, uint8 [S, S, 3]."""
    decoded = decode(data, min_side=preparer.min_side)
    if decoded.pixels is None:
        raise ValueError(f"{decoded.reason} {decoded.detail}")
    return preparer.prepare_image(decoded.pixels, decoded.box)


def to_bytes(preparer: ImagePreparer, normalized: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return normalised pixels, [3, S, S], as the bytes that they come from, [S, S, 3]."""
    return ((normalized.transpose(1, 2, 0) - preparer.offset) / preparer.scale).round().astype(np.uint8)


def page(measured: Sequence[Measured], what: str, repeats: int) -> str:
    """Return the measurements as Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("pillow", "transformers", "torch"))
    lines = [
        "# Decoding and preparing pictures beside the Hugging Face processor",
        "",
        f"`python -m benchmarks.preprocessing --repeats {repeats} ...`, {datetime.now(UTC):%Y-%m-%d}, one thread of "
        f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}, {versions}; {what} as "
        f"JPEG of quality {QUALITY}, processor of CLIP at 224 pixels. Pictures per CPU second, median of {repeats} "
        "turns (range).",
        "",
        "| size | processor | ours | times | ours, normalised on CPU | times |",
        "|---|---|---|---|---|---|",
        *(
            f"| {m.size[0]} x {m.size[1]} | {speed(m.processor)} | {speed(m.ours)} | {ratio(m.ours, m.processor)} "
            f"| {speed(m.normalized)} | {ratio(m.normalized, m.processor)} |"
            for m in measured
        ),
        "",
        "| size | cosine of the demo model's vectors, mean | least | mean difference of a byte at 224 pixels |",
        "|---|---|---|---|",
        *(
            f"| {m.size[0]} x {m.size[1]} | {m.cosines.mean():.5f} | {m.cosines.min():.5f} | {m.byte_difference:.2f} |"
            for m in measured
        ),
        "",
    ]
    return "\n".join(lines)


def speed(values: Sequence[float]) -> str:
    """Return the median and the range of speeds."""
    return f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """Return the median of the ratios turn by turn."""
    return f"{statistics.median(a / b for a, b in zip(values, others, strict=True)):.1f}"


if __name__ == "__main__":
    main()
