"""Figures of how models tell the odd one out: maps by block, tap, position, slot and token."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas import DataFrame

from experiments.interventions.name_codes import SLOTS
from experiments.ioi_checkpoint.published import ADD_SUBTRACT, REPLACE
from experiments.tasks.ioi import FORMATS
from experiments.toys import TOYS
from figures.panels import GUIDE, NOTE, NothingToDrawError
from figures.style import COLORS, FULL_WIDTH

WORDS = (
    *("BOS", "opener", "opener", "n1", ",", "n2", "and", "n3", "went", "to", "the", "place", "."),
    *("n4", "and", "n5", "gave", "a", "object", "to"),
)
"""A prompt whose names stand where most do; openers differ, in two tokens."""
NAMED = tuple(i for i, word in enumerate(WORDS) if word in SLOTS)
PUBLISHED = {
    "replace": REPLACE,
    "add_subtract": ADD_SUBTRACT,
    "add_subtract_written": None,
}
"""Successes of swaps in layer 39 of mamba-370m, by slot edited and slot of the mean (Ensign and
Garriga-Alonso 2024, figure 8); nothing is published of what is written into the state."""
ALONE = 0.75
"""Share of the answers that survive with the cross-talk of layer 39 of mamba-370m alone."""
_SWAPPED = {
    "replace": "replaced",
    "add_subtract": "added, subtracted",
    "add_subtract_written": "in the state only",
}
_SIGNED, _SHARE = "RdBu_r", "Blues"
_TINY: dict[str, Any] = dict(labelsize=5, length=0, pad=1)


def ioi_resample(rows: DataFrame) -> Figure:
    """Effects of blocks that read a corrupted token, by format; means over seeds."""
    rows = _solved(rows)
    toys = list(rows["toy"].unique())
    depth = max(len(TOYS[toy].layers) for toy in toys)
    figure, axes = plt.subplots(
        len(FORMATS), len(toys), figsize=(FULL_WIDTH, 1.3 + 5 * (0.2 + 0.1 * depth)),
        squeeze=False, sharex=True,
    )  # fmt: skip
    for toy, column in zip(toys, axes.T, strict=True):
        at = rows[rows["toy"] == toy]
        for axis, format_, cells in zip(column, FORMATS, _mean(at, "resample"), strict=True):
            _heat(axis, cells, Normalize(-1, 1), _SIGNED)
            _outline(axis, NAMED[SLOTS.index(format_.changed)], len(cells))
            _labels(axis.yaxis, [f"{i} {name}" for i, name in enumerate(TOYS[toy].layers)])
            axis.set_title(f"{format_.name}: {format_.changed}", fontsize=6, loc="left", pad=2)
        column[0].set_title(f"{toy}, {_seeds(at)}\n{FORMATS[0].name}: {FORMATS[0].changed}",
                            fontsize=6, loc="left", pad=2)  # fmt: skip
        _labels(column[-1].xaxis, WORDS)
    _bar(figure, axes, Normalize(-1, 1), _SIGNED, "effect of reading the corrupted token here")
    return figure


def ioi_taps(rows: DataFrame) -> Figure:
    """Effects of the taps of the bottleneck's convolution, a line of panels for each model."""
    models = list(_models(_solved(rows)))
    figure, axes = plt.subplots(
        len(models), len(FORMATS), figsize=(FULL_WIDTH, 1.0 + 0.5 * len(models)),
        squeeze=False, sharex=True, sharey=True,
    )  # fmt: skip
    for line, (title, model) in zip(axes, models, strict=True):
        taps = model["taps"][:, model["bottleneck"]]
        for axis, format_, cells in zip(line, FORMATS, taps, strict=True):
            _heat(axis, cells, Normalize(-1, 1), _SIGNED)
            _diagonal(axis, NAMED[SLOTS.index(format_.changed)], len(cells))
        _labels(line[0].yaxis, range(taps.shape[1]))
        line[0].set_ylabel(f"{title}\ntap", fontsize=6)
    for axis, format_ in zip(axes[0], FORMATS, strict=True):
        axis.set_title(f"{format_.name}\n{format_.changed}", fontsize=6)
    for axis in axes[-1]:
        _name_positions(axis)
    _bar(figure, axes, Normalize(-1, 1), _SIGNED, "effect of a tap reading the corrupted token")
    return figure


def ioi_ablations(rows: DataFrame) -> Figure:
    """Answers with the cross-talk of single blocks, and without single blocks; dots are seeds."""
    rows = _solved(rows)
    toys = list(rows["toy"].unique())
    figure, axes = plt.subplots(
        len(toys), 2, figsize=(FULL_WIDTH, 0.4 + 1.7 * len(toys)), squeeze=False, sharey=True
    )
    for (left, right), (toy, at) in zip(axes, rows.groupby("toy", sort=False), strict=True):
        blocks = [f"{i} {name}" for i, name in enumerate(TOYS[str(toy)].layers)]
        heard = _columns(at, "all_patched_accuracy", "alone_accuracy", "accuracy")
        _bars(left, heard, ["none", *blocks, "all"])
        _bars(right, _columns(at, "removed_probability", "relative_probability"), [*blocks, "none"])
        left.axhline(ALONE, **GUIDE)
        left.annotate("layer 39 of mamba-370m", (0, ALONE), xycoords=("axes fraction", "data"),
                      xytext=(1, 1.5), textcoords="offset points", **NOTE)  # fmt: skip
        left.set(title=f"{toy}: blocks that hear the clean tokens", ylabel="accuracy", ylim=(0, 1))
        right.set(title=f"{toy}: block removed", ylabel="probability of the answer")
    return figure


def ioi_cosines(rows: DataFrame) -> Figure:
    """Cosines of what tokens write and of later states, and of the codes of names by slot."""
    models = list(_models(_solved(rows)))
    columns = min(len(models), 4)
    lines = math.ceil(len(models) / columns)
    figure, axes = plt.subplots(
        3 * lines, columns, figsize=(FULL_WIDTH, 0.6 + 4.2 * lines), squeeze=False,
        height_ratios=[3, 2, 2] * lines,
    )  # fmt: skip
    for axis in axes.flat:
        axis.axis("off")
    for k, (title, model) in enumerate(models):
        top, told, written = axes[3 * (k // columns) : 3 * (k // columns) + 3, k % columns]
        _heat(top, model["cosines"], Normalize(-1, 1), _SIGNED)
        _name_positions(top)
        top.set_yticks(*_names())
        top.set_title(title, fontsize=7)
        _numbers(told, model["code_cosines"], Normalize(-1, 1), _SIGNED)
        _numbers(written, model["write_cosines"], Normalize(-1, 1), _SIGNED)
        for axis in (top, told, written):
            axis.axis("on")
            axis.set_aspect("equal")
        if k % columns == 0:
            top.set_ylabel("written by", fontsize=7)
            told.set_ylabel("mean ssm_input in", fontsize=7)
            written.set_ylabel("mean write in", fontsize=7)
        top.set_xlabel("state at", fontsize=7)
    _bar(figure, axes, Normalize(-1, 1), _SIGNED, "cosine")
    return figure


def ioi_swaps(rows: DataFrame) -> Figure:
    """Share of prompts in which names are swapped by mean codes, beside the published ones."""
    rows = _carried(_solved(rows))
    toys = list(rows["toy"].unique())
    columns = int(rows["toy"].value_counts().max()) + 1
    figure, axes = plt.subplots(
        3 * len(toys), columns, figsize=(FULL_WIDTH, 0.8 + 3.8 * len(toys)), squeeze=False,
        sharex=True, sharey=True,
    )  # fmt: skip
    for k, toy in enumerate(toys):
        models = list(_models(rows[rows["toy"] == toy]))
        for line, (name, word) in zip(axes[3 * k :], _SWAPPED.items(), strict=False):
            panels = [(f"{toy}\n{seed}", model[name]) for seed, model in models]
            if PUBLISHED[name] is not None:
                panels.append(("mamba-370m\npublished", PUBLISHED[name]))
            for axis, (title, cells) in zip(line, panels, strict=False):
                _numbers(axis, cells, Normalize(0, 1), _SHARE)
                axis.set_aspect("equal")
                axis.set_title(title, fontsize=6)
            for axis in line[len(panels) :]:
                axis.axis("off")
            line[0].set_ylabel(f"{word}:\nedited slot", fontsize=6)
    for column in axes.T:
        last = [axis for axis in column if axis.axison][-1]
        last.tick_params(labelbottom=True)
        last.set_xlabel("mean of slot", fontsize=6)
    _bar(figure, axes, Normalize(0, 1), _SHARE, "share of prompts with the answer of the swap")
    return figure


def ioi_writes(rows: DataFrame) -> Figure:
    """What tokens write into the state for each name and the answer, a line for each model."""
    models = list(_models(_solved(rows)))
    maps = [np.vstack([model["writes"], model["writes_to_answer"]]) for _, model in models]
    largest = max(float(np.abs(cells).max()) for cells in maps)
    figure, axes = plt.subplots(
        len(models), 2, figsize=(FULL_WIDTH, 1.0 + 0.85 * len(models)), squeeze=False,
        sharey=True, sharex="col", width_ratios=[3, 1],
    )  # fmt: skip
    for (left, right), (title, model), cells in zip(axes, models, maps, strict=True):
        _heat(left, cells, Normalize(-largest, largest), _SIGNED)
        for i, at in enumerate(NAMED):
            width = min(model["taps"].shape[2], len(WORDS) - at)
            left.add_patch(Rectangle((at, i), width, 1, fill=False, edgecolor="0.3", linewidth=0.6))
        own = [*model["own_writes"], model["writes_to_answer"].sum()]
        right.barh(np.arange(len(own)) + 0.5, own, color=[COLORS["upper"]] * 5 + ["0.5"])
        right.axvline(0, color="black", linewidth=0.5)
        right.tick_params(axis="y", length=0)
        _labels(left.yaxis, [*SLOTS, "answer"])
        left.set_ylabel(f"{title}\nfor the name", fontsize=6)
    _labels(axes[-1, 0].xaxis, WORDS)
    axes[-1, 1].set_xlabel("in the box (answer: all)", fontsize=6)
    axes[-1, 1].tick_params(axis="x", labelsize=6)
    _bar(figure, axes, Normalize(-largest, largest), _SIGNED, "logits written by the token")
    return figure


def _solved(rows: DataFrame) -> DataFrame:
    """Of models that have learned the task."""
    found = rows[rows["solved"].astype(bool)]
    if found.empty:
        raise NothingToDrawError("no model that has learned the task")
    return found


def _carried(rows: DataFrame) -> DataFrame:
    """Of models whose bottleneck has a convolution and a state."""
    found = rows[rows["convolved"].astype(bool)]
    if found.empty:
        raise NothingToDrawError("no bottleneck with a convolution")
    return found


def _models(rows: DataFrame) -> Iterator[tuple[str, Any]]:
    """Each such model with its name."""
    rows = _carried(rows)
    for _, model in rows.iterrows():
        toy = f"{model['toy']}\n" if rows["toy"].nunique() > 1 else ""
        yield f"{toy}seed {model['seed']}", model


def _mean(rows: DataFrame, column: str) -> np.ndarray:
    """Over models."""
    return np.stack(list(rows[column])).mean(axis=0)


def _seeds(rows: DataFrame) -> str:
    return f"mean of {len(rows)} seeds" if len(rows) > 1 else "1 seed"


def _heat(axis: Axes, cells: np.ndarray, scale: Normalize, colors: str) -> None:
    """A map from the top down; hatched where there is nothing."""
    axis.pcolormesh(cells, norm=scale, cmap=colors, rasterized=True)
    missing = [Rectangle((column, line), 1, 1) for line, column in np.argwhere(np.isnan(cells))]
    axis.add_collection(
        PatchCollection(missing, facecolor="0.9", edgecolor="0.6", hatch="////", linewidth=0)
    )
    axis.set(xlim=(0, cells.shape[1]), ylim=(len(cells), 0))
    axis.tick_params(**_TINY)
    axis.spines[:].set_visible(True)


def _numbers(axis: Axes, cells: np.ndarray, scale: Normalize, colors: str) -> None:
    """A map of slots by slots with its numbers, at most 1 in size."""
    _heat(axis, cells, scale, colors)
    for (line, column), value in np.ndenumerate(cells):
        axis.text(column + 0.5, line + 0.5, f"{value:.2f}", ha="center", va="center", fontsize=5,
                  color="white" if abs(value) > 0.6 else "black")  # fmt: skip
    for side in (axis.xaxis, axis.yaxis):
        _labels(side, SLOTS)


def _labels(side: Any, labels: Iterable[object]) -> None:
    """In the middle of the cells, upright on the horizontal axis where they are words."""
    texts = [str(label) for label in labels]
    turned = {"rotation": 90} if side.axis_name == "x" and len(texts) > len(SLOTS) else {}
    side.set_ticks(np.arange(len(texts)) + 0.5, texts, **turned)


def _name_positions(axis: Axes) -> None:
    axis.set_xticks(*_names())


def _names() -> tuple[list[float], Sequence[str]]:
    return [at + 0.5 for at in (*NAMED, len(WORDS) - 1)], (*SLOTS, "out")


def _outline(axis: Axes, column: int, lines: int) -> None:
    """Around the changed name."""
    axis.add_patch(Rectangle((column, 0), 1, lines, fill=False, edgecolor="black", linewidth=0.7))


def _diagonal(axis: Axes, column: int, taps: int) -> None:
    """Around the cells in which taps read the changed name."""
    for tap in range(taps):
        axis.add_patch(
            Rectangle((column + tap, tap), 1, 1, fill=False, edgecolor="black", linewidth=0.5)
        )


def _columns(rows: DataFrame, *names: str) -> np.ndarray:
    """Numbers and arrays of each model, beside each other."""
    return np.hstack([np.vstack(list(rows[name])) for name in names])


def _bars(axis: Axes, values: np.ndarray, labels: Sequence[str]) -> None:
    """Means over seeds, and each; hatched where a block mixes no tokens."""
    at = np.arange(values.shape[1])
    axis.bar(at, values.mean(axis=0), color="0.8", width=0.7)
    for seed in values:
        axis.plot(at, seed, ".", color=COLORS["upper"], markersize=3, clip_on=False)
    for place in at[np.isnan(values).all(axis=0)]:
        axis.bar(place, 1, color="0.95", edgecolor="0.7", hatch="////", width=0.7, linewidth=0)
    axis.set_xticks(at, labels, fontsize=6)


def _bar(figure: Figure, axes: np.ndarray, scale: Normalize, colors: str, text: str) -> None:
    """The scale that all panels share."""
    bar = figure.colorbar(
        ScalarMappable(scale, colors), ax=axes, location="bottom", aspect=50, shrink=0.6
    )
    bar.set_label(text, fontsize=7)
    bar.ax.tick_params(labelsize=6)
