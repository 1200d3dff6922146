"""Figures of the generalization gaps of trained classifiers, beside what is certified of them."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from pandas import DataFrame, Series

from figures.classifiers import FEW, SMALL, TASKS, kinds, legend_below, means
from figures.gap_bounds import LEVEL, bound_keys, draw_bounds, exponent_ticks, log10_bound
from figures.panels import GUIDE, NOTE, ticks_at, ticks_within_decades
from figures.style import COLORS, FULL_WIDTH

_SAMPLES = {
    "train": ("#000000", "o", "training sample"),
    "fresh": ("#0072B2", "s", "new, as in training"),
    "test": ("#D55E00", "^", "test sample"),
}
"""Colour and marker of the samples on which a classifier is measured."""


def trained_gap_against_length(rows: DataFrame) -> Figure:
    """Accuracies, gaps and bounds on them over T, for each kind of model."""
    settings = list(kinds(rows))
    figure, axes = plt.subplots(
        3, len(settings), figsize=(FULL_WIDTH, 5.2), sharex=True, sharey="row", squeeze=False,
        height_ratios=(1, 0.9, 1.1),
    )  # fmt: skip
    bayes = "bayes_error" in rows and rows["bayes_error"].notna().any()
    many = rows["T"].nunique() > FEW
    apart, size = (0.5, 2.0) if many else (3.0, 3.5)
    for (title, at), (top, middle, bottom) in zip(settings, axes.T, strict=True):
        top.set_title(title)
        first = at.groupby("T").first()
        for name, aside in (("train", -apart), ("fresh", 0.0), ("test", apart)):
            if name == "fresh" and not bayes:  # it is the test sample
                continue
            color, marker, _ = _SAMPLES[name]
            accuracy = at.assign(accuracy=1 - at[f"{name}_error"])
            means(top, accuracy, "T", "accuracy", fmt=marker, color=color, aside=(aside, 0),
                   markersize=size)  # fmt: skip
        if bayes:
            top.plot(first.index, 1 - first["bayes_error"], color=_SAMPLES["fresh"][0])
            top.plot(first.index, 1 - first["bayes_clean_error"], color=_SAMPLES["test"][0])
            shift = first["bayes_clean_error"] - first["bayes_error"]
            middle.plot(first.index, shift, color=_SAMPLES["test"][0])
            color, marker, _ = _SAMPLES["test"]
            means(middle, at, "T", "reported_gap", fmt=marker, color=color, markersize=size)
        color, marker, _ = _SAMPLES["fresh"]
        means(middle, at, "T", "gap", fmt=marker, color=color, markersize=size)
        middle.axhline(0, **GUIDE)
        draw_bounds(bottom, at, "T", columns=len(settings))
        bottom.set_xlabel("sequence length $T$")
        if many:
            bottom.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        else:
            bottom.set_xscale("log")
            ticks_at(bottom.xaxis, rows["T"])
    exponent_ticks([*axes[2]])
    for axis, text in zip(
        axes[:, 0], ("accuracy", "generalization gap", "bound on the gap"), strict=True
    ):
        axis.set_ylabel(text)
    figure.align_ylabels(axes[:, 0])
    axes[0, 0].set_ylim(top=min(1.01, axes[0, 0].get_ylim()[1]))
    samples = [_measured("train", "training sample")]
    lines = []
    if bayes:
        noisy, clean = _SAMPLES["fresh"][0], _SAMPLES["test"][0]
        samples += [_measured("fresh", "new noisy sample"), _measured("test", "clean test sample")]
        lines = [
            Line2D([], [], color=noisy, label="Bayes rule of noisy inputs"),
            Line2D([], [], color=clean, label="its accuracy or shift on clean"),
        ]
    else:
        samples += [_measured("test", "test sample")]
    bounds, models, measured, trivial = bound_keys(rows, split=True)
    legend_below(figure, samples, [*lines, *trivial], bounds, [*models, *measured])
    return figure


def trained_gap_against_stability(rows: DataFrame) -> Figure:
    """Measured gap, and bounds on it, over the s_A and step sizes that models were trained with."""
    groups = list(rows.groupby("step_logit", dropna=False, sort=True))
    figure, axes = plt.subplots(
        2, len(groups), figsize=(FULL_WIDTH, 3.8), sharex=True, sharey="row", squeeze=False,
        height_ratios=(1, 1.3),
    )  # fmt: skip
    values = np.sort(np.asarray(rows["s_A"].unique(), float))
    # From the smallest distance to 0 outwards, the axis is logarithmic.
    inner = np.abs(values[values != 0]).min(initial=1.0)
    for (logit, at), (top, bottom) in zip(groups, axes.T, strict=True):
        fixed = logit is not None and math.isfinite(logit)
        top.set_title(rf"$\Delta = {np.logaddexp(0, logit):.2g}$" if fixed else "steps trained")
        means(top, at, "s_A", "gap", fmt="s", color=_SAMPLES["fresh"][0], aside=(-2.5, 0))
        means(top, at, "s_A", "ramp_gap", fmt="o", color=COLORS["measured"], aside=(2.5, 0))
        top.axhline(0, **GUIDE)
        draw_bounds(bottom, at, "s_A", split=False, columns=len(groups))
        bottom.set_xlabel("spectral abscissa $s_A$ (fixed)")
        bottom.set_xscale("symlog", linthresh=inner, linscale=0.6)
        bottom.xaxis.set_major_locator(FixedLocator(list(values)))
        bottom.xaxis.set_minor_locator(NullLocator())
        bottom.xaxis.set_major_formatter(lambda value, _: f"${value:g}$")
        bottom.margins(x=0.08)
        if len(values) > 4:
            bottom.tick_params(axis="x", labelrotation=45)
    exponent_ticks([*axes[1]])
    axes[0, 0].set_ylabel("measured gap")
    axes[1, 0].set_ylabel("bound on the gap")
    figure.align_ylabels(axes[:, 0])
    bounds, models, measured, trivial = bound_keys(rows, split=False)
    error = _measured("fresh", "measured gap, error")
    legend_below(figure, [error, *measured], bounds[:2], bounds[2:], [*models, *trivial])
    return figure


def certified_gap(rows: DataFrame) -> Figure:
    """Error of quantised models below its certified bound, and bounds on the gap, over m."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.7))
    for name, aside in (("train", -2.5), ("fresh", 2.5)):
        color, marker, _ = _SAMPLES[name]
        means(left, rows, "m", f"quantised_{name}_error", fmt=marker, color=color,
               aside=(aside, 0))  # fmt: skip
    by_m = rows.groupby("m")
    occam = by_m["occam_risk"]
    left.plot(occam.mean().index, occam.mean(), color=COLORS["upper"])
    left.fill_between(
        occam.mean().index, occam.min(), occam.max(), color=COLORS["upper"], alpha=0.2, linewidth=0
    )
    guessing = by_m["guessing_error"].mean()
    left.plot(guessing.index, guessing, **LEVEL)
    left.set(xscale="log", ylim=(0, None), xlabel="training samples $m$", ylabel="error")
    right.set(xscale="log", xlabel="training samples $m$", ylabel="bound on the gap, ramp loss")
    draw_bounds(right, rows, "m", split=False, columns=0)
    exponent_ticks([right])
    for axis in (left, right):
        _few_ticks(axis.xaxis, rows["m"])
        axis.margins(x=0.06)
    informative = by_m.apply(lambda at: (at["occam_risk"] < at["guessing_error"]).all())
    left.set_title(_from_on("Occam bound below guessing", informative), fontsize=7)
    tight = by_m.apply(lambda at: (log10_bound(at, "parameter") < 0).all())
    right.set_title(_from_on("parameter bound below 1", tight), fontsize=7)
    left.legend(
        handles=[
            Line2D([], [], linestyle=":", color=GUIDE["color"], label="guessing"),
            Line2D([], [], color=COLORS["upper"], label="Occam bound (95 %)"),
            _measured("fresh", "quantised model, new sample"),
            _measured("train", "on its training sample"),
        ],
        loc="upper right", **SMALL,
    )  # fmt: skip
    bounds, models, measured, trivial = bound_keys(rows, split=False)
    legend_below(figure, bounds[:2], bounds[2:], measured, [*models, *trivial])
    return figure


def _from_on(text: str, holds: Series) -> str:
    """From which m on something holds for every model, in words."""
    sizes = list(holds.index[holds.to_numpy(bool)])
    later = [m for m in sizes if holds.loc[m:].all()]
    return f"{text} from $m = {later[0]}$ on" if later else f"{text} for no $m$"


def gap_on_tasks(rows: DataFrame) -> Figure:
    """Errors beside what guessing has and what is certified, and steps on padding, per task."""
    groups = list(rows.groupby(["task", "model", "T", "m"], sort=False))[::-1]
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(FULL_WIDTH, 1.2 + 0.28 * len(groups)), sharey=True, width_ratios=(1.7, 1)
    )
    padding = "pad_step" in rows and rows["pad_step"].notna().any()
    for place, (_, at) in enumerate(groups):
        row = at.assign(place=place)
        for name, offset in (("train", 2.5), ("test", -2.5)):
            color, marker, _ = _SAMPLES[name]
            means(left, row, "place", f"{name}_error", fmt=marker, color=color, aside=(0, offset),
                   across=True)  # fmt: skip
        for column, color, style in (
            ("guessing_error", "0.45", ":"), ("occam_risk", COLORS["upper"], "-"),
        ):  # fmt: skip
            left.plot([at[column].mean()] * 2, [place - 0.36, place + 0.36], style, color=color)
        if "mean_step" in at and at["mean_step"].notna().any():
            lines = np.linspace(0.2, -0.2, len(at)) if len(at) > 1 else [0.0]
            pads = at["pad_step"] if padding else Series(np.nan, at.index)
            for offset, text, pad in zip(lines, at["mean_step"], pads, strict=True):
                y = place + offset
                right.plot([text, pad], [y, y], **(GUIDE | dict(linestyle="-")), zorder=1)
                right.plot([text], [y], "o", color="black", mew=0, markersize=3)
                right.plot([pad], [y], "x", color=COLORS["published"], markersize=3)
        else:
            right.annotate("steps not recorded", (0.04, place), va="center",
                           xycoords=("axes fraction", "data"), **NOTE)  # fmt: skip
        right.annotate(
            f"{100 * at['pad_share'].mean():.0f} %",
            (1.02, place),
            va="center",
            fontsize=6,
            xycoords=("axes fraction", "data"),
            annotation_clip=False,
        )
    labels = [_task_label(*name, rows) for name, _ in groups]
    left.set_yticks(range(len(groups)), labels, fontsize=7)
    left.set(xlabel="error", xlim=(0, 1.04), ylim=(-0.6, len(groups) - 0.4))
    right.set(xscale="log", xlabel=r"step size $\Delta$")
    right.annotate(
        "share of\npadding", (1.02, 1.0), xycoords="axes fraction", va="bottom", fontsize=6,
        annotation_clip=False,
    )  # fmt: skip
    right.margins(x=0.15)
    keys = [
        _measured("train", "training sample: mean, 95 %"),
        _measured("test", "test sample"),
        Line2D([], [], color="0.45", linestyle=":", label="majority class"),
        Line2D([], [], color=COLORS["upper"], label="Occam bound, quantised model"),
        Line2D([], [], linestyle="", marker="o", color="black", mew=0, label="mean step on tokens"),
        Line2D(
            [], [], linestyle="", marker="x", color=COLORS["published"], label="step on padding"
        ),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, **SMALL)
    return figure


def _task_label(task: str, model: str, T: int, m: int, rows: DataFrame) -> str:
    """Name of a row: the task and model, and the sizes where there are several."""
    text = f"{TASKS.get(task, 'reviews from files')}, {_model(model)}"
    text += f", $T = {T}$" if rows["T"].nunique() > 1 else ""
    return text + (f", $m = {m}$" if rows["m"].nunique() > 1 else "")


def _model(name: str) -> str:
    return {"single": "single block", "mamba": "Mamba"}.get(name, name)


def _few_ticks(axis: Axis, values: Series) -> None:
    """Ticks at these values, or within decades where they are many."""
    if values.nunique() <= FEW:
        ticks_at(axis, values)
    else:
        ticks_within_decades(axis)


def _measured(sample: str, label: str) -> Line2D:
    color, marker, _ = _SAMPLES[sample]
    return Line2D([], [], linestyle="", marker=marker, color=color, label=label)
