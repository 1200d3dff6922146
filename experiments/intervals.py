"""Confidence intervals that verdicts rest on: of a rate, a mean, and a log-log slope."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Interval:
    """An estimate with the two-sided confidence interval `[low, high]`."""

    estimate: float
    low: float
    high: float

    def __neg__(self) -> Interval:
        return Interval(-self.estimate, -self.high, -self.low)


def rate(events: int, trials: int, confidence: float) -> Interval:
    """Clopper-Pearson interval of a probability; it covers at least, for every true rate."""
    from scipy.stats import binomtest

    interval = binomtest(events, trials).proportion_ci(confidence, method="exact")
    return Interval(events / trials, float(interval.low), float(interval.high))


def mean(values: np.ndarray, confidence: float) -> Interval:
    """Student t interval of a mean; a single value says nothing about its own scatter."""
    estimate = float(np.mean(values))
    if len(values) < 2:
        return Interval(estimate, -math.inf, math.inf)
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return _t_interval(estimate, error, len(values) - 1, confidence)


def slope(x: np.ndarray, y: np.ndarray, point: np.ndarray, confidence: float) -> Interval:
    """Least-squares slope of the point means of `y` on those of `x`; `point` groups the values.

    Where every point has repeats, the slope is a linear combination of independent means, and their
    own scatter gives its interval (Welch-Satterthwaite), whether the curve is straight or not.
    Otherwise the scatter of the means about the line does. At least three points are needed.
    """
    groups = [point == label for label in np.unique(point)]
    x_means = np.array([x[group].mean() for group in groups])
    y_means = np.array([y[group].mean() for group in groups])
    centred = x_means - x_means.mean()
    weights = centred / np.sum(centred**2)
    estimate = float(weights @ y_means)
    counts = np.array([group.sum() for group in groups])
    if counts.min() > 1:
        # Scatter about the line through the point, should x vary between repeats with y.
        offset = y - estimate * x
        variances = np.array([np.var(offset[group], ddof=1) for group in groups])
        parts = weights**2 * variances / counts
        total = float(parts.sum())
        freedom = total**2 / float(np.sum(parts**2 / (counts - 1))) if total > 0 else 1.0
        return _t_interval(estimate, math.sqrt(total), freedom, confidence)
    residuals = y_means - y_means.mean() - estimate * centred
    freedom = len(groups) - 2
    error = math.sqrt(np.sum(residuals**2) / freedom / np.sum(centred**2))
    return _t_interval(estimate, error, freedom, confidence)


def _t_interval(estimate: float, error: float, freedom: float, confidence: float) -> Interval:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    return Interval(estimate, estimate - half, estimate + half)
