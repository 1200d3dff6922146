"""In-context learning: settings by name, models trained on fresh prompts, and their errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from experiments.batches import TRAINING, derived
from experiments.models.backbone import SequenceModel
from experiments.recipe import Recipe
from experiments.tasks.chain_of_thought import ChainOfThought
from experiments.tasks.decision_tree import DecisionTree
from experiments.tasks.in_context import Curriculum, InContextTask, Prompts, Ramp
from experiments.tasks.linear_regression import LinearRegression
from experiments.tasks.outlier_regression import ManyOutliers, OrthogonalOutliers
from experiments.tasks.sparse_parity import SparseParity
from experiments.tasks.two_layer_regression import TwoLayerRegression
from experiments.tasks.vector_retrieval import VectorRetrieval
from experiments.train import Outcome, train

CLIP = 10.0
"""Largest norm of the gradient, as published."""
PUBLISHED_STEPS = 500_000
FINAL = 0.25
"""Share of the scored guesses, the last ones, whose mean is the final error."""

Batch = tuple[
    Float[Tensor, "prompts length d"],
    Int[Tensor, "prompts guesses"],
    Float[Tensor, "prompts guesses outputs"],
    Bool[Tensor, "prompts guesses outputs"],
]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A task of some size, and how models are trained on it."""

    kind: str
    """The row of the verdict matrix."""
    task: InContextTask
    d_model: int
    """Width of the models, of the Transformer where others are matched to it."""
    steps: int
    """Of a training, unless it is at its target before."""
    curriculum: Curriculum = field(default_factory=Curriculum)
    target: float = 0.0
    """Final error on the validation prompts that ends a training."""


def _published(kind: str, task: InContextTask, points: Ramp | None) -> Setting:
    active = Ramp(start=5, end=20, interval=2000) if points else None
    return Setting(
        kind=kind, task=task, d_model=256, steps=PUBLISHED_STEPS,
        curriculum=Curriculum(active=active, num_examples=points),
    )  # fmt: skip


def _on_a_cpu(
    kind: str, task: InContextTask, d_model: int, steps: int, target: float = 0.0
) -> Setting:
    return Setting(kind=kind, task=task, d_model=d_model, steps=steps, target=target)


_SHORT = Ramp(start=11, end=41, increment=2, interval=2000)
_LONG = Ramp(start=26, end=101, increment=5, interval=2000)
SETTINGS: Mapping[str, Setting] = {
    "linear-2": _on_a_cpu("linear", LinearRegression(d=2, num_examples=5), 16, 300),
    "linear-5": _on_a_cpu("linear", LinearRegression(d=5, num_examples=11), 32, 400),
    "noisy-5": _on_a_cpu(
        "noisy linear", LinearRegression(d=5, num_examples=21, noise=0.5), 32, 1000
    ),
    "sparse-10": _on_a_cpu(
        "sparse linear", LinearRegression(d=10, num_examples=21, sparsity=2), 64, 1500
    ),
    "two-layer-5": _on_a_cpu(
        "two-layer network", TwoLayerRegression(d=5, hidden=20, num_examples=31), 64, 1500
    ),
    "tree-6": _on_a_cpu("decision tree", DecisionTree(d=6, depth=2, num_examples=40), 64, 1500),
    "orthogonal-outliers-5": _on_a_cpu(
        "orthogonal outliers", OrthogonalOutliers(d=5, num_examples=24), 64, 1500
    ),
    "many-outliers-4": _on_a_cpu(
        "many outliers", ManyOutliers(d=4, num_examples=100), 64, 1500
    ),
    "parity-6": _on_a_cpu(
        "sparse parity", SparseParity(d=6, sparsity=2, num_examples=24), 16, 1400, 0.003
    ),
    "parity-10": _on_a_cpu(
        "sparse parity", SparseParity(d=10, sparsity=2, num_examples=40), 32, 3000, 0.003
    ),
    "chain-of-thought-4": _on_a_cpu(
        "chain of thought", ChainOfThought(d_input=4, hidden=4, num_examples=20), 64, 1500
    ),
    **{
        f"retrieval-{pairs}": _on_a_cpu(
            "vector retrieval", VectorRetrieval(d=8, num_pairs=pairs, num_queries=4), 32, 600, 0.01
        )
        for pairs in (4, 8, 16, 32)
    },
    "linear": _published("linear", LinearRegression(), _SHORT),
    "sparse": _published("sparse linear", LinearRegression(sparsity=3), _SHORT),
    "two-layer": _published("two-layer network", TwoLayerRegression(), _LONG),
    "tree": _published("decision tree", DecisionTree(), _LONG),
    "orthogonal-outliers": _published("orthogonal outliers", OrthogonalOutliers(), _LONG),
    "many-outliers": Setting(
        kind="many outliers", task=ManyOutliers(), d_model=256, steps=2 * PUBLISHED_STEPS,
        curriculum=Curriculum(
            active=Ramp(start=4, end=20, interval=2000),
            num_examples=Ramp(start=12, end=512, increment=2, interval=200),
        ),
    ),
    "parity": _published("sparse parity", SparseParity(), None),
    "chain-of-thought": _published("chain of thought", ChainOfThought(), None),
    "retrieval": _published(
        "vector retrieval", VectorRetrieval(num_pairs=32, num_queries=16), None
    ),
}  # fmt: skip
"""Those with a size have steps for minutes on a CPU, the others the published ones."""


@dataclass(frozen=True, kw_only=True)
class FreshPrompts:
    """New prompts at every step, with a curriculum: batches by the step."""

    task: InContextTask
    curriculum: Curriculum
    batch_size: int
    seed: int

    def __call__(self, step: int) -> Batch:
        task = self.curriculum.task(self.task, step)
        return batch(task.sample(self.batch_size, seed=derived(self.seed, step, TRAINING)))


def batch(prompts: Prompts) -> Batch:
    """What models are trained on and asked with, in single precision."""
    at = prompts.at.expand(len(prompts), -1)
    return prompts.tokens.float(), at, prompts.targets.float(), prompts.counted


def loss(model: nn.Module, batch: Batch, *, signs: bool) -> Tensor:
    """Mean over all guesses that count: of squared errors, or, of `signs`, of the cross-entropy."""
    tokens, at, targets, counted = batch
    outputs = model(tokens, at)
    if signs:
        each = nn.functional.softplus(-targets * outputs)
    else:
        each = (outputs - targets).square()
    return (each * counted).sum() / counted.sum()


@torch.no_grad()
def guesses(model: nn.Module, prompts: Prompts) -> Float[Tensor, "prompts guesses outputs"]:
    """The outputs of a model, in batches that fit a small memory.

    FloatingPointError if one is not finite: errors are averaged without what is missing.
    """
    device = next(model.parameters()).device
    tokens, at, _, _ = batch(prompts)
    outputs = [
        model(some.to(device), where.to(device)).cpu()
        for some, where in zip(tokens.split(256), at.split(256), strict=True)
    ]
    found = torch.cat(outputs).double()
    if not found.isfinite().all():
        raise FloatingPointError("the model's guesses are not all finite")
    return found


def errors(
    guesses: Float[Tensor, "prompts guesses outputs"], prompts: Prompts, task: InContextTask
) -> Float[Tensor, "prompts scored"]:
    """Squared errors of the scored guesses over the scale of the task; of signs, 1 where wrong.

    NaN where nothing counts. A sign that is not told (a guess of 0) is half wrong.
    """
    if task.signs:
        each = (1 - torch.sign(guesses) * prompts.targets) / 2
    else:
        each = (guesses - prompts.targets).square() / task.scale
    each = each.masked_fill(~prompts.counted, torch.nan)
    return each.nanmean(dim=2)[:, prompts.scored]


def curve(
    guesses: Float[Tensor, "prompts guesses outputs"], prompts: Prompts, task: InContextTask
) -> Float[Tensor, " scored"]:
    """Mean `errors`, by the number of examples before."""
    return errors(guesses, prompts, task).nanmean(dim=0)


def final(curve: Float[Tensor, " scored"]) -> float:
    """The mean of the last quarter of a curve."""
    return curve[-max(1, round(FINAL * len(curve))) :].nanmean().item()


def fit(
    model: SequenceModel,
    setting: Setting,
    validation: Prompts,
    *,
    learning_rate: float,
    batch_size: int,
    steps: int,
    evaluate_every: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Outcome:
    """Adam at a constant rate, as published, until the validation error is at the target.

    Evaluations have the final error of the `validation` prompts, and "skill", 1 less that.
    """
    task = setting.task

    def evaluate(model: nn.Module) -> dict[str, float]:
        error = final(curve(guesses(model, validation), validation, task))
        return {"error": error, "skill": 1 - error}

    recipe = Recipe(
        steps=steps, learning_rate=learning_rate, optimizer="adam", clip=CLIP,
        evaluate_every=evaluate_every, stop_when=("skill", 1 - setting.target),
    )  # fmt: skip
    fresh = FreshPrompts(task=task, curriculum=setting.curriculum, batch_size=batch_size, seed=seed)
    return train(
        model, lambda model, batch: loss(model, batch, signs=task.signs), fresh, recipe,
        seed=seed, evaluate=evaluate, checkpoint=checkpoint,
    )  # fmt: skip
