"""A CLIP with random weights that every system under comparison loads, as a Hugging Face folder.

Weights do not matter for speed; the shape, the tokenizer and the image processor are those of OpenAI's models.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Literal

Size = Literal["b32", "tiny"]

SEED = 0
MERGES = 49_152 - 256 - 2
"""Of CLIP's byte pairs; the file has more. Source: Radford et al., Learning Transferable Visual Models, 2021, 2.4."""
SHAPES: dict[Size, tuple[dict[str, int], dict[str, int], int]] = {
    "b32": ({}, {}, 512),
    "tiny": (
        {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 3},
        {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 4, "num_attention_heads": 3},
        192,
    ),
}
"""What differs from ViT-B/32 in the picture's tower and in the text's, and the dimension."""


def make_model(folder: Path, size: Size, byte_pairs: Path) -> None:
    """Write the model.

    Args:
        folder: to be made.
        size: ViT-B/32, or one small enough that the work around the model counts.
        byte_pairs: CLIP's gzipped list of merges, from an installed package.
    """
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    vision, text, dim = SHAPES[size]
    torch.manual_seed(SEED)
    config = CLIPConfig(vision_config=vision, text_config=text, projection_dim=dim)
    CLIPModel(config).eval().save_pretrained(folder)
    write_tokenizer(folder, byte_pairs)
    CLIPProcessor(CLIPImageProcessor(), CLIPTokenizer.from_pretrained(folder)).save_pretrained(folder)
    write_image_processor(folder)


def write_tokenizer(folder: Path, byte_pairs: Path) -> None:
    """Write vocab.json and merges.txt."""
    lines = gzip.decompress(byte_pairs.read_bytes()).decode().split("\n")
    merges = lines[1 : 1 + MERGES]
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), *(merge.replace(" ", "") for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]), encoding="utf-8")


def byte_symbols() -> list[str]:
    """Return a printable character for each byte: printable bytes first, as themselves, the others after Latin-1."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = 256 - len(printable)
    return [*map(chr, printable), *(chr(256 + index) for index in range(others))]


def write_image_processor(folder: Path) -> None:
    """Write preprocessor_config.json, which transformers 4 and 5 both read; 5 saves it inside another file."""
    from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

    config: dict[str, Any] = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": 224},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": OPENAI_CLIP_MEAN,
        "image_std": OPENAI_CLIP_STD,
        "do_convert_rgb": True,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
