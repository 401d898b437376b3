"""How each kind of dual encoder wants its texts: length, padding, mask, and case."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

DEFAULT_POSITIONS = 512
"""For text towers that do not say how long a text may be."""
MAX_CHARACTERS_A_TOKEN = 512
"""A text of megabytes is cut to so many characters for each token that fits before it is tokenised; no vocabulary has
tokens of that length, so the tokens that are kept do not change."""


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of model wants its texts; everything else is the same for all of them."""

    padding: Literal["longest", "max_length"] = "longest"
    """To the longest text of a batch, which a causal or a padding mask makes exact, or always to the full length."""
    is_masked: bool = True
    """Whether the model was trained with its padding masked."""
    max_tokens: int | None = None
    """Length that the model was trained with, where its positions allow more."""
    lowercase_for: str = "\0"
    """Part of the name of tokenizers whose texts must be lower-cased first; none has NUL in its name."""


FAMILIES: dict[str, Family] = {
    # Pools its last position and attends to its padding, so a shorter row is another input. SigLIP 2 shares the family
    # in its checkpoints of fixed resolution, with Gemma's tokenizer and lower-cased texts.
    # Source: SigLIP 2, arXiv 2502.14786, section 2.1; big_vision, models/proj/image_text/text_transformer.py.
    "siglip": Family(padding="max_length", is_masked=False, lowercase_for="Gemma"),
    "align": Family(max_tokens=64),  # Source: transformers, AlignProcessor.
    "chinese_clip": Family(max_tokens=52),  # Source: Chinese CLIP, arXiv 2211.01335; its own tokenize().
}
"""By `model_type` of config.json; a new family that differs is one line here."""

REFUSED: dict[str, str] = {
    "siglip2": "flexible resolution (NaFlex) is not supported; take a SigLIP 2 checkpoint of fixed resolution, such as "
    "google/siglip2-base-patch16-224",
    "clipseg": "a segmentation model; take the CLIP model that it was made from",
}
"""Kinds that transformers loads as dual encoders but that do not work here, with what to do instead."""


@dataclass(frozen=True, slots=True)
class TextPreparer:
    """Texts to the token tensors that a model takes."""

    tokenizer: Any
    family: Family
    max_tokens: int
    inputs: frozenset[str]
    """Names of the tensors that the model takes."""

    @classmethod
    def of(cls, model: Any, tokenizer: Any) -> TextPreparer:
        """Return what prepares texts for a model.

        Raises:
            ValueError: the tokenizer cannot pad, or its tokens are not the model's.
        """
        family = FAMILIES.get(model.config.model_type, Family())
        if tokenizer.pad_token_id is None:
            raise ValueError("its tokenizer has no padding token")
        vocabulary = model.config.text_config.vocab_size
        tokens = [token for row in tokenizer(["a", ""])["input_ids"] for token in row]
        if max([*tokens, tokenizer.pad_token_id]) >= vocabulary:
            raise ValueError(f"its tokenizer has tokens beyond the model's vocabulary of {vocabulary:,}")
        taken = set(inspect.signature(model.get_text_features).parameters)
        max_tokens = min(_num_positions(model), int(tokenizer.model_max_length))
        return cls(
            tokenizer,
            family,
            min(max_tokens, family.max_tokens or max_tokens),
            frozenset(taken if family.is_masked else taken - {"attention_mask"}),
        )

    def __call__(self, texts: Sequence[str]) -> dict[str, Any]:
        """Tokenise texts.

        Args:
            texts: N texts of any length.

        Returns:
            By name, tensors int64 [N, T], T the longest text's tokens or the model's length.
        """
        cut = [text[: self.max_tokens * MAX_CHARACTERS_A_TOKEN] for text in texts]
        if self.family.lowercase_for in type(self.tokenizer).__name__:
            cut = [text.lower() for text in cut]
        # Positions count from the left: with padding there, a vector would depend on the other texts of its batch.
        side = "right" if self.family.padding == "longest" else self.tokenizer.padding_side
        tokens = self.tokenizer(
            cut,
            padding=self.family.padding,
            padding_side=side,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        return {name: tensor for name, tensor in tokens.items() if name in self.inputs}


def _num_positions(model: Any) -> int:
    """Return how many tokens the positions of a model's text tower allow."""
    import torch

    for module in model.modules():
        positions = getattr(module, "position_embeddings", None)
        if isinstance(positions, torch.nn.Embedding) and positions.padding_idx is not None:
            return positions.num_embeddings - positions.padding_idx - 1  # RoBERTa counts from its padding's id + 1
    return int(getattr(model.config.text_config, "max_position_embeddings", DEFAULT_POSITIONS))
