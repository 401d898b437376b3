"""The service as a process of its own, for the measurements that ask it over HTTP."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://127.0.0.1:8000"
START_S = 180
STOP_S = 120


@contextlib.contextmanager
def service(index: str, *arguments: str) -> Iterator[None]:
    """Run `serve run serve.app:build` on port 8000 for as long as the block lasts.

    Raises:
        SystemExit: it does not become ready; the message is its output.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name("serve")), "run", "serve.app:build", f"index={index}", *arguments],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            if not _becomes_ready(process):
                output.seek(0)
                raise SystemExit(output.read().decode(errors="replace")[-5000:])
            yield
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def _becomes_ready(process: subprocess.Popen[bytes]) -> bool:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with (
            contextlib.suppress(OSError, urllib.error.URLError),
            urllib.request.urlopen(f"{ADDRESS}/readyz", timeout=5),
        ):
            return True
        time.sleep(0.5)
    return False


def circumstances(command: str, *packages: str) -> str:
    """Return the command, date, machine and versions of a measurement, for its page."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({platform.machine()}), Python "
        f"{platform.python_version()}, {versions}."
    )


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of them do not exceed; nan of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1)]
