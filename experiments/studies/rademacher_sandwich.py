"""Is the Rademacher complexity between its upper and its lower bound?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.generalization import rademacher_lower, rademacher_upper
from bounds.result import Source
from experiments.claims import Claim
from experiments.members import (
    extremal_members,
    random_members,
    random_sequences,
    reference_class,
)
from experiments.study import Preset, Study


@dataclass(frozen=True)
class RademacherSandwich(Study):
    """Exact average over all sign vectors of the best of many models, on two kinds of samples."""

    sample: tuple[str, ...] = ("extremal", "random")
    """Every sequence the one that attains the range, or independent random sequences."""
    s_A: tuple[float, ...] = (-0.5, 0.0, 0.1)
    """Spectral abscissae (1/time)."""
    T: tuple[int, ...] = (1, 8, 32)
    """Sequence lengths (steps)."""
    m: tuple[int, ...] = (1, 2, 5, 8)
    """Sample sizes; all 2^m sign vectors are enumerated."""
    models: tuple[int, ...] = (1500,)
    """Random models over which the supremum is taken, besides the extremal one."""

    name = "rademacher-sandwich"
    title = "Rademacher complexity between its bounds"
    version = 1
    presets = {
        "quick": Preset("15 s"),
        "small": Preset("5 min", {"models": (20000,), "m": (1, 2, 5, 8, 11)}),
    }
    claims = (
        Claim(
            name="upper-bound-holds",
            statement="the supremum over models, averaged over signs, stays below the upper bound, "
            "which for so few samples is the output range",
            source=Source("seqtheory", "theorem D2"),
            relation="<=",
            measured="estimated",
            predicted="upper",
            over=("sample", "s_A", "T", "m"),
            tolerance=1e-9,
        ),
        Claim(
            name="lower-bound-holds",
            statement="on the extremal sample it reaches the lower bound Π G1 ξ_m",
            source=Source("seqtheory", "theorem D6"),
            relation=">=",
            measured="estimated",
            predicted="lower",
            where={"sample": "extremal"},
            over=("s_A", "T", "m"),
            tolerance=1e-9,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "sample": self.sample, "s_A": self.s_A, "T": self.T, "m": self.m,
            "models": self.models,
        }  # fmt: skip

    @staticmethod
    def measure(
        rng: np.random.Generator, *, sample: str, s_A: float, T: int, m: int, models: int
    ) -> dict[str, Any]:
        ssm = reference_class(s_A=s_A)
        extremal, direction = extremal_members(ssm)
        if sample == "extremal":
            u = np.broadcast_to(direction[:, None], (m, T, 4))
        else:
            u = random_sequences(rng, ssm, m, T)
        members = random_members(rng, ssm, models)
        outputs = np.stack(
            [
                np.append(
                    members.outputs(np.broadcast_to(u[i], (models, T, 4))),
                    extremal.outputs(u[i : i + 1]),
                )
                for i in range(m)
            ],
            axis=1,
        )
        signs = 1.0 - 2.0 * ((np.arange(2**m)[:, None] >> np.arange(m)) & 1)
        # The class contains -f with every f, so that the supremum is of the absolute value.
        best = np.abs(signs @ outputs.T).max(axis=1)
        return {
            "estimated": best.mean() / m,
            "upper": float(rademacher_upper(ssm, m=m, T=T)),
            "lower": float(rademacher_lower(ssm, m=m, T=T)),
        }
