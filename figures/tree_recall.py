"""Figure of recall in trees: accuracy beside shortcuts, and where the second layer reads."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from figures.classifiers import means
from figures.panels import GUIDE
from figures.style import FULL_WIDTH, SEQUENCE_MODELS, family

_SETTINGS = (
    (1, False, dict(marker="o", mfc="white"), "one layer"),
    (2, False, dict(marker="o"), "two layers"),
    (2, True, dict(marker="X", mew=0), "two, combinations held out"),
)
"""Layers, whether combinations are held out, how it looks and what it is called."""
_POSITIONS = {"key": "v", "value": "o", "divider": "s", "query": "^"}
_RULES = {"last_token": ("last token", ":"), "right_of_key": ("right of the key", "--")}
_FAINT = 0.3
_BESIDE: dict[str, Any] = dict(
    loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=6, borderaxespad=0
)


def tree_recall(rows: DataFrame) -> Figure:
    """Accuracies of the widest models of the first setting, and attributions by position."""
    same = ["num_terminals", "max_rhs", "max_length", "relation", "mlp"]
    rows = rows[(rows[same] == rows.iloc[0][same]).all(axis=1) & (rows["d"] == rows["d"].max())]
    figure, (top, bottom) = plt.subplots(2, 1, figsize=(FULL_WIDTH, 3.6), sharex=True)
    names = list(rows["architecture"].unique())
    for place, name in enumerate(names):
        own = rows[rows["architecture"] == name].assign(place=place)
        color = SEQUENCE_MODELS[family(name)]
        _accuracies(top, own, color)
        _attributions(bottom, _of(own, 2, False), color)
    for rule, (_, style) in _RULES.items():
        top.axhline(_of(rows, 2, False)[rule].mean(), **_line(style))
    for height in (0, 1):
        bottom.axhline(height, **GUIDE)
    top.set(ylim=(0, 1), ylabel="accuracy")
    bottom.set(xlim=(-0.5, len(names) - 0.5), ylabel="restored at the second layer")
    crowded = dict(rotation=40, ha="right", rotation_mode="anchor") if len(names) > 6 else {}
    bottom.set_xticks(range(len(names)), names, **crowded)
    top.legend(handles=_keys_of_accuracies(rows), **_BESIDE)
    bottom.legend(handles=_keys_of_attributions(rows), **_BESIDE)
    return figure


def _accuracies(axis: Axes, own: DataFrame, color: str) -> None:
    for aside, (layers, held_out, style, _) in zip((-6, 0, 6), _SETTINGS, strict=True):
        drawn = _of(own, layers, held_out)
        means(axis, drawn, "place", "accuracy", aside=(aside, 0), color=color, **style)


def _attributions(axis: Axes, own: DataFrame, color: str) -> None:
    """Means over the models that have learned the task; over all, faint, where none has."""
    learned = own[own["explained"]]
    alpha = _FAINT if learned.empty else 1.0
    for aside, (position, marker) in zip((-9, -3, 3, 9), _POSITIONS.items(), strict=True):
        drawn = own if learned.empty else learned
        means(axis, drawn, "place", f"at_{position}", aside=(aside, 0), color=color,
              marker=marker, alpha=alpha)  # fmt: skip


def _keys_of_accuracies(rows: DataFrame) -> list[Line2D]:
    keys = [
        Line2D([], [], color="0.4", linestyle="", **style, label=text)
        for layers, held_out, style, text in _SETTINGS
        if not _of(rows, layers, held_out).empty
    ]
    return [*keys, *(Line2D([], [], **_line(style), label=text) for text, style in _RULES.values())]


def _keys_of_attributions(rows: DataFrame) -> list[Line2D]:
    gray: dict[str, Any] = dict(color="0.4", linestyle="")
    keys = [Line2D([], [], **gray, marker=shape, label=f"at the {position}")
            for position, shape in _POSITIONS.items()]  # fmt: skip
    learned = _of(rows, 2, False).groupby("architecture")["explained"].any()
    if not learned.all():
        keys.append(Line2D([], [], **gray, marker="o", alpha=_FAINT, label="not learned"))
    return keys


def _of(rows: DataFrame, layers: int, held_out: bool) -> DataFrame:
    return rows[(rows["layers"] == layers) & (rows["held_out"] == held_out)]


def _line(style: str) -> dict[str, Any]:
    return GUIDE | {"linestyle": style}
