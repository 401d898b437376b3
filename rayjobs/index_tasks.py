"""Building the shards of an index on the connected cluster: every step is a task that names the files it has published.

Tasks carry names, not vectors: only the training sample goes through Ray's object store. What a worker held at most is
returned with every result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from product_retrieval.index import IndexSpec, Side
from product_retrieval.index.build_steps import (
    Build,
    count_vectors,
    fill_piece,
    publish_trained,
    sample_vectors,
    trained_name,
)
from product_retrieval.index.construction import num_training_points
from product_retrieval.index.fused import Fusion
from product_retrieval.index.fused_weight import SAMPLED_PRODUCTS, choose_weight, sample_groups
from product_retrieval.index.layout import PartRows, ShardPlan
from product_retrieval.index.manifest import Shard
from product_retrieval.index.shard_files import (
    check_ids,
    describe_shard,
    gather_products,
    gather_vectors,
    index_name,
    merge_pieces,
)
from product_retrieval.index.spec import SIDES
from product_retrieval.memory import forget_peak, peak_bytes
from product_retrieval.progress import Progress

Step = Callable[..., Any]
"""A function of the library, known on workers by its name."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a step returned, and the most bytes that its process held meanwhile."""

    result: Any
    step: str
    peak_bytes: int


@dataclass(slots=True)
class Cluster:
    """Runs steps on the connected cluster and remembers what they held."""

    memory_bytes: int
    """What a step that holds a shard may need: as many run at once as fit."""
    num_gpus: float = 0
    """Of a training task."""
    peaks: dict[str, int] = field(default_factory=dict)
    """By step, the most bytes that one process held."""

    def submit(self, function: Step, *arguments: Any, is_large: bool = False, after: Sequence[Any] = ()) -> Any:
        """Start a step once others have ended; return a reference for `get`."""
        memory = self._schedulable_bytes() if is_large else 0
        return _step_task.options(memory=memory).remote(function, arguments, *after)

    def share(self, value: object) -> Any:
        """Return what stands for a value in the arguments of many steps."""
        return ray.put(value)

    def sample(self, build: Any, source: PartRows, shares: Mapping[Side, float], seed: int) -> list[Any]:
        """Start the sampling of a part; return a reference a side."""
        references = _sample_task.options(num_returns=len(shares)).remote(build, source, dict(shares), seed)
        return references if len(shares) > 1 else [references]

    def train(self, build: Build, side: Side, spec: IndexSpec, seed: int, samples: Sequence[Any]) -> Any:
        """Start the training of a side with half of a node's CPUs; return a reference for `get`."""
        num_cpus = max(int(largest("CPU") / len(SIDES)), 1)  # so that both sides train at once, beside what else runs
        task = _train_task.options(num_cpus=num_cpus, num_gpus=self.num_gpus, memory=self._schedulable_bytes())
        return task.remote(build, side, spec, seed, num_cpus, *samples)

    def get(self, reference: Any) -> Any:
        """Wait for a step and return its result."""
        done: Done = ray.get(reference)
        self.peaks[done.step] = max(self.peaks.get(done.step, 0), done.peak_bytes)
        return done.result

    def _schedulable_bytes(self) -> int:
        """Return what to ask Ray for: never so much that no node has it free beside something else."""
        return int(min(self.memory_bytes, largest("memory") / 2))


def count_all(cluster: Cluster, build: Build) -> dict[Side, int]:
    """Return how many vectors each side has."""
    shared = cluster.share(build)
    counting = [cluster.submit(count_vectors, shared, part) for part in range(len(build.manifest.parts))]
    counted = [cluster.get(reference) for reference in counting]
    return {side: sum(counts[side] for counts in counted) for side in SIDES}


def measure_fusion(cluster: Cluster, build: Build, sources: Sequence[PartRows], seed: int) -> Fusion:
    """Choose the weight of a fused side by the groups of products; see fused_weight.

    Raises:
        OptionsError: too few products have another of their group.
    """
    share = min(1.0, SAMPLED_PRODUCTS / max(sum(source.num_rows for source in sources), 1))
    shared = cluster.share(build)
    sampling = [cluster.submit(sample_groups, shared, source, share, seed) for source in sources]
    samples = [cluster.get(reference) for reference in sampling]
    fusion: Fusion = cluster.get(cluster.submit(choose_weight, samples, seed))
    return fusion


def train_sides(
    cluster: Cluster,
    build: Build,
    sources: Sequence[PartRows],
    specs: Mapping[Side, IndexSpec],
    totals: Mapping[Side, int],
    seed: int,
) -> dict[Side, str]:
    """Train an empty index for each side on random vectors of all sources; return the names of the files."""
    names = {side: trained_name(build, side) for side in specs}
    if all(build.output.exists(name) for name in names.values()):
        return names  # whoever trained them has compared the parts with their manifest, too
    dim = build.manifest.fingerprint.dim
    points = {
        side: 0 if spec.is_exact else num_training_points(totals[side], spec, dim, cluster.memory_bytes)
        for side, spec in specs.items()
    }
    shares = {side: points[side] / totals[side] for side in specs}
    shared = cluster.share(build)
    sampled = [cluster.sample(shared, source, shares, seed) for source in sources]
    training = {
        side: cluster.train(build, side, spec, seed, [references[number] for references in sampled])
        for number, (side, spec) in enumerate(specs.items())
    }
    return {side: cluster.get(reference) for side, reference in training.items()}


def build_shards(
    cluster: Cluster, build: Build, plans: Sequence[ShardPlan], trained: Mapping[Side, str], *, first_row: int = 0
) -> list[Shard]:
    """Fill, merge and gather every shard.

    Args:
        cluster: where.
        build: whose shards they are.
        plans: of the shards.
        trained: by side, the name of the trained index.
        first_row: row in the version of the first shard's first product.

    Returns:
        The manifest's records of the shards.

    Raises:
        ArtifactError: a part is damaged, or a product id occurs twice.
    """
    shared = cluster.share(build)
    gathering = [cluster.submit(gather_products, shared, plan, is_large=True) for plan in plans]
    filling, merging = [], {}
    for plan in plans:
        for side, name in trained.items():
            pieces = range(0 if build.output.exists(index_name(build, plan, side)) else len(plan.pieces()))
            filled = [cluster.submit(fill_piece, shared, plan, side, piece, name) for piece in pieces]
            filling += filled
            merge = cluster.submit(merge_pieces, shared, plan, side, is_large=True, after=filled)
            merging[plan.name, side] = (merge, cluster.submit(gather_vectors, shared, plan, side))
    with Progress("build_index", len(filling), unit="pieces") as progress:
        for reference in filling:
            cluster.get(reference)
            progress.advance(1)
    products = [cluster.get(reference) for reference in gathering]
    checking = [cluster.submit(check_ids, shared, [p[0] for p in products], n) for n in range(1, len(plans))]
    describing = []
    for plan, names in zip(plans, products, strict=True):
        sides = {side: tuple(cluster.get(reference) for reference in merging[plan.name, side]) for side in trained}
        describing.append(cluster.submit(describe_shard, shared, plan, first_row, names, sides))
        first_row += plan.num_rows
    for reference in checking:
        cluster.get(reference)
    return [cluster.get(reference) for reference in describing]


def largest(resource: str) -> float:
    """Return the most of a resource that any node of the cluster has, so that no task waits for more."""
    return max((node["Resources"].get(resource, 0.0) for node in ray.nodes() if node["Alive"]), default=0.0)


def _run(function: Step, *arguments: Any) -> Done:
    forget_peak()
    result = function(*arguments)
    return Done(result, function.__name__, peak_bytes())


@ray.remote
def _step_task(function: Step, arguments: tuple[Any, ...], *_after: Done) -> Done:
    """Run a step; `_after` are results that it waits for."""
    return _run(function, *(ray.get(each) if isinstance(each, ray.ObjectRef) else each for each in arguments))


@ray.remote
def _sample_task(build: Build, source: PartRows, shares: dict[Side, float], seed: int) -> Any:
    """Sample the vectors of a part, one result a side."""
    sampled = tuple(sample_vectors(build, source, shares=shares, seed=seed).values())
    return sampled if len(sampled) > 1 else sampled[0]


@ray.remote
def _train_task(
    build: Build, side: Side, spec: IndexSpec, seed: int, num_threads: int, *samples: NDArray[np.float16]
) -> Done:
    """Train an empty index on the samples."""
    forget_peak()
    name = publish_trained(build, side, spec, samples, seed=seed, num_threads=num_threads)
    return Done(name, "train", peak_bytes())
