"""What every command shares: logging, exit codes, and one clear line for a failure."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from product_retrieval import options as option_parser
from product_retrieval.errors import RetrievalError

LogLevel = Literal["debug", "info", "warning", "error"]
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what shells report for Ctrl-C

logger = logging.getLogger(__name__)


class CommandOptions(Protocol):
    """What run() asks of the options of a command."""

    @property
    def log_level(self) -> LogLevel:
        """How much is logged to stderr."""


OptionsT = TypeVar("OptionsT", bound=CommandOptions)


def run(
    command: Callable[[OptionsT], None],
    options_type: type[OptionsT],
    *,
    program: str,
    description: str,
    argv: list[str] | None = None,
) -> int:
    """Parse the options, run the command, and turn its failures into one line on stderr and an exit code.

    Args:
        command: does the work; raises RetrievalError for what its user can mend.
        options_type: dataclass of the command's options.
        program: what the usage line calls the command.
        description: the text above the flags in `--help`.
        argv: command-line words; None reads `sys.argv`.

    Returns:
        0 done, 2 options, 3 catalogue, 4 artefact, 5 encoder, 130 interrupted, 1 anything else.
    """
    is_debug = False
    try:
        options = option_parser.parse(
            options_type, sys.argv[1:] if argv is None else argv, program=program, description=description
        )
        is_debug = options.log_level == "debug"
        configure_logging(options.log_level)
        interrupt_on_sigterm()
        command(options)
    except RetrievalError as error:
        return _fail(program, str(error), error.exit_code, is_debug=is_debug)
    except KeyboardInterrupt:
        return _fail(program, "interrupted; run the same command again to finish the rest", EXIT_INTERRUPTED)
    except OSError as error:
        return _fail(program, _explain_os_error(error), 1, is_debug=is_debug)
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is, its user gets one line and a code
        cause = ": ".join(filter(None, (type(error).__name__, str(error))))
        hint = "" if is_debug else " (--log-level debug shows the traceback)"
        return _fail(program, f"{cause}{hint}", 1, is_debug=is_debug)
    return 0


def configure_logging(level: LogLevel) -> None:
    """Send the log to stderr, one line an event; the libraries underneath only warn."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    for package in ("product_retrieval", "rayjobs", "serve", "eval", "__main__"):
        logging.getLogger(package).setLevel(level.upper())


def _fail(program: str, message: str, exit_code: int, *, is_debug: bool = False) -> int:
    if is_debug:
        logger.exception("%s failed", program)
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")
    return exit_code


def _explain_os_error(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"{where}no space left on the device; free some and run the same command again to finish the rest"
    return f"{where}{error.strerror or error}"


def interrupt_on_sigterm() -> None:
    """Let SIGTERM end a command as Ctrl-C does; called again after Ray has put its own handler there."""
    signal.signal(signal.SIGTERM, _raise_interrupt)


def _raise_interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
