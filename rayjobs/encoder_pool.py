"""How many encoders a cluster can run beside the tasks that feed them."""

from __future__ import annotations

from dataclasses import dataclass

import ray

from product_retrieval.errors import ClusterError

CPUS_PER_ACTOR = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolOptions:
    """How many processes encode; the pool grows and shrinks between the two bounds."""

    min_actors: int | None = None
    """Encoders from the beginning; default: --pool.max-actors, or 1 in a cluster that grows."""
    max_actors: int | None = None
    """Most encoders; default: as many as the GPUs carry, or one for every two CPUs."""
    gpus_per_actor: float | None = None
    """Share of a GPU that an encoder takes, such as 0.5, or whole GPUs; default: 1 where there is a GPU, 0 for none."""

    def __post_init__(self) -> None:
        for name, value in (("min-actors", self.min_actors), ("max-actors", self.max_actors)):
            if value is not None and value < 1:
                raise ValueError(f"--pool.{name} must be at least 1, not {value}")
        if self.min_actors and self.max_actors and self.min_actors > self.max_actors:
            raise ValueError(f"--pool.min-actors {self.min_actors} is more than --pool.max-actors {self.max_actors}")
        share = self.gpus_per_actor
        if share is not None and (share < 0 or (share > 1 and share != int(share))):
            raise ValueError(f"--pool.gpus-per-actor is 0, a share up to 1, or whole GPUs, not {share:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderPool:
    """The processes that encode, as the cluster allows them."""

    min_actors: int
    max_actors: int
    gpus_per_actor: float
    threads_per_actor: int | None
    """None leaves it to torch."""


def nodes_now() -> list[Node]:
    """Return the living machines of the connected cluster."""
    living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(cpus=r.get("CPU", 0), gpus=r.get("GPU", 0)) for r in living]


def can_grow() -> bool:
    """Say whether an autoscaler may add machines to the connected cluster."""
    # The only place where Ray 2.60 tells what an autoscaler is allowed to add.
    limits = ray._private.state.state.get_max_resources_from_cluster_config()
    return limits is not None and limits.get("CPU", 0) > ray.cluster_resources().get("CPU", 0)


def plan_pool(
    options: PoolOptions, *, num_slices: int, use_gpu: bool, nodes: list[Node], may_grow: bool = False
) -> EncoderPool:
    """Decide how many encoders run.

    Args:
        options: what the user asked for.
        num_slices: slices to encode; more encoders than that would idle.
        use_gpu: whether a GPU may be taken.
        nodes: machines of the cluster.
        may_grow: an autoscaler adds machines when they are asked for, so what is there now refuses nothing.

    Raises:
        ClusterError: the cluster could never schedule them beside the tasks that feed them; Ray would wait for ever.
    """
    share = options.gpus_per_actor
    if share is None:
        share = 1.0 if use_gpu and any(node.gpus for node in nodes) else 0.0
    elif share and not use_gpu:
        raise ClusterError(
            f"--pool.gpus-per-actor {share:g} with --encoder.device cpu: an encoder on the CPU takes none"
        )
    cpus = int(sum(int(node.cpus) for node in nodes))
    places = sum(_places(node, share) for node in nodes)
    # Encoders are placed before the tasks that read for them; these need a whole CPU on some machine.
    room = max(0, min(places, cpus - 1))
    wanted = places if share else max(1, cpus // 2)
    if may_grow:
        largest = options.max_actors or max(wanted, options.min_actors or 1)
        smallest = options.min_actors or 1
    else:
        largest = options.max_actors or min(max(wanted, options.min_actors or 1), num_slices, max(room, 1))
        smallest = options.min_actors or largest
        largest = max(largest, smallest)
        if largest > room:
            raise ClusterError(_why_not(options, share, largest, room, cpus, places))
    smallest, largest = min(smallest, num_slices), min(largest, num_slices)
    threads = None if share else max(1, cpus // largest)
    return EncoderPool(min_actors=smallest, max_actors=largest, gpus_per_actor=share, threads_per_actor=threads)


def _places(node: Node, gpus_per_actor: float) -> int:
    """Return how many encoders fit on a machine."""
    by_cpu = int(node.cpus) // CPUS_PER_ACTOR
    if not gpus_per_actor:
        return by_cpu
    if gpus_per_actor > 1:
        return min(by_cpu, int(node.gpus // gpus_per_actor))
    return min(by_cpu, int(node.gpus) * int(1 / gpus_per_actor + 1e-6))


def _why_not(options: PoolOptions, share: float, wanted: int, room: int, cpus: int, places: int) -> str:
    if share and places < wanted:
        return (
            f"{wanted} encoder actors of {share:g} GPU and {CPUS_PER_ACTOR} CPU each: the cluster has places for "
            f"{places}; take --pool.max-actors {max(1, room)} or a smaller --pool.gpus-per-actor"
        )
    advice = f"--pool.max-actors {room} or " if room and (options.max_actors or options.min_actors) else ""
    return (
        f"{wanted} encoder actors would hold all {cpus} CPUs of the cluster and leave none to read with; "
        f"take {advice}a cluster with more"
    )
