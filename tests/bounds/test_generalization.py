"""Rademacher complexities and gaps: against random models, samples and brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.concentration import sign_sums, xi
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.losses import Loss, ramp
from bounds.ssm import SelectiveSSMClass
from tests import simulate
from tests.simulate import Model
from tests.strategies import budgets, log_uniform

BASE = dict(d=4, N=3, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)


def gap(
    m: int, T: int, *, delta: float = 0.05, loss: Loss | None = None, cost: float = 0.0, **named
):
    ssm = SelectiveSSMClass(**{**BASE, **named})
    return generalization_gap(
        ssm, m=m, T=T, delta=delta, loss=loss or ramp(), union_cost=cost
    )  # fmt: skip


# --- agrees ---


def test_searched_radii_are_nearly_optimal():
    """The parameter-counting gap against its formula on a fine grid of radii."""
    for s_A, T, m in ((-0.5, 100, 10**6), (0.05, 300, 10**5), (0.0, 1000, 10**8)):
        bound = gap(m, T, s_A=s_A)
        n = {name: bound[f"n_{name}"] for name in "wBCAqp"}
        width = dict(w=2, B=2, C=2, A=s_A + 2.0, q=2, p=1.0)
        radius = np.geomspace(1e-12, 0.5, 4000)
        log_N = np.zeros_like(radius)
        for name, count in n.items():
            ratio = width[name] * bound[f"L_{name}"] * sum(n.values()) / (count * radius)
            box = name in "Ap"
            log_N += count * np.log(np.maximum(1, np.ceil(ratio / 2)) if box else 1 + ratio)
        best = (2 * radius + np.sqrt((log_N + math.log(20)) / (2 * m))).min()
        assert bound["gap_parameter"] == pytest.approx(best, rel=1e-3)


def test_slack_and_union_cost():
    """The deviation is exactly c sqrt((ln(1/delta) + cost) / (2m)) (P6)."""
    bound = gap(500, 10, delta=0.01, cost=3.0, loss=ramp(2.0))
    assert bound["slack"] == pytest.approx(math.sqrt((math.log(100) + 3) / 1000), rel=1e-14)
    same = gap(500, 10, delta=0.01 * math.exp(-3.0), loss=ramp(2.0))
    assert float(same) == pytest.approx(float(bound), rel=1e-12)


@pytest.mark.parametrize("delta", [1e-300, 5e-324, 1 - 1e-12, 1 - 2**-53])
def test_extreme_confidence(delta):
    bound = gap(1000, 10, delta=delta)
    assert bound["price"] == pytest.approx(-math.log(delta), rel=1e-12)
    assert bound.audit(30).agrees


# --- moves ---


def test_more_confidence_and_a_later_choice_cost_more():
    deltas = [float(gap(10**5, 20, delta=delta)) for delta in (0.5, 0.1, 1e-3, 1e-9)]
    costs = [float(gap(10**5, 20, cost=cost)) for cost in (0.0, 1.0, 30.0, 1e4)]
    assert deltas == sorted(deltas)
    assert costs == sorted(costs)


@settings(max_examples=20)
@given(budgets(), log_uniform(1, 1e8).map(round), st.integers(1, 1000), log_uniform(0.1, 10))
def test_loss_and_gap_scale_together(named, m, T, k):
    """A loss k times as large, range and slope, has k times the gap."""
    named["M_A"] = None
    here = gap(m, T, loss=Loss("x", 1.0, 0.7), **named)
    there = gap(m, T, loss=Loss("x", k, 0.7 * k), **named)
    assert float(there) == pytest.approx(k * float(here), rel=1e-9)


# --- limits ---


def test_growing_models_pay_the_square_root_of_the_length():
    """P12: T -> 5T multiplies the parameter-counting gap by about sqrt(5)."""
    gaps = [gap(10**8, T, s_A=0.1)["gap_parameter"] for T in (10**4, 5 * 10**4)]
    assert gaps[1] / gaps[0] == pytest.approx(math.sqrt(5), rel=0.02)
    assert gaps[1] < 0.2
    vacuous = gap(100, 10**6, s_A=0.1)
    assert [vacuous[f"gap_{name}"] for name in ("norm", "hybrid", "parameter")] == [1, 1, 1]


def test_many_samples():
    """P6: K / sqrt(m) up to a logarithm, so that nothing is left in the end."""
    sizes = 10.0 ** np.array([12, 15])
    uppers = [float(rademacher_upper(SelectiveSSMClass(**BASE), m=int(m), T=50)) for m in sizes]
    assert 20 < uppers[0] / uppers[1] < 10**1.5
    assert float(gap(2**53, 50)) < 1e-5


def test_gaps_of_decaying_models_do_not_depend_on_the_length():
    gaps = [float(gap(10**6, T)) for T in (10**4, 10**9, 2**53)]
    assert gaps == pytest.approx([gaps[0]] * 3, rel=1e-9)


# --- holds ---


@settings(max_examples=12)
@given(
    st.sampled_from(("shared", "per_channel", "per_head")),
    st.data(),
    st.integers(1, 12),
    st.integers(1, 10),
    st.integers(0, 2**32 - 1),
)
def test_estimated_complexity_is_below_the_upper_bound(variant, data, m, T, seed):
    """P11: the best of many random models against each of many sign vectors."""
    named = data.draw(budgets(variant, sizes=(1, 3)))
    ssm, rng = SelectiveSSMClass(**named), np.random.default_rng(seed)
    upper, size = rademacher_upper(ssm, m=m, T=T), 200
    models = simulate.members(ssm, rng, size)
    many = Model(*(getattr(models, name)[:, None] for name in ("w", "B", "C", "A", "q", "p")))
    z = simulate.outputs(many, simulate.sequences(ssm, rng, m, T)[None])[..., 0]
    signs = rng.choice((-1, 1), size=(m, 200))
    estimate = np.abs(z @ signs / m).max(0).mean()
    assert estimate <= upper["R_raw"] * (1 + 1e-9)
    assert estimate <= upper["R_hybrid"] * (1 + 1e-9)


@settings(max_examples=15)
@given(budgets(), st.integers(1, 10), st.integers(1, 30))
def test_the_extremal_sample_reaches_the_lower_bound(named, m, T):
    """Two models of opposite sign on m equal sequences, over all sign vectors: exactly b xi_m."""
    ssm = SelectiveSSMClass(**named)
    model, u = simulate.extremal(ssm, T)
    outputs = [simulate.outputs(replace(model, w=sign * model.w), u)[0] for sign in (-1, 1)]
    reached = sign_sums(m).mean() / m * max(outputs)
    assert reached == pytest.approx(float(rademacher_lower(ssm, m=m, T=T)), rel=1e-9)


@pytest.mark.parametrize("state_matrix", ["log_norm", "transient"])
@pytest.mark.parametrize("s_A", [-0.5, 5.0])
def test_the_lower_bound_needs_its_model_in_the_class(state_matrix, s_A):
    """The extremal state matrix s_A I has norm |s_A|; a class with ||A|| <= B_A < s_A lacks it."""
    more = dict(state_matrix=state_matrix, B_A=1.0, s_A=s_A)
    lower = rademacher_lower(SelectiveSSMClass(**{**BASE, **more}), m=1, T=5)
    reachable = rademacher_lower(
        SelectiveSSMClass(**{**BASE, **more, "s_A": min(s_A, 1.0)}), m=1, T=5
    )
    assert float(lower) <= float(reachable) * (1 + 1e-12)


def test_the_lower_bound_obeys_the_budget_of_the_embedding():
    """Inputs are rows of the table, whose entries sum to at most M_E."""
    small = rademacher_lower(SelectiveSSMClass(**BASE, vocab=5, M_E=0.1), m=1, T=5)
    assert (
        float(small)
        <= 0.1**3 * float(rademacher_lower(SelectiveSSMClass(**BASE), m=1, T=5)) * 1.001
    )


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(step_logits=(-1.5, 0.0)), "step_logits must be None"),
        (dict(a_lo=0.1, s_A=0.2), "a_lo"),
    ],
)
def test_no_lower_bound_without_its_model(more, message):
    with pytest.raises(ValueError, match=message):
        rademacher_lower(SelectiveSSMClass(**{**BASE, **more}), m=10, T=5)


def test_general_matrices_pay_both_frobenius_norms_in_the_hybrid_bound():
    r"""For a dense block, $w \otimes W_B \otimes W_C$ has norm $B_w F_B F_C$, not $B_w F_B B_C$.

    Only for a diagonal state matrix do W_B and W_C share their row index.
    """
    m = 10**12
    named = {**BASE, "s_A": 0.0, "state_matrix": "log_norm", "B_A": 1.0}
    bound = rademacher_upper(SelectiveSSMClass(**named), m=m, T=3)
    net = bound["radius_hybrid"] + bound["b"] * math.sqrt(2 * bound["ln_N_hybrid"] / m)
    linear = math.sqrt(3) * 3 * bound["b"] / math.sqrt(m)  # sqrt(N) F_B F_C / (B_B B_C)
    assert bound["R_hybrid"] >= (net + linear) * (1 - 1e-9)


# --- negative control ---


def test_asymptotic_constant_is_not_reached():
    """With sqrt(2/(pi m)) for xi_m the same comparison fails for two samples."""
    ssm = SelectiveSSMClass(**BASE)
    model, u = simulate.extremal(ssm, 20)
    reached = xi(2) * float(simulate.outputs(model, u)[0])
    wrong = float(rademacher_lower(ssm, m=2, T=20)) / xi(2) * math.sqrt(1 / math.pi)
    assert reached < 0.9 * wrong


def test_minimum_step_growth_is_exceeded():
    """The published growth factor e^{s D_min} for s > 0 is below what one model does."""
    ssm = SelectiveSSMClass(**{**BASE, "s_A": 0.5})
    model, u = simulate.extremal(ssm, 30)
    bound = rademacher_upper(ssm, m=1, T=30)
    rate = 0.5 * bound["D_min"]
    published = bound["Pi"] * bound["D"] * math.expm1(30 * rate) / math.expm1(rate)
    reached = float(simulate.outputs(model, u)[0])
    assert published < 0.1 * reached <= 0.1 * bound["b"] * (1 + 1e-9)
