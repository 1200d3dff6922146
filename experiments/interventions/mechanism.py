"""Where a model binds key and value, told from what the second layer reads: `mechanism`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from bounds import checks
from experiments.interventions.corruptions import Pair
from experiments.interventions.effects import Summary, resampled
from experiments.interventions.interchange import interchange
from experiments.interventions.layers import layers
from experiments.interventions.patches import patch
from experiments.interventions.runs import ROWS
from experiments.models.backbone import SequenceModel
from experiments.tasks.recall import Documents

LABELS = {
    "value": "induction",
    "query": "direct retrieval early",
    "key": "direct retrieval late",
    "divider": "summary",
    "next_key": "induction at the next key",
}
"""What it is called when the answer comes back from the input of the second layer there."""
MIXED, UNSOLVED = "mixed", "unsolved"


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A label, the share of bootstrap resamples that give it, and what it rests on."""

    label: str
    confidence: float
    attributions: Mapping[str, Summary]
    """Of the input of the second layer, by position."""
    accuracy: float


def mechanism(
    model: SequenceModel,
    pair: Pair,
    *,
    chance: float,
    resamples: int = 1000,
    seed: int = 0,
    rows: int = ROWS,
) -> Mechanism:
    r"""Classify a model of two layers or more, on documents whose keys are corrupted.

    With $a_x$ the attribution (ratio of means) of the second layer's input at the position x, the
    label is that of x in `LABELS` if $a_x \ge 1/2$ and $a_x \ge 2 a_y$ at all other positions y,
    else "mixed"; and "unsolved", before anything else, if no $a_x$ has a denominator above
    `SMALLEST_GAP` or the accuracy on n clean documents is at most
    $c + 2 \sqrt{c (1 - c) / n}$, c being the accuracy of `chance`. Positions that the documents do
    not name, or none of them has, are left out. Bootstrap resamples are classified by the same
    rule.
    """
    checks.probability(chance=chance)
    found = layers(model.config.layers)
    if len(found) < 2:
        raise ValueError(f"layers: the model has one, {model.config.layers}; two are needed")
    if pair.kind != "key":
        raise ValueError(f"pair must have its keys corrupted, not of kind {pair.kind!r}")
    site = f"blocks.{found[1].mixer}.resid_pre"
    there = [x for x in LABELS if x in pair.clean.positions and pair.where(x).any()]
    effects = interchange(model, pair, [patch(site, at=[x]) for x in there], rows=rows)
    right = answers_right(model, pair.clean, rows=rows)

    def labels(weights: Float[ndarray, "resamples documents"]) -> list[str]:
        n = weights.shape[1]
        ratios = np.stack([effect.ratios(weights) for effect in effects])
        least = chance + 2 * np.sqrt(chance * (1 - chance) / n)
        return _labels(there, ratios, weights @ right / n > least)

    label = labels(np.ones((1, len(pair))))[0]
    drawn = labels(resampled(len(pair), resamples, seed))
    return Mechanism(
        label=label,
        confidence=drawn.count(label) / resamples,
        attributions={
            x: effect.summary(resamples=resamples, seed=seed)
            for x, effect in zip(there, effects, strict=True)
        },
        accuracy=float(right.mean()),
    )


@torch.no_grad()
def answers_right(
    model: SequenceModel, documents: Documents, *, rows: int = ROWS
) -> Bool[ndarray, " documents"]:
    """Whether the answer to the first question is the likeliest of all tokens, by document."""
    device, right = next(model.parameters()).device, []
    query = documents.positions["query"][:, None]
    for tokens, at in zip(documents.tokens.split(rows), query.split(rows), strict=True):
        right.append(model(tokens.to(device), at.to(device))[:, 0].argmax(-1).cpu())
    return (torch.cat(right) == documents.answer).numpy()


def _labels(
    positions: list[str],
    ratios: Float[ndarray, "positions resamples"],
    solved: Bool[ndarray, " resamples"],
) -> list[str]:
    """One label for each resample."""
    absent = np.full((1, ratios.shape[1]), -np.inf)
    known = np.concatenate([np.where(np.isnan(ratios), -np.inf, ratios), absent])
    second, first = np.sort(known, axis=0)[-2:]
    clear = (first >= 0.5) & (first >= 2 * second)
    names = np.array([LABELS[x] for x in positions])[known[:-1].argmax(axis=0)]
    unsolved = ~solved | (first == -np.inf)
    return np.select([unsolved, clear], [UNSOLVED, names], MIXED).tolist()
