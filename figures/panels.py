"""What panels are made of: points with intervals, fitted exponents, ticks, labels along curves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation
from pandas import DataFrame, Series

from experiments.intervals import mean, slope

GUIDE: dict[str, Any] = dict(color="0.55", linewidth=0.7, linestyle=":")
"""Style of guide lines, and of notes beside them."""
NOTE: dict[str, Any] = dict(fontsize=6, color="0.35")
_CONFIDENCE = 0.95


class NothingToDrawError(ValueError):
    """The rows have nothing of what a figure is about, and what that is."""


def points(axis: Axes, rows: DataFrame, x: str, y: str, **style: Any) -> None:
    """Geometric means of `y` at each `x` with their 95 % intervals."""
    groups = rows.groupby(x)
    at = np.array([interval(draws, y) for _, draws in groups])
    spread = np.abs(at[:, 1:] - at[:, :1]).T
    axis.errorbar(list(groups.groups), at[:, 0], spread, elinewidth=0.8, zorder=3, **style)


def interval(draws: DataFrame, y: str) -> tuple[float, float, float]:
    """Geometric mean of `y` and its interval, of `y_low` to `y_high` where draws have these."""
    estimate, low, high = geometric_mean(draws[y])
    if f"{y}_low" in draws:
        low, high = geometric_mean(draws[f"{y}_low"])[1], geometric_mean(draws[f"{y}_high"])[2]
    return estimate, low, high


def geometric_mean(values: Series) -> tuple[float, float, float]:
    """Geometric mean and its interval, which is not drawn where one value has none."""
    found = mean(np.log(values.to_numpy(float)), _CONFIDENCE)
    ends = (found.low, found.high) if math.isfinite(found.low) else (math.nan, math.nan)
    return math.exp(found.estimate), math.exp(ends[0]), math.exp(ends[1])


def exponent(x: Series, y: Series, point: Series) -> str:
    """Slope of ln y on ln x with the half width of its interval, where it can be told."""
    numbers = point.value_counts()
    if len(numbers) < 2 or (len(numbers) == 2 and numbers.min() == 1):
        return "unknown"
    logs = (np.log(values.to_numpy(float)) for values in (x, y))
    found = slope(*logs, point.to_numpy(), _CONFIDENCE)
    return rf"${found.estimate:.2f} \pm {found.high - found.estimate:.2f}$"


def whole_numbers(low: float, high: float, steps: int = 16) -> np.ndarray:
    """Whole numbers in geometric steps, each once."""
    return np.unique(np.round(np.geomspace(low, high, steps)))


def ticks_at(axis: Axis, values: Series) -> None:
    """Ticks at these values only, on a logarithmic axis."""
    axis.set_major_locator(FixedLocator(sorted(map(float, values.unique()))))
    axis.set_major_formatter(_number)
    axis.set_minor_locator(NullLocator())


def ticks_within_decades(axis: Axis) -> None:
    """Ticks at 1, 2 and 5 of a logarithmic axis, unless it spans many decades."""
    low, high = axis.get_view_interval()
    if high < 1000 * low:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(_number)
        axis.set_minor_formatter(NullFormatter())


def _number(value: float, _: int | None = None) -> str:
    return f"{value:g}"


def label_along(
    axis: Axes, x: np.ndarray, y: np.ndarray, text: str, *, at: float = 0.5, below: bool = False
) -> None:
    """Text along a curve, at this share of its points."""
    k = min(max(round(at * len(x)), 1), len(x) - 2)
    angle = math.degrees(math.atan2(y[k + 1] - y[k - 1], x[k + 1] - x[k - 1]))
    # Not an annotation, which would be turned as if it stood at its offset.
    away = ScaledTranslation(0, (-2 if below else 2) / 72, axis.figure.dpi_scale_trans)
    axis.text(
        x[k], y[k], text, transform=axis.transData + away, rotation=angle, ha="center",
        va="top" if below else "bottom", transform_rotates_text=True, rotation_mode="anchor",
        **NOTE,
    )  # fmt: skip
