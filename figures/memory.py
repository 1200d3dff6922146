"""Figures of the associative memories: measured facts and errors beside what theory predicts."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from pandas import DataFrame

from experiments import predictions
from figures.panels import (
    GUIDE,
    NOTE,
    exponent,
    geometric_mean,
    interval,
    label_along,
    points,
    ticks_at,
    ticks_within_decades,
    whole_numbers,
)
from figures.style import FULL_WIDTH, MEMORIES
from memory.capacity import learned_facts, outer_product_facts
from memory.cone import statistical_dimension
from memory.information import BITS_PER_PARAMETER, bits_needed, facts_limit

_TRAINED_LIMIT = 1 / (2 * math.log(2))
"""Bits per parameter of ever larger trained matrices: N log2 N over N δ(N), δ(N) ~ 2 ln N."""


def linear_memory_capacity(linear: DataFrame, trained: DataFrame) -> Figure:
    """Facts over d², and parameters per N ln N, for constructed and trained matrices."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.1))
    lines, texts = [], []
    for name, label, accuracy in (
        ("outer-product", "outer product, all facts", 1.0),
        ("outer-product", "outer product, 99 %", 0.99),
        ("pseudo-inverse", "pseudo-inverse, 99 %", 0.99),
        ("trained-linear", "trained, all facts", 1.0),
    ):
        rows = _bracketed(trained)
        if name != "trained-linear":
            rows = linear[(linear["rule"] == name) & (linear["accuracy"] == accuracy)]
        for end, of in (("", ""), ("_low", "_high"), ("_high", "_low")):
            if f"facts{of}" in rows:
                facts = rows[f"facts{of}"]
                rows = rows.assign(**{f"cost{end}": rows["parameters"] / (facts * np.log(facts))})
        parameters, facts = _predicted_linear(name, rows, accuracy)
        cost = parameters / (facts * np.log(facts))
        style = _style(name, filled=accuracy == 1)
        dashed: dict[str, Any] = dict(
            color=MEMORIES[name], linestyle="-" if accuracy == 1 else "--", linewidth=1
        )
        left.plot(parameters, facts, **dashed)
        right.plot(parameters, cost, **dashed)
        points(left, rows, "parameters", "facts", **style)
        points(right, rows, "parameters", "cost", **style)
        lines.append(Line2D([], [], marker=_MARKERS[name], mfc=style["mfc"], **dashed))
        fitted = exponent(rows["parameters"], rows["facts_log_facts"], rows["d"])
        at = np.log(rows["parameters"].unique())
        theory = np.interp(at, np.log(parameters), np.log(facts * np.log(facts)))
        expected = np.polyfit(at, theory, 1)[0] if len(at) > 1 else math.nan
        widest = int(rows["d"].max())
        constant = geometric_mean(rows.loc[rows["d"] == widest, "cost"])[0]
        texts.append(
            f"{label}: exponent {fitted} (theory {expected:.2f}), "
            f"constant {constant:.2f} (theory {cost[-1]:.2f}) at $d = {widest}$"
        )
    widths = int(linear["d"].min()), int(linear["d"].max())
    N = np.geomspace(*(float(outer_product_facts(d=d, every=True)) for d in widths))
    left.plot(8 * N * np.log(N), N, **GUIDE)
    for axis in (left, right):
        axis.set(xscale="log", xlabel="parameters $d^2$")
    left.set(yscale="log", ylabel="facts $N$")
    ticks_within_decades(left.yaxis)
    label_along(left, 8 * N * np.log(N), N, "$8 N \\ln N = d^2$", below=True, at=0.6)
    right.set(ylim=(0, None), ylabel="$d^2 / (N \\ln N)$")
    start = right.get_xlim()[0]
    for constant, text, color in (
        (8, "all facts", MEMORIES["outer-product"]), (2, "others", NOTE["color"]),
    ):  # fmt: skip
        right.axhline(constant, **GUIDE)
        right.annotate(
            rf"{text}, $d \to \infty$", (start, constant), xytext=(3, 2),
            textcoords="offset points", fontsize=6, color=color,
        )  # fmt: skip
    figure.legend(
        lines, texts, loc="outside lower center", fontsize=6, handlelength=2.6,
        title=r"fits of $N \ln N$ against $d^2$", title_fontsize=6.5,
    )  # fmt: skip
    return figure


def _predicted_linear(name: str, rows: DataFrame, accuracy: float) -> tuple[np.ndarray, np.ndarray]:
    """Parameters and facts of a prediction over the widths of the rows."""
    low, high = int(rows["d"].min()), int(rows["d"].max())
    if name == "trained-linear":
        N = whole_numbers(*(float(learned_facts(parameters=d**2)) for d in (low, high)))
        return N * np.array([statistical_dimension(int(each)) for each in N]), N

    def facts(d: int) -> int:
        if name == "outer-product":
            return predictions.outer_product(d, accuracy=accuracy)
        return predictions.readout(d, d, accuracy=accuracy)

    widths = whole_numbers(low, high)
    return widths**2, np.array([facts(int(d)) for d in widths], dtype=float)


def mlp_memory_capacity(kernel: DataFrame, readout: DataFrame, trained: DataFrame) -> Figure:
    """Facts over m d of constructed and trained networks, for many and for few outputs."""
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.9))
    ratios = sorted({*kernel["ratio"], *readout["ratio"], *trained["ratio"]})
    shapes = dict(zip(ratios, "ovs^DPX<>*hd", strict=False))
    outputs = int(trained["M"].dropna().iloc[0])
    for axis, growing in zip(axes, (True, False), strict=True):
        cases = []
        if growing:
            for activation, title in (("quadratic", "quadratic"), ("relu", "ReLU")):
                rows = kernel[kernel["activation"] == activation]
                cases.append((f"kernel-{activation}", f"kernel, {title}", rows))
        cases.append(("mlp-readout", "least squares", readout[readout["growing"] == growing]))
        rows = _bracketed(trained[trained["growing"] == growing])
        cases.append(("trained-mlp", "both layers trained", rows))
        for name, label, rows in cases:
            count = rows["facts_log_facts"] if growing else rows["facts"]
            sizes = rows["d"].astype(str) + " " + rows["ratio"].astype(str)
            text = f"{label}: {exponent(rows['parameters'], count, sizes)}"
            axis.plot([], [], "s", color=MEMORIES[name], label=text)
            for ratio, at in rows.groupby("ratio"):
                if "predicted" in at:
                    line = at.groupby("parameters")["predicted"].first()
                    axis.plot(line.index, line, color=MEMORIES[name], linewidth=0.8)
                style = _style(name) | dict(fmt=shapes[ratio])
                points(axis, at, "parameters", "facts", **style)
        layer = np.geomspace(trained["parameters"].min(), trained["parameters"].max(), 12)
        M = None if growing else outputs
        counted = [float(learned_facts(parameters=round(2 * each), M=M)) for each in layer]
        axis.plot(layer, counted, "--", color=MEMORIES["trained-mlp"], linewidth=0.8)
        axis.set(xscale="log", yscale="log", xlabel="parameters of one layer, $m d$")
        ticks_within_decades(axis.yaxis)
        law = r"$N \delta(N) = 2 m d$" if growing else rf"$N \delta({outputs}) = 2 m d$"
        label_along(axis, layer, np.array(counted), law, below=True, at=0.6)
        axis.set_title("new output for every fact" if growing else f"{outputs} outputs")
        power = r"$N \ln N$" if growing else "$N$"
        low, high = axis.get_ylim()
        axis.set_ylim(low, high * (1 if growing else (high / low) ** 0.25))  # room for the legend
        axis.legend(
            loc="upper left", fontsize=6, title_fontsize=6,
            title=f"exponent of {power} in $m d$", alignment="left", handletextpad=0.2,
        )  # fmt: skip
    axes[0].set_ylabel("facts $N$, 99 % recalled")
    figure.legend(
        handles=[
            *(_key(f"$m/d = {each}$", shapes[each]) for each in ratios),
            Line2D([], [], color="0.4", linewidth=0.8, label="predicted"),
        ],
        loc="outside lower center", ncols=len(ratios) + 1, fontsize=6, handletextpad=0.3,
    )  # fmt: skip
    return figure


def attention_memory_capacity(rows: DataFrame) -> Figure:
    """Facts over the parameters of the outputs, for heads that gate and heads that do not."""
    figure, axes = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.5), sharex=True, sharey=True)
    widths, heads = sorted(rows["d"].unique()), sorted(rows["head_dim"].unique())
    shapes = dict(zip(widths, "os^Dv", strict=False))
    fills = dict(zip(heads, ("full", "none", "left", "right"), strict=False))
    color = MEMORIES["attention"]
    for axis, attention in zip(axes, ("gating", "uniform"), strict=True):
        chosen = rows[rows["attention"] == attention]
        for d in widths:
            at = chosen[chosen["d"] == d]
            line = at.groupby("parameters")["predicted"].first()
            axis.plot(line.index, line, color="0.4", linewidth=0.8)
            if attention == "uniform":
                last = d == widths[-1]
                axis.annotate(
                    rf"one ${d} \times {d}$ matrix", (line.index[-1], line.iloc[-1]),
                    xytext=(0, 5) if last else (6, 0), textcoords="offset points",
                    ha="right" if last else "left", va="bottom" if last else "center", **NOTE,
                )  # fmt: skip
            for head in heads:
                points(
                    axis, at[at["head_dim"] == head], "parameters", "facts", fmt=shapes[d],
                    color=color, fillstyle=fills[head], mew=0.8,
                )  # fmt: skip
        sizes = chosen[["d", "ratio", "head_dim"]].astype(str).agg(" ".join, axis=1)
        fitted = exponent(chosen["parameters"], chosen["facts"], sizes)
        axis.set(xscale="log", yscale="log", xlabel=r"parameters $H d_h\, d$")
        axis.set_title(f"{attention} attention")
        axis.annotate(f"exponent {fitted}", (0.97, 0.05), xycoords="axes fraction", ha="right",
                      fontsize=6)  # fmt: skip
    ticks_within_decades(axes[0].yaxis)
    axes[0].set_ylabel("facts $N$, 99 % recalled")
    keys = [_key(f"$d = {d}$", shapes[d]) for d in widths]
    keys += [_key(f"$d_h = {head}$", "o", color=color, fillstyle=fills[head]) for head in heads]
    keys.append(Line2D([], [], color="0.4", linewidth=0.8, label="predicted"))
    axes[0].legend(handles=keys, loc="upper left", fontsize=6)
    return figure


def guarantee_against_capacity(rows: DataFrame) -> Figure:
    """Guaranteed and measured facts over d, for the guarantees before and after the keys."""
    titles = {
        "a priori": ("outer product, a priori", "outer-product"),
        "certificate": ("outer product, certified", "outer-product"),
        "readout certificate": ("MLP readout, certified", "mlp-readout"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(FULL_WIDTH, 2.2), sharex=True, sharey=True)
    for axis, (guarantee, (title, name)) in zip(axes, titles.items(), strict=True):
        at = rows[rows["guarantee"] == guarantee]
        for d, draws in at.groupby("d"):
            promised, found, factor = (
                geometric_mean(draws[column])[0] for column in ("guaranteed", "facts", "slack")
            )
            axis.plot([d, d], [promised, found], **GUIDE)
            axis.annotate(
                rf"$\times${factor:.1f}", (d, found), fontsize=6, ha="center", xytext=(0, 5),
                textcoords="offset points",
            )  # fmt: skip
        promised = at.groupby("d")["guaranteed"].apply(lambda draws: geometric_mean(draws)[0])
        axis.plot(promised.index, promised, color=MEMORIES[name], linewidth=1)
        points(axis, at, "d", "guaranteed", **_style(name, marker="o", filled=False))
        points(axis, at, "d", "facts", **_style(name, marker="o"))
        axis.set(xscale="log", yscale="log", xlabel="dimension $d$", title=title)
        ticks_at(axis.xaxis, rows["d"])
        axis.margins(x=0.2, y=0.12)
    ticks_within_decades(axes[0].yaxis)
    axes[0].set_ylabel("facts, all recalled")
    axes[0].legend(
        handles=[
            _key("measured capacity", "o", color=MEMORIES["outer-product"]),
            _key("guaranteed", "o", color=MEMORIES["outer-product"], fillstyle="none"),
        ],
        loc="upper left", fontsize=6,
    )  # fmt: skip
    return figure


_MARKERS = {
    "outer-product": "o", "one-bit": "o", "two-bit": "s", "low-rank": "D", "projection": "^",
    "pseudo-inverse": "D", "trained-linear": "s", "kernel-quadratic": "^", "kernel-relu": "v",
    "mlp-readout": "o", "trained-mlp": "s", "attention": "P", "linear-attention": "<",
    "delta-rule": ">", "diagonal-ssm": "X", "hopfield": "*",
}  # fmt: skip
_HOLLOW = {"one-bit", "two-bit", "low-rank", "projection"}
"""Outer products with fewer bits, ranks or coordinates."""


def memory_families(rows: DataFrame, linear: DataFrame, mlp: DataFrame) -> Figure:
    """Facts over learned parameters, and bits per parameter, of every kind of memory."""
    from memory.families import FAMILIES  # it brings in torch, which no other figure needs

    table = _families(rows, linear, mlp)
    titles = {name: family.title.replace("d/2", "$d/2$") for name, family in FAMILIES.items()}
    titles |= {"trained-linear": "Matrix, trained", "trained-mlp": "MLP, both layers trained"}
    largest = table.groupby("family")["parameters"].transform("max") == table["parameters"]
    means = (
        table[largest].groupby("family")["density"].apply(lambda draws: geometric_mean(draws)[0])
    )
    order = list(means.sort_values().index)
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 3.2), width_ratios=(1, 0.85))
    for place, name in enumerate(order):
        style = _style(name, filled=name not in _HOLLOW)
        at = table[table["family"] == name]
        for _, draws in at.groupby("size"):
            points(left, draws, "parameters", "facts", **style)
            top = draws["parameters"].max() == at["parameters"].max()
            faint = {} if top else dict(alpha=0.35, markersize=2.5)
            estimate, low, high = interval(draws, "density")
            right.errorbar(
                [estimate], [place], xerr=[[estimate - low], [high - estimate]],
                elinewidth=0.8, **(style | faint),
            )  # fmt: skip
    left.set(xscale="log", yscale="log", xlabel="learned parameters", ylabel="facts $N$")
    limits = left.get_xlim(), left.get_ylim()
    parameters = np.geomspace(*limits[0], 40)
    for bits, text in (
        (BITS_PER_PARAMETER, "2 bits per parameter"),
        (32, "information limit, 32 bits"),
    ):
        most = np.array([float(facts_limit(bits=bits * each, error=0.01)) for each in parameters])
        left.plot(parameters, most, **GUIDE)
        shown = most < 2 * limits[1][1]
        left.set(xlim=limits[0], ylim=(limits[1][0], 2 * limits[1][1]))
        label_along(left, parameters[shown], most[shown], text, at=0.7)
    right.set(xscale="log", xlabel="bits per learned parameter", ylim=(-0.7, len(order) - 0.3))
    right.set_yticks(range(len(order)), [titles[name] for name in order], fontsize=6)
    for value, text in (
        (BITS_PER_PARAMETER, "language models"),
        (_TRAINED_LIMIT, r"trained matrices, $d \to \infty$"),
    ):
        right.axvline(value, zorder=0, **GUIDE)
        right.annotate(
            f"{value:.2g}: {text}", (value, -0.5), rotation=90, ha="right", va="bottom",
            xytext=(-1, 0), textcoords="offset points", **NOTE,
        )  # fmt: skip
    return figure


def _families(rows: DataFrame, linear: DataFrame, mlp: DataFrame) -> DataFrame:
    """Family, size, learned parameters, facts and bits per parameter of every draw."""
    linear = _bracketed(linear).assign(family="trained-linear", size=linear["d"].astype(str))
    mlp = mlp[mlp["growing"]]
    sizes = mlp["d"].astype(str) + " " + mlp["ratio"].astype(str)
    mlp = _bracketed(mlp).assign(
        family="trained-mlp", size=sizes, parameters=mlp["stored_parameters"]
    )
    for table, error in ((linear, 0.0), (mlp, 0.01)):
        for end in ("", "_low", "_high"):
            N = [math.floor(facts) for facts in table[f"facts{end}"]]
            bits = [float(bits_needed(N=n, M=n, assignment="injective", error=error)) for n in N]
            table[f"density{end}"] = bits / table["parameters"]
    rows = rows.assign(size=rows["d"].astype(str))
    table = pandas.concat([rows, linear, mlp], ignore_index=True)
    for column in ("facts", "density"):
        for end in ("_low", "_high"):
            table[column + end] = table[column + end].fillna(table[column])
    return table


def _bracketed(trained: DataFrame) -> DataFrame:
    """With the loads between which a capacity lies as ends of its interval."""
    return trained.assign(facts_low=trained["floor"], facts_high=trained["ceiling"])


def _style(name: str, *, marker: str | None = None, filled: bool = True) -> dict[str, Any]:
    color = MEMORIES[name]
    fmt = marker or _MARKERS[name]
    return dict(fmt=fmt, color=color, mfc=color if filled else "white", mew=0.8)


def _key(label: str, marker: str, color: str = "0.4", fillstyle: Any = "full") -> Line2D:
    """Entry of a legend for a marker."""
    return Line2D(
        [], [], marker=marker, color=color, fillstyle=fillstyle, linestyle="", mew=0.8, label=label
    )
