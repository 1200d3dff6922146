"""How faithful circuits of growing size are: `faithfulness_curve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.interventions.circuit_search import Ranking
from experiments.interventions.circuits import Evaluation, evaluate
from experiments.interventions.edge_runs import EdgeRuns


@dataclass(frozen=True, kw_only=True)
class FaithfulnessCurve:
    """Circuits of these sizes, of a ranking's first edges, and what they are to be compared with.

    A ranking is as good as its circuits are better than random ones of the same size, and as its
    complements, all edges but the circuit's, are worse.
    """

    sizes: tuple[int, ...]
    circuit: Evaluation
    complement: Evaluation
    random: Evaluation
    """Draws come first, then sizes; each circuit of a draw contains the smaller ones."""

    @property
    def table(self) -> pd.DataFrame:
        """Columns size, kept ("circuit", "complement" or "random"), nld and accuracy, all means."""
        return pd.concat(
            pd.DataFrame({
                "size": self.sizes,
                "kept": kept,
                "nld": found.mean_nld.reshape(-1, len(self.sizes)).mean(0).numpy(),
                "accuracy": found.accuracy.reshape(-1, len(self.sizes)).mean(0).numpy(),
            })
            for kept, found in (
                ("circuit", self.circuit),
                ("complement", self.complement),
                ("random", self.random),
            )
        ).reset_index(drop=True)  # fmt: skip

    @property
    def monotone(self) -> bool:
        """Whether larger circuits are never less accurate, as a binary search takes it."""
        return bool((self.circuit.accuracy.diff() >= 0).all())

    def area(self, values: Float[Tensor, " sizes"]) -> float:
        """Area under mean values at the sizes, which are scaled to [0, 1].

        That of a curve that is 1 everywhere is 1; of the normalised logit differences of `circuit`
        it is the "integrated circuit performance ratio" of Mueller et al. 2025 (arXiv:2504.13151).
        """
        sizes = torch.tensor(self.sizes, dtype=torch.float64)
        scaled = (sizes - sizes[0]) / (sizes[-1] - sizes[0])
        return float(torch.trapezoid(values, scaled))


def log_grid(count: int, *, points: int = 20) -> tuple[int, ...]:
    """0 and about so many numbers from 1 to `count`, evenly spaced on a logarithmic scale."""
    checks.count(count=count, points=points)
    return (0, *np.unique(np.geomspace(1, count, points).round().astype(int)).tolist())


def faithfulness_curve(
    runs: EdgeRuns,
    ranking: Ranking,
    sizes: Sequence[int] | None = None,
    *,
    draws: int = 5,
    seed: int,
) -> FaithfulnessCurve:
    """Circuits of these sizes, their complements, and random ones; a `log_grid` by default.

    ValueError for sizes that do not increase from one to the next, or go beyond the ranking.
    """
    checks.count(draws=draws)
    checks.nonnegative(seed=seed)
    sizes = log_grid(len(ranking)) if sizes is None else tuple(sizes)
    if len(sizes) < 2 or any(a >= b for a, b in pairwise(sizes)):
        raise ValueError(f"sizes must increase, and be at least two, got {sizes}")
    rng = torch.Generator().manual_seed(seed)
    circuits = _tops(ranking, sizes)
    orders = [torch.randperm(len(ranking), generator=rng) for _ in range(draws)]
    drawn = [_tops(replace(ranking, cells=ranking.cells[order]), sizes) for order in orders]
    random = evaluate(runs, torch.cat(drawn))
    return FaithfulnessCurve(
        sizes=sizes,
        circuit=evaluate(runs, circuits),
        complement=evaluate(runs, ranking.top(len(ranking)) & ~circuits),
        random=Evaluation(
            nld=random.nld.unflatten(0, (draws, len(sizes))),
            correct=random.correct.unflatten(0, (draws, len(sizes))),
        ),
    )


def _tops(ranking: Ranking, sizes: Sequence[int]) -> Tensor:
    return torch.stack([ranking.top(size) for size in sizes])
