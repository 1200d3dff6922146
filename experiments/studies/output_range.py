"""Does the output range bound hold, and is it attained?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.lipschitz import SOURCE, output_range
from bounds.result import Source
from bounds.ssm import SelectiveSSMClass
from experiments.claims import Claim
from experiments.members import (
    Members,
    Sequences,
    extremal_members,
    random_members,
    random_sequences,
    reference_class,
)
from experiments.study import Preset, Study


@dataclass(frozen=True)
class OutputRange(Study):
    """Random and extremal models against b = Π G1, with one step sequence or one per channel."""

    steps: tuple[str, ...] = ("shared", "per_channel")
    """One step sequence for all channels (the paper) or one for each (Mamba)."""
    s_A: tuple[float, ...] = (-2.0, -0.5, 0.0, 0.05, 0.3)
    """Spectral abscissae (1/time)."""
    T: tuple[int, ...] = (1, 15, 48)
    """Sequence lengths (steps)."""
    models: tuple[int, ...] = (3000,)
    """Random models per point."""

    name = "output-range"
    title = "Range of the output"
    version = 1
    presets = {
        "quick": Preset("10 s"),
        "small": Preset("2 min", {"models": (30000,)}),
    }
    claims = (
        Claim(
            name="range-holds",
            statement="|z| ≤ b = Π G1(s_A, T) for every model and sequence, for every sign of s_A",
            source=SOURCE,
            relation="<=",
            measured="worst_ratio",
            predicted=1.0,
            violations="violations",
            instances="instances",
            over=("steps", "s_A", "T"),
            failure_probability=0.0,
            tolerance=1e-9,
        ),
        Claim(
            name="range-attained",
            statement="with one step sequence, some model reaches |z| = b exactly",
            source=SOURCE,
            relation=">=",
            measured="extremal_ratio",
            predicted=1.0,
            where={"steps": "shared"},
            over=("s_A", "T"),
            tolerance=1e-9,
        ),
        Claim(
            name="one-sequence-range-per-channel",
            statement="the range for one step sequence, Π G1, also holds with one per channel",
            source=Source("seqtheory", "theorem D1 without its factor for several sequences"),
            relation="<=",
            measured="single_sequence_ratio",
            predicted=1.0,
            where={"steps": "per_channel"},
            over=("s_A", "T"),
            failure_probability=0.0,
            tolerance=1e-9,
            expected="refuted",
            corrected_by="range-holds",
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"steps": self.steps, "s_A": self.s_A, "T": self.T, "models": self.models}

    @staticmethod
    def measure(
        rng: np.random.Generator, *, steps: str, s_A: float, T: int, models: int
    ) -> dict[str, Any]:
        if steps == "shared":
            ssm = reference_class(s_A=s_A)
            hardest, u = extremal_members(ssm)
            u = np.broadcast_to(u[:, None], (1, T, 4))
        else:
            ssm = _relay_class(s_A)
            hardest, u = _relay(ssm, T)
        bound = output_range(ssm, T=T)
        z = random_members(rng, ssm, models).outputs(random_sequences(rng, ssm, models, T))
        extremal = abs(float(hardest.outputs(u)[0]))
        z = np.append(np.abs(z), extremal)
        return {
            "worst_ratio": z.max() / float(bound),
            "extremal_ratio": extremal / float(bound),
            "single_sequence_ratio": z.max() / (bound["Pi"] * bound["G1"]),
            "violations": int((z > float(bound) * (1 + 1e-9)).sum()),
            "instances": len(z),
        }


def _relay_class(s_A: float) -> SelectiveSSMClass:
    return SelectiveSSMClass(
        d=16, N=1, s_A=s_A, a_lo=-2.0, p_lo=-15.0, p_hi=-15.0, B_q=20.0, steps="per_channel"
    )


def _relay(ssm: SelectiveSSMClass, T: int) -> tuple[Members, Sequences]:
    """Channels that take turns: each absorbs one input with a large step, and then holds it.

    Input t is (e_0 + e_j)/√2 with j running over the other channels. The step of channel j is
    large when its own input arrives and tiny otherwise, so that a strongly decaying channel
    forgets nothing; no single step sequence can do that.
    """
    d = int(ssm.d)
    turn = 1 + np.arange(T) % (d - 1)
    u = np.zeros((1, T, d))
    u[0, :, 0] = u[0, np.arange(T), turn] = np.sqrt(0.5)
    u *= ssm.B_u
    q = np.zeros((1, d, d))
    q[0, :, 0] = q[0, np.arange(d), np.arange(d)] = np.sqrt(0.5) * ssm.B_q
    q[0, 0] = 0.0
    mean = u[0].sum(axis=0) / np.linalg.norm(u[0].sum(axis=0))
    last = u[0, -1] / np.linalg.norm(u[0, -1])
    w = np.zeros((1, d))
    w[0, np.unique(turn)] = 1.0
    w *= ssm.B_w / np.linalg.norm(w)
    return Members(
        w=w,
        B=ssm.B_B * mean[None, None],
        C=ssm.B_C * last[None, None],
        A=np.full((1, d, 1), ssm.s_A),
        q=q,
        p=np.full((1, d), float(ssm.p_hi)),
    ), u
