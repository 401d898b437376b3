"""Importing a module does nothing, and the light ones stay light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
FOREIGN = (
    "faiss",
    "numpy",
    "pyarrow.parquet",
    "ray",
    "ray.data",
    "ray.train",
    "ray.train.torch",
    "torch",
    "torch._dynamo",
    "transformers",
    "tyro",
)
LIGHT = (
    "product_retrieval",
    "product_retrieval.catalog",
    "product_retrieval.command",
    "product_retrieval.embedding_steps",
    "product_retrieval.embeddings",
    "product_retrieval.encoders",
    "product_retrieval.encoders.hashing",
    "product_retrieval.encoders.protocol",
    "product_retrieval.errors",
    "product_retrieval.images",
    "product_retrieval.index",
    "product_retrieval.metrics",
    "product_retrieval.options",
    "product_retrieval.pictures",
    "product_retrieval.progress",
    "product_retrieval.querying",
    "product_retrieval.search",
    "product_retrieval.storage",
)
STATE = """
import importlib, json, logging, os, signal, sys, threading, warnings

def state():
    import ray
    return {
        "handlers": [repr(handler) for handler in logging.getLogger().handlers],
        "level": logging.getLogger().level,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "ray": ray.is_initialized(),
        "terminate": repr(signal.getsignal(signal.SIGTERM)),
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "excepthook": repr(sys.excepthook),
    }
"""


def modules_of(package: str) -> list[str]:
    files = sorted((REPOSITORY / package).rglob("*.py"))
    names = [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names]


def run_python(code: str, *words: str) -> str:
    """Run code in a fresh interpreter at the repository's root and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_looked_at() -> None:
    assert set(LIGHT) <= set(modules_of("product_retrieval"))
    assert {"rayjobs.embed", "rayjobs.build_index"} <= set(modules_of("rayjobs"))
    assert {"eval.evaluate", "eval.exact"} <= set(modules_of("eval"))


def test_importing_every_module_changes_nothing_in_the_process() -> None:
    modules = [name for package in ("product_retrieval", "rayjobs", "eval") for name in modules_of(package)]
    code = f"""{STATE}
for name in {FOREIGN!r}:  # what foreign modules do at import is not ours to promise
    importlib.import_module(name)
before = state()
for name in {modules!r}:
    importlib.import_module(name)
after = state()
print(json.dumps([[key, before[key], after[key]] for key in before if before[key] != after[key]]))
"""
    assert json.loads(run_python(code).splitlines()[-1]) == []


@pytest.mark.parametrize("side_effect", ["prints", "warns"])
def test_importing_the_library_says_nothing(side_effect: str) -> None:
    options = {"prints": "", "warns": "import warnings; warnings.simplefilter('error'); "}[side_effect]
    assert run_python(f"{options}import importlib\nfor name in {LIGHT!r}: importlib.import_module(name)") == ""


def test_light_modules_import_no_heavy_library() -> None:
    code = f"""
import importlib, json, sys
found = {{}}
for name in {LIGHT!r}:
    importlib.import_module(name)
    for heavy in ("ray", "torch", "faiss", "transformers", "fastapi", "pandas"):
        if heavy in sys.modules:
            found.setdefault(heavy, name)
print(json.dumps(found))
"""
    assert json.loads(run_python(code)) == {}
