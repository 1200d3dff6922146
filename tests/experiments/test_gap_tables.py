"""Tables of the studies of trained classifiers: slopes, gaps against bounds, claims on them."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.studies.certified_gap import CertifiedGap
from experiments.studies.gap_against_length import GapAgainstLength
from experiments.studies.gap_against_stability import GapAgainstStability
from experiments.studies.gap_on_tasks import GapOnTasks
from experiments.study import Study


def claim_of(study: type[Study], name: str):
    return next(claim for claim in study.claims if claim.name == name)


def by_length(slopes: dict[tuple, float], T=(25, 50, 100, 200), **columns) -> pandas.DataFrame:
    """Rows of models, by name and seed, whose gap grows by a slope per doubling of T."""
    rows = [
        dict(
            model=model, seed=seed, T=t, gap=0.01 + slope * math.log2(t), task="majority", s_A=-0.1,
            frozen=True, final_s_A=-0.2 if model == "single" else math.nan, train_error=0.1,
            fresh_error=0.15, test_error=0.25, reported_gap=0.15, bayes_clean_error=0.23,
        )
        for (model, seed), slope in slopes.items()
        for t in T
    ]  # fmt: skip
    return pandas.DataFrame(rows).assign(**columns)


def test_slopes_are_those_of_each_series():
    slopes = {("single", 0): 0.004, ("single", 1): -0.01, ("mamba", 0): 0.03}
    table = GapAgainstLength.table(by_length(slopes))
    assert table["stable"].all()
    counted = table[table["series"] == "stable"]
    assert set(counted.groupby(["model", "seed"]).groups) == set(slopes)
    assert len(counted) == len(slopes)  # each is one measurement
    for key, rows in counted.groupby(["model", "seed"]):
        np.testing.assert_allclose(rows["gap_per_doubling"], slopes[key], atol=1e-12)
    assert table["shift"].to_numpy() == pytest.approx(0.1)
    assert table["most_of_reported_gap"].to_numpy() == pytest.approx(0.1125)
    assert table["distance_to_bayes"].to_numpy() == pytest.approx(0.02)


def test_models_without_a_state_matrix_of_either_sign_are_stable():
    rows = by_length({("mamba", 0): 0.02})
    for given_rows in (rows, rows.drop(columns="final_s_A")):
        table = GapAgainstLength.table(given_rows)
        assert table["stable"].all()
        counted = table[table["series"] == "stable"]
        assert not counted.empty
        np.testing.assert_allclose(counted["gap_per_doubling"], 0.02)


def test_a_series_goes_on_only_among_stable_lengths():
    rows = by_length({("single", 0): 0.01}, T=(25, 50, 100, 200, 400))
    rows.loc[rows["T"] == 400, ["final_s_A", "gap"]] = 0.0, 9.0
    table = GapAgainstLength.table(rows).set_index("T")
    assert table["stable"].tolist() == [True] * 4 + [False]
    counted = table[table["series"] == "stable"]
    assert 400 not in counted.index
    np.testing.assert_allclose(counted["gap_per_doubling"], 0.01)
    assert table["series"][400] == ""
    assert math.isnan(table["gap_per_doubling"][400])
    unstable = GapAgainstLength.table(rows.assign(final_s_A=0.01))
    assert "unstable" in set(unstable["series"])
    assert "stable" not in set(unstable["series"])
    two = GapAgainstLength.table(rows[rows["T"] <= 50])
    assert (two["series"] == "").all()
    assert two["gap_per_doubling"].isna().all()


@pytest.mark.parametrize(("slope", "outcome"), [(0.001, "supported"), (0.01, "refuted")])
def test_growth_with_the_length_refutes_the_claim(slope, outcome):
    noise = {("single", seed): slope + 1e-4 * (-1) ** seed for seed in range(6)}
    rows = by_length(noise)
    # Unstable and short series do not count.
    other = by_length({("single", 9): 5.0}, final_s_A=0.1)
    short = by_length({("single", 10): 5.0}, T=(25, 50))
    table = GapAgainstLength.table(pandas.concat([rows, other, short], ignore_index=True))
    claim = claim_of(GapAgainstLength, "gap-free-of-length-when-stable")
    assert claim.check(table).outcome == outcome


def test_claims_on_the_shift_are_about_majority():
    rows = by_length({("single", seed): 0.0 for seed in range(3)})
    other = rows.assign(task="listops", test_error=0.9, bayes_clean_error=math.nan)
    table = GapAgainstLength.table(pandas.concat([rows, other], ignore_index=True))
    table = table.assign(shift=table["shift"] + 1e-6 * table["seed"])
    shift = claim_of(GapAgainstLength, "reported-gap-is-distribution-shift")
    assert shift.check(table).outcome == "refuted"
    assert shift.check(table.assign(shift=table["shift"] + 0.02)).outcome == "supported"
    clean = claim_of(GapAgainstLength, "clean-error-is-that-of-noisy-bayes-rule")
    assert clean.check(table).outcome == "supported"


def test_gaps_against_bounds():
    rows = pandas.DataFrame([
        dict(step_logit=logit, seed=seed, s_A=s_A, log10_norm=3 + 10 * s_A + logit,
             gap=0.02 + rate * (10 * s_A))
        for logit in (-4.0, 0.0)
        for seed, rate in enumerate((0.001, -0.002))
        for s_A in (0.03, -1.0, 0.0, -0.1)
    ])  # fmt: skip
    table = GapAgainstStability.table(rows)
    found = table[table["summary"]]
    assert len(found) == 4  # each is one measurement
    for seed, rate in enumerate((0.001, -0.002)):
        np.testing.assert_allclose(found["gap_per_decade"][found["seed"] == seed], rate, atol=1e-12)
    np.testing.assert_allclose(found["decades"], 10.3)
    turned = GapAgainstStability.table(rows.assign(log10_norm=-rows["log10_norm"]))
    np.testing.assert_allclose(turned["decades"][turned["summary"]], -10.3)
    unknown = GapAgainstStability.table(rows.assign(log10_norm=math.nan))
    assert not unknown["summary"].any()


def test_accuracy_above_that_of_the_majority_class():
    rows = pandas.DataFrame({"guessing_error": [0.9], "test_error": [0.85], "steps": [200]})
    table = GapOnTasks.table(rows)
    assert table["above_baseline"].to_numpy() == pytest.approx(0.05)


def test_certified_is_the_smallest_bound_that_is_defined():
    rows = pandas.DataFrame({
        "m": [3999, 4000, 10**6], "guessing_error": [0.5, 0.4, 0.9],
        "log10_norm": [4.0, 5000.0, -2.0], "log10_hybrid": [3.0, math.nan, -1.0],
        "log10_parameter": [math.log10(0.3), 0.2, -0.5], "log10_published": [-9.0, -9.0, -9.0],
    })  # fmt: skip
    table = CertifiedGap.table(rows)
    assert table["many"].tolist() == [False, True, True]
    assert table["half_of_guessing"].tolist() == [0.25, 0.2, 0.45]
    assert table["parameter"].to_numpy() == pytest.approx([0.3, 1, 10**-0.5])
    assert table["certified"].to_numpy() == pytest.approx([0.3, 1, 0.01])


FINITE = st.floats(-5, 5)


@given(st.lists(st.tuples(FINITE, FINITE | st.just(math.nan), FINITE), min_size=1, max_size=5))
@settings(max_examples=30)
def test_certified_is_at_most_every_bound_and_one(bounds):
    columns = ("log10_norm", "log10_hybrid", "log10_parameter")
    rows = pandas.DataFrame(bounds, columns=columns).assign(m=1000, guessing_error=0.5)
    table = CertifiedGap.table(rows)
    assert table["certified"].between(0, 1).all()
    for column in columns:
        defined = table[table[column].notna()]
        assert (defined["certified"] <= 10 ** defined[column] * (1 + 1e-12)).all()
