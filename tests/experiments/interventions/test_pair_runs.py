"""Scores of both runs and of patched copies, and effects between the two."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions import logit_difference
from experiments.interventions.pair_runs import PairRuns, Scores, pair_runs
from experiments.interventions.runs import Stack
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import by_hand, made_pairs, preferred

CLOSE = dict(rtol=0, atol=1e-10)
HYBRID = ("mamba", "attention", "mlp")


def everything(pairs, copies=1):
    """The first stream of the corrupted run at all positions in the last copy, else nothing."""
    mask = torch.zeros(copies, *pairs.clean.shape, dtype=torch.bool)
    mask[-1] = True
    site = "blocks.0.resid_pre"
    return Stack(block=0, copies=copies, masks={site: mask}, source=(site,))


def of_differences(*values):
    """Scores of one pair with these logit differences, or (copies, 1)."""
    names = (field.name for field in fields(Scores))
    return Scores(**dict.fromkeys(names, torch.tensor(values, dtype=torch.float64)))


@pytest.mark.parametrize("layers", [HYBRID, ("mamba2", "mamba")])
def test_scores_are_those_of_whole_runs(layers):
    model, pairs = network(*layers), made_pairs()
    runs = pair_runs(model, pairs, [everything(pairs, copies=2)])
    for scores, tokens in ((runs.clean, pairs.clean), (runs.corrupted, pairs.corrupted)):
        logits = by_hand(model, pairs, {}, tokens)
        for field in fields(Scores):
            expected = getattr(logit_difference, field.name)(logits, pairs).double()
            torch.testing.assert_close(getattr(scores, field.name), expected, **CLOSE)
    for copy, expected in enumerate((runs.clean, runs.corrupted)):
        for field in fields(Scores):
            found = getattr(runs.patched[0], field.name)[copy]
            torch.testing.assert_close(found, getattr(expected, field.name), **CLOSE)
    apart = runs.clean.logit_difference - runs.corrupted.logit_difference
    assert apart.abs().min() > 1e-4  # or nothing would be tested


@settings(max_examples=5)
@given(seed=st.integers(0, 100), rows=st.integers(1, 9), absolute=st.booleans())
def test_nothing_patched_is_0_and_everything_is_1(seed, rows, absolute):
    model = network("mamba", "attention", seed=seed)
    pairs = preferred(model, made_pairs(seed=seed))
    runs = pair_runs(model, pairs, [everything(pairs, copies=2)], rows=rows)
    nothing, all_of_it = runs.effects(absolute=absolute)[0].numpy()
    np.testing.assert_allclose(nothing, 0, atol=1e-9)
    np.testing.assert_allclose(all_of_it, 1, atol=1e-9)


def test_golden_effects():
    """LD 4 clean, -2 corrupted, 1 patched: NLD (1 + 2) / 6 = 1/2 of 1. The other way round the
    clean run has -2: NLD (-2 - 4) / 6 = -1, the patched one (1 - 4) / 6 = -1/2; or, without the
    absolute value, 1 and 1/2. Equal runs divide by 1."""
    for clean, corrupted, effect, unsigned in ((4, -2, 0.5, 0.5), (-2, 4, -0.5, 0.5), (3, 3, 2, 2)):
        runs = PairRuns(
            clean=of_differences(float(clean)),
            corrupted=of_differences(float(corrupted)),
            patched=[of_differences([1.0])],
        )
        assert runs.effects()[0].item() == pytest.approx(effect, abs=1e-12)
        assert runs.effects(absolute=False)[0].item() == pytest.approx(unsigned, abs=1e-12)


def test_one_minus_the_normalised_difference_where_the_clean_run_prefers_its_answer():
    model = network("mamba")
    pairs = preferred(model, made_pairs())
    mask = torch.ones(1, *pairs.clean.shape, dtype=torch.bool)
    site = "blocks.0.out"
    runs = pair_runs(model, pairs, [Stack(block=0, copies=1, masks={site: mask}, source=(site,))])
    clean, corrupted = runs.clean.logit_difference, runs.corrupted.logit_difference
    normalised = (runs.patched[0].logit_difference - corrupted) / (clean - corrupted)
    torch.testing.assert_close(runs.effects()[0], 1 - normalised, **CLOSE)


def test_rows_must_be_a_count():
    with pytest.raises(ValueError, match="rows"):
        pair_runs(network("mamba"), made_pairs(), rows=0)
