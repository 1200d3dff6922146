"""Output range and Lipschitz constants against simulated models."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from bounds.lipschitz import (
    characteristic_length,
    lipschitz_constants,
    output_range,
    published_characteristic_length,
)
from bounds.matrices import transient_constant
from bounds.ssm import SelectiveSSMClass
from tests import simulate
from tests.simulate import Model
from tests.strategies import budgets, log_uniform

BASE = dict(d=4, N=3, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)
BLOCKS = ("w", "B", "C", "A", "q", "p")
rngs = st.integers(0, 2**32 - 1).map(np.random.default_rng)
simulated = st.sampled_from(("shared", "per_channel", "per_head", "log_norm"))
SIZE = 60

# --- agrees: two ways to compute an output --------------------------------------------------------


@settings(max_examples=20)
@given(st.sampled_from(("shared", "per_channel", "per_head")), st.data(), rngs)
def test_recurrence_and_unrolled_sum(variant, data, rng):
    ssm = SelectiveSSMClass(**data.draw(budgets(variant)))
    model, u = simulate.members(ssm, rng, 1), simulate.sequences(ssm, rng, 1, 7)
    one = Model(*(getattr(model, name)[0] for name in ("w", "B", "C", "A", "q", "p")))
    z = simulate.outputs(model, u)[0]
    assert z == pytest.approx(simulate.unrolled(one, u[0]), rel=1e-9, abs=1e-12)
    dense = replace(model, A=model.A[..., None] * np.eye(int(ssm.N)))
    assert z == pytest.approx(simulate.outputs(dense, u)[0], rel=1e-9, abs=1e-12)


@given(st.integers(1, 4), log_uniform(1e-3, 50), rngs)
def test_exponentials_of_the_simulator(n, scale, rng):
    A = scale * rng.normal(size=(2, n, n)) - 2 * scale * np.eye(n)
    assert simulate.exponential(A) == pytest.approx(expm(A), rel=1e-8, abs=1e-11)


# --- limits ---------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(budgets(), log_uniform(0.1, 10), st.integers(1, 10**6))
def test_homogeneity(named, k, T):
    """P5: exact powers of a common scale."""
    named = {key: value for key, value in named.items() if key[0] not in "MF"}

    def L(**more: float) -> np.ndarray:
        bound = lipschitz_constants(SelectiveSSMClass(**{**named, **more}), T=T)
        return np.array([bound.term(name).stored for name in ("b", "L_w", "L_B", "L_C", "L_p")])

    here, step = L(), math.log(k)
    slack = 1e-12 * np.maximum(1, np.abs(here).max())
    assert L(B_w=k * named["B_w"]) - here == pytest.approx(
        step * np.array([1, 0, 1, 1, 1]), abs=slack
    )
    swapped = L(B_B=k * named["B_B"], B_C=named["B_C"] / k) - here
    assert swapped == pytest.approx(step * np.array([0, 0, -1, 1, 0]), abs=slack)
    still = L(B_q=0.0)
    assert L(B_q=0.0, B_u=k * named["B_u"]) - still == pytest.approx(3 * step, abs=slack)


def test_characteristic_lengths():
    ssm = SelectiveSSMClass(**BASE)
    D, D_min = math.log1p(math.e), math.log1p(math.exp(-2))
    assert characteristic_length(ssm) == pytest.approx(2 / D)
    assert published_characteristic_length(ssm) == pytest.approx(2 / D_min)
    assert characteristic_length(SelectiveSSMClass(**{**BASE, "s_A": 0.0})) == math.inf
    saturated = [float(output_range(ssm, T=T)) for T in (round(60 / D), 10**9)]
    assert saturated[0] == pytest.approx(saturated[1], rel=1e-12)


@settings(max_examples=30)
@given(budgets(), st.integers(1, 1000), st.floats(0, 5))
def test_range_does_not_depend_on_the_shortest_step(named, T, lower):
    here = output_range(SelectiveSSMClass(**named), T=T)
    there = output_range(SelectiveSSMClass(**{**named, "p_lo": named["p_lo"] - lower}), T=T)
    assert float(here) == float(there)


def test_one_head_or_channel_is_the_shared_model():
    for kind in (dict(steps="per_channel"), dict(steps="per_head", heads=1)):
        named = {**BASE, "d": 1 if kind["steps"] == "per_channel" else 4}
        several = lipschitz_constants(SelectiveSSMClass(**named, **kind), T=30)
        shared = lipschitz_constants(SelectiveSSMClass(**named), T=30)
        assert [several[f"L_{name}"] for name in BLOCKS] == [shared[f"L_{name}"] for name in BLOCKS]


# --- holds ----------------------------------------------------------------------------------------


def assert_range(bound, model: Model, u: np.ndarray) -> None:
    state = np.linalg.norm(simulate.final_state(model, u), axis=(-2, -1))
    assert np.all(state <= bound["state"] * (1 + 1e-9))
    z = np.linalg.norm(simulate.outputs(model, u), axis=-1)
    assert np.all(z <= bound["b"] * (1 + 1e-9))


def assert_lipschitz(bound, one: Model, other: Model, u: np.ndarray) -> None:
    gap = np.linalg.norm(simulate.outputs(one, u) - simulate.outputs(other, u), axis=-1)
    distance = simulate.distances(one, other)
    allowed = sum(bound[f"L_{name}"] * distance[name] for name in BLOCKS)
    assert np.all(gap <= allowed * (1 + 1e-9) + 1e-12 * bound["b"])
    largest = np.max(list(distance.values()), axis=0)
    assert np.all(gap <= bound["L"] * largest * (1 + 1e-9) + 1e-12 * bound["b"])


@settings(max_examples=40)
@given(simulated, st.data(), st.integers(1, 16), rngs)
def test_range_and_parameter_constants(variant, data, T, rng):
    """All blocks at once, far and near, and each block alone."""
    ssm = SelectiveSSMClass(**data.draw(budgets(variant, sizes=(1, 4))))
    bound = lipschitz_constants(ssm, T=T)
    one, other = (simulate.members(ssm, rng, SIZE) for _ in range(2))
    u = simulate.sequences(ssm, rng, SIZE, T)
    assert_range(bound, one, u)
    assert_lipschitz(bound, one, other, u)
    assert_lipschitz(bound, one, simulate.between(one, other, 1e-3), u)
    for name in BLOCKS:
        assert_lipschitz(bound, one, replace(one, **{name: getattr(other, name)}), u)


@settings(max_examples=25)
@given(simulated, st.data(), st.integers(1, 16), st.sampled_from((1.0, 1e-3)), rngs)
def test_input_constant(variant, data, T, share, rng):
    ssm = SelectiveSSMClass(**data.draw(budgets(variant, sizes=(1, 4))))
    bound, model = lipschitz_constants(ssm, T=T), simulate.members(ssm, rng, SIZE)
    u, v = (simulate.sequences(ssm, rng, SIZE, T) for _ in range(2))
    v = u + share * (v - u)
    gap = np.linalg.norm(simulate.outputs(model, u) - simulate.outputs(model, v), axis=-1)
    farthest = np.linalg.norm(u - v, axis=-1).max(-1)
    assert np.all(gap <= bound["L_u"] * farthest * (1 + 1e-9) + 1e-12 * bound["b"])


@settings(max_examples=40)
@given(st.sampled_from(("shared", "per_channel", "per_head")), st.data(), st.integers(1, 30))
def test_the_range_of_one_sequence_is_attained(variant, data, T):
    """So are the constants in the readout and both projections, for every sign of the decay."""
    ssm = SelectiveSSMClass(**data.draw(budgets(variant)))
    bound = lipschitz_constants(ssm, T=T)
    model, u = simulate.extremal(ssm, T)
    attained = bound["Pi"] * bound["G1"]
    assert simulate.outputs(model, u)[0] == pytest.approx(attained, rel=1e-9)
    if variant == "shared" or ssm.s_A >= 0:
        assert attained == pytest.approx(bound["b"], rel=1e-9)
        for name, length in (("w", ssm.B_w), ("B", ssm.B_B), ("C", ssm.B_C)):
            flipped = simulate.outputs(replace(model, **{name: -getattr(model, name)}), u)
            gap = abs(flipped - simulate.outputs(model, u))[0]
            assert gap == pytest.approx(bound[f"L_{name}"] * 2 * length, rel=1e-9)


def transient_class(rng: np.random.Generator, s: float, margin: float) -> tuple:
    """A class that holds two given matrices far from normal, and these matrices."""
    d, N = 2, 3
    A = np.triu(rng.normal(size=(2, d, N, N)) * 4, 1)
    A = A + np.eye(N) * (s - margin - rng.random((2, d, N, 1)))
    K = max(transient_constant(block, margin=margin) for block in A.reshape(-1, N, N))
    # The abscissa of every block is at most s - margin, so that e^{s tau} K bounds both.
    ssm = SelectiveSSMClass(
        d=d, N=N, s_A=s, a_lo=s, p_lo=-1.0, p_hi=1.0, B_w=2.0, state_matrix="transient",
        B_A=float(np.linalg.norm(A, 2, axis=(-2, -1)).max()), transient_constant=K,
    )  # fmt: skip
    return ssm, A


@settings(max_examples=15)
@given(rngs, st.sampled_from((-1.0, -0.3, 0.0, 0.2)), st.integers(1, 12))
def test_matrices_with_transient_growth(rng, s, T):
    ssm, A = transient_class(rng, s, margin=0.5)
    bound, u = lipschitz_constants(ssm, T=T), simulate.sequences(ssm, rng, SIZE, T)
    like = SelectiveSSMClass(d=2, N=3, s_A=0.0, a_lo=-1.0, p_lo=-1.0, p_hi=1.0, B_w=2.0)
    models = [simulate.members(like, rng, SIZE) for _ in range(2)]
    one, other = (
        replace(model, A=np.broadcast_to(a, (SIZE, *a.shape)))
        for model, a in zip(models, A, strict=True)
    )
    assert_range(bound, one, u)
    assert_lipschitz(bound, one, other, u)
    for name in BLOCKS:
        assert_lipschitz(bound, one, replace(one, **{name: getattr(other, name)}), u)


# --- several step sequences -----------------------------------------------------------------------


def relay(channels: int, *, group: int = 1) -> tuple[SelectiveSSMClass, Model, np.ndarray]:
    r"""Channel k remembers input k and nothing else, without decay, until the end.

    Input k is $(e_0 + e_k)/\sqrt2$: its part along $e_k$ opens channel k, its part along $e_0$ is
    what all keys share. Every other step is some 1e-15, so that even a fast decay forgets nothing.
    """
    d, B_q, p = (channels + 1) * group, 40.0, -35.0
    u = np.zeros((channels, d))
    u[:, 0] = u[np.arange(channels), group * np.arange(1, channels + 1)] = math.sqrt(0.5)
    q, w = np.zeros((channels + 1, d)), np.zeros((1, d))
    q[1:] = B_q * u
    w[0, group * np.arange(1, channels + 1)] = 1 / math.sqrt(channels)
    steps = dict(steps="per_channel") if group == 1 else dict(steps="per_head", heads=channels + 1)
    ssm = SelectiveSSMClass(d=d, N=1, s_A=-20.0, a_lo=-20.0, p_lo=p, p_hi=p, B_q=B_q, **steps)
    model = Model(
        w=w,
        B=np.eye(1, d),
        C=u[-1:].copy(),
        A=np.full((d, 1), -20.0),
        q=q,
        p=np.full(channels + 1, p),
    )
    return ssm, model, u


@pytest.mark.parametrize(("channels", "group"), [(16, 1), (64, 1), (16, 2)])
def test_several_sequences_exceed_the_sum_of_one(channels, group):
    """Negative control: without the factor sqrt(n_steps) the range and L_w would be wrong."""
    ssm, model, u = relay(channels, group=group)
    bound = lipschitz_constants(ssm, T=channels)
    z = float(simulate.outputs(model, u)[0])
    assert z == pytest.approx(0.5 * math.sqrt(channels) * bound["Pi"] * bound["G1"], rel=1e-2)
    assert z > 1.9 * bound["Pi"] * bound["G1"]
    assert z <= bound["b"]
    assert np.linalg.norm(simulate.final_state(model, u)) <= bound["state"]
    # The state does it too, and the readout's constant is the range's.
    assert z / np.linalg.norm(model.w) > 1.9 * bound["L_w"] * bound["G1"] / bound["G1_all"]


def test_one_hot_inputs_do_not_exceed_the_sum_of_one():
    """Keys that share no direction add up in squares: the readout sees one of them at a time."""
    channels = 16
    ssm, model, _ = relay(channels)
    u = np.eye(channels + 1)[1:]
    q = np.concatenate([np.zeros((1, channels + 1)), 40.0 * u])
    bound = output_range(ssm, T=channels)
    keys = np.random.default_rng(0).normal(size=(500, 1, channels + 1))
    keys /= np.linalg.norm(keys, axis=-1, keepdims=True)
    keys[0, 0] = model.w[0]  # the best key

    def repeated(array: np.ndarray) -> np.ndarray:
        return np.broadcast_to(array, (500, *array.shape))

    many = Model(
        w=repeated(model.w),
        B=keys,
        C=repeated(u[-1:]),
        A=repeated(model.A),
        q=repeated(q),
        p=repeated(model.p),
    )
    z = np.abs(simulate.outputs(many, repeated(u)))
    assert z.max() == pytest.approx(bound["Pi"] * bound["G1"], rel=1e-3)


@settings(max_examples=15)
@given(st.sampled_from((-20.0, -1.0, -0.05)), st.integers(2, 24), rngs)
def test_bounds_hold_around_the_relay(s, channels, rng):
    """An adversary that starts from the worst case known and perturbs it within the class."""
    ssm, model, u = relay(channels)
    ssm = replace(ssm, s_A=s, M_A=None, M_q=None)
    bound = lipschitz_constants(ssm, T=channels)
    A = np.full_like(model.A, s)
    noise = 10 ** rng.uniform(-4, -0.5)
    model = replace(model, A=A, q=shrunk(model.q + noise * rng.normal(size=model.q.shape), ssm.B_q))
    other = replace(
        model,
        w=shrunk(model.w + noise * rng.normal(size=model.w.shape), 1.0),
        B=shrunk(model.B + noise * rng.normal(size=model.B.shape), 1.0),
        q=shrunk(model.q + noise * rng.normal(size=model.q.shape), ssm.B_q),
        A=np.clip(A - noise * rng.random(A.shape), ssm.a_lo, s),
    )
    v = shrunk(u + noise * rng.normal(size=u.shape), 1.0)
    for inputs in (u, v):
        assert_range(bound, model, inputs)
        assert_lipschitz(bound, model, other, inputs)
    gap = abs(simulate.outputs(model, u) - simulate.outputs(model, v))[0]
    assert gap <= bound["L_u"] * np.linalg.norm(u - v, axis=-1).max()


def shrunk(rows: np.ndarray, largest: float) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows * np.minimum(1, largest / np.maximum(lengths, 1e-300))
