"""Encoders: the weightless one, and the committed model as transformers itself would run it."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from product_retrieval.encoders import DEMO_MODEL, Encoder, EncoderOptions, check_model, load_encoder
from product_retrieval.encoders.hashing import DIM, HashEncoder
from product_retrieval.encoders.protocol import Precision, fingerprint_of, load_preparer
from product_retrieval.encoders.transformers import TransformersEncoder
from product_retrieval.errors import EncoderError
from product_retrieval.images import decode

MODEL = Path(__file__).resolve().parents[2] / DEMO_MODEL
CATALOG = MODEL.parent / "household" / "catalog.parquet"
EXPECTED_RED_MUG = [0.001393, 0.105498, -0.032852, -0.064453]
TEXTS = ["mug", "a red corner sofa with four legs", "", "Ecksofa in Rot, Größe XL", "x " * 500]


def pictures() -> list[NDArray[np.uint8]]:
    """Return pictures of several shapes: smooth ones, so that resizing is not all rounding."""
    made = []
    for number, (height, width) in enumerate([(96, 96), (200, 120), (50, 150), (3, 3), (97, 95), (400, 400)]):
        down, across = np.mgrid[0 : 1 : complex(height), 0 : 1 : complex(width)]
        waves = [np.sin(6 * down * (number + 1) + c) * np.cos(4 * across + c * number) for c in range(3)]
        made.append(((np.stack(waves, axis=-1) + 1) * 127.5).astype(np.uint8))
    return made


def copy_model(target: Path, *, leave_out: str = "") -> Path:
    """Copy the model's folder; the weights only as a link."""
    target.mkdir()
    for file in MODEL.iterdir():
        if file.name == leave_out:
            continue
        if file.suffix == ".safetensors":
            (target / file.name).symlink_to(file)
        else:
            shutil.copy(file, target / file.name)
    return target


@pytest.fixture(scope="module")
def encoder() -> Iterator[TransformersEncoder]:
    threads = torch.get_num_threads()
    loaded = TransformersEncoder(EncoderOptions(model=str(MODEL), device="cpu", precision="float32"))
    loaded.limit_threads(1)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def reference() -> Any:
    return AutoModel.from_pretrained(MODEL, dtype=torch.float32).eval()


def unit(features: Any) -> NDArray[np.float32]:
    pooled = features if isinstance(features, torch.Tensor) else features.pooler_output
    return np.asarray(torch.nn.functional.normalize(pooled.float(), dim=-1).detach().numpy())


# The hash encoder


def test_hash_encoder_gives_equal_vectors_to_equal_inputs() -> None:
    prepared = np.stack([HashEncoder().prepare_image(picture) for picture in pictures()])
    assert (HashEncoder().encode_texts(TEXTS) == HashEncoder().encode_texts(TEXTS)).all()
    assert (HashEncoder().encode_images(prepared) == HashEncoder().encode_images(prepared)).all()
    assert HashEncoder().fingerprint == HashEncoder().fingerprint


def test_hash_vectors_are_those_of_every_machine_and_release() -> None:
    vectors = HashEncoder().encode_texts(["red mug"])
    np.testing.assert_allclose(vectors[0, :4], EXPECTED_RED_MUG, atol=1e-5)


def test_hash_vectors_of_anything_are_finite_and_of_unit_length() -> None:
    images = np.zeros((3, 16, 16, 3), np.uint8)
    images[1], images[2] = 255, 127
    for vectors in (HashEncoder().encode_texts(["", " ", "\u00e9", "a" * 10_000]), HashEncoder().encode_images(images)):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_hash_encoder_of_nothing_gives_no_vectors() -> None:
    assert HashEncoder().encode_texts([]).shape == (0, DIM)
    assert HashEncoder().encode_images(np.zeros((0, 16, 16, 3), np.uint8)).shape == (0, DIM)


def test_hash_encoder_finds_similar_texts_similar() -> None:
    mug, mugs, lamp = HashEncoder().encode_texts(["red mug", "Red mugs", "ceiling lamp"])
    assert mug @ mugs > 0.7
    assert mug @ mugs > mug @ lamp + 0.3


def test_hash_batches_equal_one_by_one() -> None:
    alone = np.concatenate([HashEncoder().encode_texts([text]) for text in TEXTS])
    np.testing.assert_allclose(HashEncoder().encode_texts(TEXTS), alone, atol=1e-6)


def test_hash_encoder_is_chosen_by_name() -> None:
    options = EncoderOptions(model="hash")
    assert isinstance(load_encoder(options), HashEncoder)
    assert isinstance(load_preparer(options), HashEncoder)
    assert fingerprint_of(options) == HashEncoder().fingerprint


# The committed model


def test_pictures_are_prepared_as_by_the_models_own_processor(encoder: TransformersEncoder, reference: Any) -> None:
    processor = AutoImageProcessor.from_pretrained(MODEL, backend="pil")
    own = processor(pictures(), input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = unit(reference.get_image_features(pixel_values=own))
    found = encoder.encode_images(np.stack([encoder.prepare_image(picture) for picture in pictures()]))
    assert found.shape == expected.shape == (6, encoder.fingerprint.dim)
    assert ((found * expected).sum(axis=1) > 0.9995).all()


def test_texts_are_encoded_as_by_the_model_itself(encoder: TransformersEncoder, reference: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    limit = reference.config.text_config.max_position_embeddings
    for text in TEXTS:
        tokens = tokenizer([text], truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            expected = unit(reference.get_text_features(**tokens))
        assert (encoder.encode_texts([text]) @ expected.T).item() > 0.9999


def test_padded_batch_equals_one_by_one(encoder: TransformersEncoder) -> None:
    together = encoder.encode_texts(TEXTS)
    alone = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert ((together * alone).sum(axis=1) > 0.9999).all()
    prepared = np.stack([encoder.prepare_image(picture) for picture in pictures()])
    alone = np.concatenate([encoder.encode_images(picture[None]) for picture in prepared])
    assert ((encoder.encode_images(prepared) * alone).sum(axis=1) > 0.9999).all()


def test_threads_encode_side_by_side_what_one_encodes_alone(encoder: TransformersEncoder) -> None:
    batches = [[text[: 1 + length] for text in TEXTS] for length in range(0, 60, 3)]  # padded to other lengths each
    prepared = np.stack([encoder.prepare_image(picture) for picture in pictures()])
    alone = [(encoder.encode_texts(batch), encoder.encode_images(prepared)) for batch in batches]
    with ThreadPoolExecutor(4) as threads:
        beside = list(
            threads.map(lambda batch: (encoder.encode_texts(batch), encoder.encode_images(prepared)), batches)
        )
    for (texts, images), (same_texts, same_images) in zip(alone, beside, strict=True):
        assert np.array_equal(texts, same_texts)
        assert np.array_equal(images, same_images)


def test_vectors_are_float32_of_unit_length_and_of_the_named_dimension(encoder: TransformersEncoder) -> None:
    dim = encoder.fingerprint.dim
    for vectors in (
        encoder.encode_texts(TEXTS),
        encoder.encode_images(np.stack([encoder.prepare_image(pictures()[0])])),
    ):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == dim
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_different_texts_and_pictures_have_different_vectors(encoder: TransformersEncoder) -> None:
    texts = encoder.encode_texts(["a red mug", "a corner sofa"])
    images = encoder.encode_images(np.stack([encoder.prepare_image(picture) for picture in pictures()[:2]]))
    for first, second in (texts, images):
        assert np.abs(first - second).max() > 1e-3


def test_prepared_pictures_are_square_bytes_and_the_preparer_alone_gives_the_same(encoder: Encoder) -> None:
    preparer = load_preparer(EncoderOptions(model=str(MODEL)))
    for picture in pictures():
        prepared = encoder.prepare_image(picture)
        assert prepared.dtype == np.uint8
        assert prepared.shape == (prepared.shape[0], prepared.shape[0], 3)
        assert (preparer.prepare_image(picture) == prepared).all()


def test_preparer_survives_pickle() -> None:
    preparer = load_preparer(EncoderOptions(model=str(MODEL)))
    again = pickle.loads(pickle.dumps(preparer))
    assert (again.prepare_image(pictures()[1]) == preparer.prepare_image(pictures()[1])).all()


def test_fingerprint_without_the_weights_is_that_of_the_encoder(encoder: TransformersEncoder) -> None:
    assert fingerprint_of(EncoderOptions(model=str(MODEL))) == encoder.fingerprint
    assert encoder.fingerprint.family == json.loads((MODEL / "config.json").read_text())["model_type"]


def test_demo_model_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fingerprint_of(EncoderOptions()) == fingerprint_of(EncoderOptions(model=str(MODEL)))


def test_copy_elsewhere_has_the_same_fingerprint(tmp_path: Path) -> None:
    copied = fingerprint_of(EncoderOptions(model=str(copy_model(tmp_path / "copy"))))
    assert copied == fingerprint_of(EncoderOptions(model=str(MODEL)))


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "preprocessor_config.json"])
def test_changed_preprocessing_gives_another_fingerprint(tmp_path: Path, name: str) -> None:
    folder = copy_model(tmp_path / "copy")
    with (folder / name).open("a") as file:
        file.write(" ")
    assert (folder / name).is_file()
    changed, original = (
        fingerprint_of(EncoderOptions(model=str(folder))),
        fingerprint_of(EncoderOptions(model=str(MODEL))),
    )
    assert changed.digest != original.digest
    assert changed.weights_sha256 == original.weights_sha256


def test_changed_weights_give_another_fingerprint(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy", leave_out="model.safetensors")
    (folder / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes()[:-1] + b"\x01")
    changed, original = (
        fingerprint_of(EncoderOptions(model=str(folder))),
        fingerprint_of(EncoderOptions(model=str(MODEL))),
    )
    assert changed.weights_sha256 != original.weights_sha256
    assert changed.preprocessing_sha256 == original.preprocessing_sha256


def test_changed_configuration_gives_another_fingerprint(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["vision_config"]["layer_norm_eps"] = 0.1  # same weights, other vectors
    (folder / "config.json").write_text(json.dumps(config))
    assert fingerprint_of(EncoderOptions(model=str(folder))) != fingerprint_of(EncoderOptions(model=str(MODEL)))


# Models that are refused


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return (Path.touch, (self.path,))


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy", leave_out="model.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for load in (fingerprint_of, load_encoder):
        with pytest.raises(EncoderError, match=r"no \*.safetensors there; other weight formats can run code"):
            load(EncoderOptions(model=str(folder)))
    assert not (tmp_path / "sprung").exists()


def test_safetensors_beside_pickled_weights_are_what_is_read(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy", leave_out="model.safetensors")
    shutil.copy(MODEL / "model.safetensors", folder / "unrelated.safetensors")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(EncoderError):
        load_encoder(EncoderOptions(model=str(folder), device="cpu"))
    assert not (tmp_path / "sprung").exists()


def test_code_of_a_model_folder_is_not_run(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n")
    with pytest.raises(EncoderError, match=r"--encoder\.model .*copy"):
        load_encoder(EncoderOptions(model=str(folder), device="cpu"))
    assert not (tmp_path / "sprung").exists()


def test_model_of_texts_alone_is_no_dual_encoder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 8}')
    shutil.copy(MODEL / "model.safetensors", tmp_path / "model.safetensors")
    with pytest.raises(EncoderError, match="a bert model is no dual encoder of pictures and texts"):
        load_encoder(EncoderOptions(model=str(tmp_path)))


def test_missing_folder_is_an_encoder_error(tmp_path: Path) -> None:
    for load in (fingerprint_of, load_encoder, load_preparer):
        with pytest.raises(EncoderError, match="nowhere: no such folder"):
            load(EncoderOptions(model=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("config", ["", "{", "[]", "null"])
def test_folder_without_a_readable_configuration_is_no_model(tmp_path: Path, config: str) -> None:
    shutil.copy(MODEL / "model.safetensors", tmp_path / "model.safetensors")
    if config:
        (tmp_path / "config.json").write_text(config)
    with pytest.raises(EncoderError, match=r"config\.json|no dual encoder"):
        load_encoder(EncoderOptions(model=str(tmp_path)))


def test_folder_without_an_image_processor_cannot_prepare(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy", leave_out="preprocessor_config.json")
    with pytest.raises(EncoderError, match=r"--encoder\.model"):
        load_preparer(EncoderOptions(model=str(folder)))


def test_truncated_weights_are_an_encoder_error(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy", leave_out="model.safetensors")
    (folder / "model.safetensors").write_bytes((MODEL / "model.safetensors").read_bytes()[:100_000])
    with pytest.raises(EncoderError, match=r"--encoder\.model"):
        load_encoder(EncoderOptions(model=str(folder), device="cpu"))


def rewrite(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the JSON in a file."""
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))


def rewrite_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change the weights of a folder that has only a link to them."""
    weights = load_file(MODEL / "model.safetensors")
    change(weights)
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shard_weights(folder: Path) -> None:
    """Cut the weights of a folder into two files with an index."""
    weights = load_file(MODEL / "model.safetensors")
    (folder / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for file in set(files.values()):
        shard = {name: tensor for name, tensor in weights.items() if files[name] == file}
        save_file(shard, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no tokenizer": (
        lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")],
        "no usable tokenizer",
    ),
    "tokenizer that is no JSON": (lambda folder: (folder / "tokenizer.json").write_text("{"), "no usable tokenizer"),
    "tokenizer of another model": (
        lambda folder: rewrite(folder / "tokenizer_config.json", lambda config: config.update(pad_token="[NEW]")),
        "beyond the model's vocabulary of 6,000",
    ),
    "tokenizer with code": (
        lambda folder: rewrite(
            folder / "tokenizer_config.json",
            lambda config: config.update(tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}),
        ),
        "no usable tokenizer: .* custom code",
    ),
    "no image processor": (lambda folder: (folder / "preprocessor_config.json").unlink(), "no usable image processor"),
    "image processor with code": (
        lambda folder: rewrite(
            folder / "preprocessor_config.json",
            lambda config: config.update(image_processor_type="Own", auto_map={"AutoImageProcessor": "own.Own"}),
        ),
        "no usable image processor: .* custom code",
    ),
    "weights missing": (
        lambda folder: rewrite_weights(folder, lambda weights: weights.pop("text_projection.weight")),
        r"its \*.safetensors lack 1 of the weights .*, such as text_projection.weight",
    ),
    "weights of another shape": (
        lambda folder: rewrite_weights(
            folder, lambda weights: weights.update({"text_projection.weight": torch.zeros(3, 3)})
        ),
        r"its \*.safetensors have in another shape 1 of the weights .*, such as text_projection.weight",
    ),
    "shard missing": (
        lambda folder: (shard_weights(folder), (folder / "model-00002-of-00002.safetensors").unlink()),
        "model-00002-of-00002.safetensors",
    ),
    "configuration of another kind": (
        lambda folder: rewrite(folder / "config.json", lambda config: config.update(model_type="siglip2")),
        "NaFlex.*take a SigLIP 2 checkpoint of fixed resolution",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_model_is_found_before_its_weights_are_read_and_when_they_are(tmp_path: Path, fault: str) -> None:
    folder = copy_model(tmp_path / "copy")
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n")
    break_model, message = FAULTS[fault]
    break_model(folder)
    for load in (check_model, load_encoder):
        with pytest.raises(EncoderError, match=message) as caught:
            load(EncoderOptions(model=str(folder), device="cpu"))
        assert str(caught.value).startswith(f"--encoder.model {folder}: ")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_check_of_a_good_model_passes() -> None:
    check_model(EncoderOptions())
    check_model(EncoderOptions(model="hash"))


def test_weights_in_several_files_give_the_same_vectors(tmp_path: Path, encoder: TransformersEncoder) -> None:
    folder = copy_model(tmp_path / "copy")
    shard_weights(folder)
    check_model(EncoderOptions(model=str(folder)))
    sharded = load_encoder(EncoderOptions(model=str(folder), device="cpu", precision="float32"))
    assert (sharded.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)).all()


def test_weights_that_are_no_numbers_are_found_when_loaded(tmp_path: Path) -> None:
    folder = copy_model(tmp_path / "copy")
    rewrite_weights(
        folder, lambda weights: [weight.fill_(float("nan")) for name, weight in weights.items() if "text" in name]
    )
    with pytest.raises(EncoderError, match="its vectors are not finite: the weights are broken"):
        load_encoder(EncoderOptions(model=str(folder), device="cpu"))


def test_code_beside_a_known_kind_of_model_is_not_run(tmp_path: Path, encoder: TransformersEncoder) -> None:
    folder = copy_model(tmp_path / "copy")
    rewrite(folder / "config.json", lambda config: config.update(auto_map={"AutoModel": "own.Own"}))
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'sprung')!r}).touch()\n")
    loaded = load_encoder(EncoderOptions(model=str(folder), device="cpu", precision="float32"))
    assert (loaded.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)).all()
    assert not (tmp_path / "sprung").exists()


# Precision and compilation


@pytest.mark.parametrize("is_native", [False, True])
def test_default_precision_is_what_the_processor_computes_with(
    encoder: TransformersEncoder, monkeypatch: pytest.MonkeyPatch, is_native: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: is_native)
    default = load_encoder(EncoderOptions(model=str(MODEL), device="cpu"))
    equals_float32 = bool((default.encode_texts(TEXTS) == encoder.encode_texts(TEXTS)).all())
    assert equals_float32 is not is_native


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_smaller_numbers_give_nearly_the_same_vectors(encoder: TransformersEncoder, precision: Precision) -> None:
    small = load_encoder(EncoderOptions(model=str(MODEL), device="cpu", precision=precision))
    photos = pq.read_table(CATALOG, columns=["image"]).column("image").to_pylist()[::130]
    decoded = [decode(photo).pixels for photo in photos]
    prepared = np.stack([encoder.prepare_image(pixels) for pixels in decoded if pixels is not None])
    cosines = (small.encode_images(prepared) * encoder.encode_images(prepared)).sum(axis=1)
    assert cosines.mean() > 0.999
    assert cosines.min() > 0.995
    assert ((small.encode_texts(TEXTS) * encoder.encode_texts(TEXTS)).sum(axis=1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(small.encode_texts(TEXTS), axis=1), 1, atol=1e-5)


def test_order_of_the_texts_is_kept_whatever_their_length(encoder: TransformersEncoder) -> None:
    texts = [("mug " * (37 * number % 50)).strip() + f" {number}" for number in range(50)]
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    assert ((encoder.encode_texts(texts) * alone).sum(axis=1) > 0.9999).all()


def test_machine_without_a_compiler_is_an_encoder_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> Callable[..., Any]:
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: refuse)
    with pytest.raises(EncoderError, match=r"no working C.. compiler found; --encoder.compile needs a C.. compiler"):
        load_encoder(EncoderOptions(model=str(MODEL), device="cpu", compile=True))


def test_nothing_encoded_is_no_vectors(encoder: TransformersEncoder) -> None:
    assert encoder.encode_texts([]).shape == (0, encoder.fingerprint.dim)
    assert encoder.encode_images(np.zeros((0, 64, 64, 3), np.uint8)).shape == (0, encoder.fingerprint.dim)


def test_text_of_ten_megabytes_is_cut_before_it_is_tokenised(encoder: TransformersEncoder) -> None:
    start = time.monotonic()
    vectors = encoder.encode_texts(["red mug " * 1_300_000, "red mug " * 1_000])
    assert time.monotonic() - start < 1
    assert vectors[0] @ vectors[1] > 0.9999


@pytest.mark.parametrize("batch_size", [0, -1])
def test_batch_of_nothing_is_a_wrong_option(batch_size: int) -> None:
    with pytest.raises(ValueError, match=r"--encoder.batch-size must be at least 1"):
        EncoderOptions(batch_size=batch_size)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there_is_an_encoder_error() -> None:
    with pytest.raises(EncoderError, match=r"--encoder.device cuda: no GPU"):
        load_encoder(EncoderOptions(model=str(MODEL), device="cuda"))
