"""How far a job is: a bar on a terminal, one line every few seconds elsewhere; and its closing table."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType

LINE_INTERVAL_S = 5.0


class Progress:
    """Counts finished units of a known total; use as a context manager."""

    def __init__(self, label: str, total: int, *, unit: str, done: int = 0) -> None:
        """Start at `done` of `total`; only what is added later counts for the rate."""
        self._label, self._total, self._unit = label, total, unit
        self._done = self._done_before = done
        self._started = self._shown = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._bar = None
        if self._is_terminal:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(label, total=total, completed=done, rate="")

    def __enter__(self) -> Progress:
        """Show the bar."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count finished units and show them when it is time."""
        self._done += count
        now = time.monotonic()
        rate = (self._done - self._done_before) / max(now - self._started, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, rate=f"{rate:,.0f} {self._unit}/s")
        elif now - self._shown >= LINE_INTERVAL_S or self._done == self._total:
            self._shown = now
            left = (self._total - self._done) / rate if rate > 0 else float("inf")
            sys.stderr.write(
                f"{self._label}: {self._done:,} of {self._total:,} {self._unit}, {rate:,.0f} {self._unit}/s, "
                f"{format_duration(left)} left\n"
            )
            sys.stderr.flush()


def format_duration(seconds: float) -> str:
    """Return seconds as people say them: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds == float("inf"):
        return "unknown time"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def format_size(size_bytes: float) -> str:
    """Return a number of bytes as people say it: `512 B`, `3.1 MB`, `2.0 TB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 99.5 else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} TB"


def format_table(rows: Sequence[tuple[str, str]]) -> str:
    """Return `label  value` lines with the values aligned."""
    width = max((len(label) for label, _ in rows), default=0)
    return "\n".join(f"  {label:<{width}}  {value}" for label, value in rows)
