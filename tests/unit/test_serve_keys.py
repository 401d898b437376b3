"""API keys are kept as hashes, followed in their file, and never printed where they should not be."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ray.serve.config import HTTPOptions

from product_retrieval.errors import OptionsError
from serve.door import is_loopback, listening_host, refuse_open_door
from serve.keys import KeyRing, line_of, main, parse_lines

ROOT = Path(__file__).resolve().parents[2]
RED = "red-0123456789-0123456789"
BLUE = "blue-0123456789-0123456789"


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def replace(file: Path, text: str) -> None:
    other = file.with_suffix(".new")
    other.write_text(text, encoding="utf-8")
    os.replace(other, file)


def test_each_of_several_keys_has_its_name_and_no_other_has_one(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the warehouse\n\n{line_of(RED, 'red')}\r\n", encoding="utf-8")
    ring = KeyRing(str(file), f"sha256:{hashlib.sha256(BLUE.encode()).hexdigest().upper()}, ")
    assert len(ring) == 2
    assert (ring.find(RED), ring.find(BLUE)) == ("red", "key-" + hashlib.sha256(BLUE.encode()).hexdigest()[:8])
    assert [ring.find(key) for key in ("", RED[:-1], RED + "\n", RED.upper(), "sha256", "é", "\udcff")] == [None] * 7


def test_the_hash_itself_opens_nothing() -> None:
    line = line_of(RED, "red")
    ring = KeyRing(None, line)
    assert [ring.find(text) for text in (line, line.split(":", 1)[1], line.rsplit(":", 1)[1])] == [None] * 3


@pytest.mark.parametrize("line", [RED, f"red:{RED}", "sha256:abc", "red:sha256:" + "g" * 64, "a b:sha256:" + "0" * 64])
def test_a_clear_key_in_the_file_is_refused_and_not_repeated(line: str) -> None:
    with pytest.raises(OptionsError, match=r"keys.txt: entry 2 .* python -m serve.keys hash") as caught:
        parse_lines(["# keys", line], source="keys.txt")
    assert RED not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "\xff"], ids=["empty", "comment", "latin-1"])
def test_a_file_without_a_key_does_not_open_the_service(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(OptionsError):
        KeyRing(str(file))
    with pytest.raises(OptionsError, match="cannot be read"):
        KeyRing(str(tmp_path / "none"))


def test_a_changed_file_is_followed_at_most_once_a_second(tmp_path: Path) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line_of(RED, "red"), encoding="utf-8")
    ring = KeyRing(str(file), clock=clock)
    replace(file, line_of(BLUE, "blue"))
    clock.now_s = 0.9
    assert (ring.find(RED), ring.find(BLUE)) == ("red", None)
    clock.now_s = 1.0
    assert (ring.find(RED), ring.find(BLUE)) == (None, "blue")


@pytest.mark.parametrize("broken", [RED, "", None], ids=["clear key", "empty", "gone"])
def test_a_broken_file_keeps_the_old_keys_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str | None
) -> None:
    file, clock = tmp_path / "keys", Clock()
    file.write_text(line_of(RED, "red"), encoding="utf-8")
    ring = KeyRing(str(file), clock=clock)
    file.unlink() if broken is None else replace(file, broken)
    with caplog.at_level(logging.ERROR, logger="ray.serve"):
        for clock.now_s in (1.0, 2.0, 3.0):
            assert ring.find(RED) == "red"
    assert [one.getMessage().split()[0] for one in caplog.records] == ["keys_not_reloaded"]
    assert RED not in caplog.text
    replace(file, line_of(BLUE, "blue"))
    clock.now_s = 4.0
    assert (ring.find(RED), ring.find(BLUE)) == (None, "blue")


def test_a_fresh_key_opens_with_the_line_printed_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--name", "shop"]) == 0
    _, key, _, line = capsys.readouterr().out.splitlines()
    assert KeyRing(None, line).find(key) == "shop"
    assert main(["new", "--name", "shop"]) == 0
    assert capsys.readouterr().out.splitlines()[1] != key


def test_a_key_of_ones_own_is_hashed_from_stdin(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(RED + "\n"))
    assert main(["hash", "--name", "red"]) == 0
    assert capsys.readouterr().out == line_of(RED, "red") + "\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO("secret\n"))
    assert main(["hash", "--name", "red"]) == 2
    assert "at least 20" in capsys.readouterr().err
    assert main(["new", "--name", "a:b"]) == 2


def test_the_command_runs_from_the_root_of_the_repository() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "serve.keys", "new", "--name", "shop"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[3].startswith("shop:sha256:")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "[::1]", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "shop.example", "")),
    ],
)
def test_only_an_address_of_this_machine_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_without_ray_nothing_listens_and_behind_haproxy_everything_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_SERVE_ENABLE_HA_PROXY", raising=False)
    assert listening_host() is None
    refuse_open_door(KeyRing(None), allow_open=False)
    monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    with pytest.raises(OptionsError, match=r"0\.0\.0\.0.* MPR_API_KEYS_SHA256 .*allow_open=true"):
        refuse_open_door(KeyRing(None), allow_open=False)
    refuse_open_door(KeyRing(None), allow_open=True)
    refuse_open_door(KeyRing(None, line_of(RED, "red")), allow_open=False)


def test_serve_listens_on_this_machine_by_default() -> None:
    assert HTTPOptions().host is not None
    assert is_loopback(HTTPOptions().host)
