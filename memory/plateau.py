"""Stages of a loss curve: when it has halved, and whether it rests in between."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

_WINDOW = 1.25
"""Slopes are taken between t / sqrt(window) and t * sqrt(window)."""
_GRID = 400
_LATEST_FIRST_DROP = 0.9
_SECOND_DROP = 0.5


@dataclass(frozen=True)
class Plateau:
    """The loss is about `height` from `start` to `end`."""

    start: float
    end: float
    height: float

    @property
    def duration(self) -> float:
        """End over start."""
        return self.end / self.start


def crossing(
    steps: Float[ndarray, " times"], loss: Float[ndarray, " times"], share: float = 0.5
) -> float:
    """The first time at which the loss is down to this share of its start, else infinity.

    Linear between the times given.
    """
    _check(steps, loss)
    level = share * loss[0]
    below = np.flatnonzero(loss <= level)
    if not below.size:
        return math.inf
    i = below[0]
    if i == 0:
        return float(steps[0])
    done = (loss[i - 1] - level) / (loss[i - 1] - loss[i])
    return float(steps[i - 1] + done * (steps[i] - steps[i - 1]))


def plateau(
    steps: Float[ndarray, " times"],
    loss: Float[ndarray, " times"],
    *,
    slope: float = 0.2,
    shortest: float = 1.1,
) -> Plateau | None:
    r"""The longest rest, in ln t, of a loss that has begun to fall and falls on afterwards.

    What counts, at a time t: the slope $-d \ln L / d \ln t$, between 0.89 t and 1.12 t, is below
    `slope`; the loss has fallen to 90 % of its start or less; and at the end of the curve it is
    half of its value at t or less. Of the longest such interval, `height` is the loss where the
    slope is least. None where the interval's end is less than `shortest` times its start: a curve
    with a single drop, or one that never falls again, has no plateau.
    """
    _check(steps, loss)
    if not slope > 0 or not shortest >= 1:
        raise ValueError(f"slope must be > 0 and shortest >= 1, got {slope} and {shortest}")
    half = math.sqrt(_WINDOW)
    first = steps[steps > 0][0]
    if steps[-1] <= first * _WINDOW:
        raise ValueError(f"steps must span a factor of {_WINDOW}, got {first:g} to {steps[-1]:g}")
    t = np.geomspace(first * half, steps[-1] / half, _GRID)
    log_loss = np.log(np.maximum(loss, np.finfo(float).tiny))

    def at(times: Float[ndarray, " grid"]) -> Float[ndarray, " grid"]:
        return np.interp(times, steps, log_loss)

    falling = (at(t / half) - at(t * half)) / math.log(_WINDOW)
    height = np.exp(at(t))
    rests = (
        (falling < slope)
        & (height <= _LATEST_FIRST_DROP * loss[0])
        & (loss[-1] <= _SECOND_DROP * height)
    )
    edges = np.flatnonzero(np.diff(np.concatenate([[False], rests, [False]]).astype(int)))
    if not edges.size:
        return None
    begins, ends = edges[::2], edges[1::2] - 1
    longest = int(np.argmax(t[ends] / t[begins]))
    low, high = begins[longest], ends[longest]
    if t[high] < shortest * t[low]:
        return None
    flattest = low + int(np.argmin(np.abs(falling[low : high + 1])))
    return Plateau(float(t[low]), float(t[high]), float(height[flattest]))


def _check(steps: Float[ndarray, " times"], loss: Float[ndarray, " times"]) -> None:
    if steps.ndim != 1 or steps.shape != loss.shape or len(steps) < 2:
        shapes = f"{steps.shape} and {loss.shape}"
        raise ValueError(f"steps and loss must be two or more numbers each, got shapes {shapes}")
    if steps[0] < 0 or not (np.diff(steps) > 0).all():
        raise ValueError("steps must increase strictly from 0 or later")
    if not np.isfinite(loss).all() or not (loss >= 0).all() or loss[0] == 0:
        raise ValueError("loss must be finite, not negative, and above 0 at the start")
