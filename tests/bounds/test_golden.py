"""Reference values from independent 50-digit arithmetic."""

import pytest

from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.losses import ramp
from bounds.ssm import SelectiveSSMClass

CASES = {
    (-0.5, 100): (2.72798037025178, 5.45596074050355, 2.69039862274472, 313.517856570218),
    (-0.5, 10): (2.7241421515252, 5.39787844703106, 2.66910730624338, 311.711156792599),
    (0.0, 100): (131.326168751822, 8537.04848652089, 48.795319547323, 154031.152929636),
    (0.05, 100): (13733.8868599234, 1522365.46113228, 76167.0683761612, 27614182.186697),
}


def base(s_A: float) -> SelectiveSSMClass:
    return SelectiveSSMClass(
        d=4, N=4, s_A=s_A, a_lo=-2, p_lo=-1, p_hi=0, M_w=2, M_q=2, M_B=4, M_C=4, M_A=8
    )  # fmt: skip


@pytest.mark.parametrize(("case", "expected"), CASES.items())
def test_step_sums_and_capacity(case, expected):
    s_A, T = case
    bound = rademacher_upper(base(s_A), m=10**6, T=T)
    assert bound["D"] == pytest.approx(1.31326168751822, rel=1e-14)
    assert bound["D_min"] == pytest.approx(0.126928011042972, rel=1e-14)
    values = [bound[name] for name in ("G1", "G2", "H", "C_F")]
    assert values == pytest.approx(expected, rel=1e-12)


def test_rademacher_bounds():
    upper = rademacher_upper(base(-0.5), m=10**6, T=100)
    # The textbook integral is 7.77 there, so that the trivial bound b = 2.72798 is smaller.
    assert min(upper["b"], upper["textbook_raw"]) == pytest.approx(2.72798037025178)
    assert upper["chained_raw"] == pytest.approx(2.64303, rel=1e-5)
    # The reference searched a coarser grid of radii; a finer one is barely smaller.
    assert 0.999 * 0.0641026 < upper["R_hybrid"] <= 0.0641026 * (1 + 1e-6)
    lower = rademacher_lower(base(-0.5), m=10**6, T=100)
    # b * xi_m with xi_m = 7.978843613317497e-4 from 40-digit log-gammas. (An earlier table had
    # 0.00217661287396: a difference of double-precision log-gammas, off by 7e-10.)
    assert float(lower) == pytest.approx(2.72798037025178 * 7.978843613317497e-4, rel=1e-12)


@pytest.mark.parametrize(("s_A", "gap"), [(-0.5, 0.0185407), (0.0, 0.0221042), (0.05, 0.0251668)])
def test_parameter_gap(s_A, gap):
    bound = generalization_gap(base(s_A), m=10**6, T=100, delta=0.05, loss=ramp())
    assert 0.999 * gap < bound["gap_parameter"] <= gap * (1 + 1e-3)
