"""What all workers share before the first step: tokenizer and teacher's vectors, made once and read by each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from product_retrieval.errors import CatalogError
from product_retrieval.training.captions import Depicted, folded, meanings
from product_retrieval.training.evaluation import Gallery, choose_gallery
from product_retrieval.training.loop import Material
from product_retrieval.training.pictures import read_pictures, read_words
from product_retrieval.training.teacher import Teacher, common_words, embed_texts
from product_retrieval.training.towers import train_tokenizer


def prepare(catalogs: Sequence[str], folder: Path, *, teacher: str, vocabulary: int, seed: int) -> None:
    """Train the tokenizer and compute the teacher's vectors, unless the folder has them already.

    Args:
        catalogs: catalogue files or folders; only rows of the training split are looked at.
        folder: gets `tokenizer/` and `teacher-*.npz`.
        teacher: folder or package of the teacher.
        vocabulary: entries of the tokenizer.
        seed: decides which common words get which colour.

    Raises:
        CatalogError: no row belongs to the training split.
        EncoderError: the teacher cannot be found.
    """
    depicted = read_words(catalogs, split="train")
    if not depicted:
        raise CatalogError(f"{', '.join(catalogs)}: no row has split = train")
    words = _words(depicted, teacher, seed)
    _teacher(depicted, words, teacher, folder)
    tokenizer_folder = folder / "tokenizer"
    if not (tokenizer_folder / "tokenizer.json").exists():
        train_tokenizer(_tokenizer_texts(depicted, words), vocabulary=vocabulary).save_pretrained(tokenizer_folder)


def load(
    catalogs: Sequence[str],
    gallery_catalogs: Sequence[str],
    folder: Path,
    *,
    teacher: str,
    image_size: int,
    seed: int,
    num_threads: int,
) -> Material:
    """Read what `prepare` made, the training pictures, and the held-out gallery.

    Args:
        catalogs: as for `prepare`.
        gallery_catalogs: catalogues whose held-out rows are the gallery; without any there is no measuring.
        folder: as for `prepare`.
        teacher: as for `prepare`.
        image_size: side of the model's input, pixels.
        seed: as for `prepare`.
        num_threads: threads that decode pictures.

    Returns:
        The material.
    """
    pictures = read_pictures(catalogs, split="train", image_size=image_size, num_threads=num_threads)
    depicted = list(dict.fromkeys(pictures.depicted))
    words = _words(depicted, teacher, seed)
    return Material(
        pictures=pictures,
        words=tuple(words),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer"),
        teacher=_teacher(depicted, words, teacher, folder),
        gallery=load_gallery(gallery_catalogs, image_size=image_size, num_threads=num_threads),
    )


def load_gallery(catalogs: Sequence[str], *, image_size: int, num_threads: int) -> Gallery:
    """Read the held-out products of some catalogues; no catalogue gives an empty gallery."""
    if not catalogs:
        return Gallery((), (), np.empty((0, image_size, image_size, 3), dtype=np.uint8))
    return choose_gallery(read_pictures(catalogs, split="heldout", image_size=image_size, num_threads=num_threads))


def _words(depicted: Sequence[Depicted], teacher: str, seed: int) -> list[str]:
    return common_words(teacher, sorted({words.color for words in depicted if words.color}), seed=seed)


def _teacher(depicted: Sequence[Depicted], words: Sequence[str], teacher: str, folder: Path) -> Teacher:
    texts = sorted({part for each in depicted for part in meanings(each)} | set(words))
    return embed_texts(texts, name=teacher, cache=folder)


def _tokenizer_texts(depicted: Sequence[Depicted], words: Sequence[str]) -> list[str]:
    texts = {folded(text) for each in depicted for text in (*meanings(each), *each.translations)}
    return sorted(texts | set(words))
