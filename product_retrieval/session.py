"""A job's connection to Ray: the cluster it was submitted to, or a private one on this machine.

The jobs and the evaluation share this but may not import one another, and the library does not import Ray; so they
hand in the module.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
from collections.abc import Iterator
from typing import Any

from product_retrieval.command import interrupt_on_sigterm
from product_retrieval.errors import ClusterError, RetrievalError

RAISED = re.compile(r"^(?:\w+\.)*(\w+(?:Error|Exception)): (.*)$", re.MULTILINE)
"""The first error in the text of a RayTaskError is the one that started it."""
HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^:/]+):(?P<port>\d+)")
REACHABLE_TIMEOUT_S = 10.0
ERROR_NUMBER = re.compile(r"\[Errno (\d+)\] (.*)")
KEEP_IDLE_WORKERS_MS = 600_000
"""Ray ends a worker that idled for a second where there are more of them than cores. A pipeline of three steps has more
on a small machine, and a new worker imports for a second of CPU what the old one had in memory."""
MIN_LOCAL_CPUS = 2
"""Logical CPUs of a private cluster: an encoder actor and the tasks beside it each need a place."""


@contextlib.contextmanager
def ray_session(ray: Any) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one on this machine; leave it at the end.

    Errors of tasks leave this context as what they were before Ray wrapped them.

    Args:
        ray: the module.

    Raises:
        ClusterError: Ray cannot be reached or started, or fails underneath the job.
    """
    was_connected = ray.is_initialized()
    if not was_connected:
        _connect(ray, os.environ.get("RAY_ADDRESS"))
        interrupt_on_sigterm()
    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise _cause(error) from error
    except ray.exceptions.RayError as error:
        raise ClusterError(f"Ray: {type(error).__name__}: {' '.join(str(error).split())[:500]}") from error
    finally:
        if not was_connected:
            ray.shutdown()


def _connect(ray: Any, address: str | None) -> None:
    is_debug = logging.getLogger("product_retrieval").isEnabledFor(logging.DEBUG)
    try:
        if address:
            _check_reachable(address)
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=is_debug)
        else:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, MIN_LOCAL_CPUS),
                include_dashboard=False,
                _system_config={"idle_worker_killing_time_threshold_ms": KEEP_IDLE_WORKERS_MS},
                logging_level=logging.ERROR,
                log_to_driver=is_debug,
            )
    except Exception as error:  # a node that does not come up in time is a bare Exception in Ray 2.60
        where = f"at RAY_ADDRESS={address}" if address else "on this machine"
        raise ClusterError(f"no Ray {where}: {' '.join(str(error).split())[:300]}") from error


def _check_reachable(address: str) -> None:
    """Try the address of a cluster; Ray itself would try for minutes.

    Raises:
        OSError: nobody listens there.
    """
    if found := HOST_AND_PORT.fullmatch(address):
        socket.create_connection((found["host"], int(found["port"])), timeout=REACHABLE_TIMEOUT_S).close()


def _cause(error: Exception) -> Exception:
    """Return the error that a task raised, out of all that Ray put around it."""
    current: BaseException | None = error
    seen = set()
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, RetrievalError | OSError) and not hasattr(current, "cause"):
            return current
        current = getattr(current, "cause", None) or current.__cause__
    raised = RAISED.search(str(error))
    return _rebuilt(*raised.groups()) if raised else error


def _rebuilt(name: str, message: str) -> Exception:
    """Return an error whose type Ray Data has lost, from its name and message."""
    kinds: list[type[RetrievalError]] = [RetrievalError, *RetrievalError.__subclasses__()]
    for kind in kinds:
        if kind.__name__ == name:
            return kind(message)
    if number := ERROR_NUMBER.match(message):
        return OSError(int(number[1]), number[2])
    return RuntimeError(f"{name}: {message}")
