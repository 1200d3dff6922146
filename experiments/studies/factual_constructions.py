"""Do transformers built by hand recall facts, and fail, as predicted, and where are the facts?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch

from bounds import checks
from bounds.result import Source
from experiments.claims import Claim
from experiments.study import Preset, Study
from memory.factual_capacity import (
    attention_only_dimension,
    attention_only_error,
    attention_with_mlp_error,
    readout_error,
)
from memory.factual_constructions import attention_only, attention_with_mlp, fact_kernel
from memory.factual_recall import FactualRecall, draw_task
from memory.factual_transformer import FactualTransformer, recalled
from memory.information import factual_recall_bits

CONSTRUCTIONS = ("attention", "relu-mlp", "quadratic-mlp")
DELTA = 0.1
"""Probability with which attention of a sufficient dimension may miss a fact."""
_REFERENCE = 256
"""Prompts over which the contribution of a knocked-out memory is averaged."""
_ASKED = 16
"""Facts of which the predicted error is the mean."""
_LARGE_ERROR = 0.02
"""Errors from here on are measured to a few per cent in a moderate number of draws."""

_attention_error, _generic_error = cache(attention_only_error), cache(attention_with_mlp_error)

_LAW = Source("seqtheory", "factual recall, M5")
_EACH = ("construction", "S", "R", "D", "size")
_ERROR_LAW = dict(
    source=_LAW, measured="error_share", predicted=1.0, over=_EACH, tolerance=0.3,
    where={"memory": "attention", "large_error": True},
)  # fmt: skip
_RECALL_LAW = dict(
    source=_LAW, measured="recall", predicted="predicted_recall", over=_EACH, tolerance=0.15,
    where={"memory": "mlp"},
)  # fmt: skip


@dataclass(frozen=True)
class FactualConstructions(Study):
    """All facts asked of transformers with hand-set weights, whole and with a memory knocked out.

    `size` is relative to what is sufficient: of `attention`, the dimension at which a union bound
    leaves a probability of 0.1 for any error; of the others, as many features of the MLP as facts.
    """

    construction: tuple[str, ...] = CONSTRUCTIONS
    """Which memory holds the facts, and the units of the MLP."""
    S: tuple[int, ...] = (16,)
    """Subjects."""
    R: tuple[int, ...] = (8,)
    """Relations."""
    D: tuple[int, ...] = (4,)
    """Answers of a relation; at least 16 in all, for the law of generic features."""
    size: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0)
    """Sizes in units of the sufficient one."""
    seed: tuple[int, ...] = tuple(range(36))
    """Draws of facts, embeddings and random weights."""

    name = "factual-constructions"
    title = "Factual recall by construction"
    version = 1
    presets = {
        "quick": Preset("15 s"),
        "small": Preset(
            "4 min", {"S": (16, 64), "D": (4, 8), "size": (0.25, 0.375, 0.5, 0.75, 1.0)}
        ),
        "medium": Preset(
            "3 h on 2 cores",
            {"S": (32, 64, 128), "R": (8, 16), "D": (4, 8), "size": (0.25, 0.5, 1.0)},
        ),
        "paper": Preset(
            "two days on 2 cores",
            {"S": (64, 128, 256), "R": (8, 16, 32), "D": (8,), "size": (0.5, 0.75, 1.0)},
        ),
    }
    claims = (
        Claim(
            name="attention-of-sufficient-dimension",
            statement="of the dimension from a union bound, attention alone recalls all facts "
            "with probability 0.9",
            source=Source("nichani2024facts", "Theorem 3 (seqtheory, M3, for the constant)"),
            relation="<=",
            measured="wrong",
            predicted=0.0,
            where={"memory": "attention", "sufficient": True},
            over=_EACH,
            failure_probability=DELTA,
            tolerance=0.0,
        ),
        Claim(
            name="mlp-with-a-feature-for-every-fact",
            statement="an MLP with as many independent features as facts recalls every fact",
            source=Source("nichani2024facts", "Theorem 4 (seqtheory for the constant)"),
            relation="<=",
            measured="wrong",
            predicted=0.0,
            where={"memory": "mlp", "sufficient": True},
            over=_EACH,
            failure_probability=0.0,
            violations="wrong",
            instances="facts",
            tolerance=0.0,
        ),
        Claim(
            name="attention-errs-at-least-as-predicted",
            statement="where 2 % and more are wrong, attention alone errs at least as often as "
            "its law of cross-talk says, -30 %",
            relation=">=",
            **_ERROR_LAW,
        ),
        Claim(
            name="attention-errs-at-most-as-predicted",
            statement="where 2 % and more are wrong, attention alone errs at most as often as its "
            "law of cross-talk says, +30 %",
            relation="<=",
            **_ERROR_LAW,
        ),
        Claim(
            name="mlp-recalls-at-least-as-predicted",
            statement="the MLP recalls at least the share that follows from the kernel of its "
            "features, -15 %",
            relation=">=",
            **_RECALL_LAW,
        ),
        Claim(
            name="mlp-recalls-at-most-as-predicted",
            statement="the MLP recalls at most the share that follows from the kernel of its "
            "features, +15 %",
            relation="<=",
            **_RECALL_LAW,
        ),
        Claim(
            name="mlp-as-with-generic-features",
            statement="control: the MLP recalls at most what as many generic features would, "
            "+15 %: ReLU units tell relations apart first, which generic features do not",
            relation="<=",
            expected="refuted",
            corrected_by="mlp-recalls-at-most-as-predicted",
            **(_RECALL_LAW | dict(predicted="generic_recall")),
        ),
        Claim(
            name="knocking-out-the-memory-destroys-recall",
            statement="without the memory that the construction names, no more is recalled than "
            "by always giving the most frequent answer",
            source=Source("seqtheory", "factual recall"),
            relation="<=",
            measured="without_named",
            predicted="guessing",
            where={"sufficient": True},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="knocking-out-the-other-does-not",
            statement="where the MLP is the memory, 95 % are recalled without the direct path",
            source=Source("seqtheory", "factual recall"),
            relation=">=",
            measured="without_other",
            predicted=0.95,
            where={"memory": "mlp", "sufficient": True},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="information-limit",
            statement="no memory holds more bits about the facts than the numbers have that were "
            "set by them",
            source=Source("seqtheory", "theorem M6"),
            relation=">=",
            measured="stored_bits",
            predicted="bits_needed",
            over=_EACH,
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "construction": self.construction, "S": self.S, "R": self.R, "D": self.D,
            "size": self.size, "seed": self.seed,
        }  # fmt: skip

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        construction: str,
        S: int,
        R: int,
        D: int,
        size: float,
        seed: int,
    ) -> dict[str, Any]:
        task = draw_task(S=S, R=R, D=D, noise=8, length=16, seed=seed)
        model = build(construction, task, size, seed)
        generator = torch.Generator().manual_seed(seed)
        prompts = task.every_fact(generator)
        reference = task.sample(_REFERENCE, generator).tokens
        memory = "attention" if construction == "attention" else "mlp"

        def wrong(without: str | None = None) -> int:
            def logits(tokens: torch.Tensor) -> torch.Tensor:
                if without is None:
                    return model(tokens)
                return model.knocked_out(tokens, without, reference)

            return int((~recalled(logits, prompts)).sum())

        d, width, facts = model.sizes["d"], model.sizes["width"], S * R
        predicted = generic = 0.0
        if memory == "attention":
            predicted = generic = _attention_error(R=R, D=D, d=d)
            learned = model.output[model.output.abs().sum(dim=-1) > 0].numel()
        else:
            asked = rng.permutation(facts)[:_ASKED]
            predicted = readout_error(
                fact_kernel(model, prompts).numpy()[:, asked], prompts.relation.numpy(),
                R=R, D=D, d=d, asked=asked,
            )  # fmt: skip
            generic = _generic_error(S=S, R=R, D=D, d=d, width=width, activation=model.activation)
            learned = model.mlp_parameters // 2
        missed = wrong()
        error = missed / facts
        bits = float(factual_recall_bits(S=S, R=R, D=D, error=min(error, 1 - 1 / D)))
        return {
            "memory": memory,
            "d": d,
            "width": width,
            "facts": facts,
            "wrong": missed,
            "recall": 1 - error,
            "predicted_recall": 1 - predicted,
            "generic_recall": 1 - generic,
            "predicted_error": predicted,
            "error_share": error / max(predicted, 1e-300),
            "large_error": predicted >= _LARGE_ERROR,
            "sufficient": size >= 1,
            "without_named": 1 - wrong(memory) / facts,
            "without_other": 1 - (wrong("attention") if memory == "mlp" else missed) / facts,
            "guessing": int(torch.bincount(prompts.answer).max()) / facts,
            "attention_parameters": model.attention_parameters,
            "mlp_parameters": model.mlp_parameters,
            "parameters": model.counted_parameters,
            "bits_needed": bits,
            "stored_bits": 64 * learned,
            "density": bits / learned,
        }


def build(construction: str, task: FactualRecall, size: float, seed: int) -> FactualTransformer:
    """A construction of `size` times what is sufficient for the facts of the task."""
    checks.one_of(CONSTRUCTIONS, construction=construction)
    checks.positive(size=size)
    if construction == "attention":
        enough = float(attention_only_dimension(S=task.S, R=task.R, D=task.D, delta=DELTA))
        d = max(4, round(size * enough))
        separator = "exact" if task.vocabulary <= d else "margin"
        return attention_only(task, d, 4, separator=separator, seed=seed)
    features = max(1, round(size * task.S * task.R))
    d = max(task.vocabulary, 2 * task.S, 2 * task.R)
    quadratic = construction == "quadratic-mlp"
    return attention_with_mlp(
        task, d + d % 2, 4, features * (2 if quadratic else 1), seed=seed, enforce=size >= 1,
        activation="quadratic" if quadratic else "relu",
    )  # fmt: skip
