"""Which sequence models learn from the examples in a prompt, and which tasks tell them apart?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas
from torch import nn

from bounds.result import Source
from experiments import in_context, in_context_models, scratch
from experiments.claims import Claim
from experiments.in_context_references import reference
from experiments.in_context_tables import FOLLOWED, LEARNED, compared
from experiments.in_context_verdicts import PUBLISHED, SOLVED, VISIBLE_FROM
from experiments.recall_tables import curves
from experiments.study import Preset, Study
from experiments.tasks.in_context import InContextTask
from experiments.tasks.input_shifts import SHIFTS, ShiftedRegression
from experiments.tasks.linear_regression import LinearRegression

_PASSES = 3
"""Of a step: forward, and backward twice as much."""
_TESTED = 1280
_VALIDATED = 256

_PAPER = Source("park2024mamba", "summary table")
_HYBRID = Source("park2024mamba", "MambaFormer")
_MATRIX = ("transformer", "mamba", "mambaformer")
_ONE_OF_EACH_KIND = (
    "linear-5", "sparse-10", "two-layer-5", "tree-6", "orthogonal-outliers-5", "many-outliers-4",
    "parity-6", "chain-of-thought-4", "retrieval-8",
)  # fmt: skip


_POINT = (
    "setting", "width_factor", "layers", "heads", "matched", "step_factor", "batch_size"
)  # fmt: skip


def _kind(kind: str, **more: Any) -> dict[str, Any]:
    return {"where": {"kind": kind, **more}, "over": _POINT, "tolerance": 0.0}


def _summarised(kind: str, model: str, verdict: str) -> Claim:
    """A cell of the published summary table, other than of parities."""
    name, where = kind.replace(" ", "-"), {"model": model, "many_pairs": True}
    many = " of as many pairs as dimensions or more" if kind == "vector retrieval" else ""
    if verdict == SOLVED:
        return Claim(
            name=f"{model}-solves-{name}",
            statement=f"the error of {model} on {kind} prompts{many} exceeds that of the best "
            "model by at most 0.05 of that of guessing 0; undecided if it has not learned the task "
            "in fewer than the published steps",
            source=_PAPER, relation="<=", measured="gap", predicted=VISIBLE_FROM,
            **_kind(kind, **where, decided=True),
        )  # fmt: skip
    return Claim(
        name=f"{model}-trails-in-{name}",
        statement=f"the error of {model} on {kind} prompts{many} exceeds that of the best model, "
        "where that has learned the task, by at least 0.05 of that of guessing 0",
        source=_PAPER, relation=">=", measured="gap", predicted=VISIBLE_FROM,
        **_kind(kind, **where, comparable=True),
    )  # fmt: skip


@dataclass(frozen=True)
class InContextLearning(Study):
    """Models trained on fresh prompts of a task, beside the best estimator that reads prompts."""

    setting: tuple[str, ...] = ("linear-2", "retrieval-8")
    """Names in `experiments.in_context.SETTINGS`: a task of some size."""
    model: tuple[str, ...] = _MATRIX
    """Names in `experiments.in_context_models.MODELS`."""
    width_factor: tuple[float, ...] = (1.0,)
    """Width of the residual stream, in units of that of the setting."""
    layers: tuple[int, ...] = (2,)
    """Layers of two blocks each."""
    heads: tuple[int, ...] = (4,)
    matched: tuple[str, ...] = ("depth",)
    """By which the widths of models are chosen: "depth", all the same; "parameters" or "flops", as
    many as the Transformer has."""
    rate_factor: tuple[float, ...] = (1.0,)
    """Learning rates, in units of that of the model in `MODELS`; the best one counts."""
    step_factor: tuple[float, ...] = (1.0,)
    """Steps, in units of those of the setting."""
    batch_size: tuple[int, ...] = (32,)
    seed: tuple[int, ...] = tuple(range(3))
    """Initial weights and prompts."""

    name = "in-context-learning"
    title = "In-context learning"
    version = 1
    presets = {
        "quick": Preset("2 min"),
        "small": Preset(
            "15 min",
            {"setting": ("linear-5", "parity-6", "retrieval-8"),
             "model": tuple(m for m in in_context_models.MODELS if "without" not in m),
             "seed": (0, 1)},
        ),
        "medium": Preset(
            "a day on 2 cores",
            {"setting": (*_ONE_OF_EACH_KIND, "retrieval-4", "retrieval-16", "retrieval-32"),
             "model": (*_MATRIX, "hybrid", "s4"), "rate_factor": (0.5, 1.0), "step_factor": (4.0,),
             "batch_size": (64,), "seed": tuple(range(5))},
        ),
        "paper": Preset(
            "weeks on a GPU",
            {"setting": tuple(n for n, s in in_context.SETTINGS.items()
                              if s.steps >= in_context.PUBLISHED_STEPS),
             "model": (*in_context_models.MODELS,), "layers": (12,), "heads": (8,),
             "rate_factor": (0.008, 0.016, 0.032, 0.067, 0.2), "batch_size": (64,),
             "seed": tuple(range(5))},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"{model}-follows-least-squares",
                statement=f"before the knee at k = d, the errors of {model} exceed those of least "
                "squares by at most a tenth of the trivial error, on average; undecided if they "
                "do not in fewer than the published steps",
                source=_PAPER, relation="<=", measured="before_knee", predicted=FOLLOWED,
                **_kind("linear", model=model, followed=True),
            )
            for model in _MATRIX
        ),
        *(
            Claim(
                name=f"{model}-meets-the-knee",
                statement=f"with many examples {model} errs by at most a tenth of the trivial "
                "error; undecided if it does not in fewer than the published steps",
                source=_PAPER, relation=">=", measured="skill", predicted=LEARNED,
                **_kind("linear", model=model, decided=True),
            )
            for model in _MATRIX
        ),
        Claim(
            name="transformers-fail-parity",
            statement="where a model has learned parities, Transformers guess them at most half "
            "way from what the number of ones tells to always right, after as many steps",
            source=_PAPER, relation="<=", measured="above_prior", predicted=0.5,
            **_kind("sparse parity", model="transformer", comparable=True),
        ),
        *(
            Claim(
                name=f"{model}-learns-parity",
                statement=f"{model} guesses parities at nine tenths of that way at least; "
                "undecided if it does not in fewer than the published steps",
                source=source, relation=">=", measured="above_prior", predicted=LEARNED,
                **_kind("sparse parity", model=model, decided=True),
            )
            for model, source in (
                ("mamba", _PAPER), ("mambaformer", _PAPER), ("mamba-transformer", _HYBRID),
            )
        ),
        Claim(
            name="hybrid-without-leading-mamba-fails-parity",
            statement="where MambaFormer has learned parities, the hybrid with attention first "
            "guesses them at most half way from what the number of ones tells to always right, "
            "after as many steps",
            source=_HYBRID, relation="<=", measured="above_prior", predicted=0.5,
            **_kind("sparse parity", model="hybrid", beside_mambaformer=True),
        ),
        *(
            _summarised(kind, model, verdict)
            for (kind, model), verdict in PUBLISHED.items()
            if kind != "sparse parity"
        ),
        *(
            Claim(
                name=f"{model}-trails-mamba",
                statement=f"{model}, whose dynamics do not depend on the input, errs more in "
                "linear regression than Mamba, where Mamba has learned it",
                source=_PAPER, relation=">=", measured="behind_mamba", predicted=0.0,
                **_kind("linear", model=model, beside_mamba=True),
            )
            for model in ("s4", "s4-mamba")
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        setting: str,
        model: str,
        width_factor: float,
        layers: int,
        heads: int,
        matched: str,
        rate_factor: float,
        step_factor: float,
        batch_size: int,
        seed: int,
    ) -> dict[str, Any]:
        """Errors by the number of examples after a training, and along it."""
        chosen = in_context.SETTINGS[setting]
        task = chosen.task
        test = task.sample(_TESTED, seed=seed, split="test")
        width = in_context_models.matched(
            model, "transformer", by=matched,
            d_model=round(chosen.d_model * width_factor), layers=layers, heads=heads,
            length=task.length,
        )  # fmt: skip
        network = in_context_models.build(
            model, task, d_model=width, layers=layers, heads=heads, seed=seed
        )
        flops = in_context_models.block_flops(
            model, d_model=width, layers=layers, length=task.length
        )
        steps = round(chosen.steps * step_factor)
        outcome = in_context.fit(
            network,
            chosen,
            task.sample(_VALIDATED, seed=seed, split="validation"),
            learning_rate=in_context_models.MODELS[model].learning_rate * rate_factor,
            batch_size=batch_size,
            steps=steps,
            evaluate_every=max(1, steps // 20),
            seed=seed,
            checkpoint=scratch.checkpoint("in-context"),
        )
        errors = in_context.curve(in_context.guesses(network, test), test, task)
        best = in_context.curve(reference(test, task), test, task)
        return {
            "kind": chosen.kind,
            "errors": errors.numpy(),
            "reference_errors": best.numpy(),
            "error": in_context.final(errors),
            "reference_error": in_context.final(best),
            "first_error": errors[0].item(),
            "validation_skill": outcome.final["skill"],
            "status": outcome.status,
            "steps": outcome.steps,
            "budget": steps,
            "parameters": sum(p.numel() for p in network.parameters()),
            "width": width,
            "token_flops": flops,
            "step_flops": _PASSES * flops * task.length * batch_size,
            **curves(outcome.evaluations),
            **(shifted_errors(network, task, seed=seed) if _plain(task) else {}),
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """See `experiments.in_context_tables.compared`."""
        return compared(rows, [axis.name for axis in fields(InContextLearning)])


def _plain(task: InContextTask) -> bool:
    return isinstance(task, LinearRegression) and not task.noise and task.sparsity is None


def shifted_errors(model: nn.Module, task: LinearRegression, *, seed: int) -> dict[str, float]:
    """Errors of the last guess on prompts unlike those of the training, by the name of the shift.

    Where the query is orthogonal to all examples, there are fewer of them than dimensions.
    """
    found = {}
    for shift in SHIFTS:
        few = min(task.num_examples, task.d) if shift == "orthogonal_query" else task.num_examples
        shifted = ShiftedRegression(task=replace(task, num_examples=few), shift=shift)
        prompts = shifted.sample(_TESTED, seed=seed, split="test")
        curve = in_context.curve(in_context.guesses(model, prompts), prompts, shifted)
        found[f"error_{shift}"] = curve[-1].item()
    return found
