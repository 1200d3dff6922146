"""SymPy forms: equal to sums and integrals, equal to the numeric functions, with their limits."""

import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mpf
from sympy import Rational, exp, simplify

from bounds import stability, symbolic
from bounds.audit import MULTIPRECISION
from bounds.generalization import generalization_gap
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass
from bounds.symbolic import LIMITS, Limit, latex
from tests.strategies import log_uniform

rho = sympy.Symbol("rho", positive=True)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.name}: {limit.meaning}")
def test_limit(limit):
    assert simplify(limit.computed() - limit.value) == 0


def test_every_limit_has_a_name_of_its_own_and_prints():
    keys = {(limit.name, limit.meaning, limit.expression) for limit in LIMITS}
    assert len(keys) == len(LIMITS)
    for limit in LIMITS:
        assert limit.latex().startswith(r"\lim_{")


def test_a_wrong_limit_is_found():
    # Negative control: the sign misprinted in S_2 makes it diverge where there is no decay.
    T = symbolic.T
    S2 = rho * (1 - rho**T) / (1 - rho) ** 2 + T * rho**T / (1 - rho)
    printed = Limit("S_2", S2, rho, sympy.Integer(1), "-", T * (T - 1) / 2, "as printed")
    assert printed.computed() == sympy.oo


@pytest.mark.parametrize("T", [1, 2, 3, 7])
def test_closed_forms_are_sums(T):
    growth = exp(symbolic.rate)
    for form, terms in (
        (symbolic.S1, [growth**t for t in range(T)]),
        (symbolic.S2, [t * growth**t for t in range(T)]),
    ):
        difference = form.subs(symbolic.T, T) - sum(terms)
        assert simplify(difference.subs(symbolic.rate, sympy.log(rho))) == 0


def test_closed_forms_are_integrals():
    y = sympy.Symbol("y", nonzero=True)
    psi = sympy.integrate(rho * exp(y * rho), (rho, 0, 1))
    assert simplify(psi - symbolic.psi.subs(symbolic.y, y)) == 0
    scaled = symbolic.Y**2 * symbolic.psi.subs(symbolic.y, symbolic.a * symbolic.Y)
    assert simplify(scaled - symbolic.J) == 0
    # I is the integral of the largest |a| tau e^{a tau}, a <= -r: 1/e, then that of a = -r.
    r, Y = symbolic.r, symbolic.Y
    tail = sympy.integrate(r * rho * exp(-r * rho), (rho, 1 / r, Y))
    assert simplify(1 / (sympy.E * r) + tail - symbolic.I_LONG) == 0


def test_the_sums_are_derivatives_of_each_other():
    assert simplify(sympy.diff(symbolic.S1, symbolic.rate) - symbolic.S2) == 0


def value(form, **named):
    """The form at exact rational arguments, to double precision."""
    exact = {symbol: Rational(named[str(symbol)]) for symbol in form.free_symbols}
    return float(form.subs(exact).evalf(30, maxn=5000))


@settings(max_examples=8)
@given(log_uniform(1e-6, 3), log_uniform(1e-3, 5), st.floats(0, 1), st.integers(1, 10**4))
def test_forms_are_the_numeric_functions(rate, D, share, T):
    D_min = D * share + 1e-6
    checked = {
        "G1_GROWING": stability.log_G1(rate, D, T),
        "G1_DECAYING": stability.log_G1(-rate, D, T),
        "G2_GROWING": stability.log_G2(rate, D, D_min, T),
    }
    named = {"D": D, "D_min": D_min, "T": T, "r": rate, "s": rate, "Y": T * D, "a": -rate}
    for name, log_value in checked.items():
        form = getattr(symbolic, name)
        exact = form.subs({symbol: Rational(named[str(symbol)]) for symbol in form.free_symbols})
        if exact == 0:
            assert log_value == -math.inf
        else:
            reference = float(sympy.log(exact).evalf(30, maxn=10**4))
            assert log_value == pytest.approx(reference, rel=1e-12, abs=1e-12)
    branches = [value(symbolic.G2_INTEGRAL, **named), value(symbolic.G2_SHORTEST_STEPS, **named)]
    assert stability.G2(-rate, D, D_min, T) == pytest.approx(min(branches), rel=1e-11)
    assert stability.J(-rate, T * D) == pytest.approx(value(symbolic.J, **named), rel=1e-11)
    long = rate * T * D > 1
    reach = value(symbolic.I_LONG if long else symbolic.I_SHORT, **named)
    assert stability.I(-rate, T * D) == pytest.approx(reach, rel=1e-11)
    H = value(symbolic.H_DECAYING_LONG if long else symbolic.H_DECAYING_SHORT, **named)
    if T > 1:
        assert stability.H(-rate, D, D_min, -1e12, T) == pytest.approx(H, rel=1e-11)


@settings(max_examples=8)
@given(log_uniform(1e-8, 50))
def test_small_forms_are_the_numeric_functions(x):
    assert np.exp(stability.log_c(x)) == pytest.approx(value(symbolic.c, x=x), rel=1e-12)
    assert stability.J(x, 1.0) == pytest.approx(value(symbolic.psi, y=x), rel=1e-11)
    assert stability.J(-x, 1.0) == pytest.approx(value(symbolic.psi, y=-x), rel=1e-11)
    for name, form in (("S1", symbolic.S1), ("S2", symbolic.S2)):
        audited = MULTIPRECISION.functions[name](-mpf(x), 9)
        assert float(audited) == pytest.approx(value(form, **{"lambda": -x, "T": 9}), rel=1e-12)


def test_formulas_print():
    ssm = SelectiveSSMClass(d=4, N=4, s_A=-0.5, a_lo=-2, p_lo=-1, p_hi=0, steps="per_channel")
    for term in generalization_gap(ssm, m=100, T=10, delta=0.05, loss=ramp()):
        if term.formula:
            printed = latex(term.formula)
            assert printed.count("{") == printed.count("}")
            assert printed.count(r"\left") == printed.count(r"\right")


@pytest.mark.parametrize(
    ("formula", "printed"),
    [
        ("gamma**(3/2)", r"\gamma^{\frac{3}{2}}"),
        ("Pi*G1", r"\Pi G_{1}"),
        ("1 + 1/lam_raw", r"1 + \frac{1}{\lambda_{\mathrm{raw}}}"),
        ("D*S1(s_A*D, T)", r"D S_{1}\left(s_{A} D, T\right)"),
        ("log(1/delta)", r"\log\left(\frac{1}{\delta}\right)"),
        ("sqrt(price/(2*m))", r"\sqrt{\frac{\mathrm{price}}{2 m}}"),
        ("(a - (b - 1))*2", r"\left(a - \left(b - 1\right)\right) \cdot 2"),
        ("Min(n, -x)/E", r"\frac{\min\left(n, -x\right)}{e}"),
    ],
)
def test_formula_keeps_its_order(formula, printed):
    assert latex(formula) == printed
