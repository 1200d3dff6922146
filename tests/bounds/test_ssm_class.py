"""Normalisation of a class, and which combinations of budgets are refused."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds.ssm import SelectiveSSMClass
from tests.simulate import members
from tests.strategies import VARIANTS, budgets, loosened

BASE = dict(d=4, N=3, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)
variants = st.sampled_from(VARIANTS)
NORMALISED = ("B_w", "B_B", "B_C", "B_q", "M_w", "M_B", "M_C", "M_q", "M_A", "F_B", "F_C", "s_A")


def make(**more) -> SelectiveSSMClass:
    return SelectiveSSMClass(**{**BASE, **more})


# --- agrees ---


def test_omitted_budgets_follow_from_the_others():
    ssm = make(B_B=2.0)
    assert ssm.F_B == pytest.approx(math.sqrt(3) * 2)
    assert ssm.M_B == pytest.approx(math.sqrt(12) * math.sqrt(3) * 2)
    assert ssm.M_w == pytest.approx(2.0)
    assert ssm.M_A == 12 * 2.0
    assert make(M_B=0.5, B_B=2.0).B_B == 0.5 == make(M_B=0.5, B_B=2.0).F_B
    assert make(s_A=3.0, M_A=0.7).s_A == 0.7
    assert make(steps="per_channel", B_q=2.0).M_q == pytest.approx(math.sqrt(16) * math.sqrt(4) * 2)
    assert make(steps="per_head", heads=2).n_A == 2 == make(steps="per_head", heads=2).n_steps
    assert make(state_matrix="log_norm", B_A=1.0).n_A == 36


@given(variants, st.data())
def test_normalised_budgets_are_ordered_and_stable(variant, data):
    ssm = SelectiveSSMClass(**data.draw(budgets(variant)))
    for name in ("B", "C"):
        B, F, M = (getattr(ssm, f"{kind}_{name}") for kind in "BFM")
        assert B <= F * (1 + 1e-12) <= M * (1 + 2e-12)
        assert math.sqrt(min(ssm.d, ssm.N)) * B >= F * (1 - 1e-12)
    again = dataclasses.replace(ssm)
    for name in NORMALISED:
        assert getattr(again, name) == pytest.approx(getattr(ssm, name), rel=1e-14)


# --- moves ---


@given(variants, st.data())
def test_normalisation_is_monotone(variant, data):
    """P15: loosening a budget never tightens a normalised one."""
    named = data.draw(budgets(variant))
    tight, loose = SelectiveSSMClass(**named), SelectiveSSMClass(**data.draw(loosened(named)))
    for name in NORMALISED:
        assert getattr(loose, name) >= getattr(tight, name) * (1 - 1e-12) or name == "s_A"
    assert loose.s_A >= tight.s_A
    assert loose.largest_step_logit >= tight.largest_step_logit - 1e-12
    assert loose.smallest_step_logit <= tight.smallest_step_logit + 1e-12


# --- limits ---


def test_grids_broadcast():
    ssm = make(s_A=np.array([-0.5, 0.5]), M_A=np.array([30.0, 0.2]))
    assert ssm.s_A == pytest.approx([-0.5, 0.2])
    assert ssm.M_A == pytest.approx([24.0, 0.2])


# --- holds: members of a class satisfy the normalised budgets ---


@given(st.sampled_from(("shared", "per_channel", "per_head", "log_norm")), st.data())
def test_members_satisfy_every_normalised_budget(variant, data):
    ssm = SelectiveSSMClass(**data.draw(budgets(variant)))
    model = members(ssm, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))), 20)
    tight = 1 + 1e-9
    for name in ("w", "B", "C"):
        weight = getattr(model, name)
        assert np.all(np.linalg.norm(weight, 2, axis=(-2, -1)) <= getattr(ssm, f"B_{name}") * tight)
        assert np.all(np.abs(weight).sum((-2, -1)) <= getattr(ssm, f"M_{name}") * tight)
    assert np.all(np.linalg.norm(model.B, axis=(-2, -1)) <= ssm.F_B * tight)
    assert np.all(np.linalg.norm(model.q, axis=-1) <= ssm.B_q * tight)
    assert np.all(np.abs(model.q).sum((-2, -1)) <= ssm.M_q * tight)
    if model.general:
        mu = np.linalg.eigvalsh((model.A + np.swapaxes(model.A, -1, -2)) / 2).max(-1)
        assert np.all(mu <= ssm.s_A + 1e-9)
        assert np.all(np.linalg.norm(model.A, 2, axis=(-2, -1)) <= ssm.B_A * tight)
    else:
        assert np.all((model.A >= ssm.a_lo - 1e-12) & (model.A <= ssm.s_A + 1e-12))
        free = model.A if ssm.heads is None else model.A[:, :: int(ssm.d) // int(ssm.heads), 0]
        assert np.all(np.abs(free).reshape(20, -1).sum(1) <= ssm.M_A * tight)


# --- refused ---


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (dict(a_lo=0.0), "a_lo must be at most s_A, got a_lo=0.0 and s_A=-0.5"),
        (dict(p_lo=1.0), "p_lo must be at most p_hi, got p_lo=1.0 and p_hi=0.0"),
        (dict(M_A=5.9), "M_A must be at least .* = .*6.0.*, got 5.9: no state matrix"),
        (dict(a_lo=0.5, s_A=1.0, M_A=5.9), "M_A must be at least"),
        (dict(steps="sometimes"), "steps must be one of 'shared', 'per_channel', 'per_head'"),
        (dict(state_matrix="dense"), "state_matrix must be one of 'diagonal', 'log_norm'"),
        (dict(heads=2), "heads must be given exactly for steps='per_head', got heads=2"),
        (
            dict(steps="per_head"),
            "heads must be given exactly for steps='per_head', got heads=None",
        ),
        (dict(steps="per_head", heads=3), "heads must divide d, got heads=3 and d=4"),
        (dict(step_rank=1), "step_rank must be left out unless steps='per_channel', got 1"),
        (dict(step_logits=(1.0, 0.0)), "step_logit must be at most .*step_logit"),
        (dict(B_A=1.0), "B_A must be given exactly for a state matrix that is not diagonal"),
        (dict(state_matrix="log_norm"), "B_A must be given exactly"),
        (dict(transient_constant=2.0), "transient_constant must be left out unless"),
        (dict(state_matrix="transient", B_A=1.0, transient_constant=0.5), "must be a number >= 1"),
        (dict(M_E=1.0), "M_E must be left out unless vocab > 0, got 1.0"),
        # No model satisfies these together.
        (dict(step_logits=(5.0, 6.0)), "step_logits"),
        (dict(step_logits=(-9.0, -8.0)), "step_logits"),
        (dict(state_matrix="log_norm", B_A=0.4), "B_A must be at least"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_refused(more, message):
    with pytest.raises(ValueError, match=message):
        make(**more)


def test_the_logarithmic_norm_is_at_most_the_norm():
    """mu(A) <= ||A||, so that a larger s_A is the same class."""
    assert make(s_A=5.0, state_matrix="log_norm", B_A=1.0).s_A == 1.0


def test_smallest_sum_that_leaves_a_model_is_accepted():
    assert make(M_A=6.0).M_A == 6.0
    assert make(a_lo=0.5, s_A=1.0, M_A=6.0).M_A == 6.0
    thirds = SelectiveSSMClass(**{**BASE, "s_A": -0.1, "M_A": 12 * 0.1})
    assert thirds.M_A == pytest.approx(1.2)
