"""The replicas of this service, told together to look for another version of the index.

Promoting a version moves an alias, which each replica reads every few seconds. Whoever promotes may want to know now
that all have moved, or which one has not and why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from serve.answers import RefreshAnswer, RefusedVersion, ReplicaState
from serve.following import VersionFollower

logger = logging.getLogger("ray.serve")  # the one that Serve writes to the replica's log

LOOK_TIMEOUT_S = 20.0
"""How long a replica may take to open a version before it answers that it is still at it."""
SPARE_S = 3.0
"""Beyond that, for the way to a replica and back."""


class Looker:
    """Lets one replica look, one look at a time: those that wait hold no thread that searches need."""

    def __init__(self, follower: VersionFollower, name: str) -> None:
        """Remember what looks, and what the replica is called."""
        self._follower = follower
        self._name = name
        self._turn = asyncio.Lock()

    async def look(self, timeout_s: float = LOOK_TIMEOUT_S) -> ReplicaState:
        """Look at the alias once from now on, and move if that can be; say where this replica stands then.

        Args:
            timeout_s: after which it says where it stands although it has not moved yet.
        """
        looking = asyncio.ensure_future(self._look())
        done, _ = await asyncio.wait([looking], timeout=timeout_s)
        return self.state(is_done=bool(done))

    def state(self, *, is_done: bool) -> ReplicaState:
        """Return where this replica stands."""
        served, refused = self._follower.served, self._follower.refused
        return ReplicaState(
            replica=self._name,
            index_version=served.version,
            refused=None if refused is None else RefusedVersion(version=refused.version, reason=refused.reason),
            is_done=is_done,
        )

    async def _look(self) -> None:
        async with self._turn:
            await asyncio.to_thread(self._follower.check)


class AllReplicas:
    """Lets every replica of the deployment that this code runs in look."""

    def __init__(self) -> None:
        """Find out where this runs.

        Raises:
            RayServeException: not in a replica.
        """
        context = serve.get_replica_context()
        self._name = context.replica_id.unique_id
        self._of = (context.deployment, context.app_name)

    @property
    def name(self) -> str:
        """Name of this replica."""
        return self._name

    async def look(self, own: Looker) -> RefreshAnswer:
        """Let all look at once.

        Args:
            own: of this replica, whose word does not depend on the way to it.

        Returns:
            What each says, after all have looked or LOOK_TIMEOUT_S; those that died meanwhile are counted.
        """
        mine, said = await asyncio.gather(own.look(), self._ask())
        states = {state.replica: state for state in said if isinstance(state, ReplicaState)}
        states[mine.replica] = mine
        num_silent = sum(not isinstance(state, ReplicaState) for state in said)
        return RefreshAnswer(replicas=sorted(states.values(), key=lambda state: state.replica), num_silent=num_silent)

    async def _ask(self) -> Sequence[object]:
        """Return what each replica says, or the error that it died of; one silence if nothing is known of any."""
        handle: DeploymentHandle[object] = serve.get_deployment_handle(*self._of)
        try:
            response = handle.broadcast("look", LOOK_TIMEOUT_S)
            said: Sequence[object] = await response.results_async(
                timeout_s=LOOK_TIMEOUT_S + SPARE_S, return_exceptions=True
            )
        except (TimeoutError, RayError, RayServeException) as error:
            logger.warning("refresh_incomplete error=%r", error)
            return [error]
        return said
