"""Figures of outer-product memories: errors over the load, and fewer bits per weight."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from figures.panels import (
    GUIDE,
    NOTE,
    label_along,
    points,
    ticks_at,
    ticks_within_decades,
    whole_numbers,
)
from figures.style import FULL_WIDTH, shades
from memory import retrieval
from memory.crosstalk import outer_product
from memory.information import bits_needed


def retrieval_error(rows: DataFrame) -> Figure:
    """Errors over the load, and the load at which infinite width would have them."""
    M = int(rows["M"].max())
    rows = rows[rows["M"] == M]
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.4))
    widths = sorted(int(d) for d in rows["d"].unique())
    load = np.geomspace(0.9 * rows["load"].min(), 1.1 * rows["load"].max(), 40)
    wide = np.geomspace(load[0] / 2, 4 * load[-1], 120)
    limit = np.array([float(retrieval.limiting_retrieval_error(load=a, M=M)) for a in wide])
    for d, color in zip(widths, shades(len(widths)), strict=True):
        N = whole_numbers(max(2, load[0] * d**2), min(M, load[-1] * d**2), 30)
        error = [_outer_product_error(int(n), M, d) for n in N]
        left.plot(N / d**2, error, color=color, linewidth=1)
        equivalent = np.exp(np.interp(np.log(error), np.log(limit), np.log(wide)))
        right.plot(N / d**2, equivalent, color=color, linewidth=1)
        at = rows[rows["d"] == d]
        points(left, at, "load", "error", fmt="o", color=color)
        points(right, at, "load", "equivalent_load", fmt="o", color=color)
        left.plot([], [], "-o", color=color, linewidth=1, label=f"$d = {d}$")
    left.plot(load, np.interp(load, wide, limit), "--", color="black", linewidth=1,
              label=r"$d \to \infty$")  # fmt: skip
    right.plot(load, load, "--", color="black", linewidth=1)
    for axis in (left, right):
        axis.set(xscale="log", yscale="log", xlabel="load $N/d^2$")
        ticks_at(axis.xaxis, rows["load"])
    ticks_within_decades(left.yaxis)
    ticks_at(right.yaxis, rows["load"])
    label_along(right, load, load, "equal", below=True)
    left.set_ylabel("share of wrong answers")
    left.annotate(f"$M = {M}$ outputs", (0.04, 0.9), xycoords="axes fraction", fontsize=7)
    right.set_ylabel(r"load of equal error at $d \to \infty$")
    left.legend(loc="lower right")
    return figure


def _outer_product_error(N: int, M: int, d: int) -> float:
    return retrieval.retrieval_error(outer_product(N=N, key_dimension=d), N=N, M=M, d=d)


def memory_quantization(rows: DataFrame) -> Figure:
    """Facts kept and bits of information per stored bit, over the bits per weight."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(FULL_WIDTH, 2.3))
    widths = sorted(int(d) for d in rows["d"].unique())
    for place, (d, color) in enumerate(zip(widths, shades(len(widths)), strict=True)):
        at = rows[rows["d"] == d]
        first = at.groupby("bits").first()
        left.plot(first.index, first["predicted_kept"], color=color, linewidth=1)
        N = first["predicted"].astype(int)
        needed = [float(bits_needed(N=n, M=n, assignment="injective", error=0.01)) for n in N]
        right.plot(first.index, needed / first["stored_bits"], color=color, linewidth=1)
        # Side by side, so that the intervals of all widths can be seen.
        shifted = at.assign(bits=at["bits"] * 1.05 ** (place - (len(widths) - 1) / 2))
        points(left, shifted, "bits", "kept", fmt="o", color=color)
        points(right, at, "bits", "density", fmt="o", color=color)
        left.plot([], [], "-o", color=color, linewidth=1, label=f"$d = {d}$")
    for axis in (left, right):
        axis.set(xscale="log", xlabel="bits per weight")
        ticks_at(axis.xaxis, rows["bits"])
        axis.axhline(1, **GUIDE)
    left.set(ylim=(0.5, None), ylabel="facts, relative to single precision")
    right.set(yscale="log", ylabel="bits of facts per stored bit")
    right.annotate(
        "information limit", (right.get_xlim()[1], 1), xytext=(0, -7), ha="right",
        textcoords="offset points", **NOTE,
    )  # fmt: skip
    left.legend(loc="lower right")
    return figure
