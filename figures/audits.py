"""The audits of trained models as a table: what holds for them, beside the measured gap."""

from __future__ import annotations

import math
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from experiments.intervals import mean
from figures.classifiers import kinds
from figures.gap_bounds import BOUNDS, abscissas, log10_bound
from figures.panels import NOTE
from figures.style import FULL_WIDTH

_COLUMNS: tuple[tuple[str, float, str], ...] = (
    ("model", 0.0, "left"), ("$T$", 0.215, "right"), ("$m$", 0.275, "right"),
    ("case", 0.345, "right"), ("models", 0.405, "right"), ("final $s_A$", 0.475, "right"),
    (r"mean $\Delta$", 0.54, "right"), ("growth", 0.6, "right"), ("norm", 0.66, "right"),
    ("hybrid", 0.72, "right"), ("param.", 0.78, "right"), ("publ.", 0.835, "right"),
    ("Occam", 0.895, "right"), ("gap", 1.0, "right"),
)  # fmt: skip
"""Columns of the table of audits: title, where they end (or begin), alignment."""
_LINE = 0.135
"""Inches of a line of the table."""


def audits_of_trained_models(length: DataFrame, certified: DataFrame) -> Figure:
    """Table: what holds for the trained models of two studies, each cell over their seeds."""
    lines: list[list[str] | str] = []
    for study, rows in (("over the length", length), ("over the samples", certified)):
        lines.append(study)
        for title, at in kinds(rows):
            stable = abscissas(at).fillna(-1) < 0  # Mamba is stable by construction
            for (T, m, kind), models in at.groupby(["T", "m", ~stable]):
                case = r"$s_A \geq 0$" if kind else "$s_A < 0$"
                lines.append([title, str(T), str(m), case, str(len(models)), *_audit(models)])
    height = 0.6 + _LINE * len(lines)
    figure, axis = plt.subplots(figsize=(FULL_WIDTH, height))
    axis.axis("off")
    axis.set(xlim=(0, 1), ylim=(height, 0))
    style: dict[str, Any] = dict(fontsize=6, va="center")
    axis.text(0.73, 0.08, r"$\log_{10}$ of bound on the gap", ha="center", **style)
    axis.plot([0.625, 0.835], [0.15, 0.15], color="black", linewidth=0.4)
    for title, x, align in _COLUMNS:
        axis.text(x, 0.23, title, ha=align, **style)
    for number, line in enumerate(lines):
        y = 0.4 + _LINE * number
        if isinstance(line, str):
            axis.text(0, y, line, style="italic", ha="left", **style)
            continue
        for (_, x, align), cell in zip(_COLUMNS, line, strict=True):
            weight = "bold" if cell.startswith("*") else "normal"
            axis.text(x, y, cell.lstrip("*"), ha=align, weight=weight, **style)
    for y in (0.31, height - 0.24):
        axis.plot([0, 1], [y, y], color="black", linewidth=0.6)
    axis.text(
        0, height - 0.12, "Means over seeds, with 95 % for the gap of the ramp loss. Bold: below "
        "what is trivial. Growth: $s_A$ times the sum of the steps.",
        **(style | NOTE | dict(fontsize=5.5)),
    )  # fmt: skip
    return figure


def _audit(models: DataFrame) -> list[str]:
    """Cells of the models of one row from the final s_A on; a star is for bold."""
    missing = Series(np.nan, models.index)
    cells = [
        _cell(abscissas(models), "{:z.3f}"),
        _cell(models.get("mean_step", missing), "{:z.3f}"),
        _cell(models.get("growth", missing), "{:z.1f}"),
    ]
    for name in BOUNDS:
        values = log10_bound(models, name)
        cell = _cell(values, "{:z.1f}" if values.abs().max() < 100 else "{:z.0f}")
        cells.append(f"*{cell}" if values.mean() < 0 else cell)
    risk = models["occam_risk"].mean()
    cells.append(f"{'*' if risk < models['guessing_error'].mean() else ''}{risk:.2f}")
    gap = mean(models["ramp_gap"].to_numpy(float), 0.95)
    half = f" ± {gap.high - gap.estimate:.3f}" if math.isfinite(gap.high) else ""
    return [*cells, f"{gap.estimate:z.3f}{half}".replace("-", "−")]


def _cell(values: Series, form: str) -> str:
    """The mean of what there is, with a proper minus, and none before a zero."""
    found = values.dropna()
    return "–" if found.empty else form.format(found.mean()).replace("-", "−")
