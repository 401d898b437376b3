"""How many encoders are planned: never so many that nothing is left to read with."""

from __future__ import annotations

import pytest

from product_retrieval.errors import ClusterError
from rayjobs.encoder_pool import EncoderPool, Node, PoolOptions, plan_pool


def pool(
    nodes: list[tuple[float, float]],
    num_slices: int = 100,
    use_gpu: bool = True,
    may_grow: bool = False,
    **options: float,
) -> EncoderPool:
    machines = [Node(cpus=cpus, gpus=gpus) for cpus, gpus in nodes]
    return plan_pool(PoolOptions(**options), num_slices=num_slices, use_gpu=use_gpu, nodes=machines, may_grow=may_grow)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([(2, 0)], (1, 1, 0, 2)),
        ([(16, 0)], (8, 8, 0, 2)),
        ([(3, 0), (3, 0), (3, 0)], (4, 4, 0, 2)),
        ([(16, 4)], (4, 4, 1, None)),
        ([(16, 0), (8, 8)], (8, 8, 1, None)),
        ([(4, 8)], (3, 3, 1, None)),  # a CPU each, and one to read with
    ],
)
def test_default_follows_the_machines(nodes: list[tuple[float, float]], expected: tuple[int, int, float, int]) -> None:
    found = pool(nodes)
    assert (found.min_actors, found.max_actors, found.gpus_per_actor, found.threads_per_actor) == expected


def test_small_catalogue_gets_no_more_encoders_than_parts() -> None:
    assert pool([(16, 0)], num_slices=3).max_actors == 3
    assert pool([(16, 0)], num_slices=2, max_actors=6, min_actors=4).min_actors == 2


def test_gpu_is_left_alone_when_the_cpu_is_asked_for() -> None:
    assert pool([(16, 4)], use_gpu=False).gpus_per_actor == 0


def test_gpus_are_shared_or_taken_whole() -> None:
    assert pool([(16, 1)], gpus_per_actor=0.25).max_actors == 4
    assert pool([(16, 5)], gpus_per_actor=2).max_actors == 2
    assert pool([(16, 2)], gpus_per_actor=0).threads_per_actor == 2


def test_pool_grows_between_its_bounds() -> None:
    found = pool([(16, 0)], min_actors=2, max_actors=10)
    assert (found.min_actors, found.max_actors, found.threads_per_actor) == (2, 10, 1)


def test_cluster_that_grows_is_asked_for_what_is_not_there_yet() -> None:
    found = pool([(0, 0)], may_grow=True, max_actors=8, gpus_per_actor=1)
    assert (found.min_actors, found.max_actors) == (1, 8)


@pytest.mark.parametrize(
    ("nodes", "options", "message"),
    [
        ([(2, 0)], {"max_actors": 2}, "would hold all 2 CPUs .* take --pool.max-actors 1 or a cluster with more"),
        ([(1, 0)], {}, "would hold all 1 CPUs .* take a cluster with more"),
        ([(1, 1)], {}, "would hold all 1 CPUs"),
        ([(16, 1)], {"max_actors": 2}, "2 encoder actors of 1 GPU .* places for 1; take --pool.max-actors 1"),
        ([(16, 1)], {"gpus_per_actor": 2}, "places for 0"),
        ([(16, 0)], {"gpus_per_actor": 0.5}, "places for 0"),
        ([(16, 1)], {"gpus_per_actor": 1, "use_gpu": False}, "an encoder on the CPU takes none"),
    ],
)
def test_plan_that_ray_would_wait_for_is_refused(
    nodes: list[tuple[float, float]], options: dict[str, float], message: str
) -> None:
    with pytest.raises(ClusterError, match=message):
        pool(nodes, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"min_actors": 0}, {"max_actors": 0}, {"min_actors": 3, "max_actors": 2}, {"gpus_per_actor": 1.5}]
)
def test_impossible_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"--pool\."):
        PoolOptions(**options)  # type: ignore[arg-type]
