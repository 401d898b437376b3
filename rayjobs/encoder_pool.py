"""How many encoders a cluster can run beside the tasks that feed them."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from product_retrieval.errors import ClusterError


@dataclass(frozen=True, slots=True)
class EncoderPool:
    """The processes that encode, as the cluster allows them."""

    num_actors: int
    gpus_per_actor: float
    threads_per_actor: int | None
    """None leaves it to torch."""


def plan_pool(num_wanted: int | None, *, num_slices: int, use_gpu: bool) -> EncoderPool:
    """Decide how many encoders run.

    Args:
        num_wanted: encoders that the user asked for; None chooses.
        num_slices: slices to encode; more encoders than that would idle.
        use_gpu: whether a GPU may be taken.

    Raises:
        ClusterError: the cluster could never schedule them beside the tasks that feed them.
    """
    resources = ray.cluster_resources()
    cpus, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    if gpus and use_gpu:
        num_actors = num_wanted or min(gpus, num_slices)
        return EncoderPool(num_actors, min(1.0, gpus / num_actors), None)
    num_actors = num_wanted or min(max(1, cpus // 2), num_slices)
    if num_actors + 1 > cpus:
        raise ClusterError(
            f"{num_actors} encoder actors would hold all {cpus} CPUs of the cluster and leave none "
            f"to read with; take --num-actors {max(1, cpus - 1)} or a cluster with more"
        )
    return EncoderPool(num_actors, 0.0, max(1, cpus // num_actors))
