"""Audits: the multiprecision arithmetic is right, agrees with every bound, and finds errors."""

import math
from dataclasses import replace

import mpmath
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from bounds.audit import MULTIPRECISION, audit
from bounds.capacity import covering_number
from bounds.concentration import sign_sums
from bounds.formula import Arithmetic, evaluate
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.lipschitz import lipschitz_constants, output_range
from bounds.losses import ramp
from bounds.result import Bound, Source, Term
from bounds.ssm import SelectiveSSMClass
from tests.strategies import VARIANTS, budgets, lengths, log_uniform, signed

NUMBERS = Arithmetic(
    number=float, power=pow, functions={"Min": min, "sqrt": np.sqrt}, constants={"pi": lambda: 3.0}
)


def base(**named):
    return SelectiveSSMClass(**dict(d=4, N=4, s_A=-0.5, a_lo=-2, p_lo=-1, p_hi=0) | named)


def gap(ssm, *, m=1000, T=100):
    return generalization_gap(ssm, m=m, T=T, delta=0.05, loss=ramp())


# The arithmetic: closed forms against sums, integrals and enumeration.


@settings(max_examples=30)
@given(signed(log_uniform(1e-18, 30)), st.integers(1, 40))
def test_step_sums_are_sums(rate, T):
    with mp.workdps(60):
        powers = [mp.exp(mpf(rate) * t) for t in range(T)]
        first, second = mp.fsum(powers), mp.fsum(t * power for t, power in enumerate(powers))
        functions = MULTIPRECISION.functions
        assert mp.almosteq(functions["S1"](mpf(rate), mpf(T)), first, rel_eps=mpf(10) ** -50)
        ours = functions["S2"](mpf(rate), mpf(T))
        assert mp.almosteq(ours, second, rel_eps=mpf(10) ** -50, abs_eps=mpf(10) ** -50)


@settings(max_examples=15)
@given(signed(log_uniform(1e-12, 20)), log_uniform(1e-2, 5))
def test_integrals_are_integrals(s, Y):
    with mp.workdps(30):
        s, Y = mpf(s), mpf(Y)
        J = mp.quad(lambda r: r * mp.exp(s * r), mp.linspace(0, Y, 4))
        assert mp.almosteq(MULTIPRECISION.functions["J"](s, Y), J, rel_eps=mpf(10) ** -15)
        r = -min(s, mpf(0))
        bend = min(Y, 1 / r) if r else Y
        largest = bend / mp.e + mp.quad(lambda t: r * t * mp.exp(-r * t), [bend, Y])
        assert mp.almosteq(MULTIPRECISION.functions["I"](s, Y), largest, rel_eps=mpf(10) ** -15)
        x = abs(s)
        c = MULTIPRECISION.functions["c"]
        assert mp.almosteq(c(x) * (1 - mp.exp(-x)), x, rel_eps=mpf(10) ** -15)


def test_limits_are_filled_in():
    zero, T = mpf(0), mpf(9)
    functions = MULTIPRECISION.functions
    assert functions["S1"](zero, T) == 9
    assert functions["S2"](zero, T) == 36
    assert functions["J"](zero, mpf(4)) == functions["J"](mpf(0), mpf(4)) == 8
    assert functions["c"](zero) == 1


@pytest.mark.parametrize("m", range(1, 9))
def test_mean_sign_sum_is_an_enumeration(m):
    exact = mpf(int(sign_sums(m).sum())) / 2**m / m
    assert mp.almosteq(MULTIPRECISION.functions["xi"](mpf(m)), exact)


@settings(max_examples=20)
@given(st.floats(0, 1), log_uniform(1e-6, 5))
def test_inverse_divergence_inverts(q, budget):
    with mp.workdps(60):
        q, budget = mpf(q), mpf(budget)
        p = MULTIPRECISION.functions["kl_inverse"](q, budget)
        if 0 < q < p < 1 - mpf(10) ** -40:
            divergence = q * mp.log(q / p) + (1 - q) * mp.log((1 - q) / (1 - p))
            assert mp.almosteq(divergence, budget, rel_eps=mpf(10) ** -20)


# Every bound agrees with its own formulas.


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_every_bound_agrees(variant, data):
    named = data.draw(budgets(variant))
    if variant != "step_logits":  # widths below 1e-154 have a square that underflows
        named |= {n: math.floor(1e6 * named[n]) / 1e6 for n in ("a_lo", "p_lo", "p_hi")}
    ssm = SelectiveSSMClass(**named)
    m, T = data.draw(st.integers(1, 10**9)), data.draw(lengths())
    bounds = [
        gap(ssm, m=m, T=T),
        lipschitz_constants(ssm, T=T),
        output_range(ssm, T=T),
        covering_number(ssm, T=T, radius=0.5, cover="maurey"),
    ]
    if ssm.outputs == 1:
        bounds.append(rademacher_upper(ssm, m=m, T=T))
        if ssm.step_logits is None:
            bounds.append(rademacher_lower(ssm, m=m, T=T))
    for bound in bounds:
        report = audit(bound)
        assert report.agrees, str(report)


@pytest.mark.parametrize(("s_A", "T"), [(-1e-12, 10**9), (0.0, 1), (3.0, 10**9), (1e-9, 10**6)])
def test_extreme_points_agree(s_A, T):
    report = gap(base(s_A=s_A), T=T).audit()
    assert report.agrees, str(report)


def test_more_digits_change_nothing():
    bound = gap(base())
    few, many = bound.audit(20), bound.audit(100)
    assert few.digits == 20
    for one, other in zip(few.terms, many.terms, strict=True):
        assert one.reference == other.reference
        assert one.error == pytest.approx(other.error, abs=1e-18)


# It finds what is wrong.


@pytest.mark.parametrize("name", ["D", "Pi", "G1", "H", "L_q", "C_F", "R_loss", "ln_N", "gap"])
def test_a_wrong_value_is_found(name):
    bound = gap(base())
    terms = tuple(
        replace(t, stored=t.stored * (1 + 1e-9) + 1e-9) if t.name == name else t for t in bound
    )
    report = audit(replace(bound, terms=terms))
    assert not report.agrees
    assert report.worst.term.name == name
    assert "DISAGREES" in str(report)
    assert str(report).endswith(f"{name} disagrees")


def test_a_wrong_formula_is_found():
    bound = gap(base(s_A=0.05))
    terms = tuple(replace(t, formula="D*S1(s_A*D_min, T)") if t.name == "G1" else t for t in bound)
    assert not audit(replace(bound, terms=terms)).agrees


def test_formulas_see_references_not_stored_values():
    # The second term is computed from the wrong first one: only the first is to blame for 1.5.
    terms = (Term("x", 1.5, "a", ""), Term("y", 2.0, "2*x", ""))
    report = audit(Bound("", {"a": 1.0}, terms, Source("seqtheory", "test")))
    assert [audited.agrees for audited in report.terms] == [False, True]


def test_zero_and_infinity():
    terms = (
        Term("zero", 0.0, "a - a", ""),
        Term("never", -np.inf, "0*a", "", log=True),
        Term("not_zero", 1e-30, "a - a", ""),
    )
    report = audit(Bound("", {"a": 1.0}, terms, Source("seqtheory", "test")))
    assert [audited.error for audited in report.terms] == [0.0, 0.0, np.inf]


def test_digits_are_checked():
    with pytest.raises(ValueError, match="digits must be a whole number"):
        gap(base()).audit(0)


# Formulas as text.


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("1 + 2*3", 7.0),
        ("-x**2", -4.0),
        ("(x - 1)/4", 0.25),
        ("Min(x, 1, pi)", 1.0),
        ("Piecewise((1, x < 0), (2, x >= 2), (3, True))", 2.0),
        ("Piecewise((1, x > 2), (2, x <= 1), (sqrt(4*x + 1), True))", 3.0),
    ],
)
def test_evaluates(formula, value):
    assert evaluate(formula, {"x": 2.0}, NUMBERS) == value


@pytest.mark.parametrize(
    "formula", ["y", "open('x')", "x.real", "[x]", "x if x else 1", "x % 2", "x == 2", "'a'", "+x"]
)
def test_refuses_what_is_not_a_formula(formula):
    with pytest.raises(ValueError, match="cannot read"):
        evaluate(formula, {"x": 2.0}, NUMBERS)


def test_a_piecewise_formula_must_apply():
    with pytest.raises(ValueError, match="no piece"):
        evaluate("Piecewise((1, x < 0), (2, x > 3))", {"x": 2.0}, NUMBERS)


def test_literals_are_read_as_they_are_written():
    third = evaluate("1/3", {}, MULTIPRECISION)
    assert third == mpmath.mpf(1) / 3
    with mp.workdps(50):
        assert evaluate("0.1", {}, MULTIPRECISION) == mpf("0.1")
