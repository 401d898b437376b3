"""API keys: who may ask. The service knows only their hashes.

    python -m serve.keys new --name warehouse     # prints a fresh key, once, and the line for the file
    python -m serve.keys hash --name warehouse    # reads a key of your own from stdin and prints its line

A file of keys has a line for each, `sha256:HEX` or `NAME:sha256:HEX`; empty lines and comments (#) are skipped.
The environment variable MPR_API_KEYS_SHA256 holds the same lines, separated by commas. Exit codes: 0 done, 2 options.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import hmac
import logging
import os
import re
import secrets
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from product_retrieval.errors import OptionsError

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log

ENVIRONMENT = "MPR_API_KEYS_SHA256"
KEY_BYTES = 32
"""Of randomness in a fresh key; base64 makes 43 characters of them."""
MIN_KEY_CHARS = 20
"""A key of one's own must be as long: with a single fast hash, a short one could be guessed from the file."""
RELOAD_PERIOD_S = 1.0
LINE = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,64}):)?sha256:(?P<digest>[0-9a-fA-F]{64})")
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
FileState = tuple[int, int, int]
"""Time of change in nanoseconds, inode and size: a replaced file differs in one of them."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that may ask, without the key."""

    name: str
    """For the access log."""
    digest: bytes
    """SHA-256 [32] of the key's UTF-8 bytes."""


class KeyRing:
    """The keys that may ask; follows its file."""

    def __init__(self, file: str | None, inline: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        """Read the keys.

        Args:
            file: path of a file of keys.
            inline: further lines, separated by commas.
            clock: seconds that only grow.

        Raises:
            OptionsError: the file cannot be read or holds no key, or a line is not the hash of one.
        """
        self._file = file
        self._clock = clock
        self._inline = parse_lines(inline.split(","), source=ENVIRONMENT)
        # The state comes before the reading: a change in between is then seen at the next look.
        self._seen = None if file is None else _state(file)
        self._keys = self._inline if file is None else (*self._inline, *read_file(file))
        self._next_look_s = clock() + RELOAD_PERIOD_S

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> str | None:
        """Return the name of a key, None for one that may not ask.

        Keys are random, so one SHA-256 is enough to keep the file harmless: there is no dictionary to try, and a slow
        hash, made for passwords, would only cost every request its time. Every hash is compared, each in constant time.
        """
        self.follow_file()
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known in self._keys:
            if hmac.compare_digest(known.digest, digest):
                found = known.name
        return found

    def follow_file(self) -> None:
        """Read the file again if it has changed, looking at most once a second; a broken one changes no key."""
        if self._file is None or self._clock() < self._next_look_s:
            return
        self._next_look_s = self._clock() + RELOAD_PERIOD_S
        state = _state(self._file)
        if state == self._seen:
            return
        self._seen = state
        try:
            keys = read_file(self._file)
        except OptionsError as error:
            logger.error("keys_not_reloaded the old keys stay: %s", error)
            return
        self._keys = (*self._inline, *keys)
        logger.info("keys_reloaded num_keys=%d", len(self._keys))


def read_file(path: str) -> tuple[ApiKey, ...]:
    """Return the keys of a file.

    Raises:
        OptionsError: it cannot be read, holds no key, or a line is not the hash of one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            keys = parse_lines(file, source=path)
    except (OSError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: the file of API keys cannot be read: {error}") from error
    if not keys:
        raise OptionsError(f"{path}: holds no API key; make one with: python -m serve.keys new --name NAME")
    return keys


def parse_lines(lines: Iterable[str], *, source: str) -> tuple[ApiKey, ...]:
    """Return the keys that lines name.

    Args:
        lines: each `sha256:HEX`, `NAME:sha256:HEX`, empty, or a comment.
        source: where they are from, for the message.

    Raises:
        OptionsError: a line is none of these; the message does not repeat it, since it may be a key.
    """
    keys = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        found = LINE.fullmatch(text)
        if found is None:
            raise OptionsError(
                f"{source}: entry {number} is neither sha256:HEX nor NAME:sha256:HEX with 64 hex digits; "
                "if it is a key itself, remove it and put there what this prints: python -m serve.keys hash --name NAME"
            )
        digest = found["digest"].lower()
        keys.append(ApiKey(found["name"] or f"key-{digest[:8]}", bytes.fromhex(digest)))
    return tuple(keys)


def line_of(key: str, name: str) -> str:
    """Return the line that lets a key ask.

    Raises:
        OptionsError: the key is short, or the name is none that a line can hold.
    """
    if not NAME.fullmatch(name) or name == "sha256":
        raise OptionsError(f"--name {name!r}: use 1 to 64 of A-Z a-z 0-9 . _ -, and not the word sha256")
    if len(key) < MIN_KEY_CHARS or not key.isascii() or not key.isprintable() or " " in key:
        raise OptionsError(f"a key is at least {MIN_KEY_CHARS} printable ASCII characters without a space")
    return f"{name}:sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def _state(path: str) -> FileState | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def main(argv: Sequence[str] | None = None) -> int:
    """Make a key, or the line of one."""
    parser = argparse.ArgumentParser(prog="python -m serve.keys", description="Makes API keys for the service.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command, what in (("new", "print a fresh key and its line"), ("hash", "print the line of a key on stdin")):
        commands.add_parser(command, help=what).add_argument("--name", required=True, help="for the access log")
    given = parser.parse_args(argv)
    try:
        if given.command == "hash":
            key = getpass.getpass("key: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
            print(line_of(key, given.name))
        else:
            key = secrets.token_urlsafe(KEY_BYTES)
            line = line_of(key, given.name)
            print(f"key, for the one who asks; it is shown only here:\n{key}\nline, for the file of keys:\n{line}")
    except OptionsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
