"""The page for people, and what a browser lets it do.

The page's parts lie in `serve/web/`: index.html names them as any page names its style sheets and scripts, and here
they become one document, so that one answer brings all of it and nothing is asked for from elsewhere.
"""

import base64
import hashlib
import re
from pathlib import Path

from fastapi.responses import HTMLResponse

WEB = Path(__file__).with_name("web")
LINK = re.compile(r'<link rel="stylesheet" href="(?P<name>[a-z]+\.css)">')
SCRIPT = re.compile(r'<script src="(?P<name>[a-z]+\.js)"></script>')
FIXED_POLICY = (
    "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
"""Trusted Types, with none allowed, make innerHTML and its like throw: a catalogue's text cannot become markup."""


def page_response() -> HTMLResponse:
    """Return the page with a policy that lets it run its own scripts and style and nothing else."""
    page = page_document()
    hashes = f"script-src {_hashes(page, 'script')}; style-src {_hashes(page, 'style')}"
    headers = {
        "Content-Security-Policy": f"default-src 'none'; {hashes}; {FIXED_POLICY}",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-cache",
    }
    return HTMLResponse(page, headers=headers)


def page_document() -> str:
    """Return index.html with the files that it names in their places."""
    page = (WEB / "index.html").read_text(encoding="utf-8")
    page = LINK.sub(lambda link: f"<style>\n{_part(link['name'])}</style>", page)
    return SCRIPT.sub(lambda script: f"<script>\n{_part(script['name'])}</script>", page)


def _part(name: str) -> str:
    """Return a part's text; one that would end its own block or start a comment in it would be another page."""
    text = (WEB / name).read_text(encoding="utf-8")
    if re.search(r"</(script|style)|<!--|<script", text, re.IGNORECASE):
        raise ValueError(f"{WEB / name}: holds a tag or a comment that cannot stand inside a block of the page")
    return text


def _hashes(page: str, tag: str) -> str:
    """Return the sources that a page's own blocks of a tag match (Content Security Policy Level 3, section 2.3.1)."""
    blocks = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks]
    return " ".join(f"'sha256-{digest}'" for digest in digests)
