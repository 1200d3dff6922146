"""What the studies of trained factual-recall transformers share: trainings together, knock-outs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

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


class Sizes(NamedTuple):
    """Subjects, relations and answers of the task; dimensions of the transformer."""

    S: int
    R: int
    D: int
    d: int
    heads: int
    head_dim: int
    width: int


@dataclass(frozen=True)
class TrainedRecall(Study):
    """Transformers trained on factual recall, each a trial, batches of them at once."""

    D: tuple[int, ...] = (4,)
    """Answers of a relation, where they are fixed."""
    length: tuple[int, ...] = (8,)
    """Tokens of a prompt."""
    max_steps: tuple[int, ...] = (600,)
    batch_size: tuple[int, ...] = (256,)
    learning_rate: tuple[float, ...] = (0.02,)
    train_embeddings: tuple[bool, ...] = (False,)
    seed: tuple[int, ...] = tuple(range(3))
    """Facts, embeddings, initial weights and prompts."""

    target: ClassVar[float] = 1.0
    """Share of the prompts whose right answers end a training."""

    @staticmethod
    @abstractmethod
    def sizes(**config: Any) -> Sizes:
        """Of the task and of the transformer of one trial."""

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    @classmethod
    def member(cls, **config: Any) -> prompted.Member:
        """A transformer at its random start, its facts and its training, all from one seed."""
        size, seed = cls.sizes(**config), config["seed"]
        task = draw_task(S=size.S, R=size.R, D=size.D, length=config["length"], seed=seed)
        model = FactualTransformer(
            task.vocabulary, task.A, size.d, size.heads, size.head_dim, size.width,
            train_embeddings=config["train_embeddings"], seed=seed,
        )  # fmt: skip
        training = prompted.Training(
            learning_rate=config["learning_rate"],
            steps=config["max_steps"],
            batch_size=config["batch_size"],
            target=cls.target,
        )
        return prompted.Member(model.initialize(seed), task, training, seed)

    @classmethod
    def measure(cls, rng: np.random.Generator, **config: Any) -> dict[str, Any]:
        member = cls.member(**config)
        ((_, outcome),) = prompted.train([member], device=device.chosen())
        return metrics(member, outcome)

    @classmethod
    def batches(cls, trials: Sequence[Trial]) -> Sequence[Sequence[Trial]]:
        def multiplications(trial: Trial) -> float:
            """Of a training that goes on to its last step."""
            size, config = cls.sizes(**trial.config), trial.config
            features = size.heads * (size.head_dim + 1)
            each = 2 * (size.S + size.R) * features + (features + 2 * size.width) * size.d
            each += size.d * size.R * size.D
            return 3.0 * config["max_steps"] * config["batch_size"] * each

        return ensemble.together(trials, multiplications, _BATCH)

    @classmethod
    def measure_together(cls, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Mapping[str, Any]]]:
        members = [cls.member(**trial.config) for trial in trials]
        for index, outcome in prompted.train(members, device=device.chosen()):
            yield trials[index], metrics(members[index], outcome)


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
    asked = task.every_fact(torch.Generator().manual_seed(seed + 1), _FILLINGS)
    with torch.no_grad():
        return accuracy(lambda tokens: model.knocked_out(tokens, path, asked.tokens), asked)
