"""Numbers of an effect."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from experiments.interventions.effects import SMALLEST_GAP, Effect, resampled


def effect(clean, corrupted, patched, measured=None, direction="denoise"):
    clean, corrupted, patched = (np.log(np.array(p)) for p in (clean, corrupted, patched))
    here = np.ones(len(clean), bool) if measured is None else np.array(measured)
    return Effect(
        clean=clean, corrupted=corrupted, patched=patched, measured=here, direction=direction
    )


def test_by_hand():
    """Means 0.6, 0.2, 0.5; gains 2 ln 2 and 0 of gaps 2 ln 2 and ln 2."""
    found = effect([0.8, 0.4], [0.2, 0.2], [0.8, 0.2]).summary()
    assert (found.clean, found.corrupted, found.patched) == pytest.approx((0.6, 0.2, 0.5))
    assert found.ratio == pytest.approx(0.75)
    assert found.mean_of_ratios == pytest.approx(0.5)
    assert found.difference == pytest.approx(0.3)
    assert found.log_ratio == pytest.approx(2 / 3)
    assert (found.low, found.high) == pytest.approx((0.0, 1.0))
    assert found.documents == 2
    noise = effect([0.8, 0.4], [0.2, 0.2], [0.8, 0.2], direction="noise").summary()
    assert (noise.ratio, noise.difference) == pytest.approx((0.25, 0.1))
    assert (noise.mean_of_ratios, noise.log_ratio) == pytest.approx((0.5, 1 / 3))


def test_documents_without_the_positions_do_not_count():
    some = effect([0.8, 0.4, 0.9], [0.2, 0.2, 0.1], [0.8, 0.2, 0.5], [True, True, False])
    alone = effect([0.8, 0.4], [0.2, 0.2], [0.8, 0.2]).summary()
    found = some.summary()
    assert found.documents == 2
    assert found.ratio == pytest.approx(alone.ratio)
    assert found.mean_of_ratios == pytest.approx(alone.mean_of_ratios)
    none = effect([0.8], [0.2], [0.5], [False]).summary()
    assert none.documents == 0
    assert math.isnan(none.ratio)
    assert math.isnan(none.difference)


def test_no_ratio_without_a_denominator():
    found = effect([0.21, 0.2], [0.2, 0.2], [0.9, 0.9]).summary()
    missing = (found.ratio, found.low, found.high, found.log_ratio, found.mean_of_ratios)
    assert all(map(math.isnan, missing))
    assert found.difference == pytest.approx(0.7)
    assert not math.isnan(effect([0.23, 0.2], [0.2, 0.2], [0.9, 0.9]).summary().ratio)


def test_the_interval_is_infinite_where_resamples_have_no_denominator():
    found = effect([0.5, 0.2], [0.4, 0.26], [0.45, 0.26]).summary()  # gaps 0.1, -0.06
    assert found.ratio == pytest.approx(2.5 / 2)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_the_interval_is_that_of_a_plain_bootstrap():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.01, 0.2, (3, 40)) + np.array([[0.7], [0.0], [0.3]])
    found = effect(*p).summary(resamples=400, confidence=0.9, seed=5)
    ratios = []
    for counts in resampled(40, 400, 5):
        clean, corrupted, patched = p[:, np.repeat(np.arange(40), counts.astype(int))].mean(axis=1)
        ratios.append((patched - corrupted) / (clean - corrupted))
    assert found.low == pytest.approx(np.quantile(ratios, 0.05, method="lower"))
    assert found.high == pytest.approx(np.quantile(ratios, 0.95, method="higher"))
    assert found.low < found.ratio < found.high


def test_resamples():
    counts = resampled(30, 2000, 0)
    assert (counts.sum(axis=1) == 30).all()
    assert counts.mean(axis=0) == pytest.approx(1, abs=0.12)  # standard deviation 0.022
    assert counts.var() == pytest.approx(1 - 1 / 30, abs=0.03)  # binomial
    assert not np.array_equal(counts, resampled(30, 2000, 1))


PROBABILITIES = arrays(float, 6, elements=st.floats(1e-6, 1))


@given(PROBABILITIES, PROBABILITIES, PROBABILITIES, st.floats(0.1, 10))
def test_what_every_ratio_satisfies(clean, corrupted, patched, scale):
    whole = effect(clean, corrupted, clean).summary(resamples=50)
    nothing = effect(clean, corrupted, corrupted).summary(resamples=50)
    if (clean - corrupted).mean() <= SMALLEST_GAP:
        assert math.isnan(whole.ratio)
        return
    assert whole.ratio == pytest.approx(1)
    assert nothing.ratio == 0
    restored, destroyed = (
        effect(clean, corrupted, patched, direction=direction).summary(resamples=50).ratio
        for direction in ("denoise", "noise")
    )
    assert restored + destroyed == pytest.approx(1)
    weights = np.full((1, 6), scale)
    assert effect(clean, corrupted, patched).ratios(weights).item() == pytest.approx(restored)


def test_malformed_arguments_are_refused():
    with pytest.raises(ValueError, match="direction must be one of"):
        effect([0.5], [0.1], [0.2], direction="restore")
    with pytest.raises(ValueError, match="confidence"):
        effect([0.5], [0.1], [0.2]).summary(confidence=1.0)
    with pytest.raises(ValueError, match="resamples"):
        effect([0.5], [0.1], [0.2]).summary(resamples=0)
