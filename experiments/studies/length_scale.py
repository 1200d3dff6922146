"""From which length on are the bounds length-independent: ours, and the published one?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds import published
from bounds.checks import LARGEST_COUNT
from bounds.generalization import rademacher_upper
from bounds.lipschitz import characteristic_length, published_characteristic_length
from bounds.result import Source
from experiments.claims import Claim
from experiments.members import reference_class
from experiments.study import Preset, Study


@dataclass(frozen=True)
class LengthScale(Study):
    """The length at which a capacity reaches 90 % of its limit, over stability and step range."""

    s_A: tuple[float, ...] = (-1.0, -0.3, -0.1, -0.03, -0.01)
    """Spectral abscissae (1/time)."""
    B_q: tuple[float, ...] = (0.5, 2.0, 4.0, 8.0)
    """Norms of the step projection: the larger, the wider the range of step sizes."""

    name = "length-scale"
    title = "Where length independence sets in"
    version = 1
    presets = {"quick": Preset("5 s")}
    claims = (
        Claim(
            name="onset-at-largest-step",
            statement="our capacity reaches 90 % of its limit within 10 characteristic lengths "
            "1/(|s_A| D), or 10 steps",
            source=Source("seqtheory", "theorem D1"),
            relation="<=",
            measured="onset",
            predicted="ten_lengths",
            over=("s_A", "B_q"),
            tolerance=0.0,
        ),
        Claim(
            name="published-onset-at-largest-step",
            statement="control: the published capacity reaches 90 % of its limit there, too",
            source=Source("seqtheory", "negative control"),
            relation="<=",
            measured="onset_published",
            predicted="ten_lengths",
            over=("s_A", "B_q"),
            tolerance=0.0,
            expected="refuted",
            corrected_by="published-onset-at-smallest-step",
        ),
        Claim(
            name="published-onset-at-smallest-step",
            statement="the published capacity saturates at a multiple of 1/(|s_A| D_min)",
            source=Source("seqtheory", "erratum E6"),
            relation="~",
            measured="onset_published",
            predicted="published_length",
            over=("s_A", "B_q"),
            tolerance=0.1,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"s_A": self.s_A, "B_q": self.B_q}

    @staticmethod
    def measure(rng: np.random.Generator, *, s_A: float, B_q: float) -> dict[str, Any]:
        ssm = reference_class(s_A=s_A, B_q=B_q, M_q=None)
        length = float(characteristic_length(ssm))
        return {
            "onset": _onset(lambda T: rademacher_upper(ssm, m=1, T=T).term("C_F").stored),
            "onset_published": _onset(lambda T: published.capacity(ssm, T=T).terms[-1].stored),
            "ten_lengths": 10 * max(length, 1.0),
            "our_length": length,
            "published_length": float(published_characteristic_length(ssm)),
        }


def _onset(log_capacity: Callable[[int], float]) -> int:
    """Smallest T with at least 90 % of the capacity at the largest T (bisection: it increases)."""
    target = log_capacity(LARGEST_COUNT) + np.log(0.9)
    low, high = 0, LARGEST_COUNT
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if log_capacity(middle) >= target else (middle, high)
    return high
