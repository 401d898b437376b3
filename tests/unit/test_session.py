"""What leaves a Ray session: errors as they were before Ray wrapped them, even where their type was lost on the way."""

from __future__ import annotations

import contextlib
import errno
from types import SimpleNamespace
from typing import Any

import pytest

from product_retrieval.errors import CatalogError
from product_retrieval.session import ray_session


class TaskError(Exception):
    """Stands for RayTaskError: the text holds the traceback of the worker, and nothing holds the type."""


class LostError(Exception):
    """Stands for RayError."""


def connected_ray() -> Any:
    """Return a stand-in for the module of a process that is connected already."""
    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=LostError)
    return SimpleNamespace(is_initialized=lambda: True, exceptions=exceptions)


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        ("product_retrieval.errors.CatalogError: a.csv: changed while it was read", CatalogError, "a.csv: changed"),
        ("OSError: [Errno 28] No space left on device", OSError, "No space left"),
        ("KeyError: 'Field \"x\" exists 2 times'", RuntimeError, "KeyError: 'Field"),
    ],
)
def test_error_of_a_task_is_rebuilt_from_its_text(line: str, kind: type[Exception], message: str) -> None:
    text = f'ray::Map(ReadStep)() (pid=7)\n  File "steps.py", line 3, in read\n{line}\n\nThe above exception was'
    with pytest.raises(kind, match=message.replace("[", r"\[")) as raised, ray_session(connected_ray()):
        raise TaskError(text)
    if kind is OSError:
        assert raised.value.errno == errno.ENOSPC


def test_cause_that_kept_its_type_is_raised_as_it_is() -> None:
    cause = CatalogError("a.csv: broken", path="a.csv")
    wrapped = TaskError("wrapped")
    wrapped.cause = cause  # type: ignore[attr-defined]
    with pytest.raises(CatalogError) as raised, ray_session(connected_ray()):
        raise wrapped
    assert raised.value is cause


def test_connected_process_stays_connected() -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(ray_session(connected_ray()))  # would fail on its missing `shutdown`
