"""How do the bounds grow with the sequence length, below, at and above the stability threshold?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds import published
from bounds.checks import LARGEST_COUNT
from bounds.covering import log_dudley
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.losses import ramp
from bounds.result import Source
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
            statement="for s_A < 0 the capacity stays below a finite value free of T",
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
            limit = rademacher_upper(ssm, m=m, T=LARGEST_COUNT)
            measured["ln_C_F_limit"] = limit.term("C_F").stored
            capacity = published.capacity(ssm, T=T).terms[-1].stored
            range_ = gap.term("b").stored
            measured["ln_published"] = min(log_dudley(capacity, range_, m), range_)
        return measured
