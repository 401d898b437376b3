"""A model's folder: where it lies, what identifies it, and what it must hold before anything of it is loaded."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from product_retrieval.encoders.protocol import DEMO_MODEL, EncoderOptions, Fingerprint
from product_retrieval.errors import EncoderError

REPOSITORY_ROOT = Path(__file__).resolve().parents[2]
WANTED_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
UNWANTED_FILES = ("*/*",)
"""Folders within a model's are other formats of the same weights."""
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
        return str(
            snapshot_download(
                location,
                revision=revision,
                allow_patterns=list(WANTED_FILES),
                ignore_patterns=list(UNWANTED_FILES),
            )
        )
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"--encoder.model {model}: no such folder, and the model hub does not answer for it: {explain(error)}"
        ) from error


def model_location(model: str) -> str:
    """Return the folder or hub id behind a model's name; the demo model is found from any working directory."""
    if model == DEMO_MODEL and not Path(model).is_dir():
        return str(REPOSITORY_ROOT / DEMO_MODEL)
    if Path(model).is_dir() or not model.startswith((".", "/", "~")):
        return model
    expanded = Path(model).expanduser()
    if not expanded.is_dir():
        raise EncoderError(f"--encoder.model {model}: no such folder")
    return str(expanded)


def explain(error: Exception) -> str:
    """Return the first sentence of an error of transformers, which tend to be pages long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0][:300]


def read_config(folder: str, name: str) -> dict[str, Any]:
    """Return the configuration in a model's folder.

    Raises:
        EncoderError: there is none that can be read.
    """
    try:
        config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(
            f"--encoder.model {name}: no readable config.json there, so it is no model folder"
        ) from error
    if not isinstance(config, dict):
        raise EncoderError(f"--encoder.model {name}: its config.json is not a model's")
    return config


@functools.lru_cache(maxsize=8)
def _fingerprint(folder: str, name: str) -> Fingerprint:
    config = read_config(folder, name)
    weights = sorted(Path(folder).glob("*.safetensors"))
    if not weights:
        raise EncoderError(f"--encoder.model {name}: no *.safetensors there; other weight formats can run code")
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
