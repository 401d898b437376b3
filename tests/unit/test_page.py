"""The page as it is sent: one document, and a policy that fits exactly it."""

import base64
import hashlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from serve import page as page_module
from serve.page import WEB, page_document, page_response


class Blocks(HTMLParser):
    """What a parser of HTML, not our own pattern, takes for scripts, styles and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.open = ""
        self.text: dict[str, list[str]] = {"script": [], "style": []}
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        if tag in self.text:
            self.open = tag
            self.text[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = "" if tag == self.open else self.open

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open][-1] += data


def parsed() -> Blocks:
    blocks = Blocks()
    blocks.feed(bytes(page_response().body).decode())
    return blocks


@pytest.mark.parametrize(("tag", "ending", "number"), [("script", "js", 7), ("style", "css", 1)])
def test_every_part_is_in_the_page_and_the_policy_names_exactly_these(tag: str, ending: str, number: int) -> None:
    policy = page_response().headers["content-security-policy"]
    allowed = next(rule for rule in policy.split("; ") if rule.startswith(f"{tag}-src ")).split()[1:]
    blocks = parsed().text[tag]
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    assert allowed == [f"'sha256-{digest}'" for digest in digests]
    assert sorted(blocks) == sorted("\n" + file.read_text(encoding="utf-8") for file in WEB.glob(f"*.{ending}"))
    assert len(blocks) == number


def test_the_policy_allows_nothing_else() -> None:
    policy = page_response().headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert "img-src 'self' blob: data:; connect-src 'self'" in policy


def test_no_attribute_runs_or_styles_or_loads_from_elsewhere() -> None:
    attributes = parsed().attributes
    assert [name for name, _ in attributes if name == "style" or name.startswith("on")] == []
    loaded = {value for name, value in attributes if name in ("src", "href") and not (value or "").startswith("#")}
    assert loaded == {"data:,", "./"}


def test_a_part_that_would_end_its_block_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index.html").write_text('<script src="main.js"></script>', encoding="utf-8")
    (tmp_path / "main.js").write_text('const end = "</SCRIPT>";', encoding="utf-8")
    monkeypatch.setattr(page_module, "WEB", tmp_path)
    with pytest.raises(ValueError, match=r"main\.js: holds a tag"):
        page_document()
