"""The table of the study of in-context learning: trainings compared with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas

from experiments.estimators.parity import bayes_accuracy_without_examples
from experiments.in_context import PUBLISHED_STEPS, SETTINGS
from experiments.recall_tables import at_best_rate
from experiments.tasks.in_context import InContextTask
from experiments.tasks.sparse_parity import SparseParity
from experiments.tasks.vector_retrieval import VectorRetrieval

LEARNED = 0.9
"""Mean skill, 1 less the final error, from which a model has learned a task."""
FOLLOWED = 0.1
"""Mean excess over least squares up to which it is followed."""
BAYES = 0.99
"""Share of the Bayes accuracy of parities at which a training has jumped."""


def compared(rows: pandas.DataFrame, axes: Sequence[str]) -> pandas.DataFrame:
    """The trainings at the best learning rate of their model and setting, with comparisons.

    The best has the largest mean validation skill over its seeds. Of each training:

    - `skill`: 1 less the error.
    - `gap`: by how much the error exceeds that of the best model with the same seed. The best has
      the smallest mean error over seeds.
    - `behind_mamba`: by how much it exceeds that of Mamba with the same seed.
    - `before_knee`: excess over the reference, averaged over fewer examples than dimensions.
    - `above_prior`, of parities: accuracy, as a share of the way from that without examples to 1.
    - `jump_step`, of parities: the step at which the validation accuracy was first 99 % of that of
      the Bayes rule, NaN if it never was; `jumped`: whether it was.
    - `many_pairs`: not of retrieval of fewer pairs than dimensions.

    What has not been learned in fewer steps than published says nothing. `learned`: whether the
    seeds of a model have, on average, in some setting, or had as many steps. Of all settings of a
    kind: `decided`, whether this model has; `comparable`, whether the best one has; `beside_mamba`
    and `beside_mambaformer`, whether these have; `followed`, whether this one follows the
    reference before the knee.
    """
    shape = [name for name in axes if name not in ("rate_factor", "seed")]
    rows = at_best_rate(rows, shape, by="validation_skill").reset_index(drop=True)
    tasks = [SETTINGS[name].task for name in rows["setting"]]
    skill = 1 - rows["error"]
    rows = rows.assign(
        skill=skill,
        before_knee=[
            float(np.mean((errors - least)[: task.d]))
            for task, errors, least in zip(
                tasks, rows["errors"], rows["reference_errors"], strict=True
            )
        ],
        above_prior=[
            (value - prior) / (1 - prior)
            for value, prior in zip(skill, map(_prior, tasks), strict=True)
        ],
        jump_step=[
            _first(steps, skills >= BAYES * (1 - error))
            for steps, skills, error in zip(
                rows["curve_steps"], rows["curve_skill"], rows["reference_error"], strict=True
            )
        ],
        many_pairs=[not isinstance(t, VectorRetrieval) or t.num_pairs >= t.d for t in tasks],
    )
    rows["jumped"] = rows["jump_step"].notna()
    return _judged(_beside(rows, shape), shape)


def _beside(rows: pandas.DataFrame, shape: Sequence[str]) -> pandas.DataFrame:
    """Differences to the best model, and to Mamba, of the same seed."""
    same = [*(name for name in shape if name != "model"), "seed"]
    mean = rows.groupby(shape)["error"].transform("mean")
    best = rows.assign(mean=mean).sort_values("mean", kind="stable")
    first = best.groupby(same[:-1])["model"].transform("first").reindex(rows.index)
    found = {}
    others = {"gap": rows["model"] == first, "behind_mamba": rows["model"] == "mamba"}
    for name, chosen in others.items():
        theirs = rows.loc[chosen, [*same, "error"]]
        beside = rows[same].merge(theirs, on=same, how="left", validate="many_to_one")["error"]
        found[name] = rows["error"] - beside
    return rows.assign(**found)


def _judged(rows: pandas.DataFrame, shape: Sequence[str]) -> pandas.DataFrame:
    published = [max(PUBLISHED_STEPS, SETTINGS[name].steps) for name in rows["setting"]]
    long = rows["budget"] >= published

    def mean(column: str) -> pandas.Series:
        return rows.groupby(list(shape))[column].transform("mean")

    learned = long | (mean("skill") >= LEARNED)
    followed = long | (mean("before_knee") <= FOLLOWED)
    task = [rows[name] for name in shape if name != "model"]
    best = learned.groupby(task).transform("any")
    kind, model = rows["kind"], rows["model"]
    decided = learned.groupby([kind, model]).transform("all")

    def beside(name: str) -> pandas.Series:
        return kind.map(decided[model == name].groupby(kind).all()).eq(True)

    return rows.assign(
        learned=learned,
        decided=decided,
        followed=followed.groupby([kind, model]).transform("all"),
        comparable=best.groupby(kind).transform("all"),
        beside_mamba=beside("mamba"),
        beside_mambaformer=beside("mambaformer"),
    )


def _first(steps: np.ndarray, there: np.ndarray) -> float:
    return float(steps[there][0]) if there.any() else np.nan


def _prior(task: InContextTask) -> float:
    """Accuracy without examples, of parities; 0 otherwise, so that the way is the skill."""
    if not isinstance(task, SparseParity):
        return 0.0
    return bayes_accuracy_without_examples(d=task.d, sparsity=task.sparsity)
