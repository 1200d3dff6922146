"""Step sums: against multiprecision arithmetic, their shape, their limits, and lemma D1."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mpmath import mp

from bounds import stability
from tests.strategies import (
    LARGEST_COUNT,
    lengths,
    log_uniform,
    near_thresholds,
    rates_and_lengths,
    signed,
    step_sequences,
)

LINEAR, LOG = 1e-12, 1e-14
"""Stated accuracy: of the linear value, relative; of the logarithm, relative to max(1, |ln|)."""

# --- the oracle: sums for short sequences, closed forms with enough digits for long ones ----------


def exact_sum(rate: float, T: int, power: int) -> Any:
    """sum_{t<T} t^power e^{rate t}, power 0 or 1."""
    if T <= 60:
        rho = mp.exp(mp.mpf(rate))
        return mp.fsum(rho**t * t**power for t in range(T))
    if rate == 0:
        return mp.mpf(T) if power == 0 else mp.mpf(T) * (T - 1) / 2
    with mp.workdps(60 + 4 * max(0, -math.floor(math.log10(abs(rate))))):
        x = mp.mpf(rate)
        rho, last = mp.exp(x), mp.exp(x * T)
        if power == 0:
            return (1 - last) / (1 - rho)
        # Differentiated geometric series, with the sign of the last term as it must be.
        return rho * (1 - last) / (1 - rho) ** 2 - T * last / (1 - rho)


def exact_J(s: float, Y: float) -> Any:
    """int_0^Y r e^{sr} dr by its power series or by parts."""
    y = mp.mpf(s) * mp.mpf(Y)
    if abs(y) < 1:
        return mp.mpf(Y) ** 2 * mp.nsum(lambda k: y**k / (mp.factorial(k) * (k + 2)), [0, 60])
    return (mp.mpf(Y) * mp.exp(y) - mp.expm1(y) / mp.mpf(s)) / mp.mpf(s)


def exact_G2(s: float, D: float, D_min: float, T: int) -> Any:
    if s >= 0:
        return mp.mpf(D) ** 2 * exact_sum(mp.mpf(s) * D, T, 1)
    x = -mp.mpf(s) * D
    by_integral = x / -mp.expm1(-x) * exact_J(s, mp.mpf(T) * D)
    return min(by_integral, mp.mpf(D) ** 2 * exact_sum(mp.mpf(s) * D_min, T, 1))


def assert_accurate(log_value: float, exact: Any) -> None:
    log_value = float(log_value)
    if exact == 0:
        assert log_value == -math.inf
        return
    reference = mp.log(exact)
    assert abs(log_value - reference) <= LOG * max(1, abs(reference))
    if mp.mpf(1e-300) < exact < mp.mpf(1.79e308):
        linear = float(stability._linear(np.float64(log_value)))
        assert abs(linear - exact) <= LINEAR * exact


@pytest.fixture(autouse=True)
def _digits():
    with mp.workdps(60):
        yield


# --- agrees ---------------------------------------------------------------------------------------


@settings(max_examples=250)
@given(rates_and_lengths())
@example((-50.0, 2))
@example((5e-10, 2))
@example((6.3e-10, 10**12))
@example((-1e-9 / LARGEST_COUNT, LARGEST_COUNT))
def test_geometric_sums(point):
    rate, T = point
    assert_accurate(stability.log_S1(rate, T), exact_sum(rate, T, 0))
    assert_accurate(stability.log_S2(rate, T), exact_sum(rate, T, 1))


@pytest.mark.parametrize("rate", [-700.0, -709.0, -709.9, -710.0, -745.0, -800.0, -1e4, 710.0, 1e4])
@pytest.mark.parametrize("T", [1, 2, 3, 10**6])
def test_geometric_sums_beyond_the_exponent_range(rate, T):
    assert_accurate(stability.log_S1(rate, T), exact_sum(rate, T, 0))
    assert_accurate(stability.log_S2(rate, T), exact_sum(rate, T, 1))


@given(st.one_of(signed(log_uniform(1e-14, 50)), signed(near_thresholds())), log_uniform(1e-6, 1e9))
@example(-1.0, 1.0)
@example(1.0, 1.0)
@example(0.0, 3.0)
def test_integral(s, Y):
    for rate in (s, s / Y):
        assert_accurate(stability.log_J(rate, Y), exact_J(rate, Y))


@given(st.one_of(log_uniform(1e-18, 800), near_thresholds(), st.sampled_from((0.0, 5e-324))))
def test_c(x):
    exact = mp.mpf(x) / -mp.expm1(-mp.mpf(x)) if x else mp.mpf(1)
    assert_accurate(stability.log_c(x), exact)
    assert max(1.0, x) * (1 - 1e-15) <= math.exp(stability.log_c(min(x, 700.0))) or x > 700
    assert stability.log_c(x) <= math.log1p(x) + 1e-15


@settings(max_examples=20)
@given(log_uniform(1e-3, 20), st.one_of(log_uniform(1e-3, 1e3), st.just(1.0)))
def test_envelope_integral(r, scaled):
    """`I` is the integral of sup_{a <= s} |a| tau e^{a tau}, by quadrature of that supremum."""
    Y = scaled / r

    def supremum(tau: Any) -> Any:
        return 1 / mp.e if tau * r <= 1 else r * tau * mp.exp(-r * tau)

    ends = [0, Y] if scaled <= 1 else [0, 1 / mp.mpf(r), 4 / mp.mpf(r), 40 / mp.mpf(r), Y]
    ends = sorted({min(mp.mpf(end), mp.mpf(Y)) for end in ends})
    with mp.workdps(20):
        exact = mp.quad(supremum, ends)
    assert stability.I(-r, Y) == pytest.approx(float(exact), rel=1e-12)
    assert stability.I(r, Y) == stability.I(0.0, Y) == pytest.approx(Y / math.e, rel=1e-15)


@given(signed(log_uniform(1e-14, 20)), log_uniform(1e-6, 20), st.floats(0, 1), lengths(), st.data())
def test_G1_G2_H(s, D, share, T, data):
    s = data.draw(st.sampled_from((s, s / (D * T), 0.0)))
    D_min, a_lo = share * D, min(s, 0.0) - data.draw(st.floats(0, 3))
    assert_accurate(stability.log_G1(s, D, T), mp.mpf(D) * exact_sum(mp.mpf(s) * D, T, 0))
    G2 = exact_G2(s, D, D_min, T)
    assert_accurate(stability.log_G2(s, D, D_min, T), G2)
    r, Y = mp.mpf(max(-s, 0.0)), mp.mpf(T) * D
    integral = (3 / mp.e - (1 + r * Y) * mp.exp(-r * Y)) / r if r * Y > 1 else Y / mp.e
    H = min(D / mp.e + integral + max(s, 0.0) * G2, max(abs(a_lo), abs(s)) * G2)
    assert_accurate(stability.log_H(s, D, D_min, a_lo, T), H)


def test_linear_forms_and_broadcasting():
    s = np.array([[-0.5], [0.0], [0.05]])
    T = np.array([1, 10, 1000])
    arguments = {
        "S1": (s, T), "S2": (s, T), "J": (s, 1.0 * T), "G1": (s, 1.3, T),
        "G2": (s, 1.3, 0.1, T), "H": (s, 1.3, 0.1, -2.0, T),
    }  # fmt: skip
    for name, values in arguments.items():
        linear = getattr(stability, name)(*values)
        assert linear.shape == (3, 3)
        assert linear == pytest.approx(np.exp(getattr(stability, f"log_{name}")(*values)))
        corner = getattr(stability, name)(*(np.broadcast_to(v, (3, 3))[2, 1] for v in values))
        assert linear[2, 1] == pytest.approx(corner, rel=1e-14)
    assert stability.G1(1.0, 1.0, 10**6) == math.inf


# --- moves ----------------------------------------------------------------------------------------


@given(
    signed(log_uniform(1e-9, 5)),
    st.floats(0, 3),
    log_uniform(1e-3, 5),
    st.floats(0, 1),
    lengths(10**12),
)
def test_sums_grow_with_decay_rate_step_and_length(s, more, D, share, T):
    rates, steps = s + more * np.array([0, 1, 0, 0]), D * (1 + more * np.array([0, 0, 1, 0]))
    longer, D_min = T + np.array([0, 0, 0, 1]), share * D
    sums = (
        stability.log_G1(rates, steps, longer),
        stability.log_G2(rates, steps, D_min, longer),
        stability.log_H(rates, steps, D_min, -20.0, longer),
    )
    for log_sum in sums:
        here = log_sum[0]
        slack = 1e-13 * max(1, abs(here)) if math.isfinite(here) else 0
        assert np.all(log_sum[1:] >= here - slack)


# --- limits ---------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(log_uniform(1e-3, 10), st.floats(0, 1), st.integers(1, 10**9), st.sampled_from((-1, 1)))
def test_continuous_in_the_decay_at_zero(D, share, T, sign):
    s = sign * 1e-9 / (T * D)
    for function, rest in (("G1", ()), ("G2", (share * D,)), ("H", (share * D, -2.0))):
        near = getattr(stability, function)(s, D, *rest, T)
        assert near == pytest.approx(getattr(stability, function)(0.0, D, *rest, T), rel=1e-6)


@settings(max_examples=30)
@given(log_uniform(1e-3, 10), st.integers(1, 10**9))
def test_values_at_zero_decay(D, T):
    assert stability.G1(0.0, D, T) == pytest.approx(T * D)
    assert stability.G2(0.0, D, 0.0, T) == pytest.approx(D**2 * T * (T - 1) / 2)
    assert stability.S2(0.0, T) == pytest.approx(T * (T - 1) / 2)
    flat = min((1 + T) * D / math.e, 2 * D**2 * T * (T - 1) / 2)
    assert stability.H(0.0, D, 0.0, -2.0, T) == pytest.approx(flat)


@settings(max_examples=40)
@given(log_uniform(1e-2, 5), log_uniform(1e-2, 5), st.floats(0, 1))
def test_saturation_of_decaying_models(r, D, share):
    """Beyond 60 / (|s| D_min) or 60 / (|s| D) steps nothing grows any more (P4)."""
    D_min, long = share * D, 10**9
    if r * D * long < 60:
        return
    x = r * D
    assert stability.G1(-r, D, long) == pytest.approx(D / -math.expm1(-x))
    limit = x / -math.expm1(-x) / r**2
    if r * D_min * long > 60:
        limit = min(limit, D**2 / (math.expm1(r * D_min) * -math.expm1(-r * D_min)))
    assert stability.G2(-r, D, D_min, long) == pytest.approx(limit)
    H = min((D + 3 / r) / math.e, (r + 1) * limit)
    assert stability.H(-r, D, D_min, -r - 1, long) == pytest.approx(H)
    for name, rest in (("G1", ()), ("G2", (D_min,)), ("H", (D_min, -r - 1))):
        function = getattr(stability, name)
        doubled = function(-r, D, *rest, 2 * long)
        assert doubled == pytest.approx(function(-r, D, *rest, long), rel=1e-12)


def test_extreme_decay_leaves_one_step():
    assert stability.G1(-1e6, 2.0, 100) == pytest.approx(2.0)
    assert stability.G2(-1e6, 2.0, 1.0, 100) == pytest.approx(0.0, abs=1e-300)
    assert stability.H(-1e6, 2.0, 0.0, -1e6, 100) == pytest.approx((2 + 3e-6) / math.e)
    for s in (-1.0, 0.0, 1.0):
        assert stability.G2(s, 2.0, 0.5, 1) == 0 == stability.H(s, 2.0, 0.5, -2.0, 1)


@settings(max_examples=60)
@given(
    signed(log_uniform(1e-3, 3)),
    log_uniform(1e-2, 3),
    st.floats(0, 1),
    log_uniform(0.1, 10),
    lengths(10**6),
)
def test_time_rescaling(s, D, share, k, T):
    """Slower decay and longer steps are the same model in other units of time (P7)."""
    D_min = share * D
    G1, G2 = stability.log_G1(s, D, T), stability.log_G2(s, D, D_min, T)
    H = stability.log_H(s, D, D_min, -9.0, T)
    assert stability.log_G1(s / k, k * D, T) == pytest.approx(G1 + math.log(k), abs=1e-9)
    if T > 1:
        scaled = stability.log_G2(s / k, k * D, k * D_min, T)
        assert scaled == pytest.approx(G2 + 2 * math.log(k), abs=1e-9)
        scaled = stability.log_H(s / k, k * D, k * D_min, -9.0 / k, T)
        assert scaled == pytest.approx(H + math.log(k), abs=1e-9)


@given(log_uniform(1e-3, 3), log_uniform(1e-2, 3), st.floats(0, 1), lengths(10**9))
def test_never_worse_than_the_shortest_step_sums(r, D, share, T):
    """For decaying models the published sums, with growth e^{s D_min}, are an upper bound (P10)."""
    published = stability.log_S1(-r * share * D, T), stability.log_S2(-r * share * D, T)
    assert stability.log_G1(-r, D, T) <= math.log(D) + published[0] + 1e-12
    assert stability.log_G2(-r, D, share * D, T) <= 2 * math.log(D) + published[1] + 1e-12


# --- holds: lemma D1 on any sequence of steps -----------------------------------------------------


def step_sums(steps: np.ndarray, s: float, a_lo: float) -> tuple[float, float, float]:
    tau = np.append(np.cumsum(steps[::-1])[::-1][1:], 0.0)
    candidates = [a_lo, s]
    best = np.max([abs(a) * tau * np.exp(a * tau) for a in candidates], axis=0)
    with np.errstate(divide="ignore"):
        interior = -1 / tau  # where |a| tau e^{a tau} is largest, 1/e
    best = np.where((interior >= a_lo) & (interior <= s), np.maximum(best, 1 / math.e), best)
    decay = np.exp(s * tau)
    return float(steps @ decay), float(steps @ (tau * decay)), float(steps @ best)


@settings(max_examples=200)
@given(step_sequences(), signed(log_uniform(1e-4, 10)), st.one_of(st.floats(0, 3), st.just(1e4)))
def test_step_sum_lemma(drawn, s, below):
    D_min, D, steps = drawn
    T = len(steps)
    s = min(s, 300 / (T * D))  # where the sums themselves do not overflow
    a_lo = min(s, 0.0) - below
    first, second, third = step_sums(steps, s, a_lo)
    assert first <= stability.G1(s, D, T) * (1 + 1e-12)
    assert second <= stability.G2(s, D, D_min, T) * (1 + 1e-12)
    assert second <= stability.G2(s, D, 0.0, T) * (1 + 1e-12)  # with no lower bound on the step
    assert third <= stability.H(s, D, D_min, a_lo, T) * (1 + 1e-12)


@given(signed(log_uniform(1e-4, 3)), log_uniform(1e-2, 5), st.integers(1, 40))
def test_constant_longest_steps_attain_G1(s, D, T):
    attained = step_sums(np.full(T, D), s, s - 1)
    assert attained[0] == pytest.approx(stability.G1(s, D, T), rel=1e-11)
    if s > 0:
        assert attained[1] == pytest.approx(stability.G2(s, D, 0.0, T), rel=1e-11)


# --- negative controls: the same checks reject wrong formulas -------------------------------------


def test_growth_by_the_shortest_step_is_not_a_bound():
    D_min, D, s = 0.1, 1.0, 0.3
    first, _, _ = step_sums(np.full(20, D), s, -1.0)
    assert first <= stability.G1(s, D, 20) * (1 + 1e-12)
    assert first > 3 * D * stability.S1(s * D_min, 20)


def test_integrals_without_the_mesh_factor_are_not_bounds():
    r, D, steps = 10.0, 1.0, np.array([1.0, 0.1])
    first, second, _ = step_sums(steps, -r, -r)
    assert first <= stability.G1(-r, D, 2)
    assert first > 3 * (1 - math.exp(-2 * r * D)) / r
    assert second <= stability.G2(-r, D, 0.0, 2)
    assert second > 3 * stability.J(-r, 2 * D)


def test_envelope_without_the_longest_step_is_not_a_bound():
    s, D, a_lo, steps = -10.0, 1.0, -2000.0, np.array([1.0, 1e-3])
    _, _, third = step_sums(steps, s, a_lo)
    assert third <= stability.H(s, D, 0.0, a_lo, 2)
    assert third > 3 * stability.I(s, 2 * D)


def test_printed_sign_of_the_weighted_sum_is_wrong():
    rho, T = math.exp(-0.3), 50
    printed = rho * (1 - rho**T) / (1 - rho) ** 2 - T * rho**T / (rho - 1)
    assert stability.S2(-0.3, T) == pytest.approx(float(exact_sum(-0.3, T, 1)), rel=1e-13)
    assert printed != pytest.approx(float(exact_sum(-0.3, T, 1)), rel=1e-6)
