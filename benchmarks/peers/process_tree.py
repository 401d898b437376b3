"""Runs a command and adds up the CPU time of every process that it starts, directly or not.

Linux only: CPU times come from /proc, and orphans (Ray's daemons, loader processes) become children of this process, so
that none of them is lost.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SET_CHILD_SUBREAPER = 36
"""Source: Linux, include/uapi/linux/prctl.h."""
SAMPLE_S = 0.1
LEFT_BEHIND_S = 20.0
"""How long processes may outlive the command before they are ended."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PARENT, USER_TICKS, SYSTEM_TICKS = 1, 11, 12
"""Positions in /proc/PID/stat after the command's name. Source: proc(5)."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a command took."""

    wall_s: float
    """Until the command itself had ended."""
    cpu_s: float
    """User and system time of the whole tree, those of processes that outlived the command included."""
    num_processes: int
    """That were seen at least once."""


def measure(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, timeout_s: float) -> Usage:
    """Run a command to its end.

    CPU time is sampled every 0.1 s and the last value of each process is kept. What a process uses after its last
    sample is lost, at most 0.1 s on one core for each process that ends, and processes shorter than that.

    Args:
        command: program and arguments.
        env: its environment.
        cwd: folder it runs in.
        log: file for its output.
        timeout_s: after that, its processes are killed.

    Raises:
        RuntimeError: it failed or did not end in time.
    """
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    started = time.perf_counter()
    ticks: dict[int, int] = {}
    ended_at: float | None = None
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=output, stderr=subprocess.STDOUT)
        while True:
            living = descendants(os.getpid())
            ticks.update(living)
            reap_orphans(process.pid, living)
            now = time.perf_counter()
            if ended_at is None and process.poll() is not None:
                ended_at = now
            if ended_at is not None and not living:
                break
            if now - started > timeout_s or (ended_at is not None and now - ended_at > LEFT_BEHIND_S):
                kill(living)
            time.sleep(SAMPLE_S)
    if process.returncode:
        tail = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{tail}")
    return Usage(ended_at - started, sum(ticks.values()) / TICKS_PER_S, len(ticks))


def descendants(root: int) -> dict[int, int]:
    """Return user and system ticks of each process below one, by process id; zombies that await their parent too."""
    children: dict[int, list[int]] = defaultdict(list)
    ticks: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            stat = Path(entry.path, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = stat[stat.rindex(")") + 1 :].split()
        pid = int(entry.name)
        children[int(fields[PARENT])].append(pid)
        ticks[pid] = int(fields[USER_TICKS]) + int(fields[SYSTEM_TICKS])
    below, todo = {}, list(children[root])
    while todo:
        pid = todo.pop()
        below[pid] = ticks[pid]
        todo += children[pid]
    return below


def reap_orphans(command: int, living: Mapping[int, int]) -> None:
    """Take the exit status of adopted processes that ended, so that they go away; the command's own is left."""
    for pid in living:
        if pid != command:
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # its parent lives and will do so
                continue


def kill(pids: Mapping[int, int]) -> None:
    """Kill processes that may have ended already."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
