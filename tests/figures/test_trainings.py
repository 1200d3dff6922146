"""Figures of trainings from unstable starts show the runs, and what became of them."""

from __future__ import annotations

import numpy as np
import pandas

from figures.style import COLORS
from tests.figures.classified import TABLES, drawn, lines_of, markers_of, rates, starts


def test_trails_of_training_are_those_of_the_runs():
    rows = starts()
    top, bottom, *_ = drawn("unstable-start", rows, rates()).axes
    majority = rows[rows["task"] == "majority"]
    for axis, column in ((top, "losses"), (bottom, "spectral_abscissas")):
        shown = [line for line in axis.lines if len(line.get_xdata()) == 3]
        assert len(shown) == len(majority)
        for line, (_, run) in zip(shown, majority.iterrows(), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), [0, 1, 2])
            np.testing.assert_array_equal(line.get_ydata(), run[column])
            assert line.get_linestyle() == ("--" if run["precision"] == "float64" else "-")


def test_failed_and_diverged_runs_are_marked():
    axes = drawn("unstable-start", starts(), rates()).axes
    crosses, circles = (
        [[line.get_xdata()[0] for line in axis.lines if line.get_marker() == marker]
         for axis in axes[:4]]
        for marker in ("X", "o")
    )  # fmt: skip
    assert crosses == [[], [], [1.5], [1.5]]  # within the epoch
    assert circles == [[2], [2], [], []]
    (legend,) = (axis.get_legend() for axis in axes if not axis.axison)
    assert {"diverged", "failed"} < {text.get_text() for text in legend.get_texts()}


def test_initial_rates_are_shown_against_both_predictions():
    initial = rates()
    law = drawn("unstable-start", starts(), initial).axes[4]
    ours = markers_of(law, COLORS["upper"], "o")
    np.testing.assert_allclose(ours, initial[["largest_step_rate", "rate"]])
    published = markers_of(law, COLORS["published"], "x")
    np.testing.assert_allclose(published[:, 0], initial["rate"] / 9)
    ((x, y),) = lines_of(law, "0.4")
    np.testing.assert_array_equal(x, y)


def test_unstable_start_is_drawn_where_no_initial_loss_grew():
    drawn("unstable-start", starts(), pandas.DataFrame([]))


def test_sweep_shows_means_before_and_after():
    (rows,) = TABLES["start-sweep"]()
    ends = drawn("start-sweep", rows).axes
    by_start = rows.groupby("s_A")
    after = markers_of(ends[0], "black", "o")
    np.testing.assert_allclose(after[:, 1], by_start["final_s_A"].mean())
    for axis, end in ((ends[1], "growth"), (ends[2], "loss")):
        for when, fill in (("initial", "white"), ("final", "black")):
            means = by_start[f"{when}_{end}"].mean()
            if end == "loss":
                means = np.exp(np.log(rows[f"{when}_loss"]).groupby(rows["s_A"]).mean())
            shown = [
                line.get_ydata()[0]
                for line in axis.lines
                if line.get_marker() == "o" and line.get_markerfacecolor() == fill
            ]
            np.testing.assert_allclose(shown, means)
        low, high = axis.get_ylim()
        assert low < rows[[f"initial_{end}", f"final_{end}"]].to_numpy().min()
        assert high > rows[[f"initial_{end}", f"final_{end}"]].to_numpy().max()
