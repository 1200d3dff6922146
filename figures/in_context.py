"""Figures of in-context learning: errors by examples, verdicts, jumps and what they cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame, Series

from experiments.in_context import SETTINGS
from experiments.in_context_verdicts import FAILED, PUBLISHED, SOLVED, VISIBLE, by_gap, by_jumps
from figures.classifiers import SMALL, means
from figures.panels import GUIDE, NOTE, NothingToDrawError, interval, ticks_at
from figures.style import BLOCKS, FULL_WIDTH, YELLOW
from memory.state_capacity import additive_squared_error

MODELS = {
    "transformer": ("Transformer", "#D55E00"),
    "transformer-without-positions": ("Transformer, no positions", "#E8A06B"),
    "mamba-transformer": ("Mamba, then Transformer", "#882255"),
    "mamba": ("Mamba", "#0072B2"),
    "mamba-mlp": ("Mamba with MLP", "#332288"),
    "s4": ("S4", "#56B4E9"),
    "s4-mamba": ("S4-Mamba", "#44AA99"),
    "hybrid": ("hybrid", "#CC79A7"),
    "hybrid-without-positions": ("hybrid, no positions", "#E6B8D0"),
    "mambaformer": ("MambaFormer", "#009E73"),
}
"""Name and colour of each, in the order of the legend."""
KEYS = 16
"""Numbers that a channel of Mamba's state has: the size of the keys it is addressed with."""
VERDICTS = {SOLVED: "#9BD3BD", VISIBLE: "#F5DFA0", FAILED: "#E8A990"}
_SIZES = ("width_factor", "layers", "step_factor", "batch_size", "heads")


def in_context_baselines(rows: DataFrame) -> Figure:
    """Errors of the estimators over the number of examples, a panel for each setting."""
    settings = _settings(rows)
    names = list(dict.fromkeys(rows["estimator"]))
    colors = [color for color in BLOCKS if color != YELLOW]
    looks = dict(zip(names, itertools.product(("-", "--", "-."), colors), strict=False))
    figure, axes = _panels(len(settings), columns=4, height=1.25)
    for axis, setting in zip(axes, settings, strict=True):
        at = rows[rows["setting"] == setting]
        for name, draws in at.groupby("estimator", sort=False):
            mean = np.stack(list(draws["errors"])).mean(axis=0)
            there = np.isfinite(mean)
            line, color = looks[name]
            axis.plot(np.flatnonzero(there), mean[there], line, color=color, linewidth=0.9)
            derived = draws["derived_errors"].iloc[0] if "derived_errors" in draws else None
            if isinstance(derived, np.ndarray):
                axis.plot(derived, ":", color="black", linewidth=0.9, zorder=3)
        axis.set(ylim=(-0.05, 2.0))
        axis.set_title(setting, fontsize=7)
        axis.tick_params(labelsize=6)
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axis in axes[-4:]:
        axis.set_xlabel("query" if "retrieval" in axis.get_title() else "examples seen")
    for axis in axes[::4]:
        axis.set_ylabel("error")
    keys = [Line2D([], [], linestyle=looks[name][0], color=looks[name][1],
                   label=name.replace("-", " ")) for name in names]  # fmt: skip
    keys.append(Line2D([], [], linestyle=":", color="black", label="derived"))
    figure.legend(handles=keys, loc="outside lower center", ncols=4, **SMALL)
    return figure


def in_context_errors(rows: DataFrame) -> Figure:
    """Errors over the number of examples, a panel for each setting; dashed, the reference."""
    rows = _largest(rows)
    settings = _settings(rows)
    figure, axes = _panels(len(settings))
    for axis, setting in zip(axes, settings, strict=True):
        at = rows[rows["setting"] == setting]
        for model in _models(at):
            curves = np.stack(list(at.loc[at["model"] == model, "errors"]))
            _band(axis, curves, MODELS[model][1])
        best = np.stack(list(at["reference_errors"])).mean(axis=0)
        if np.isfinite(best).all():
            axis.plot(np.arange(len(best)), best, color="black", linestyle="--", linewidth=0.9)
        kind = at["kind"].iloc[0]
        retrieval, parity = kind == "vector retrieval", kind == "sparse parity"
        axis.set(title=setting, xlabel="query" if retrieval else "examples seen")
        axis.set_ylim(-0.03, 0.6 if parity else 1.2)
        axis.set_ylabel("share wrong" if parity else "error / that of 0")
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    best = Line2D([], [], color="black", linestyle="--", label="reference estimator")
    figure.legend(
        handles=[*_keys(_models(rows)), best], loc="outside lower center", ncols=4, **SMALL
    )
    return figure


def _band(axis: Axes, curves: np.ndarray, color: str) -> None:
    """Mean over seeds, and the 95 % t interval; of fewer than three seeds each, which have none."""
    examples = np.arange(curves.shape[1])
    axis.plot(examples, curves.mean(axis=0), color=color, linewidth=1.0)
    if len(curves) < 3:
        axis.plot(examples, curves.T, color=color, linewidth=0.4, alpha=0.6)
    else:
        ends = [interval(DataFrame({"error": column}), "error") for column in curves.T]
        low, high = np.array(ends)[:, 1], np.array(ends)[:, 2]
        axis.fill_between(examples, low, high, color=color, alpha=0.15, linewidth=0)


def in_context_verdicts(rows: DataFrame) -> Figure:
    """The verdict of every model on every setting; at the left of a cell, the published one."""
    rows = _largest(rows)
    settings, models = _settings(rows), _models(rows)
    figure, axis = plt.subplots(
        figsize=(FULL_WIDTH, 1.3 + 0.3 * len(settings)), subplot_kw={"aspect": "auto"}
    )
    for line, setting in enumerate(settings):
        for column, model in enumerate(models):
            at = rows[(rows["setting"] == setting) & (rows["model"] == model)]
            if len(at):
                _verdict(axis, column, line, at)
    axis.set(xlim=(-0.5, len(models) - 0.5), ylim=(len(settings) - 0.5, -0.5))
    names = [MODELS[model][0].replace(", ", ",\n") for model in models]
    axis.set_xticks(range(len(models)), names, fontsize=6, rotation=30, ha="left", va="bottom",
                    rotation_mode="anchor")  # fmt: skip
    axis.xaxis.tick_top()
    axis.set_yticks(range(len(settings)), settings, fontsize=6)
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    keys = [Patch(facecolor=color, label=name) for name, color in VERDICTS.items()]
    keys.append(Patch(facecolor="white", edgecolor="0.6", hatch="////", linewidth=0,
                      label="not decided"))  # fmt: skip
    keys.append(Patch(facecolor="0.6", label="stripe at the left: published"))
    figure.legend(handles=keys, loc="outside lower center", ncols=5, **SMALL)
    return figure


def _verdict(axis: Axes, column: int, line: int, rows: DataFrame) -> None:
    parity = rows["kind"].iloc[0] == "sparse parity"
    learned = bool(rows["comparable"].iloc[0])
    if parity:
        cell = by_jumps(list(rows["jumped"]), learned=learned)
    else:
        cell = by_gap(rows["gap"].to_numpy(float), learned=learned)
    box = dict(xy=(column - 0.47, line - 0.44), width=0.94, height=0.88, linewidth=0)
    axis.add_patch(plt.Rectangle(**box, facecolor=VERDICTS[cell.verdict]))
    if not cell.decided:
        axis.add_patch(plt.Rectangle(**box, fill=False, hatch="////", edgecolor=(1, 1, 1, 0.8)))
    text = f"{cell.value:.0%}" if parity else f"{cell.value:.2f}"
    axis.text(column + 0.04, line, text, ha="center", va="center", fontsize=6)
    published = PUBLISHED.get((rows["kind"].iloc[0], rows["model"].iloc[0]))
    if published is not None:
        axis.add_patch(
            plt.Rectangle((column - 0.47, line - 0.44), 0.12, 0.88, linewidth=0,
                          facecolor=_darker(VERDICTS[published]))
        )  # fmt: skip


def _darker(color: str) -> tuple[float, ...]:
    return tuple(0.72 * part for part in to_rgba(color)[:3])


def parity_jumps(rows: DataFrame) -> Figure:
    """Accuracy along the trainings on parities, one line each; and the share that has jumped."""
    rows = _largest(_of_kind(rows, "sparse parity"))
    models = _models(rows)
    settings = _settings(rows)
    figure, axes = plt.subplots(
        len(settings), 2, figsize=(FULL_WIDTH, 0.5 + 1.8 * len(settings)), squeeze=False,
        sharex="row",
    )  # fmt: skip
    for (left, right), setting in zip(axes, settings, strict=True):
        at = rows[rows["setting"] == setting]
        end = int(max(steps[-1] for steps in at["curve_steps"]))
        for model in models:
            color = MODELS[model][1]
            trainings = at[at["model"] == model]
            for steps, skill in zip(
                trainings["curve_steps"], trainings["curve_skill"], strict=True
            ):
                left.plot(steps, skill, color=color, linewidth=0.8)
            if len(trainings):
                right.step(*_jumped(trainings, end), where="post", color=color, linewidth=1.0)
        prior = 1 - np.mean([errors[0] for errors in at["reference_errors"]])
        left.axhline(prior, **GUIDE)
        left.annotate(
            "number of ones alone",
            (1, prior),
            xycoords=("axes fraction", "data"),
            xytext=(0, -2),
            textcoords="offset points",
            va="top",
            ha="right",
            **NOTE,
        )
        left.set(ylabel="accuracy", ylim=(0.45, 1.02), title=setting)
        right.set(ylabel="share of seeds that jumped", ylim=(-0.03, 1.05), title=setting)
    for axis in axes[-1]:
        axis.set_xlabel("step")
    figure.legend(handles=_keys(models), loc="outside lower center", ncols=4, **SMALL)
    return figure


def _jumped(trainings: DataFrame, end: int) -> tuple[list[float], list[float]]:
    """Steps, and the share of trainings that had jumped by then."""
    first = sorted(trainings["jump_step"].dropna())
    shares = np.arange(1, len(first) + 1) / len(trainings)
    return [0.0, *first, float(end)], [0.0, *shares, len(first) / len(trainings)]


def flops_frontier(rows: DataFrame) -> Figure:
    """The smallest validation error over the operations of a training, of each model.

    Over all sizes and lengths of trainings; means over seeds.
    """
    settings = _settings(rows)
    figure, axes = _panels(len(settings))
    for axis, setting in zip(axes, settings, strict=True):
        at = rows[rows["setting"] == setting]
        for model in _models(at):
            spent, best = _frontier(at[at["model"] == model])
            axis.step(spent, best, where="post", color=MODELS[model][1], linewidth=1.0)
        axis.set(title=setting, xscale="log", yscale="log", xlabel="training FLOPs")
        axis.set_ylabel("smallest error")
    figure.legend(handles=_keys(_models(rows)), loc="outside lower center", ncols=4, **SMALL)
    return figure


def _frontier(rows: DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Operations, and the smallest mean error up to them."""
    spent, error = [], []
    for _, seeds in rows.groupby([*_SIZES, "matched"]):
        steps = max(seeds["curve_steps"], key=len)
        # Trainings that have ended at their target keep the error they ended with.
        held = [
            np.interp(steps, at, errors)
            for at, errors in zip(seeds["curve_steps"], seeds["curve_error"], strict=True)
        ]
        spent.append(steps[1:] * seeds["step_flops"].iloc[0])
        error.append(np.mean(held, axis=0)[1:])
    order = np.argsort(np.concatenate(spent), kind="stable")
    best = np.minimum.accumulate(np.concatenate(error)[order])
    return np.concatenate(spent)[order], best


def _panels(number: int, columns: int = 3, height: float = 1.7) -> tuple[Figure, list[Axes]]:
    columns = min(number, columns)
    lines = math.ceil(number / columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(FULL_WIDTH, 0.5 + height * lines), squeeze=False
    )
    for axis in axes.flat[number:]:
        axis.axis("off")
    return figure, list(axes.flat[:number])


def retrieval_by_pairs(rows: DataFrame) -> Figure:
    """Error of retrieval over the number of pairs, beside a state with as many keys as Mamba's."""
    rows = _largest(_of_kind(rows, "vector retrieval"))
    tasks = {name: SETTINGS[name].task for name in _settings(rows)}
    figure, axis = plt.subplots(figsize=(FULL_WIDTH * 0.7, 2.4))
    models = _models(rows)
    pairs = np.array(sorted({task.num_pairs for task in tasks.values()}))
    for place, model in enumerate(models):
        at = rows[rows["model"] == model]
        at = at.assign(pairs=[tasks[name].num_pairs for name in at["setting"]])
        at = at.groupby(["pairs", "seed"], as_index=False)["error"].mean()
        means(axis, at, "pairs", "error", aside=(2.5 * (place - (len(models) - 1) / 2), 0),
              color=MODELS[model][1], fmt="o", markersize=3)  # fmt: skip
    more = np.arange(1, 2 * pairs.max() + 1)
    state = [additive_squared_error(N=int(n), key_dimension=KEYS) for n in more]
    axis.plot(more, state, color="black", linestyle="--", linewidth=0.9)
    axis.plot(more, 1 - 1 / more, **(GUIDE | {"linestyle": ":"}))
    axis.set(xscale="log", xlabel="pairs", ylabel="error / that of 0", ylim=(-0.03, 1.1))
    axis.set_xlim(pairs.min() / 1.5, pairs.max() * 1.5)
    ticks_at(axis.xaxis, Series(pairs))
    keys = [
        *(Line2D([], [], color=MODELS[m][1], linestyle="", marker="o", label=MODELS[m][0])
          for m in models),
        Line2D([], [], color="black", linestyle="--",
               label=f"additive state, random keys of size {KEYS}"),
        Line2D([], [], label="mean of the values", **(GUIDE | {"linestyle": ":"})),
    ]  # fmt: skip
    figure.legend(handles=keys, loc="outside lower center", ncols=3, **SMALL)
    return figure


def _largest(rows: DataFrame) -> DataFrame:
    """The rows of the largest models of each setting, trained for longest, of one matching."""
    for name in _SIZES:
        rows = rows[rows[name] == rows.groupby("setting")[name].transform("max")]
    return rows[rows["matched"] == rows.groupby("setting")["matched"].transform("first")]


def _of_kind(rows: DataFrame, kind: str) -> DataFrame:
    found = rows[rows["kind"] == kind]
    if found.empty:
        raise NothingToDrawError(f"no {kind}")
    return found


def _settings(rows: DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["setting"]))


def _models(rows: DataFrame) -> list[str]:
    return [name for name in MODELS if name in set(rows["model"])]


def _keys(models: Iterable[str]) -> list[Line2D]:
    return [Line2D([], [], color=MODELS[name][1], label=MODELS[name][0]) for name in models]
