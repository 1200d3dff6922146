"""Figure of multi-query recall: trained recurrent states beside what theory predicts of them."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from experiments.studies.multi_query_recall import ACCURACY, random_capacity
from figures.classifiers import SMALL, means
from figures.panels import GUIDE, NOTE, ticks_at
from figures.style import COLORS, FULL_WIDTH, MEMORIES
from memory.state_capacity import additive_error

FAMILIES = {
    "linear-attention": ("linear attention", COLORS["linear attention"], "o"),
    "delta-net": ("DeltaNet", MEMORIES["delta-rule"], "s"),
    "mamba2": ("Mamba-2", COLORS["selective SSM"], "^"),
    "attention": ("softmax attention", COLORS["softmax attention"], "D"),
}
"""Name, colour and marker of each."""
ONE_HEAD = "0.3"


def multi_query_recall(rows: DataFrame) -> Figure:
    """Accuracy over the number of pairs, by the size of the keys; capacity over that of the state.

    Of the widest models and the largest vocabulary.
    """
    rows = rows[(rows["d"] == rows["d"].max())]
    rows = rows[rows["vocab_size"] == rows["vocab_size"].max()]
    sizes = sorted(rows["key_dim"].unique())
    figure, axes = plt.subplots(
        1, len(sizes) + 1, figsize=(FULL_WIDTH, 2.1),
        width_ratios=[1.0] * len(sizes) + [1.3], squeeze=False,
    )  # fmt: skip
    for axis, key_dim in zip(axes[0], sizes, strict=False):
        _accuracies(axis, rows[rows["key_dim"] == key_dim], int(key_dim))
        axis.tick_params(labelleft=axis is axes[0, 0])
    axes[0, 0].set_ylabel("share of questions right")
    _capacities(axes[0, -1], rows)
    keys = [
        Line2D([], [], linestyle="", marker=marker, color=color, label=label)
        for name, (label, color, marker) in FAMILIES.items()
        if name in set(rows["family"])
    ]
    keys.append(Line2D([], [], color=ONE_HEAD, label="predicted for random keys"))
    if "delta-net" in set(rows["family"]):
        color = FAMILIES["delta-net"][1]
        keys.append(Line2D([], [], color=color, label="the same, in DeltaNet's heads"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), **SMALL)
    return figure


def _accuracies(axis: Axes, rows: DataFrame, key_dim: int) -> None:
    present = [name for name in FAMILIES if name in set(rows["family"])]
    limit, d, M = (int(rows.iloc[0][name]) for name in ("num_pairs", "d", "vocab_size"))
    pairs = np.arange(1, limit + 1)
    for place, name in enumerate(present):
        _, color, marker = FAMILIES[name]
        curves = rows.loc[rows["family"] == name, "accuracies"]
        each = DataFrame({"pairs": np.tile(pairs, len(curves)), "share": np.concatenate([*curves])})
        means(axis, each, "pairs", "share", aside=(2 * (place - (len(present) - 1) / 2), 0),
              color=color, fmt=marker, markersize=2.5)  # fmt: skip
    for heads, color in _predictions(present, key_dim, d):
        share = [
            1 - additive_error(N=int(N), M=M // 2, key_dimension=key_dim, value_dimension=d,
                               heads=heads)
            for N in pairs
        ]  # fmt: skip
        axis.plot(pairs, share, color=color, zorder=1)
    axis.axhline(ACCURACY, **GUIDE)
    axis.set(title=f"keys of size {key_dim}", xlabel="pairs", ylim=(0, 1.06))
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _predictions(families: list[str], key_dim: int, d: int) -> list[tuple[int, str]]:
    """Heads and colour of the predicted curves: of one head, and of as many as DeltaNet has."""
    several = [(d // key_dim, FAMILIES["delta-net"][1])] if "delta-net" in families else []
    return [(1, ONE_HEAD), *several]


def _capacities(axis: Axes, rows: DataFrame) -> None:
    present = [name for name in FAMILIES if name in set(rows["family"])]
    limit, d, M = (int(rows.iloc[0][name]) for name in ("num_pairs", "d", "vocab_size"))
    for place, name in enumerate(present):
        _, color, marker = FAMILIES[name]
        means(axis, rows[rows["family"] == name], "state_size", "capacity", color=color,
              aside=(3 * (place - (len(present) - 1) / 2), 0), fmt=marker)  # fmt: skip
    sizes = [n for n in range(1, rows["key_dim"].max() + 1) if d % n == 0]
    for which, (_, color) in enumerate(_predictions(present, 1, d)):
        predicted = [
            random_capacity(
                key_dim=n, heads=_predictions(present, n, d)[which][0], d=d, M=M // 2, limit=limit
            )
            for n in sizes
        ]
        axis.plot(np.multiply(sizes, d), predicted, color=color, zorder=1)
    axis.axhline(limit, **GUIDE)
    axis.annotate("most that was tested", (0, limit), xycoords=("axes fraction", "data"),
                  xytext=(3, 2), textcoords="offset points", **NOTE)  # fmt: skip
    axis.set(xscale="log", xlabel="numbers kept", ylabel="pairs recalled to 90 %")
    axis.set_ylim(0, 1.15 * limit)
    axis.margins(x=0.1)
    ticks_at(axis.xaxis, rows["state_size"])
