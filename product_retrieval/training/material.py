"""What all workers share before the first step: tokenizer and teacher's vectors, made once and read by each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from product_retrieval.errors import CatalogError
from product_retrieval.training.captions import Depicted, folded, meanings
from product_retrieval.training.evaluation import Gallery, choose_gallery
from product_retrieval.training.lessons import give_lessons
from product_retrieval.training.loop import Material
from product_retrieval.training.picture_teacher import check_packages, embed_pictures
from product_retrieval.training.pictures import read_encoded, read_pictures, read_words
from product_retrieval.training.teacher import Teacher, common_words, embed_texts
from product_retrieval.training.tokenization import train_tokenizer

TEXT_TOWER = "text-tower"
"""Folder of a text tower that had lessons, and of its tokenizer."""


def prepare(
    catalogs: Sequence[str],
    folder: Path,
    *,
    teacher: str,
    texts: Sequence[str],
    num_lessons: int,
    picture_teacher: bool,
    vocabulary: int,
    seed: int,
) -> None:
    """Make the tokenizer, the teachers' vectors and a taught text tower, unless the folder has them already.

    Args:
        catalogs: catalogue files or folders; only rows of the training split are looked at.
        folder: gets `tokenizer/` or `text-tower/`, `teacher-*.npz` and `picture-teacher-*.npz`.
        teacher: folder or package of the teacher.
        texts: files of further texts, one a line, that the teacher is asked about, too.
        num_lessons: lessons of a text tower cut out of the teacher; 0 for a text tower from nothing.
        picture_teacher: whether the image tower learns from a classifier of photographs.
        vocabulary: entries of the tokenizer of a text tower from nothing.
        seed: decides which common words get which colour, and the lessons.

    Raises:
        CatalogError: no row belongs to the training split, or a file of texts cannot be read.
        EncoderError: a teacher cannot be found.
    """
    if picture_teacher:
        check_packages()
    depicted = read_words(catalogs, split="train")
    if not depicted:
        raise CatalogError(f"{', '.join(catalogs)}: no row has split = train")
    words = _words(depicted, teacher, texts, seed)
    taught = _teacher(depicted, words, teacher, folder)
    if num_lessons:
        give_lessons(
            _clean_texts(depicted),
            words,
            _foreign_texts(depicted),
            taught,
            name=teacher,
            num_lessons=num_lessons,
            seed=seed,
            folder=folder / TEXT_TOWER,
        )
    elif not (folder / "tokenizer" / "tokenizer.json").exists():
        read = sorted({*_clean_texts(depicted), *_foreign_texts(depicted), *words})
        train_tokenizer(read, vocabulary=vocabulary).save_pretrained(folder / "tokenizer")
    if picture_teacher:
        embed_pictures(read_encoded(catalogs, split="train"), text_teacher=teacher, cache=folder)


def load(
    catalogs: Sequence[str],
    gallery_catalogs: Sequence[str],
    folder: Path,
    *,
    teacher: str,
    texts: Sequence[str],
    num_lessons: int,
    picture_teacher: bool,
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
        texts: as for `prepare`.
        num_lessons: as for `prepare`.
        picture_teacher: as for `prepare`.
        image_size: side of the model's input, pixels.
        seed: as for `prepare`.
        num_threads: threads that decode pictures.

    Returns:
        The material.
    """
    pictures = read_pictures(catalogs, split="train", image_size=image_size, num_threads=num_threads)
    depicted = list(dict.fromkeys(pictures.depicted))
    words = _words(depicted, teacher, texts, seed)
    sight = np.empty((len(pictures), 0), dtype=np.float32)
    if picture_teacher:
        sight = embed_pictures(read_encoded(catalogs, split="train"), text_teacher=teacher, cache=folder)
    return Material(
        pictures=pictures,
        words=tuple(words),
        tokenizer=PreTrainedTokenizerFast.from_pretrained(folder / (TEXT_TOWER if num_lessons else "tokenizer")),
        teacher=_teacher(depicted, words, teacher, folder),
        sight=sight,
        gallery=load_gallery(gallery_catalogs, image_size=image_size, num_threads=num_threads),
    )


def load_gallery(catalogs: Sequence[str], *, image_size: int, num_threads: int) -> Gallery:
    """Read the held-out products of some catalogues; no catalogue gives an empty gallery."""
    if not catalogs:
        return Gallery((), (), np.empty((0, image_size, image_size, 3), dtype=np.uint8))
    return choose_gallery(read_pictures(catalogs, split="heldout", image_size=image_size, num_threads=num_threads))


def _words(depicted: Sequence[Depicted], teacher: str, files: Sequence[str], seed: int) -> list[str]:
    common = common_words(teacher, sorted({words.color for words in depicted if words.color}), seed=seed)
    return list(dict.fromkeys([*common, *(text for file in files for text in _lines(file))]))


def _lines(file: str) -> list[str]:
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"texts {file}: cannot be read ({error})", path=file) from error
    return [text for text in map(folded, lines) if text]


def _clean_texts(depicted: Sequence[Depicted]) -> list[str]:
    return sorted({part for each in depicted for part in meanings(each)})


def _foreign_texts(depicted: Sequence[Depicted]) -> list[str]:
    return sorted({folded(text) for each in depicted for text in each.translations})


def _teacher(depicted: Sequence[Depicted], words: Sequence[str], teacher: str, folder: Path) -> Teacher:
    return embed_texts(sorted({*_clean_texts(depicted), *words}), name=teacher, cache=folder)
