"""How do the bounds grow with the sequence length, below, at and above the stability threshold?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds import published
from bounds.covering import log_dudley
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.losses import ramp
from bounds.result import Source
from bounds.ssm import SelectiveSSMClass
from experiments.claims import Claim
from experiments.members import reference_class
from experiments.study import Preset, Study

_LENGTHS = tuple(sorted({round(10 ** (k / 8)) for k in range(49)}))


@dataclass(frozen=True)
class LengthDependence(Study):
    """Every bound of the reference class over sequence lengths."""

    s_A: tuple[float, ...] = (-1.0, -0.5, -0.1, 0.0, 0.02, 0.1)
    """Spectral abscissae (1/time)."""
    T: tuple[int, ...] = _LENGTHS
    """Sequence lengths (steps)."""
    m: tuple[int, ...] = (10**12,)
    """Sample sizes."""

    name = "length-dependence"
    title = "Growth with the sequence length"
    version = 1
    presets = {"quick": Preset("5 s")}
    claims = (
        Claim(
            name="length-independent-when-stable",
            statement="for s_A < 0 the capacity stays below the closed form of its limit",
            source=Source("honarpisheh2025generalization", "Theorem 3.3; seqtheory, theorem D4"),
            relation="<=",
            measured="ln_C_F",
            predicted="ln_C_F_limit",
            where={"regime": "stable"},
            over=("s_A", "T"),
            tolerance=1e-12,
        ),
        Claim(
            name="quadratic-at-threshold",
            statement="at s_A = 0 the capacity grows as T²",
            source=Source("honarpisheh2025generalization", "Theorem 3.3; seqtheory, limits"),
            relation="~",
            measured="C_F",
            predicted="T_squared",
            where={"regime": "threshold", "long": True},
            over=("T",),
            tolerance=0.05,
        ),
        Claim(
            name="exponential-norm-bound",
            statement="for s_A > 0 the logarithm of the norm-based capacity grows as s_A D T",
            source=Source("seqtheory", "limits"),
            relation="~",
            measured="ln_C_F",
            predicted="s_D_T",
            where={"regime": "unstable", "long": True},
            over=("s_A", "T"),
            tolerance=0.05,
        ),
        Claim(
            name="root-parameter-bound",
            statement="for s_A > 0 the parameter-counting bound grows only as √T",
            source=Source("seqtheory", "theorem D7a"),
            relation="~",
            measured="gap_parameter",
            predicted="root_T",
            where={"s_A": 0.1, "long": True, "clipped": False},
            over=("T",),
            tolerance=0.05,
        ),
        Claim(
            name="lower-below-upper",
            statement="the matching lower bound never exceeds the upper bound",
            source=Source("seqtheory", "theorem D6"),
            relation="<=",
            measured="ln_lower",
            predicted="ln_upper",
            over=("s_A", "T"),
            tolerance=1e-12,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"s_A": self.s_A, "T": self.T, "m": self.m}

    @staticmethod
    def measure(rng: np.random.Generator, *, s_A: float, T: int, m: int) -> dict[str, Any]:
        ssm = reference_class(s_A=s_A)
        gap = generalization_gap(ssm, m=m, T=T, delta=0.05, loss=ramp())
        regime = "stable" if s_A < 0 else "unstable" if s_A > 0 else "threshold"
        measured = {
            "regime": regime,
            "long": T >= 1000,
            "clipped": gap["gap_parameter"] >= 1.0,
            "ln_C_F": gap.term("C_F").stored,
            "C_F": gap["C_F"],
            "ln_b": gap.term("b").stored,
            "gap_norm": gap["gap_norm"],
            "gap_hybrid": gap["gap_hybrid"],
            "gap_parameter": gap["gap_parameter"],
            "ln_upper": rademacher_upper(ssm, m=m, T=T).term("R").stored,
            "ln_lower": rademacher_lower(ssm, m=m, T=T).term("R_lower").stored,
            "T_squared": float(T) ** 2,
            "root_T": np.sqrt(T),
            "s_D_T": s_A * gap["D"] * T,
        }
        measured |= {f"ln_gamma_{block}": gap.term(f"gamma_{block}").stored for block in "wBCAqp"}
        if s_A < 0:
            measured["ln_C_F_limit"] = _limit_capacity(ssm)
            capacity = published.capacity(ssm, T=T).terms[-1].stored
            range_ = gap.term("b").stored
            measured["ln_published"] = min(log_dudley(capacity, range_, m), range_)
        return measured


def _limit_capacity(ssm: SelectiveSSMClass) -> float:
    r"""$\ln C_F$ as $T \to \infty$ for a decaying class, from the closed forms of the limits.

    Written out here, in plain arithmetic, so that it shares nothing with what it is compared to.
    """
    r, D = -float(ssm.s_A), float(np.log1p(np.exp(ssm.p_hi + ssm.B_q * ssm.B_u)))
    rho = np.exp(-r * np.log1p(np.exp(ssm.p_lo - ssm.B_q * ssm.B_u)))
    G1 = D / (1 - np.exp(-r * D))
    G2 = min(r * D / (1 - np.exp(-r * D)) / r**2, D**2 * rho / (1 - rho) ** 2)
    H = min((D + 3 / r) / np.e, -ssm.a_lo * G2)
    d, entries = ssm.d, ssm.d * ssm.N
    step = (G1 + H) * np.array([1.0, ssm.B_u])  # p, and q
    blocks = [  # M, n, L; every spectral norm of the reference class is 1
        (ssm.M_w, d, G1), (ssm.M_B, entries, G1), (ssm.M_C, entries, G1), (ssm.M_A, entries, G2),
        (ssm.M_q, d, step[1]), ((ssm.p_hi - ssm.p_lo) / 2, 1, step[0]),
    ]  # fmt: skip
    return 1.5 * np.log(sum(np.cbrt(M**2 * np.log(2 * n + 1) * L**2) for M, n, L in blocks))
