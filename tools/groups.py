"""Connected components of things that are linked in pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def connected(num_nodes: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """Name each node after the smallest node that links lead to.

    Args:
        num_nodes: N, the number of nodes.
        links: int64 [P, 2], pairs of nodes, each from 0 to N - 1.

    Returns:
        int64 [N]: equal numbers for nodes of one component.

    Source: Tarjan, "Efficiency of a good but not linear set union algorithm", JACM 22, 1975.
    """
    parent = np.arange(num_nodes, dtype=np.int64)

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in links.tolist():
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    return np.array([root(node) for node in range(num_nodes)], dtype=np.int64)
