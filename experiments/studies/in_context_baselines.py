"""How well can prompts be read without learning to? Estimators beside what is derived of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from bounds.result import Source
from experiments import in_context
from experiments.claims import Claim
from experiments.estimators import expected
from experiments.estimators.parity import bayes_accuracy_without_examples
from experiments.in_context_references import estimate, estimators
from experiments.study import Preset, Study, Trial
from experiments.tasks.in_context import InContextTask
from experiments.tasks.linear_regression import LinearRegression
from experiments.tasks.sparse_parity import SparseParity
from experiments.tasks.vector_retrieval import VectorRetrieval

_ESTIMATORS = tuple(
    dict.fromkeys(
        name for setting in in_context.SETTINGS.values() for name in estimators(setting.task)
    )
)
_SLOW = ("boosted-trees", "network", "grown-tree")
_GARG = Source("garg2022what", "baselines")
_PAPER = Source("park2024mamba", "baselines")
_OURS = Source("seqtheory", "in-context learning")


@dataclass(frozen=True)
class InContextBaselines(Study):
    """Estimators on prompts of every task, at all numbers of examples at once."""

    setting: tuple[str, ...] = (
        "linear-5", "noisy-5", "sparse-10", "two-layer-5", "tree-6", "orthogonal-outliers-5",
        "many-outliers-4", "parity-6", "chain-of-thought-4", "retrieval-8", "retrieval-32",
    )  # fmt: skip
    """Names in `experiments.in_context.SETTINGS`."""
    estimator: tuple[str, ...] = _ESTIMATORS
    """Names in `experiments.in_context_references`; each for the tasks for which it makes sense."""
    prompts: tuple[int, ...] = (2560,)
    seed: tuple[int, ...] = tuple(range(6))

    name = "in-context-baselines"
    title = "In-context learning: estimators that read prompts"
    version = 1
    presets = {
        "quick": Preset("20 s", {"estimator": tuple(e for e in _ESTIMATORS if e not in _SLOW)}),
        "small": Preset("10 min", {"setting": ("two-layer-5", "tree-6"), "prompts": (256,)}),
        "paper": Preset(
            "hours on 2 cores",
            {"setting": tuple(n for n, s in in_context.SETTINGS.items()
                              if s.steps >= in_context.PUBLISHED_STEPS)},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"{estimator}-errs-as-derived",
                statement=f"the mean errors of {estimator} are those derived: over the numbers of "
                "examples, the root mean square of what they differ by is at most 0.1 (of errors "
                "above that of guessing 0, relative to them)",
                source=_OURS, relation="<=", measured="deviation", predicted=0.1,
                where={"estimator": estimator, "derived": True}, over=("setting",), tolerance=0.0,
            )
            for estimator in (
                "least-squares", "averaging", "nearest-key", "mean-value", "linear-attention"
            )
        ),
        Claim(
            name="bayes-without-examples-as-counted",
            statement="without examples, the number of ones alone tells parities as often as "
            "counting says, to 0.02",
            source=_OURS, relation="<=", measured="prior_deviation", predicted=0.02,
            where={"estimator": "bayes"}, over=("setting",), tolerance=0.0,
        ),
        Claim(
            name="lasso-needs-fewer-examples",
            statement="for sparse weights and fewer examples than dimensions, the median error of "
            "the lasso is below that of least squares, on average over numbers of examples",
            source=_GARG, relation="<=", measured="over_least_squares", predicted=0.0,
            where={"estimator": "lasso", "compared": True}, over=("setting",), tolerance=0.0,
        ),
        Claim(
            name="ridge-is-better-with-noise",
            statement="for noisy labels, the median error of the ridge regression that is optimal "
            "for this noise is below that of least squares, on average over numbers of examples",
            source=_OURS, relation="<=", measured="over_least_squares", predicted=0.0,
            where={"estimator": "ridge", "compared": True}, over=("setting",), tolerance=0.0,
        ),
        Claim(
            name="knowing-the-outliers-helps",
            statement="the median error of least squares that is told which examples are clean is "
            "below that of least squares that is not, on average over numbers of examples",
            source=_PAPER, relation="<=", measured="over_least_squares", predicted=0.0,
            where={"estimator": "least-squares-on-clean", "compared": True}, over=("setting",),
            tolerance=0.0,
        ),
        Claim(
            name="trees-split-signs",
            statement="the median error of greedy trees on the signs of the inputs is below that "
            "of those on the inputs, on average over numbers of examples",
            source=_OURS, relation="<=", measured="over_tree", predicted=0.0,
            where={"estimator": "tree-on-signs", "compared_to_tree": True}, over=("setting",),
            tolerance=0.0,
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    def trials(self) -> tuple[Trial, ...]:
        """The grid, without estimators that make no sense for a task."""
        return tuple(
            trial
            for trial in super().trials()
            if trial.config["estimator"]
            in estimators(in_context.SETTINGS[trial.config["setting"]].task)
        )

    @staticmethod
    def measure(
        rng: np.random.Generator, *, setting: str, estimator: str, prompts: int, seed: int
    ) -> dict[str, Any]:
        """Mean errors by the number of examples, and how far they are from those derived."""
        task = in_context.SETTINGS[setting].task
        drawn = task.sample(prompts, seed=seed, split="test")
        each = in_context.errors(estimate(estimator, drawn, task), drawn, task)
        errors = each.nanmean(dim=0)
        found = {
            "errors": errors.numpy(),
            "median_errors": each.nanmedian(dim=0).values.numpy(),
            "error": in_context.final(errors),
        }
        if isinstance(task, SparseParity):
            prior = 1 - bayes_accuracy_without_examples(d=task.d, sparsity=task.sparsity)
            found["prior_deviation"] = abs(errors[0].item() - prior)
        derived = derived_errors(estimator, task)
        if derived is not None:
            scale = derived.clamp(min=1)
            found["derived_errors"] = derived.numpy()
            found["deviation"] = ((errors - derived) / scale).square().mean().sqrt().item()
        return found

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """The rows beside least squares, or the tree, on the same prompts.

        `over_least_squares` and `over_tree`: mean over fewer examples than dimensions (all, where
        there is no such number) of the median errors above theirs.
        """
        names = ("deviation", "prior_deviation")
        rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *names])))
        for column, marked, name in (
            ("over_least_squares", "compared", "least-squares"),
            ("over_tree", "compared_to_tree", "tree"),
        ):
            same = ["setting", "prompts", "seed"]
            theirs = rows.loc[rows["estimator"] == name, [*same, "median_errors"]]
            beside = rows[same].merge(theirs, on=same, how="left", validate="many_to_one")
            rows[column] = [
                _mean_excess(mine, other, setting)
                for mine, other, setting in zip(
                    rows["median_errors"], beside["median_errors"], rows["setting"], strict=True
                )
            ]
            rows[marked] = rows[column].notna()
        return rows.assign(derived=rows["deviation"].notna())


def derived_errors(estimator: str, task: InContextTask) -> Tensor | None:
    """The errors that are derived for an estimator, by the guess; None where none are."""
    match estimator, task:
        case "least-squares", LinearRegression(noise=0.0):
            return expected.least_squares_errors(task.num_examples, d=task.d)
        case "averaging", LinearRegression(noise=0.0):
            return expected.averaging_errors(task.num_examples, d=task.d)
        case "nearest-key", VectorRetrieval(query_noise=0.0):
            return torch.zeros(task.num_queries, dtype=torch.float64)
        case "mean-value", VectorRetrieval():
            error = expected.mean_value_error(task.num_pairs)
        case "linear-attention", VectorRetrieval(query_noise=0.0):
            error = expected.linear_attention_error(task.num_pairs, d=task.d)
        case _:
            return None
    return torch.full((task.num_queries,), error, dtype=torch.float64)


def _mean_excess(mine: Any, other: Any, setting: str) -> float:
    if not isinstance(other, np.ndarray) or mine.shape != other.shape:
        return np.nan
    task = in_context.SETTINGS[setting].task
    few = task.d if isinstance(task, LinearRegression) else len(mine)
    return float(np.nanmean((mine - other)[:few]))
