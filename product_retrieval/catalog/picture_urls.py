"""URLs of pictures, read as a browser reads them, and the hosts that they may name.

A URL is taken apart once, here, and the request is made from the parts: no second parser can see another host in it.

Source: WHATWG URL Standard (host parsing, percent-encode sets).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote, urljoin

from product_retrieval.catalog.addresses import canonical_address
from product_retrieval.catalog.fetch_errors import FetchError

DEFAULT_PORTS = {"http": 80, "https": 443}
MAX_URL_CHARS = 8192
"""Longer ones are not links: servers refuse them from 8 KiB on."""
AFTER_SCHEME = re.compile(r"[/\\]{2}(?P<authority>[^/\\?#]*)(?P<path>[^?#]*)(?P<query>\?[^#]*)?(?:#.*)?")
ABSOLUTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
PORT = re.compile(r"(?P<host>.*?)(?::(?P<port>[0-9]*))?", re.S)
LABEL = re.compile(r"[a-z0-9_-]{1,63}")
PRINTABLE = bytes(range(0x20, 0x7F))
IGNORED = str.maketrans("", "", "\t\n\r")
PATH_SAFE, QUERY_SAFE = "!$%&'()*+,/:;=@[]|~", "!$%&()*+,/:;=?@[\\]^`{|}~"
"""What stays as it is, beside letters, digits and `_.-`; `%` among it, since the URL may be encoded already."""


@dataclass(frozen=True, slots=True)
class PictureUrl:
    """An http or https URL in one spelling."""

    scheme: str
    host: str
    """Lower-case ASCII name without a trailing dot, or a numeric address without brackets."""
    port: int
    target: str
    """Path and query, percent-encoded."""

    @property
    def is_address(self) -> bool:
        """Whether the host is numeric."""
        return canonical_address(f"[{self.host}]" if ":" in self.host else self.host) is not None

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port: the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL for a message, without the query, which may hold a signature."""
        return f"{self.scheme}://{self.authority}{self.target.partition('?')[0]}"[:200]


def is_url(reference: str) -> bool:
    """Return whether a picture's reference is an http or https URL."""
    return reference.lstrip()[:8].lower().startswith(("http://", "https://"))


def parse_url(text: str) -> PictureUrl:
    """Take a URL apart.

    Args:
        text: as a catalogue or a redirect gives it; spaces and letters outside ASCII are encoded.

    Raises:
        FetchError: it is malformed, of another scheme, or holds a user name or password.
    """
    if len(text) > MAX_URL_CHARS:
        raise FetchError("image_url_malformed", f"longer than {MAX_URL_CHARS} characters")
    scheme, _, rest = text.strip().translate(IGNORED).partition(":")
    scheme = scheme.lower()
    if scheme not in DEFAULT_PORTS:
        raise FetchError("image_url_not_allowed", f"{scheme[:20]!r} is not http or https")
    match = AFTER_SCHEME.fullmatch(rest)
    if match is None:
        raise FetchError("image_url_malformed", "no // after the scheme")
    if "@" in match["authority"]:
        raise FetchError("image_url_not_allowed", "a user name or password in it")
    try:
        host, port = parse_host(match["authority"])
    except ValueError as error:
        raise FetchError("image_url_malformed", str(error)[:200]) from error
    path = quote(_without_dots(match["path"].replace("\\", "/")), safe=PATH_SAFE, errors="replace")
    query = quote(match["query"] or "", safe=QUERY_SAFE, errors="replace")
    return PictureUrl(scheme, host, DEFAULT_PORTS[scheme] if port is None else port, path + query)


def parse_host(authority: str) -> tuple[str, int | None]:
    """Return host and port of `host:port` in one spelling.

    Raises:
        ValueError: one of them cannot be.
    """
    match = PORT.fullmatch(authority)
    assert match is not None
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f"no port {port}")
    name = match["host"]
    host = name.lower() if name.startswith("[") else _ascii_name(unquote(name))
    address = canonical_address(host)
    if address is not None:
        return address, port
    labels = host.removesuffix(".").split(".")
    if len(host) > 254 or not all(map(LABEL.fullmatch, labels)):
        raise ValueError(f"no host {name[:80]!r}")
    return ".".join(labels), port


def follow(url: PictureUrl, location: bytes) -> PictureUrl:
    """Return where a redirect leads.

    Args:
        url: that was asked for.
        location: the header's value; relative or absolute, in whatever encoding.

    Raises:
        FetchError: see parse_url.
    """
    text = quote(location.strip(), safe=PRINTABLE)
    if ABSOLUTE.match(text):
        return parse_url(text)
    base = f"{url.scheme}://{url.authority}{url.target}"
    head, mark, tail = text.partition("?")
    return parse_url(urljoin(base, head.replace("\\", "/") + mark + tail))


@dataclass(frozen=True, slots=True)
class HostEntry:
    """A host, or all below one, from the list of those that may be asked."""

    host: str
    """Name or address; empty for every host."""
    port: int | None
    """The only port, or None for the scheme's own."""
    is_parent: bool
    """Whether it stands for the names below it."""

    @classmethod
    def parse(cls, text: str) -> HostEntry:
        """Read `img.shop.example`, `*.cdn.example`, `cdn.internal:8080`, `[2001:db8::1]` or `*`.

        Raises:
            ValueError: it is none of them.
        """
        if text == "*":
            return cls("", None, is_parent=True)
        if any(character in text for character in "/@\\ ") or "*" in text.removeprefix("*."):
            raise ValueError(f"{text!r} is not a host, host:port or *.host")
        host, port = parse_host(text.removeprefix("*."))
        return cls(host, port, is_parent=text.startswith("*."))

    def matches(self, url: PictureUrl) -> bool:
        """Return whether a URL is of this host and port."""
        if url.port != (DEFAULT_PORTS[url.scheme] if self.port is None else self.port):
            return False
        if self.is_parent:
            return not self.host or url.host.endswith(f".{self.host}")
        return url.host == self.host


def _ascii_name(name: str) -> str:
    """Return a name in lower-case ASCII: `xn--bcher-kva.example` of `Bücher.example`."""
    if name.isascii():
        return name.lower()
    import idna

    try:
        mapped = idna.uts46_remap(name, std3_rules=False)
        return ".".join(label if label.isascii() else idna.alabel(label).decode() for label in mapped.split("."))
    except idna.IDNAError as error:
        raise ValueError(f"no host {name[:80]!r}: {error}") from error


def _without_dots(path: str) -> str:
    """Return an absolute path with its `.` and `..` followed."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        plain = segment.lower().replace("%2e", ".")
        if plain == "..":
            kept = kept[:-1]
        elif plain != ".":
            kept.append(segment)
    if segments and segments[-1].lower().replace("%2e", ".") in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
