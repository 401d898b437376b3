"""The page in a real browser, against a stand-in for the service."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.browser import Browser, Page
from tests.e2e.stub_service import StubService

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which("chromium") is None and "CI" not in os.environ, reason="needs chromium; CI has it"),
]

HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
TITLES = "[...document.querySelectorAll('.card .title')].map((title) => title.textContent)"
CHIPS = "[...document.querySelectorAll('.chip')].map((chip) => chip.innerText.replace(/\\s+/g, ' ').trim())"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # The browser's last processes may still write while the folder goes.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile, Browser.start(Path(profile)) as started:
        yield started


@pytest.fixture
def stub(png: Callable[..., bytes]) -> Iterator[StubService]:
    rows = [
        ("mug", "Red mug", "red", True, "g1"),
        ("cup", "Blue cup", "blue", False, "g1"),
        ("jug", "Green jug", "green", True, "g2"),
        ("a/b?%", HOSTILE, "red", False, "g3"),
    ]
    names = ("product_id", "title", "color", "sold", "group_id")
    pictures = {"mug": ("image/png", png((255, 0, 0))), "cup": ("image/png", b"broken")}
    service = StubService([dict(zip(names, row, strict=True)) for row in rows], pictures)
    service.facet_fields, service.examples = ("color", "sold"), ("Green jug",)
    yield service
    service.close()


def wait_for_titles(page: Page, first: str) -> list[str]:
    page.wait_for(f"{TITLES}[0] === {first!r} && !document.querySelector('#hits[aria-busy]')")
    titles: list[str] = page.evaluate(TITLES)
    return titles


def test_typing_searches_after_a_pause_and_enter_at_once(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url)
    page.press("/")
    page.type("blue cup")
    assert wait_for_titles(page, "Blue cup") == ["Blue cup", "Red mug", "Green jug", HOSTILE]
    page.evaluate("document.getElementById('q').select()")
    page.type("green jug")
    page.press("Enter")
    wait_for_titles(page, "Green jug")
    assert [search["text"] for search in stub.searches] == ["blue cup", "green jug"]
    assert page.evaluate("location.search") == "?q=green+jug"
    speed = page.evaluate("document.getElementById('speed').textContent")
    assert speed.startswith("encode 12.3 ms · search 1.5 ms · products 0.3 ms · round trip ")
    assert speed.endswith(" ms · index version 3")
    assert page.evaluate("document.getElementById('summary').textContent") == "4 of 4 products"
    page.evaluate("history.back()")
    wait_for_titles(page, "Blue cup")


def test_an_example_searches_for_itself(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url)
    page.wait_for("document.querySelector('.example')")
    page.click(".example")
    wait_for_titles(page, "Green jug")


def test_a_dropped_picture_is_sent_as_it_is_and_stays_out_of_the_address(
    browser: Browser, stub: StubService, png: Callable[..., bytes]
) -> None:
    page = browser.open(stub.url + "?q=jug&against=both&f.color=red")
    wait_for_titles(page, "Red mug")
    picture = png((0, 0, 255))
    page.drop_file(picture, name="photo.png", media_type="image/png")
    page.wait_for(f"{CHIPS}[0] === 'photo.png'")
    wait_for_titles(page, "Red mug")
    red = {"field": "color", "in": ["red"]}
    assert stub.searches[-1] == {"k": "24", "against": "both", "filter": red, "body": picture}
    assert page.evaluate("location.search") == "?against=both&f.color=red"
    assert "cannot be part of a link" in page.evaluate("document.getElementById('picture-note').innerText")
    assert page.errors == []


def test_a_picture_and_words_become_a_mix(browser: Browser, stub: StubService, png: Callable[..., bytes]) -> None:
    page = browser.open(stub.url)
    page.drop_file(png(), name="photo.png", media_type="image/png")
    wait_for_titles(page, "Red mug")
    page.evaluate("document.getElementById('q').focus()")
    page.type("jug -green")
    page.press("Enter")
    page.wait_for(f"{CHIPS}.length === 2")
    page.wait_for("!document.querySelector('#hits[aria-busy]')")
    texts = [(part.get("text"), part["weight"]) for part in stub.searches[-1]["mix"]]
    assert texts == [("jug", 1), ("green", -0.5), (None, 1)]
    assert stub.searches[-1]["mix"][2]["image"].startswith("iVBORw0KGgo")


def test_more_like_this_more_of_and_less_of(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=red")
    wait_for_titles(page, "Red mug")
    page.click("[data-id=jug] .like")
    assert wait_for_titles(page, "Green jug")[0] == "Green jug"
    assert stub.searches[-1] == {"k": 24, "fields": ["color", "sold"], "product_id": "jug"}
    assert page.evaluate("location.search") == "?like=jug"
    assert page.evaluate(CHIPS) == ["More like Green jug"]
    page.click("[data-id=cup] .plus")
    page.wait_for(f"{CHIPS}.length === 2 && !document.querySelector('#hits[aria-busy]')")
    page.click("[data-id=mug] .minus")
    page.wait_for("location.search === '?like=jug&mix=0.5%3Acup&mix=-0.5%3Amug'")
    wait_for_titles(page, "Green jug")
    assert [(part["product_id"], part["weight"]) for part in stub.searches[-1]["mix"]] == [
        ("jug", 1),
        ("cup", 0.5),
        ("mug", -0.5),
    ]
    assert page.evaluate(CHIPS) == [
        "+ Green jug \N{MULTIPLICATION SIGN}1",
        "+ Blue cup \N{MULTIPLICATION SIGN}0.5",
        "\N{MINUS SIGN} Red mug \N{MULTIPLICATION SIGN}0.5",
    ]
    page.click(".minus-chip .remove")
    page.wait_for("location.search === '?like=jug&mix=0.5%3Acup'")
    page.click(".plus-chip + .plus-chip .sign")
    page.wait_for("location.search === '?like=jug&mix=-0.5%3Acup'")
    assert page.evaluate("document.activeElement.className") == "sign"


def test_filters_and_variants_go_into_request_and_address(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=mug")
    wait_for_titles(page, "Red mug")
    page.click("#filters input[name=color]")
    page.click("#filters input[name=sold]")
    page.click("#collapse input")
    page.wait_for("location.search === '?q=mug&collapse=group_id&f.color=red&f.sold=true'")
    page.wait_for("document.querySelectorAll('.card').length === 1")
    search = stub.searches[-1]
    assert (search["collapse"], search["filter"]) == (
        "group_id",
        {"and": [{"field": "color", "in": ["red"]}, {"field": "sold", "in": [True]}]},
    )
    page.wait_for("document.getElementById('summary').textContent === '1 of 1 product that pass the filters'")


def test_a_hostile_title_is_shown_as_text_and_nothing_leaves_the_origin(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=%3Cscript%3E&like=a/b%3F%25")
    titles = wait_for_titles(page, HOSTILE)
    assert titles[0] == HOSTILE
    page.click(".card .open")
    page.wait_for("document.querySelector('dialog[open] dl:not([aria-busy])')")
    assert page.evaluate("document.getElementById('details-title').textContent") == HOSTILE
    assert page.evaluate("document.querySelectorAll('[onerror], main script, dialog script').length") == 0
    assert page.dialogs == []
    assert page.errors == []
    assert len(page.requests) > 4
    assert [url for url in page.requests if not url.startswith((stub.url, "data:"))] == []


def test_the_policy_stops_what_the_page_would_not_do_itself(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url)
    blocked = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')"
    assert page.evaluate(blocked) == "blocked"
    thrown = "(() => { try { document.body.innerHTML = '<b>x</b>'; return 'done'; } catch (e) { return e.name; } })()"
    assert page.evaluate(thrown) == "TypeError"
    assert any("Content Security Policy" in error for error in page.errors)


def test_a_broken_picture_and_none_at_all_become_a_tile(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=red")
    page.wait_for("document.querySelector('[data-id=cup] .tile') && document.querySelector('[data-id=jug] .tile')")
    page.wait_for("document.querySelector('[data-id=mug] img').naturalWidth === 8")


def test_overload_counts_down_and_tries_again_by_itself(browser: Browser, stub: StubService) -> None:
    stub.num_refusals = 1
    page = browser.open(stub.url + "?q=red")
    page.wait_for("document.querySelector('.busy .seconds')?.textContent.match(/^[12] seconds?$/)")
    assert "The service is busy" in page.evaluate("document.getElementById('live').textContent")
    wait_for_titles(page, "Red mug")
    assert page.evaluate("document.getElementById('message').hidden")
    assert len(stub.searches) == 2


def test_a_key_is_asked_for_and_kept_for_the_tab_only(browser: Browser, stub: StubService) -> None:
    stub.key = "sesame"
    page = browser.open(stub.url + "?q=red")
    page.wait_for("document.querySelector('#key')")
    page.type("wrong")
    page.press("Enter")
    page.wait_for("document.querySelector('.locked .detail')?.textContent === 'The key was not accepted.'")
    page.type("sesame")
    page.press("Enter")
    wait_for_titles(page, "Red mug")
    page.wait_for("document.querySelector('[data-id=mug] img').naturalWidth === 8")
    assert page.evaluate("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    assert not any("sesame" in url for url in page.requests)
    page.click("#forget-key")
    page.wait_for("document.querySelector('#key')")


def test_a_problem_is_shown_with_its_fields_and_request(browser: Browser, stub: StubService) -> None:
    errors = [{"field": "filter.field", "detail": "no such column"}]
    stub.problem = {"status": 422, "detail": "wrong filter", "errors": errors, "request_id": "r77"}
    page = browser.open(stub.url + "?q=red")
    page.wait_for("document.querySelector('.wrong')")
    text = page.evaluate("document.getElementById('message').innerText")
    assert all(word in text for word in ("wrong filter", "filter.field: no such column", "Request r77", "Try again"))


def test_a_late_answer_does_not_replace_a_newer_one(browser: Browser, stub: StubService) -> None:
    stub.delays_s = {"blue": 2}
    page = browser.open(stub.url + "?q=blue")
    page.evaluate("document.getElementById('q').select()")
    page.evaluate("document.getElementById('q').focus()")
    page.type("green")
    page.press("Enter")
    wait_for_titles(page, "Green jug")
    page.evaluate("new Promise((done) => setTimeout(done, 2200))")
    assert page.evaluate(TITLES)[0] == "Green jug"
    assert {search["text"] for search in stub.searches} == {"blue", "green"}


def test_the_keyboard_moves_through_the_products(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=red")
    wait_for_titles(page, "Red mug")
    focused = "document.activeElement.closest('.card')?.dataset.id ?? document.activeElement.id"
    seen = []
    for key in ("/", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown", "Enter"):
        page.press(key)
        seen.append(page.evaluate(focused))
    assert seen[:2] + seen[3:6] == ["q", "mug", "mug", "q", "mug"]
    assert seen[2] not in ("q", "mug")
    page.wait_for("document.getElementById('details').open")
    page.press("Escape")
    page.wait_for("!document.getElementById('details').open")
    page.evaluate("document.querySelector('[data-id=jug] .plus').focus()")
    page.press("Enter")
    page.wait_for("location.search === '?q=red&mix=0.5%3Ajug' && !document.querySelector('#hits[aria-busy]')")
    assert page.evaluate(focused) == "jug"
    page.press("Escape")
    page.press("Escape")
    page.wait_for("document.querySelector('.welcome') && location.search === ''")


def test_more_products_are_shown_on_request(browser: Browser, stub: StubService) -> None:
    stub.products = [dict(stub.products[0], product_id=f"mug {number}") for number in range(60)]
    page = browser.open(stub.url + "?q=red")
    page.wait_for("document.querySelectorAll('.card').length === 24 && !document.getElementById('more').hidden")
    page.evaluate("document.querySelector('.card').isFirst = true")
    page.click("#more")
    page.wait_for("document.querySelectorAll('.card').length === 48")
    assert page.evaluate("document.querySelector('.card').isFirst")
    page.click("#more")
    page.wait_for("document.querySelectorAll('.card').length === 60 && document.getElementById('more').hidden")


def test_a_service_without_info_still_finds(browser: Browser, stub: StubService) -> None:
    stub.has_info = False
    page = browser.open(stub.url + "?q=jug&f.color=green", width=390, height=844)
    assert wait_for_titles(page, "Green jug") == ["Green jug"]
    assert page.evaluate(CHIPS) == ["Color: green"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_nothing_found_offers_to_clear_the_filters(browser: Browser, stub: StubService) -> None:
    page = browser.open(stub.url + "?q=jug&f.color=white")
    page.wait_for("document.querySelector('.nothing button')")
    page.click(".nothing button")
    wait_for_titles(page, "Green jug")
