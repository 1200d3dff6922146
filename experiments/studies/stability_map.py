"""The bounds as functions of the two quantities that govern them: stability and step size."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.curve import curve
from bounds.losses import ramp
from bounds.result import Source
from experiments.claims import Claim
from experiments.members import reference_class
from experiments.study import Preset, Study


@dataclass(frozen=True)
class StabilityMap(Study):
    """Capacity and gap over a grid of spectral abscissae and step sizes, all at once."""

    T: tuple[int, ...] = (100, 1000)
    """Sequence lengths (steps)."""
    m: tuple[int, ...] = (10**6,)
    """Sample sizes."""
    points: tuple[int, ...] = (121,)
    """Grid points in each direction."""

    name = "stability-map"
    title = "Stability and step size"
    version = 1
    presets = {
        "quick": Preset("5 s"),
        "paper": Preset("1 min", {"points": (801,)}),
    }
    claims = (
        Claim(
            name="monotone-in-stability",
            statement="capacity, range and parameter-counting bound never fall as s_A grows",
            source=Source("seqtheory", "monotonicity"),
            relation="<=",
            measured="largest_drop_in_s_A",
            predicted=0.0,
            violations="drops_in_s_A",
            instances="neighbours",
            over=("T",),
            failure_probability=0.0,
            tolerance=0.0,
        ),
        Claim(
            name="monotone-in-step-size",
            statement="nor as the largest step size grows",
            source=Source("seqtheory", "monotonicity"),
            relation="<=",
            measured="largest_drop_in_step",
            predicted=0.0,
            violations="drops_in_step",
            instances="neighbours",
            over=("T",),
            failure_probability=0.0,
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"T": self.T, "m": self.m, "points": self.points}

    @staticmethod
    def measure(rng: np.random.Generator, *, T: int, m: int, points: int) -> dict[str, Any]:
        s_A = np.linspace(-0.3, 0.1, points)[:, None]
        # Steps depend on the input through the bias alone: from the smallest to `step_size`.
        step_size = np.geomspace(1e-3, 10, points)[None, :]
        logit = step_size + np.log(-np.expm1(-step_size))
        ssm = reference_class(s_A=s_A, B_q=0.0, M_q=None, p_lo=logit[0, 0], p_hi=logit)
        terms = curve(ssm, m=m, T=T, delta=0.05, loss=ramp())
        values = np.stack([terms["ln_C_F"], terms["ln_b"], terms["gap_parameter"]])
        # Free radii are searched, not solved for: neighbours may differ by the search's resolution.
        scale = np.array([1e-10, 1e-10, 1e-3])[:, None, None]
        drops = [-np.diff(values, axis=axis) / scale for axis in (1, 2)]
        return {
            "s_A_values": s_A[:, 0],
            "step_sizes": step_size[0],
            "ln_C_F": terms["ln_C_F"],
            "gap_parameter": terms["gap_parameter"],
            "gap": terms["gap"],
            "neighbours": drops[0].size,
            "drops_in_s_A": int((drops[0] > 1).sum()),
            "drops_in_step": int((drops[1] > 1).sum()),
            "largest_drop_in_s_A": float(drops[0].max()),
            "largest_drop_in_step": float(drops[1].max()),
        }
