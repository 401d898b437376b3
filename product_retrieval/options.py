"""Options of a command: one frozen dataclass is the source of its flags, its YAML keys and its defaults."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from product_retrieval.errors import OptionsError

OptionsT = TypeVar("OptionsT")
BOX_DRAWING = " │─╭╮╰╯"
VERBOSE_BEGINNING = re.compile(r"^(?:Value error )?(?:Error parsing [A-Z]\w*: |Error parsing (?=--))")
VERBOSE_END = re.compile(r" Got errors: | Argument helptext: |For full helptext")
"""Around what the parser has to say, its own way of putting it."""


def parse(options_type: type[OptionsT], argv: Sequence[str], *, program: str, description: str) -> OptionsT:
    """Build the options of a command from `--config FILE.yaml` and flags; flags win.

    Args:
        options_type: frozen dataclass whose fields are the flags.
        argv: command-line words without the program's name.
        program: what the usage line calls the command.
        description: the text above the flags in `--help`.

    Returns:
        An instance of `options_type`.

    Raises:
        OptionsError: an option is unknown, missing or wrong, or the YAML file cannot be read.
        SystemExit: code 0, after `--help`.
    """
    import tyro

    words = _spell_config_as_flags(argv)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(options_type, args=words, prog=program, description=description)
    except SystemExit as stop:
        if stop.code:
            raise OptionsError(_one_line(complaint.getvalue())) from stop
        raise


def _one_line(box: str) -> str:
    """Return what the parser drew in a box as one line, without its pointer to the help."""
    lines = [line.strip(BOX_DRAWING).strip() for line in box.splitlines()]
    text = " ".join(line for line in lines if line)
    said = VERBOSE_END.split(VERBOSE_BEGINNING.sub("", text))[0]
    return f"{said.strip().rstrip(':')}; --help lists the options"


def _spell_config_as_flags(words: Sequence[str]) -> list[str]:
    """Replace each `--config FILE` by the flags that the file spells, in front of the typed ones."""
    flags: list[str] = []
    typed: list[str] = []
    remaining = iter(words)
    for word in remaining:
        if word == "--config":
            path = next(remaining, None)
            if path is None:
                raise OptionsError("--config needs the path of a YAML file")
            flags += _read_flags(Path(path))
        elif word.startswith("--config="):
            flags += _read_flags(Path(word.removeprefix("--config=")))
        else:
            typed.append(word)
    return [*flags, *typed]


def _read_flags(path: Path) -> list[str]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionsError(f"--config {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionsError(f"--config {path}: not YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return []
    if not isinstance(tree, Mapping):
        raise OptionsError(f"--config {path}: expected option names with values, found a {type(tree).__name__}")
    return list(_as_flags(tree))


def _as_flags(tree: Mapping[object, object], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if not isinstance(name, str):
            raise OptionsError(
                f"option name {name!r} in the config is read by YAML as a {type(name).__name__}: quote it"
            )
        flag = f"{prefix}{name.replace('_', '-')}"
        if isinstance(value, Mapping):
            yield from _as_flags(value, f"{flag}.")
        elif isinstance(value, bool):
            yield f"--{flag}" if value else f"--{prefix}no-{name.replace('_', '-')}"
        elif isinstance(value, list):
            yield from (f"--{flag}", *map(str, value))
        else:
            yield f"--{flag}={value}"
