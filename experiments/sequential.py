"""What a course of learning facts shows: its times and its plateau, beside the predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas

from memory.dynamics import Course
from memory.factual_recall import FactualRecall
from memory.plateau import crossing, plateau
from memory.stages import (
    Token,
    exact_half_loss_time,
    growth_rates,
    guesses,
    half_loss_time,
    rate_ratio,
)

_TOKENS: tuple[Token, ...] = ("relation", "subject")
_APART = 2.0
"""Ratio of growth rates from which on a plateau is expected."""
_TOGETHER = 1.5
"""Ratio up to which none is."""


def horizon(task: FactualRecall, sizes: Mapping[str, Any]) -> float:
    """Steps that are enough to learn all facts: 1.6 times the predicted time for uniform
    prompts, and a little more than that of the rarest subject and relation."""
    rarest = task.relation_probabilities.min(), task.subject_probabilities.min()
    uniform = 1 / task.R, 1 / task.S
    return max(
        float(half_loss_time(**sizes, token=token, probability=probability))
        for token, rare, usual in zip(_TOKENS, rarest, uniform, strict=True)
        for probability in (float(rare) / 1.15, usual / 1.6)
    )


def curves(course: Course) -> dict[str, Any]:
    """The curves, and what they come to."""
    names = ("steps", "total", "relation", "subject", "index", "correct", "hallucinated")
    return {
        **{name: getattr(course, name) for name in names},
        "accuracies": course.accuracy,
        "final_accuracy": float(course.accuracy[-1]),
        "background": float(course.background.max()),
    }


def times(course: Course, task: FactualRecall, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """When losses halve, beside the times of balanced facts and uniform prompts."""
    halves = {token: crossing(course.steps, getattr(course, token)) for token in _TOKENS}
    # Unbalanced answers of a relation give it a larger rate.
    excess = math.sqrt(task.D * guesses(task, "relation").drawn)
    exact = {
        "relation": exact_half_loss_time(
            **sizes, token="relation", probability=min(1.0, excess / task.R)
        ),
        "subject": exact_half_loss_time(**sizes, token="subject"),
    }
    brackets = {token: half_loss_time(**sizes, token=token) for token in _TOKENS}
    ratio = float(rate_ratio(S=task.S, R=task.R, D=task.D))
    rates = growth_rates(task)
    learned = course.marginal[0] > 1e-3
    frequencies = crossing(course.steps, course.marginal) if learned else math.nan
    return {
        **{f"half_{token}": halves[token] for token in _TOKENS},
        **{f"predicted_{token}": exact[token] for token in _TOKENS},
        "lead": math.log(halves["subject"] / halves["relation"]),
        "latest_share": max(halves[token] / brackets[token]["latest"] for token in _TOKENS),
        "earliest_share": min(halves[token] / brackets[token]["earliest"] for token in _TOKENS),
        "lead_of_frequencies": math.log(halves["relation"] / frequencies),
        "background_first": max(rates.noise, rates.eos) > float(rates.relations.mean()),
        "rate_ratio": ratio,
        "first": "relations" if ratio > 1 else "subjects",
        "apart": max(ratio, 1 / ratio) >= _APART,
        "close": max(ratio, 1 / ratio) <= _TOGETHER,
    }


def between(course: Course, task: FactualRecall) -> dict[str, Any]:
    """The plateau, and what is answered in its middle, beside what one token tells."""
    ratio = float(rate_ratio(S=task.S, R=task.R, D=task.D))
    known = guesses(task, "relation" if ratio > 1 else "subject")
    found = plateau(course.steps, course.total)
    middle = math.sqrt(found.start * found.end) if found else math.nan

    def there(values: np.ndarray) -> float:
        return float(np.interp(middle, course.steps, values)) if found else math.nan

    given_relation = guesses(task, "relation").entropy
    ends = [
        crossing(course.steps, course.total, share * given_relation / course.total[0])
        for share in (1.05, 0.95)
    ]
    # With random facts, the background rests at the entropy of answers before subjects do.
    structured = bool((task.answers % task.D == task.answers[:, :1] % task.D).all())
    return {
        "rests": float(found is not None),
        "scored": max(ratio, 1 / ratio) >= _APART and (structured or ratio > 1),
        "start": found.start if found else math.nan,
        "end": found.end if found else math.nan,
        "height": found.height if found else math.nan,
        "predicted_height": known.entropy,
        "relative_height": found.height / known.entropy if found else math.nan,
        "log_answers": math.log(task.D if ratio > 1 else task.R),
        "plateau_accuracy": there(course.accuracy),
        "plateau_hallucinated": there(course.hallucinated),
        "plateau_in_relation": there(course.correct + course.hallucinated),
        "relative_correct": there(course.correct) / known.drawn,
        "best_guess": known.best,
        "dwell": math.log(ends[1] / ends[0]),
    }


def by_subject(course: Course, task: FactualRecall) -> dict[str, Any]:
    """When each subject is learned: half-loss times, and their exponent in one over probability."""
    probabilities = task.subject_probabilities.cpu().numpy()
    halves = np.array([crossing(course.steps, loss) for loss in course.of_subject.T])
    exponent = math.nan
    if len(set(probabilities)) > 1:
        exponent = float(np.polyfit(-np.log(probabilities), np.log(halves), 1)[0])
    return {
        "probabilities": probabilities,
        "half_of_subject": halves,
        "exponent_of_rarity": exponent,
    }


def beside_flow(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Rows with what the flow does on the same facts and uniform prompts: how long it rests, and
    by which factor, at most, SGD halves its losses later or earlier (`lag`, a logarithm)."""
    rows = rows.assign(lag=np.nan, uniform_dwell=np.nan)
    for _, same in rows.groupby(["S", "R", "D", "answers", "noise", "T", "step_size"]):
        exact = same[(same["prompts"] == "uniform") & (same["method"] == "flow")]
        for i, row in same.iterrows():
            twin = exact[exact["seed"] == row["seed"]]
            if row["answers"] == "structured":  # one row for all seeds
                twin = exact
            if twin.empty:
                continue
            rows.loc[i, "uniform_dwell"] = twin["dwell"].iloc[0]
            if row["method"] == "sgd":
                halves = [f"half_{token}" for token in _TOKENS]
                ratios = [row[half] / twin[half].iloc[0] for half in halves]
                rows.loc[i, "lag"] = np.abs(np.log(ratios)).max()
    return rows
