"""Axes of the studies that look into edges of trained toys: `ToyEdges`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.study import Study, Trial
from experiments.tasks.prompt_pairs import PromptPairs, aligned_pairs
from experiments.toys import TASKS

PAIRS_SEED = 27
"""As published."""
UNALIGNED = ("induction",)
"""Tasks whose roles stand elsewhere in every prompt."""
LEARNED = 0.96
"""Accuracy from which on it makes sense to ask how a toy does it."""
OVER = ("toy", "task", "resolution", "positional", "pairs", "max_steps")
"""Axes that tell points apart; models of several seeds are repeats."""


@dataclass(frozen=True)
class ToyEdges(Study):
    """Trained toys, the resolution of their edges, and the pairs these are looked at with."""

    toys: tuple[str, ...] = ("toy-2x64",)
    """Names in `experiments.toys.TOYS`."""
    tasks: tuple[str, ...] = ("ioi",)
    """Names in `experiments.toys.TASKS`."""
    resolutions: tuple[str, ...] = ("tap",)
    positional: tuple[bool, ...] = (True,)
    """Whether an edge is one at a single position."""
    pairs: int = 60
    max_steps: int | None = None
    """How long each toy may train, instead of as long as the toy says."""
    seeds: int = 5

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return dict(
            toy=self.toys,
            task=self.tasks,
            resolution=self.resolutions,
            positional=self.positional,
            pairs=(self.pairs,),
            max_steps=(self.max_steps,),
            seed=range(self.seeds),
        )

    def trials(self) -> tuple[Trial, ...]:
        """The grid; where prompts share no positions, without single ones."""
        return tuple(
            trial
            for trial in super().trials()
            if not (trial.config["positional"] and trial.config["task"] in UNALIGNED)
        )


def drawn(task: str, pairs: int, *, seed: int, positional: bool) -> PromptPairs:
    """Pairs of a task; where single positions are told apart, those of one template."""
    if positional:
        return aligned_pairs(TASKS[task], pairs, seed=seed)
    return TASKS[task].pairs(pairs, seed=seed)
