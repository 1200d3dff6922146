"""Sign sums, slack and the binary relative entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp

from bounds.concentration import (
    SAFE_XI,
    hoeffding_slack,
    kl_bernoulli,
    kl_inverse,
    log_xi,
    sign_sums,
    xi,
)
from tests.strategies import LARGEST_COUNT, log_uniform

samples = st.one_of(
    st.integers(1, 200),
    log_uniform(1, LARGEST_COUNT).map(lambda m: max(1, min(round(m), LARGEST_COUNT))),
)


def exact_log_xi(m: int) -> mp.mpf:
    k = (m + 1) // 2
    with mp.workdps(60):
        log_binomial = mp.loggamma(m + 1) - mp.loggamma(k + 1) - mp.loggamma(m - k + 1)
        return (1 - m) * mp.log(2) + mp.log(k) - mp.log(m) + log_binomial


# --- agrees ---


@pytest.mark.parametrize("m", range(1, 9))
def test_enumeration(m):
    """The mean of |sum of signs| over all sign vectors (P13)."""
    assert xi(m) == pytest.approx(sign_sums(m).mean() / m, rel=1e-15)


@given(samples)
def test_multiprecision(m):
    exact = exact_log_xi(m)
    assert abs(log_xi(m) - exact) <= 1e-14 * max(1, abs(exact))


def test_across_the_switch_to_the_series():
    m = np.arange(1, 400)
    errors = [abs(float(xi(k) / mp.exp(exact_log_xi(int(k))) - 1)) for k in m]
    assert max(errors) < 1e-14
    assert xi(m) == pytest.approx([xi(int(k)) for k in m], rel=1e-15)


@given(st.floats(0, 1), st.floats(0, 1))
def test_relative_entropy(q, p):
    if p in (0.0, 1.0) and q != p:
        assert kl_bernoulli(q, p) == (math.inf if (q > 0 if p == 0 else q < 1) else 0)
        return
    with mp.workdps(400):
        q_, p_ = mp.mpf(q), mp.mpf(p)
        exact = (q_ * mp.log(q_ / p_) if q else 0) + (
            (1 - q_) * mp.log((1 - q_) / (1 - p_)) if q < 1 else 0
        )
    assert kl_bernoulli(q, p) == pytest.approx(float(exact), rel=1e-9, abs=1e-15)


# --- moves ---


@given(samples.filter(lambda m: m < LARGEST_COUNT))
def test_more_samples_never_raise_it(m):
    assert log_xi(m + 1) <= log_xi(m) + 1e-14 * max(1, -log_xi(m))


@settings(max_examples=60)
@given(st.floats(0, 1), log_uniform(1e-9, 10), st.floats(1, 3))
def test_inverse_grows_with_the_budget(q, budget, more):
    assert kl_inverse(q, budget * more) >= kl_inverse(q, budget)


# --- limits ---


@given(samples)
def test_envelope(m):
    """sqrt(1/(2m)) <= xi_m <= 1/sqrt(m), and above sqrt(2/(pi (m+1)))."""
    rounding = 1e-14 * max(1, math.log(m))
    assert log_xi(m) >= math.log(SAFE_XI) - 0.5 * math.log(m) - rounding
    assert log_xi(m) <= -0.5 * math.log(m) + rounding
    assert log_xi(m) >= 0.5 * math.log(2 / math.pi) - 0.5 * math.log(m + 1) - rounding


def test_asymptotic_value():
    assert xi(10**12) == pytest.approx(math.sqrt(2 / (math.pi * 1e12)), rel=1e-11)


def test_slack():
    assert hoeffding_slack(loss_range=2.0, m=50, log_inverse_delta=3.0) == pytest.approx(
        2 * math.sqrt(3 / 100)
    )


@settings(max_examples=40)
@given(st.one_of(st.floats(1e-6, 1), st.just(0.0)))
def test_inverse_without_budget(q):
    assert kl_inverse(q, 0.0) == pytest.approx(q, abs=1e-7)
    assert kl_inverse(q, 0.0) >= q


# --- holds ---


@settings(max_examples=200)
@given(st.one_of(st.floats(0, 1), st.just(0.0)), log_uniform(1e-12, 50))
def test_inverse_is_rounded_upwards(q, budget):
    """The exact relative entropy at the returned mean is at least the budget."""
    p = kl_inverse(q, budget)
    assert q <= p <= 1
    if p < 1:
        with mp.workdps(60):
            q_, p_ = mp.mpf(q), mp.mpf(p)
            first = q_ * mp.log(q_ / p_) if q else mp.mpf(0)
            exact = first + (1 - q_) * mp.log((1 - q_) / (1 - p_))
        assert exact >= budget


# --- negative control: the constant of the published lower bound ---


@pytest.mark.parametrize("m", range(2, 60, 2))
def test_asymptotic_constant_is_not_a_lower_bound_for_even_samples(m):
    assert xi(m) < math.sqrt(2 / (math.pi * m))
    assert xi(m - 1) > math.sqrt(2 / (math.pi * (m - 1)))
