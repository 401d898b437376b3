"""Contrastive loss with targets that know when two pictures may share a caption.

Letters: B pairs of a batch, D dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from product_retrieval.training.captions import Caption


@dataclass(frozen=True, slots=True)
class Pictured:
    """Who a picture of the batch shows, as folded strings."""

    identity: str
    """Same mesh and same colour, whatever the size or the view."""
    group_id: str
    """Same product family, any colour."""
    title: str
    """Title with colour."""
    name: str
    """Title without colour."""


def matches(captions: Sequence[Caption], pictures: Sequence[Pictured]) -> NDArray[np.bool_]:
    """Say which pictures of a batch each caption describes.

    A caption fits its own picture, every picture of the same identity, and every picture whose title is the caption's
    key. If it leaves a product's colour out, it fits each colour of its family and every picture whose name is its
    key. The title of a product as its maker coloured it leaves nothing out: of two sofas, "sofa" means the one that was
    not dyed.

    Args:
        captions: B captions; caption i was drawn for picture i.
        pictures: B pictures.

    Returns:
        bool [B, B], row = caption, column = picture; the diagonal is true.
    """
    identities = np.array([picture.identity for picture in pictures])
    groups = np.array([picture.group_id for picture in pictures])
    titles = np.array([picture.title for picture in pictures])
    names = np.array([picture.name for picture in pictures])
    keys = np.array([caption.key for caption in captions])
    colorless = np.array([not caption.names_color for caption in captions])
    fits = identities[:, None] == identities[None, :]
    fits |= keys[:, None] == titles[None, :]
    fits |= colorless[:, None] & ((keys[:, None] == names[None, :]) | (groups[:, None] == groups[None, :]))
    return np.asarray(fits, dtype=np.bool_)


def contrastive_loss(images: Tensor, texts: Tensor, fits: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy between scores and the matches, each match of a row counting alike.

    Args:
        images: float [B, D], L2-normalised.
        texts: float [B, D], L2-normalised.
        fits: bool [B, B], row = text, column = image, at least one true in each row and column.
        scale: scalar, inverse temperature.

    Returns:
        Scalar; log B for constant scores and one match each.

    Source: Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021, section 2.3;
    several positives as in Khosla et al., Supervised Contrastive Learning, 2020, equation 2.
    """
    scores = scale * texts @ images.T
    to_image = fits / fits.sum(dim=1, keepdim=True)
    to_text = fits.T / fits.T.sum(dim=1, keepdim=True)
    return (functional.cross_entropy(scores, to_image) + functional.cross_entropy(scores.T, to_text)) / 2


def imitation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean cosine distance between two sets of vectors, row by row.

    Args:
        student: float [B, D].
        teacher: float [B, D]; no gradient flows into it.

    Returns:
        Scalar in [0, 2].
    """
    return 1 - functional.cosine_similarity(student, teacher.detach(), dim=-1).mean()


def gathered(vectors: Tensor) -> Tensor:
    """Join the vectors of all workers in rank order, with gradients; without workers the input itself.

    Args:
        vectors: float [B, D], equal B on every worker.

    Returns:
        float [workers * B, D].
    """
    if not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
        return vectors
    joined: Tensor = _Gather.apply(vectors)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return joined


class _Gather(torch.autograd.Function):
    """Gather whose backward pass adds up what every worker's loss says about this worker's vectors."""

    @staticmethod
    def forward(_ctx: Any, vectors: Tensor) -> Tensor:
        parts = [torch.empty_like(vectors) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, vectors.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        torch.distributed.all_reduce(total)
        own: Tensor = total.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]
        return own
