"""Performance, as ratios against a plain implementation measured in the same run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from numpy import ndarray

    from bounds.ssm import SelectiveSSMClass

_PROGRAM = "python -m experiments bench"
STEP_COUNTS = (100, 1000, 10_000, 100_000)
"""Sequence lengths at which the bounds are compared with plain summation."""


@dataclass(frozen=True)
class Measurement:
    """One measured quantity; `value` in `unit`, the median of the repeats."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Options:
    """Measure the speed of one part of the library, next to a plain implementation of it."""

    benchmark: Annotated[Positional[str], arg(metavar="BENCHMARK")]
    """What to measure: bounds."""
    points: int = 20_000
    """Grid points of a measurement; a plain implementation gets fewer where it is slow."""
    repeats: int = 5
    """Repeats, of which the median counts; the ways compared take turns."""
    json: Path | None = None
    """File for the results, to be read by a program."""


def bounds_speed(*, points: int, repeats: int) -> list[Measurement]:
    """The full set of terms over a grid, and one `Bound` with its checks.

    The plain way is the same computation with each step sum added up over t, in one vector
    operation a point. Processor time of one thread.
    """
    from bounds.generalization import generalization_gap
    from bounds.losses import ramp

    loss = ramp()
    rng = np.random.default_rng(0)
    measured = []
    scattered, at = scattered_points(rng, points)
    seconds = _medians({"curve": lambda: _curve(scattered, at)}, repeats)["curve"]
    measured.append(Measurement("all terms, scattered points", points / seconds, "points/s"))
    grid, grid_at = product_grid(points)
    size = np.prod(np.broadcast_shapes(grid.s_A.shape, grid_at["m"].shape, grid_at["T"].shape))
    seconds = _medians({"curve": lambda: _curve(grid, grid_at)}, repeats)["curve"]
    measured.append(Measurement("all terms, product grid", float(size) / seconds, "points/s"))
    for T in STEP_COUNTS:
        few = max(1, min(points, 2_000_000 // T))
        ssm, _ = scattered_points(rng, few)
        ways = {"closed": lambda: step_sums(ssm, T), "summed": lambda: summed_step_sums(ssm, T)}  # noqa: B023
        one, other = _medians(ways, repeats).values()
        name = f"step sums at T={T}, ratio to plain summation"
        measured.append(Measurement(name, other / one, "times faster"))
    ssm = type(scattered)(d=16, N=4, s_A=-0.1, a_lo=-2, p_lo=-1, p_hi=0)
    bound = generalization_gap(ssm, m=10_000, T=1000, delta=0.05, loss=loss)
    ways = {
        "one Bound": lambda: generalization_gap(ssm, m=10_000, T=1000, delta=0.05, loss=loss),
        "its audit, 50 digits": bound.audit,
        "its certificate": bound.certify,
    }
    for name, seconds in _medians(ways, repeats).items():
        measured.append(Measurement(name, 1000 * seconds, "ms"))
    return measured
