"""Enclosures: they contain the 60-digit reference, they are tight, and they catch wrong values."""

import math
from dataclasses import replace

import mpmath
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from mpmath import mp

from bounds.audit import MULTIPRECISION
from bounds.certify import BALLS, certify
from bounds.concentration import kl_inverse
from bounds.formula import evaluate
from bounds.generalization import generalization_gap, rademacher_lower
from bounds.losses import ramp
from bounds.result import Bound, Source, Term
from bounds.ssm import SelectiveSSMClass
from tests.strategies import VARIANTS, budgets, lengths, log_uniform, rates_and_lengths

NOWHERE = Source("seqtheory", "test")


def one_term(formula, stored=0.0, *, log=False, **inputs):
    return Bound("", inputs, (Term("value", stored, formula, "", log),), NOWHERE)


def references(bound):
    """Every term as a multiprecision number, by the formulas alone."""
    with mp.workdps(90):
        names = {name: mp.mpf(value) for name, value in bound.inputs.items()}
        for term in bound:
            if term.formula:
                names[term.name] = evaluate(term.formula, names, MULTIPRECISION)
            else:
                names[term.name] = mp.exp(term.stored) if term.log else mp.mpf(term.stored)
        return [names[term.name] for term in bound]


def assert_encloses(certificate, bound):
    with mp.workdps(90):
        exact = references(bound)
        for certified, reference in zip(certificate.terms, exact, strict=True):
            if certified.term.log:
                reference = mp.log(reference) if reference else -mp.inf
            # Where the enclosure is one point the reference may be off by its own rounding.
            slack = abs(reference) * mp.mpf(10) ** -60 if mp.isfinite(reference) else 0
            assert certified.lower <= reference + slack, certified
            assert reference - slack <= certified.upper, certified
        assert certificate.lower <= exact[-1] * (1 + mp.mpf(10) ** -50)
        assert exact[-1] * (1 - mp.mpf(10) ** -50) <= certificate.upper


def assert_tight(certificate):
    for certified in certificate.terms:
        if math.isfinite(certified.lower) and math.isfinite(certified.upper):
            size = max(abs(certified.lower), abs(certified.upper))
            scale = max(size, 1.0) if certified.term.log else size
            assert certified.upper - certified.lower <= 8 * math.ulp(scale), certified


def gap(named, *, m=1000, T=100):
    ssm = SelectiveSSMClass(**named)
    return generalization_gap(ssm, m=m, T=T, delta=0.05, loss=ramp(0.5))


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=2, phases=[Phase.generate])
@given(data=st.data())
def test_contains_the_reference(variant, data):
    named = data.draw(budgets(variant))
    bound = gap(named, m=data.draw(st.integers(1, 10**9)), T=data.draw(lengths()))
    certificate = certify(bound)
    assert_encloses(certificate, bound)
    assert_tight(certificate)
    for ours, theirs in zip(certificate.terms, bound.audit().terms, strict=True):
        assert abs(ours.error) == pytest.approx(theirs.error, abs=1e-14)


@pytest.mark.parametrize("s_A", [-0.5, -1e-13, -5e-324, 0.0, 1e-300, 1e-9, 0.05, 3.0])
@pytest.mark.parametrize("T", [1, 2, 10**9])
def test_every_sign_of_the_decay(s_A, T):
    named = dict(d=4, N=4, s_A=s_A, a_lo=-2, p_lo=-1, p_hi=0.5, M_A=50)
    bound = gap(named, T=T)
    assert_encloses(certify(bound), bound)
    lower = rademacher_lower(SelectiveSSMClass(**named), m=10, T=T)
    assert_encloses(lower.certify(), lower)
    assert lower.certify().agrees


def test_nothing_to_remember_at_length_one():
    certificate = gap(dict(d=2, N=2, s_A=-1, a_lo=-2, p_lo=0, p_hi=0), T=1).certify()
    for name in ("G2", "H", "L_A"):
        assert (certificate[name].lower, certificate[name].upper) == (-math.inf, -math.inf)


@settings(max_examples=20)
@given(rates_and_lengths(), st.sampled_from(["S1", "S2", "J", "I"]))
@example((1e-310, 2**53), "S2")
def test_step_sums_at_any_rate(rate_and_length, name):
    rate, T = rate_and_length
    bound = one_term(f"{name}(rate, T)", log=True, rate=rate, T=T)
    certificate = certify(bound)
    assert certificate.precision == 128
    assert_encloses(certificate, bound)
    assert_tight(certificate)


@settings(max_examples=20)
@given(st.floats(-5, 5), st.integers(1, 30))
def test_step_sums_are_sums(rate, T):
    with mp.workdps(60):
        terms = [mp.exp(mp.mpf(rate) * t) for t in range(T)]
        sums = {"S1": mp.fsum(terms), "S2": mp.fsum(t * x for t, x in enumerate(terms))}
    for name, exact in sums.items():
        value = certify(one_term(f"{name}(rate, T)", rate=rate, T=T))
        assert value.lower <= exact <= value.upper


@settings(max_examples=20)
@given(st.integers(1, 2**53))
def test_mean_sign_sum(m):
    bound = one_term("xi(m)", m=m)
    certificate = certify(bound)
    assert_encloses(certificate, bound)
    assert_tight(certificate)


@settings(max_examples=20)
@given(st.floats(0, 1), st.one_of(st.just(0.0), log_uniform(1e-12, 50)))
def test_inverse_divergence(q, budget):
    certificate = certify(one_term("kl_inverse(q, budget)", q=q, budget=budget))
    assert_tight(certificate)
    assert certificate.lower <= kl_inverse(q, budget) * (1 + 1e-7)
    with mp.workdps(120):

        def divergence(p):
            q_ = mp.mpf(q)
            first = q_ * mp.log(q_ / p) if q_ else 0
            return first + ((1 - q_) * mp.log((1 - q_) / (1 - p)) if q_ < 1 else 0)

        if q < certificate.lower < 1:
            assert divergence(mp.mpf(certificate.lower)) <= budget
        if certificate.upper < 1 and budget > 0:
            assert divergence(mp.mpf(certificate.upper)) >= budget


def test_an_enclosure_is_of_the_exact_inputs():
    certificate = certify(one_term("a + b", 0.1 + 0.2, a=0.1, b=0.2))
    assert mpmath.mpf(certificate.lower) <= mpmath.mpf("0.30000000000000001665")
    # 0.1 + 0.2 in doubles is 0.3000...04, above the sum of the two doubles.
    assert certificate.overshoots
    assert not certificate.undershoots
    assert certificate.worst.error == 0


def test_huge_values_round_outwards():
    bound = one_term("exp(x)", 1e4, log=True, x=1e4)
    certificate = certify(bound)
    assert certificate.upper == math.inf
    assert certificate.lower == pytest.approx(1.797e308, rel=1e-3)
    assert certificate.terms[0].lower <= 1e4 <= certificate.terms[0].upper
    tiny = certify(one_term("exp(-x)", x=1e4))
    assert (tiny.lower, tiny.upper) == (0.0, 5e-324)


@pytest.mark.parametrize("name", ["G1", "L_p", "C_F", "chained_raw", "ln_N", "gap_parameter"])
def test_a_wrong_value_is_detected(name):
    bound = gap(dict(d=4, N=4, s_A=-0.5, a_lo=-2, p_lo=-1, p_hi=0))
    terms = tuple(replace(t, stored=t.stored + 1e-6) if t.name == name else t for t in bound)
    certificate = certify(replace(bound, terms=terms))
    assert bound.certify().agrees
    assert not certificate.agrees
    assert certificate.worst.term.name == name
    assert certificate.worst.error > 0
    assert "OUTSIDE" in str(certificate)


def test_a_wrong_formula_is_detected():
    # Negative control: the published growth factor takes the smallest step for every sign of s_A.
    bound = gap(dict(d=4, N=4, s_A=0.5, a_lo=-2, p_lo=-1, p_hi=0))
    terms = tuple(replace(t, formula="D*S1(s_A*D_min, T)") if t.name == "G1" else t for t in bound)
    certificate = certify(replace(bound, terms=terms))
    assert not certificate["G1"].agrees
    assert certificate["G1"].error > 0


def test_what_stays_open_is_said():
    with pytest.raises(
        ArithmeticError, match=r"term value: a comparison .* undecided at 4096 bits"
    ):
        certify(one_term("Piecewise((x, exp(log(x)) >= x), (2*x, True))", x=3.0))
    with pytest.raises(ArithmeticError, match="term value: no enclosure of 'log"):
        certify(one_term("log(-x)", x=3.0))
    # Whether e^{ln 3} exceeds 3 is beyond any precision: the larger whole number is the safe one.
    whole = certify(one_term("ceiling(exp(log(x)))", 3.0, x=3.0))
    assert (whole.lower, whole.upper) == pytest.approx((3.0, 4.0), rel=1e-8)
    assert whole.upper >= 4
    assert whole.agrees
    exact = certify(one_term("ceiling(x/y)", 4096.0, x=1024.0, y=0.25))
    assert (exact.lower, exact.upper) == (4096.0, 4096.0)


def test_prints_every_term():
    bound = gap(dict(d=2, N=2, s_A=-1, a_lo=-2, p_lo=0, p_hi=0))
    text = str(bound.certify())
    assert all(term.name in text for term in bound)
    assert "value <=" in text
    with pytest.raises(KeyError, match="no term 'G3'"):
        bound.certify()["G3"]


def test_knows_every_function_of_the_audit():
    assert BALLS.functions.keys() == MULTIPRECISION.functions.keys()
    assert BALLS.constants.keys() == MULTIPRECISION.constants.keys()
