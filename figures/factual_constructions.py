"""Figures of transformers that recall facts by construction, and of edits of their facts."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator
from pandas import DataFrame

from experiments import intervals
from figures.panels import GUIDE, NOTE, ticks_at, whole_numbers
from figures.style import FULL_WIDTH, MEMORIES, shades
from memory.factual_capacity import attention_only_error

_NAMES = {
    "attention": "attention alone",
    "relu-mlp": "MLP, ReLU",
    "quadratic-mlp": "MLP, quadratic",
}
_COLORS = {
    "attention": MEMORIES["attention"],
    "relu-mlp": MEMORIES["kernel-relu"],
    "quadratic-mlp": MEMORIES["kernel-quadratic"],
}


def factual_constructions(rows: DataFrame) -> Figure:
    """Recall over the dimension and over the width, and with either memory knocked out."""
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 2.4), sharey=True)
    _recall_of_attention(axes[0], rows[rows["memory"] == "attention"])
    largest = rows[rows["memory"] == "mlp"]
    largest = largest[largest["facts"] == largest["facts"].max()]
    _recall_of_mlp(axes[1], largest)
    _knocked_out(axes[2], rows[rows["sufficient"]])
    axes[0].set(ylim=(0, 1.05), ylabel="share of facts recalled")
    return figure


def _recall_of_attention(axis: Axes, rows: DataFrame) -> None:
    groups = list(rows.groupby(["R", "D"]))
    colors = shades(len(groups)) if len(groups) > 1 else [_COLORS["attention"]]
    for ((R, D), at), color in zip(groups, colors, strict=True):
        d = whole_numbers(int(at["d"].min()), int(at["d"].max()), 40).astype(int)
        law = [1 - attention_only_error(R=int(R), D=int(D), d=int(each)) for each in d]
        axis.plot(d, law, color=color, linewidth=1)
        _means(axis, at, "d", "recall", fmt="o", color=color, label=f"$R = {R}$, $D = {D}$")
    axis.set(xscale="log", xlabel="dimension $d$", title="attention alone")
    if len(groups) == 1:
        ticks_at(axis.xaxis, rows["d"])
    axis.legend(loc="lower right", fontsize=6, handletextpad=0.2)


def _recall_of_mlp(axis: Axes, rows: DataFrame) -> None:
    for construction, at in rows.groupby("construction"):
        color = _COLORS[construction]
        law = at.groupby("size")["predicted_recall"].mean()
        axis.plot(law.index, law, color=color, linewidth=1)
        _means(axis, at, "size", "recall", fmt="o", color=color, label=_NAMES[construction])
    generic = rows.groupby("size")["generic_recall"].mean()
    axis.plot(generic.index, generic, **GUIDE, label="generic features")
    axis.set(xscale="log", xlabel="features per fact", title="attention and MLP")
    ticks_at(axis.xaxis, rows["size"])
    axis.legend(loc="lower right", fontsize=6, handletextpad=0.3)


def _knocked_out(axis: Axes, rows: DataFrame) -> None:
    columns = {"recall": "whole", "without_named": "without the named memory",
               "without_other": "without the other"}  # fmt: skip
    fills = ("full", "none", "left")
    present = [name for name in _NAMES if (rows["construction"] == name).any()]
    for place, construction in enumerate(present):
        at = rows[rows["construction"] == construction]
        guess = at["guessing"].mean()
        axis.plot([place - 0.35, place + 0.35], [guess, guess], **GUIDE)
        for shift, (column, fill) in enumerate(zip(columns, fills, strict=True)):
            if column == "without_other" and construction == "attention":
                continue  # there is no other
            found = intervals.mean(at[column].to_numpy(float), 0.95)
            half = (found.high - found.low) / 2
            axis.errorbar(
                place + 0.2 * (shift - 1), found.estimate, half if math.isfinite(half) else None,
                fmt="s", color=_COLORS[construction], fillstyle=fill, elinewidth=0.8, mew=0.8,
            )  # fmt: skip
    axis.annotate("most frequent answer", (len(present) - 1, 0.1), ha="right", **NOTE)
    axis.set(title="knocked out", xlim=(-0.5, len(present) - 0.5))
    axis.set_xticks(range(len(present)), [_NAMES[name].replace(" ", "\n", 1) for name in present],
                    fontsize=6)  # fmt: skip
    keys = [
        Line2D([], [], marker="s", linestyle="", color="0.4", fillstyle=fill, mew=0.8, label=text)
        for text, fill in zip(columns.values(), fills, strict=True)
    ]
    axis.legend(handles=keys, loc="center", fontsize=6, handletextpad=0.1)


_TRAINED = {"attention": "trained-attention", "relu-mlp": "trained-mlp"}
"""The trained transformers with the memory of a construction."""


def fact_editing(rows: DataFrame) -> Figure:
    """Other facts lost by one edit, and edits in turn until 99 % fails, over the size.

    Trained transformers, of sizes of their own, stand to the right.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.3))
    trained = rows["trained"].astype(bool)
    beyond = 1.6 * rows["size"].max()
    rows = rows.assign(place=rows["size"].where(~trained, beyond))
    for name, color in _COLORS.items():
        for kind, marker in ((name, "o"), (_TRAINED.get(name, ""), "s")):
            at = rows[rows["origin"] == kind]
            if at.empty:
                continue
            for ending, fill in (("", "full"), ("_plain", "none")):
                style = dict(color=color, fillstyle=fill, mew=0.8, linewidth=0.8)
                style |= dict(fmt=f"{marker}-" if fill == "full" else f"{marker}--")
                _means(left, at, "place", f"damage{ending}", **style)
                share = at[f"edits_until_loss{ending}"] / at["facts"]
                _means(right, at.assign(share=share), "place", "share", **style)
    left.set(ylabel="other facts lost by one edit", ylim=(-0.005, None))
    right.set(ylabel="edits in turn before 99 % fails,\nper fact", ylim=(-0.03, 1.05))
    for axis in (left, right):
        axis.set(xscale="log", xlabel="size, in units of the sufficient one")
        ticks_at(axis.xaxis, rows["size"])
        if trained.any():
            axis.xaxis.set_major_locator(FixedLocator([*sorted(rows["size"].unique()), beyond]))
            axis.xaxis.set_major_formatter(
                lambda value, _: "trained" if value == beyond else f"{value:g}"
            )
    keys = [
        Line2D([], [], color=_COLORS[name], marker="o", linestyle="", label=text)
        for name, text in _NAMES.items()
    ]
    keys += [
        Line2D([], [], color="0.4", marker="o", fillstyle=fill, linestyle=line, mew=0.8,
               linewidth=0.8, label=text)
        for text, fill, line in (
            ("second moment", "full", "-"), ("outer product", "none", "--"),
        )
    ]  # fmt: skip
    figure.legend(handles=keys, loc="outside lower center", ncols=5, fontsize=6,
                  handletextpad=0.3)  # fmt: skip
    return figure


def _means(axis: Axes, rows: DataFrame, x: str, y: str, **style: object) -> None:
    """Means of `y` at each `x` with their 95 % intervals."""
    groups = rows.groupby(x)
    found = [intervals.mean(draws[y].to_numpy(float), 0.95) for _, draws in groups]
    at = np.array([(each.estimate, each.low, each.high) for each in found])
    spread = np.where(np.isfinite(at[:, 1:]), np.abs(at[:, 1:] - at[:, :1]), np.nan).T
    axis.errorbar(list(groups.groups), at[:, 0], spread, elinewidth=0.8, zorder=3, **style)
