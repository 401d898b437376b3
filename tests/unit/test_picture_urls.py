"""What the URL of a picture may be: read as a browser reads it, of an allowed host, at a public address."""

from __future__ import annotations

import pickle
import random
import re
from pathlib import Path
from typing import get_args

import pytest

from product_retrieval.catalog import fetch_errors
from product_retrieval.catalog.addresses import canonical_address, why_refused
from product_retrieval.catalog.fetch_errors import FetchError, FetchReason
from product_retrieval.catalog.fetch_options import FetchOptions
from product_retrieval.catalog.picture_urls import HostEntry, follow, is_url, parse_url
from product_retrieval.errors import OptionsError
from product_retrieval.options import parse


def spelled(url: str) -> str:
    """Return a URL in the one spelling that is asked for."""
    parsed = parse_url(url)
    return f"{parsed.scheme}://{parsed.authority}{parsed.target}"


def reason_of(url: str) -> str:
    with pytest.raises(FetchError) as caught:
        parse_url(url)
    return caught.value.reason


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("http://shop.example", "http://shop.example/"),
        ("HTTPS://Img.SHOP.example/A.jpg", "https://img.shop.example/A.jpg"),
        ("https://shop.example./a.jpg", "https://shop.example/a.jpg"),
        ("https://shop.example:443/a.jpg", "https://shop.example/a.jpg"),
        ("http://shop.example:/a.jpg", "http://shop.example/a.jpg"),
        ("http://shop.example:8080/a.jpg", "http://shop.example:8080/a.jpg"),
        ("  http://shop.example/a.jpg\n", "http://shop.example/a.jpg"),
        ("http://shop.example/a\t\n.jpg", "http://shop.example/a.jpg"),
        ("http://shop.example/Bild 1.jpg", "http://shop.example/Bild%201.jpg"),
        ("http://shop.example/Bild%201.jpg", "http://shop.example/Bild%201.jpg"),
        ("http://shop.example/100%.jpg", "http://shop.example/100%.jpg"),
        ("http://shop.example/größe.jpg", "http://shop.example/gr%C3%B6%C3%9Fe.jpg"),
        ("http://shop.example/猫.jpg?q=ä b#top", "http://shop.example/%E7%8C%AB.jpg?q=%C3%A4%20b"),
        ("http://shop.example/a.jpg?u=http://x/?y#z", "http://shop.example/a.jpg?u=http://x/?y"),
        ("http://shop.example?w=100", "http://shop.example/?w=100"),
        ("http://shop.example/a/../b/./c.jpg", "http://shop.example/b/c.jpg"),
        ("http://shop.example/../../etc/passwd", "http://shop.example/etc/passwd"),
        ("http://shop.example/a/%2E%2e/b.jpg", "http://shop.example/b.jpg"),
        ("http://shop.example\\a\\b.jpg", "http://shop.example/a/b.jpg"),
        ("http://shop.example//a//b.jpg", "http://shop.example//a//b.jpg"),
        ("http://img_1.shop.example/a.jpg", "http://img_1.shop.example/a.jpg"),
        ("http://bücher.example/a.jpg", "http://xn--bcher-kva.example/a.jpg"),
        ("http://BÜCHER.example/a.jpg", "http://xn--bcher-kva.example/a.jpg"),
        ("http://b%C3%BCcher.example/", "http://xn--bcher-kva.example/"),
        ("http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/"),
        ("http://shop。example/", "http://shop.example/"),
        ("http://ex%61mple.example/", "http://example.example/"),
        ("http://[2606:4700::0:1111]/a.jpg", "http://[2606:4700::1111]/a.jpg"),
        ("http://[2606:4700::1111]:8080/", "http://[2606:4700::1111]:8080/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://\uff11\uff12\uff17.0.0.1/", "http://127.0.0.1/"),
    ],
)
def test_url_is_read_as_a_browser_reads_it(written: str, asked: str) -> None:
    assert spelled(written) == asked
    assert spelled(asked) == asked


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///a.jpg",
        "http:a.jpg",
        "https:/shop.example/a.jpg",
        "http://?a",
        "http://.",
        "http://a..b/",
        "http://shop example/",
        "http://shop.example:0/",
        "http://shop.example:65536/",
        "http://shop.example:http/",
        "http://shop.example:-1/",
        "http://shop.example\0.evil.example/",
        "http://shop.example%00.evil.example/",
        "http://shop.example%2f.evil.example/",
        "http://" + "a" * 64 + ".example/",
        "http://" + "a." * 127 + "example/",
        "http://\u00ad/",
        "http://1.2.3.4.5/",
        "http://256.1.1.1/",
        "http://08.1.1.1/",
        "http://4294967296/",
        "http://shop.1/",
        "http://::1/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://[::1].evil.example/",
        "http://[shop.example]/",
        "http://shop.example/" + "a" * 8192,
    ],
)
def test_url_without_a_possible_host_is_malformed(url: str) -> None:
    assert reason_of(url) == "image_url_malformed"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://shop.example/a.jpg",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "//shop.example/a.jpg",
        "",
        "http://user@shop.example/",
        "http://user:secret@shop.example/",
        "http://shop.example@127.0.0.1/",
        "http://@shop.example/",
    ],
)
def test_other_schemes_and_user_names_are_not_allowed(url: str) -> None:
    assert reason_of(url) == "image_url_not_allowed"


def test_password_in_a_url_is_in_no_message() -> None:
    with pytest.raises(FetchError) as caught:
        parse_url("http://user:secret@shop.example/a.jpg")
    assert "secret" not in caught.value.detail


def test_host_ends_where_a_browser_ends_it() -> None:
    assert parse_url("http://shop.example\\@evil.example/").host == "shop.example"
    assert parse_url("http://shop.example/@evil.example/").host == "shop.example"
    assert parse_url("http://shop.example#@evil.example/").host == "shop.example"


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"/b.jpg", "https://shop.example/b.jpg"),
        (b"b.jpg", "https://shop.example/x/b.jpg"),
        (b"?w=1", "https://shop.example/x/a.jpg?w=1"),
        (b"//cdn.example/b.jpg", "https://cdn.example/b.jpg"),
        (b"\\\\cdn.example\\b.jpg", "https://cdn.example/b.jpg"),
        (b"http://cdn.example/b.jpg", "http://cdn.example/b.jpg"),
        (b" ../b c.jpg ", "https://shop.example/b%20c.jpg"),
        ("/größe.jpg".encode(), "https://shop.example/gr%C3%B6%C3%9Fe.jpg"),
        ("/größe.jpg".encode("latin-1"), "https://shop.example/gr%F6%DFe.jpg"),
    ],
)
def test_redirect_leads_where_a_browser_would_go(location: bytes, asked: str) -> None:
    target = follow(parse_url("https://shop.example/x/a.jpg?w=9"), location)
    assert f"{target.scheme}://{target.authority}{target.target}" == asked


def test_any_text_is_a_url_in_printable_ascii_or_a_reason() -> None:
    pieces = [
        "http:",
        "//",
        "\\",
        "shop",
        ".",
        "@",
        ":",
        "80",
        "[",
        "]",
        "%",
        "2e",
        "ä",
        "。",
        "?",
        "#",
        " ",
        "\0",
        "\r\n",
    ]
    pieces += ["\ud800", "\u202e", "xn--", "0x", "*", "-", "1", "/", "..", "İ", "ß", "\U0001f600"]
    chance = random.Random(0)
    num_urls = 0
    for _ in range(5000):
        text = "http://" + "".join(chance.choices(pieces, k=chance.randrange(8)))
        try:
            url = parse_url(text)
        except FetchError:
            continue
        num_urls += 1
        assert re.fullmatch(r"[!-~]+", url.authority + url.target), text
        assert parse_url(f"http://{url.authority}{url.target}") == url, text
    assert num_urls > 100


@pytest.mark.parametrize(
    ("reference", "is_one"),
    [("http://a/b", True), (" HTTPS://a/b", True), ("a/http://b", False), ("s3://a/b", False), ("", False)],
)
def test_only_http_references_are_urls(reference: str, is_one: bool) -> None:
    assert is_url(reference) is is_one


# Addresses


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "172.32.0.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public_address_is_allowed(address: str) -> None:
    assert why_refused(address, private_is_allowed=False) is None


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "::1",
        "fc00::1",
        "fdff::1",
        "64:ff9b::10.0.0.1",
    ],
)
def test_private_address_is_for_private_hosts_only(address: str) -> None:
    assert why_refused(address, private_is_allowed=False) is not None
    assert why_refused(address, private_is_allowed=True) is None


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "169.254.169.254",
        "169.254.0.1",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "::127.0.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::",
        "3fff::1",
        "5f00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fd00:ec2::254",
        "ff02::1",
    ],
)
@pytest.mark.parametrize("private_is_allowed", [False, True])
def test_other_special_addresses_are_never_allowed(address: str, private_is_allowed: bool) -> None:
    assert why_refused(address, private_is_allowed=private_is_allowed) is not None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f000001",
        "0x7f.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
    ],
)
def test_every_spelling_of_an_address_is_that_address(host: str) -> None:
    assert canonical_address(host) == "127.0.0.1"


@pytest.mark.parametrize("host", ["shop.example", "127.0.0.1.example", "0x7f.example", "1e100.net", "0xg"])
def test_name_is_no_address(host: str) -> None:
    assert canonical_address(host) is None


# Allowed hosts


@pytest.mark.parametrize(
    ("entry", "url", "is_allowed"),
    [
        ("shop.example", "http://shop.example/", True),
        ("shop.example", "https://shop.example/", True),
        ("Shop.EXAMPLE.", "https://shop.example./", True),
        ("bücher.example", "https://xn--bcher-kva.example/", True),
        ("shop.example", "https://img.shop.example/", False),
        ("shop.example", "https://shop.example.evil.example/", False),
        ("shop.example", "https://evilshop.example/", False),
        ("shop.example", "https://shop.example:8080/", False),
        ("shop.example", "https://shop.example:80/", False),
        ("shop.example:8080", "http://shop.example:8080/", True),
        ("shop.example:8080", "http://shop.example/", False),
        ("*.shop.example", "https://img.shop.example/", True),
        ("*.shop.example", "https://a.b.shop.example/", True),
        ("*.shop.example", "https://shop.example/", False),
        ("*.shop.example", "https://evilshop.example/", False),
        ("*.shop.example:8080", "http://img.shop.example:8080/", True),
        ("8.8.8.8", "http://134744072/", True),
        ("[2606:4700::1111]:8080", "http://[2606:4700:0::1111]:8080/", True),
        ("*", "https://any.example/", True),
        ("*", "https://any.example:22/", False),
    ],
)
def test_entry_allows_its_hosts_on_its_port(entry: str, url: str, is_allowed: bool) -> None:
    assert HostEntry.parse(entry).matches(parse_url(url)) is is_allowed


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "*.",
        "*.*",
        "a*.example",
        "https://shop.example",
        "shop.example/",
        "u@shop.example",
        "a b",
        "::1",
        "a:b",
        "a:0",
    ],
)
def test_entry_that_is_no_host_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match=r"--fetch\.allowed-hosts"):
        FetchOptions(allowed_hosts=(entry,))


def test_private_host_must_be_an_allowed_one() -> None:
    with pytest.raises(ValueError, match=r"'cdn.internal' is not among --fetch.allowed-hosts"):
        FetchOptions(allowed_hosts=("shop.example",), private_hosts=("cdn.internal",))


def test_all_hosts_cannot_be_private() -> None:
    with pytest.raises(ValueError, match="would open the whole network"):
        FetchOptions(allowed_hosts=("*",), private_hosts=("*",))


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"max_bytes": 0}, {"num_retries": -1}, {"per_host": 0}]
)
def test_bound_that_bounds_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"--fetch\."):
        FetchOptions(**wrong)  # type: ignore[arg-type]


def test_every_reason_is_explained_in_the_code_and_to_users() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "picture-urls.md").read_text(encoding="utf-8")
    reasons = set(get_args(FetchReason))
    assert set(re.findall(r"^\| `(image_\w+)` \|", page, re.M)) == reasons
    assert set(re.findall(r"^- (image_\w+):", Path(fetch_errors.__file__).read_text(encoding="utf-8"), re.M)) == reasons


def test_failure_survives_pickle() -> None:
    again = pickle.loads(
        pickle.dumps(FetchError("image_server_error", "x: HTTP 503", may_pass=True, retry_after_s=3.0))
    )
    assert (again.reason, again.detail, again.may_pass, again.retry_after_s) == (
        "image_server_error",
        "x: HTTP 503",
        True,
        3.0,
    )


def test_hosts_are_given_by_flags() -> None:
    words = ["--allowed-hosts", "shop.example", "*.cdn.example", "--timeout-s", "5"]
    options = parse(FetchOptions, words, program="fetch", description="")
    assert options == FetchOptions(allowed_hosts=("shop.example", "*.cdn.example"), timeout_s=5.0)
    with pytest.raises(OptionsError, match="is not a host"):
        parse(FetchOptions, ["--allowed-hosts", "https://shop.example"], program="fetch", description="")
