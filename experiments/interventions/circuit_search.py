r"""Circuits from scores of edges: their `Ranking`, and its smallest top that is accurate enough.

by          the next edge is
signed      the one with the most negative score: patching it would lower the normalised logit
            difference most (Ensign and Garriga-Alonso 2024)
absolute    the one with the largest |score| (Syed et al. 2023)
greedy      the one with the largest |score| of those into a reader that reaches the output
            through the edges before, so that every top is connected to the output
            (Hanna et al. 2024)
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bounds import checks
from experiments.interventions.circuits import complete, evaluate, pruned
from experiments.interventions.edge_graph import OUTPUT, EdgeGraph
from experiments.interventions.edge_runs import EdgeRuns, Edges

ORDERS = ("signed", "absolute", "greedy")


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Edges, the most important one first."""

    cells: Int[Tensor, "edges 3"]
    """Source, destination and position of each."""
    shape: tuple[int, ...]
    """Number of sources, destinations and positions."""

    def __len__(self) -> int:
        return len(self.cells)

    def top(self, count: int) -> Edges:
        """The circuit of the first edges; ValueError where there are not so many."""
        if not 0 <= count <= len(self):
            raise ValueError(f"count must be from 0 to {len(self)}, got {count}")
        circuit = torch.zeros(self.shape, dtype=torch.bool)
        circuit[self.cells[:count].unbind(1)] = True
        return circuit


@dataclass(frozen=True, kw_only=True)
class Found:
    """A circuit that reaches its target on the pairs it was searched with."""

    circuit: Edges
    """Pruned: a top of `size` edges without those on no path from the embedding to the output."""
    size: int
    nld: float
    accuracy: float
    evaluations: int
    """Circuits evaluated to find it."""


def ranked(
    graph: EdgeGraph, scores: Float[Tensor, "sources destinations positions"], *, by: str = "signed"
) -> Ranking:
    """All edges in one of the `ORDERS`; those of equal scores by source, destination, position."""
    checks.one_of(ORDERS, by=by)
    cells = complete(graph, positions=scores.shape[2]).nonzero()
    keys = scores[cells.unbind(1)].double()
    if not keys.isfinite().all():
        raise ValueError(f"scores must be finite at all edges, got {keys[~keys.isfinite()]}")
    if by == "greedy":
        cells = _greedy(graph, scores.double().abs())
    else:
        cells = cells[(keys if by == "signed" else -keys.abs()).argsort(stable=True)]
    return Ranking(cells=cells, shape=tuple(scores.shape))


def smallest(runs: EdgeRuns, ranking: Ranking, *, target: float = 0.85) -> Found:
    """The smallest top with an accuracy above the target, by binary search, and pruned.

    The search takes it that more edges never mean less accuracy; where that is not so (the whole
    curve tells), the circuit found still is above the target and one edge less is not. ValueError
    where not even all edges are enough.
    """
    checks.fraction(target=target)

    def measured(size: int) -> tuple[float, float]:
        found = evaluate(runs, ranking.top(size)[None])
        return float(found.accuracy), float(found.mean_nld)

    low, high = 0, len(ranking)
    best, evaluations = measured(high), 1
    if best[0] <= target:
        raise ValueError(f"target must be below the accuracy of all edges, {best[0]}, got {target}")
    while low < high:
        middle = (low + high) // 2
        found, evaluations = measured(middle), evaluations + 1
        if found[0] > target:
            high, best = middle, found
        else:
            low = middle + 1
    return Found(
        circuit=pruned(runs.graph, ranking.top(high)),
        size=high,
        accuracy=best[0],
        nld=best[1],
        evaluations=evaluations,
    )


def _greedy(
    graph: EdgeGraph, importance: Float[Tensor, "sources destinations positions"]
) -> Int[Tensor, "edges 3"]:
    values, edges = importance.tolist(), graph.edges.tolist()
    readers = [fed.nonzero().flatten().tolist() for fed in graph.feeds.T]
    # Up to which position each reader reaches the output: an edge into it at t moves what its block
    # writes at t and later.
    reaches = [-1] * len(graph.destinations)
    waiting: list[tuple[float, int, int, int]] = []

    def reach(reader: int, position: int) -> None:
        if position <= reaches[reader]:
            return
        for source in range(len(graph.sources)):
            if edges[source][reader]:
                for t in range(reaches[reader] + 1, position + 1):
                    edge = (-values[source][reader][t], source, reader, t)
                    heapq.heappush(waiting, edge)
        reaches[reader] = position

    reach(graph.destinations.index(OUTPUT), importance.shape[2] - 1)
    order = []
    while waiting:
        _, source, reader, position = heapq.heappop(waiting)
        order.append((source, reader, position))
        for before in readers[source]:
            reach(before, position)
    return torch.tensor(order)
