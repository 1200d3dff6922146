"""What the studies of trained factual-recall transformers share: trainings together, knock-outs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas
import torch

from experiments import device, ensemble, prompted
from experiments.study import Study, Trial
from memory.factual_recall import FactualRecall, draw_task
from memory.factual_transformer import FactualTransformer, accuracy
from memory.information import factual_recall_bits

_BATCH = 2e10
"""Multiplications of a batch of trials: some seconds of a core, the most that a kill can lose."""
_FILLINGS = 4
"""Prompts of every fact on which a trained model is asked with a memory knocked out."""


class TrainedRecall(Study):
    """Transformers trained on factual recall, each a trial, batches of them at once."""

    @classmethod
    @abstractmethod
    def member(cls, **config: Any) -> prompted.Member:
        """The training of one trial."""

    @classmethod
    def measure(cls, rng: np.random.Generator, **config: Any) -> dict[str, Any]:
        member = cls.member(**config)
        ((_, outcome),) = prompted.train([member], device=device.chosen())
        return metrics(member, outcome)

    @classmethod
    def batches(cls, trials: Sequence[Trial]) -> Sequence[Sequence[Trial]]:
        return ensemble.together(
            trials, lambda trial: _multiplications(cls.member(**trial.config)), _BATCH
        )

    @classmethod
    def measure_together(cls, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Mapping[str, Any]]]:
        members = [cls.member(**trial.config) for trial in trials]
        for index, outcome in prompted.train(members, device=device.chosen()):
            yield trials[index], metrics(members[index], outcome)


def member(
    *,
    S: int,
    R: int,
    D: int,
    length: int,
    d: int,
    heads: int,
    head_dim: int,
    width: int,
    max_steps: int,
    batch_size: int,
    learning_rate: float,
    train_embeddings: bool,
    seed: int,
    target: float = 1.0,
) -> prompted.Member:
    """A transformer at its random start, its facts and its training, all from one seed."""
    task = draw_task(S=S, R=R, D=D, length=length, seed=seed)
    model = FactualTransformer(
        task.vocabulary, task.A, d, heads, head_dim, width, train_embeddings=train_embeddings,
        seed=seed,
    )  # fmt: skip
    training = prompted.Training(
        learning_rate=learning_rate, steps=max_steps, batch_size=batch_size, target=target
    )
    return prompted.Member(model.initialize(seed), task, training, seed)


def metrics(member: prompted.Member, outcome: prompted.Outcome) -> dict[str, Any]:
    """How the training ended, sizes, and the accuracy with either memory knocked out."""
    model = member.model
    found = {
        "N": member.task.S * member.task.R,
        **outcome.metrics(),
        "attention_parameters": model.attention_parameters,
        "mlp_parameters": model.mlp_parameters,
        "parameters": model.counted_parameters,
    }
    if model.sizes["width"] and not outcome.diverged:
        for path in ("attention", "mlp"):
            found[f"accuracy_without_{path}"] = _without(path, model, member.task, member.seed)
    return found


def bits_held(rows: pandas.DataFrame) -> np.ndarray:
    """Bits that a memory of this accuracy has at least, were it to hold facts chosen at random."""
    held = []
    for S, R, D, share in zip(rows["S"], rows["R"], rows["D"], rows["accuracy"], strict=True):
        error = min(1 - share, 1 - 1 / D)  # below that of guessing, errors tell nothing more
        held.append(float(factual_recall_bits(S=S, R=R, D=D, error=error)))
    return np.array(held)


def _without(path: Any, model: FactualTransformer, task: FactualRecall, seed: int) -> float:
    pairs = torch.arange(task.S * task.R).repeat(_FILLINGS)
    asked = task.ask(pairs // task.R, pairs % task.R, torch.Generator().manual_seed(seed + 1))
    with torch.no_grad():
        return accuracy(lambda tokens: model.knocked_out(tokens, path, asked.tokens), asked)


def _multiplications(member: prompted.Member) -> float:
    """Of a training that goes on to its last step."""
    size = member.model.sizes
    features = size["heads"] * (size["head_dim"] + 1)
    each = member.task.vocabulary * features + (features + 2 * size["width"]) * size["d"]
    each += size["d"] * member.task.A
    return 3.0 * member.training.steps * member.training.batch_size * each
