"""The embedding job beside Ray's documented pattern and clip-retrieval, on the same JPEG files and the same weights.

    python -m venv cr && cr/bin/pip install torch==2.13.0 torchvision==0.28.0 'setuptools<81' clip-retrieval==2.45.0
    python -m benchmarks.against_peers --clip-retrieval cr/bin/clip-retrieval --output benchmarks/against_peers.md

The systems take turns, each on a small and on a large number of products, several times. The difference of a system's
two runs is its steady state, free of start-up. Machines are shared and their clocks vary: CPU-seconds of the whole
process tree are the number to compare, wall clock is told beside it. Linux only.

Writes the page given by --output after each round, so that a run that is stopped has a result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.peers.model import Size, make_model
from benchmarks.peers.process_tree import Usage, measure
from benchmarks.peers.products import write_layouts
from benchmarks.peers.report import Runs, page
from benchmarks.peers.systems import System, Task, systems

ROOT = Path(__file__).resolve().parent.parent
CATALOG = ROOT / "demo" / "household" / "catalog.parquet"
TIMEOUT_S = 900.0


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description="The embedding job beside other systems.")
    parser.add_argument("--clip-retrieval", type=Path, required=True, help="program in its virtual environment")
    parser.add_argument("--size", choices=("b32", "tiny"), default="b32", help="of the model")
    parser.add_argument("--small", type=int, default=64, help="products")
    parser.add_argument("--large", type=int, default=256, help="products")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=[], help="words in the names of the systems that take part")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    program = options.clip_retrieval.absolute()
    taking_part = [s for s in systems(program) if not options.only or any(word in s.name for word in options.only)]
    runs: Runs = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        size: Size = options.size
        model = folder / "model"
        make_model(model, size, byte_pairs(program))
        layouts = {
            count: write_layouts(folder / str(count), CATALOG, count) for count in (options.small, options.large)
        }
        for repeat in range(options.repeats):
            outputs = {}
            for count in (options.small, options.large):
                for number, system in enumerate(taking_part):
                    outputs[system.name] = folder / f"out-{repeat}-{count}-{number}"
                    task = Task(layouts[count], model, outputs[system.name])
                    usage = run(system, task, folder)
                    runs[system.name, count].append(usage)
                    print(json.dumps({"system": system.name, "products": count, **asdict(usage)}), flush=True)
            agreement = {s.name: likeness(s, taking_part[0], outputs) for s in taking_part}
            text = page(runs, agreement, options, layouts[options.large].mean_jpeg_bytes, peer_versions(program))
            options.output.write_text(text, encoding="utf-8")


def byte_pairs(program: Path) -> Path:
    """Return CLIP's list of byte pairs in the environment of clip-retrieval, which brings it along."""
    found = sorted(program.parent.parent.glob("lib/python*/site-packages/clip/bpe_simple_vocab_16e6.txt.gz"))
    if not found:
        raise FileNotFoundError(
            f"{program.parent.parent}: no clip/bpe_simple_vocab_16e6.txt.gz; is it clip-retrieval's?"
        )
    return found[0]


def run(system: System, task: Task, folder: Path) -> Usage:
    """Run a system once."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    env = {**inherited, "HF_HUB_OFFLINE": "1"}
    return measure(system.command(task), env=env, cwd=ROOT, log=folder / "log", timeout_s=TIMEOUT_S)


def likeness(system: System, reference: System, outputs: dict[str, Path]) -> float:
    """Return the mean cosine between two systems' vectors of the same pictures, less the mean picture.

    Pictures are much alike to random weights; what is left without their mean would be noise if a system embedded
    something else.
    """
    ours, theirs = reference.image_vectors(outputs[reference.name]), system.image_vectors(outputs[system.name])
    if ours.keys() != theirs.keys():
        raise RuntimeError(f"{system.name}: embedded {len(theirs)} pictures, not the same {len(ours)}")
    a, b = (centred(np.stack([vectors[key] for key in sorted(vectors)])) for vectors in (ours, theirs))
    return float((a * b).sum(axis=1).mean())


def centred(vectors: np.ndarray) -> np.ndarray:
    """Return unit vectors without their mean, as unit vectors again."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rest = unit - unit.mean(axis=0)
    return rest / np.linalg.norm(rest, axis=1, keepdims=True)


def peer_versions(program: Path) -> str:
    """Return the versions of what clip-retrieval runs with."""
    names = ("clip-retrieval", "all-clip", "torch", "torchvision", "transformers", "webdataset", "Pillow", "numpy")
    code = f"from importlib.metadata import version as v; print(', '.join(n + ' ' + v(n) for n in {names!r}))"
    command = [str(program.parent / "python"), "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
