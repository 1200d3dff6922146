"""Figures of measured gaps show the means of their tables, and what is certified beside them."""

from __future__ import annotations

import numpy as np

from figures.style import COLORS
from figures.trained_gaps import _SAMPLES
from tests.figures.classified import TABLES, classifiers, drawn, lines_of, markers_of


def test_accuracies_and_gaps_over_the_length():
    rows = classifiers()
    axes = np.reshape(drawn("trained-gap-against-length", rows).axes, (3, 2))
    at = rows[rows["frozen"]].groupby("T")
    for name, (color, marker, _) in _SAMPLES.items():
        shown = markers_of(axes[0, 0], color, marker)
        np.testing.assert_allclose(shown[:, 1], 1 - at[f"{name}_error"].mean())
    noisy, clean = (_SAMPLES[name][0] for name in ("fresh", "test"))
    np.testing.assert_allclose(lines_of(axes[0, 0], noisy), [[[50, 100], [0.95, 0.95]]])
    np.testing.assert_allclose(lines_of(axes[0, 0], clean), [[[50, 100], [0.88, 0.88]]])
    np.testing.assert_allclose(lines_of(axes[1, 0], clean), [[[50, 100], [0.07, 0.07]]])
    np.testing.assert_allclose(markers_of(axes[1, 0], noisy, "s")[:, 1], at["gap"].mean())
    reported = markers_of(axes[1, 0], clean, "^")
    np.testing.assert_allclose(reported[:, 1], at["reported_gap"].mean())


def test_gaps_over_stability():
    (rows,) = TABLES["trained-gap-against-stability"]()
    axes = np.reshape(drawn("trained-gap-against-stability", rows).axes, (2, 2))
    assert [axis.get_title() for axis in axes[0]] == [r"$\Delta = 0.018$", r"$\Delta = 0.69$"]
    at = rows[rows["step_logit"] == -4].groupby("s_A")
    shown = markers_of(axes[0, 0], COLORS["measured"], "o")
    np.testing.assert_allclose(shown, at["ramp_gap"].mean().reset_index())
    (norm,) = lines_of(axes[1, 0], COLORS["norm"])
    np.testing.assert_allclose(norm.T, at["log10_norm"].mean().reset_index())
    (published,) = lines_of(axes[1, 0], COLORS["published"]) or [np.empty((2, 0))]
    assert not (published[0] >= 0).any()


def test_certified_bounds_over_the_samples():
    (rows,) = TABLES["certified-gap"]()
    left, right = drawn("certified-gap", rows).axes
    by_m = rows.groupby("m")
    ((x, occam),) = lines_of(left, COLORS["upper"])
    np.testing.assert_array_equal(x, [250, 1000, 4000])
    np.testing.assert_allclose(occam, by_m["occam_risk"].mean())
    for name in ("train", "fresh"):
        color, marker, _ = _SAMPLES[name]
        shown = markers_of(left, color, marker)
        np.testing.assert_allclose(shown[:, 1], by_m[f"quantised_{name}_error"].mean())
    (parameter,) = lines_of(right, COLORS["parameter"])
    np.testing.assert_allclose(parameter[1], by_m["log10_parameter"].mean())
    assert left.get_title() == "Occam bound below guessing from $m = 1000$ on"
    assert right.get_title() == "parameter bound below 1 from $m = 4000$ on"


def test_bounds_that_are_useful_for_no_size_are_said():
    (rows,) = TABLES["certified-gap"]()
    left, right = drawn("certified-gap", rows[rows["m"] == 250]).axes
    assert left.get_title().endswith("for no $m$")
    assert right.get_title().endswith("for no $m$")


def test_errors_of_tasks_beside_their_baselines():
    (rows,) = TABLES["gap-on-tasks"]()
    left, right = drawn("gap-on-tasks", rows).axes
    labels = [label.get_text() for label in left.get_yticklabels()]
    assert len(labels) == 8
    assert labels[-1] == "ListOps, single block, $T = 50$"
    guessing = lines_of(left, "0.45", style=":")
    assert len(guessing) == 8
    np.testing.assert_array_equal([line[0] for line in guessing], 0.5)
    occam = lines_of(left, COLORS["upper"])
    np.testing.assert_allclose([line[0] for line in occam], rows["occam_risk"].mean())
    np.testing.assert_allclose(markers_of(left, "black", "o")[:, 0], rows["train_error"].mean())
    steps = markers_of(right, "black", "o")
    single = rows[rows["model"] == "single"]
    np.testing.assert_allclose(np.sort(steps[:, 0]), np.sort(single["mean_step"]))
