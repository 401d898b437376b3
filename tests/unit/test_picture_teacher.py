"""What the picture teacher's vectors are made of, and when they are made."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from product_retrieval.errors import EncoderError
from product_retrieval.training import picture_teacher
from product_retrieval.training.picture_teacher import centred, check_packages, class_names, embed_pictures
from product_retrieval.training.pictures import collection
from product_retrieval.training.towers import TowerShape, TrainedTowers
from rayjobs.train import TrainOptions, spelled

SMALL = TowerShape(
    hidden_sizes=(8, 8, 16, 16), embedding_size=8, vision_width=64, text_width=64, vocabulary=300, dim=16
)


def test_a_vector_that_is_the_mean_stays_zero_and_the_others_get_length_one() -> None:
    moved = centred(np.array([[0.0, 1.0], [2.0, 1.0], [1.0, 1.0]], dtype=np.float32))
    assert moved.tolist() == [[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]]


def test_a_certain_guess_is_the_name_of_its_class_and_a_doubtful_one_lies_between() -> None:
    names = torch.eye(3)
    certain, doubtful = picture_teacher.guesses_in_words(torch.tensor([[50.0, 0.0, 0.0], [9.0, 9.0, -50.0]]), names)
    assert torch.allclose(certain, names[0], atol=1e-6)
    assert torch.allclose(doubtful, torch.tensor([0.5**0.5, 0.5**0.5, 0.0]), atol=1e-6)


def test_pictures_are_looked_at_once_and_again_when_one_changes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    looks: list[list[bytes]] = []

    def seen(encoded: Sequence[bytes], _text_teacher: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        looks.append(list(encoded))
        rows = np.arange(len(encoded), dtype=np.float32)[:, None]
        return np.hstack((rows, 1 - rows)), np.hstack((rows, rows**2, rows))

    monkeypatch.setattr(picture_teacher, "_seen", seen)
    first = embed_pictures([b"a", b"b"], text_teacher="t", cache=tmp_path)
    again = embed_pictures([b"a", b"b"], text_teacher="t", cache=tmp_path)
    embed_pictures([b"a", b"c"], text_teacher="t", cache=tmp_path)
    assert looks == [[b"a", b"b"], [b"a", b"c"]]
    assert first.shape == (2, 5)
    assert np.array_equal(first, again)
    assert np.linalg.norm(first, axis=1) == pytest.approx([1.0, 1.0])


def test_missing_packages_are_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_teacher, "PACKAGES", ("json", "no_such_package"))
    with pytest.raises(EncoderError, match=r"no package no_such_package; try: pip install") as raised:
        check_packages()
    assert "\n" not in str(raised.value)


def test_class_names_are_read_without_running_their_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "open_clip"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "zero_shot_metadata.py").write_text(
        'import nothing\nIMAGENET_CLASSNAMES = (\n    "Tench", "wall clock",\n)'
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    assert class_names() == ["tench", "wall clock"]


@pytest.mark.parametrize("sight_dim", [0, 5])
def test_towers_guess_the_picture_teachers_vectors_only_with_one(sight_dim: int) -> None:
    towers = TrainedTowers(SMALL, teacher_dim=4, sight_dim=sight_dim)
    tokens = torch.tensor([[1, 7, 3]] * 3)
    *_, sight, _ = towers(torch.zeros(2, 3, 64, 64), tokens, torch.ones_like(tokens), torch.zeros(3, 4))
    assert sight.shape == (2, sight_dim)


@pytest.mark.parametrize(
    ("source", "name"),
    [("", ""), ("household", "household"), ("iconify:noto", "iconify"), ("Sweet Home 3D, Scopia", "Sweet Home 3D")],
)
def test_the_collection_is_the_part_of_a_source_before_the_mark(source: str, name: str) -> None:
    assert collection(source) == name


def test_the_command_of_the_card_can_be_typed_again() -> None:
    options = TrainOptions(catalog=("a",), output="out", picture_teacher=True, share=("Sweet Home 3D=0.2", "icons=0.8"))
    assert spelled(options) == "--catalog a --output out --picture-teacher --share 'Sweet Home 3D=0.2' icons=0.8"
