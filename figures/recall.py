"""Figures of associative recall: which models recall, by which mechanism, when and by what."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import fill
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from experiments.published_recall import ACCURACIES, KEYS, PAIRS
from figures.classifiers import SMALL, means
from figures.panels import GUIDE, NOTE, ticks_at
from figures.style import FULL_WIDTH, SEQUENCE_MODELS, family

SOLVED = 0.9
"""Accuracy from which on the mechanism of a model is compared."""
POSITIONS = {
    "key": "key", "value": "value", "next_key": "next key", "next_value": "next value",
    "divider": "divider", "query": "query", "answer": "answer",
}  # fmt: skip
COMPONENTS = {
    "block_input": "block input", "mixer_input": "mixer input", "mixer_output": "mixer output",
    "mlp_input": "MLP input", "mlp_output": "MLP output", "block_output": "block output",
    "mixer.conv": "convolution", "mixer.delta": r"step $\Delta$", "mixer.B": "$B$",
    "mixer.C": "$C$", "mixer.q": "$q$", "mixer.k": "$k$", "mixer.v": "$v$",
    "mixer.beta": r"$\beta$", "mixer.write.{t}": "write", "mixer.h.{t}": "state",
    "mixer.h_read.{t}": "state, as read",
}  # fmt: skip
"""Last and last but one axis of a table's attributions, in words."""
_DRAWN_ORDER = (0, 1, *range(6, len(COMPONENTS)), 2, 3, 4, 5)
"""Of components: what is inside a mixer, between its input and its output."""
_ALWAYS = (0, 1, 2, 5)
"""Components that every layer has."""
DEFAULT_WIDTHS = {"mamba": "4", "based": "3", "delta-net": "4"}
"""Of the short convolutions of architectures that are named without one."""
_WIDTHS = ("0", "1", "2", "3", "4", "long")
_CORNERS = {
    "at_query": (0.0, 0.0, "query:\ndirect retrieval early"),
    "at_key": (1.0, 0.0, "key:\ndirect retrieval late"),
    "at_value": (0.5, math.sqrt(0.75), "value: induction"),
}
_CURVES = {
    "accuracy": ("accuracy", "#000000"),
    "at_value": ("restored at the value", "#D55E00"),
    "at_query": ("at the query", "#0072B2"),
    "at_key": ("at the key", "#009E73"),
}
_CARRIED: dict[str, dict[str, Any]] = {
    "sufficient": dict(fmt="o"), "necessary": dict(fmt="s", mfc="white"),
}  # fmt: skip
_TASK = ("num_pairs", "num_keys", "max_steps", "batch_size", "mlp")
_RESTORED = "YlGnBu"


def recall_accuracy(rows: DataFrame) -> Figure:
    """Accuracy by architecture, or over the width where there are several; a panel per depth."""
    rows = _largest(rows, _TASK)
    looks, depths = _looks(rows), sorted(rows["layers"].unique())
    by_width = rows["d"].nunique() > 1
    height = 2.8 if by_width else 0.8 + 0.15 * len(looks)
    figure, axes = plt.subplots(
        1, len(depths), figsize=(FULL_WIDTH, height), sharex=True, sharey=True, squeeze=False
    )
    guides = {"any value of the document": (rows["chance"].mean(), ":"),
              "any value": (1 / rows["num_keys"].iloc[0], "--")}  # fmt: skip
    for axis, depth in zip(axes[0], depths, strict=True):
        at = rows[rows["layers"] == depth]
        axis.set_title(f"{depth} layer{'s' if depth > 1 else ''}")
        for share, line in guides.values():
            (axis.axhline if by_width else axis.axvline)(share, **(GUIDE | {"linestyle": line}))
        (_over_widths if by_width else _by_architecture)(axis, at, looks)
    keys = [Line2D([], [], label=text, **(GUIDE | {"linestyle": line}))
            for text, (_, line) in guides.items()]  # fmt: skip
    if by_width:
        axes[0, 0].set_ylabel("accuracy")
        keys = [*_keys(looks, linewidth=0.8), *keys]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(len(keys), 4), **SMALL)
    return figure


def _over_widths(axis: Axes, rows: DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for name, look in looks.items():
        at = rows[rows["architecture"] == name]
        average = at.groupby("d")["accuracy"].mean()
        axis.plot(average.index, average, color=look["color"], linewidth=0.8)
        means(axis, at, "d", "accuracy", **look)
        if (rows["num_pairs"].iloc[0], rows["num_keys"].iloc[0]) == (PAIRS, KEYS):
            _published(axis, name, at, look)
    axis.set(xscale="log", ylim=(-0.03, 1.05), xlabel="width $d$")
    ticks_at(axis.xaxis, rows["d"])


def _published(axis: Axes, name: str, rows: DataFrame, look: dict[str, Any]) -> None:
    """The published accuracies of the same task and sizes, hollow."""
    sizes = rows[["layers", "d"]].drop_duplicates().itertuples(index=False, name=None)
    found = [(d, ACCURACIES.get((name, layers, d))) for layers, d in sizes]
    for d, share in found:
        if share is not None:
            axis.plot(d, share, linestyle="", mfc="none", markersize=5, mew=0.7, **look)


def _by_architecture(axis: Axes, rows: DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    for place, (name, look) in enumerate(looks.items()):
        at = rows[rows["architecture"] == name].assign(place=place)
        axis.plot(at["accuracy"], at["place"], "|", color=look["color"], markersize=5, mew=0.8)
        means(axis, at, "place", "accuracy", across=True, **(look | {"marker": "o"}))
    axis.set(xlim=(-0.03, 1.05), ylim=(len(looks) - 0.5, -0.5), xlabel="accuracy")
    axis.set_yticks(range(len(looks)), list(looks), fontsize=6)


def recall_attribution(rows: DataFrame) -> Figure:
    """What every component restores at every position: a panel per architecture."""
    rows = _of_one_size(rows)
    names = list(_looks(rows))
    grids = {name: _grid(rows[rows["architecture"] == name]) for name in names}
    depth = max(len(grid) for grid in grids.values())
    shown = [
        (layer, component)
        for layer in range(depth)
        for component in _DRAWN_ORDER
        if any(np.isfinite(grid[layer, component]).any() for grid in grids.values())
    ] or [(layer, component) for layer in range(depth) for component in _ALWAYS]
    bands = math.ceil(len(names) / 6)
    columns = math.ceil(len(names) / bands)
    lines = len(shown) + depth
    figure, axes = plt.subplots(
        bands, columns, figsize=(FULL_WIDTH, 0.5 + bands * (0.8 + 0.09 * lines)), sharey=True,
        squeeze=False,
    )  # fmt: skip
    for axis, name in zip(axes.flat, names, strict=False):
        _heat_map(axis, grids[name], shown)
        accuracy = rows[rows["architecture"] == name]["accuracy"].mean()
        axis.set_title(f"{fill(name, 16)}\n{accuracy:.2f}", fontsize=6, linespacing=1)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, 1), _RESTORED), ax=axes, extend="both", location="bottom",
        aspect=40, shrink=0.6,
    )  # fmt: skip
    bar.set_label("share of the probability of the answer that is restored", fontsize=7)
    bar.ax.tick_params(labelsize=6)
    return figure


def _grid(rows: DataFrame) -> np.ndarray:
    """Means over the models that have a ratio; NaN where none has."""
    stacked = np.stack([np.asarray(grid, float) for grid in rows["grid_ratio"]])
    return np.ma.masked_invalid(stacked).mean(axis=0).filled(np.nan)


def _heat_map(axis: Axes, grid: np.ndarray, shown: Sequence[tuple[int, int]]) -> None:
    """Rows by layer and component, below a line for each layer; hatched without a ratio.

    Components that the model has not are blank, unless it has no ratio at all.
    """
    labels, headings, values = [], [], []
    for k, (layer, component) in enumerate(shown):
        if not k or layer != shown[k - 1][0]:
            headings.append(len(labels))
            labels.append(rf"$\bf{{layer\ {layer + 1}}}$")
            values.append(np.full(len(POSITIONS), np.nan))
        labels.append(list(COMPONENTS.values())[component])
        values.append(grid[layer, component])
    cells = np.array(values)
    none = not np.isfinite(cells).any()
    axis.pcolormesh(cells, vmin=0, vmax=1, cmap=_RESTORED, rasterized=True)
    hatched = [
        Rectangle((column, line), 1, 1)
        for line, row in enumerate(cells)
        if line not in headings and (none or np.isfinite(row).any())
        for column in np.flatnonzero(np.isnan(row))
    ]
    axis.add_collection(
        PatchCollection(hatched, facecolor="0.95", edgecolor="0.7", hatch="////", linewidth=0)
    )
    axis.set(xlim=(0, len(POSITIONS)), ylim=(len(cells), 0))
    axis.set_xticks(np.arange(len(POSITIONS)) + 0.5, list(POSITIONS.values()), rotation=90)
    axis.set_yticks(np.arange(len(cells)) + 0.5, labels)
    axis.tick_params(labelsize=5.5, length=0, pad=1)
    axis.spines[:].set_visible(False)


def recall_mechanism(rows: DataFrame) -> Figure:
    """Where the second layer's input restores the answer, of key, query and value: a triangle."""
    rows = rows[rows["layers"] > 1]
    looks = _looks(rows)
    figure, axis = plt.subplots(figsize=(FULL_WIDTH, 3.1))
    places = np.array([corner[:2] for corner in _CORNERS.values()])
    for level in (0.25, 0.5, 0.75):
        for k in range(3):
            ends = [level * places[k] + (1 - level) * places[(k + side) % 3] for side in (1, 2)]
            axis.plot(*np.transpose(ends), **(GUIDE | {"linewidth": 0.5}), zorder=0)
    axis.plot(*np.vstack([places, places[:1]]).T, color="0.3", linewidth=0.6, zorder=1)
    for x, y, text in _CORNERS.values():
        axis.text(x, y + (0.05 if y else -0.06), text, ha="center", fontsize=7,
                  va="bottom" if y else "top")  # fmt: skip
    shares = _shares(rows)
    told = np.isfinite(shares).all(axis=1)
    models = rows[told]
    for (_, model), place in zip(
        models.iterrows(), _apart(shares[told] @ places, 0.026), strict=True
    ):
        look = looks[model["architecture"]]
        hollow = {} if model["accuracy"] >= SOLVED else {"markerfacecolor": "white"}
        axis.plot(*place, **(look | hollow), linestyle="", markersize=3, mew=0.7, zorder=3)
    axis.set(xlim=(-0.25, 1.25), ylim=(-0.17, 0.97), aspect="equal")
    axis.axis("off")
    keys = _keys(looks, linestyle="", markersize=3.5)
    keys.append(Line2D([], [], marker="o", mfc="white", color="0.4", linestyle="", mew=0.7,
                       label=f"accuracy below {SOLVED:g}"))  # fmt: skip
    figure.legend(handles=keys, loc="outside right center", title=f"{len(models)} models shown, "
                  f"{len(rows) - len(models)} not", title_fontsize=6, **SMALL)  # fmt: skip
    return figure


def _shares(rows: DataFrame) -> np.ndarray:
    """Attributions at query, key and value, those below 0 taken as 0, as shares of their sum.

    NaN where there are none, or they sum to less than 1/2: then it is none of the three.
    """
    known = rows.reindex(columns=list(_CORNERS)).to_numpy(float).clip(min=0)
    total = known.sum(axis=1, keepdims=True)
    return known / np.where(total >= 0.5, total, np.nan)


def _apart(places: np.ndarray, distance: float) -> np.ndarray:
    """The places, each moved as little as keeps it so far from those before it, in the triangle."""
    turns = np.arange(100 * len(places))  # at a corner, a marker hides about 70
    angles = turns * math.pi * (3 - math.sqrt(5))  # a sunflower
    spiral = 0.3 * distance * np.sqrt(turns)[:, None] * np.c_[np.cos(angles), np.sin(angles)]
    settled = np.empty((0, 2))
    for k, place in enumerate(places):
        candidates = place + spiral[: 100 * (k + 1)]
        x, y = candidates.T
        sides = np.stack([y, math.sqrt(3) * x - y, math.sqrt(3) * (1 - x) - y])
        candidates = candidates[(sides > -1e-9).all(axis=0)]
        gaps = np.linalg.norm(candidates[:, None] - settled, axis=-1)
        settled = np.vstack([settled, candidates[(gaps >= distance).all(axis=1).argmax()]])
    return settled


def recall_dynamics(rows: DataFrame) -> Figure:
    """Accuracy and what the second layer's input restores while training, a line per seed."""
    rows = _of_one_size(rows)
    names = list(_looks(rows))
    bands = math.ceil(len(names) / 5)
    columns = math.ceil(len(names) / bands)
    figure, axes = plt.subplots(
        bands, columns, figsize=(FULL_WIDTH, 0.5 + 1.3 * bands), sharey=True, squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for _, run in rows[rows["architecture"] == name].iterrows():
            for curve, (_, color) in _CURVES.items():
                values = run.get(f"curve_{curve}")
                if isinstance(values, np.ndarray):  # models of one layer have accuracies alone
                    axis.plot(run["curve_steps"], values, ".-", color=color, linewidth=0.6,
                              markersize=1.5, alpha=0.8)  # fmt: skip
        axis.axhline(0.5, zorder=0, **GUIDE)
        axis.set_title(fill(name, 20), fontsize=6, linespacing=1)
        axis.set_xlabel("steps", fontsize=7)
        axis.set(ylim=(-0.1, 1.15), xlim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(3, integer=True))
        axis.tick_params(labelsize=6)
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    for axis in axes[:, 0]:
        axis.set_ylabel("share", fontsize=7)
    keys = [Line2D([], [], color=color, label=text) for text, color in _CURVES.values()]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **SMALL)
    return figure


def recall_convolution(rows: DataFrame) -> Figure:
    """Accuracy over the width of short convolutions, and what they carry where models recall."""
    rows = _of_one_size(rows)
    rows = rows.reindex(columns=list(dict.fromkeys([*rows, *_CARRIED])))
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.2), sharex=True)
    for share, line in ((rows["chance"].mean(), ":"), (1 / rows["num_keys"].mean(), "--")):
        left.axhline(share, zorder=0, **(GUIDE | {"linestyle": line}))
    rows = rows.assign(width=rows["architecture"].map(_width)).dropna(subset=["width"])
    kinds = rows["architecture"].map(family)
    families = [name for name in DEFAULT_WIDTHS if (kinds == name).any()]
    for k, name in enumerate(families):
        at = rows[kinds == name]
        center = 6 * (k - (len(families) - 1) / 2)
        style: dict[str, Any] = dict(color=SEQUENCE_MODELS[name], mew=0.8)
        means(left, at, "width", "accuracy", aside=(center, 0), fmt="o", **style)
        solved = at[at["accuracy"] >= SOLVED]
        for shift, (column, look) in zip((-2, 2), _CARRIED.items(), strict=True):
            means(right, solved, "width", column, aside=(center + shift, 0), **look, **style)
    if not (rows["accuracy"] >= SOLVED).any():
        right.annotate("none recalls", (0.5, 0.5), xycoords="axes fraction", ha="center", **NOTE)
    for axis, title in ((left, "accuracy"), (right, "carried by its output behind the key")):
        axis.set(title=title, xlabel="width of the convolution", ylim=(-0.05, 1.1))
        axis.set_xticks(range(len(_WIDTHS)), _WIDTHS)
        axis.set_xlim(-0.5, len(_WIDTHS) - 0.5)
    left.set_ylabel("share of the answers")
    right.set_ylabel("share of the probability")
    gray: dict[str, Any] = dict(color="0.4", linestyle="", mew=0.8)
    keys = [Line2D([], [], marker="o", linestyle="", color=SEQUENCE_MODELS[name], label=name)
            for name in families]  # fmt: skip
    keys += [
        Line2D([], [], marker="o", label="restored (sufficient)", **gray),
        Line2D([], [], marker="s", mfc="white", label="destroyed (necessary)", **gray),
        Line2D([], [], label="any value of the document", **GUIDE),
        Line2D([], [], label="any value", **(GUIDE | {"linestyle": "--"})),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **SMALL)
    return figure


def _width(architecture: str) -> float:
    """The place in `_WIDTHS` of an architecture's short convolution; NaN if that is not varied."""
    name = family(architecture)
    if architecture == name:
        width = DEFAULT_WIDTHS.get(name, "")
    else:
        width = architecture.removeprefix(f"{name}-conv-")
    return _WIDTHS.index(width) if width in _WIDTHS else math.nan


def _looks(rows: DataFrame) -> dict[str, dict[str, Any]]:
    """Colour of the family and marker within it, by architecture, families together."""
    looks = {}
    present = sorted(rows["architecture"].unique(), key=lambda name: (len(name), name))
    for kind, color in SEQUENCE_MODELS.items():
        variants = [name for name in present if family(name) == kind]
        for name, marker in zip(variants, "os^vDPX", strict=False):
            looks[name] = dict(color=color, marker=marker)
    return looks


def _keys(looks: dict[str, dict[str, Any]], **style: Any) -> list[Line2D]:
    return [Line2D([], [], label=name, **look, **style) for name, look in looks.items()]


def _largest(rows: DataFrame, axes: Sequence[str]) -> DataFrame:
    """Trainings at the largest value of every axis."""
    for axis in axes:
        rows = rows[rows[axis] == rows[axis].max()]
    return rows


def _of_one_size(rows: DataFrame) -> DataFrame:
    """Trainings of the widest models of two layers, or of the deepest if there are none."""
    rows = _largest(rows, _TASK)
    two = rows[rows["layers"] == 2]
    return _largest(rows if two.empty else two, ("layers", "d"))
