"""Dual encoders that transformers loads: CLIP, SigLIP, ALIGN, Chinese-CLIP, AltCLIP, VisionTextDualEncoder, ...

A model is a folder, local or from the hub. Only safetensors weights are read and no code from the folder is run.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from product_retrieval.encoders.preparing import ImagePreparer, explain, model_location
from product_retrieval.encoders.protocol import EncoderOptions, Fingerprint
from product_retrieval.errors import EncoderError

logger = logging.getLogger(__name__)

WANTED_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
PREPROCESSING_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
HASH_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of model wants its texts; everything else is the same for all of them."""

    padding: Literal["longest", "max_length"] = "longest"
    """SigLIP pools its last position and was trained without a mask, so it needs the full length."""


FAMILIES: dict[str, Family] = {
    "siglip": Family(padding="max_length"),
    "siglip2": Family(padding="max_length"),
}
"""By `model_type` of config.json; a new family that differs is one line here."""


class TransformersEncoder:
    """A dual encoder with its weights in memory, on one device."""

    def __init__(self, options: EncoderOptions) -> None:
        """Load the model.

        Raises:
            EncoderError: there is no such model, it is broken, no dual encoder, or too large for the device.
        """
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        folder = resolve_folder(options.model, options.revision)
        self.fingerprint = fingerprint_of(options)
        self._device = torch.device(_device(options))
        self._precision = _precision(options, self._device.type)
        try:
            model = AutoModel.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
            )
            self._tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise EncoderError(f"--encoder.model {options.model}: {explain(error)}") from error
        self._model = model.eval().to(self._device)
        self._family = FAMILIES.get(self.fingerprint.family, Family())
        self._max_tokens = _max_tokens(model.config, self._tokenizer)
        self._preparer = ImagePreparer.load(options)
        scale, offset = self._preparer.normalization()
        self._scale = torch.tensor(scale, device=self._device).view(1, 3, 1, 1)
        self._offset = torch.tensor(offset, device=self._device).view(1, 3, 1, 1)

    def prepare_image(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """See Encoder.prepare_image."""
        return self._preparer.prepare_image(pixels)

    def encode_images(self, prepared: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Encoder.encode_images."""
        import torch

        with self._forward():
            pixels = torch.tensor(prepared, device=self._device).permute(0, 3, 1, 2)
            features = self._model.get_image_features(pixel_values=pixels * self._scale + self._offset)
            return _unit_rows(features)

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """See Encoder.encode_texts."""
        tokens = self._tokenizer(
            list(texts),
            padding=self._family.padding,
            truncation=True,
            max_length=self._max_tokens,
            return_tensors="pt",
        )
        with self._forward():
            return _unit_rows(self._model.get_text_features(**tokens.to(self._device)))

    def limit_threads(self, num_threads: int) -> None:
        """See Encoder.limit_threads."""
        import torch

        torch.set_num_threads(num_threads)

    def _forward(self) -> Any:
        """Return the context of a forward pass: no gradients, the chosen precision."""
        import contextlib

        import torch

        stack = contextlib.ExitStack()
        stack.enter_context(torch.inference_mode())
        if self._precision != "float32":
            stack.enter_context(torch.autocast(self._device.type, dtype=getattr(torch, self._precision)))
        return stack


def fingerprint_of(options: EncoderOptions) -> Fingerprint:
    """Return the fingerprint of a model without loading its weights.

    Raises:
        EncoderError: there is no such model, it has no safetensors weights, or it is no dual encoder.
    """
    return _fingerprint(resolve_folder(options.model, options.revision), options.model)


@functools.lru_cache(maxsize=8)
def resolve_folder(model: str, revision: str | None) -> str:
    """Return the local folder of a model, fetched from the hub if it is no folder.

    Raises:
        EncoderError: there is no such folder and no such model on the hub, or the hub cannot be reached.
    """
    location = model_location(model)
    if os.path.isdir(location):
        return location
    from huggingface_hub import snapshot_download

    try:
        return str(snapshot_download(location, revision=revision, allow_patterns=list(WANTED_FILES)))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"--encoder.model {model}: no such folder, and the model hub does not answer for it: {explain(error)}"
        ) from error


@functools.lru_cache(maxsize=8)
def _fingerprint(folder: str, name: str) -> Fingerprint:
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"--encoder.model {name}: no readable config.json there, so it is no model folder"
        ) from error
    weights = sorted(Path(folder).glob("*.safetensors"))
    if not weights:
        raise EncoderError(f"--encoder.model {name}: no *.safetensors there; other weight formats can run code")
    if not isinstance(config, dict):
        raise EncoderError(f"--encoder.model {name}: its config.json is not a model's")
    text, vision = config.get("text_config"), config.get("vision_config")
    if not isinstance(text, dict) or not isinstance(vision, dict):
        kind = config.get("model_type", "unknown")
        raise EncoderError(f"--encoder.model {name}: a {kind} model is no dual encoder of pictures and texts")
    dim = config.get("projection_dim") or text.get("projection_size") or text.get("hidden_size") or 768
    preprocessing = [Path(folder) / file for file in PREPROCESSING_FILES]
    return Fingerprint(
        family=str(config.get("model_type", "unknown")),
        weights_sha256=_sha256([*weights, Path(folder) / "config.json"]),
        preprocessing_sha256=_sha256([path for path in preprocessing if path.is_file()]),
        pooling="model",
        dim=int(dim),
    )


def _sha256(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            while chunk := file.read(HASH_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _unit_rows(features: Any) -> NDArray[np.float32]:
    import torch

    pooled = features if isinstance(features, torch.Tensor) else features.pooler_output
    unit = torch.nn.functional.normalize(pooled.float(), dim=-1)
    return np.asarray(unit.cpu().numpy(), np.float32)


def _max_tokens(config: Any, tokenizer: Any) -> int:
    """Return the longest text that both the positions of the model and its tokenizer allow."""
    text = config.text_config
    positions = int(getattr(text, "max_position_embeddings", 512))
    if getattr(text, "model_type", "") in {"xlm-roberta", "roberta", "altclip_text_model"}:
        positions -= 2  # RoBERTa counts positions from its padding token's id + 1
    return min(positions, int(tokenizer.model_max_length))


def _device(options: EncoderOptions) -> str:
    import torch

    if options.device == "cuda" and not torch.cuda.is_available():
        raise EncoderError("--encoder.device cuda: no GPU that torch can use; take cpu or auto")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return options.device


def _precision(options: EncoderOptions, device: str) -> str:
    import torch

    if options.precision != "auto":
        return options.precision
    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"
