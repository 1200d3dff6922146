"""Intervals against SciPy's own, and their coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments import intervals


def test_rate_covers_every_probability():
    """Exactly, by summing over all outcomes."""
    n, confidence = 60, 0.9
    found = [intervals.rate(k, n, confidence) for k in range(n + 1)]
    for p in np.linspace(0.005, 0.995, 67):
        inside = [interval.low <= p <= interval.high for interval in found]
        assert stats.binom.pmf(np.arange(n + 1), n, p) @ inside >= confidence


def test_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=7)
    found = intervals.mean(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert found.estimate == pytest.approx(values.mean())


def test_single_value_says_nothing_about_its_scatter():
    found = intervals.mean(np.array([3.0]), 0.9)
    assert (found.estimate, found.low, found.high) == (3.0, -np.inf, np.inf)


def test_slope_without_repeats_is_linregress():
    rng = np.random.default_rng(1)
    x = np.arange(6.0)
    y = 2 * x + rng.normal(size=6)
    found = intervals.slope(x, y, np.arange(6), 0.95)
    expected = stats.linregress(x, y)
    half = stats.t.ppf(0.975, 4) * expected.stderr
    assert found.estimate == pytest.approx(expected.slope)
    assert (found.low, found.high) == pytest.approx((expected.slope - half, expected.slope + half))


@pytest.mark.parametrize("repeats", [2, 3, 8])
def test_slope_with_repeats_covers_under_unequal_scatter(repeats: int):
    """The scatter falls tenfold along the line, and there are few seeds."""
    rng = np.random.default_rng(2)
    x = np.repeat(np.log([8.0, 16.0, 32.0, 64.0]), repeats)
    point = np.repeat(np.arange(4), repeats)
    scatter = np.repeat([0.1, 0.05, 0.02, 0.01], repeats)
    found = [
        intervals.slope(x, x + scatter * rng.normal(size=len(x)), point, 0.95) for _ in range(600)
    ]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert covered > 0.95 - 3 * np.sqrt(0.05 * 0.95 / 600)


def test_slope_with_repeats_describes_these_points_even_on_a_curve():
    """Repeats without scatter leave no doubt about the slope, though the curve is bent."""
    x = np.repeat([0.0, 1.0, 2.0], 2)
    found = intervals.slope(x, x**2, np.repeat([0, 1, 2], 2), 0.95)
    assert (found.low, found.estimate, found.high) == pytest.approx((2, 2, 2))
