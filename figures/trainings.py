"""Figures of trainings from unstable starts: what becomes of the loss and of the instability."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame, Series

from figures.classifiers import SMALL, TASKS, aside_style, means
from figures.panels import GUIDE, NOTE
from figures.style import COLORS, FULL_WIDTH, shades


def unstable_start(rows: DataFrame, initial: DataFrame) -> Figure:
    """Loss and s_A while training from unstable starts, and the rate of the initial loss."""
    tasks = list(rows["task"].unique())
    figure = plt.figure(figsize=(FULL_WIDTH, 3.2))
    whole = figure.add_gridspec(1, 2, width_ratios=(len(tasks), 1.1))
    grid = whole[0].subgridspec(2, len(tasks))
    beside = whole[1].subgridspec(2, 1, height_ratios=(1.25, 1))
    lengths = sorted(rows["T"].unique())
    colors = dict(zip(lengths, shades(len(lengths)), strict=True))
    left: list[Axes] = []
    for column, task in enumerate(tasks):
        top = figure.add_subplot(grid[0, column], sharey=left[0] if left else None)
        bottom = figure.add_subplot(
            grid[1, column], sharex=top, sharey=left[1] if left else None
        )  # fmt: skip
        for axis in (top, bottom):
            axis.tick_params(labelleft=not left)
        left += [] if left else [top, bottom]
        top.tick_params(labelbottom=False)
        at = rows[rows["task"] == task]
        for _, run in at.iterrows():
            color, style = colors[run["T"]], "--" if run["precision"] == "float64" else "-"
            for axis, trail in ((top, run["losses"]), (bottom, run["spectral_abscissas"])):
                _trail(axis, np.asarray(trail), run, color, style)
        top.axhline(at["guessing"].mean(), **GUIDE)
        bottom.axhline(0, **GUIDE)
        top.set(yscale="log", title=TASKS.get(task, task))
        bottom.set_xlabel("epoch")
        bottom.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    left[0].set_ylabel("training loss")
    left[1].set_ylabel("spectral abscissa $s_A$")
    law = figure.add_subplot(beside[0])
    _initial_rates(law, initial)
    below = figure.add_subplot(beside[1])
    below.axis("off")
    keys = [Line2D([], [], color=colors[T], label=f"$T = {T}$") for T in lengths]
    keys += [
        Line2D([], [], color="0.4", linestyle=style, label=f"{name} precision")
        for kind, style, name in (("float32", "-", "single"), ("float64", "--", "double"))
        if kind in set(rows["precision"])
    ]
    diverged = rows["status"] == "diverged"
    if diverged.any():
        keys.append(Line2D([], [], linestyle="", marker="X", color="0.4", mew=0, label="diverged"))
    if (~diverged & ~rows["succeeded"].astype(bool)).any():
        keys.append(
            Line2D([], [], linestyle="", marker="o", color="0.4", mfc="white", label="failed")
        )
    keys.append(Line2D([], [], label="guessing; $s_A = 0$", **GUIDE))
    below.legend(handles=keys, loc="center", fontsize=6, ncols=1 + (len(keys) > 9))
    return figure


def _trail(axis: Axes, values: np.ndarray, run: Series, color: Any, style: str) -> None:
    """One run over its epochs; a diverged one ends within the epoch in which it failed."""
    epoch = np.arange(len(values), dtype=float)
    diverged = run["status"] == "diverged"
    if diverged and len(values) > 1:
        epoch[-1] -= 0.5
    axis.plot(epoch, values, style, color=color, linewidth=0.6)
    if diverged:
        axis.plot(epoch[-1:], values[-1:], "X", color=color, mew=0, zorder=4, clip_on=False)
    elif not run["succeeded"]:
        axis.plot(epoch[-1:], values[-1:], "o", color=color, mfc="white", zorder=4, clip_on=False)


def _initial_rates(axis: Axes, initial: DataFrame) -> None:
    """Growth of the log of the initial loss per step, against two predictions of it."""
    axis.set(xscale="log", yscale="log", title="initial loss")
    axis.set(xlabel="predicted rate per step", ylabel=r"measured rate of $\ln$ loss")
    if initial.empty:  # no model grew enough
        return
    smallest = initial["rate"] / initial["share_of_smallest"]
    for rate, name, marker, text in (
        (initial["largest_step_rate"], "upper", "o", "$s_A D$"),
        (smallest, "published", "x", r"$s_A D_{\min}$, published"),
    ):
        axis.plot(rate, initial["rate"], marker, color=COLORS[name], markersize=3, label=text,
                  mew=1.0 if marker == "x" else 0)  # fmt: skip
    ends = [min(initial["rate"].min(), smallest.min()), initial["largest_step_rate"].max()]
    line = np.geomspace(*ends, 12)
    axis.plot(line, line, color="0.4", linewidth=0.8, zorder=1, label="equal")
    axis.legend(loc="lower right", borderaxespad=0, **SMALL)


def start_sweep(rows: DataFrame) -> Figure:
    """What becomes of s_A, of the growth over a sequence and of the loss, over s_A at the start."""
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 2.3))
    groups = list(rows.groupby(["task", "T"]))
    colors = ["black"] if len(groups) == 1 else shades(len(groups))
    for (_, at), color in zip(groups, colors, strict=True):
        for axis, end in zip(axes, ("s_A", "growth", "loss"), strict=True):
            for when, fill, aside in (("initial", "white", -2), ("final", color, 2)):
                if (when, end) == ("initial", "s_A"):
                    continue  # it is the other axis
                y = f"{when}_{end}"
                _scatter(axis, at, "s_A", y, color, 2.5 * aside)
                draws, scale = at[["s_A", y]], float
                if end == "loss":  # geometric means
                    draws, scale = draws.assign(**{y: np.log(draws[y])}), math.exp
                means(axis, draws, "s_A", y, scale=scale, aside=(aside, 0), fmt="o", color=color,
                       mfc=fill)  # fmt: skip
        axes[2].axhline(at["guessing"].mean(), **GUIDE)
    start = np.linspace(rows["s_A"].min(), rows["s_A"].max(), 12)
    axes[0].plot(start, start, color="0.55", linewidth=0.7, linestyle="--")
    axes[0].annotate("unchanged", (start[2], start[2]), xytext=(4, -4), va="center",
                     textcoords="offset points", **NOTE)  # fmt: skip
    for axis, value in ((axes[0], 0), (axes[1], 0), (axes[1], 5)):
        axis.axhline(value, **GUIDE)
    axes[1].annotate("$e^5$ times", (0.01, 5), xycoords=("axes fraction", "data"), xytext=(0, 2),
                     textcoords="offset points", **NOTE)  # fmt: skip
    axes[2].set(yscale="log")
    for axis, text in zip(
        axes, ("$s_A$ at the end", r"growth $s_A (\Delta_1 + \ldots + \Delta_T)$", "training loss"),
        strict=True,
    ):  # fmt: skip
        axis.set(xlabel="$s_A$ at the start", ylabel=text)
        axis.margins(x=0.1, y=0.1)
    keys = [
        Line2D([], [], linestyle="", marker="o", color=color, label=_case(*name))
        for (name, _), color in zip(groups, colors, strict=True)
    ]
    if len(groups) == 1:
        axes[1].set_title(_case(*groups[0][0]))
        keys = []
    gray: dict[str, Any] = dict(linestyle="", color="0.4")
    keys += [
        Line2D([], [], **gray, marker="o", mfc="white", label="before training: mean, 95 %"),
        Line2D([], [], **gray, marker="o", label="after training"),
        Line2D([], [], **gray, marker=".", alpha=0.5, label="run"),
        Line2D([], [], **gray, marker="X", mew=0, label="diverged run"),
        Line2D([], [], label="guessing", **GUIDE),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=6, **SMALL)
    return figure


def _case(task: str, T: int) -> str:
    return f"{TASKS.get(task, task)}, $T = {T}$"


def _scatter(axis: Axes, rows: DataFrame, x: str, y: str, color: Any, aside: float) -> None:
    """Every run, faint; diverged ones as crosses."""
    diverged = rows["status"] == "diverged"
    style = dict(color=color, mew=0) | aside_style(axis, aside)
    axis.plot(rows[x], rows[y], ".", alpha=0.35, markersize=3, **style)
    axis.plot(rows[x][diverged], rows[y][diverged], "X", markersize=4, **style)
    axis.update_datalim(rows[[x, y]].to_numpy(float))
