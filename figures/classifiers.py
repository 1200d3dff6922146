"""What figures of trained classifiers share: their names, means with intervals, legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation
from pandas import DataFrame

from experiments.intervals import mean

TASKS = {"majority": "majority", "listops": "ListOps", "reviews": "reviews"}
"""What tasks are called."""
FEW = 6
"""Values of an axis that all have a tick."""
SMALL: dict[str, Any] = dict(fontsize=6, handletextpad=0.4, columnspacing=1.0)
"""Style of legends."""


def kinds(rows: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """Kinds of models, in words, with their rows; where s_A starts is nothing to Mamba."""

    def title(model: str, s_A: float, frozen: bool, task: str) -> str:
        text = "Mamba"
        if model == "single":
            text = f"$s_A = {s_A:g}$, fixed" if frozen else f"$s_A$ trained from ${s_A:g}$"
        return text if rows["task"].nunique() == 1 else f"{TASKS.get(task, task)}: {text}"

    axes = rows[["model", "s_A", "frozen", "task"]].itertuples(index=False, name=None)
    rows = rows.assign(setting=[title(*each) for each in axes])
    rows = rows.drop_duplicates(["setting", "T", "m", "seed"])
    for setting, at in rows.groupby("setting", sort=False):
        yield str(setting), at


def means(
    axis: Axes,
    rows: DataFrame,
    x: str,
    y: str,
    *,
    scale: Callable[[float], float] = float,
    aside: tuple[float, float] = (0, 0),
    across: bool = False,
    **style: Any,
) -> None:
    """Means of `y`, on a scale, at each `x` with 95 % intervals, so many points `aside`.

    `x` is the vertical axis if `across`.
    """
    style |= dict(elinewidth=0.8, zorder=3, linestyle="") | aside_style(axis, *aside)
    for at, draws in rows.dropna(subset=[y]).groupby(x):
        found = mean(draws[y].to_numpy(float), 0.95)
        estimate = scale(found.estimate)
        spread = None
        if math.isfinite(found.low):
            spread = [[estimate - scale(found.low)], [scale(found.high) - estimate]]
        if across:
            axis.errorbar([estimate], [at], xerr=spread, **style)
        else:
            axis.errorbar([at], [estimate], yerr=spread, **style)
        below, above = (spread[0][0], spread[1][0]) if spread else (0.0, 0.0)
        ends = [(at, estimate - below), (at, estimate + above)]
        # What is drawn aside does not count towards the limits of the axes by itself.
        axis.update_datalim([end[::-1] for end in ends] if across else ends)


def aside_style(axis: Axes, right: float, up: float = 0) -> dict[str, Any]:
    """Style of markers that would hide others at their place."""
    away = ScaledTranslation(right / 72, up / 72, axis.figure.dpi_scale_trans)
    return dict(transform=axis.transData + away)


def legend_below(figure: Figure, *columns: list[Line2D]) -> None:
    """A legend below, one list of entries a column."""
    most = max(map(len, columns))
    blank = Line2D([], [], linestyle="", label=" ")
    handles = [key for column in columns for key in (*column, *[blank] * (most - len(column)))]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(columns), **SMALL)
