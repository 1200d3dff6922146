"""Figures of sequential learning: losses over steps, and what is answered on the plateau."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame, Series

from figures.panels import GUIDE, NOTE, ticks_within_decades
from figures.style import FULL_WIDTH

_LOSSES = {
    "total": ("total", "#000000"),
    "relation": ("relation only", "#0072B2"),
    "index": ("subject only", "#D55E00"),
}
_SHARES = {
    "correct": ("true", "#009E73"),
    "hallucinated": ("right relation, wrong subject", "#E69F00"),
    "other": ("wrong relation", "0.8"),
}
_PROMPTS = {
    "uniform": ("uniform", "#000000"),
    "subjects": ("power law of subjects", "#CC79A7"),
    "relations": ("power law of relations", "#56B4E9"),
}


def sequential_learning(rows: DataFrame) -> Figure:
    """Losses of flow and SGD, what they answer, and the same with other facts and prompts."""
    size = rows.iloc[0][["S", "R", "D"]]
    rows = rows[(rows[["S", "R", "D"]] == size).all(axis=1)]
    rows = rows[rows["noise"] == rows["noise"].iloc[0]]
    uniform = rows[rows["prompts"] == "uniform"]
    figure, axes = plt.subplots(
        2, 3, figsize=(FULL_WIDTH, 3.5), sharex="col", height_ratios=(1.7, 1),
        width_ratios=(1, 1, 1), squeeze=False,
    )  # fmt: skip
    structured = uniform[uniform["answers"] == "structured"]
    columns = (
        ("gradient flow", structured[structured["method"] == "flow"]),
        ("SGD, fresh prompts", structured[structured["method"] == "sgd"]),
        ("SGD, random facts",
         uniform[(uniform["answers"] == "random") & (uniform["method"] == "sgd")]),
    )  # fmt: skip
    for (top, bottom), (title, runs) in zip(axes.T, columns, strict=True):
        top.set_title(title)
        if runs.empty:
            continue
        _losses(top, runs)
        _answers(bottom, runs)
        bottom.set_xlabel("steps")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("share of answers")
    for row in axes:
        for axis in row[1:]:
            axis.sharey(row[0])
            axis.tick_params(labelleft=False)
    keys = [Line2D([], [], color=color, label=text) for text, color in _LOSSES.values()]
    keys.append(Line2D([], [], **(GUIDE | {"linestyle": "--"}), label="predicted half-loss"))
    areas = [plt.Rectangle((0, 0), 1, 1, color=color, label=text)
             for text, color in _SHARES.values()]  # fmt: skip
    figure.legend(
        handles=[*keys, *areas], loc="outside lower center", ncols=4, fontsize=6,
        handletextpad=0.5, columnspacing=1.2,
    )  # fmt: skip
    return figure


def _losses(axis: Axes, runs: DataFrame) -> None:
    for name, (_, color) in _LOSSES.items():
        _band(axis, runs, name, color, linewidth=1.5 if name == "total" else 1.0)
    first = runs.iloc[0]
    R, D, last = int(first["R"]), int(first["D"]), first["steps"][-1]
    guides = [(math.log(R * D), r"$\ln RD$")]
    if first["answers"] == "random":
        guides.append((runs["predicted_height"].mean(), r"$H(a \mid r)$"))
    guides.append((math.log(D), r"$\ln D$"))
    for height, text in guides:
        axis.axhline(height, **GUIDE)
        below = text.startswith("$H")
        axis.annotate(
            text, (last, height), xytext=(0, -2 if below else 1), textcoords="offset points",
            ha="right", va="top" if below else "bottom", **NOTE,
        )  # fmt: skip
    for name, key in (("relation", "relation"), ("subject", "index")):
        axis.axvline(
            runs[f"predicted_{name}"].mean(), color=_LOSSES[key][1], linestyle="--", linewidth=0.7
        )
    axis.set(xlim=(0, last), ylim=(0, None))


def _answers(axis: Axes, runs: DataFrame) -> None:
    """Shares of answers drawn from the model."""
    steps = runs.iloc[0]["steps"]
    correct, hallucinated = (np.mean(list(runs[name]), axis=0) for name in list(_SHARES)[:2])
    colors = [color for _, color in _SHARES.values()]
    axis.stackplot(
        steps, correct, hallucinated, 1 - correct - hallucinated, colors=colors, linewidth=0
    )
    axis.set(ylim=(0, 1))


def power_law_prompts(rows: DataFrame) -> Figure:
    """Losses with and without power laws, and when each subject is learned."""
    size = rows.iloc[0][["S", "R", "D"]]
    rows = rows[(rows[["S", "R", "D"]] == size).all(axis=1) & (rows["method"] == "flow")]
    rows = rows[rows["noise"] == rows["noise"].iloc[0]]
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 2.1))
    for axis, answers in zip(axes, ("structured", "random"), strict=False):
        chosen = rows[rows["answers"] == answers]
        for prompts, (text, color) in _PROMPTS.items():
            runs = chosen[chosen["prompts"] == prompts]
            if not runs.empty:
                _band(axis, runs, "total", color, label=text)
        axis.set(xscale="log", ylim=(0, None), xlabel="steps", title=f"{answers} facts")
        steps = chosen.iloc[0]["steps"]
        axis.set_xlim(steps[-1] / 40, max(run[-1] for run in chosen["steps"]))
    axes[0].set_ylabel("loss (nats)")
    _subjects(axes[2], rows[rows["prompts"] == "subjects"])
    figure.legend(handles=axes[0].get_lines(), loc="outside lower center", ncols=3, fontsize=6)
    return figure


def _subjects(axis: Axes, rows: DataFrame) -> None:
    """Half-loss time of each subject over its probability, beside the exact time alone."""
    for (answers, runs), marker in zip(rows.groupby("answers", sort=False), "so", strict=False):
        hollow = answers == "structured"
        axis.plot(
            np.concatenate(list(runs["probabilities"])),
            np.concatenate(list(runs["half_of_subject"])), marker,
            color=_PROMPTS["subjects"][1], label=f"{answers} facts",
            fillstyle="none" if hollow else "full", mew=0.8, zorder=3 if hollow else 2,
        )  # fmt: skip
    if not rows.empty:
        first = rows.iloc[0]
        p = first["probabilities"]
        axis.plot(p, first["predicted_subject"] / (first["S"] * p), color="0.4", linewidth=0.8,
                  label=r"$\propto 1/p_s$, predicted", zorder=0)  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="probability of the subject $p_s$",
             title="steps to half loss, by subject")  # fmt: skip
    ticks_within_decades(axis.xaxis)
    ticks_within_decades(axis.yaxis)
    axis.legend(loc="upper right", fontsize=6)


def _band(axis: Axes, runs: DataFrame, name: str, color: Any, **style: Any) -> None:
    """The mean of a curve over runs, within their range."""
    curves = _aligned(runs[name], runs["steps"])
    steps = runs.iloc[0]["steps"]
    axis.plot(steps, curves.mean(0), color=color, **style)
    if len(curves) > 1:
        axis.fill_between(steps, curves.min(0), curves.max(0), color=color, alpha=0.25, lw=0)


def _aligned(values: Series, steps: Series) -> np.ndarray:
    first = steps.iloc[0]
    return np.array([np.interp(first, at, run) for at, run in zip(steps, values, strict=True)])
