"""The demo: catalogue, vectors, index, report and answers, on this machine, in minutes; what `make demo` runs.

    python scripts/demo.py [--serve]

Reads demo/household and demo/model. Writes out/demo/{embeddings,index,report,answers}. What is already there is
reused. Exit code: that of the first step that fails.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("out/demo")
CATALOG = "demo/household/catalog.parquet"
PHOTOS = "demo/household/queries.parquet"
QUERIES = ("navy blue sofa", "yellow desk lamp", "washing machine")


@dataclass(frozen=True, slots=True)
class Step:
    """One command of the demo."""

    title: str
    module: str
    arguments: tuple[str, ...]


STEPS = (
    Step("Embed the catalogue", "rayjobs.embed", ("--catalog", CATALOG, "--output", str(OUT / "embeddings"))),
    Step(
        "Build the index",
        "rayjobs.build_index",
        ("--embeddings", str(OUT / "embeddings"), "--output", str(OUT / "index")),
    ),
    Step(
        "Say how good it is, on products that the model was not trained on",
        "eval.evaluate",
        (
            *("--index", str(OUT / "index"), "--output", str(OUT / "report")),
            *("--where", "split=heldout", "--photos", PHOTOS),
        ),
    ),
)


def main() -> int:
    """Run the demo."""
    seconds = []
    for step in STEPS:
        started = time.monotonic()
        code = run(step)
        if code:
            return code
        seconds.append((step, time.monotonic() - started))
    for number, query in enumerate(QUERIES):
        sheet = str(OUT / "answers" / f"{number + 1}.png")
        code = run(search_step(query, sheet))
        if code:
            return code
    print(closing(seconds))
    if "--serve" in sys.argv[1:]:
        return serve()
    return 0


def run(step: Step) -> int:
    """Run a step in its own process, show its command, and return its exit code."""
    command = [sys.executable, "-m", step.module, *step.arguments]
    shown = " ".join(f'"{word}"' if " " in word else word for word in ("python", *command[1:]))
    print(f"\n== {step.title}\n   {shown}", flush=True)
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def search_step(query: str, sheet: str) -> Step:
    """Return the command that answers one query."""
    arguments = ("--index", str(OUT / "index"), query, "--k", "5", "--sheet", sheet)
    return Step(f"Ask for: {query}", "product_retrieval.search", arguments)


def closing(seconds: list[tuple[Step, float]]) -> str:
    """Return what a person wants to know at the end."""
    report = json.loads((ROOT / OUT / "report" / "report.json").read_text())
    num_products = report["num_products"]
    lines = ["", "== Done", f"   hit@k (R@K in papers on CLIP) on products never trained on, among {num_products:,}:"]
    for result in report["results"]:
        if result["name"] in ("text -> image", "image -> text") and result["relevant"] == "product":
            measures = ((name, result["measures"][name]) for name in ("hit@1", "hit@5", "hit@10"))
            hits = (f"{name} {e['mean']:.3f} (chance {e['chance']:.4f})" for name, e in measures)
            lines.append(f"     {result['name']}   {'   '.join(hits)}")
    for step, elapsed in seconds:
        lines.append(f"   {step.module:<20} {elapsed:6.1f} s   {num_products / elapsed:7.0f} products/s with start-up")
    lines += [
        f"   vectors {OUT}/embeddings   index {OUT}/index   report {OUT}/report/report.html   sheets {OUT}/answers",
        "",
        "   Next, in this folder:",
        f'     .venv/bin/python -m product_retrieval.search --index {OUT}/index "red armchair"',
        f"     .venv/bin/python -m product_retrieval.search --index {OUT}/index --image PHOTO.jpg --sheet hits.html",
        "     make demo SERVE=1        a page to search on",
        "     README.md                the same commands on your own catalogue",
    ]
    return "\n".join(lines)


def serve() -> int:
    """Serve the demo's index until Ctrl-C."""
    print("\n== Serve: open http://127.0.0.1:8000/ (Ctrl-C ends it)", flush=True)
    program = str(Path(sys.executable).parent / "serve")
    try:
        command = [program, "run", "serve.app:build", f"index={OUT}/index"]
        at_proxy = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.at_proxy.middlewares"}
        return subprocess.run(command, cwd=ROOT, env={**os.environ, **at_proxy}, check=False).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
