r"""How well an attribution agrees with exact patching: `agreement`, on a `stratified_sample`.

A gradient says what an edge would do if effects were linear. Whether it is right is measured on
edges that are patched exactly, strong and weak ones alike: a sample of the strongest alone would
never meet an edge that the attribution misses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata
from torch import Tensor

from bounds import checks
from experiments.interventions.edge_attribution import Attribution
from experiments.interventions.edge_runs import EdgeRuns, Edges
from experiments.interventions.effects import resampled
from experiments.tasks.sequences import stream

NEGLIGIBLE = 0.01
"""Effects below this share of the largest have no sign."""
TOP = 10
FEWEST_EDGES, FEWEST_PAIRS = 3, 2
"""Of two edges every correlation is 1 or -1; of one pair all resamples are the same."""


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """A correlation coefficient over edges, with its 95 % bootstrap interval over pairs.

    Means over a resample are noisier than the mean: where many effects are small, the interval of a
    rank correlation lies low and may leave out the value.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Mean scores against mean exact effects, over `edges` of them."""

    edges: int
    pearson: Correlation
    spearman: Correlation
    k: int
    top_overlap: float
    """Share of the k edges of the lowest effects that are among the k of the lowest scores."""
    signed: int
    """Edges whose effects are not `NEGLIGIBLE`."""
    same_sign: float
    """Share of these whose scores have the sign of their effects."""
    completeness_gap: float
    """Of the attribution, over all edges."""
    integration_error: float | None
    """What `step_doubling_error` says of a method that integrates."""


def stratified_sample(
    runs: EdgeRuns,
    scores: Float[Tensor, "sources destinations positions"],
    *,
    count: int,
    seed: int,
) -> Edges:
    """So many edges, a third each from the top, the middle and the bottom by |score|.

    Edges whose source writes the same in both runs of every pair are left out: they have no effect.
    """
    candidates = _candidates(runs, scores.shape[-1])
    checks.count(count=count)
    checks.ordered(count=count, edges_to_choose_from=int(candidates.sum()))
    order = scores[candidates].abs().argsort(descending=True, stable=True)
    rng = stream("stratified edges", seed)
    chosen = [
        stratum[torch.from_numpy(rng.permutation(len(stratum))[: len(share)])]
        for stratum, share in zip(
            order.tensor_split(3), torch.arange(count).tensor_split(3), strict=True
        )
    ]
    sample = torch.zeros_like(candidates)
    sample[tuple(candidates.nonzero()[torch.cat(chosen)].T)] = True
    return sample


def agreement(
    runs: EdgeRuns,
    attribution: Attribution,
    effects: Float[Tensor, "sources destinations positions pairs"],
    *,
    k: int | None = None,
    resamples: int = 1000,
    seed: int = 0,
    integration_error: float | None = None,
) -> Agreement:
    """Over the edges that have exact effects, NaN being those of the others.

    Edges with no effect and no score in any pair do not count, such as those whose source writes
    the same in both runs: they would agree whatever the method. `k` is by default 10, or half of
    the edges where that is less. ValueError where a correlation is not defined, as all scores or
    all effects are the same, or there are fewer than 3 edges or 2 pairs; in a resample such a
    correlation is 0.
    """
    if effects.shape != attribution.scores.shape:
        raise ValueError(
            f"effects must have the shape of the scores {tuple(attribution.scores.shape)}, "
            f"got {tuple(effects.shape)}"
        )
    compared = _candidates(runs, effects.shape[2]) & ~effects.isnan().any(dim=-1)
    acting = (attribution.scores != 0).any(dim=-1) | (effects != 0).any(dim=-1)
    compared &= acting
    x, y = (values[compared].numpy().T for values in (attribution.scores, effects))
    pairs, edges = x.shape
    checks.ordered(fewest_edges=FEWEST_EDGES, edges_with_effects=edges)
    checks.ordered(fewest_pairs=FEWEST_PAIRS, pairs=pairs)
    k = min(TOP, edges // 2) if k is None else k
    checks.count(k=k)
    checks.ordered(k=k, edges_with_effects=edges)
    for name, values in (("scores", x), ("effects", y)):
        if np.ptp(values.mean(0)) == 0:
            raise ValueError(f"{name} must not all be the same, got {values.mean(0)[0]} everywhere")
    weights = resampled(pairs, resamples, seed) / pairs
    correlation = partial(_correlation, x, y, weights)
    score, effect = x.mean(0), y.mean(0)
    top = [set(np.argsort(values, kind="stable")[:k].tolist()) for values in (score, effect)]
    signed = np.abs(effect) > NEGLIGIBLE * np.abs(effect).max()
    return Agreement(
        edges=edges,
        pearson=correlation(lambda values: values),
        spearman=correlation(partial(rankdata, axis=1)),
        k=k,
        top_overlap=len(top[0] & top[1]) / k,
        signed=int(signed.sum()),
        same_sign=float((np.sign(score) == np.sign(effect))[signed].mean()),
        completeness_gap=attribution.completeness_gap,
        integration_error=integration_error,
    )


def pearson(
    x: Float[ndarray, "rows edges"], y: Float[ndarray, "rows edges"]
) -> Float[ndarray, " rows"]:
    """Correlation coefficients of the rows; 0 where one of them is constant."""
    varies = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    x, y = (values - values.mean(axis=1, keepdims=True) for values in (x, y))
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.divide((x * y).sum(axis=1), norms, out=np.zeros(len(x)), where=varies & (norms > 0))


def _correlation(
    x: Float[ndarray, "pairs edges"],
    y: Float[ndarray, "pairs edges"],
    weights: Float[ndarray, "resamples pairs"],
    scale: Callable[[ndarray], ndarray],
) -> Correlation:
    value = pearson(scale(x.mean(axis=0)[None]), scale(y.mean(axis=0)[None])).item()
    low, high = np.quantile(pearson(scale(weights @ x), scale(weights @ y)), (0.025, 0.975))
    return Correlation(value=value, low=float(low), high=float(high))


def _candidates(runs: EdgeRuns, positions: int) -> Bool[Tensor, "sources destinations positions"]:
    """The edges that could have an effect on some pair."""
    differs = runs.differs.any(dim=1)
    if positions == 1:
        differs = differs.any(dim=1, keepdim=True)
    return runs.graph.edges[:, :, None] & differs[:, None].to(runs.graph.edges.device)
