"""Recall@10 against queries per core: this project's index at its defaults beside other libraries, on the same vectors.

    for name in autofaiss hnswlib usearch scann lancedb; do
        python -m venv venvs/$name
        venvs/$name/bin/pip install --constraint benchmarks/peers/index-constraints.txt $name
    done
    venvs/autofaiss/bin/pip install faiss-cpu==1.13.2 pyarrow==15.0.2  # fails with newer ones, which it asks for
    python -m benchmarks.index_recall --products 50000 --venvs venvs --folder out/index-recall --output out/quick.md
    python -m benchmarks.index_recall --venvs venvs --folder out/index-recall --output benchmarks/index_recall.md

Vectors are made by clip_like.py; all indexes hold the picture vectors, and are asked with other pictures of products
and with other texts, which none of them was trained on. Each library runs in its own process and environment, on one
thread; the indexes take turns for several rounds. Speed is CPU time, so that a machine with other work distorts it
little; a page to keep should still come from a quiet one, and says how loaded it was. An index that is in --folder
already is measured as it is: delete its folder to build it anew. hnswlib is compiled when it is installed. Linux only.

Writes the page given by --output and a plot beside it, after each round, so that a run that is stopped has a result.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.peers.index_data import make_data
from benchmarks.peers.index_report import Measured, page, plot_page
from benchmarks.peers.index_systems import SYSTEMS
from benchmarks.peers.process_tree import Usage, measure

ROOT = Path(__file__).resolve().parent.parent
MEASURE_TIMEOUT_S = 3600.0
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS"), "1"
)


def main() -> None:
    """Build what is missing, measure, and write the page."""
    parser = argparse.ArgumentParser(description="Recall and speed of indexes on the same vectors.")
    parser.add_argument("--products", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=500, help="of each kind")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--venvs", type=Path, required=True, help="folder of virtual environments, see above")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--build-timeout", type=float, default=3600.0, help="seconds for one index")
    parser.add_argument("--folder", type=Path, required=True, help="for vectors and indexes; kept")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    folder = options.folder / str(options.products)
    make_data(folder / "data", options.products, num_queries=options.queries)
    load = os.getloadavg()[0]
    measured = {name: Measured(SYSTEMS[name]) for name in options.systems}
    for name in options.systems:
        measured[name].build, measured[name].missing = build(name, folder, options)
        print(json.dumps({"system": name, "build": str(measured[name].build), "missing": measured[name].missing}))
    rounds = defaultdict(list)
    for number in range(options.rounds):
        for name in options.systems:
            if not measured[name].missing:
                rounds[name].append(measure_once(name, folder, options.venvs))
                print(json.dumps({"system": name, "round": number, "open_s": rounds[name][-1]["open_s"]}), flush=True)
        for name, results in rounds.items():
            measured[name].rounds = results
        options.output.write_text(page(list(measured.values()), options, load), encoding="utf-8")
        options.output.with_suffix(".svg").write_text(plot_page(list(measured.values()), options), encoding="utf-8")


def build(name: str, folder: Path, options: argparse.Namespace) -> tuple[Usage | None, str | None]:
    """Build an index that is not there yet; return what that took, or why there is none."""
    python = python_of(name, options.venvs)
    if not python.exists():
        return None, "not installed"
    target, record = folder / name, folder / f"{name}.build.json"
    if not record.exists():
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        command = worker(python, "build", name, folder)
        time.sleep(1)  # so that what the previous build left behind is gone
        try:
            usage = measure(
                command, env=os.environ, cwd=ROOT, log=folder / f"{name}.log", timeout_s=options.build_timeout
            )
        except RuntimeError as error:
            return None, f"not built within {options.build_timeout:,.0f} s, or failed: {last_line(error)}"
        record.write_text(json.dumps(asdict(usage)))
    return Usage(**json.loads(record.read_text())), None


def measure_once(name: str, folder: Path, venvs: Path) -> dict[str, object]:
    """Measure the curve of an index in a process of its own."""
    output = folder / f"{name}.curve.json"
    command = [*worker(python_of(name, venvs), "measure", name, folder), "--output", str(output)]
    env = {**os.environ, **ONE_THREAD}
    measure(command, env=env, cwd=ROOT, log=folder / f"{name}.log", timeout_s=MEASURE_TIMEOUT_S)
    curve: dict[str, object] = json.loads(output.read_text())
    return curve


def worker(python: Path, step: str, name: str, folder: Path) -> Sequence[str]:
    """Return the command that builds or measures an index."""
    words = [step, name, "--data", folder / "data", "--folder", folder / name]
    return [
        str(python),
        "-m",
        "benchmarks.peers.index_worker",
        *(os.path.abspath(w) if isinstance(w, Path) else w for w in words),
    ]


def python_of(name: str, venvs: Path) -> Path:
    """Return the interpreter of an index's environment."""
    venv = SYSTEMS[name].venv
    return Path(sys.executable) if venv is None else venvs.absolute() / venv / "bin" / "python"


def last_line(error: Exception) -> str:
    """Return the end of an error's text."""
    return str(error).strip().splitlines()[-1][:200]


if __name__ == "__main__":
    main()
