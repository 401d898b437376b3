"""The training loop: one plain function that one process, or each of several under torch.distributed, calls."""

from __future__ import annotations

import copy
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast

from product_retrieval.training.captions import draw_caption
from product_retrieval.training.evaluation import Gallery, evaluate
from product_retrieval.training.losses import contrastive_loss, gathered, imitation_loss, matches
from product_retrieval.training.noise import damaged
from product_retrieval.training.pictures import BatchDrawer, Pictures, as_input, moved
from product_retrieval.training.teacher import Teacher
from product_retrieval.training.towers import TowerShape, TrainedTowers

log = logging.getLogger(__name__)

CAPTION_NOISE = 0.4
"""Share of captions that are damaged."""
SUBWORD_DROPOUT = 0.1
"""Share of merges that a byte-pair tokenizer leaves out while training (Provilkov et al., BPE-Dropout, 2020)."""
WORDS_PER_PICTURE = 0.5
"""Texts without a picture, per picture of a batch."""
LISTENING_SHARE = 0.1
"""Share of the schedule in which pictures come to listen to a text tower from nothing, after following the teacher."""
WARM_UP_SHARE = 0.03
FIRST_PROGRESS = 1e-4
"""Keeps the very first step from being none."""
SIGHT_WEIGHT = 4.0
"""Weight of imitating the picture teacher: a cosine's gradient is small beside that of a scaled cross-entropy."""
FINE_TUNING = 0.2
"""Share of the learning rate for weights that training did not start from nothing."""
AVERAGE_DECAY = 0.995
EVALUATION_BATCH = 350


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What decides the weights, besides the data."""

    num_steps: int
    """Optimizer steps, unless the time is up before."""
    max_seconds: float = math.inf
    """Training time after which the schedule has run its course, however many steps were done."""
    batch_size: int = 256
    """Pairs of a step, over all workers."""
    learning_rate: float = 2e-3
    """Highest rate of the cosine schedule."""
    seed: int = 0
    """Decides first weights, batches, captions and augmentation."""
    shape: TowerShape = field(default_factory=TowerShape)
    """Sizes of the towers."""
    shares: tuple[tuple[str, float], ...] = ()
    """Share of a batch by source; empty means by number of families."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a worker trains on."""

    pictures: Pictures
    words: tuple[str, ...]
    tokenizer: PreTrainedTokenizerFast
    teacher: Teacher
    sight: NDArray[np.float32]
    """[N, G], what the picture teacher sees in each picture; G = 0 without one."""
    gallery: Gallery


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process stands among the workers."""

    rank: int = 0
    num_workers: int = 1
    device: str = "cpu"


class Run:
    """Weights, their running average, the optimizer and the step: all that a checkpoint holds."""

    def __init__(self, recipe: Recipe, material: Material, place: Place) -> None:
        """Start from the seed's first weights."""
        torch.manual_seed(recipe.seed)
        self.recipe, self.material, self.place = recipe, material, place
        self.model = TrainedTowers(recipe.shape, material.teacher.dim, material.sight.shape[1]).to(place.device)
        self.average = copy.deepcopy(self.model.towers).eval()
        started = {id(weights) for weights in self.model.started()}
        groups = []
        for is_started, is_decayed in itertools.product((False, True), repeat=2):
            weights = [
                each
                for each in self.model.parameters()
                if each.requires_grad and (id(each) in started, each.ndim > 1) == (is_started, is_decayed)
            ]
            pace = FINE_TUNING if is_started else 1.0
            groups.append({"params": weights, "weight_decay": 0.05 if is_decayed else 0.0, "pace": pace})
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=recipe.learning_rate,
            betas=(0.9, 0.98),
            foreach=True,
        )
        self.step = 0
        self.seconds = 0.0
        self._drawer = BatchDrawer(material.pictures, dict(recipe.shares))
        self._noisy_tokenizer = copy.deepcopy(material.tokenizer)
        if not recipe.shape.text_start:
            self._noisy_tokenizer.backend_tokenizer.model.dropout = SUBWORD_DROPOUT

    def save(self, file: Path) -> None:
        """Write a checkpoint; a reader never sees half of it."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = file.with_suffix(".partial")
        torch.save(state, partial)
        partial.rename(file)

    def load(self, file: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(file, map_location=self.place.device, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]

    def train(self, checkpoint: Callable[[dict[str, float]], None], *, every_s: float) -> None:
        """Train to the last step.

        Args:
            checkpoint: called on each worker with the newest measurements, now and then and after the last step.
            every_s: seconds between two calls, by the first worker's clock.
        """
        model: torch.nn.Module = self.model
        if self.place.num_workers > 1:
            model = torch.nn.parallel.DistributedDataParallel(self.model, find_unused_parameters=False)
        began, reported = time.monotonic() - self.seconds, self.seconds
        losses: list[Tensor] = []
        with ThreadPoolExecutor(1) as pool:
            upcoming = pool.submit(self._batch, self.step)
            while self.progress < 1:
                batch = upcoming.result()
                upcoming = pool.submit(self._batch, self.step + 1)
                losses.append(self._update(model, batch))
                self.step += 1
                self.seconds = self._agreed(time.monotonic() - began)
                if self.seconds - reported >= every_s or self.progress >= 1:
                    reported = self.seconds
                    checkpoint(self._report(torch.stack(losses).mean().item()))
                    losses.clear()

    @property
    def progress(self) -> float:
        """Share of the schedule that is behind, 1 when training is over."""
        return max(self.step / self.recipe.num_steps, self.seconds / self.recipe.max_seconds)

    def _update(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * group["pace"] * rate(self.progress)
        with torch.autocast(torch.device(self.place.device).type, dtype=torch.bfloat16):
            images, texts, taught, guess, sight, scale = model(batch.pixels, batch.tokens, batch.mask, batch.taught)
        num_images = len(images)
        all_images = gathered(images)
        seen = contrastive_loss(all_images, gathered(texts[:num_images]), batch.fits, scale)
        seen_by_teacher = contrastive_loss(all_images, gathered(taught[:num_images]), batch.fits, scale)
        imitated = imitation_loss(texts, taught) + imitation_loss(guess, batch.taught)
        heard = 1.0 if self.recipe.shape.text_start else min(1.0, self.progress / LISTENING_SHARE)
        loss = heard * seen + seen_by_teacher + imitated
        if batch.sight.shape[1]:
            loss = loss + SIGHT_WEIGHT * imitation_loss(sight, batch.sight)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self._follow()
        return loss.detach()

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(AVERAGE_DECAY, (1 + self.step) / (10 + self.step))
        now, average = self.model.towers.state_dict(), self.average.state_dict()
        floats = [name for name, weights in average.items() if weights.is_floating_point()]
        torch._foreach_lerp_([average[name] for name in floats], [now[name] for name in floats], 1 - decay)

    def _batch(self, step: int) -> Batch:
        recipe, material, place = self.recipe, self.material, self.place
        rng = Random(f"{recipe.seed}/{step}")
        chosen = self._drawer.draw(recipe.batch_size, rng)
        captions = [draw_caption(material.pictures.depicted[at], rng, noise=CAPTION_NOISE) for at in chosen]
        fits = matches(captions, [material.pictures.pictured[at] for at in chosen])
        share = recipe.batch_size // place.num_workers
        mine = slice(place.rank * share, (place.rank + 1) * share)
        own_rng = Random(f"{recipe.seed}/{step}/{place.rank}")
        words = own_rng.choices(material.words, k=int(share * WORDS_PER_PICTURE)) if material.words else []
        texts = [caption.text for caption in captions[mine]]
        texts += [damaged(word, own_rng) if own_rng.random() < CAPTION_NOISE else word for word in words]
        meanings = [caption.meaning for caption in captions[mine]] + [(word,) for word in words]
        tokens = self._noisy_tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        generator = torch.Generator().manual_seed(own_rng.getrandbits(48))
        pixels = moved(as_input(material.pictures.pixels[chosen[mine]]), generator)
        return Batch(
            pixels=pixels.contiguous(memory_format=torch.channels_last).to(place.device),
            tokens=tokens["input_ids"].to(place.device),
            mask=tokens["attention_mask"].to(place.device),
            taught=material.teacher.vectors(meanings).to(place.device),
            sight=torch.from_numpy(material.sight[chosen[mine]]).to(place.device),
            fits=torch.from_numpy(fits).to(place.device),
        )

    def _agreed(self, seconds: float) -> float:
        """Take the first worker's clock, so that all follow one schedule."""
        if self.place.num_workers == 1:
            return seconds
        answer = torch.tensor(seconds, device=self.place.device, dtype=torch.float64)
        torch.distributed.broadcast(answer, src=0)
        return float(answer.item())

    def _report(self, loss: float) -> dict[str, float]:
        report = {"step": float(self.step), "seconds": round(self.seconds, 1), "loss": round(loss, 4)}
        report["scale"] = round(self.model.towers.logit_scale.exp().item(), 2)
        if self.material.gallery.titles:
            for task, values in self.measure().items():
                report[f"{task}/hit@10"] = round(values["hit@10"], 4)
        log.info("trained %s", " ".join(f"{name}={value:g}" for name, value in report.items()))
        return report

    def measure(self) -> dict[str, dict[str, float]]:
        """Evaluate the averaged weights on the held-out products."""
        return evaluate(self.material.gallery, self._encode_images, self._encode_texts)

    @torch.inference_mode()
    def _encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        vectors = []
        for start in range(0, len(pixels), EVALUATION_BATCH):
            images = as_input(pixels[start : start + EVALUATION_BATCH]).to(self.place.device)
            features = self.average.get_image_features(pixel_values=images).pooler_output
            vectors.append(functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(vectors)

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = []
        for start in range(0, len(texts), EVALUATION_BATCH):
            tokens = self.material.tokenizer(
                list(texts[start : start + EVALUATION_BATCH]), padding=True, truncation=True, return_tensors="pt"
            ).to(self.place.device)
            features = self.average.get_text_features(**tokens).pooler_output
            vectors.append(functional.normalize(features, dim=-1).cpu().numpy())
        return np.concatenate(vectors)


@dataclass(frozen=True, slots=True)
class Batch:
    """This worker's part of one step, and the matches of the whole step."""

    pixels: Tensor
    tokens: Tensor
    mask: Tensor
    taught: Tensor
    sight: Tensor
    fits: Tensor


def rate(progress: float) -> float:
    """Rise over the first part of the schedule, then fall along half a cosine to one hundredth.

    Args:
        progress: share of the schedule that is behind, 0 to 1.

    Returns:
        Share of the highest learning rate.
    """
    rising = min(1.0, (progress + FIRST_PROGRESS) / WARM_UP_SHARE)
    return rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
