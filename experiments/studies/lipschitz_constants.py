"""Does the Lipschitz inequality hold between random pairs of models?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bounds.lipschitz import SOURCE, lipschitz_constants
from experiments.claims import Claim
from experiments.members import (
    extremal_members,
    random_members,
    random_sequences,
    reference_class,
)
from experiments.study import Preset, Study

BLOCKS = ("w", "B", "C", "A", "q", "p")


@dataclass(frozen=True)
class LipschitzConstants(Study):
    """|z(θ) - z(θ')| against Σ L_i ‖θ_i - θ'_i‖: pairs that differ in one block or in all."""

    s_A: tuple[float, ...] = (-2.0, -0.5, 0.0, 0.05, 0.3)
    """Spectral abscissae (1/time)."""
    T: tuple[int, ...] = (1, 8, 32)
    """Sequence lengths (steps)."""
    pairs: tuple[int, ...] = (2000,)
    """Random pairs per block and point."""

    name = "lipschitz-constants"
    title = "Lipschitz constants"
    version = 1
    presets = {
        "quick": Preset("10 s"),
        "small": Preset("2 min", {"pairs": (20000,)}),
    }
    claims = (
        Claim(
            name="lipschitz-holds",
            statement="|z(θ) - z(θ')| ≤ Σ_i L_i ‖θ_i - θ'_i‖ for every pair of models",
            source=SOURCE,
            relation="<=",
            measured="worst_ratio",
            predicted=1.0,
            violations="violations",
            instances="instances",
            over=("s_A", "T"),
            failure_probability=0.0,
            tolerance=1e-9,
        ),
        Claim(
            name="linear-blocks-attained",
            statement="the constants of w, W_B and W_C are attained exactly, for every sign of s_A",
            source=SOURCE,
            relation="<=",
            measured="extremal_error",
            predicted=1e-9,
            over=("s_A", "T"),
            tolerance=0.0,
        ),
        Claim(
            name="state-matrix-attained",
            statement="the constant of the state matrix is attained for s_A ≥ 0 by near pairs",
            source=SOURCE,
            relation="<=",
            measured="extremal_error_A",
            predicted=1e-4,
            where={"decaying": False, "several": True},
            over=("s_A", "T"),
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"s_A": self.s_A, "T": self.T, "pairs": self.pairs}

    @staticmethod
    def measure(rng: np.random.Generator, *, s_A: float, T: int, pairs: int) -> dict[str, Any]:
        ssm = reference_class(s_A=s_A, a_lo=-4.0)
        bound = lipschitz_constants(ssm, T=T)
        first, second = random_members(rng, ssm, pairs), random_members(rng, ssm, pairs)
        u = random_sequences(rng, ssm, pairs, T)
        z = first.outputs(u)
        ratios = {}
        for blocks in (*((block,) for block in BLOCKS), BLOCKS):
            other = first
            weight = 10 ** rng.uniform(-4, 0)  # near and far pairs
            for block in blocks:
                other = other.toward(second, block, weight)
            moved = first.distance(other)
            allowed = sum(bound[f"L_{block}"] * moved[block] for block in blocks)
            change = np.abs(other.outputs(u) - z)
            # Differences of nearly equal outputs carry their rounding error.
            rounding = 1e-13 * np.abs(z) + 1e-300
            ratios["".join(blocks)] = np.maximum(change - rounding, 0) / (allowed + 1e-300)
        model, direction = extremal_members(ssm)
        u = np.broadcast_to(direction[:, None], (1, T, 4))
        extremal = {}
        for block in BLOCKS:
            # Far for the blocks that enter linearly, near for those that do not.
            moved = -getattr(model, block) if block in "wBC" else getattr(model, block) - 1e-6
            other = replace(model, **{block: moved})
            change = abs(float(other.outputs(u)[0] - model.outputs(u)[0]))
            allowed = bound[f"L_{block}"] * float(model.distance(other)[block][0])
            extremal[block] = change / allowed if allowed > 0 else change
        every = np.concatenate([*ratios.values(), list(extremal.values())])
        return {
            "decaying": s_A < 0,
            "several": T > 1,  # with one step the state matrix does not matter
            "worst_ratio": every.max(),
            "violations": int((every > 1 + 1e-8).sum()),
            "instances": len(every),
            "extremal_error": max(abs(extremal[block] - 1) for block in "wBC"),
            "extremal_error_A": abs(extremal["A"] - 1),
            **{f"extremal_ratio_{block}": ratio for block, ratio in extremal.items()},
            **{f"worst_ratio_{blocks}": ratio.max() for blocks, ratio in ratios.items()},
        }
