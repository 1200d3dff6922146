"""Comparison rows: reference values, Lipschitz constants on random models, measured growth laws."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bounds import architectures as arch
from bounds.capacity import covering_number
from bounds.comparison import comparison_table, growth_law
from bounds.result import Bound
from bounds.ssm import SelectiveSSMClass
from tests.strategies import budgets

MODELS = 2000
DERIVED = [row for row in comparison_table() if row.capacity]


def test_linear_attention_by_hand():
    # Pi = T B_u^3 = 10/8; L_w = 2*3*10/8 = 7.5, L_B = 1*3*10/8 = 3.75, L_C = 1*2*10/8 = 2.5
    bound = arch.linear_attention(T=10, d=4, N=4, B_u=0.5, B_B=2, B_C=3, M_w=1, M_B=5, M_C=6)
    assert [bound[f"L_{name}"] for name in "wBC"] == pytest.approx([7.5, 3.75, 2.5])
    gamma = math.log(9) ** (1 / 3) * 7.5 ** (2 / 3)
    gamma += (25 * math.log(33)) ** (1 / 3) * 3.75 ** (2 / 3)
    gamma += (36 * math.log(33)) ** (1 / 3) * 2.5 ** (2 / 3)
    assert float(bound) == pytest.approx(gamma**1.5, rel=1e-13)
    mean = arch.linear_attention(
        T=10, d=4, N=4, B_u=0.5, B_B=2, B_C=3, M_w=1, M_B=5, M_C=6, averaged=True
    )
    assert float(mean) == pytest.approx(gamma**1.5 / 10, rel=1e-13)


def test_recurrent_network_by_hand():
    # B_A = 2, T = 3: S_1 = 7, sum t 2^(t-1) = 1 + 4 = 5; state 3*7 = 21, L_B = 7, L_A = 3*5 = 15
    bound = arch.recurrent_network(T=3, n=4, d=2, B_A=2, B_B=3)
    assert [bound[f"L_{name}"] for name in "wBA"] == pytest.approx([21, 7, 15])
    # |h_t| <= sqrt(4) * 0.5 = 1, and 1 * (1 + 2 + 4) = 7 < 15
    bound = arch.recurrent_network(T=3, n=4, d=2, B_A=2, B_B=3, activation_bound=0.5)
    assert [bound[f"L_{name}"] for name in "wBA"] == pytest.approx([1, 7, 7])


def test_other_rows_by_hand():
    bound = arch.softmax_attention(T=9, d=3, d_v=2, B_u=2, B_w=3, B_V=5)
    assert [bound[f"L_{name}"] for name in "wVQ"] == pytest.approx([10, 6, 120])
    # sqrt(1 + 1/4 + 1/16) and (1 + 1/2 + 1/4) sqrt(2 ln 6), times 3
    energy = arch.linear_time_invariant(T=3, rho=0.5, B_u=3)
    assert float(energy) == pytest.approx(3 * math.sqrt(1.3125), rel=1e-14)
    amplitude = arch.linear_time_invariant(T=3, rho=0.5, B_u=3, inputs="amplitude")
    assert float(amplitude) == pytest.approx(5.25, rel=1e-14)


def _matrices(rng, rows, columns, size=1.0):
    """Random matrices of spectral norm at most `size`, most of them exactly."""
    W = rng.normal(size=(MODELS, rows, columns))
    norms = np.linalg.norm(W, 2, axis=(1, 2))[:, None, None]
    return W / norms * size * np.minimum(1, rng.uniform(0.5, 1.5, (MODELS, 1, 1)))


def _inputs(rng, T, d, B_u):
    u = rng.normal(size=(MODELS, T, d))
    return B_u * u / np.linalg.norm(u, axis=-1, keepdims=True)


def _neighbours(rng, weights):
    """The same weights moved towards other members: a little, a lot, or only one of them."""
    reach = 10 ** rng.uniform(-4, 0, (MODELS, 1, 1))
    moved = rng.random((len(weights), MODELS, 1, 1)) < 0.6
    others = [W[rng.permutation(MODELS)] for W in weights]
    return [
        W + reach * move * (other - W)
        for W, other, move in zip(weights, others, moved, strict=True)
    ]


def _largest_ratio(bound: Bound, names: str, model, u, weights, others) -> float:
    """Change of the output over what the Lipschitz constants allow."""
    allowed = sum(
        bound[f"L_{name}"] * np.linalg.norm(W - other, 2, axis=(1, 2))
        for name, W, other in zip(names, weights, others, strict=True)
    )
    change = np.abs(model(u, *weights) - model(u, *others))
    return float(np.max(change / np.maximum(allowed, 1e-300)))


def _linear_attention(u, w, B, C):
    scores = np.einsum("mnd,mtd,mne,me->mt", B, u, C, u[:, -1])
    return np.einsum("mod,mtd,mt->m", w, u, scores)


def _softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _softmax_attention(u, w, V, Q):
    p = _softmax(np.einsum("mtd,mde,me->mt", u, Q, u[:, -1]))
    return np.einsum("mov,mvd,mtd,mt->m", w, V, u, p)


def _network(activation):
    def run(u, w, B, A):
        h = np.zeros((MODELS, A.shape[1], 1))
        for t in range(u.shape[1]):
            h = activation(A @ h + B @ u[:, t, :, None])
        return (w @ h)[:, 0, 0]

    return run


@pytest.mark.parametrize("T", [1, 2, 7])
def test_attention_lipschitz_constants_hold(T):
    rng = np.random.default_rng(T)
    u = _inputs(rng, T, 3, 1.5)
    weights = [_matrices(rng, 1, 3), _matrices(rng, 2, 3), _matrices(rng, 2, 3)]
    others = _neighbours(rng, weights)
    bound = arch.linear_attention(T=T, d=3, N=2, B_u=1.5)
    assert _largest_ratio(bound, "wBC", _linear_attention, u, weights, others) <= 1 + 1e-9
    weights = [_matrices(rng, 1, 2), _matrices(rng, 2, 3), _matrices(rng, 3, 3, 2.0)]
    others = _neighbours(rng, weights)
    bound = arch.softmax_attention(T=T, d=3, d_v=2, B_u=1.5, B_Q=2)
    assert _largest_ratio(bound, "wVQ", _softmax_attention, u, weights, others) <= 1 + 1e-9


@pytest.mark.parametrize("B_A", [0.6, 1.0, 1.4])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_network_lipschitz_constants_hold(B_A, activation):
    rng = np.random.default_rng(int(10 * B_A))
    function = {"linear": lambda x: x, "relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}
    u = _inputs(rng, 6, 2, 1.5)
    weights = [_matrices(rng, 1, 3), _matrices(rng, 3, 2), _matrices(rng, 3, 3, B_A)]
    others = _neighbours(rng, weights)
    cap = 1.0 if activation == "tanh" else None
    bound = arch.recurrent_network(T=6, n=3, d=2, B_A=B_A, B_u=1.5, activation_bound=cap)
    run = _network(function[activation])
    assert _largest_ratio(bound, "wBA", run, u, weights, others) <= 1 + 1e-9


def test_lipschitz_constants_are_attained():
    """Rank-one models along one direction reach them, so that none can be smaller."""
    one, less = np.ones((MODELS, 1, 1)), np.full((MODELS, 1, 1), 1 - 1e-6)
    u = np.full((MODELS, 5, 1), 1.5)
    attention = arch.linear_attention(T=5, d=1, N=1, B_u=1.5)
    network = arch.recurrent_network(T=5, n=1, d=1, B_A=1.4, B_u=1.5)
    run = _network(lambda x: x)
    for k in range(3):
        others = [less if k == j else one for j in range(3)]
        ratio = _largest_ratio(attention, "wBC", _linear_attention, u, [one] * 3, others)
        assert ratio == pytest.approx(1)
        weights = [one, one, 1.4 * one]
        others = [W * (less if k == j else one) for j, W in enumerate(weights)]
        ratio = _largest_ratio(network, "wBA", run, u, weights, others)
        assert ratio == pytest.approx(1, rel=1e-4)


def test_softmax_moves_in_l1_by_at_most_the_largest_change_of_a_score():
    """The constant is 1, and nothing smaller: random directions reach 0.95 and more."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(20000, 4)) * rng.uniform(0.1, 4, (20000, 1))
    step = 10 ** rng.uniform(-6, 0.5, (20000, 1)) * rng.choice([-1, 1], (20000, 4))
    moved = np.abs(_softmax(a + step) - _softmax(a)).sum(-1) / np.abs(step).max(-1)
    assert 0.95 < moved.max() <= 1 + 1e-9


def test_energy_and_amplitude_of_impulse_responses():
    """|h| <= gain rho^t: Cauchy-Schwarz and Hoelder, each attained."""
    T, rho = 9, 0.7
    h = rho ** np.arange(T)
    energy = arch.linear_time_invariant(T=T, rho=rho)["h"]
    assert np.dot(h, h / np.linalg.norm(h)) == pytest.approx(energy)
    assert arch.linear_time_invariant(T=T, rho=rho, inputs="amplitude")["h"] == pytest.approx(
        h.sum()
    )


def test_selective_ssm_is_the_capacity_of_the_theory():
    ssm = SelectiveSSMClass(d=4, N=4, s_A=-0.5, a_lo=-2, p_lo=-1, p_hi=0, M_w=2)
    assert float(arch.selective_ssm(ssm, T=100)) == pytest.approx(
        covering_number(ssm, T=100, radius=1, cover="maurey")["C_F"]
    )
    counted = covering_number(ssm, T=100, radius=0.1, cover="volumetric")
    squared = float(arch.selective_ssm(ssm, T=100, mode="parameter", radius=0.1)) ** 2
    assert squared == pytest.approx(float(counted))


@pytest.mark.parametrize("row", DERIVED, ids=lambda row: f"{row.architecture} {row.case}")
def test_growth_law_of_every_row(row):
    assert row.certainty == "derived"
    assert growth_law(row.capacity).name == row.T_law
    bound = row.capacity(1000)
    assert bound.audit().agrees, bound.audit()


def test_width_law_of_every_row():
    def log_C(row):
        last = row.capacity(1000).terms[-1]
        return last.stored if last.log else math.log(last.stored)

    expected = {"ln d at fixed M": 0.075, "sqrt(d)": 0.5, "d": 1.0, "none": 0.0}
    tables = [comparison_table(d=d) for d in (2**7, 2**9)]
    for narrow, wide in zip(*tables, strict=True):
        if narrow.capacity:
            slope = (log_C(wide) - log_C(narrow)) / math.log(4)
            law = narrow.d_law.split(",")[0]
            assert slope == pytest.approx(expected[law], abs=0.03), (narrow.case, slope)


def test_growth_rates():
    rates = {(row.architecture, row.case, row.mode): row for row in comparison_table()
             if row.capacity}  # fmt: skip
    network = growth_law(rates["RNN", "||A|| > 1", "norm"].capacity)
    assert network.rate == pytest.approx(math.log(1.1), rel=1e-6)
    ssm = growth_law(rates["selective SSM", "s_A > 0", "norm"].capacity)
    assert ssm.rate == pytest.approx(0.05 * math.log(1 + math.e), rel=1e-6)
    assert ssm.exponent == pytest.approx(1, abs=0.01)


def test_published_rows():
    published = [row for row in comparison_table() if row.capacity is None]
    assert len(published) == 13
    assert {row.certainty for row in published} == {"published", "recalled"}
    assert all(row.source.key != "seqtheory" for row in published)


def _power(exponent):
    def capacity(T: int) -> Bound:
        return arch.linear_time_invariant(T=1, rho=1.0, gain=float(T) ** exponent)

    return capacity


@pytest.mark.parametrize(
    ("exponent", "name"),
    [(0.0, "1"), (0.5, "sqrt(T)"), (1.0, "T"), (1.5, "T^(3/2)"), (2.0, "T^2"), (3.0, "T^3")],
)
def test_growth_law_of_powers(exponent, name):
    law = growth_law(_power(exponent))
    assert (law.name, law.exponent) == (name, pytest.approx(exponent, abs=1e-9))


SIZES = st.floats(0.2, 4)


@settings(max_examples=20)
@given(
    T=st.integers(1, 10**6), d=st.integers(1, 50), N=st.integers(1, 50), B_u=SIZES, B=SIZES,
    M=st.none() | st.floats(0.1, 20), B_A=st.floats(0.3, 3), mode=st.sampled_from(arch.MODES),
    cap=st.none() | SIZES, radius=st.floats(1e-3, 3),
)  # fmt: skip
def test_agrees(T, d, N, B_u, B, M, B_A, mode, cap, radius):
    given = dict(T=T, d=d, B_u=B_u, mode=mode, radius=radius)
    rho = min(B_A, 1.2)
    for bound in (
        arch.linear_attention(N=N, B_B=B, M_C=M, averaged=T % 2 == 0, **given),
        arch.softmax_attention(d_v=N, B_V=B, M_Q=M, **given),
        arch.recurrent_network(n=N, B_A=B_A, B_B=B, M_B=M, activation_bound=cap, **given),
        arch.linear_time_invariant(T=T, rho=rho, gain=B, B_u=B_u, inputs="amplitude"),
        arch.linear_time_invariant(T=T, rho=rho, gain=B, B_u=B_u),
    ):
        assert bound.audit().agrees, bound.audit()


@settings(max_examples=20)
@given(named=budgets(), T=st.integers(1, 10**6), mode=st.sampled_from(arch.MODES))
def test_selective_ssm_agrees(named, T, mode):
    widths = (named["a_lo"], named["p_hi"] - named["p_lo"])
    assume(all(width == 0 or abs(width) > 1e-100 for width in widths))  # squares underflow
    bound = arch.selective_ssm(SelectiveSSMClass(**named), T=T, mode=mode, radius=0.1)
    assert bound.audit().agrees, bound.audit()


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: arch.linear_attention(T=0, d=1, N=1), "T"),
        (lambda: arch.linear_attention(T=1, d=1, N=0), "N"),
        (lambda: arch.linear_attention(T=1, d=1, N=1, B_B=-1), "B_B"),
        (lambda: arch.linear_attention(T=1, d=1, N=1, M_C=math.nan), "M_C"),
        (lambda: arch.linear_attention(T=1, d=1, N=1, mode="nrom"), "mode"),
        (lambda: arch.softmax_attention(T=1, d=1, d_v=1, B_u=0), "B_u"),
        (lambda: arch.softmax_attention(T=1, d=1, d_v=1, radius=math.inf), "radius"),
        (lambda: arch.recurrent_network(T=1, n=1, d=1, B_A=0), "B_A"),
        (lambda: arch.recurrent_network(T=1, n=1, d=1, B_A=1, activation_bound=0),
         "activation_bound"),
        (lambda: arch.linear_time_invariant(T=1, rho=-0.5), "rho"),
        (lambda: arch.linear_time_invariant(T=1, rho=0.5, inputs="power"), "inputs"),
        (lambda: inspect.unwrap(arch.linear_attention)(T=1, d="3", N=1), "d"),
        (lambda: comparison_table(d=0), "d"),
        (lambda: comparison_table(M=0.0), "M"),
        (lambda: growth_law(_power(1.0), (1, 2)), "lengths"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=rf"\b{named}\b"):
        call()
