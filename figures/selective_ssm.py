"""Figures of the bounds for selective state-space models; each takes the rows of its study."""

from __future__ import annotations

import re
from itertools import chain

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from pandas import DataFrame

from bounds.errata import ERRATA
from experiments.intervals import mean, rate
from figures.style import BLOCKS, COLORS, FULL_WIDTH

_LN10 = np.log(10)
_LINE_STYLES = ("-", "--", "-.", ":")
_LAW_TEXT = {
    "1": "$T^0$", "polylog T": "polylog", "sqrt(T)": r"$\sqrt{T}$", "T": "$T$", "T^2": "$T^2$",
    "exp(T)": "exponential",
}  # fmt: skip
_BLOCK_NAMES = {
    "w": "readout $w$", "B": "$W_B$", "C": "$W_C$", "A": "state matrix $A$",
    "q": "step projection $q$", "p": "step bias $p$",
}  # fmt: skip


def bound_against_length(rows: DataFrame) -> Figure:
    """Rademacher complexity and gap over T, below, at and above the stability threshold."""
    figure, axes = plt.subplots(2, 3, figsize=(FULL_WIDTH, 3.6), sharex="col")
    m = int(rows["m"].iloc[0])
    for column, (s_A, regime) in enumerate(
        ((-0.5, "stable"), (0.0, "threshold"), (0.02, "unstable"))
    ):
        at = rows[(rows["s_A"] == s_A) & (rows["T"] <= (1e3 if s_A > 0 else 1e6))].sort_values("T")
        top, bottom = axes[:, column]
        top.set_title(f"$s_A = {s_A:g}$ ({regime})")
        for name, label in (
            ("published", "published upper"),
            ("upper", "upper bound"),
            ("lower", "lower bound"),
        ):
            values = np.exp(at[f"ln_{name}"].to_numpy(float))
            if not np.isnan(values).all():
                top.plot(at["T"], values, color=COLORS[name], label=label)
        for name in ("norm", "hybrid", "parameter"):
            bottom.plot(at["T"], at[f"gap_{name}"], color=COLORS[name], label=f"{name} bound")
        bottom.axhline(1, color="0.6", linewidth=0.6, linestyle=":")
        bottom.set(ylim=(1e-5, 3), xlabel="sequence length $T$")
        for axis in (top, bottom):
            axis.set(xscale="log", yscale="log")
    axes[0, 0].set_ylabel("Rademacher complexity")
    axes[1, 0].set_ylabel("bound on the gap")
    size = f"$m = 10^{{{np.log10(m):.0f}}}$"
    axes[1, 0].annotate(size, (0.95, 0.84), xycoords="axes fraction", fontsize=7, ha="right")
    legends = [axis.get_legend_handles_labels() for axis in (axes[0, 0], axes[1, 0])]
    handles, labels = (list(chain(*parts)) for parts in zip(*legends, strict=True))
    figure.legend(
        handles, labels, loc="outside lower center", ncols=6, columnspacing=1, handlelength=1.2
    )
    axes[1, 2].annotate("vacuous", (1.2, 1.2), fontsize=6, color="0.35")
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
        grid = np.geomspace(max(1.0, rows[length].min()), rows[length].max())
        axis.plot(grid, grid, color="0.5", linewidth=0.8, label="equal")
        axis.set(xscale="log", yscale="log", xlabel=f"characteristic length {label} (steps)")
    axes[0].set_ylabel("length with 90 % of the limit")
    axes[1].legend(loc="upper left")
    return figure


def stability_map(rows: DataFrame) -> Figure:
    """Heat maps of the capacity and of the gap over stability and step size."""
    at = rows.sort_values("T").iloc[-1]
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.5), sharey=True)
    capacity, gap = np.asarray(at["ln_C_F"]) / _LN10, np.asarray(at["gap_parameter"])
    panels = (
        (axes[0], capacity, r"$\log_{10}$ capacity $C_{\mathcal{F}}$", Normalize(vmax=12), "max"),
        (axes[1], gap, "parameter-counting bound on the gap", LogNorm(), "neither"),
    )
    for axis, values, label, norm, extend in panels:
        mesh = axis.pcolormesh(
            at["step_sizes"], at["s_A_values"], values, cmap="viridis", shading="nearest",
            rasterized=True, norm=norm,
        )  # fmt: skip
        bar = figure.colorbar(mesh, ax=axis, extend=extend, pad=0.02)
        bar.set_label(label, fontsize=7)
        axis.axhline(0, color="white", linewidth=0.8)
        axis.set(xscale="log", xlabel=r"largest step size $D$ (time)")
    # Along these curves the model forgets within the stated number of steps.
    step = np.asarray(at["step_sizes"])
    for length, style in ((10, "-"), (100, "--"), (1000, ":")):
        curve = -1 / (length * step)
        for axis in axes:
            axis.plot(step, curve, color="white", linewidth=0.8, linestyle=style)
            axis.annotate(
                f"{length}", (1 / (length * 0.27), -0.27), color="white", fontsize=6,
                textcoords="offset points", xytext=(-2, 0), ha="right",
            )  # fmt: skip
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
    figure, axes = plt.subplots(
        1, len(values), figsize=(FULL_WIDTH, 2.4), sharey=True, squeeze=False
    )
    for axis, s_A in zip(axes[0], values, strict=True):
        at = rows[(rows["s_A"] == s_A) & (rows["T"] == T)].sort_values("m")
        extremal = at[at["sample"] == "extremal"]
        reach = extremal["lower"].iloc[0]  # at m = 1 the lower bound is the output range
        for name in ("upper", "lower"):
            axis.plot(
                extremal["m"], extremal[name] / reach, color=COLORS[name], label=f"{name} bound"
            )
        for sample, marker in (("extremal", "o"), ("random", "^")):
            points = at[at["sample"] == sample]
            axis.plot(
                points["m"], points["estimated"] / reach, marker, color=COLORS["measured"],
                label=f"{sample} sample",
            )  # fmt: skip
        axis.set(xlabel="sample size $m$", yscale="log", title=f"$s_A = {s_A:g}$, $T = {T}$")
        axis.set_xticks(sorted(at["m"].unique()))
    axes[0, 0].set_ylabel(r"Rademacher complexity $/\; b$")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def rademacher_large_samples(rows: DataFrame) -> Figure:
    """Estimated complexity of large samples below the entropy and hybrid bounds."""
    values = sorted(rows["s_A"].unique())
    figure, axes = plt.subplots(1, len(values), figsize=(FULL_WIDTH, 2.4), squeeze=False)
    for axis, s_A in zip(axes[0], values, strict=True):
        at = rows[rows["s_A"] == s_A].groupby("m")
        first = at.first()
        for column, color, label in (
            ("chained", COLORS["norm"], "entropy integral"),
            ("hybrid", COLORS["hybrid"], "hybrid bound"),
            ("range", "0.5", "trivial: output range"),
        ):
            style = ":" if column == "range" else "-"
            axis.plot(first.index, first[column], style, color=color, label=label)
        found = [mean(group["estimated"].to_numpy(), 0.95) for _, group in at]
        estimate = np.array([interval.estimate for interval in found])
        spread = np.abs([[i.low for i in found], [i.high for i in found]] - estimate)
        axis.errorbar(
            first.index, estimate, spread, fmt="o", color=COLORS["measured"], capsize=2,
            elinewidth=0.8, label="estimate, 95 % over seeds",
        )  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel="sample size $m$", title=f"$s_A = {s_A:g}$")
    axes[0, 0].set_ylabel("Rademacher complexity")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
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


def architectures(rows: DataFrame) -> Figure:
    """Capacities over T for each architecture, norm-based and parameter-counting apart."""
    figure, axes = plt.subplots(2, 2, figsize=(FULL_WIDTH, 4.0), height_ratios=(1, 0.72))
    for axis, below, mode in zip(*axes, ("norm", "parameter"), strict=True):
        chosen = rows[(rows["mode"] == mode) & (rows["T"] <= 1e5)]
        used: dict[str, int] = {}
        for _, at in chosen.groupby("row", sort=False):
            first = at.iloc[0]
            style = _LINE_STYLES[used.setdefault(first["architecture"], 0)]
            used[first["architecture"]] += 1
            case = f" ({first['case']})" if first["case"] else ""
            axis.plot(
                at["T"], at["ln_C"] / _LN10, color=COLORS[first["architecture"]], linestyle=style,
                label=_typeset(f"{first['architecture']}{case}: ") + _LAW_TEXT[first["law"]],
            )  # fmt: skip
        axis.set(xscale="log", xlabel="sequence length $T$", title=f"{mode} mode")
        below.axis("off")
        entries = axis.get_legend_handles_labels()
        below.legend(*entries, loc="upper center", fontsize=6, handlelength=2.4)
    axes[0, 0].set_ylim(-0.5, 16)
    axes[0, 0].set_ylabel(r"$\log_{10}$ capacity")
    axes[0, 1].set_ylabel(r"$\log_{10}\sqrt{\ln N}$")
    return figure


def errata(rows: DataFrame) -> Figure:
    """Share of random instances that violate each statement, as printed and corrected."""
    figure, axis = plt.subplots(figsize=(FULL_WIDTH, 1.7))
    place = np.arange(len(rows))[::-1]
    for version, name, offset in (("printed", "published", 0.12), ("corrected", "upper", -0.12)):
        counts = zip(rows[f"{version}_violations"], rows["instances"], strict=True)
        found = [rate(int(violations), int(tested), 0.95) for violations, tested in counts]
        estimate = np.array([interval.estimate for interval in found])
        spread = np.abs([[i.low for i in found], [i.high for i in found]] - estimate)
        axis.errorbar(
            estimate, place + offset, xerr=spread, fmt="o", color=COLORS[name], capsize=2,
            elinewidth=0.8, label=f"as {version}" if version == "printed" else version,
        )  # fmt: skip
    titles = {erratum.code: erratum.title for erratum in ERRATA}
    axis.set_yticks(
        place, [_typeset(f"{code}: {titles[code]}") for code in rows["erratum"]], fontsize=6
    )
    axis.set(xlim=(-0.03, 1.03), xlabel="share of random instances that violate it (95 % interval)")
    axis.legend(loc="center")
    return figure


def _typeset(text: str) -> str:
    """Plain text with its symbols (s_A, S_2, ||A||) in mathematical type."""
    text = re.sub(r"\b([A-Za-z])_(\w+)", r"$\1_{\2}$", text)
    return text.replace("||A||", r"$\|A\|$")
