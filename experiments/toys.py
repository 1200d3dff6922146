"""Small models trained on tasks of pairs, kept on disk by key: `TOYS`, `trained`.

    trained("toy-2x64", IOI(), seed=0).model

Interpretability needs models that solve their task, and the same one for every map of it. They are
trained once on a machine; the key of a toy names everything its weights follow from.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from experiments.atomic import replacing
from experiments.batches import derived, require_seed
from experiments.checkpoint import CheckpointError
from experiments.models import checkpoints
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.scan_build import cache_folder
from experiments.recipe import Recipe
from experiments.tasks.induction import Induction
from experiments.tasks.ioi import IOI
from experiments.tasks.prompt_pairs import PADDING, PairTask
from experiments.tasks.two_name_ioi import TwoNameIOI
from experiments.train import train

VERSION = 2
"""Rises whenever the training of a toy would give other weights, and the versions of the studies of
toys with it, whose trials know toys by name."""
TARGET = 0.999
"""A training ends when this share of new prompts is answered rightly."""
_BATCH_SIZE, _VALIDATION = 64, 512
_BATCHES, _VALIDATIONS, _TESTS = 7, 8, 9
"""Streams of random numbers: of training batches, of prompts to stop by and of those to test on."""


@dataclass(frozen=True, kw_only=True)
class Toy:
    """What a toy is made of, and how long it may train."""

    layers: tuple[str, ...]
    d_model: int = 64
    learning_rate: float = 3e-3
    steps: int = 2000
    mixers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


TOYS = {
    "toy-2x64": Toy(layers=("mamba",) * 2),
    "toy-4x64": Toy(layers=("mamba",) * 4, learning_rate=1.5e-3, steps=3000),
    "toy-mamba2": Toy(layers=("mamba2",) * 2, mixers={"mamba2": {"d_state": 16, "head_dim": 16}}),
    "toy-hybrid": Toy(
        layers=("mamba", "attention", "mlp", "mamba"), mixers={"attention": {"heads": 4}}
    ),
}

TASKS: dict[str, PairTask] = {  # those with one right answer
    "ioi": IOI(),
    "two-name-ioi": TwoNameIOI(),
    "induction": Induction(),
}


@dataclass(frozen=True, kw_only=True)
class TrainedToy:
    """A toy with what became of its training."""

    model: SequenceModel
    steps: int
    accuracies: Mapping[int, float]
    """Share of the prompts to stop by that is answered rightly, by the number of steps before."""
    accuracy: float
    """Share of other prompts that is answered rightly at the end."""


def build(name: str, task: PairTask, *, seed: int) -> SequenceModel:
    """A toy before its training: tied embeddings of deviation 0.02, no positions."""
    checks.one_of(tuple(TOYS), toy=name)
    toy = TOYS[name]
    config = ModelConfig(
        layers=toy.layers, d_model=toy.d_model, vocab_size=task.vocab_size, mixers=toy.mixers,
        embedding_std=0.02,
    )  # fmt: skip
    model = SequenceModel(config, seed=seed)
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if parameter.endswith("mixer.out_proj.weight"):
                weight /= math.sqrt(len(toy.layers))
    return model


def trained(
    name: str,
    task: PairTask,
    *,
    seed: int,
    max_steps: int | None = None,
    folder: Path | None = None,
    checkpoint: Path | None = None,
    progress: bool = False,
) -> TrainedToy:
    """The toy of this name and seed, read from disk if it was trained on this machine before.

    `max_steps` is how long it may train, by default as long as the toy says; `folder` is where toys
    are kept, by default that of the user's cache. With a `checkpoint`, a killed training goes on
    from there. ValueError for a toy that there is none of.
    """
    checks.one_of(tuple(TOYS), toy=name)
    require_seed(seed)
    steps = TOYS[name].steps if max_steps is None else max_steps
    kept = folder or cache_folder() / "toys"
    place = kept / f"{name}-{seed}-{_key(name, task, seed, steps)}"
    try:
        return _read(place)
    except (CheckpointError, OSError, ValueError, KeyError):
        pass
    model = build(name, task, seed=seed)
    validation, test = (
        task.sequences(_VALIDATION, seed=derived(seed, 0, stream))
        for stream in (_VALIDATIONS, _TESTS)
    )
    recipe = Recipe(
        steps=steps, learning_rate=TOYS[name].learning_rate, betas=(0.9, 0.98), weight_decay=0.01,
        warmup=min(100, steps), clip=1.0, evaluate_every=100,
        stop_when=("accuracy", TARGET),
    )  # fmt: skip
    outcome = train(
        model,
        loss,
        lambda step: task.sequences(_BATCH_SIZE, seed=derived(seed, step, _BATCHES)),
        recipe,
        seed=seed,
        evaluate=lambda model: {"accuracy": _accuracy(model, *validation)},
        checkpoint=checkpoint,
        progress=progress,
    )
    found = TrainedToy(
        model=model.cpu(),
        steps=outcome.steps,
        accuracies={step: found["accuracy"] for step, found in outcome.evaluations.items()},
        accuracy=_accuracy(model, *test),
    )
    checkpoints.save(found.model, place)
    with replacing(place / "training.json") as file:
        content = {name: getattr(found, name) for name in ("steps", "accuracies", "accuracy")}
        file.write((json.dumps(content) + "\n").encode())
    return found


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Float[Tensor, ""]:
    """Cross-entropy of every next token, and, once more, of the answers, in nats."""
    tokens, ends = batch
    logits = model(tokens[:, :-1])
    rows = torch.arange(len(tokens), device=tokens.device)
    everywhere = nn.functional.cross_entropy(
        logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PADDING
    )
    return everywhere + nn.functional.cross_entropy(logits[rows, ends], tokens[rows, ends + 1])


@torch.no_grad()
def _accuracy(model: nn.Module, tokens: Tensor, ends: Tensor) -> float:
    device = next(model.parameters()).device
    answers = tokens.gather(1, ends[:, None] + 1)[:, 0]
    guesses = model(tokens[:, :-1].to(device), ends[:, None].to(device))[:, 0].argmax(-1)
    return float((guesses.cpu() == answers).double().mean())


def _key(name: str, task: PairTask, seed: int, steps: int) -> str:
    """Of everything the weights follow from, the version of torch among it."""
    toy = asdict(replace(TOYS[name], steps=steps))
    content = [VERSION, torch.__version__, name, toy, repr(task), seed, TARGET]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _read(place: Path) -> TrainedToy:
    content = json.loads((place / "training.json").read_text())
    return TrainedToy(
        model=checkpoints.load(place).eval(),
        steps=int(content["steps"]),
        accuracies={int(step): float(x) for step, x in content["accuracies"].items()},
        accuracy=float(content["accuracy"]),
    )
