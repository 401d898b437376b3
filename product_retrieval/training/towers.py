"""The demo model's architecture: a small convolutional network and a small text transformer, all stock classes.

The image tower is EfficientNet-Lite0 where it starts from trained weights (`starts`). From nothing it is
transformers' hybrid DPT: a ResNet backbone, whose dense 3x3 convolutions train fast on a CPU, and one attention layer
that pools its last feature map into one vector. `ResNetModel` on its own cannot stand in a
`VisionTextDualEncoderModel`, whose projection wants a vector and not a map.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    BertConfig,
    BertModel,
    CLIPImageProcessor,
    CLIPTextConfig,
    DPTConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

from product_retrieval.training.starts import freeze, keep_statistics, load_start, read_start, tower_config
from product_retrieval.training.tokenization import BEGIN, END, MAX_TOKENS, PAD, SPECIAL_TOKENS

PIXEL_MEAN = 127 / 255
"""Takes bytes to -1 to 1, as EfficientNet-Lite wants them; a tower from nothing has batch norm for the rest."""
PIXEL_STD = 128 / 255
"""See PIXEL_MEAN."""
PIXELS_PER_CELL = 32
"""A ResNet of four stages ends with one cell for this many pixels, rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """Sizes of both towers."""

    image_size: int = 64
    """Side of the square input, pixels."""
    start: str = ""
    """File or package of the weights that the image tower starts from; empty: a ResNet of these sizes from nothing."""
    text_start: str = ""
    """Folder of a text tower that has had lessons (`lessons`); empty: one of these sizes from nothing."""
    embedding_size: int = 32
    """Channels after the first convolution."""
    hidden_sizes: tuple[int, int, int, int] = (64, 128, 256, 384)
    """Channels of the four stages."""
    depths: tuple[int, int, int, int] = (1, 1, 2, 1)
    """Residual blocks of the four stages."""
    vision_width: int = 256
    """Width of the pooling attention layer."""
    text_width: int = 192
    """Width of the text tower."""
    text_layers: int = 4
    """Layers of the text tower."""
    vocabulary: int = 8192
    """Entries of the tokenizer."""
    dim: int = 192
    """Dimensions of the common space."""


def build_towers(shape: TowerShape) -> VisionTextDualEncoderModel:
    """Build the untrained model; its first weights follow torch's global seed, or the start.

    Args:
        shape: sizes of both towers.

    Returns:
        The model in float32.

    Raises:
        EncoderError: the weights to start from cannot be found, or are another model's.
    """
    vision = tower_config(shape.image_size) if shape.start else _residual_config(shape)
    text = BertConfig.from_pretrained(shape.text_start) if shape.text_start else _text_config(shape)
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=shape.dim)
    towers = VisionTextDualEncoderModel(config)
    if shape.start:
        load_start(towers.vision_model, read_start(shape.start))
    if shape.text_start:
        taught = BertModel.from_pretrained(shape.text_start, dtype=torch.float32)
        towers.text_model.load_state_dict(taught.state_dict())
    return towers


def _text_config(shape: TowerShape) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.text_width,
        projection_dim=shape.text_width,
        num_hidden_layers=shape.text_layers,
        num_attention_heads=shape.text_width // 64,
        intermediate_size=4 * shape.text_width,
        max_position_embeddings=MAX_TOKENS,
        pad_token_id=SPECIAL_TOKENS.index(PAD),
        bos_token_id=SPECIAL_TOKENS.index(BEGIN),
        eos_token_id=SPECIAL_TOKENS.index(END),
    )


def _residual_config(shape: TowerShape) -> DPTConfig:
    cells = math.ceil(shape.image_size / PIXELS_PER_CELL)
    backbone = ResNetConfig(
        embedding_size=shape.embedding_size,
        hidden_sizes=list(shape.hidden_sizes),
        depths=list(shape.depths),
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return DPTConfig(
        is_hybrid=True,
        backbone_config=backbone.to_dict(),
        backbone_featmap_shape=[1, shape.hidden_sizes[-1], cells, cells],
        image_size=shape.image_size,
        patch_size=shape.image_size // cells,
        hidden_size=shape.vision_width,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=2 * shape.vision_width,
        pooler_act="linear",
        layer_norm_eps=1e-6,
        semantic_classifier_dropout=0.0,
    )


class TrainedTowers(nn.Module):
    """Both towers and the heads that only training needs, as one module whose forward pass DDP can wrap."""

    def __init__(self, shape: TowerShape, teacher_dim: int, sight_dim: int = 0) -> None:
        """Build the towers and the heads.

        Args:
            shape: sizes of both towers.
            teacher_dim: dimensions of the teacher's text vectors.
            sight_dim: dimensions of the picture teacher's vectors; 0 without one.
        """
        super().__init__()
        self.towers = build_towers(shape)
        self.towers.set_attn_implementation(
            "eager"
        )  # same numbers; torch's fused kernel has a slow backward pass on CPUs
        self.towers.vision_model.to(memory_format=torch.channels_last)
        self._has_start, self._has_text_start = bool(shape.start), bool(shape.text_start)
        if self._has_start:
            freeze(self.towers.vision_model)
        reads = self.towers.config.text_config.hidden_size
        sees = self.towers.config.vision_config.hidden_size
        hidden = 2 * shape.dim
        self.teacher_head = nn.Sequential(nn.Linear(teacher_dim, hidden), nn.GELU(), nn.Linear(hidden, shape.dim))
        self.imitation_head = nn.Identity() if shape.text_start else nn.Linear(reads, teacher_dim)
        self.sight_head = nn.Linear(sees, sight_dim) if sight_dim else None
        self.train()

    def train(self, mode: bool = True) -> TrainedTowers:
        """Switch dropout and batch norm to training or back; a start keeps the statistics that it came with."""
        super().train(mode)
        if self._has_start:
            keep_statistics(self.towers.vision_model)
        return self

    def started(self) -> list[nn.Parameter]:
        """List the weights that are fine-tuned; they need smaller steps than those that are learned from nothing."""
        towers: list[nn.Module] = [self.towers.vision_model] if self._has_start else []
        towers += [self.towers.text_model] if self._has_text_start else []
        return [weights for tower in towers for weights in tower.parameters() if weights.requires_grad]

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor, taught: Tensor) -> tuple[Tensor, ...]:
        """Encode pictures and texts.

        Args:
            pixels: float [B, 3, S, S], normalised.
            tokens: int64 [T, L]; T is B or more, the texts beyond B have no picture.
            mask: int64 [T, L], 1 where there is a token.
            taught: float32 [T, E], the teacher's vectors of the texts' meanings.

        Returns:
            images [B, D], texts [T, D] and the teacher's texts [T, D] in the common space, L2-normalised; the text
            tower's guess [T, E] of the teacher's vectors; the image tower's guess [B, G] of the picture teacher's
            vectors, G = 0 without one; the scale.
        """
        picture = self.towers.vision_model(pixel_values=pixels).pooler_output
        images = self.towers.visual_projection(picture)
        text = self.towers.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        return (
            functional.normalize(images.float(), dim=-1),
            functional.normalize(self.towers.text_projection(text).float(), dim=-1),
            functional.normalize(self.teacher_head(taught).float(), dim=-1),
            self.imitation_head(text).float(),
            picture.new_empty(len(picture), 0) if self.sight_head is None else self.sight_head(picture).float(),
            self.towers.logit_scale.exp().clamp(max=100),
        )


def image_processor(image_size: int) -> CLIPImageProcessor:
    """Describe the preprocessing: stretch to a square, no crop, one mean and deviation for all channels."""
    return CLIPImageProcessor(
        size={"height": image_size, "width": image_size},
        resample=3,
        do_center_crop=False,
        image_mean=[PIXEL_MEAN] * 3,
        image_std=[PIXEL_STD] * 3,
    )


def export_folder(towers: VisionTextDualEncoderModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a Hugging Face folder with float16 weights that transformers loads by itself.

    Args:
        towers: the trained model; it is left as it is.
        tokenizer: its tokenizer.
        folder: created if absent; files of the same names are replaced.
    """
    copy.deepcopy(towers).half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    image_processor(towers.config.vision_config.image_size).save_pretrained(folder)
