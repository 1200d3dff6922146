"""Which sequence models learn from the examples in a prompt, and which tasks tell them apart?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments import in_context, in_context_models, scratch
from experiments.claims import Claim
from experiments.estimators.parity import bayes_accuracy_without_examples
from experiments.in_context_references import reference
from experiments.recall_tables import at_best_rate, curves
from experiments.study import Preset, Study
from experiments.tasks.in_context import InContextTask
from experiments.tasks.sparse_parity import SparseParity

LEARNED = 0.9
"""Skill, 1 less the final error, from which a task is learned."""
FOLLOWED = 0.1
"""Mean excess over least squares up to which it is followed."""
BAYES = 0.99
"""Share of the Bayes accuracy of parities at which a training has jumped."""
VISIBLE = 0.05
"""Gap to the best model that can be seen."""
_PASSES = 3
"""Of a step: forward, and backward twice as much."""
_TESTED = 1280
_VALIDATED = 256

_PAPER = Source("park2024mamba", "summary table")
_HYBRID = Source("park2024mamba", "MambaFormer")
_OURS = Source("seqtheory", "in-context learning")
_MATRIX = ("transformer", "mamba", "mambaformer")


def _kind(kind: str, **more: Any) -> dict[str, Any]:
    return {
        "where": {"kind": kind, **more},
        "over": ("setting", "width_factor", "layers"),
        "tolerance": 0.0,
    }


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
    """Learning rates, in units of that of the model at width 32; the best one counts."""
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
            "days on 2 cores",
            {"setting": tuple(n for n, s in in_context.SETTINGS.items()
                              if s.steps < in_context.PUBLISHED_STEPS and n != "linear-2"),
             "model": (*in_context_models.MODELS,), "rate_factor": (0.25, 1.0),
             "step_factor": (2.0,), "batch_size": (64,)},
        ),
        "paper": Preset(
            "weeks on a GPU",
            {"setting": tuple(n for n, s in in_context.SETTINGS.items()
                              if s.steps >= in_context.PUBLISHED_STEPS),
             "model": (*in_context_models.MODELS,), "layers": (12,), "heads": (8,),
             "rate_factor": (0.01, 0.02, 0.04, 0.08), "batch_size": (64,)},
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
            statement="Transformers guess parities at most half way from what the number of ones "
            "tells to always right",
            source=_PAPER, relation="<=", measured="above_prior", predicted=0.5,
            **_kind("sparse parity", model="transformer"),
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
            statement="the hybrid with attention first guesses parities at most half way from what "
            "the number of ones tells to always right, in the steps that are given to MambaFormer",
            source=_HYBRID, relation="<=", measured="above_prior", predicted=0.5,
            **_kind("sparse parity", model="hybrid"),
        ),
        Claim(
            name="mamba-trails-in-retrieval",
            statement="where a model has learned retrieval, the error of Mamba after as many steps "
            "exceeds that of the best one by more than can be overlooked",
            source=_PAPER, relation=">=", measured="gap", predicted=VISIBLE,
            **_kind("vector retrieval", model="mamba", comparable=True),
        ),
        Claim(
            name="attention-repairs-retrieval",
            statement="that of MambaFormer does not; undecided if it has not learned either in "
            "fewer than the published steps",
            source=_PAPER, relation="<=", measured="gap", predicted=VISIBLE,
            **_kind("vector retrieval", model="mambaformer", decided=True),
        ),
        Claim(
            name="mamba-trails-on-trees",
            statement="the same holds on decision trees",
            source=_PAPER, relation=">=", measured="gap", predicted=VISIBLE,
            **_kind("decision tree", model="mamba", comparable=True),
        ),
        Claim(
            name="attention-repairs-trees",
            statement="that of MambaFormer does not",
            source=_PAPER, relation="<=", measured="gap", predicted=VISIBLE,
            **_kind("decision tree", model="mambaformer", decided=True),
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
            evaluate_every=max(1, steps // 40),
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
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """The trainings at the best learning rate of their model and setting, compared.

        The best has the largest mean validation skill over its seeds. `skill`: 1 less the error.
        `gap`: by how much the error exceeds that of the best model, on average over seeds.
        `behind_mamba`: by how much it exceeds that of Mamba of the same seed. `before_knee`: excess
        over the reference, averaged over fewer examples than dimensions. `above_prior`, of
        parities: accuracy, as a share of the way from that without examples to 1. `jumped`: whether
        the accuracy is 99 % of that of the Bayes rule. `decided` and `followed`: not of a group of
        seeds that has not learned, or followed least squares, in fewer steps than published;
        `comparable` and `beside_mamba`: not if this holds of the best model, or of Mamba.
        """
        shape = [axis.name for axis in fields(InContextLearning)]
        shape = [name for name in shape if name not in ("rate_factor", "seed")]
        rows = at_best_rate(rows, shape, by="validation_skill").reset_index(drop=True)
        skill = 1 - rows["error"]
        task = [name for name in shape if name != "model"]
        mean = rows.groupby(shape)["error"].transform("mean")
        best = mean.groupby([rows[name] for name in task]).transform("min")
        long = rows["budget"] >= in_context.PUBLISHED_STEPS
        decided = long | (mean <= 1 - LEARNED)
        mamba = rows.assign(beside_mamba=decided)[rows["model"] == "mamba"]
        mamba = mamba[[*task, "seed", "error", "beside_mamba"]]
        beside = rows[[*task, "seed"]].merge(
            mamba, on=[*task, "seed"], how="left", validate="many_to_one"
        )
        tasks = [in_context.SETTINGS[name].task for name in rows["setting"]]
        excess = [
            float(np.mean((errors - least)[: task.d]))
            for task, errors, least in zip(
                tasks, rows["errors"], rows["reference_errors"], strict=True
            )
        ]
        rows = rows.assign(before_knee=excess)
        return rows.assign(
            skill=skill,
            gap=rows["error"] - best,
            behind_mamba=rows["error"] - beside["error"],
            beside_mamba=beside["beside_mamba"].eq(True),
            comparable=long | (best <= 1 - LEARNED),
            above_prior=[
                (value - prior) / (1 - prior)
                for value, prior in zip(skill, map(_prior, tasks), strict=True)
            ],
            jumped=skill >= BAYES * (1 - rows["reference_error"]),
            decided=decided,
            followed=long | (rows.groupby(shape)["before_knee"].transform("mean") <= FOLLOWED),
        )


def _prior(task: InContextTask) -> float:
    """Accuracy without examples, of parities; 0 otherwise, so that the way is the skill."""
    if not isinstance(task, SparseParity):
        return 0.0
    return bayes_accuracy_without_examples(d=task.d, sparsity=task.sparsity)
