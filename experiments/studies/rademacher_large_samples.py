"""Do the entropy bounds hold where they are smaller than the trivial one?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bounds.generalization import rademacher_upper
from bounds.result import Source
from bounds.ssm import SelectiveSSMClass
from experiments.claims import Claim
from experiments.members import Members
from experiments.study import Preset, Study

_LENGTH = 6
_SIGNS = 40


def _claim(name: str, statement: str, theorem: str, predicted: str) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        source=Source("seqtheory", theorem),
        relation="<=",
        measured="estimated",
        predicted=predicted,
        over=("s_A", "m"),
        tolerance=0.0,
    )


@dataclass(frozen=True)
class RademacherLargeSamples(Study):
    """One channel, one state: a grid over decay, step and projection finds the supremum.

    The small class brings the bounds below the output range b at sample sizes that can be
    simulated. What they leave between themselves and the estimate is the factor by which a wrong
    constant would go unnoticed here; the figure shows it.
    """

    s_A: tuple[float, ...] = (-0.5, 0.0)
    """Spectral abscissae (1/time)."""
    m: tuple[int, ...] = (1000, 10000, 100000)
    """Sample sizes."""
    seed: tuple[int, ...] = (0, 1, 2)
    """Independent samples and signs."""

    name = "rademacher-large-samples"
    title = "Rademacher complexity of large samples"
    version = 1
    presets = {"quick": Preset("15 s"), "small": Preset("2 min", {"seed": tuple(range(20))})}
    claims = (
        _claim(
            "hybrid-bound-holds",
            "the hybrid bound is above the complexity of a random sample",
            "theorem D7b",
            "hybrid",
        ),
        _claim(
            "entropy-integral-holds",
            "so is the entropy integral of the norm-based cover",
            "theorems D3 to D5",
            "chained",
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"s_A": self.s_A, "m": self.m, "seed": self.seed}

    @staticmethod
    def measure(rng: np.random.Generator, *, s_A: float, m: int, seed: int) -> dict[str, Any]:
        ssm = SelectiveSSMClass(d=1, N=1, s_A=s_A, a_lo=-1.0, p_lo=-1.0, p_hi=0.0, B_q=0.5, M_q=0.5)
        u = rng.choice([-1.0, 1.0], size=(m, _LENGTH, 1)) * rng.uniform(0.5, 1, (m, _LENGTH, 1))
        signs = rng.choice([-1.0, 1.0], size=(_SIGNS, m))
        one = np.ones((1, 1))
        best = np.zeros(_SIGNS)
        # w, W_B and W_C multiply the output: at their ends they only choose its sign.
        for a, p, q in product((s_A, s_A / 2, -1.0), (-1.0, 0.0), (-0.5, 0.0, 0.5)):
            model = Members(
                w=one, B=one[None], C=one[None], A=np.full((1, 1, 1), a),
                q=np.full((1, 1, 1), q), p=np.full((1, 1), p),
            )  # fmt: skip
            best = np.maximum(best, np.abs(signs @ model.outputs(u)) / m)
        bound = rademacher_upper(ssm, m=m, T=_LENGTH)
        return {
            "estimated": best.mean(),
            "hybrid": bound["R_hybrid"],
            "chained": bound["chained_raw"],
            "range": bound["b"],
        }
