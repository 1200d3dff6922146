"""Small models that learn tasks of pairs, for the studies that look into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.result import Source
from experiments import scratch
from experiments.claims import Claim
from experiments.study import Preset, Study
from experiments.toys import TASKS, TOYS, trained


@dataclass(frozen=True)
class Toys(Study):
    """Trained once on a machine and kept on disk; the maps and circuits are of these models."""

    toys: tuple[str, ...] = ("toy-2x64",)
    """Names in `experiments.toys.TOYS`."""
    tasks: tuple[str, ...] = ("ioi",)
    """Names in `experiments.toys.TASKS`."""
    max_steps: int | None = None
    """How long each may train, instead of as long as the toy says."""
    seeds: int = 5

    name = "toys"
    title = "Small models learn to tell the odd one out"
    version = 1
    presets = {
        "quick": Preset(expected_time="90 s", axes=dict(seeds=3)),
        "small": Preset(
            expected_time="8 min",
            axes=dict(toys=("toy-2x64", "toy-mamba2", "toy-hybrid"), seeds=4),
        ),
        "medium": Preset(expected_time="3 h", axes=dict(toys=tuple(TOYS), tasks=tuple(TASKS))),
    }
    claims = (
        Claim(
            name="toys-learn-their-task",
            statement="small models answer at least 96 % of new prompts of their task, as "
            "mamba-370m does of indirect object identification",
            source=Source(key="ensign2024investigating", place="section 3"),
            relation=">=",
            measured="accuracy",
            predicted=0.96,
            where={"max_steps": None},
            over=("toy", "task", "max_steps"),
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return dict(
            toy=self.toys, task=self.tasks, max_steps=(self.max_steps,), seed=range(self.seeds)
        )

    @staticmethod
    def measure(
        rng: np.random.Generator, *, toy: str, task: str, max_steps: int | None, seed: int
    ) -> dict[str, Any]:
        """The training, or what is on disk of it."""
        found = trained(
            toy,
            TASKS[task],
            seed=seed,
            max_steps=max_steps,
            checkpoint=scratch.checkpoint("toy"),
        )
        return {
            "accuracy": found.accuracy,
            "steps": found.steps,
            "parameters": sum(p.numel() for p in found.model.parameters()),
            "curve_steps": np.array(list(found.accuracies)),
            "curve_accuracy": np.array(list(found.accuracies.values())),
        }
