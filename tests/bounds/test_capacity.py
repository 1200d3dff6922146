"""Covering numbers of the class: their formulas, their limits, and covers built from parameters."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.capacity import covering_number
from bounds.covering import allocate_radii
from bounds.generalization import rademacher_upper
from bounds.lipschitz import lipschitz_constants
from bounds.ssm import SelectiveSSMClass
from tests import simulate
from tests.simulate import Model
from tests.strategies import VARIANTS, budgets, log_uniform

BASE = dict(d=4, N=3, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)


def capacity(T: int, **named) -> float:
    ssm = SelectiveSSMClass(**{**BASE, **named})
    return covering_number(ssm, T=T, radius=1.0, cover="maurey")["C_F"]


# --- agrees ---


@settings(max_examples=30)
@given(budgets(), st.integers(2, 25), log_uniform(1e-3, 10))
def test_maurey_cover_is_the_optimal_allocation(named, T, radius):
    """C_F from the allocation of radii over the blocks, each written out from its budget."""
    ssm = SelectiveSSMClass(**named)
    L = lipschitz_constants(ssm, T=T)
    half = (ssm.p_hi - ssm.p_lo) / 2
    sizes = dict(w=ssm.d, B=ssm.N * ssm.d, C=ssm.N * ssm.d, A=ssm.N * ssm.d, q=ssm.d)
    alpha = {n: getattr(ssm, f"M_{n}") ** 2 * math.log(2 * size + 1) for n, size in sizes.items()}
    alpha["p"] = half**2 * math.log(3)
    used = [name for name in alpha if alpha[name] > 0 and L[f"L_{name}"] > 0]
    _, smallest = allocate_radii(
        np.array([alpha[n] for n in used]), np.array([L[f"L_{n}"] for n in used]), radius=radius
    )
    bound = covering_number(ssm, T=T, radius=radius, cover="maurey")
    assert float(bound) == pytest.approx(smallest, rel=1e-9)


@settings(max_examples=30)
@given(budgets(), st.integers(2, 25), log_uniform(1e-3, 10))
def test_volumetric_cover_counts_parameters(named, T, radius):
    ssm = SelectiveSSMClass(**named)
    L = lipschitz_constants(ssm, T=T)
    n = dict(w=ssm.d, B=ssm.N * ssm.d, C=ssm.N * ssm.d, A=ssm.N * ssm.d, q=ssm.d, p=1)
    R = dict(w=ssm.B_w, B=ssm.B_B, C=ssm.B_C, q=ssm.B_q)
    share = {k: radius * n[k] / sum(n.values()) / max(L[f"L_{k}"], 1e-300) for k in n}
    expected = sum(n[name] * math.log1p(2 * R[name] / share[name]) for name in R)
    for name, width in (("A", ssm.s_A - ssm.a_lo), ("p", ssm.p_hi - ssm.p_lo)):
        expected += n[name] * math.log(max(1, math.ceil(width / (2 * share[name]))))
    bound = covering_number(ssm, T=T, radius=radius, cover="volumetric")
    assert float(bound) == pytest.approx(expected, rel=1e-9)


# --- limits ---


@settings(max_examples=20)
@given(budgets(), log_uniform(0.1, 10), st.integers(1, 10**4))
def test_homogeneity(named, k, T):
    """Scaling the readout scales the capacity; trading W_B against W_C leaves it (P5)."""
    named = {**named, "M_A": None}
    for name in ("w", "B", "C"):
        named[f"M_{name}"] = named[f"B_{name}"] * 1.5
    named.pop("F_B", None)
    here = capacity(T, **named)
    louder = named | dict(B_w=k * named["B_w"], M_w=k * named["M_w"])
    assert capacity(T, **louder) == pytest.approx(k * here, rel=1e-10)
    traded = named | dict(
        B_B=k * named["B_B"], M_B=k * named["M_B"], B_C=named["B_C"] / k, M_C=named["M_C"] / k
    )
    assert capacity(T, **traded) == pytest.approx(here, rel=1e-10)


@given(st.floats(-3, -0.1), st.floats(-4, 0))
@settings(max_examples=20)
def test_decaying_models_saturate(s_A, p_lo):
    """P4: beyond 50/(|s| D) steps the capacity does not depend on the length any more."""
    named = dict(s_A=s_A, a_lo=s_A - 1, p_lo=p_lo)
    assert capacity(10**9, **named) == pytest.approx(capacity(2 * 10**9, **named), rel=1e-12)


def test_laws_in_the_length():
    marginal = [capacity(T, s_A=0.0) for T in (10**5, 2 * 10**5)]
    assert marginal[1] / marginal[0] == pytest.approx(4, rel=1e-3)  # quadratic
    lengths = np.array([400, 800])
    growing = [
        covering_number(SelectiveSSMClass(**{**BASE, "s_A": 0.1}), T=T, radius=1.0, cover="maurey")
        for T in lengths
    ]
    logs = [bound.term("C_F").stored for bound in growing]
    rate = (logs[1] - logs[0] - math.log(2)) / 400  # T e^{sTD}
    assert rate == pytest.approx(0.1 * growing[0]["D"], rel=1e-2)


@given(log_uniform(1e-3, 1e3), st.sampled_from((-1, 1)), st.integers(1, 10**6))
@settings(max_examples=30)
def test_continuous_in_the_decay_at_zero(D_scale, sign, T):
    s = sign * 1e-9 / (T * D_scale)
    named = dict(p_lo=math.log(math.expm1(min(D_scale, 700))), B_q=0.0, a_lo=-2.0)
    named["p_hi"] = named["p_lo"]
    assert capacity(T, s_A=s, **named) == pytest.approx(capacity(T, s_A=0.0, **named), rel=1e-6)


@settings(max_examples=30)
@given(budgets(), st.integers(1, 10**4), st.floats(0, 2))
def test_capacity_falls_with_the_smallest_step(named, T, higher):
    """P1: nonincreasing in p_lo, while b does not move."""
    p_lo = min(named["p_lo"] + higher, named["p_hi"])
    assert capacity(T, **named) >= capacity(T, **{**named, "p_lo": p_lo}) * (1 - 1e-12)


# --- holds: a cover of the class from covers of its parameters -----------------------------------


@settings(max_examples=15)
@given(st.sampled_from(("shared", "per_channel", "per_head")), st.data(), st.integers(0, 2**32 - 1))
def test_rounded_parameters_stay_within_the_radius(variant, data, seed):
    """Moving every block by its share of the radius moves no output by more than the radius."""
    ssm = SelectiveSSMClass(**data.draw(budgets(variant, sizes=(1, 3))))
    rng, T, radius = np.random.default_rng(seed), 8, 0.2
    L = lipschitz_constants(ssm, T=T)
    one, other = (simulate.members(ssm, rng, 50) for _ in range(2))
    blocks = {}
    distance = simulate.distances(one, other)
    for name in ("w", "B", "C", "A", "q", "p"):
        share = radius / (6 * L[f"L_{name}"]) if L[f"L_{name}"] > 0 else np.inf
        step = np.minimum(1, share / np.maximum(distance[name], 1e-300))
        here, there = getattr(one, name), getattr(other, name)
        blocks[name] = here + step.reshape(-1, *[1] * (here.ndim - 1)) * (there - here)
    rounded, u = Model(**blocks), simulate.sequences(ssm, rng, 50, T)
    gap = np.linalg.norm(simulate.outputs(one, u) - simulate.outputs(rounded, u), axis=-1)
    assert np.all(gap <= radius * (1 + 1e-9))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_block_is_counted(variant):
    """The terms name each block once, and a class with more blocks has no smaller cover."""
    more = {
        "per_channel": dict(steps="per_channel"),
        "step_rank": dict(steps="per_channel", step_rank=1),
        "per_head": dict(steps="per_head", heads=2),
        "log_norm": dict(state_matrix="log_norm", B_A=2.0),
        "transient": dict(state_matrix="transient", B_A=2.0, transient_constant=3.0),
        "step_logits": dict(step_logits=(-1.0, 0.5)),
        "vocab": dict(vocab=7),
        "outputs": dict(outputs=3),
    }.get(variant, {})
    ssm = SelectiveSSMClass(**{**BASE, **more})
    bound = covering_number(ssm, T=20, radius=0.5, cover="volumetric")
    counts = {term.name[2:]: term.value for term in bound if term.name.startswith("n_")}
    n = ssm.n_steps
    expected = dict(w=4 * ssm.outputs, B=12, C=12, A=ssm.n_A, q=4 * n, p=n)
    if variant == "step_rank":
        expected["q"] = 1 * (4 + 4 + 1)
    if variant == "vocab":
        expected["E"] = 28
    assert counts == expected
    assert ssm.n_A == {"per_head": 2, "log_norm": 36, "transient": 36}.get(variant, 12)


# --- negative control: the errata of the published capacity ---------------------------------------


def test_capacity_without_the_unweighted_sum_is_below_the_lower_bound():
    """For fast decay S_2 vanishes and S_1 does not, so that S_1 must not be dropped."""
    ssm = SelectiveSSMClass(**{**BASE, "s_A": -30.0, "a_lo": -30.0})
    bound = rademacher_upper(ssm, m=100, T=50)
    assert bound["C_F"] > bound["b"]
    assert bound["Pi"] * bound["G2"] * 30 < bound["b"]
