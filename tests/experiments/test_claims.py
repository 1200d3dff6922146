"""Verdicts: every relation with every outcome, negative controls, and error rates."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas
import pytest
from scipy import stats

from bounds.result import Source
from experiments.claims import Claim, Verdict, asserted


def claim(relation: str, **changes: Any) -> Claim:
    fields: dict[str, Any] = {
        "name": "it",
        "statement": "it holds",
        "source": Source(key="toy2024", place="Theorem 1"),
        "relation": relation,
        "measured": "y",
        "predicted": "p",
        "tolerance": 1e-9,
    }
    return Claim(**{**fields, **changes})


def flags(violations: int, n: int, relation: str = "<=") -> pandas.DataFrame:
    """`n` instances, so many of which violate the inequality."""
    sign = 1 if relation == "<=" else -1
    y = np.where(np.arange(n) < violations, 1 + 0.5 * sign, 1 - 0.5 * sign)
    return pandas.DataFrame({"y": y, "p": 1.0})


def repeated(means: list[float], scatter: float, repeats: int = 5) -> pandas.DataFrame:
    """A point per mean, with repeats that have exactly this mean and standard deviation."""
    noise = stats.zscore(np.arange(repeats), ddof=1) * scatter
    return pandas.DataFrame(
        [{"d": d, "y": mean + e, "p": 1.0} for d, mean in enumerate(means) for e in noise]
    )


# Statements with probability 1 - δ


@pytest.mark.parametrize("relation", ["<=", ">="])
@pytest.mark.parametrize(
    ("violations", "n", "outcome"),
    [(0, 200, "supported"), (2, 200, "supported"), (30, 200, "refuted"), (0, 20, "inconclusive")],
)
def test_with_probability(relation: str, violations: int, n: int, outcome: str):
    verdict = claim(relation, failure_probability=0.05).check(flags(violations, n, relation))
    assert verdict.outcome == outcome
    assert verdict.estimate == violations / n
    assert verdict.low <= verdict.estimate <= verdict.high
    assert verdict.points == n
    assert f"{violations} of {n} instances" in verdict.evidence


@pytest.mark.parametrize(
    ("violations", "n", "outcome"),
    [(0, 400, "supported"), (0, 300, "inconclusive"), (1, 5, "refuted"), (1, 5000, "refuted")],
)
def test_for_every_instance(violations: int, n: int, outcome: str):
    assert claim("<=", failure_probability=0.0).check(flags(violations, n)).outcome == outcome


@pytest.mark.parametrize(("violations", "outcome"), [(0, "supported"), (3, "refuted")])
def test_rows_may_summarise_instances(violations: int, outcome: str):
    rows = pandas.DataFrame({"y": 0.9, "p": 1.0, "k": [0, violations], "n": [400, 400]})
    checked = claim("<=", failure_probability=0.0, violations="k", instances="n").check(rows)
    assert checked.outcome == outcome
    assert checked.points == 800


def test_no_instances_decide_nothing():
    rows = pandas.DataFrame({"y": [0.9], "p": 1.0, "k": 0, "n": 0})
    checked = claim("<=", failure_probability=0.0, violations="k", instances="n").check(rows)
    assert checked.outcome == "inconclusive"


def test_more_violations_than_instances_is_an_error():
    rows = pandas.DataFrame({"y": [0.9], "p": 1.0, "k": 3, "n": 2})
    with pytest.raises(ValueError, match="'k' is not between 0 and 'n'"):
        claim("<=", failure_probability=0.0, violations="k", instances="n").check(rows)


def test_a_bad_point_cannot_hide_among_good_ones():
    rows = pandas.DataFrame({"d": np.repeat(np.arange(40), 20), "y": 0.5, "p": 1.0})
    rows.loc[rows["d"] == 7, "y"] = 2.0
    pooled = claim("<=", failure_probability=0.05).check(rows)
    each = claim("<=", failure_probability=0.05, over=("d",)).check(rows)
    assert (pooled.outcome, each.outcome) == ("supported", "refuted")
    assert "at d = 7" in each.evidence


@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_error_rates_of_the_binomial_check(delta: float):
    """Exactly, over all outcomes: a wrong verdict has probability at most 1 - confidence."""
    n = 80
    outcomes = [
        claim("<=", failure_probability=delta).check(flags(k, n)).outcome for k in range(n + 1)
    ]
    for rate in (delta, 0.5 * delta):
        chances = stats.binom.pmf(np.arange(n + 1), n, rate)
        assert chances @ [outcome == "refuted" for outcome in outcomes] <= 0.025
    for rate in (1.001 * delta, 1.5 * delta):
        chances = stats.binom.pmf(np.arange(n + 1), n, rate)
        assert chances @ [outcome == "supported" for outcome in outcomes] <= 0.025


# Statements about means


@pytest.mark.parametrize(
    ("means", "scatter", "outcome"),
    [
        ([0.8, 0.9], 0.01, "supported"),
        ([0.8, 1.2], 0.01, "refuted"),
        ([0.8, 0.99], 0.1, "inconclusive"),
        ([0.8, 1.01], 0.1, "inconclusive"),
    ],
)
def test_means_below(means: list[float], scatter: float, outcome: str):
    rows = repeated(means, scatter)
    verdict = claim("<=", over=("d",)).check(rows)
    assert verdict.outcome == outcome
    assert verdict.estimate == pytest.approx(means[1] - 1)
    assert "at d = 1" in verdict.evidence
    assert verdict.points == 2
    mirrored = claim(">=", over=("d",)).check(rows.assign(y=2 - rows["y"]))
    assert mirrored.outcome == outcome
    assert (mirrored.estimate, mirrored.low, mirrored.high) == pytest.approx(
        (-verdict.estimate, -verdict.high, -verdict.low)
    )


def test_means_are_bonferroni_corrected():
    """The same point decides alone, but not as one of fifty."""
    alone = repeated([1.1], 0.06)
    crowd = repeated([1.1] + [0.0] * 49, 0.06)
    assert claim("<=", over=("d",)).check(alone).outcome == "refuted"
    assert claim("<=", over=("d",)).check(crowd).outcome == "inconclusive"


@pytest.mark.parametrize(
    ("y", "tolerance", "outcome"),
    [
        (0.9, 0.0, "supported"),
        (1.0, 0.0, "supported"),
        (1.1, 0.0, "refuted"),
        (1.1, 0.2, "supported"),
    ],
)
def test_rows_without_repeats_are_exact(y: float, tolerance: float, outcome: str):
    rows = pandas.DataFrame({"d": [1, 2], "y": [y, 0.5], "p": 1.0})
    verdict = claim("<=", over=("d",), tolerance=tolerance).check(rows)
    assert verdict.outcome == outcome
    assert verdict.low == verdict.estimate == verdict.high == pytest.approx(y - 1)
    assert "taken as exact" in verdict.evidence


def test_a_point_that_alone_lacks_repeats_is_undecided():
    rows = pandas.concat(
        [repeated([0.5, 0.6], 0.01), pandas.DataFrame({"d": [9], "y": 0.5, "p": 1.0})]
    )
    assert claim("<=", over=("d",)).check(rows).outcome == "inconclusive"


def test_tolerance_respects_the_sign_of_the_prediction():
    rows = pandas.DataFrame({"y": [-1.05], "p": -1.0})
    assert claim(">=", tolerance=0.1).check(rows).outcome == "supported"
    assert claim(">=", tolerance=0.01).check(rows).outcome == "refuted"
    assert claim("<=", tolerance=0.0).check(rows).outcome == "supported"


def test_error_rate_of_the_mean_check():
    """Points exactly on the boundary are rarely decided."""
    rng = np.random.default_rng(3)
    d = np.repeat(np.arange(4), 5)
    checked = claim("<=", over=("d",))
    outcomes = [
        checked.check(pandas.DataFrame({"d": d, "y": rng.normal(1, 0.1, len(d)), "p": 1.0})).outcome
        for _ in range(300)
    ]
    assert np.mean([outcome != "inconclusive" for outcome in outcomes]) <= 0.05


def test_constant_prediction():
    assert claim(">=", predicted=0.9).check(repeated([0.95], 0.01)).outcome == "supported"


# Scaling


def power(exponent: float, scatter: float, repeats: int, points: int = 5) -> pandas.DataFrame:
    rng = np.random.default_rng(4)
    d = np.repeat(2 ** np.arange(3, 3 + points), repeats)
    y = 3 * d**exponent * np.exp(scatter * rng.normal(size=len(d)))
    return pandas.DataFrame({"d": d, "y": y, "p": d.astype(float) ** 2})


@pytest.mark.parametrize("repeats", [1, 4])
@pytest.mark.parametrize(
    ("exponent", "scatter", "outcome"),
    [
        (2.0, 0.02, "supported"),
        (1.0, 0.02, "refuted"),
        (3.0, 0.02, "refuted"),
        (2.0, 2.0, "inconclusive"),
        (2.2, 0.05, "inconclusive"),
    ],
)
def test_scaling(exponent: float, scatter: float, outcome: str, repeats: int):
    verdict = claim("~", over=("d",), tolerance=0.1).check(power(exponent, scatter, repeats))
    assert verdict.outcome == outcome
    assert verdict.low <= verdict.estimate <= verdict.high
    assert verdict.points == 5


def test_scaling_needs_three_points():
    verdict = claim("~", over=("d",), tolerance=0.1).check(power(2.0, 0.0, 3, points=2))
    assert verdict.outcome == "inconclusive"
    assert "there are 2" in verdict.evidence


@pytest.mark.parametrize("column", ["y", "p"])
def test_scaling_needs_positive_values(column: str):
    rows = power(2.0, 0.0, 1)
    rows.loc[0, column] = 0.0
    with pytest.raises(ValueError, match=f"1 of 5 values of column '{column}' are not positive"):
        claim("~", over=("d",)).check(rows)


# Rows


def test_where_selects_rows():
    rows = pandas.DataFrame({"kind": ["good", "bad"], "y": [0.5, np.nan], "p": 1.0})
    assert claim("<=", where={"kind": "good"}).check(rows).outcome == "supported"


@pytest.mark.parametrize("where", [{}, {"d": 64}])
def test_no_rows_is_not_run(where: dict[str, int]):
    rows = repeated([0.5], 0.1) if where else pandas.DataFrame()
    verdict = claim("<=", where=where).check(rows)
    assert verdict.outcome == "inconclusive"
    assert verdict.evidence.startswith("not run at this preset")
    assert math.isnan(verdict.estimate)


def test_vacuous_predictions_support_nothing():
    rows = flags(0, 400).assign(p=np.inf)
    every = claim("<=", failure_probability=0.0)
    assert every.check(rows).outcome == "inconclusive"
    mixed = pandas.concat([rows, flags(0, 400)])
    verdict = every.check(mixed)
    assert (verdict.outcome, verdict.points) == ("supported", 400)
    assert "vacuous in 400 further rows" in verdict.evidence


def test_infinite_measurement_violates():
    rows = pandas.concat([flags(0, 9), pandas.DataFrame({"y": [np.inf], "p": 1.0})])
    assert claim("<=", failure_probability=0.0).check(rows).outcome == "refuted"


@pytest.mark.parametrize(
    ("changes", "rows", "message"),
    [
        ({"measured": "z"}, {"y": [1.0], "p": 1.0}, "needs column 'z'; there are: y, p"),
        ({"predicted": "z"}, {"y": [1.0], "p": 1.0}, "needs column 'z'"),
        ({"where": {"z": 1}}, {"y": [1.0], "p": 1.0}, "needs column 'z'"),
        ({"over": ("z",)}, {"y": [1.0], "p": 1.0}, "needs column 'z'"),
        ({}, {"y": [1.0, np.nan], "p": 1.0}, "1 of 2 values of column 'y' are missing or NaN"),
        ({}, {"y": [1.0], "p": [np.nan]}, "1 of 1 values of column 'p'"),
        ({}, {"y": ["high"], "p": 1.0}, "column 'y' is not numeric"),
        ({}, {"y": [np.inf], "p": 1.0}, "values of column 'y' are infinite"),
        ({}, {"y": [1.0], "p": -np.inf}, "values of column 'p' are infinite"),
    ],
)
def test_unusable_rows_are_errors(changes: dict[str, Any], rows: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        claim("<=", **changes).check(pandas.DataFrame(rows))


@pytest.mark.parametrize(
    ("relation", "changes", "message"),
    [
        ("<=", {"tolerance": -1.0}, "tolerance"),
        ("<=", {"confidence": 1.0}, "confidence"),
        ("<=", {"failure_probability": 1.0}, "failure_probability"),
        ("<=", {"failure_probability": 0.1, "violations": "k"}, "come together"),
        ("<=", {"violations": "k", "instances": "n"}, "need a failure_probability"),
        ("~", {"failure_probability": 0.1}, "no failure_probability"),
        ("~", {"predicted": 1.0}, "no scaling"),
    ],
)
def test_claims_that_make_no_sense(relation: str, changes: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        claim(relation, **changes)


def test_verdicts_are_compared_with_what_is_expected():
    def standing(outcome: Any, expected: Any) -> str:
        verdict = Verdict(outcome, 0.0, 0.0, 0.0, "", "", 1)
        return asserted(verdict, claim("<=", expected=expected))

    assert standing("supported", "supported") == "as expected"
    assert standing("refuted", "refuted") == "as expected"
    assert standing("refuted", "supported") == "contradicts"
    assert standing("supported", "refuted") == "contradicts"
    assert standing("inconclusive", "supported") == "undecided"
