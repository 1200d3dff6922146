r"""Automatic circuit discovery: removing edges for as long as that costs nothing, `acdc`.

From the output backwards, each edge is patched for good where the mean normalised logit difference
falls by at most a threshold below that of the circuit so far, and is kept otherwise (Conmy et al.
2023). Whole sets are tried first, and halved where they cost too much:

    |0 1 2 3 4 5 6 7|   falls too far
    |0 1 2 3|           removed         at this point the circuit has changed: what follows is
            |4 5 6 7|   falls too far   compared with the circuit without 0 1 2 3
            |4 5|       falls too far
            |4|         kept
              |5|       removed
                |6 7|   removed
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from bounds import checks
from experiments.interventions.circuits import copies, evaluate, pruned
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_runs import EdgeRuns, Edges

Cells = Int[Tensor, "_ 3"]
"""Edges that are removed or kept together: source, destination and position of each."""


@dataclass(frozen=True, kw_only=True)
class Refined:
    """What `acdc` leaves of a circuit."""

    circuit: Edges
    kept: tuple[Cells, ...]
    """The groups tried and kept that the circuit has, in the order in which they were decided."""
    drops: tuple[float, ...]
    """By how much the mean normalised logit difference fell without each of them."""
    nld: tuple[float, ...]
    """Mean normalised logit difference of the start and after each removal: none is lower than the
    one before by more than the threshold."""
    evaluations: int
    """Circuits evaluated, with those in vain after one that was refused in the same pass."""


def acdc(
    runs: EdgeRuns,
    start: Edges,
    *,
    threshold: float = 1e-4,
    groups: Sequence[Cells] | None = None,
) -> Refined:
    """A part of a circuit, found by removing groups of its edges; by default single ones.

    Groups into one block come up together, in the order given, when all groups into later blocks
    are decided (one into several blocks: with the first of them). They may overlap; edges in none
    stay. Edges that are on no path to the output, or from the embedding, are removed between the
    blocks. ValueError for a group with none but (source, destination, position) of the start.
    """
    checks.nonnegative(threshold=threshold)
    if groups is None:
        groups = tuple(start.nonzero().flip(0)[:, None])
    shape = torch.tensor(start.shape)
    for group in groups:
        if len(group) == 0 or (group < 0).any() or (group >= shape).any():
            raise ValueError(f"groups must have edges within {tuple(start.shape)}, got {group}")
    graph = runs.graph
    first = [int(graph.destination_block[group[:, 1]].min()) for group in groups]
    nld = [float(evaluate(runs, start[None]).mean_nld)]
    circuit, drops, evaluations = pruned(graph, start), dict[int, float](), 1
    for block in reversed(range(len(graph.branches) + 1)):
        waiting = [[number for number in range(len(groups)) if first[number] == block]]
        while waiting := list(_left(circuit, groups, waiting)):
            # What is tried after the first set is right if that is removed. In a pass with room for
            # several circuits it costs nothing, so the result does not depend on the room.
            tried, trial = [], circuit
            for numbers in waiting[: copies(runs)]:
                trial = _without(trial, [groups[number] for number in numbers])
                tried.append(trial)
            found = evaluate(runs, torch.stack(tried)).mean_nld.tolist()
            evaluations += len(found)
            count = removable(nld[-1], found, threshold)
            nld += found[:count]
            circuit = tried[count - 1] if count else circuit
            waiting = waiting[count:]
            if count < len(found):
                refused, *waiting = waiting
                if len(refused) == 1:
                    drops[refused[0]] = nld[-1] - found[count]
                else:
                    half = len(refused) // 2
                    waiting = [refused[:half], refused[half:], *waiting]
        circuit = pruned(graph, circuit)
    kept = [number for number in drops if _has(circuit, groups[number])]
    return Refined(
        circuit=circuit,
        kept=tuple(groups[number] for number in kept),
        drops=tuple(drops[number] for number in kept),
        nld=tuple(nld),
        evaluations=evaluations,
    )


def removable(start: float, after: Sequence[float], threshold: float) -> int:
    """How many removals, one after the other, each fall at most a threshold below the one before.

    The first that falls further is not among them. (It is in the published code, which goes back to
    the sets up to and with that one.)
    """
    for count, (before, now) in enumerate(zip([start, *after], after, strict=False)):
        if before - now > threshold:
            return count
    return len(after)


def layer_and_branch_groups(graph: EdgeGraph) -> tuple[Cells, ...]:
    """For circuits with one position: edges between blocks, and what single branches read.

    From each source, all edges into one block (or into the output); before these, where a block has
    several branches, all edges into each of them (Ensign and Garriga-Alonso 2024, section 5, where
    convolution taps and gates are edges inside a layer).
    """
    groups = []
    for block in range(len(graph.branches) + 1):
        columns = torch.arange(len(graph.destinations))[graph.columns(block)]
        sources = torch.arange(graph.before(block))
        if len(columns) > 1:
            groups += [torch.cartesian_prod(sources, column[None]) for column in columns]
        groups += [torch.cartesian_prod(source[None], columns) for source in sources]
    return tuple(torch.cat([group, torch.zeros_like(group[:, :1])], dim=1) for group in groups)


def _left(
    circuit: Edges, groups: Sequence[Cells], waiting: Sequence[Sequence[int]]
) -> Iterator[list[int]]:
    """The sets without those groups that the circuit has nothing of any more."""
    for numbers in waiting:
        if left := [number for number in numbers if _has(circuit, groups[number])]:
            yield left


def _has(circuit: Edges, group: Cells) -> bool:
    return bool(circuit[group.unbind(1)].any())


def _without(circuit: Edges, groups: Sequence[Cells]) -> Edges:
    circuit = circuit.clone()
    circuit[torch.cat(list(groups)).unbind(1)] = False
    return circuit
