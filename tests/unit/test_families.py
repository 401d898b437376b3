"""Families of dual encoders, each as a tiny random model: encoded here as transformers itself would encode it.

The tokenizer has a token for each byte, so every text can be tokenised and lengths can be counted by eye.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from product_retrieval.encoders import EncoderOptions, check_model
from product_retrieval.encoders.preparing import ImagePreparer
from product_retrieval.encoders.protocol import load_preparer
from product_retrieval.encoders.transformers import TransformersEncoder
from product_retrieval.errors import EncoderError
from product_retrieval.images import decode

SIDE = 32
TEXTS = ["", "a", "red mug", "Größe XL", "a red corner sofa", "杯子", "MUG"]
TEXT_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 300,
    "bos_token_id": 1,
    "pad_token_id": 0,
    "eos_token_id": 299,
}
VISION_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
}
ALIGN_VISION_TOWER = {
    "image_size": SIDE,
    "kernel_sizes": [3, 3],
    "in_channels": [32, 16],
    "out_channels": [16, 24],
    "strides": [1, 2],
    "num_block_repeats": [1, 1],
    "expand_ratios": [1, 6],
    "hidden_dim": 64,  # the width coefficient is 2: vectors have 48 dimensions
}
SHORTEST_EDGE = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
EXACT = {"size": {"height": SIDE, "width": SIDE}}
ALIGN_PICTURES = {
    "size": {"height": 40, "width": 40},
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_center_crop": True,
    "resample": 2,
    "rescale_factor": 2 / 255,
    "rescale_offset": True,
    "do_normalize": False,
    "include_top": False,
}


@dataclass(frozen=True, slots=True)
class Made:
    """How a family is made, and how its documentation has texts tokenised."""

    config: str
    text: dict[str, Any]
    vision: dict[str, Any]
    dim: int
    processor: str
    pictures: dict[str, Any]
    documented: dict[str, Any]
    max_tokens: int
    """What a text is cut to."""
    tokenizer_length: int = 1 << 62
    """As tokenizers without a known limit say it."""


FAMILIES = {
    "clip": Made(
        "CLIPConfig",
        {"max_position_embeddings": 24},
        VISION_TOWER,
        16,
        "CLIPImageProcessorPil",
        SHORTEST_EDGE,
        {"padding": True},
        24,
    ),
    "siglip": Made(
        "SiglipConfig",
        {"max_position_embeddings": 24, "projection_size": 32},
        VISION_TOWER,
        32,
        "SiglipImageProcessorPil",
        EXACT,
        {"padding": "max_length", "max_length": 24, "return_attention_mask": False},
        24,
    ),
    "metaclip_2": Made(
        "MetaClip2Config",
        {"max_position_embeddings": 24},
        VISION_TOWER,
        16,
        "CLIPImageProcessorPil",
        SHORTEST_EDGE,
        {"padding": True},
        20,
        20,
    ),
    "altclip": Made(
        "AltCLIPConfig",
        {"max_position_embeddings": 26, "pad_token_id": 1, "bos_token_id": 0, "project_dim": 16},
        VISION_TOWER,
        16,
        "CLIPImageProcessorPil",
        SHORTEST_EDGE,
        {"padding": True},
        24,  # RoBERTa's positions start at the id of its padding token + 1
    ),
    "chinese_clip": Made(
        "ChineseCLIPConfig",
        {"max_position_embeddings": 60},
        VISION_TOWER,
        16,
        "ChineseCLIPImageProcessorPil",
        SHORTEST_EDGE,
        {"padding": True},
        52,
    ),
    "align": Made(
        "AlignConfig",
        {"max_position_embeddings": 80},
        ALIGN_VISION_TOWER,
        48,
        "EfficientNetImageProcessorPil",
        ALIGN_PICTURES,
        {"padding": "max_length", "max_length": 64},
        64,
    ),
}


def byte_tokenizer(*, pad: str, eos: str, length: int, ids: dict[str, int]) -> Any:
    """Return a tokenizer with one token a byte, `<s>` in front and `eos` at the end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: number + 4 for number, symbol in enumerate(alphabet)} | ids
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {eos}", special_tokens=[("<s>", ids["<s>"]), (eos, ids[eos])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token=eos, pad_token=pad, model_max_length=length
    )


def write_model(folder: Path, family: str, **text_changes: Any) -> Path:
    """Write a tiny random model of a family with its tokenizer and its image processor."""
    made = FAMILIES[family]
    text = TEXT_TOWER | made.text | text_changes
    projection = {} if family == "siglip" else {"projection_dim": made.dim}
    config = getattr(transformers, made.config)(text_config=text, vision_config=made.vision, **projection)
    torch.manual_seed(0)
    model = AutoModel.from_config(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= 8 if "text" in name and weight.ndim > 1 else 1  # untrained, it hardly looks at its input
    model.save_pretrained(folder)
    ids = {"<pad>": text["pad_token_id"], "<s>": text["bos_token_id"], "</s>": 299}
    byte_tokenizer(pad="<pad>", eos="</s>", length=made.tokenizer_length, ids=ids).save_pretrained(folder)
    getattr(transformers, made.processor)(**made.pictures).save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Loaded:
    """A family's folder, loaded here and by transformers."""

    made: Made
    folder: Path
    encoder: TransformersEncoder
    reference: Any

    def expected_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the vectors of texts, one by one, as the family's documentation has them made."""
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        with torch.inference_mode():
            return np.concatenate(
                [
                    unit(
                        self.reference.get_text_features(
                            **tokenizer([text], return_tensors="pt", **self.made.documented)
                        )
                    )
                    for text in texts
                ]
            )


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a writer of the families' folders, each written once."""
    folders: dict[str, Path] = {}

    def written(family: str) -> Path:
        if family not in folders:
            folders[family] = write_model(tmp_path_factory.mktemp("models") / family, family)
        return folders[family]

    return written


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, write: Callable[[str], Path]) -> Iterator[Loaded]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = write(request.param)
    reference = AutoModel.from_pretrained(folder).eval()
    encoder = TransformersEncoder(EncoderOptions(model=str(folder), device="cpu", precision="float32"))
    yield Loaded(FAMILIES[request.param], folder, encoder, reference)
    torch.set_num_threads(threads)


def unit(features: Any) -> NDArray[np.float32]:
    pooled = features if isinstance(features, torch.Tensor) else features.pooler_output
    return np.asarray(torch.nn.functional.normalize(pooled.float(), dim=-1).numpy())


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    assert first.shape == second.shape
    return np.asarray((first * second).sum(axis=1))


def waves(width: int, height: int) -> Image.Image:
    """Return a smooth picture with detail of several sizes."""
    down, across = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
    channels = [np.sin(9 * down * (c + 1)) * np.cos(7 * across + c) + np.sin(40 * across * down) / 3 for c in range(3)]
    return Image.fromarray(((np.stack(channels, axis=-1) / 1.34 + 1) * 127.5).astype(np.uint8))


def test_texts_are_encoded_as_the_family_documents_it(family: Loaded) -> None:
    assert (cosines(family.encoder.encode_texts(TEXTS), family.expected_texts(TEXTS)) > 0.9999).all()


def test_random_models_tell_texts_apart(family: Loaded) -> None:
    vectors = family.encoder.encode_texts(TEXTS)
    assert (vectors @ vectors.T)[np.triu_indices(len(TEXTS), 1)].max() < 0.99999


def test_padding_does_not_change_a_vector(family: Loaded) -> None:
    together = family.encoder.encode_texts(TEXTS)
    alone = np.concatenate([family.encoder.encode_texts([text]) for text in TEXTS])
    assert (cosines(together, alone) > 0.9999).all()


def test_long_text_is_cut_and_keeps_its_end_token(family: Loaded) -> None:
    fits = "x" * (family.made.max_tokens - 2)  # with <s> and </s>
    longest = family.expected_texts([fits])
    for text in (fits, fits + "y", fits + " and so on" * 1000):
        assert (cosines(family.encoder.encode_texts([text]), longest) > 0.9999).all()
    assert cosines(family.encoder.encode_texts([fits[:-1] + "y"]), longest)[0] < 0.99999


@pytest.mark.parametrize("size", [(64, 64), (100, 67), (67, 100), (33, 20), (5, 90)])
def processed(family: Loaded, picture: Image.Image) -> Any:
    """Return what the family's own image processor makes of a picture."""
    return AutoImageProcessor.from_pretrained(family.folder, backend="pil")(picture, return_tensors="pt")


@pytest.mark.parametrize("size", [(64, 64), (100, 67), (67, 100), (33, 20), (20, 70), (500, 499)])
def test_pictures_are_prepared_as_by_the_familys_own_processor(family: Loaded, size: tuple[int, int]) -> None:
    picture = waves(*size)
    with torch.inference_mode():
        expected = unit(family.reference.get_image_features(**processed(family, picture)))
    found = family.encoder.encode_images(family.encoder.prepare_image(np.asarray(picture))[None])
    assert (cosines(found, expected) > 0.9999).all()


@pytest.mark.parametrize("size", [(3, 900), (900, 3)])
def test_thread_of_a_picture_is_prepared_without_becoming_a_hundred_times_larger(
    family: Loaded, size: tuple[int, int]
) -> None:
    prepared = family.encoder.prepare_image(np.asarray(waves(*size)))
    assert prepared.shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("size", [(700, 500), (257, 259), (36, 800)])
def test_reduced_jpeg_is_prepared_to_nearly_the_processors_bytes(family: Loaded, size: tuple[int, int]) -> None:
    file = io.BytesIO()
    waves(*size).save(file, "JPEG", quality=90)
    decoded = decode(file.getvalue(), min_side=family.encoder.min_side)
    assert decoded.pixels is not None
    prepared = family.encoder.prepare_image(decoded.pixels, decoded.box)
    normalized = processed(family, Image.open(file))["pixel_values"][0].permute(1, 2, 0).numpy()
    images = load_preparer(EncoderOptions(model=str(family.folder)))
    assert isinstance(images, ImagePreparer)
    expected = (normalized - images.offset) / images.scale
    assert np.abs(prepared - expected).mean() < 1.5


def test_check_passes_and_dimension_is_that_of_the_vectors(family: Loaded) -> None:
    check_model(EncoderOptions(model=str(family.folder)))
    assert family.encoder.fingerprint.dim == family.made.dim


def test_image_processor_of_another_size_is_found_before_weights_are_read_and_when_they_are(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip", "clip")
    config = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    config |= {"size": {"shortest_edge": 50}, "crop_size": {"height": 50, "width": 50}}
    (folder / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    for load in (check_model, TransformersEncoder):
        with pytest.raises(EncoderError, match="50"):
            load(EncoderOptions(model=str(folder), device="cpu"))


def test_end_token_that_the_tokenizer_does_not_write_is_found_when_loaded(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "clip", "clip", eos_token_id=298)
    with pytest.raises(EncoderError, match=r"gives every text the same vector: the end token of its config\.json"):
        TransformersEncoder(EncoderOptions(model=str(folder), device="cpu"))
