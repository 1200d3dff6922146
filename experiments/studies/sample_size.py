"""How do the three gap bounds fall with the number of samples, and which is smallest?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.generalization import generalization_gap
from bounds.losses import ramp
from bounds.result import Source
from experiments.claims import Claim
from experiments.members import reference_class
from experiments.study import Preset, Study


@dataclass(frozen=True)
class SampleSize(Study):
    """Norm-based, hybrid and parameter-counting bounds of the reference class against m."""

    s_A: tuple[float, ...] = (-0.5, 0.05)
    """Spectral abscissae (1/time)."""
    T: tuple[int, ...] = (100,)
    """Sequence lengths (steps)."""
    m: tuple[int, ...] = tuple(round(10 ** (k / 4)) for k in range(8, 57))
    """Sample sizes."""

    name = "sample-size"
    title = "Gap bounds against the sample size"
    version = 1
    presets = {"quick": Preset("3 s")}
    claims = (
        Claim(
            name="parameter-bound-rate",
            statement="the parameter-counting bound falls as 1/√m, up to a logarithm",
            source=Source("seqtheory", "theorem D7a"),
            relation="~",
            measured="gap_parameter",
            predicted="rate",
            where={"clipped": False},
            over=("s_A", "m"),
            tolerance=0.05,
        ),
        Claim(
            name="norm-bound-rate",
            statement="once it is not vacuous, the norm-based bound falls as "
            "C_F (1 + ln(r₀√m/K))/√m",
            source=Source("honarpisheh2025generalization", "Lemma D.4"),
            relation="~",
            measured="gap_norm",
            predicted="norm_rate",
            where={"norm_clipped": False},
            over=("s_A", "m"),
            tolerance=0.1,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"s_A": self.s_A, "T": self.T, "m": self.m}

    @staticmethod
    def measure(rng: np.random.Generator, *, s_A: float, T: int, m: int) -> dict[str, Any]:
        gap = generalization_gap(reference_class(s_A=s_A), m=m, T=T, delta=0.05, loss=ramp())
        names = ("gap_norm", "gap_hybrid", "gap_parameter", "slack", "C_F")
        # The chained integral has the logarithm of r0 sqrt(m) / K: where it starts depends on K.
        folds = 1 + np.log(max(1.0, gap["r0"] * np.sqrt(m) / gap["K_loss"]))
        return {
            **{name: gap[name] for name in names},
            "clipped": gap["gap_parameter"] >= 1.0,
            "norm_clipped": gap["gap_norm"] >= 1.0,
            "rate": 1 / np.sqrt(m),
            "norm_rate": folds / np.sqrt(m) * gap["C_F"],
        }
