"""The paper's statements: reference values, what they imply, and their assumptions."""

import inspect
import math
from dataclasses import replace

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import capacity as derived
from bounds import lipschitz, published
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass
from tests.strategies import budgets

BASE = SelectiveSSMClass(
    d=4, N=4, s_A=-0.5, a_lo=-2, p_lo=-1, p_hi=0, M_w=2, M_q=2, M_B=4, M_C=4, M_A=8
)  # fmt: skip


DECAYING = budgets(signs=(-1,), sizes=(1, 40))


def _capacity_by_hand(T: int) -> dict[str, float]:
    """The published capacity for BASE, in 40 digits, sums term by term."""
    with mp.workdps(40):
        D, D_min = mp.log(1 + mp.e), mp.log(1 + mp.exp(-2))
        rho = mp.exp(-D_min / 2)
        S_1 = mp.fsum(rho**t for t in range(T))
        S_2 = mp.fsum(t * rho**t for t in range(T))
        X, B_A = D * S_1, 2
        step = S_1 + D * B_A * S_2
        gamma = (
            mp.cbrt(2**2 * mp.log(9)) * mp.cbrt(X) ** 2
            + mp.cbrt(4**2 * mp.log(33)) * mp.cbrt(X) ** 2
            + mp.cbrt(4**2 * mp.log(33)) * mp.cbrt(D * S_1) ** 2
            + mp.cbrt(16 * 8**2 * mp.log(512)) * mp.cbrt(D**2 * S_2) ** 2
            + mp.cbrt(2**2 * mp.log(9)) * mp.cbrt(step) ** 2
            + mp.cbrt(mp.log(3) / 4) * mp.cbrt(step) ** 2
        )
        return dict(S_1=float(S_1), S_2=float(S_2), X=float(X), C=float(gamma**1.5))


@pytest.mark.parametrize("T", [1, 10, 100])
def test_capacity_by_hand(T):
    bound = published.capacity(BASE, T=T)
    for name, expected in _capacity_by_hand(T).items():
        assert bound[name] == pytest.approx(expected, rel=1e-13), name


def test_gap_by_hand():
    m = 10**14
    C = _capacity_by_hand(100)["C"]
    R = 12 * C / math.sqrt(m) * (1 + math.log(math.sqrt(m) / (3 * C)))
    slack = 3 * math.sqrt(math.log(2 / 0.05) / (2 * m))
    bound = published.generalization_gap(BASE, m=m, T=100, delta=0.05, loss=ramp())
    assert float(bound) == pytest.approx(2 * R + slack, rel=1e-12)
    assert float(published.generalization_gap(BASE, m=10, T=9, delta=0.1, loss=ramp())) == 1


def test_other_statements_by_hand():
    linear = published.linear_attention_capacity(T=10, d=4, N=4, M_w=2, M_B=3, M_C=4, B_u=0.5)
    logs = math.log(9) ** (1 / 3) + 2 * math.log(33) ** (1 / 3)
    assert float(linear) == pytest.approx(10 / 8 * 24 * logs**1.5, rel=1e-13)
    # (1.5^3 - 1)/0.5 = 4.75
    lower = published.rademacher_lower(s_A=0.5, T=3, m=8, B_w=2)
    assert float(lower) == pytest.approx(9.5 * math.sqrt(1 / (4 * math.pi)), rel=1e-14)
    flat = published.rademacher_lower(s_A=0, T=7, m=2)
    assert float(flat) == pytest.approx(7 / math.sqrt(math.pi), rel=1e-14)
    # 16 * 4 / 0.25 = 256 atoms
    cover = published.state_matrix_cover(d=4, N=4, M_A=2, radius=0.5)
    assert float(cover) == pytest.approx(256 * math.log(512), rel=1e-14)


@settings(max_examples=12)
@given(named=DECAYING, T=st.integers(1, 10**6), eta=st.floats(0, 0.9), m=st.integers(1, 10**9))
def test_agrees(named, T, eta, m):
    ssm = SelectiveSSMClass(**named)
    eta = min(eta, -0.5 * float(ssm.s_A))
    gap = published.generalization_gap(ssm, m=m, T=T, delta=0.05, loss=ramp(0.3), eta=eta)
    assert gap.audit().agrees, gap.audit()
    assert gap.certify().agrees, gap.certify()
    assert published.state_norm(ssm, T=T, eta=eta).audit().agrees


@settings(max_examples=12)
@given(
    s=st.floats(0, 2), T=st.integers(1, 10**6), m=st.integers(1, 10**9), size=st.floats(0.1, 9),
    d=st.integers(1, 99), N=st.integers(1, 99), radius=st.floats(0.01, 9),
)  # fmt: skip
def test_others_agree(s, T, m, size, d, N, radius):
    for bound in (
        published.rademacher_lower(s_A=s, T=T, m=m, B_w=size),
        published.linear_attention_capacity(T=T, d=d, N=N, M_w=size, M_B=1, M_C=2, B_u=size),
        published.state_matrix_cover(d=d, N=N, M_A=size, radius=radius),
    ):
        assert bound.audit().agrees, bound.audit()
        assert bound.certify().agrees, bound.certify()


@settings(max_examples=12)
@given(named=DECAYING, T=st.integers(1, 10**5))
def test_moves_and_dominates(named, T):
    ssm = SelectiveSSMClass(**named)
    bound = published.capacity(ssm, T=T)
    assert float(published.capacity(ssm, T=2 * T)) >= float(bound) * (1 - 1e-12)
    assert float(published.capacity(ssm, T=T, eta=-0.5 * float(ssm.s_A))) >= float(bound) * 0.999999
    wider = replace(ssm, B_u=2 * ssm.B_u)
    assert float(published.capacity(wider, T=T)) >= float(bound)
    # The lemma of D1: one step sequence of largest steps does less than M_Delta S_1.
    ours = lipschitz.output_range(ssm, T=T)
    assert ours["state"] <= bound["X"] * (1 + 1e-12)
    assert bound["B_A"] <= float(ssm.M_A)


def test_limits():
    """Saturates in T only; costs sqrt(d) where ours costs a logarithm (fixed sum of decays)."""
    assert float(published.capacity(BASE, T=10**6)) == float(published.capacity(BASE, T=10**7))
    small = SelectiveSSMClass(d=10, N=1, s_A=-1e-6, a_lo=-1, p_lo=0, p_hi=0, M_w=1, M_B=1, M_C=1,
                              M_q=1, M_A=1)  # fmt: skip
    large = replace(small, d=10**4)
    share = "gamma_A"
    theirs = [published.capacity(ssm, T=100)[share] ** 1.5 for ssm in (small, large)]
    ours = [derived.covering_number(ssm, T=100, radius=1, cover="maurey")[share] ** 1.5
            for ssm in (small, large)]  # fmt: skip
    assert theirs[1] / theirs[0] > math.sqrt(1000)
    assert ours[1] / ours[0] < 2


@given(seed=st.integers(0, 10**6))
@settings(max_examples=20)
def test_state_holds(seed):
    """Random diagonal models within the budgets, 50 at a time, never exceed Lemma E.4."""
    rng = np.random.default_rng(seed)
    T, models = 12, 50
    ssm = SelectiveSSMClass(d=3, N=2, s_A=-rng.uniform(0.01, 1), a_lo=-2, p_lo=-1, p_hi=1)
    limit = published.state_norm(ssm, T=T)["X"]
    u = _within(rng, 1, (models, T, 3))
    q, p = _within(rng, 1, (models, 3)), rng.uniform(-1, 1, models)
    W = rng.normal(size=(models, 2, 3))
    W /= np.linalg.norm(W, 2, axis=(1, 2))[:, None, None]
    a = rng.uniform(-2, ssm.s_A, (models, 3, 2))
    x = np.zeros((models, 3, 2))
    for t in range(T):
        step = np.logaddexp(0, p + np.sum(q * u[:, t], -1))[:, None, None]
        x = np.exp(step * a) * x + step * u[:, t, :, None] * (W @ u[:, t, :, None])[:, None, :, 0]
    assert np.linalg.norm(x, axis=(1, 2)).max() <= limit


def _within(rng, radius, shape):
    x = rng.normal(size=shape)
    return radius * x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (dict(s_A=0.0), "s_A"), (dict(s_A=0.3), "s_A"),
        (dict(steps="per_channel"), "steps"), (dict(outputs=3), "outputs"),
        (dict(vocab=7), "vocab"), (dict(step_logits=(-1.0, 1.0)), "step_logits"),
        (dict(state_matrix="log_norm", B_A=2.0), "state_matrix"),
    ],
)  # fmt: skip
def test_assumptions_are_enforced(change, named):
    ssm = replace(BASE, **change)
    for statement in (published.state_norm, published.capacity):
        with pytest.raises(ValueError, match=named):
            statement(ssm, T=10)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: published.capacity(BASE, T=0), "T"),
        (lambda: published.capacity(BASE, T=10, eta=0.5), "eta"),
        (lambda: published.capacity(BASE, T=10, eta=-0.1), "eta"),
        (lambda: published.capacity(BASE, T=10, eta=math.nan), "eta"),
        (lambda: published.generalization_gap(BASE, m=0, T=1, delta=0.1, loss=ramp()), "m"),
        (lambda: published.generalization_gap(BASE, m=9, T=1, delta=1.0, loss=ramp()), "delta"),
        (lambda: published.rademacher_lower(s_A=-0.1, T=1, m=1), "s_A"),
        (lambda: published.rademacher_lower(s_A=math.inf, T=1, m=1), "s_A"),
        (lambda: published.rademacher_lower(s_A=0.1, T=1, m=1, B_w=0), "B_w"),
        (lambda: published.state_matrix_cover(d=1, N=1, M_A=1, radius=0), "radius"),
        (lambda: published.state_matrix_cover(d=1, N=1, M_A=-1, radius=1), "M_A"),
        (lambda: inspect.unwrap(published.state_matrix_cover)(d="4", N=1, M_A=1, radius=1), "d"),
        (lambda: published.linear_attention_capacity(T=1, d=1, N=1, M_w=-1, M_B=1, M_C=1), "M_w"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        call()
