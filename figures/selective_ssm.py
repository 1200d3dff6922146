"""Figures of the bounds for selective state-space models; each takes the rows of its study."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from pandas import DataFrame

from figures.style import BLOCKS, COLORS, FULL_WIDTH

_LN10 = np.log(10)
_BLOCK_NAMES = {
    "w": "readout $w$", "B": "$W_B$", "C": "$W_C$", "A": "state matrix $A$",
    "q": "step projection $q$", "p": "step bias $p$",
}  # fmt: skip


def bound_against_length(rows: DataFrame) -> Figure:
    """Rademacher complexity and gap over T, below, at and above the stability threshold."""
    figure, axes = plt.subplots(2, 3, figsize=(FULL_WIDTH, 3.4), sharex="col", sharey="row")
    regimes = ((-0.5, "stable"), (0.0, "threshold"), (0.02, "unstable"))
    m = int(rows["m"].iloc[0])
    for column, (s_A, regime) in enumerate(regimes):
        longest = 1e4 if regime == "unstable" else 1e6
        at = rows[(rows["s_A"] == s_A) & (rows["T"] <= longest)].sort_values("T")
        top, bottom = axes[:, column]
        top.set_title(f"$s_A = {s_A:g}$ ({regime})")
        for name, label in (
            ("upper", "upper bound"),
            ("lower", "matching lower bound"),
            ("published", "published upper bound"),
        ):
            values = at[f"ln_{name}"] / _LN10
            if not values.isna().all():
                top.plot(at["T"], values, color=COLORS[name], label=label)
        for name in ("norm", "hybrid", "parameter"):
            bottom.plot(at["T"], at[f"gap_{name}"], color=COLORS[name], label=f"{name}")
        bottom.axhline(1, color="0.6", linewidth=0.6, linestyle=":")
        for axis in (top, bottom):
            axis.set_xscale("log")
        bottom.set_yscale("log")
        bottom.set_xlabel("sequence length $T$")
    axes[0, 0].set_ylim(-6, 32)
    axes[0, 2].annotate("continues\nexponentially", (1.2e3, 27), fontsize=6, ha="right")
    axes[0, 0].set_ylabel(r"$\log_{10}$ Rademacher compl.")
    axes[1, 0].set_ylabel("bound on the gap")
    axes[0, 0].legend(loc="upper left")
    axes[1, 0].legend(
        loc="center left",
        bbox_to_anchor=(0, 0.42),
        title=f"$m = 10^{{{np.log10(m):.0f}}}$",
        title_fontsize=7,
    )
    axes[1, 1].annotate("vacuous above the dotted line", (1.5, 1.25), fontsize=6, color="0.35")
    return figure


def length_scale(rows: DataFrame) -> Figure:
    """Onset of length independence against the two characteristic lengths."""
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.3), sharey=True)
    for axis, length, label in (
        (axes[0], "our_length", r"$1/(|s_A| D)$: largest step"),
        (axes[1], "published_length", r"$1/(|s_A| D_{\min})$: smallest step"),
    ):
        for onset, name, marker in (("onset", "upper", "o"), ("onset_published", "published", "s")):
            text = "this work" if name == "upper" else "published"
            axis.plot(rows[length], rows[onset], marker, color=COLORS[name], label=text, mew=0)
        grid = np.geomspace(rows[length].min(), rows[length].max())
        axis.plot(grid, grid, color="0.5", linewidth=0.8, label="equal")
        axis.set(xscale="log", yscale="log", xlabel=f"characteristic length {label} (steps)")
    axes[0].set_ylabel("length with 90 % of the limit")
    axes[1].legend(loc="upper left")
    return figure


def stability_map(rows: DataFrame) -> Figure:
    """Heat maps of the capacity and of the gap over stability and step size."""
    at = rows.sort_values("T").iloc[-1]
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.5), sharey=True)
    capacity = np.asarray(at["ln_C_F"]) / _LN10
    panels = (
        (
            axes[0],
            np.minimum(capacity, 40),
            r"$\log_{10}$ capacity $C_{\mathcal{F}}$",
            "viridis",
            40,
        ),
        (
            axes[1],
            np.asarray(at["gap_parameter"]),
            "parameter-counting bound on the gap",
            "cividis",
            None,
        ),
    )
    for axis, values, label, cmap, clipped in panels:
        mesh = axis.pcolormesh(
            at["step_sizes"], at["s_A_values"], values, cmap=cmap, shading="nearest",
            rasterized=True, norm=Normalize(values.min(), values.max()),
        )  # fmt: skip
        bar = figure.colorbar(mesh, ax=axis, extend="max" if clipped else "neither", pad=0.02)
        bar.set_label(label, fontsize=7)
        axis.axhline(0, color="white", linewidth=0.8)
        axis.set(xscale="log", xlabel=r"step size $\Delta$ (time)")
    # Along these curves the model forgets within the stated number of steps.
    step = np.asarray(at["step_sizes"])
    for length, style in ((10, "-"), (100, "--"), (1000, ":")):
        curve = -1 / (length * step)
        for axis in axes:
            axis.plot(step, curve, color="white", linewidth=0.8, linestyle=style)
    axes[0].set_ylim(at["s_A_values"].min(), at["s_A_values"].max())
    axes[0].set_ylabel(r"spectral abscissa $s_A$ (1/time)")
    axes[0].set_title(f"$T = {at['T']}$")
    axes[1].set_title(rf"$T = {at['T']}$, $m = 10^{{{np.log10(at['m']):.0f}}}$")
    return figure


def capacity_terms(rows: DataFrame) -> Figure:
    """Which parameter block the capacity is paid for, over T, stable and unstable."""
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 2.2), sharey=True)
    for axis, s_A in zip(axes, (-0.5, 0.0, 0.02), strict=True):
        at = rows[rows["s_A"] == s_A].sort_values("T")
        logs = np.stack([at[f"ln_gamma_{block}"].to_numpy(float) for block in _BLOCK_NAMES])
        shares = np.exp(logs - np.logaddexp.reduce(logs, axis=0))
        axis.stackplot(at["T"], shares, colors=BLOCKS, labels=_BLOCK_NAMES.values(), linewidth=0)
        axis.set(xscale="log", xlabel="sequence length $T$", title=f"$s_A = {s_A:g}$")
        axis.set(xlim=(at["T"].min(), at["T"].max()), ylim=(0, 1))
    axes[0].set_ylabel(r"share of $\gamma = C_{\mathcal{F}}^{2/3}$")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center")
    return figure


def gap_against_samples(rows: DataFrame) -> Figure:
    """The three gap bounds and the confidence term over the sample size."""
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.3), sharey=True)
    for axis, s_A in zip(axes, sorted(rows["s_A"].unique()), strict=True):
        at = rows[rows["s_A"] == s_A].sort_values("m")
        for name in ("norm", "hybrid", "parameter"):
            axis.plot(at["m"], at[f"gap_{name}"], color=COLORS[name], label=f"{name} bound")
        axis.plot(at["m"], at["slack"], color="0.5", linewidth=0.8, label="confidence term alone")
        axis.axhline(1, color="0.6", linewidth=0.6, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="sample size $m$")
        axis.set_title(f"$s_A = {s_A:g}$, $T = {at['T'].iloc[0]}$")
    axes[0].set_ylabel("bound on the gap")
    axes[0].legend(loc="lower left")
    return figure


def rademacher_sandwich(rows: DataFrame) -> Figure:
    """Estimated complexity between the bounds, on the extremal and on random samples."""
    T = int(rows["T"].max())
    values = sorted(rows["s_A"].unique())
    figure, axes = plt.subplots(1, len(values), figsize=(FULL_WIDTH, 2.2))
    for axis, s_A in zip(np.atleast_1d(axes), values, strict=True):
        at = rows[(rows["s_A"] == s_A) & (rows["T"] == T)].sort_values("m")
        bound = at[at["sample"] == "extremal"]
        axis.plot(bound["m"], bound["upper"], color=COLORS["upper"], label="upper bound")
        axis.plot(bound["m"], bound["lower"], color=COLORS["lower"], label="lower bound")
        for sample, marker in (("extremal", "o"), ("random", "^")):
            points = at[at["sample"] == sample]
            axis.plot(
                points["m"], points["estimated"], marker, color=COLORS["measured"],
                label=f"{sample} sample",
            )  # fmt: skip
        axis.set(xlabel="sample size $m$", yscale="log", title=f"$s_A = {s_A:g}$, $T = {T}$")
        axis.set_xticks(sorted(at["m"].unique()))
    _first(axes).set_ylabel("Rademacher complexity")
    _first(axes).legend(loc="lower left", handlelength=1.2)
    return figure


def gap_holds(rows: DataFrame) -> Figure:
    """Largest gap over many models, measured exactly, below the bound."""
    figure, axis = plt.subplots(figsize=(FULL_WIDTH / 2, 2.2))
    at = rows.sort_values("m")
    axis.plot(at["m"], at["bound"], color=COLORS["upper"], label="bound (95 %)")
    low, high = at["gap_2.5%"], at["gap_97.5%"]
    axis.errorbar(
        at["m"], at["mean_gap"], (at["mean_gap"] - low, high - at["mean_gap"]), fmt="o",
        color=COLORS["measured"], capsize=2, elinewidth=0.8,
        label="largest gap of all models:\nmean, 95 % of samples",
    )  # fmt: skip
    axis.set(xscale="log", yscale="log", xlabel="sample size $m$", ylabel="generalization gap")
    axis.legend(loc="lower left", fontsize=6)
    return figure


def _first(axes: Axes | np.ndarray) -> Axes:
    return np.atleast_1d(axes)[0]
