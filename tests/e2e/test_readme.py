"""The README's commands, run as they stand there on a small shop of one's own, and its numbers, against the demo."""

from __future__ import annotations

import io
import json
import os
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}


def commands() -> list[str]:
    """Return every line of the README's shell blocks, without its comment."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = [line.split("  #")[0].split("   #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a shop of 60 products and return its folder, from which the README's commands are run."""
    folder = tmp_path_factory.mktemp("shop")
    rows = []
    for number in range(60):
        color = list(COLORS)[number % 3]
        buffer = io.BytesIO()
        Image.new("RGB", (40 + number, 50), COLORS[color]).save(buffer, format="JPEG")
        rows.append(
            {
                "product_id": f"sku-{number}",
                "title": f"{color} box {number}",
                "description": f"A box in {color}.",
                "image": buffer.getvalue(),
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "shop.parquet")
    for name in ("demo", "serve", "eval", "rayjobs", "product_retrieval", "cluster"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def environment() -> dict[str, str]:
    """Return an environment in which this test's Python comes first, as after activating its environment."""
    return {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}


def test_every_command_is_known_to_this_test() -> None:
    known = re.compile(
        r"make (demo|demo SERVE=1|test)|python -m venv .*|pip install .*|python -m [\w.]+ .*|serve run .*|"
        r"ray job submit .*"
    )
    assert [line for line in commands() if not known.fullmatch(line)] == []
    assert len(commands()) == 11


def test_make_targets_exist() -> None:
    for line in commands():
        if line.startswith("make "):
            checked = subprocess.run(["make", "-n", *shlex.split(line)[1:]], cwd=ROOT, capture_output=True, check=False)
            assert checked.returncode == 0, checked.stderr


def test_commands_on_ones_own_catalogue(shop: Path) -> None:
    ran = []
    for line in commands():
        if line.startswith("python -m ") and "venv" not in line:
            result = subprocess.run(
                shlex.split(line), cwd=shop, env=environment(), capture_output=True, text=True, timeout=250, check=False
            )
            assert result.returncode == 0, f"{line}\n{result.stdout}\n{result.stderr}"
            ran.append(line.split()[2])
    assert ran == ["rayjobs.embed", "rayjobs.build_index", "product_retrieval.search", "eval.evaluate"]
    assert (shop / "hits.html").exists()
    assert (shop / "out/report/report.html").exists()
    serves(shop, next(line for line in commands() if line.startswith("serve run")))


def serves(shop: Path, line: str) -> None:
    """Start the README's service, ask it over HTTP, and end it with Ctrl-C."""
    service = subprocess.Popen(
        shlex.split(line),
        cwd=shop,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        answer = ask("http://127.0.0.1:8000/v1/search?q=red+box&k=3", service)
        assert len(answer["hits"]) == 3
        os.kill(service.pid, signal.SIGINT)
        service.communicate(timeout=150)  # a replica that is still starting has 20 s, one deployment after the other
    finally:
        if service.poll() is None:
            os.killpg(service.pid, signal.SIGKILL)
            service.communicate()


def ask(url: str, service: subprocess.Popen[str]) -> dict[str, list[object]]:
    """Return the JSON at a URL once the service answers."""
    for _ in range(240):
        assert service.poll() is None, service.communicate()
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return dict(json.load(response))
        except OSError:
            select.select([], [], [], 0.5)
    pytest.fail("the service did not answer within two minutes")


@pytest.mark.timeout(900)
def test_demo_gives_the_numbers_in_the_readme_and_reuses_its_work(tmp_path: Path) -> None:
    tree = tmp_path / "clone"
    ignored = shutil.ignore_patterns("out", ".venv", ".git", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=ignored)
    first = run_demo(tree)
    results = json.loads((tree / "out/demo/report/report.json").read_text())["results"]
    stated = re.findall(r"^\| (\w+ -> \w+) \| (\w+) \|.*\| ([\d.]+) \([\d.]+-[\d.]+\) \|$", README, flags=re.MULTILINE)
    assert len(stated) == len(results), "the README's table has a row for each direction and kind of right hit"
    measured = {(r["name"], r["relevant"]): r["measures"]["hit@10"]["mean"] for r in results}
    for name, relevant, hit_at_10 in stated:
        assert measured[name, relevant] == pytest.approx(float(hit_at_10), abs=0.02)
    assert "version 1" in first
    for number in (1, 2, 3):
        assert (tree / f"out/demo/answers/{number}.png").stat().st_size > 10_000
    second = run_demo(tree)
    assert "already complete" in second
    assert "already built as version 1" in second
    assert "already evaluated" in second


def run_demo(tree: Path) -> str:
    """Run the demo in a copy of the repository and return what it printed."""
    result = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=tree,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
