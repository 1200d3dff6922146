"""Grids: the same numbers as the scalar bounds, whatever is an array and however it broadcasts."""

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bounds import curve as curve_module
from bounds.curve import curve
from bounds.generalization import generalization_gap, rademacher_lower
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass
from tests.strategies import VARIANTS, budgets, lengths

GRIDDED = (
    "d", "N", "s_A", "a_lo", "p_lo", "p_hi", "B_u", "B_w", "B_B", "B_C", "B_q",
    "M_w", "M_B", "M_C", "M_q", "M_A", "F_B", "B_A", "transient_constant",
)  # fmt: skip
BASE = dict(d=4, N=4, s_A=-0.5, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)


def close(grid, stored, *, log):
    """Equal up to rounding: relative, or relative to max(1, |ln|)."""
    if stored == grid:
        return True
    return abs(grid - stored) <= 1e-14 * max(abs(stored), 1.0 if log else 0.0)


def assert_equal_to_scalar(grid, index, bound):
    flipped = False
    for term in bound:
        values = grid[f"ln_{term.name}" if term.log else term.name]
        same = close(float(values[index]), term.stored, log=term.log)
        if not term.formula:
            # Two radii or ratios may be equally good up to rounding.
            flipped |= not same
        elif not (flipped and term.name.startswith(("ln_N", "radius"))):
            assert same, (term.name, float(values[index]), term.stored)


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=3, phases=[Phase.generate])
@given(data=st.data())
def test_equals_the_scalar_bounds(variant, data):
    first = data.draw(budgets(variant, sizes=(2, 6)))
    points = [first]
    for _ in range(2):
        other = data.draw(budgets(variant, sizes=(2, 6)))
        points.append(first | {k: v for k, v in other.items() if k in GRIDDED and k in first})
    structure = {k: v for k, v in first.items() if k not in GRIDDED}
    if "heads" in structure or "step_rank" in structure:
        points = [point | {"d": first["d"]} for point in points]
    for point in points:
        point["a_lo"] = min(point["a_lo"], point["s_A"])
        point["p_hi"] = max(point["p_hi"], point["p_lo"])
        if "step_logits" in point:  # must overlap the range of this point's own steps
            point["step_logits"] = (point["p_lo"] - 0.1, point["p_hi"] + 0.1)
        if "M_A" in point:
            point["M_A"] = max(point["M_A"], 1.01 * point["d"] * point["N"] * abs(point["s_A"]))
    m = np.array([data.draw(st.integers(1, 10**9)) for _ in points])
    T = np.array([data.draw(lengths(10**6)) for _ in points])
    gridded = {
        name: np.array([point[name] for point in points]) for name in GRIDDED if name in first
    }
    if "step_logits" in first:
        low, high = np.array([point["step_logits"] for point in points]).T
        structure["step_logits"] = (low.copy(), high.copy())
    loss = ramp(0.5)
    grid = curve(SelectiveSSMClass(**structure, **gridded), m=m, T=T, delta=0.05, loss=loss)
    for i, point in enumerate(points):
        ssm = SelectiveSSMClass(**point)
        at = dict(m=int(m[i]), T=int(T[i]))
        assert_equal_to_scalar(grid, i, generalization_gap(ssm, **at, delta=0.05, loss=loss))
        if ssm.step_logits is None and ssm.outputs == 1:
            assert_equal_to_scalar(grid, i, rademacher_lower(ssm, **at))
        else:
            assert grid["ln_R_lower"][i] == -np.inf


def test_broadcasts_open_grids():
    s_A, p_hi, T, m = np.ix_([-0.5, 0.05], [-1.0, 0.0], [1, 10**9], [100, 10**6])
    ssm = SelectiveSSMClass(**BASE | dict(s_A=s_A, p_hi=p_hi))
    grid = curve(ssm, m=m, T=T, delta=0.05, loss=ramp(), union_cost=2.0)
    assert {values.shape for values in grid.values()} == {(2, 2, 2, 2)}
    for index in np.ndindex(2, 2, 2, 2):
        i, j, k, n = index
        here = SelectiveSSMClass(**BASE | dict(s_A=s_A.flat[i], p_hi=p_hi.flat[j]))
        at = dict(m=m.flat[n], T=T.flat[k])
        bound = generalization_gap(here, **at, delta=0.05, loss=ramp(), union_cost=2.0)
        assert_equal_to_scalar(grid, index, bound)
        assert_equal_to_scalar(grid, index, rademacher_lower(here, **at))


@pytest.mark.parametrize("block", [2, 7, 1000])
def test_does_not_depend_on_the_block(block, monkeypatch):
    s_A, T, m = np.ix_([-0.5, -0.1, 0.0, 0.05], [1, 10, 10**9], [100, 10**6])
    ssm = SelectiveSSMClass(**BASE | dict(s_A=s_A, B_w=np.array([1.0, 2.0])))
    at = dict(m=m, T=T, delta=np.array([[0.1], [0.05], [0.01]]), loss=ramp())
    whole = curve(ssm, **at)
    monkeypatch.setattr(curve_module, "BLOCK", block)
    parts = curve(ssm, **at)
    assert parts.keys() == whole.keys()
    for name in set(whole) - {"ln_radius", "ln_N", "ln_fraction_hybrid", "ln_N_hybrid"}:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-14, atol=1e-14)


def test_every_argument_alone_spans_the_grid():
    named = BASE | dict(M_A=50.0, M_w=2.0, M_B=4.0, M_C=4.0, M_q=2.0, F_B=1.5, F_C=1.5, B_u=1.0)
    for name in named:
        pair = np.array([named[name], named[name]])
        grid = curve(SelectiveSSMClass(**named | {name: pair}), m=10, T=5, delta=0.1, loss=ramp())
        assert {values.shape for values in grid.values()} == {(2,)}
    ssm = SelectiveSSMClass(**named)
    for name, value in dict(m=10, T=5, delta=0.1).items():
        at = dict(m=10, T=5, delta=0.1) | {name: np.full((1, 3), value)}
        assert curve(ssm, **at, loss=ramp())["gap"].shape == (1, 3)
    assert curve(ssm, m=10, T=5, delta=0.1, loss=ramp())["gap"].shape == ()


def test_step_range_may_be_gridded():
    low, high = np.array([-1.0, -0.5]), np.array([0.0, 0.5])
    ssm = SelectiveSSMClass(**BASE, step_logits=(low, high))
    grid = curve(ssm, m=100, T=10, delta=0.05, loss=ramp())
    for i in range(2):
        here = SelectiveSSMClass(**BASE, step_logits=(low[i], high[i]))
        bound = generalization_gap(here, m=100, T=10, delta=0.05, loss=ramp())
        assert_equal_to_scalar(grid, i, bound)
    assert np.all(grid["ln_R_lower"] == -np.inf)


def test_one_channel_among_many_has_the_terms_of_the_others(monkeypatch):
    monkeypatch.setattr(curve_module, "BLOCK", 1)
    ssm = SelectiveSSMClass(**BASE | dict(d=np.array([1, 4])), steps="per_channel")
    grid = curve(ssm, m=100, T=10, delta=0.05, loss=ramp())
    assert grid["ln_G1_all"][0] == grid["ln_G1"][0]
    assert grid["ln_G1_all"][1] > grid["ln_G1"][1]


def test_the_lower_bound_is_trivial_where_its_model_is_not_in_the_class():
    ssm = SelectiveSSMClass(**BASE | dict(s_A=0.5, a_lo=np.array([-1.0, 0.25])))
    grid = curve(ssm, m=100, T=10, delta=0.05, loss=ramp())
    assert np.isfinite(grid["ln_R_lower"][0])
    assert grid["ln_R_lower"][1] == -np.inf


def test_names_a_malformed_argument():
    ssm = SelectiveSSMClass(**BASE)
    with pytest.raises(ValueError, match="T must be a whole number"):
        curve(ssm, m=10, T=np.array([1.0, 0.5]), delta=0.1, loss=ramp())
    with pytest.raises(ValueError, match="delta must be a number strictly between 0 and 1"):
        curve(ssm, m=10, T=10, delta=np.array([0.1, 1.0]), loss=ramp())
