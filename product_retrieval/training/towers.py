"""The demo model's architecture: a small residual network and a small text transformer, all stock classes.

The image tower is transformers' hybrid DPT: a ResNet backbone, whose dense 3x3 convolutions train fast on a CPU, and
one attention layer that pools its last feature map into one vector. `ResNetModel` on its own cannot stand in a
`VisionTextDualEncoderModel`, whose projection wants a vector and not a map.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    DPTConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
)

MAX_TOKENS = 32
"""Longest text in tokens; product titles have 5 to 12."""
PIXEL_MEAN = 0.75
"""Of pictures on white ground, rounded."""
PIXEL_STD = 0.30
"""Of pictures on white ground, rounded."""
PIXELS_PER_CELL = 32
"""A ResNet of four stages ends with one cell for this many pixels, rounded up."""
PAD, BEGIN, END = "[PAD]", "[BEGIN]", "[END]"
SPECIAL_TOKENS = (PAD, BEGIN, "[MASK]", END)
"""[END] must not be entry 2: CLIPTextModel then takes the text's vector at the highest entry instead of at [END]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerShape:
    """Sizes of both towers."""

    image_size: int = 64
    """Side of the square input, pixels."""
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
    """Build the untrained model; its first weights follow torch's global seed.

    Args:
        shape: sizes of both towers.

    Returns:
        The model in float32.
    """
    cells = math.ceil(shape.image_size / PIXELS_PER_CELL)
    backbone = ResNetConfig(
        embedding_size=shape.embedding_size,
        hidden_sizes=list(shape.hidden_sizes),
        depths=list(shape.depths),
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    vision = DPTConfig(
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
    text = CLIPTextConfig(
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
    config = VisionTextDualEncoderConfig.from_vision_text_configs(vision, text, projection_dim=shape.dim)
    return VisionTextDualEncoderModel(config)


class TrainedTowers(nn.Module):
    """Both towers and the heads that only training needs, as one module whose forward pass DDP can wrap."""

    def __init__(self, shape: TowerShape, teacher_dim: int) -> None:
        """Build the towers and the heads.

        Args:
            shape: sizes of both towers.
            teacher_dim: dimensions of the teacher's text vectors.
        """
        super().__init__()
        self.towers = build_towers(shape)
        self.towers.set_attn_implementation(
            "eager"
        )  # same numbers; torch's fused kernel has a slow backward pass on CPUs
        self.towers.vision_model.to(memory_format=torch.channels_last)
        hidden = 2 * shape.text_width
        self.teacher_head = nn.Sequential(nn.Linear(teacher_dim, hidden), nn.GELU(), nn.Linear(hidden, shape.dim))
        self.imitation_head = nn.Linear(shape.text_width, teacher_dim)

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor, taught: Tensor) -> tuple[Tensor, ...]:
        """Encode pictures and texts.

        Args:
            pixels: float [B, 3, S, S], normalised.
            tokens: int64 [T, L]; T is B or more, the texts beyond B have no picture.
            mask: int64 [T, L], 1 where there is a token.
            taught: float32 [T, E], the teacher's vectors of the texts' meanings.

        Returns:
            images [B, D], texts [T, D] and the teacher's texts [T, D] in the common space, L2-normalised; the text
            tower's guess [T, E] of the teacher's vectors; the scale.
        """
        images = self.towers.get_image_features(pixel_values=pixels).pooler_output
        text = self.towers.text_model(input_ids=tokens, attention_mask=mask).pooler_output
        return (
            functional.normalize(images.float(), dim=-1),
            functional.normalize(self.towers.text_projection(text).float(), dim=-1),
            functional.normalize(self.teacher_head(taught).float(), dim=-1),
            self.imitation_head(text).float(),
            self.towers.logit_scale.exp().clamp(max=100),
        )


def train_tokenizer(texts: Iterable[str], *, vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that ignores case and mark-up; each text can be written, nothing is unknown.

    Args:
        texts: training texts; the result depends on them only.
        vocabulary: entries, among them the 256 bytes and the special tokens.

    Returns:
        The tokenizer, padding on the right, at most `MAX_TOKENS` tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Replace(Regex("<[^<>]{0,100}>"), " "),
            normalizers.Replace(Regex("&[a-zA-Z]{1,8};|&#[0-9]{1,6};"), " "),
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
            normalizers.Prepend(" "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}[\p{L}\p{M}]*| ?\p{N}| ?[^\s\p{L}\p{N}]+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}",
        special_tokens=[(BEGIN, SPECIAL_TOKENS.index(BEGIN)), (END, SPECIAL_TOKENS.index(END))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
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
