"""Verdicts on models in context: the rule, its intervals, and what is left undecided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.in_context_verdicts import FAILED, PUBLISHED, SOLVED, VISIBLE, by_gap, by_jumps


@pytest.mark.parametrize(
    ("gaps", "verdict", "decided"),
    [
        ([0.0, 0.01, 0.02, 0.0, 0.01], SOLVED, True),
        ([0.2, 0.25, 0.3, 0.2, 0.3], VISIBLE, True),
        ([0.7, 0.8, 0.9, 0.7, 0.8], FAILED, True),
        ([0.0, 0.0, 0.0, 0.0, 0.2], SOLVED, False),  # two of five draws may be 0.2: visible
        ([0.3, 0.9], FAILED, False),
        ([0.0] * 4, SOLVED, False),  # too few seeds
    ],
)
def test_gaps_are_judged_by_their_mean_and_decided_by_their_interval(gaps, verdict, decided):
    cell = by_gap(gaps, learned=True)
    assert (cell.verdict, cell.decided) == (verdict, decided)
    assert cell.value == pytest.approx(np.mean(gaps))


@pytest.mark.parametrize(
    ("jumped", "verdict", "decided"),
    [
        ([True] * 5, SOLVED, True),
        ([False] * 5, FAILED, True),
        ([True] * 4 + [False], SOLVED, False),
        ([True, False], VISIBLE, False),
    ],
)
def test_parities_are_judged_by_the_share_of_seeds(jumped, verdict, decided):
    cell = by_jumps(jumped, learned=True)
    assert (cell.verdict, cell.decided) == (verdict, decided)


def test_nothing_is_decided_where_no_model_has_learned():
    assert not by_gap([0.0] * 9, learned=False).decided
    assert not by_jumps([False] * 9, learned=False).decided


@given(gaps=st.lists(st.floats(0, 2), min_size=1, max_size=8), shift=st.floats(0, 1))
def test_larger_gaps_are_never_judged_better(gaps, shift):
    order = (SOLVED, VISIBLE, FAILED)
    before, after = (by_gap(some, learned=True) for some in (gaps, [gap + shift for gap in gaps]))
    assert order.index(before.verdict) <= order.index(after.verdict)
    assert before.low <= before.value + 1e-12
    assert before.value <= before.high + 1e-12


def test_values_must_be_finite_and_some():
    for values in ([], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="values must be finite"):
            by_gap(values, learned=True)


def test_the_published_table_tells_models_apart_on_the_five_tasks_it_is_about():
    kinds = {kind for kind, _ in PUBLISHED}
    apart = {kind for kind in kinds
             if len({PUBLISHED[kind, m] for m in ("transformer", "mamba")}) > 1}  # fmt: skip
    assert apart == {
        "decision tree", "orthogonal outliers", "many outliers", "sparse parity",
        "vector retrieval",
    }  # fmt: skip
    assert {PUBLISHED[kind, "mambaformer"] for kind in kinds} == {SOLVED}
