"""A place to die: lets a test kill a process at a named point. Without its environment variable it does nothing.

    PRODUCT_RETRIEVAL_FAULT='staged data/part-000003@/tmp/marks@2'

kills, with SIGKILL, the first two processes that reach a point whose name contains the text; /tmp/marks is a folder
that counts them across processes and machines of a test.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "PRODUCT_RETRIEVAL_FAULT"


def fault_point(name: str) -> None:
    """Die here if the environment says so.

    Args:
        name: what is about to happen, or just has, such as `published data/part-000003.parquet`.
    """
    fault = os.environ.get(VARIABLE)
    if not fault:
        return
    wanted, folder, times = fault.split("@")
    if wanted not in name:
        return
    for number in range(int(times)):
        try:
            (Path(folder) / f"killed-{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
