"""`python -m rayjobs.train` on a tiny catalogue: it trains, is killed, goes on, and exports a loadable folder."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, BertConfig, BertModel, PreTrainedTokenizerFast

COLORS = ("red", "green", "blue", "black")
SHAPES = ("circle", "square")


def drawing(color: str, shape: str, rng: Random) -> bytes:
    image = Image.new("RGB", (72, 72), "white")
    left, top, side = rng.randint(5, 30), rng.randint(5, 30), rng.randint(15, 35)
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)((left, top, left + side, top + side), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = Random(0)
    rows = []
    for number in range(160):
        color, shape = COLORS[number % 4], SHAPES[number // 4 % 2]
        rows.append(
            {
                "product_id": f"p{number:03d}",
                "title": f"{color} {shape}",
                "description": f"A {shape}.",
                "category": "shapes",
                "color": color,
                "tags": [shape],
                "names": [{"language": "de", "name": {"circle": "Kreis", "square": "Quadrat"}[shape]}],
                "group_id": f"g{number // 4}",
                "source": "household:test",
                "split": "heldout" if number >= 120 else "train",
                "image": drawing(color, shape, rng),
            }
        )
    file = tmp_path_factory.mktemp("catalog") / "part.parquet"
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence model of the right form whose weights are random."""
    folder = tmp_path_factory.mktemp("teacher")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "circle", "square", "shapes", *COLORS]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    tokenizer = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    return folder


def command(catalog: Path, teacher: Path, output: Path, *flags: str) -> list[str]:
    return [
        *(sys.executable, "-m", "rayjobs.train", "--catalog", str(catalog), "--gallery", str(catalog)),
        *("--output", str(output), "--teacher", str(teacher), "--batch-size", "16", *flags),
    ]


def logged_steps(output: Path) -> list[int]:
    file = output / "log.jsonl"
    return [int(json.loads(line)["step"]) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.distributed
def test_killed_training_goes_on_and_exports_what_transformers_loads(
    catalog: Path, teacher: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    first = subprocess.Popen(
        command(catalog, teacher, output, "--num-steps", "100000", "--checkpoint-every-s", "2"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(logged_steps(output)) < 2 and time.monotonic() < deadline and first.poll() is None:
        time.sleep(0.5)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    before = logged_steps(output)
    assert len(before) >= 2, "the first run reported no two checkpoints"

    last = before[-1] + 5
    again = subprocess.run(
        command(catalog, teacher, output, "--num-steps", str(last)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert again.returncode == 0, again.stderr[-3000:]
    assert logged_steps(output)[-1] == last
    assert min(logged_steps(output)[len(before) :]) > before[0], "it started from the beginning"
    assert "text_to_image" in again.stdout

    model = AutoModel.from_pretrained(output / "model", dtype=torch.float32).eval()
    tokens = AutoTokenizer.from_pretrained(output / "model")(["RED circle", "red circle"], return_tensors="pt")
    texts = model.get_text_features(**tokens).pooler_output
    assert torch.equal(texts[0], texts[1])
    processor = AutoImageProcessor.from_pretrained(output / "model")
    pixels = processor(images=[Image.new("RGB", (100, 50), "red")], return_tensors="pt")
    assert model.get_image_features(**pixels).pooler_output.shape == (1, texts.shape[1])
    assert (output / "model" / "README.md").read_text().count("| clean title ->") == 3


@pytest.mark.distributed
def test_two_workers_train_one_model(catalog: Path, teacher: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = subprocess.run(
        command(catalog, teacher, output, "--num-steps", "6", "--num-workers", "2"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert logged_steps(output) == [6]
    vector = AutoModel.from_pretrained(output / "model").get_text_features(torch.tensor([[1, 5, 2]])).pooler_output
    assert np.isfinite(vector.detach().float().numpy()).all()


@pytest.mark.distributed
def test_a_text_tower_that_had_lessons_is_trained_on_and_exported(catalog: Path, teacher: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("red square\nblack circle\n", encoding="utf-8")
    flags = ("--text-lessons", "3", "--texts", str(texts), "--num-steps", "2")
    arguments = command(catalog, teacher, tmp_path / "out", *flags)
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("lesson number=") == 2
    again = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "lesson number=" not in again.stderr, "lessons of a finished run were given again"

    folder = tmp_path / "out" / "model"
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.text_config.model_type == "bert"
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["<b>RED circle</b>", "red circle", "red square"], return_tensors="pt"
    )
    vectors = model.get_text_features(**tokens).pooler_output
    assert torch.equal(vectors[0], vectors[1])
    assert not torch.equal(vectors[0], vectors[2])
    assert "cut out of all-MiniLM" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--batch-size", "15", "--num-workers", "2"], 2, "not a multiple"),
        (["--share", "household"], 2, "expected SOURCE=NUMBER"),
        (["--teacher", "no_such_teacher"], 5, "no such folder or package"),
        (["--text-lessons", "-1"], 2, "text-lessons must be at least 0"),
        (["--texts", "no_such_texts.txt"], 3, "no_such_texts.txt: cannot be read"),
    ],
)
def test_wrong_options_end_in_one_line(
    catalog: Path, teacher: Path, tmp_path: Path, flags: list[str], code: int, says: str
) -> None:
    arguments = command(catalog, teacher, tmp_path / "out")
    done = subprocess.run([*arguments, *flags], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code
    assert says in done.stderr.splitlines()[-1]
