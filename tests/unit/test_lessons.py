"""A text tower cut out of its teacher: what it keeps, what it learns, and its word pieces."""

from __future__ import annotations

from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import BertConfig, BertModel

from product_retrieval.errors import EncoderError
from product_retrieval.training import lessons
from product_retrieval.training.lessons import cut_tower, give_lessons, lesson_loss, teach
from product_retrieval.training.teacher import Teacher
from product_retrieval.training.tokenization import choose_pieces, word_pieces

PIECES = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "a",
    "b",
    "##a",
    "##b",
    "##e",
    "##d",
    "é",
    "r",
    "red",
    "blue",
    "sofa",
    "lamp",
)
TEXTS = ("red sofa", "blue sofa", "red lamp", "blue lamp")


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of three layers and random weights, with its vocabulary."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


def four_vectors() -> Teacher:
    return Teacher(TEXTS, np.eye(32, dtype=np.float32)[:4])


def test_a_cut_tower_keeps_first_and_last_layer_and_the_rows_of_its_pieces(teacher_folder: Path) -> None:
    teacher = BertModel.from_pretrained(teacher_folder)
    tower = cut_tower(str(teacher_folder), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "sofa", "red"])
    rows = tower.embeddings.word_embeddings.weight
    assert torch.equal(rows[4], teacher.embeddings.word_embeddings.weight[PIECES.index("sofa")])
    assert torch.equal(rows[2], teacher.embeddings.word_embeddings.weight[PIECES.index("[CLS]")])
    assert [layer.output.dense.weight.equal(teacher.encoder.layer[kept].output.dense.weight)
            for layer, kept in zip(tower.encoder.layer, (0, 2), strict=True)] == [True, True]  # fmt: skip


def test_a_teacher_that_is_no_bert_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(EncoderError, match="out of a BERT, not out of a gpt2"):
        cut_tower(str(tmp_path), ["[PAD]"])


def test_lessons_bring_the_towers_vectors_to_the_teachers(
    teacher_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "LEARNING_RATE", 5e-3)  # a small model of random weights learns in few, small batches
    monkeypatch.setattr(lessons, "BATCH_SIZE", 32)
    tower, tokenizer = cut_tower(str(teacher_folder), PIECES), word_pieces(PIECES)

    def nearness() -> float:
        with torch.inference_mode():
            guess = tower(**tokenizer(list(TEXTS), padding=True, return_tensors="pt")).pooler_output
        return float(functional.cosine_similarity(guess, torch.eye(32)[:4]).mean())

    before = nearness()
    teach(tower, tokenizer, TEXTS[:2], TEXTS[2:], four_vectors(), num_lessons=60, rng=Random(0))
    assert nearness() > before + 0.3


def test_lessons_are_given_once_and_again_when_they_differ(
    teacher_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def lessons_given(num_lessons: int) -> int:
        caplog.clear()
        give_lessons(
            TEXTS[:2],
            TEXTS[2:],
            ["roter sofa"],
            four_vectors(),
            name=str(teacher_folder),
            num_lessons=num_lessons,
            seed=0,
            folder=tmp_path,
        )
        return caplog.text.count("lesson number=")

    assert [lessons_given(1), lessons_given(1), lessons_given(2)] == [1, 0, 2]


def test_the_loss_of_equal_vectors_is_near_nothing_and_grows_with_their_distance() -> None:
    same, turned = torch.eye(4), torch.eye(4).roll(1, dims=0)
    assert lesson_loss(3 * same, same) < 1e-3
    assert lesson_loss(turned, same) > 1


def test_pieces_of_the_texts_and_single_characters_are_kept() -> None:
    pieces = choose_pieces(PIECES, ["red sofa", "red red"], vocabulary=100)
    assert pieces == [*PIECES[:4], "a", "b", "##a", "##b", "##e", "##d", "r", "red", "sofa"]
    assert choose_pieces(PIECES, ["red sofa"], vocabulary=5) == [*PIECES[:4], "a"]


def test_word_pieces_ignore_case_accents_and_markup_and_spell_what_they_lack() -> None:
    tokenizer = word_pieces(PIECES)
    assert tokenizer("<b>R&eacute;d</b> SOFA")["input_ids"] == tokenizer("r d sofa")["input_ids"]
    assert tokenizer("RÉD sofa")["input_ids"] == [2, PIECES.index("red"), PIECES.index("sofa"), 3]
    assert tokenizer.tokenize("baed") == ["b", "##a", "##e", "##d"]
    assert tokenizer("龘")["input_ids"] == [2, 1, 3]
