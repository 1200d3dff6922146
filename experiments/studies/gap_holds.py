"""Does a real generalization gap stay below the bound as often as promised?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.generalization import generalization_gap
from bounds.losses import ramp
from bounds.result import Source
from bounds.ssm import SelectiveSSMClass
from experiments.claims import Claim
from experiments.members import random_members
from experiments.study import Preset, Study

_LENGTH = 9
_NOISE = 0.2
_DELTA = 0.05


@dataclass(frozen=True)
class GapHolds(Study):
    """Majority of nine bits with noisy labels: all 512 inputs are known, so the gap is exact."""

    m: tuple[int, ...] = (200, 2000, 20000)
    """Sample sizes."""
    models: tuple[int, ...] = (1000,)
    """Random models over which the largest gap is taken, the best and worst on each sample
    included."""
    samples: tuple[int, ...] = (200,)
    """Independent training samples per sample size."""

    name = "gap-holds"
    title = "Measured gaps below the bound"
    version = 1
    presets = {
        "quick": Preset("10 s"),
        "small": Preset("2 min", {"models": (20000,), "samples": (1000,)}),
    }
    claims = (
        Claim(
            name="gap-below-bound",
            statement="with probability 0.95 over samples, no model's gap exceeds the bound",
            source=Source("seqtheory", "theorems D5 to D7"),
            relation="<=",
            measured="largest_gap",
            predicted="bound",
            violations="violations",
            instances="samples_drawn",
            over=("m",),
            failure_probability=_DELTA,
            tolerance=0.0,
        ),
        Claim(
            name="hundredth-of-bound",
            statement="control: a bound a hundred times smaller would hold as well",
            source=Source("seqtheory", "negative control"),
            relation="<=",
            measured="largest_gap",
            predicted="hundredth",
            violations="violations_of_hundredth",
            instances="samples_drawn",
            over=("m",),
            failure_probability=_DELTA,
            tolerance=0.0,
            expected="refuted",
            corrected_by="gap-below-bound",
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"m": self.m, "models": self.models, "samples": self.samples}

    @staticmethod
    def measure(rng: np.random.Generator, *, m: int, models: int, samples: int) -> dict[str, Any]:
        ssm = SelectiveSSMClass(
            d=2, N=1, s_A=-0.1, a_lo=-1.0, p_lo=-1.0, p_hi=0.0, B_w=4.0, B_q=0.5
        )  # fmt: skip
        bound = generalization_gap(ssm, m=m, T=_LENGTH, delta=_DELTA, loss=ramp())
        bits = (np.arange(2**_LENGTH)[:, None] >> np.arange(_LENGTH)) & 1
        sequences = np.eye(2)[bits]
        majority = np.where(bits.sum(axis=1) > _LENGTH / 2, 1.0, -1.0)
        members = random_members(rng, ssm, models)
        z = np.stack(
            [members.outputs(np.broadcast_to(u, (models, *u.shape))) for u in sequences], axis=1
        )
        # Loss of every model on every input, for the right and for the flipped label.
        right, flipped = _ramp(z * majority), _ramp(-z * majority)
        risk = ((1 - _NOISE) * right + _NOISE * flipped).mean(axis=1)
        chances = np.tile([1 - _NOISE, _NOISE], (len(bits), 1)) / len(bits)
        counts = rng.multinomial(m, chances.ravel(), size=samples).reshape(samples, len(bits), 2)
        training = (counts[:, :, 0] @ right.T + counts[:, :, 1] @ flipped.T) / m
        largest = (risk - training).max(axis=1)
        return {
            "bound": float(bound),
            "hundredth": float(bound) / 100,
            "largest_gap": largest.max(),
            "mean_gap": largest.mean(),
            "gap_2.5%": float(np.quantile(largest, 0.025)),
            "gap_97.5%": float(np.quantile(largest, 0.975)),
            "violations": int((largest > float(bound)).sum()),
            "violations_of_hundredth": int((largest > float(bound) / 100).sum()),
            "samples_drawn": samples,
        }


def _ramp(margin: np.ndarray) -> np.ndarray:
    return np.clip(1 - margin, 0, 1)
