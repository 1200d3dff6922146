"""Which model solves which task in context: the summary table, computed by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

SOLVED, VISIBLE, FAILED = "solved", "visible gap", "fails"
VISIBLE_FROM, FAILED_FROM = 0.05, 0.5
"""Gaps to the best model, in units of the error of guessing 0, from which one is visible, or the
model fails."""
JUMPED_FROM, FAILED_BELOW = 0.8, 0.2
"""Shares of the seeds that learn parities, from which they are solved, and below which they fail.
"""
SEEDS = 5
"""Fewer have bootstrap intervals that say little: of two that agree, none at all."""
_RESAMPLES = 10_000

_ROWS = {
    "linear": (SOLVED, SOLVED, SOLVED),
    "sparse linear": (SOLVED, SOLVED, SOLVED),
    "two-layer network": (SOLVED, SOLVED, SOLVED),
    "decision tree": (SOLVED, VISIBLE, SOLVED),
    "orthogonal outliers": (SOLVED, VISIBLE, SOLVED),
    "many outliers": (VISIBLE, SOLVED, SOLVED),
    "sparse parity": (FAILED, SOLVED, SOLVED),
    "chain of thought": (SOLVED, SOLVED, SOLVED),
    "vector retrieval": (SOLVED, FAILED, SOLVED),
}
PUBLISHED = {
    (kind, model): verdict
    for kind, verdicts in _ROWS.items()
    for model, verdict in zip(("transformer", "mamba", "mambaformer"), verdicts, strict=True)
}
"""The summary table of Park et al. 2024 (arXiv:2402.04248), as far as it is known to us."""


@dataclass(frozen=True)
class Cell:
    """A verdict, the statistic it was read off, and its interval over the seeds.

    `decided` is false where the interval reaches into another verdict, where there are fewer than
    `SEEDS` of them, or where no model has learned the task.
    """

    verdict: str
    value: float
    low: float
    high: float
    decided: bool


def by_gap(gaps: Sequence[float] | Float[ndarray, " seeds"], *, learned: bool) -> Cell:
    """The verdict on the mean gap to the best model, with a 95 % bootstrap interval over seeds.

    `learned`: whether that model has learned the task. The gaps of models none of which has are
    small, and say nothing.
    """
    return _cell(np.asarray(gaps, float), learned, _of_gap)


def by_jumps(jumped: Sequence[bool], *, learned: bool) -> Cell:
    """The verdict on the share of seeds that learn, with such an interval."""
    return _cell(np.asarray(jumped, float), learned, _of_share)


def _of_gap(gap: float) -> str:
    if gap <= VISIBLE_FROM:
        return SOLVED
    return VISIBLE if gap <= FAILED_FROM else FAILED


def _of_share(share: float) -> str:
    if share >= JUMPED_FROM:
        return SOLVED
    return VISIBLE if share >= FAILED_BELOW else FAILED


def _cell(values: ndarray, learned: bool, rule: Callable[[float], str]) -> Cell:
    if values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"values must be finite, one for each seed, got {values.tolist()}")
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(_RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    verdict = rule(values.mean())
    decided = learned and len(values) >= SEEDS and {rule(low), rule(high)} == {verdict}
    return Cell(verdict, float(values.mean()), float(low), float(high), decided)
