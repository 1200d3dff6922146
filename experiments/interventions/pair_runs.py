"""What a model answers to pairs of prompts, and to patched copies of the clean ones.

clean run      A, B and C ... to  ─▶ logits ─▶ Scores
copies of it   u u û u u u ...    ─▶ logits ─▶ Scores
corrupted run  A, B and D ... to      └ û: the activation here
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.interventions.logit_difference import (
    accuracy,
    candidate_accuracy,
    logit_difference,
    normalised,
    pair_accuracy,
    relative_probability,
)
from experiments.interventions.runs import ROWS, Stack, readings
from experiments.models.backbone import SequenceModel
from experiments.tasks.prompt_pairs import PromptPairs


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What runs say of the answer to the clean prompt, by the functions of these names.

    Of type float64; accuracies are 0 or 1.
    """

    logit_difference: Float[Tensor, "*copies pairs"]
    pair_accuracy: Float[Tensor, "*copies pairs"]
    candidate_accuracy: Float[Tensor, "*copies pairs"]
    accuracy: Float[Tensor, "*copies pairs"]
    relative_probability: Float[Tensor, "*copies pairs"]


@dataclass(frozen=True, kw_only=True)
class PairRuns:
    """The scores of both runs of each pair, and, by stack, of all copies of the clean run."""

    clean: Scores
    corrupted: Scores
    patched: list[Scores]

    def effects(self, *, absolute: bool = True) -> list[Float[Tensor, "_ pairs"]]:
        """By how much each copy's `normalised` logit difference is below that of the clean run.

        0 is like the clean run. Where that prefers the right answer by more than the corrupted run
        does, this is one minus the normalised difference, and 1 is like the corrupted run; else,
        with `absolute`, -1 is.
        """
        clean, corrupted = self.clean.logit_difference, self.corrupted.logit_difference
        unpatched = normalised(clean, clean, corrupted, absolute=absolute)
        return [
            unpatched - normalised(x.logit_difference, clean, corrupted, absolute=absolute)
            for x in self.patched
        ]


def pair_runs(
    model: SequenceModel, pairs: PromptPairs, stacks: Sequence[Stack] = (), *, rows: int = ROWS
) -> PairRuns:
    """Both runs, once, and all copies of the clean one, at most so many sequences at a time.

    The source run of the stacks is the corrupted one.
    """

    def read(logits: Tensor, part: slice) -> Tensor:
        these = pairs[part]
        scores = [score(logits.double(), these).double() for score in SCORES]
        return torch.stack(scores, dim=-1)

    found = readings(model, pairs.corrupted, pairs.clean, pairs.out, stacks, read, rows=rows)
    return PairRuns(
        clean=_scores(found.base),
        corrupted=_scores(found.source),
        patched=[_scores(copies) for copies in found.patched],
    )


SCORES = logit_difference, pair_accuracy, candidate_accuracy, accuracy, relative_probability


def _scores(read: Float[Tensor, "*copies pairs scores"]) -> Scores:
    names = (field.name for field in fields(Scores))
    return Scores(**dict(zip(names, read.unbind(dim=-1), strict=True)))
