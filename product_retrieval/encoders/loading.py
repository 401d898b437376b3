"""Models and tokenizers out of a folder, and the check in seconds that they can be loaded at all."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from product_retrieval.encoders.families import REFUSED, TextPreparer
from product_retrieval.encoders.folders import explain, fingerprint_of, read_config, resolve_folder
from product_retrieval.encoders.preparing import ImagePreparer
from product_retrieval.encoders.protocol import EncoderOptions
from product_retrieval.errors import EncoderError

logger = logging.getLogger(__name__)

UNUSED_WEIGHTS = ("logit_scale", "logit_bias", "temperature", "position_ids")
"""Names that may be missing: they scale a training loss or can be counted, and no vector depends on them."""


def load_model(options: EncoderOptions, precision: str) -> Any:
    """Load a model with its weights, on the CPU, ready for inference.

    Args:
        options: which model.
        precision: torch type of the weights in memory, such as `float32`.

    Raises:
        EncoderError: it is broken, incomplete, or no dual encoder.
    """
    return _from_pretrained(options, precision, None)


def load_text_preparer(options: EncoderOptions, model: Any) -> TextPreparer:
    """Load the tokenizer of a model.

    Raises:
        EncoderError: there is none, or it does not fit the model.
    """
    from transformers import AutoTokenizer

    folder = resolve_folder(options.model, options.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        return TextPreparer.of(model, tokenizer)
    except Exception as error:  # tokenizers raise whatever their files provoke, bare Exception included
        raise EncoderError(f"--encoder.model {options.model}: no usable tokenizer: {explain(error)}") from error


def check_model(options: EncoderOptions) -> None:
    """Find out in seconds whether a model can be loaded and used, without reading its weights.

    Everything is loaded as it will be, with hollow weights of the shapes that the files name; then one picture and one
    text go through the model as shapes only.

    Raises:
        EncoderError: processor, tokenizer or weights are missing or do not fit, or it is no dual encoder.
    """
    import torch

    fingerprint = fingerprint_of(options)
    model = _from_pretrained(options, "float32", _hollow_weights(options)).to("meta")
    texts = load_text_preparer(options, model)
    images = ImagePreparer.load(options)
    prepared = torch.tensor(images.prepare_image(images.blank())).permute(2, 0, 1)[None].to("meta", torch.float32)
    tokens = {name: tensor.to("meta") for name, tensor in texts(["a"]).items() if name != "attention_mask"}
    try:
        with torch.inference_mode():
            pictures = pooled(model.get_image_features(pixel_values=prepared))
            words = pooled(model.get_text_features(**tokens))
    except (ValueError, RuntimeError, AttributeError, TypeError, IndexError) as error:
        if isinstance(error, NotImplementedError) or "meta tensor" in str(error):
            logger.debug("model looks at values, not checked further model=%s", options.model)
            return
        raise EncoderError(
            f"--encoder.model {options.model}: model, image processor and tokenizer do not fit: {explain(error)}"
        ) from error
    for features in (pictures, words):
        if tuple(features.shape) != (1, fingerprint.dim):
            raise EncoderError(
                f"--encoder.model {options.model}: gives features of shape {tuple(features.shape)} and not one vector "
                f"of {fingerprint.dim} numbers for a picture or a text"
            )


def pooled(features: Any) -> Any:
    """Return the vectors, [N, D], in what get_image_features or get_text_features returned."""
    import torch

    return features if isinstance(features, torch.Tensor) else features.pooler_output


def _from_pretrained(options: EncoderOptions, precision: str, weights: Mapping[str, Any] | None) -> Any:
    """Load a model from its folder, or from weights that are given."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()  # what it warns of, missing weights, is an error here
    folder = resolve_folder(options.model, options.revision)
    fingerprint_of(options)
    kind = str(read_config(folder, options.model).get("model_type"))
    if kind in REFUSED:
        raise EncoderError(f"--encoder.model {options.model}: {REFUSED[kind]}")
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            architecture = type(AutoModel.from_config(config, trust_remote_code=False))
        if not (hasattr(architecture, "get_image_features") and hasattr(architecture, "get_text_features")):
            raise EncoderError(f"--encoder.model {options.model}: a {kind} model is no dual encoder")
        model, found = architecture.from_pretrained(
            None if weights is not None else folder,
            config=AutoConfig.from_pretrained(folder, trust_remote_code=False),
            state_dict=weights,
            use_safetensors=True,
            dtype=getattr(torch, precision),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
    except (
        OSError,
        ValueError,
        KeyError,
        RuntimeError,
        TypeError,
        AttributeError,
        ImportError,
        SafetensorError,
    ) as error:
        raise EncoderError(f"--encoder.model {options.model}: {explain(error)}") from error
    missing = sorted(name for name in found["missing_keys"] if not name.endswith(UNUSED_WEIGHTS))
    misshapen = sorted(name for name, *_ in found["mismatched_keys"])
    for names, fault in ((missing, "lack"), (misshapen, "have in another shape")):
        if names:
            raise EncoderError(
                f"--encoder.model {options.model}: its *.safetensors {fault} {len(names):,} of the weights that its "
                f"configuration asks for, such as {names[0]}"
            )
    return model.eval()


def _hollow_weights(options: EncoderOptions) -> dict[str, Any]:
    """Return weights of the names and shapes in a model's files: each one zero, seen as often as there are numbers."""
    import torch
    from safetensors import SafetensorError, safe_open

    folder = Path(resolve_folder(options.model, options.revision))
    file = "model.safetensors"
    files = [file]
    weights: dict[str, Any] = {}
    try:
        if not (folder / file).is_file():
            file = "model.safetensors.index.json"
            files = sorted(set(json.loads((folder / file).read_text())["weight_map"].values()))
        for file in files:
            with safe_open(str(folder / file), "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - no mapping
                    weights[name] = torch.zeros(()).expand(opened.get_slice(name).get_shape())
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise EncoderError(f"--encoder.model {options.model}: {file}: {explain(error)}") from error
    return weights
