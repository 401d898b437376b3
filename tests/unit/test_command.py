"""A command ends with a code, and a failure with one line on stderr."""

from __future__ import annotations

import errno
import logging
import os
import signal
from dataclasses import dataclass

import pytest

from product_retrieval.command import LogLevel, run
from product_retrieval.errors import (
    ArtifactError,
    CatalogError,
    ClusterError,
    EncoderError,
    OptionsError,
    RetrievalError,
)

pytestmark = pytest.mark.usefixtures("process_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of a command that is only a test."""

    num: int = 1
    """A number."""
    log_level: LogLevel = "warning"
    """How much is logged."""

    def __post_init__(self) -> None:
        if self.num < 1:
            raise ValueError(f"--num must be at least 1, not {self.num}")


def run_raising(error: BaseException | None, *words: str) -> int:
    """Run a command that raises an error, or nothing."""

    def command(_options: Options) -> None:
        if error is not None:
            raise error

    return run(command, Options, program="prog", description="A test.", argv=list(words))


def test_success_is_zero_and_silent(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(None) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (OptionsError("no such thing"), 2, "no such thing"),
        (CatalogError("a.csv: broken", path="a.csv"), 3, "a.csv: broken"),
        (ArtifactError("index: damaged"), 4, "index: damaged"),
        (EncoderError("no model"), 5, "no model"),
        (ClusterError("no Ray"), 1, "no Ray"),
        (RetrievalError("else"), 1, "else"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to finish the rest"),
        (OSError(errno.EACCES, "Permission denied", "/out/a"), 1, "/out/a: Permission denied"),
        (
            OSError(errno.ENOSPC, "No space left", "/out/a"),
            1,
            "/out/a: no space left on the device; free some and run the same command again to finish the rest",
        ),
        (ValueError("odd"), 1, "ValueError: odd (--log-level debug shows the traceback)"),
        (MemoryError(), 1, "MemoryError (--log-level debug shows the traceback)"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_failure_is_a_code_and_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, exit_code: int, line: str
) -> None:
    assert run_raising(error) == exit_code
    assert capsys.readouterr() == ("", f"prog: error: {line}\n")


@pytest.mark.parametrize(
    "error",
    [ValueError("first\nsecond\n"), CatalogError("a\nb.csv: broken"), OSError(errno.ENOENT, "No such file", "a\nb")],
    ids=lambda error: type(error).__name__,
)
def test_message_of_several_lines_becomes_one(capsys: pytest.CaptureFixture[str], error: Exception) -> None:
    run_raising(error)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("words", [["--num", "0"], ["--num", "x"], ["--nothing"], ["--config", "nowhere.yaml"]])
def test_wrong_options_are_code_two_and_one_line(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert run_raising(AssertionError("must not run"), *words) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("prog: error: ")
    assert shown.err.count("\n") == 1


def test_help_ends_with_code_zero(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_raising(AssertionError("must not run"), "--help")
    assert stopped.value.code == 0
    assert "--num" in capsys.readouterr().out


def test_debug_shows_the_traceback_before_the_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_raising(ValueError("odd"), "--log-level", "debug") == 1
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-1] == "prog: error: ValueError: odd"


def test_termination_is_an_interruption(capsys: pytest.CaptureFixture[str]) -> None:
    def command(_options: Options) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 5)  # the handler raises before this returns

    assert run(command, Options, program="prog", description="", argv=[]) == 130
    assert capsys.readouterr().err == "prog: error: interrupted; run the same command again to finish the rest\n"


@pytest.mark.parametrize(("level", "shown"), [("warning", ["loud"]), ("info", ["quiet", "loud"])])
def test_log_level_is_that_of_this_project_and_others_only_warn(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    def command(_options: Options) -> None:
        logging.getLogger("product_retrieval.test").info("quiet")
        logging.getLogger("product_retrieval.test").warning("loud")
        logging.getLogger("somebody.else").info("chatter")

    run(command, Options, program="prog", description="", argv=["--log-level", level])
    assert [line.split()[-1] for line in capsys.readouterr().err.splitlines()] == shown
