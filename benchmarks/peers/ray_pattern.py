"""The pattern of Ray's documentation for embedding pictures, for comparison: read_images, then all else in the actor.

    python -m benchmarks.peers.ray_pattern FOLDER MODEL OUTPUT --batch-size 64 --threads 2

Pictures are decoded in full by Ray Data and travel as pixels; the actor turns them into PIL images, runs CLIPProcessor
and CLIPModel on them, and write_parquet stores the vectors with Ray's own tensor type. Text is not embedded.

Source: Ray documentation, "Multimodal AI workloads", batch inference (class EmbedImages).
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from product_retrieval.session import ray_session

Batch = dict[str, NDArray[Any]]


class EmbedImages:
    """The actor: processor and model in one."""

    def __init__(self, model: str, threads: int) -> None:
        """Load both."""
        import torch
        from transformers import CLIPModel, CLIPProcessor

        torch.set_num_threads(threads)  # Ray gives an actor of one CPU one thread
        self._processor = CLIPProcessor.from_pretrained(model)
        self._model = CLIPModel.from_pretrained(model)

    def __call__(self, batch: Batch) -> Batch:
        """Add an `embedding` to each row."""
        import torch
        from PIL import Image

        images = [Image.fromarray(np.uint8(image)).convert("RGB") for image in batch["image"]]
        inputs = self._processor(images=images, return_tensors="pt", padding=True)
        with torch.inference_mode():
            batch["embedding"] = self._model.get_image_features(**inputs).pooler_output.numpy()
        return batch


def main() -> None:
    """Embed a folder."""
    parser = argparse.ArgumentParser(description="Ray's documented pattern.")
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("output")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    with ray_session(ray):
        images = ray.data.read_images(options.folder, include_paths=True)
        embedded = images.map_batches(
            EmbedImages,
            fn_constructor_args=(options.model, options.threads),
            compute=ray.data.ActorPoolStrategy(size=1),
            batch_size=options.batch_size,
            num_cpus=1,
        )
        embedded.drop_columns(["image"]).write_parquet(options.output)


if __name__ == "__main__":
    main()
