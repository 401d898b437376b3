"""A text tower cut out of the text teacher, and the lessons in which it learns to do without the rest.

The tower keeps the teacher's first and last layer and the word pieces that matter here. Cut like that it says nothing
of use; after some hundred batches of texts its pooled vector points nearly where the teacher's does. Pictures follow.

Letters: B texts of a batch, E dimensions of the teacher's vectors and width of the tower.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, BertConfig, BertModel, PreTrainedTokenizerFast

from product_retrieval.errors import EncoderError
from product_retrieval.training.noise import damaged
from product_retrieval.training.teacher import Teacher, teacher_folder
from product_retrieval.training.tokenization import MAX_TOKENS, choose_pieces, word_pieces

log = logging.getLogger(__name__)

NUM_PIECES = 6000
"""Of the teacher's 30,522 word pieces; each costs 768 bytes in the exported folder."""
BATCH_SIZE = 384
OWN_SHARE = 0.3
"""Share of a batch that are the catalogues' own texts."""
NOISE = 0.45
"""Share of texts that are damaged before the tower reads them."""
LEARNING_RATE = 5e-4
WARM_UP_LESSONS = 40
CONTRAST = 0.3
"""Weight of telling the texts of a batch apart, beside pointing where the teacher's vectors point."""
SCALE = 15.0
"""Inverse temperature of telling them apart."""
POOLER_SCALE = 0.3
"""First weights of the pooler's diagonal: its tanh is nearly linear for what is small."""
LOG_EVERY = 50


def give_lessons(
    own: Sequence[str],
    more: Sequence[str],
    further: Sequence[str],
    teacher: Teacher,
    *,
    name: str,
    num_lessons: int,
    seed: int,
    folder: Path,
) -> None:
    """Cut a text tower out of the teacher and teach it, unless the folder holds one of the same lessons already.

    Args:
        own: texts of the catalogues, in the teacher's table.
        more: other texts in the teacher's table.
        further: texts that decide about word pieces, too, but have no vector: names in other languages.
        teacher: vectors of the texts.
        name: folder or package of the teacher, a BERT with a `vocab.txt`.
        num_lessons: batches of texts.
        seed: decides batches and damage.
        folder: gets the tower in Hugging Face form, and its tokenizer.

    Raises:
        EncoderError: the teacher is no BERT.
    """
    key = hashlib.sha256("\n".join((name, str((num_lessons, seed)), *own, "", *more, "", *further)).encode())
    mark = folder / "lessons.txt"
    if mark.exists() and mark.read_text(encoding="utf-8") == key.hexdigest():
        return
    pieces = choose_pieces(read_pieces(name), [*own, *more, *further], vocabulary=NUM_PIECES)
    tokenizer = word_pieces(pieces)
    tower = cut_tower(name, pieces)
    teach(tower, tokenizer, own, more, teacher, num_lessons=num_lessons, rng=Random(seed))
    tower.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    mark.write_text(key.hexdigest(), encoding="utf-8")


def read_pieces(name: str) -> list[str]:
    """Read the teacher's vocabulary, in its order."""
    return (teacher_folder(name) / "vocab.txt").read_text(encoding="utf-8").splitlines()


def cut_tower(name: str, pieces: Sequence[str]) -> BertModel:
    """Keep the teacher's first and last layer and the rows of some word pieces.

    Args:
        name: folder or package of the teacher.
        pieces: word pieces to keep, each in the teacher's vocabulary but for the special tokens, which may be new.

    Returns:
        The tower in float32; its pooled vector is read at the first token.

    Raises:
        EncoderError: the teacher is no BERT.
    """
    config = AutoConfig.from_pretrained(teacher_folder(name))
    if config.model_type != "bert":
        raise EncoderError(f"teacher {name}: a text tower can be cut out of a BERT, not out of a {config.model_type}")
    teacher = BertModel.from_pretrained(teacher_folder(name), dtype=torch.float32, use_safetensors=True)
    tower = BertModel(
        BertConfig(
            vocab_size=len(pieces),
            hidden_size=config.hidden_size,
            num_hidden_layers=min(2, config.num_hidden_layers),
            num_attention_heads=config.num_attention_heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=MAX_TOKENS,
            type_vocab_size=1,
            pad_token_id=0,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    )
    rows = {piece: row for row, piece in enumerate(read_pieces(name))}
    known = [at for at, piece in enumerate(pieces) if piece in rows]
    ours, theirs = tower.embeddings, teacher.embeddings
    with torch.no_grad():
        ours.word_embeddings.weight[known] = theirs.word_embeddings.weight[[rows[pieces[at]] for at in known]]
        ours.position_embeddings.weight.copy_(theirs.position_embeddings.weight[:MAX_TOKENS])
        ours.token_type_embeddings.weight.copy_(theirs.token_type_embeddings.weight[:1])
        nn.init.eye_(tower.pooler.dense.weight).mul_(POOLER_SCALE)
        nn.init.zeros_(tower.pooler.dense.bias)
    ours.LayerNorm.load_state_dict(theirs.LayerNorm.state_dict())
    for layer, kept in zip(tower.encoder.layer, (0, -1), strict=False):
        layer.load_state_dict(teacher.encoder.layer[kept].state_dict())
    return tower


def teach(
    tower: BertModel,
    tokenizer: PreTrainedTokenizerFast,
    own: Sequence[str],
    more: Sequence[str],
    teacher: Teacher,
    *,
    num_lessons: int,
    rng: Random,
) -> None:
    """Train a tower until its pooled vectors of texts point where the teacher's do; the tower is changed.

    Args:
        tower: of the teacher's width.
        tokenizer: the tower's.
        own: texts of the catalogues, in the teacher's table.
        more: other texts in the teacher's table.
        teacher: vectors of the texts, [B, E].
        num_lessons: batches of texts.
        rng: decides batches and damage.
    """
    optimizer = torch.optim.AdamW(tower.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    tower.train()
    for lesson in range(num_lessons):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (lesson + 1) / WARM_UP_LESSONS) * (1 - 0.98 * lesson / num_lessons)
        num_own = round(BATCH_SIZE * (OWN_SHARE if more else 1.0))
        texts = rng.choices(own, k=num_own) + rng.choices(more or own, k=BATCH_SIZE - num_own)
        read = [damaged(text, rng) if rng.random() < NOISE else text for text in texts]
        tokens = tokenizer(read, padding=True, truncation=True, return_tensors="pt")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            guess = tower(**tokens).pooler_output
        loss = lesson_loss(guess.float(), teacher.vectors([(text,) for text in texts]))
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        if lesson % LOG_EVERY == 0 or lesson == num_lessons - 1:
            log.info("lesson number=%d of=%d loss=%.4f", lesson + 1, num_lessons, loss.item())
    tower.eval()


def lesson_loss(guess: Tensor, taught: Tensor) -> Tensor:
    """Mean cosine distance to the teacher's vectors, and how badly the guesses tell them apart.

    Args:
        guess: float [B, E].
        taught: float [B, E], L2-normalised.

    Returns:
        Scalar, at least 0.
    """
    scores = functional.normalize(guess, dim=-1) @ taught.T
    answers = torch.arange(len(scores), device=scores.device)
    return (1 - scores.diagonal().mean()) + CONTRAST * functional.cross_entropy(SCALE * scores, answers)
