"""Watches a command from beside it: the memory of all its processes, and when its files appear.

Linux only: memory comes from /proc.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from benchmarks.peers.process_tree import descendants

INTERVAL_S = 0.25


class TreeWatch:
    """While in its context, samples the processes below this one and the files below a folder.

    Memory is the sum of proportional set sizes, in which a page that several processes share counts once. What lives
    between two samples, a quarter of a second apart, is not seen.
    """

    def __init__(self, folder: Path) -> None:
        self.peak_bytes = 0
        """Of all processes together."""
        self.largest_process_bytes = 0
        """Highest resident memory of any one of them."""
        self._folder = folder
        self._started = time.perf_counter()
        self._seen: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def files(self) -> Mapping[str, float]:
        """When each file was first seen, in seconds since the start, by its path below the folder."""
        return dict(self._seen)

    def __enter__(self) -> TreeWatch:
        self._started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._look_at_files()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._look_at_files()
            sizes = [_memory(pid) for pid in descendants(os.getpid())]
            self.peak_bytes = max(self.peak_bytes, sum(pss for pss, _ in sizes))
            self.largest_process_bytes = max([self.largest_process_bytes, *(highest for _, highest in sizes)])

    def _look_at_files(self) -> None:
        now = time.perf_counter() - self._started
        for folder, _, names in os.walk(self._folder):  # what is gone again meanwhile is no error here
            below = os.path.relpath(folder, self._folder)
            if not below.startswith(".") or below == ".":
                for name in names:
                    self._seen.setdefault(os.path.normpath(os.path.join(below, name)), now)


def _memory(pid: int) -> tuple[int, int]:
    """Return a process's proportional set size and its highest resident memory in bytes; zeros if it is gone."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    if "Pss:" not in rollup or "VmHWM:" not in status:  # a zombie
        return 0, 0
    return _kibibytes(rollup, "Pss:") << 10, _kibibytes(status, "VmHWM:") << 10


def _kibibytes(text: str, name: str) -> int:
    return int(text.split(name)[1].split()[0])
