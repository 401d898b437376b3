"""The page in a real browser, against the real service that `serve run` starts on a small index."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import ray
import yaml

from tests.distributed.lamp_shop import HOSTILE, Call, caller, free_port, make_index, picture
from tests.e2e.browser import Browser, Page

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.distributed,
    pytest.mark.skipif(shutil.which("chromium") is None and "CI" not in os.environ, reason="needs chromium; CI has it"),
]

ROOT = Path(__file__).resolve().parents[2]
SERVE = Path(sys.executable).with_name("serve")
IDS = "[...document.querySelectorAll('.card')].map((card) => card.dataset.id)"
IS_SETTLED = "!document.querySelector('#hits[aria-busy]')"


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Run the service as a process of its own, on a Ray of its own, and end it with Ctrl-C."""
    folder, port = tmp_path_factory.mktemp("shop"), free_port()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        index = make_index(folder)
    finally:
        ray.shutdown()
    application = {"name": "search", "import_path": "serve.app:build", "args": {"index": index, "max_replicas": 1}}
    config = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]}
    (folder / "serve.yaml").write_text(yaml.safe_dump(config))
    with (folder / "serve.log").open("wb") as log:
        service = subprocess.Popen(
            [str(SERVE), "run", str(folder / "serve.yaml")],
            cwd=ROOT,
            env={**os.environ, "RAY_ADDRESS": "local"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(port, service, folder / "serve.log")
        yield port
    finally:
        service.send_signal(signal.SIGINT)
        try:
            service.wait(120)
        except subprocess.TimeoutExpired:
            os.killpg(service.pid, signal.SIGKILL)
            service.wait()


def wait_until_ready(port: int, service: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(360):
        assert service.poll() is None, log.read_text()
        try:
            if caller(port)("GET", "/readyz")[0] == 200:
                return
        except OSError:
            pass
        select.select([], [], [], 0.5)
    pytest.fail(f"not ready within three minutes:\n{log.read_text()}")


@pytest.fixture(scope="module")
def browser(port: int) -> Iterator[Browser]:  # noqa: ARG001 - two cores start one thing after the other
    # The browser's last processes may still write while the folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser.start(Path(profile)) as started:
        yield started


@pytest.fixture
def call(port: int) -> Call:
    return caller(port)


@pytest.fixture
def page(browser: Browser, port: int) -> Iterator[Page]:
    """Return the page, open; after the test, nothing was refused, nothing ran, and nothing left the origin."""
    origin = f"http://127.0.0.1:{port}/"
    page = browser.open(origin)
    yield page
    assert (page.errors, page.dialogs) == ([], [])
    assert [url for url in page.requests if not url.startswith((origin, "data:", "blob:" + origin))] == []
    assert any("/v1/search" in url for url in page.requests)


def wait_for(page: Page, ids: list[str]) -> None:
    """Wait until the page shows just these products, in this order."""
    page.wait_for(f"{IS_SETTLED} && JSON.stringify({IDS}) === JSON.stringify({ids})")


def ids_of(answer: dict[str, Any]) -> list[str]:
    return [hit["product_id"] for hit in answer["hits"]]


def test_typed_words_show_what_the_service_finds_for_them(page: Page, call: Call) -> None:
    page.press("/")
    page.type("lamp number 7")
    page.press("Enter")
    expected = ids_of(call("POST", "/v1/search", {"text": "lamp number 7", "k": 24})[2])
    wait_for(page, expected)
    page.navigate(f"{page.evaluate('location.origin')}/?q=lamp+number+7&against=text")
    wait_for(page, ids_of(call("POST", "/v1/search", {"text": "lamp number 7", "k": 24, "against": "text"})[2]))
    assert page.evaluate(IDS)[0] == "p07"
    assert page.evaluate("document.getElementById('speed').textContent").endswith("index version 1")


def test_a_dropped_picture_finds_the_product_that_it_shows(page: Page, call: Call) -> None:
    page.drop_file(picture(9), name="lamp.png", media_type="image/png")
    expected = ids_of(call("POST", "/v1/search/image?k=24", picture(9), "image/png")[2])
    assert expected[0] == "p09"
    wait_for(page, expected)
    page.wait_for("document.querySelector('[data-id=p09] img')?.naturalWidth === 24")


def test_more_like_this_shows_its_neighbours_and_not_itself(page: Page, call: Call) -> None:
    page.navigate(f"{page.evaluate('location.origin')}/?q=lamp+number+9&against=text")
    page.wait_for(f"{IS_SETTLED} && {IDS}[0] === 'p09'")
    page.click("[data-id=p09] .like")
    expected = ids_of(call("POST", "/v1/search", {"product_id": "p09", "k": 24, "against": "text"})[2])
    wait_for(page, expected)
    assert "p09" not in expected
    page.click(f"[data-id='{expected[0]}'] .minus")
    mix = [{"product_id": "p09", "weight": 1}, {"product_id": expected[0], "weight": -0.5}]
    wait_for(page, ids_of(call("POST", "/v1/search", {"mix": mix, "k": 24, "against": "text"})[2]))


def test_a_filter_leaves_what_the_service_lets_pass(page: Page, call: Call) -> None:
    page.navigate(f"{page.evaluate('location.origin')}/?q=lamp&f.color=red")
    red = {"field": "color", "in": ["red"]}
    wait_for(page, ids_of(call("POST", "/v1/search", {"text": "lamp", "k": 24, "filter": red})[2]))
    summary = page.evaluate("document.getElementById('summary').textContent")
    assert summary == "19 of 20 products that pass the filters"  # one of the red ones has no picture


def test_a_hostile_title_is_text_on_the_card_and_in_the_details(page: Page) -> None:
    page.navigate(f"{page.evaluate('location.origin')}/?q={quote(HOSTILE)}&against=text")
    page.wait_for(f"{IS_SETTLED} && {IDS}[0] === 'p01'")
    assert page.evaluate("document.querySelector('[data-id=p01] .title').textContent") == HOSTILE
    page.click("[data-id=p01] .open")
    page.wait_for("document.querySelector('dialog[open] dl:not([aria-busy])')")
    assert page.evaluate("document.getElementById('details-title').textContent") == HOSTILE
    assert page.evaluate("document.querySelectorAll('[onerror], main script, dialog script').length") == 0
    assert page.evaluate("document.title") == f"{HOSTILE} \N{EN DASH} Product search"
