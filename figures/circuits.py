"""Figures of edges: toys that are learned, scores against effects, faithfulness of circuits."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter
from pandas import DataFrame, Series

from experiments.interventions.branches import RESOLUTIONS
from experiments.studies.edge_attribution import PUBLISHED_BATCH
from experiments.studies.toy_edges import LEARNED
from experiments.toys import TOYS
from figures.classifiers import SMALL
from figures.panels import GUIDE, NOTE, NothingToDrawError
from figures.style import BLOCKS, COLORS, FULL_WIDTH, SEQUENCE_MODELS, YELLOW

SEEDS = tuple(color for color in BLOCKS if color != YELLOW)
METHODS = {
    "eap": ("attribution patching", "#E69F00"),
    "inputs": ("integrated inputs", "#009E73"),
    "gates": ("integrated gates", "#0072B2"),
    "published": ("gates, published points", "#D55E00"),
}
RANKINGS = METHODS | {"exact": ("patching", "#000000")}
"""What edges are ranked by, with the effects themselves; name and colour of each."""
PUBLISHED_SHARE = 0.147
"""Of 1225 edges without positions, 180 are the published circuit of mamba-370m."""
_FAMILIES = {
    ("mamba",): ("Mamba", SEQUENCE_MODELS["mamba"]),
    ("mamba2",): ("Mamba-2", "#332288"),
}
_LINEAR = 0.01
"""Scores below are on a linear scale, those above on a logarithmic one."""


def toys(rows: DataFrame) -> Figure:
    """Accuracy on new prompts along the training, a line for each seed."""
    tasks = list(rows["task"].unique())
    figure, axes = plt.subplots(
        1, len(tasks), figsize=(3.4 if len(tasks) == 1 else FULL_WIDTH, 2.4), squeeze=False,
        sharey=True,
    )  # fmt: skip
    for axis, task in zip(axes[0], tasks, strict=True):
        for _, row in rows[rows["task"] == task].iterrows():
            line, color = _look(row["toy"])
            axis.plot(row["curve_steps"], row["curve_accuracy"], line, color=color, linewidth=0.9)
            end = row["curve_steps"][-1], row["curve_accuracy"][-1]
            axis.plot(*end, "o", color=color, markersize=2.5)
        axis.axhline(LEARNED, **GUIDE)
        axis.set(title=task, xlabel="step", ylim=(-0.03, 1.05), xlim=(0, None))
    first = axes[0, 0]
    first.annotate(f"mamba-370m: {100 * LEARNED:.0f} %", (0, LEARNED),
                   xycoords=("axes fraction", "data"), xytext=(3, -2), textcoords="offset points",
                   va="top", **NOTE)  # fmt: skip
    first.set_ylabel("accuracy")
    keys = []
    for toy in rows["toy"].unique():
        line, color = _look(toy)
        label = f"{_family(toy)[0]}, {len(TOYS[toy].layers)} blocks"
        keys.append(Line2D([], [], linestyle=line, color=color, label=label))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), **SMALL)
    return figure


def _family(toy: str) -> tuple[str, str]:
    kinds = tuple(dict.fromkeys(TOYS[toy].layers))
    return _FAMILIES.get(kinds, ("hybrid", COLORS["hybrid"]))


def _look(toy: str) -> tuple[str, str]:
    """Line and colour: of families of several depths, the deeper ones are dashed."""
    color = _family(toy)[1]
    depths = [len(other.layers) for name, other in TOYS.items() if _family(name)[1] == color]
    return "-" if len(TOYS[toy].layers) == min(depths) else "--", color


def edge_agreement(rows: DataFrame) -> Figure:
    """Scores against exact effects, a colour for each seed, and what scores add up to."""
    models = list(trained_models(rows))
    figure = plt.figure(figsize=(FULL_WIDTH, 0.2 + 2.7 * len(models)))
    lines = figure.add_gridspec(2 * len(models), len(METHODS), height_ratios=[3, 2] * len(models))
    for k, (title, at) in enumerate(models):
        shared = None
        for column, (method, (name, _)) in enumerate(METHODS.items()):
            axis = figure.add_subplot(lines[2 * k, column], sharex=shared, sharey=shared)
            shared = shared or axis
            _scatter(axis, at, method)
            axis.set_title(name, fontsize=7)
            axis.tick_params(labelleft=column == 0)
        shared.set_ylabel(f"{title}\neffect of patching", fontsize=7)
        _sums(figure.add_subplot(lines[2 * k + 1, :]), at)
    return figure


def _scatter(axis: Axes, rows: DataFrame, method: str) -> None:
    for color, (_, row) in zip(_colors(rows), rows.iterrows(), strict=True):
        x, y = row[f"scores_{method}"].ravel(), row["effects"].ravel()
        there = (x != 0) | (y != 0)  # what is no edge, or of equal sources, is 0 in both
        axis.plot(x[there], y[there], ".", color=color, markersize=2.5, markeredgewidth=0)
    ends = (-1.5, 0.3)
    axis.plot(ends, ends, color="0.6", linewidth=0.6, zorder=0)
    axis.set_xscale("symlog", linthresh=_LINEAR)
    axis.set_yscale("symlog", linthresh=_LINEAR)
    for which in (axis.xaxis, axis.yaxis):
        which.set_major_locator(FixedLocator([-1, -0.1, 0, 0.1]))
        which.set_minor_locator(NullLocator())
        which.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set(xlim=ends, ylim=ends, aspect="equal")
    axis.set_xlabel("score", fontsize=7)
    axis.tick_params(labelsize=6)
    text = "\n".join(_correlation(rows, kind, method) for kind in ("pearson", "spearman"))
    axis.text(0.04, 0.99, text, transform=axis.transAxes, va="top", **(NOTE | {"fontsize": 5.5}))


def _correlation(rows: DataFrame, kind: str, method: str) -> str:
    ends = ("", "_low", "_high")
    value, low, high = (rows[f"{kind}_{method}{end}"].mean() for end in ends)
    return f"{kind.capitalize()} {value:.2f}\n[{low:.2f}, {high:.2f}]"


def _sums(axis: Axes, rows: DataFrame) -> None:
    """Sums of the mean scores of all edges: those of published code are means over batches too."""
    sums = {name: [scores.sum() for scores in rows[f"scores_{method}"]]
            for method, (name, _) in METHODS.items()}  # fmt: skip
    sums["the same, as scaled in the code"] = [
        total / PUBLISHED_BATCH for total in sums[METHODS["published"][0]]
    ]
    for place, totals in enumerate(sums.values()):
        for aside, color, total in zip(np.linspace(-0.2, 0.2, len(rows)), _colors(rows), totals,
                                       strict=True):  # fmt: skip
            axis.plot(total, place + aside, "o", color=color, markersize=2.5)
    axis.axvline(-1, **GUIDE)
    axis.annotate("all edges patched", (-1, 0), xycoords=("data", "axes fraction"),
                  xytext=(-2, 2), textcoords="offset points", ha="right",
                  **NOTE)  # fmt: skip
    axis.set_yticks(range(len(sums)), list(sums), fontsize=6)
    axis.set(ylim=(len(sums) - 0.5, -0.5), xlim=(None, 0.05))
    axis.set_xlabel("sum of the scores", fontsize=7)
    axis.tick_params(axis="x", labelsize=6)
    keys = [Line2D([], [], linestyle="", marker="o", markersize=2.5, color=color,
                   label=f"seed {seed}")
            for color, seed in zip(_colors(rows), rows["seed"], strict=True)]  # fmt: skip
    axis.legend(handles=keys, loc="center", bbox_to_anchor=(0.82, 0.5), **SMALL)


def _colors(rows: DataFrame) -> list[str]:
    return [SEEDS[seed % len(SEEDS)] for seed in rows["seed"]]


def faithfulness(rows: DataFrame) -> Figure:
    """Logit difference and accuracy kept by circuits, over their share of the edges."""
    models = list(trained_models(rows))
    figure, axes = plt.subplots(
        len(models), 2, figsize=(FULL_WIDTH, 0.6 + 1.9 * len(models)), squeeze=False, sharex=True,
        sharey=True,
    )  # fmt: skip
    for (left, right), (title, at) in zip(axes, models, strict=True):
        shares = at["sizes"].iloc[0] / at["edges"].iloc[0]
        for method in ("exact", "eap", "inputs", "gates"):
            color = RANKINGS[method][1]
            _curves(left, shares, at[f"nld_{method}"], color)
            _curves(right, shares, at[f"accuracy_{method}"], color)
        _curves(left, shares, at["nld_random"], "0.5", "--")
        _curves(left, shares, at["nld_complement"], "0.5", ":")
        right.plot(at["share_gates"], at["random_accuracy"], "x", color="0.5")
        right.plot(at["share_gates"], at["complement_accuracy"], "+", color="0.5")
        right.plot(at["share_gates"], at["held_out_accuracy_gates"], "o",
                   color=RANKINGS["gates"][1], markersize=3)  # fmt: skip
        left.set(ylabel=f"{title}\nlogit difference kept", xscale="log", ylim=(-0.12, 1.08))
        right.set(ylabel="accuracy", xlim=(shares[1] / 1.1, 1.1))
        for axis in (left, right):
            axis.axvline(PUBLISHED_SHARE, **GUIDE)
            axis.xaxis.set_major_locator(FixedLocator([0.01, 0.03, 0.1, 0.3, 1]))
            axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
            axis.xaxis.set_minor_locator(NullLocator())
    axes[0, 0].annotate("mamba-370m", (PUBLISHED_SHARE, 0.5), xycoords=("data", "axes fraction"),
                        xytext=(2, 0), textcoords="offset points", **NOTE)  # fmt: skip
    for axis in axes[-1]:
        axis.set_xlabel("share of the edges kept")
    keys = [Line2D([], [], color=RANKINGS[method][1], label=RANKINGS[method][0])
            for method in ("exact", "eap", "inputs", "gates")]  # fmt: skip
    for marker, line, label in (("x", "--", "random edges"), ("+", ":", "all but the circuit")):
        keys.append(Line2D([], [], color="0.5", linestyle=line, marker=marker, label=label))
    keys.append(Line2D([], [], color=RANKINGS["gates"][1], linestyle="", marker="o", markersize=3,
                       label="circuit found"))  # fmt: skip
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **SMALL)
    return figure


def _curves(axis: Axes, shares: np.ndarray, seeds: Series, color: str, line: str = "-") -> None:
    """The mean over seeds, and each of them, thin; none of the edges are at no logarithm."""
    curves = np.stack(list(seeds))[:, 1:]
    axis.plot(shares[1:], curves.T, line, color=color, linewidth=0.4, alpha=0.5)
    axis.plot(shares[1:], curves.mean(axis=0), line, color=color, linewidth=1.2)


def trained_models(rows: DataFrame) -> Iterator[tuple[str, DataFrame]]:
    """Rows of every toy that has learned its task, by seed, with a title; the finest edges only.

    NothingToDrawError where none has.
    """
    learned = rows[rows["learned"].astype(bool)]
    if learned.empty:
        raise NothingToDrawError("no toy that has learned its task")
    for (toy, task), at in learned.groupby(["toy", "task"], sort=False):
        at = at[at["positional"] == at["positional"].max()]
        at = at[at["resolution"] == max(at["resolution"], key=RESOLUTIONS.index)]
        at = at[at["pairs"] == at["pairs"].max()]
        yield (toy if rows["task"].nunique() == 1 else f"{toy}, {task}"), at.sort_values("seed")
