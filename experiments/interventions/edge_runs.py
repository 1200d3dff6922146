"""Pairs of prompts run through an edge graph, with sets of edges patched: `EdgeRuns`."""

from __future__ import annotations

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks
from experiments.interventions.edge_graph import EdgeGraph, Run, frozen
from experiments.interventions.logit_difference import logit_difference, normalised
from experiments.interventions.runs import ROWS
from experiments.tasks.prompt_pairs import PromptPairs

Edges = Bool[Tensor, "sources destinations positions"]
"""A set of edges, at single positions or, with one position, at all of them."""


class EdgeRuns:
    """The clean and the corrupted runs of some pairs, and what patched runs are compared with."""

    def __init__(self, graph: EdgeGraph, pairs: PromptPairs, *, rows: int = ROWS) -> None:
        checks.count(rows=rows)
        self.graph, self.pairs, self.rows = graph, pairs, rows
        self.clean, self.corrupted = self._run(pairs.clean), self._run(pairs.corrupted)

    @cached_property
    def differences(self) -> Float[Tensor, "sources pairs length d_model"]:
        """What each source writes in the corrupted run minus what it writes in the clean one."""
        return self.corrupted.written - self.clean.written

    @cached_property
    def differs(self) -> Bool[Tensor, "sources pairs length"]:
        """Where a source writes something else in the two runs, not behind the last token."""
        return (self.differences != 0).any(dim=-1).cpu() & (
            torch.arange(self.pairs.length) <= self.pairs.out[:, None]
        )

    def nld(
        self, logits: Float[Tensor, "*copies pairs vocabulary"], rows: Tensor | slice = slice(None)
    ) -> Float[Tensor, "*copies pairs"]:
        """Normalised logit differences of these pairs: 1 like the clean run, 0 the corrupted."""
        pairs = self.pairs[rows]
        clean, corrupted = (
            logit_difference(run.logits[rows], pairs) for run in (self.clean, self.corrupted)
        )
        return normalised(logit_difference(logits, pairs), clean, corrupted)

    @torch.no_grad()
    def patched(
        self, edges: Bool[Tensor, "copies sources destinations positions"]
    ) -> Float[Tensor, "copies pairs vocabulary"]:
        """Logits of every pair with each of these sets of edges patched."""
        self.require_edges(edges)
        copies, pairs = len(edges), len(self.pairs)
        row = torch.arange(copies * pairs)
        logits = []
        with frozen(self.graph.model):
            for chosen in row.split(self.rows):
                copy, pair = chosen // pairs, chosen % pairs
                logits.append(self._patched(edges[copy], pair))
        return torch.cat(logits).unflatten(0, (copies, pairs))

    def require_edges(self, edges: Bool[Tensor, "*copies sources destinations positions"]) -> None:
        """ValueError for pairs of source and destination that are no edge, or other positions."""
        if edges.shape[-1] not in (1, self.pairs.length):
            raise ValueError(
                f"edges must have 1 or {self.pairs.length} positions, got {edges.shape[-1]}"
            )
        any_copy = edges.reshape(-1, *edges.shape[-3:]).any(0)
        wrong = any_copy.any(-1) & ~self.graph.edges
        if wrong.any():
            i, j = wrong.nonzero()[0].tolist()
            names = f"{self.graph.sources[i]} -> {self.graph.destinations[j]}"
            raise ValueError(f"edges must be edges of the graph, got {names}")

    def _run(self, tokens: Int[Tensor, "pairs length"]) -> Run:
        parts = [
            self.graph.run(tokens[some], self.pairs.out[some])
            for some in batches(len(self.pairs), self.rows)
        ]
        return Run(
            stream=torch.cat([part.stream for part in parts], dim=1),
            written=torch.cat([part.written for part in parts], dim=1),
            logits=torch.cat([part.logits for part in parts]),
        )

    def _patched(
        self, edges: Bool[Tensor, "rows sources destinations positions"], pair: Tensor
    ) -> Float[Tensor, "rows vocabulary"]:
        graph, target = self.graph, self.corrupted.written[:, pair]
        gates = edges.to(target)

        def moved(block: int, stream: Tensor, written: list[Tensor]) -> Tensor | None:
            own = gates[:, : graph.before(block), graph.columns(block)]
            if not own.any():
                return None
            told = target[: len(written)] - torch.stack(written)
            return torch.einsum("bscl,sbld->cbld", own.expand(-1, -1, -1, told.shape[2]), told)

        return graph.walk(self.clean.stream[0, pair], self.pairs.out[pair], moved).logits


def batches(count: int, size: int) -> list[slice]:
    """The pairs in groups of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
