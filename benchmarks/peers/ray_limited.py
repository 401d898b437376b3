"""Runs a job of this repository on so many cores, with as many workers.

    python -m benchmarks.peers.ray_limited 1 rayjobs.build_index --embeddings out/embeddings --output out/index

The job finds Ray running and takes what is there; nothing of it is changed.
"""

from __future__ import annotations

import os
import runpy
import sys


def main() -> None:
    """Start Ray with so many CPUs on so many cores, then the job's module as a program."""
    import ray

    num_cores = int(sys.argv[1])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:num_cores])
    ray.init(address="local", num_cpus=num_cores, include_dashboard=False, log_to_driver=False)
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
