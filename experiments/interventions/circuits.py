r"""Circuits: the edges that keep what they carry, all others being patched.

    embed ─▶ 0 ─▶ 1 ─▶ output        kept: embed -> 0, 0 -> 1, 1 -> output
      └ ─ ─ ─┴ ─ ─ ─ ─ ▶             patched: embed -> 1, 0 -> output, embed -> output

A circuit is a Boolean array over sources, destinations and positions, true where an edge is kept;
with one position its edges are kept at all of them. With all edges the run is the clean one, with
none the corrupted one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bounds import checks
from experiments.interventions.edge_graph import EMBED, EdgeGraph
from experiments.interventions.edge_runs import EdgeRuns, Edges, batches
from experiments.interventions.logit_difference import candidate_accuracy

Circuits = Bool[Tensor, "copies sources destinations positions"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What circuits do, pair by pair."""

    nld: Float[Tensor, "*copies pairs"]
    """Normalised logit differences: 1 like the clean run, 0 like the corrupted one."""
    correct: Bool[Tensor, "*copies pairs"]
    """Whether the answer is preferred to all other candidates."""

    @property
    def mean_nld(self) -> Float[Tensor, "*copies"]:
        """Over pairs."""
        return self.nld.mean(dim=-1)

    @property
    def accuracy(self) -> Float[Tensor, "*copies"]:
        """Fraction of correct pairs."""
        return self.correct.double().mean(dim=-1)


def complete(graph: EdgeGraph, *, positions: int = 1) -> Edges:
    """The circuit of all edges."""
    checks.count(positions=positions)
    return graph.edges[:, :, None].repeat(1, 1, positions)


def evaluate(runs: EdgeRuns, circuits: Circuits) -> Evaluation:
    """Every pair run with each of these circuits; ValueError for what is no edge of the graph."""
    runs.require_edges(circuits)
    nld, correct = [], []
    # Logits of all tokens are kept for one pass only.
    for some in batches(len(circuits), copies(runs)):
        logits = runs.patched(runs.graph.edges[:, :, None] & ~circuits[some])
        nld.append(runs.nld(logits).double())
        correct.append(candidate_accuracy(logits, runs.pairs))
    return Evaluation(nld=torch.cat(nld).cpu(), correct=torch.cat(correct).cpu())


def copies(runs: EdgeRuns) -> int:
    """How many circuits are evaluated in one pass of the model."""
    return max(1, runs.rows // len(runs.pairs))


def pruned(graph: EdgeGraph, circuit: Edges) -> Edges:
    """The edges of a circuit on a path of kept edges from the embedding to the output.

    The others change nothing: a block whose every path from the embedding is cut writes what it
    does in the corrupted run, whether patched or not, and what leads nowhere is not read. Mixers
    are causal, so an edge at position t reaches what its block writes at t and later. This is all
    that is assumed of them, and of pairs nothing: edges that are idle for another reason (gates and
    queries act on no other position, nobody reads the output but at the end) stay.
    """
    kept, output = circuit & graph.edges[:, :, None], len(graph.branches)
    feeds = graph.feeds.double()
    live = torch.zeros(kept.shape[0], kept.shape[2], dtype=torch.bool)
    live[graph.sources.index(EMBED)] = True
    for block in range(output + 1):
        columns = graph.columns(block)
        kept[:, columns] &= live[:, None]
        arrived = kept[:, columns].any(dim=0).cumsum(dim=1) > 0
        live |= feeds[columns].T @ arrived.double() > 0
    read = kept[:, graph.columns(output)].any(dim=1)
    for block in reversed(range(output)):
        columns = graph.columns(block)
        later = read.flip(1).cumsum(dim=1).flip(1) > 0
        kept[:, columns] &= feeds[columns] @ later.double() > 0
        read |= kept[:, columns].any(dim=1)
    return kept


def jaccard(a: Edges, b: Edges) -> float:
    """|a and b| / |a or b|, 1 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def stability(circuits: Circuits) -> float:
    """Mean Jaccard index of any two of these circuits: of several seeds, or halves of the data."""
    if len(circuits) < 2:
        raise ValueError(f"circuits must be at least 2, got {len(circuits)}")
    found = [jaccard(a, b) for a, b in combinations(circuits, 2)]
    return sum(found) / len(found)
