"""How much memory a step of a job needed, and how much the machine has: Linux's own figures."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
MEMORY_INFO = Path("/proc/meminfo")


def machine_bytes() -> int:
    """Return the machine's memory, or what its container may use where that is less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            return min(total, int(Path(name).read_text()))
    return total


def forget_peak() -> None:
    """Let peak_bytes count from here, see proc(5), clear_refs; without the right to, from the process's start."""
    with contextlib.suppress(OSError):
        CLEAR_REFS.write_text("5")


def peak_bytes() -> int:
    """Return the most memory that this process has held, mapped files among it; 0 where the system does not say."""
    with contextlib.suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def available_bytes() -> int | None:
    """Return the memory that can be had without others losing theirs; None where the system does not say."""
    with contextlib.suppress(OSError):
        for line in MEMORY_INFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None
