"""One replica that is told to look for another version while it is still opening one."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

from serve.following import Refusal
from serve.replicas import Looker


class SlowFollower:
    """Opens version 2 when it is let to, then refuses version 3."""

    def __init__(self) -> None:
        self.served: Any = SimpleNamespace(version=1)
        self.refused: Refusal | None = None
        self.may_open = threading.Event()
        self.num_now = self.num_checks = self.most_at_once = 0

    def check(self) -> None:
        self.num_checks += 1
        self.num_now += 1
        self.most_at_once = max(self.most_at_once, self.num_now)
        assert self.may_open.wait(10)
        self.refused = Refusal(3, 7, "its gates", 0.0) if self.served.version == 2 else None
        self.served = SimpleNamespace(version=2)
        self.num_now -= 1


def test_many_looks_at_once_hold_one_thread_and_each_looks_after_it_was_asked() -> None:
    async def ask() -> tuple[list[Any], SlowFollower]:
        follower = SlowFollower()
        looker = Looker(cast("Any", follower), "r1")
        asked = [asyncio.ensure_future(looker.look(10)) for _ in range(40)]
        await asyncio.sleep(0.02)
        assert follower.num_checks == 1
        follower.may_open.set()
        return await asyncio.gather(*asked), follower

    states, follower = asyncio.run(ask())
    assert (follower.num_checks, follower.most_at_once) == (40, 1)
    assert {(state.replica, state.index_version, state.is_done) for state in states} == {("r1", 2, True)}
    assert states[-1].refused.model_dump() == {"version": 3, "reason": "its gates"}


def test_a_replica_that_takes_too_long_says_so_and_moves_later() -> None:
    async def ask() -> tuple[Any, Any]:
        follower = SlowFollower()
        looker = Looker(cast("Any", follower), "r1")
        early = await looker.look(0.02)
        follower.may_open.set()
        return early, await looker.look(10)

    early, late = asyncio.run(ask())
    assert (early.index_version, early.is_done) == (1, False)
    assert (late.index_version, late.is_done) == (2, True)
