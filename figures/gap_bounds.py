"""Panels of the bounds on the generalization gap of trained models, beside the measured gap."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from pandas import DataFrame, Series

from figures.classifiers import FEW, means
from figures.panels import GUIDE, NOTE
from figures.style import COLORS

BOUNDS = ("norm", "hybrid", "parameter", "published")
LEVEL: dict[str, Any] = GUIDE | dict(linewidth=1.0)
"""Style of what is trivial, which matters more than a guide."""
_FLOOR = -4.0
"""log10 of the gap as which gaps that are not positive are drawn."""
_FAR = 10.0
"""Exponent above which an axis of exponents is itself logarithmic."""


def draw_bounds(
    axis: Axes, rows: DataFrame, x: str, *, split: bool = True, columns: int = 1
) -> None:
    """Bounds on the gap of the ramp loss, as exponents of ten, and the measured gap.

    Filled markers are models with s_A < 0, hollow ones the others; lines are means, of both kinds
    apart if `split`. Above the panel, one of so many `columns` (0: not), the vacuous bounds.
    """
    names = _present(rows)
    stable = abscissas(rows) < 0
    for name in names:
        at = rows.assign(y=log10_bound(rows, name), stable=stable).dropna(subset=["y"])
        color = COLORS[name]
        for kind, models in at.groupby("stable"):
            axis.plot(models[x], models["y"], "o", color=color, markersize=2.2, mew=0.5, alpha=0.8,
                      mfc=color if kind else "white", zorder=2)  # fmt: skip
            if split:
                line = models.groupby(x)["y"].mean()
                axis.plot(line.index, line, "-" if kind else "--", color=color, linewidth=1)
        if not split:
            line = at.groupby(x)["y"].mean()
            axis.plot(line.index, line, color=color, linewidth=1)
    axis.axhline(0, **LEVEL)
    positive = rows.groupby(x)["ramp_gap"].mean()
    for above in (True, False):
        chosen = rows[(rows[x].map(positive) > 0) == above]
        means(
            axis, chosen, x, "ramp_gap", scale=_clipped, color=COLORS["measured"],
            fmt="o" if above else "v", mfc=COLORS["measured"] if above else "white",
            markersize=3.5 if rows[x].nunique() <= FEW else 2.0,
        )  # fmt: skip
    if not names:
        axis.annotate("no bound:\nnot a single block", (0.5, 0.6), xycoords="axes fraction",
                      ha="center", **NOTE)  # fmt: skip
    elif columns:
        axis.set_title(
            textwrap.fill(_vacuous(rows, names), max(20, 110 // columns)), fontsize=6,
            color=NOTE["color"],
        )  # fmt: skip


def exponent_ticks(axes: list[Axes]) -> None:
    """Powers of ten as ticks of axes that show exponents, logarithmic themselves far up."""
    low = min(axis.dataLim.y0 for axis in axes)
    high = max(axis.dataLim.y1 for axis in axes)
    for axis in axes:
        if high > 2 * _FAR:
            axis.set_yscale("symlog", linthresh=_FAR, linscale=2)
            far = 10.0 ** np.arange(1, math.ceil(math.log10(high)) + 1)
            axis.yaxis.set_major_locator(FixedLocator([-4, 0, 4, *far]))
        else:
            axis.yaxis.set_major_locator(MaxNLocator(7, integer=True))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(lambda value, _: f"$10^{{{value:g}}}$")
        axis.set_ylim(low - 0.6, high * 1.15 if high > 2 * _FAR else high + 0.6)


def bound_keys(rows: DataFrame, *, split: bool) -> tuple[list[Line2D], ...]:
    """Legend of `draw_bounds`: the bounds, kinds of models, measured gaps, and what is trivial."""
    titles = {"parameter": "parameter-counting", "norm": "norm-based"}
    bounds = [
        Line2D([], [], color=COLORS[name], label=f"{titles.get(name, name)} bound")
        for name in _present(rows)
    ]
    s_A = abscissas(rows)
    small: dict[str, Any] = dict(color="0.4", marker="o", markersize=2.2, mew=0.5)
    models = []
    if (s_A < 0).any():
        style = "-" if split else ""
        models.append(Line2D([], [], **small, linestyle=style, label="model, $s_A < 0$"))
    if (s_A >= 0).any():
        style = "--" if split else ""
        models.append(
            Line2D([], [], **small, linestyle=style, mfc="white", label=r"model, $s_A \geq 0$")
        )
    large: dict[str, Any] = dict(color=COLORS["measured"], linestyle="")
    measured = [
        Line2D([], [], **large, marker="o", label="measured gap, ramp loss"),
        Line2D([], [], **large, marker="v", mfc="white", label=r"measured gap $\leq 0$"),
    ]
    return bounds, models, measured, [Line2D([], [], label="trivial", **LEVEL)]


def abscissas(rows: DataFrame) -> Series:
    """s_A of the trained models, NaN for those that are no single block."""
    return rows.get("final_s_A", Series(np.nan, rows.index)).astype(float)


def log10_bound(rows: DataFrame, name: str) -> Series:
    """log10 of a bound, NaN where a model has none."""
    return rows.get(f"log10_{name}", Series(np.nan, rows.index)).astype(float)


def _present(rows: DataFrame) -> list[str]:
    return [name for name in BOUNDS if log10_bound(rows, name).notna().any()]


def _clipped(gap: float) -> float:
    """log10 of a gap, from the smallest that is drawn."""
    return max(_FLOOR, math.log10(gap)) if gap > 0 else _FLOOR


def _vacuous(rows: DataFrame, names: Iterable[str]) -> str:
    """Which bounds are trivial, for all models or how many of them."""
    found = {name: log10_bound(rows, name).dropna() >= 0 for name in names}
    all_, none = ([n for n, each in found.items() if each.mean() == k] for k in (1, 0))
    some = [
        f"{n} ({each.sum()} of {len(each)})" for n, each in found.items() if 0 < each.mean() < 1
    ]
    parts = [f"{title}: {', '.join(of)}" for title, of in (
        ("vacuous", [*all_, *some]), ("not", none)
    ) if of]  # fmt: skip
    return "; ".join(parts)
