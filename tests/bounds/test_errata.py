"""Every printed statement fails on random instances, every corrected one holds."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import misprints, published
from bounds.comparison import growth_law
from bounds.concentration import sign_sums, xi
from bounds.covering import maurey_log_cover
from bounds.errata import ERRATA, Check
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass

# Two bounds on the whole class for each instance of E8; the others are cheap.
INSTANCES = {erratum.code: 10 if erratum.code in ("E5", "E8") else 60 for erratum in ERRATA}


@pytest.mark.parametrize("erratum", ERRATA, ids=lambda erratum: erratum.code)
def test_printed_fails_and_corrected_holds(erratum):
    """Violated in every instance (E4: in 95 % or more); the correction in none."""
    instances = INSTANCES[erratum.code]
    printed, corrected = erratum.violations(np.random.default_rng(7), instances=instances)
    assert corrected == 0
    assert printed >= (0.95 if erratum.code == "E4" else 1) * instances


@pytest.mark.parametrize("erratum", ERRATA, ids=lambda erratum: erratum.code)
def test_table(erratum):
    for name in erratum.functions:
        module = published if name.startswith("published.") else misprints
        assert callable(getattr(module, name.removeprefix("published.")))
    first, again = (erratum.instance(np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert {code.code for code in ERRATA} == {*(f"E{k}" for k in range(1, 11)), "E7b"}


def test_relations():
    below, above = Check(1.0, 2.0), Check(2.0, 1.0)
    by_relation = {erratum.relation: erratum for erratum in ERRATA}
    outcomes = {r: (e.holds(below), e.holds(above)) for r, e in by_relation.items()}
    assert outcomes == {"<=": (True, False), ">=": (False, True), "==": (False, False)}
    assert all(erratum.holds(Check(1.0, 1.0)) for erratum in ERRATA)


def test_E1_by_hand():
    # softplus(-1 -+ 2): ln(1 + e^-3) = 0.0485873515737421, ln(1 + e) = 1.31326168751822
    budgets = dict(p=-1.0, B_q=2.0, B_u=1.0)
    printed = misprints.growth_factor_as_printed(s_A=0.5, **budgets)
    assert printed == pytest.approx(math.exp(0.5 * 0.0485873515737421), rel=1e-13)
    right = misprints.growth_factor(s_A=0.5, **budgets)
    assert right == pytest.approx(math.exp(0.5 * 1.31326168751822), rel=1e-13)
    stable = dict(s_A=-0.5, eta=0.1, **budgets)
    assert misprints.growth_factor(**stable) == misprints.growth_factor_as_printed(**stable)


def test_E2_by_hand():
    # 0/1 + 1/2 + 2/4 + 3/8 = 1.375; printed: 0.5*(1 - 1/16)/0.25 + 4/16/0.5 = 2.375
    assert misprints.weighted_sum(rho=0.5, T=4) == pytest.approx(1.375, rel=1e-14)
    assert misprints.weighted_sum_as_printed(rho=0.5, T=4) == 2.375
    assert misprints.weighted_sum(rho=1.0, T=50) == pytest.approx(1225, rel=1e-14)
    assert misprints.weighted_sum_as_printed(rho=1.0, T=50) == math.inf
    assert misprints.weighted_sum_as_printed(rho=1 - 1e-6, T=50) > 1e7


def test_E3_E4_hold_for_normal_matrices():
    rng = np.random.default_rng(0)
    for _ in range(50):
        X, Y = rng.normal(size=(2, 4, 4))
        X, Y = X + X.T, Y + Y.T
        difference = np.linalg.norm(
            misprints.matrix_exponential(X) - misprints.matrix_exponential(Y), 2
        )
        assert difference <= misprints.exponential_difference_as_printed(X, Y) * (1 + 1e-9)
        assert misprints.exponential_difference(X, Y) == pytest.approx(
            misprints.exponential_difference_as_printed(X, Y), rel=1e-9
        )
        growth = misprints.matrix_exponential_norm(X)
        assert growth == pytest.approx(misprints.decay_as_printed(X, time=1, eta=0), rel=1e-9)


def test_E5_share():
    """Without the S_1 parts; equal to the whole up to them when S_2 dominates."""
    slow = SelectiveSSMClass(d=2, N=2, s_A=-1e-4, a_lo=-1, p_lo=0, p_hi=0, B_q=0)
    whole, headline = (
        float(published.capacity(slow, T=10**6)),
        misprints.headline_capacity(slow, T=10**6),
    )
    assert 0.98 * whole < headline < whole


def test_E6_ratio():
    budgets = dict(s_A=-0.1, p=0.0, B_q=1.0, B_u=3.0)
    ratio = math.log1p(math.exp(3)) / math.log1p(math.exp(-3))
    printed = misprints.saturation_length_as_printed(**budgets)
    assert printed / misprints.saturation_length(**budgets) == pytest.approx(ratio)


def test_E7_by_enumeration():
    for m in range(1, 15):
        mean = sign_sums(m).mean() / m
        assert mean == pytest.approx(float(xi(m)), rel=1e-12)
        assert misprints.sign_mean(m=m) <= mean
        assert (misprints.sign_mean_as_printed(m=m) <= mean) == (m % 2 == 1)
    # E|+-1 +- 1|/2 = 1/2 against 1/sqrt(pi)
    assert 0.5 / misprints.sign_mean_as_printed(m=2) == pytest.approx(0.8862269254527580)
    # 1 + 1.5 + 2.25 against 1 + e^0.5 + e
    assert misprints.growth_sum_as_printed(s_A=0.5, T=3) == pytest.approx(4.75)
    assert misprints.growth_sum(s_A=0.5, T=3) == pytest.approx(1 + math.exp(0.5) + math.e)


def test_E8_growth_laws():
    """From T = 1e3 to 1e5 the gap grows tenfold, like sqrt(T); the raw complexity like e^{sTD}."""
    ssm = SelectiveSSMClass(d=1, N=1, s_A=0.1, a_lo=0, p_lo=0, p_hi=0, B_q=0)
    budgets = dict(m=10**9, delta=0.05, loss=ramp())
    raw, gap = zip(
        *(misprints.growth_of_bounds(ssm, T=T, **budgets) for T in (10**3, 10**5)), strict=True
    )
    assert raw[1] - raw[0] == pytest.approx(0.1 * math.log(2) * (10**5 - 10**3), rel=1e-9)
    assert 8 < gap[1] / gap[0] < 10.5
    lower = growth_law(lambda T: published.rademacher_lower(s_A=0.1, T=T, m=9))
    assert lower.name == "exp(T)"
    assert lower.rate == pytest.approx(math.log(1.1))


@settings(max_examples=50)
@given(
    seed=st.integers(0, 10**6), n=st.integers(1, 12), s_A=st.floats(-1, 1), width=st.floats(0, 3),
    spare=st.floats(1, 2),
)  # fmt: skip
def test_E9_projection(seed, n, s_A, width, spare):
    """It lands in the class, keeps members, and never moves away from a member."""
    rng = np.random.default_rng(seed)
    a_lo = s_A - width
    member = rng.uniform(a_lo, s_A, n)
    M_A = max(spare * float(np.abs(member).sum()), 1e-3)
    budgets = dict(a_lo=a_lo, s_A=s_A, M_A=M_A)
    point = 3 * rng.normal(size=n)
    projected = misprints.project_decays(point, **budgets)
    assert np.abs(projected).sum() <= M_A * (1 + 1e-9)
    assert projected.min() >= a_lo
    assert projected.max() <= s_A
    # The point of a convex set nearest to x is the one that makes an obtuse angle with all others.
    assert np.dot(point - projected, member - projected) <= 1e-9 * (1 + np.abs(point).sum())
    np.testing.assert_allclose(misprints.project_decays(member, **budgets), member, atol=1e-12)


def test_E9_centres_are_near():
    """Centres with ceil(M^2/radius^2) atoms come within the radius on average, as Maurey says."""
    rng = np.random.default_rng(1)
    a, M_A, atoms = -rng.uniform(0.1, 1, 30), 30.0, 100
    centres = [misprints.maurey_centre(a, M_A=M_A, atoms=atoms, rng=rng) for _ in range(500)]
    squared = np.mean([np.square(centre - a).sum() for centre in centres])
    assert squared <= M_A**2 / atoms
    assert maurey_log_cover(M=M_A, n=30, radius=3.0) == pytest.approx(100 * math.log(61))


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), columns=st.integers(1, 9))
@settings(max_examples=50)
def test_E10_logged_norm_is_an_upper_bound(seed, rows, columns):
    W = np.random.default_rng(seed).normal(size=(rows, columns))
    logged, true = misprints.spectral_norm_as_logged(W), misprints.spectral_norm(W)
    assert true <= logged * (1 + 1e-12)
    assert logged <= math.sqrt(min(rows, columns)) * true * (1 + 1e-12)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: misprints.growth_factor(s_A=math.nan, p=0, B_q=1, B_u=1), "s_A"),
        (lambda: misprints.growth_factor_as_printed(s_A=1, p=0, B_q=-1, B_u=1), "B_q"),
        (lambda: misprints.weighted_sum(rho=0, T=3), "rho"),
        (lambda: misprints.weighted_sum_as_printed(rho=1, T=0), "T"),
        (lambda: misprints.saturation_length(s_A=0, p=0, B_q=1, B_u=1), "s_A"),
        (lambda: misprints.decay(np.eye(2), time=1, eta=0), "margin"),
        (lambda: misprints.sign_mean(m=0), "m"),
        (lambda: inspect.unwrap(misprints.sign_mean)(m="3"), "m"),
        (lambda: misprints.growth_sum(s_A=-1, T=3), "s_A"),
        (lambda: misprints.project_decays(np.zeros(3), a_lo=-2, s_A=-1, M_A=2), "M_A"),
        (lambda: misprints.project_decays(np.zeros(3), a_lo=0, s_A=-1, M_A=2), "a_lo"),
        (lambda: misprints.maurey_centre(np.ones(3), M_A=2, atoms=1,
                                         rng=np.random.default_rng()), "M_A"),
        (lambda: misprints.spectral_norm(np.array([[math.inf]])), "W"),
        (lambda: ERRATA[0].violations(np.random.default_rng(), instances=0), "instances"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        call()
