"""Figures of trained factual recall: capacities, and attention against the MLP."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator
from pandas import DataFrame, Series

from experiments import intervals
from figures.panels import GUIDE, NOTE, exponent, label_along, points, ticks_within_decades
from figures.style import FULL_WIDTH, shades
from memory.information import BITS_PER_PARAMETER, facts_limit, factual_recall_bits

_SCALINGS = {
    "answers-fixed": ("$R = S$, $D = {D}$", "o", "#0072B2"),
    "relations-square-root": (r"$R = \sqrt{{S}}$, $D = {D}$", "s", "#D55E00"),
    "answers-distinct": ("$R = D = S$", "^", "#009E73"),
}
"""Legend, marker and colour."""
_FACTS_PER_PARAMETER = 0.15
"""Of the published guide line."""
_ERROR = 0.01
_SHAPE = ["head_ratio", "mlp_ratio"]
_SETTINGS = ["D", "length", "max_steps", "batch_size", "train_embeddings", "heads"]
_APART = 0.05
"""Relative distance at which markers of one size are drawn beside each other."""

_BOUNDARY = 0.99
_GUIDE_RATE = 4
"""Attention parameters of an MLP parameter on the published guide line."""
_COLUMNS = 7
"""Of a legend within a panel."""
_TASK = ["S", "D", "length", "max_steps", "batch_size", "learning_rate", "train_embeddings", "d",
         "head_dim"]  # fmt: skip
_MAPS = {
    "accuracy": "whole model",
    "accuracy_without_mlp": "MLP knocked out",
    "accuracy_without_attention": "direct path knocked out",
}


def factual_recall_capacity(rows: DataFrame) -> Figure:
    """Facts over parameters and bits per parameter; a panel per scaling if shapes differ."""
    rows = _first(rows, _SETTINGS)
    scalings = [name for name in _SCALINGS if (rows["scaling"] == name).any()]
    if len(rows[_SHAPE].drop_duplicates()) > 1:
        return _capacity_by_shape(rows, scalings)
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.7))
    for place, name in enumerate(scalings):
        at = rows[rows["scaling"] == name]
        text, marker, color = _SCALINGS[name]
        style = dict(fmt=marker, color=color)
        shift = 1 + _APART * (place - (len(scalings) - 1) / 2)
        beside = at.assign(parameters=at["parameters"] * shift)
        points(axes[0], beside, "parameters", "facts", **style)
        points(axes[1], beside, "parameters", "density", **style)
        text = f"{text.format(D=int(at['D'].iloc[0]))}: slope {_slope(at)}"
        axes[0].plot([], [], marker, color=color, label=text)
    for axis in axes:
        axis.set(xscale="log", yscale="log", xlabel="parameters $4 H d_h d + 2 m d$")
        ticks_within_decades(axis.xaxis)
    axes[0].set(ylabel=r"facts $S R$, 99 % recalled")
    axes[1].set(ylabel="bits per parameter")
    _facts_guides(axes[0], rows, scalings, labelled=True)
    _density_guides(axes[1], rows, labelled=True)
    figure.legend(
        handles=axes[0].get_legend_handles_labels()[0], loc="outside lower center", ncols=3,
        fontsize=6, handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip
    return figure


def _capacity_by_shape(rows: DataFrame, scalings: Sequence[str]) -> Figure:
    """As in the published appendix: a column per scaling, colours and markers by shape."""
    figure, axes = plt.subplots(
        2, len(scalings), figsize=(FULL_WIDTH, 4.0), sharex=True, sharey="row", squeeze=False
    )
    widths, sizes = (sorted(rows[name].unique()) for name in ("mlp_ratio", "head_ratio"))
    colors = dict(zip(widths, shades(len(widths)), strict=True))
    markers = dict(zip(sizes, "os^DPX<>*", strict=False))
    places = len(widths) * len(sizes)
    for (top, bottom), name in zip(axes.T, scalings, strict=True):
        at = rows[rows["scaling"] == name]
        for place, ((size, width), shape) in enumerate(at.groupby(_SHAPE)):
            shift = 1 + _APART * (place / max(1, places - 1) - 0.5)
            shape = shape.assign(parameters=shape["parameters"] * shift)
            style: dict[str, Any] = dict(
                fmt=markers[size],
                color=colors[width],
                markersize=2.6,
                ecolor=(*colors[width][:3], 0.4),
            )
            points(top, shape, "parameters", "facts", **style)
            points(bottom, shape, "parameters", "density", **style)
        text = _SCALINGS[name][0].format(D=int(at["D"].iloc[0]))
        top.set_title(f"{text}\nslope {_slope(at)}", fontsize=7)
        top.set(xscale="log", yscale="log")
        bottom.set(yscale="log", xlabel="parameters")
    for (top, bottom), name in zip(axes.T, scalings, strict=True):
        _facts_guides(top, rows, [name], labelled=name == scalings[0])
        _density_guides(bottom, rows, labelled=name == scalings[0])
        if rows["parameters"].max() < 20 * rows["parameters"].min():  # or labels would overlap
            ticks_within_decades(top.xaxis)
    axes[0, 0].set_ylabel("facts $S R$, 99 % recalled")
    axes[1, 0].set_ylabel("bits per parameter")
    keys = [Line2D([], [], marker="s", linestyle="", color=color, label=f"$m = {_times_d(width)}$")
            for width, color in colors.items()]  # fmt: skip
    keys += [
        Line2D(
            [], [], marker=marker, linestyle="", color="0.4", label=f"$H d_h = {_times_d(size)}$"
        )
        for size, marker in markers.items()
    ]
    figure.legend(
        handles=keys, loc="outside lower center", ncols=min(len(keys), 9), fontsize=6,
        handletextpad=0.1, columnspacing=1.0,
    )  # fmt: skip
    return figure


def _times_d(ratio: float) -> str:
    return {0: "0", 1: "d"}.get(ratio, f"{ratio:g}d")


def _slope(at: DataFrame) -> str:
    """Exponent of facts in parameters, over all sizes and shapes."""
    names = ["d", *_SHAPE]
    sizes = at[names].astype(str).agg(" ".join, axis=1)
    return exponent(at["parameters"], at["facts"], sizes)


def _facts_guides(axis: Axes, rows: DataFrame, scalings: Sequence[str], *, labelled: bool) -> None:
    """The published guide line, and what 2 and all 32 bits of each parameter could hold."""
    low, high = rows["parameters"].min() / 1.2, rows["parameters"].max() * 1.2
    at = np.geomspace(low, high, 24)
    curves = [(_FACTS_PER_PARAMETER * at, "0.15 facts per parameter", "0.55", "--")]
    distinct = [name == "answers-distinct" for name in scalings]
    D = int(rows["D"].iloc[0])
    for bits, text in (
        (BITS_PER_PARAMETER, "2 bits per parameter"),
        (32, "information limit, 32 bits"),
    ):
        if not all(distinct):
            curves.append((_most(bits * at, D), text, "0.55", ":"))
        if any(distinct):
            alone = all(distinct)
            color = "0.55" if alone else _SCALINGS["answers-distinct"][2]
            curves.append((_most(bits * at, None), text if alone else "", color, ":"))
    axis.set(xlim=(low, high), ylim=(rows["facts"].min() / 2, 2 * max(c[0][-1] for c in curves)))
    for y, text, color, style in curves:
        axis.plot(at, y, **(GUIDE | {"color": color, "linestyle": style, "zorder": 0}))
        if text and labelled:
            label_along(axis, at, y, text, at=0.3)


def _most(bits: np.ndarray, D: int | None) -> np.ndarray:
    """Facts that so many bits hold at most; D=None: of S relations with S answers each."""
    if D is not None:
        return np.array([float(facts_limit(bits=each, M=D, error=_ERROR)) for each in bits])
    S, needed = [2], [0.0]
    while needed[-1] < bits[-1]:
        S.append(math.ceil(1.1 * S[-1]))
        needed.append(float(factual_recall_bits(S=S[-1], R=S[-1], D=S[-1], error=_ERROR)))
    return np.exp(np.interp(np.log(bits), np.log(needed[1:]), 2 * np.log(S[1:])))


def _density_guides(axis: Axes, rows: DataFrame, *, labelled: bool) -> None:
    axis.axhline(BITS_PER_PARAMETER, zorder=0, **GUIDE)
    low, high = rows["parameters"].min() / 1.2, rows["parameters"].max() * 1.2
    axis.set(xlim=(low, high), ylim=(min(0.05, rows["density"].min() / 2), 3.2))
    if labelled:
        axis.annotate(
            "2 bits per parameter (language models)", (low, BITS_PER_PARAMETER), xytext=(3, 2),
            textcoords="offset points", **NOTE,
        )  # fmt: skip


def factual_trade_off(rows: DataFrame) -> Figure:
    """Accuracy over the parameters of attention and MLP, also with either knocked out."""
    rows = _first(rows, _TASK)
    figure, axes = plt.subplots(2, 2, figsize=(FULL_WIDTH, 4.8))
    whole, mlp, rates, attention = axes.flat
    for axis, (column, title) in zip((whole, mlp, attention), _MAPS.items(), strict=True):
        mesh = _heat_map(axis, rows, column)
        axis.set_title(title, pad=4)
        axis.set_xlabel("attention parameters $4 H d_h d$")
        _name_sizes(axis, rows)
        if axis is attention:
            bar = figure.colorbar(mesh, ax=[mlp, attention], pad=0.02, aspect=40)
            bar.set_label("accuracy", fontsize=7)
    whole.set_ylabel("MLP parameters $2 m d$")
    for axis in (mlp, attention):
        axis.tick_params(left=False, labelleft=False)
    _trade(whole, rows)
    _rates(rates, rows)
    return figure


def _heat_map(axis: Axes, rows: DataFrame, column: str) -> QuadMesh:
    """Means over draws in cells about the sizes; hatched where there are none."""
    values = _means(rows, column)
    heads, widths = _edges(values.columns), _edges(values.index)
    mesh = axis.pcolormesh(
        heads, widths, values.to_numpy(float), vmin=0, vmax=1, cmap="viridis", rasterized=True
    )
    for row, column_ in zip(*np.nonzero(values.isna().to_numpy()), strict=True):
        corner = heads[column_], widths[row]
        size = heads[column_ + 1] - heads[column_], widths[row + 1] - widths[row]
        axis.add_patch(
            Rectangle(corner, *size, facecolor="0.95", edgecolor="0.7", hatch="////", linewidth=0)
        )
    axis.set(xlim=(heads[0], heads[-1]), ylim=(widths[0], widths[-1]))
    for side in ("top", "right"):
        axis.spines[side].set_visible(True)
    axis.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axis.tick_params(labelsize=6)
    return mesh


def _means(rows: DataFrame, column: str) -> DataFrame:
    """Means over the draws, a row for every size of the MLP, a column for each of attention."""
    if column not in rows:
        rows = rows.assign(**{column: math.nan})
    return rows.pivot_table(
        index="mlp_parameters", columns="attention_parameters", values=column, dropna=False
    )


def _trade(axis: Axes, rows: DataFrame) -> None:
    """Heads and widths, lines of equal totals, the boundary of 99 % and the published slope."""
    values = _means(rows, "accuracy")
    heads, widths = _edges(values.columns), _edges(values.index)
    limits = dict(xlim=axis.get_xlim(), ylim=axis.get_ylim())
    largest = heads[-1] + widths[-1]
    for total in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(0, largest):
        axis.plot([0, total], [total, 0], color="0.3", linewidth=0.6, linestyle=":")
    good = (values >= _BOUNDARY).to_numpy()
    axis.add_collection(
        LineCollection(_between(good, heads, widths), colors="black", linewidths=1.4)
    )
    start = _enough(values)
    if start is not None:
        attention, mlp = start
        ends = np.array([0, attention])
        axis.plot(ends, mlp + (attention - ends) / _GUIDE_RATE, color="#D55E00", linewidth=1.2)
    axis.set(**limits)


def _name_sizes(axis: Axes, rows: DataFrame) -> None:
    """Heads and widths at the sides opposite to the parameters."""
    for name, parameters, label in (
        ("heads", "attention_parameters", "heads $H$"),
        ("width", "mlp_parameters", "width $m$"),
    ):
        at = rows.groupby(parameters)[name].first()
        across = name == "heads"
        limits = axis.get_xlim() if across else axis.get_ylim()
        shown = _legible(at.index.to_numpy(float), 0.045 * (limits[1] - limits[0]))
        other = axis.secondary_xaxis("top") if across else axis.secondary_yaxis("right")
        ticks = other.xaxis if across else other.yaxis
        ticks.set_ticks(list(at.index[shown]), [f"{size:g}" for size in at.iloc[shown]])
        ticks.set_minor_locator(NullLocator())
        ticks.set_label_text(label, fontsize=7)
        ticks.labelpad = 3
        other.tick_params(labelsize=6, length=2, pad=1)


def _legible(at: np.ndarray, distance: float) -> list[int]:
    """Those that lie at least so far beyond the last one."""
    shown = [0]
    for index, place in enumerate(at):
        if place - at[shown[-1]] >= distance:
            shown.append(index)
    return shown


def _between(good: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[list[tuple[float, float]]]:
    """Edges between cells of which one is good."""
    lines = [
        [(x[j + 1], y[i]), (x[j + 1], y[i + 1])]
        for i, j in zip(*np.nonzero(good[:, 1:] != good[:, :-1]), strict=True)
    ]
    lines += [
        [(x[j], y[i + 1]), (x[j + 1], y[i + 1])]
        for i, j in zip(*np.nonzero(good[1:] != good[:-1]), strict=True)
    ]
    return lines


def _enough(values: DataFrame) -> tuple[float, float] | None:
    """The smallest attention that recalls 99 % with the narrowest MLP with which any does."""
    for mlp, row in values.iterrows():
        enough = row.index[row >= _BOUNDARY]
        if len(enough):
            return float(enough[0]), float(mlp)  # pyright: ignore[reportArgumentType]
    return None


def _rates(axis: Axes, rows: DataFrame) -> None:
    """Attention parameters that an MLP parameter replaces, with intervals over the draws."""
    rows = rows[rows["exchange_rate"].notna()]
    for rate in (1, _GUIDE_RATE):
        axis.axhline(rate, zorder=0, **GUIDE)
    axis.set(
        xlabel="width $m$",
        ylabel="attention parameters replaced\nby an MLP parameter",
        title="exchange rate",
    )
    if rows.empty:
        axis.annotate("none in range", (0.5, 0.5), xycoords="axes fraction", ha="center", **NOTE)
        return
    widths, heads = (sorted(rows[name].unique()) for name in ("width", "heads"))
    colors = dict(zip(heads, shades(len(heads)), strict=True))
    low, high = -0.5, _GUIDE_RATE + 0.5
    for (head, width), draws in rows.groupby(["heads", "width"]):
        found = intervals.mean(draws["exchange_rate"].to_numpy(float), 0.95)
        half = found.high - found.estimate
        within = (heads.index(head) + 0.5) / len(heads) - 0.5
        carried = bool(draws["carried"].any())
        inside = low <= found.estimate <= high
        axis.errorbar(
            widths.index(width) + 0.7 * within, min(max(found.estimate, low), high),
            half if inside and math.isfinite(half) else None,
            fmt="o" if inside else "v" if found.estimate < low else "^", color=colors[head],
            mfc=colors[head] if carried else "white", mew=0.7, markersize=2.8, elinewidth=0.7,
            clip_on=inside,
        )  # fmt: skip
    room = 0.4 * math.ceil(len(heads) / _COLUMNS) + 0.8
    axis.set(ylim=(low, high + room), xlim=(-0.6, len(widths) - 0.4))
    axis.set_yticks(range(_GUIDE_RATE + 1))
    axis.set_xticks(range(len(widths)), [f"{width:g}" for width in widths], fontsize=6)
    keys = [
        Line2D([], [], marker="o", linestyle="", color=color, label=f"{head:g}")
        for head, color in colors.items()
    ]
    axis.legend(
        handles=keys, title="heads", title_fontsize=6, fontsize=6, loc="upper center",
        ncols=min(len(keys), _COLUMNS), handletextpad=0.0, columnspacing=0.8, borderaxespad=0.0,
        frameon=True, framealpha=1, facecolor="white", edgecolor="none",
    )  # fmt: skip


def _edges(centres: Any) -> np.ndarray:
    """Edges of cells about these sizes, halfway between them."""
    at = np.asarray(centres, dtype=float)
    if len(at) < 2:
        half = at[0] / 2 or 0.5
        return np.array([at[0] - half, at[0] + half])
    middle = (at[1:] + at[:-1]) / 2
    return np.concatenate([[2 * at[0] - middle[0]], middle, [2 * at[-1] - middle[-1]]])


def _first(rows: DataFrame, columns: Sequence[str]) -> DataFrame:
    """Rows with the settings of the first."""
    first: Series = rows.iloc[0][list(columns)]
    return rows[(rows[list(columns)] == first).all(axis=1)]
