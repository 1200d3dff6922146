r"""The exact effect of each edge, by patching it alone: `exact`.

Patching an edge into block j changes nothing before that block, and nothing at all where its source
writes the same in both runs, or behind the last token: only the blocks from j on are run, only for
pairs and positions with a difference, and many edges together, as rows of one batch.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.interventions.edge_graph import frozen
from experiments.interventions.edge_runs import EdgeRuns, Edges


@torch.no_grad()
def exact(
    runs: EdgeRuns, *, positional: bool = True, only: Edges | None = None
) -> Float[Tensor, "sources destinations positions pairs"]:
    """What patching one edge changes the normalised logit difference by, per pair.

    At single positions, or at all positions together; NaN for edges that are not among `only`
    these, 0 for entries that are no edges.
    """
    graph, pairs = runs.graph, runs.pairs
    positions = pairs.length if positional else 1
    if only is None:
        only = graph.edges[:, :, None].expand(-1, -1, positions)
    elif only.shape[-1] != positions:
        raise ValueError(f"only must have {positions} positions, got {only.shape[-1]}")
    runs.require_edges(only)
    before = runs.nld(runs.clean.logits).double()
    effects = torch.zeros(*only.shape, len(pairs), dtype=torch.float64)
    effects[graph.edges[:, :, None] & ~only] = torch.nan
    changing = runs.differs.mT if positional else runs.differs.any(2, keepdim=True).mT
    with frozen(graph.model):
        for column in range(len(graph.destinations)):
            wanted = (only[:, column, :, None] & changing).nonzero()
            if not len(wanted):
                continue
            for cells in wanted.split(runs.rows):
                source, position, pair = cells.unbind(1)
                nld = _patched(runs, column, source, position if positional else None, pair)
                effects[source, column, position, pair] = (nld.double() - before[pair]).cpu()
    return effects


def _patched(
    runs: EdgeRuns, column: int, source: Tensor, position: Tensor | None, pair: Tensor
) -> Float[Tensor, " rows"]:
    """Normalised logit differences of these pairs, each with one edge into a reader patched."""
    graph = runs.graph
    number = int(graph.destination_block[column])
    told = runs.differences[source, pair]
    if position is not None:
        here = torch.arange(told.shape[1]) == position[:, None]
        told = told * here[..., None].to(told)
    stream, blocks = runs.clean.stream[number, pair], len(graph.branches)
    if number == blocks:
        stream = stream + told
    else:
        reader = column - graph.columns(number).start
        out, _ = graph.block(number, stream, {reader: told})
        stream, number = stream + out, number + 1
    at = runs.pairs.out[pair, None].to(stream.device)
    return runs.nld(graph.model.resume(stream, block=number, at=at)[:, 0], pair)
