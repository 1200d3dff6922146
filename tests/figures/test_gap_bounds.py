"""Panels of bounds: stable and unstable models apart, vacuous bounds and gaps below 0 said."""

from __future__ import annotations

import numpy as np

from figures import gap_bounds
from figures.style import COLORS
from tests.figures.classified import classifiers, drawn, lines_of, markers_of


def test_bounds_of_stable_and_unstable_models_are_apart():
    rows = classifiers()
    axes = np.reshape(drawn("trained-gap-against-length", rows).axes, (3, 2))
    frozen, trained = axes[2]
    (line,) = lines_of(frozen, COLORS["parameter"])
    np.testing.assert_allclose(line[1], rows["log10_parameter"].mean())
    assert lines_of(frozen, COLORS["norm"], style="--") == []
    (stable,) = lines_of(trained, COLORS["norm"])
    (unstable,) = lines_of(trained, COLORS["norm"], style="--")
    np.testing.assert_allclose(stable[1], 5.01)
    np.testing.assert_allclose(unstable[1], 300)
    measured = markers_of(frozen, COLORS["measured"], "o")
    np.testing.assert_allclose(measured[:, 1], np.log10(0.03))
    assert frozen.get_title() == "vacuous: norm, hybrid, parameter, published"


def test_useful_bounds_are_told_from_vacuous_ones():
    rows = classifiers(m=(4000,), frozen=(True,))
    bottom = drawn("trained-gap-against-length", rows).axes[2]
    assert bottom.get_title() == "vacuous: norm, hybrid, published; not: parameter"
    rows.loc[0, "log10_parameter"] = 0.1
    bottom = drawn("trained-gap-against-length", rows).axes[2]
    assert bottom.get_title() == "vacuous: norm, hybrid, published, parameter (1 of 6)"


def test_gaps_that_are_not_positive_are_marked():
    rows = classifiers(frozen=(True,)).assign(ramp_gap=-0.01)
    bottom = drawn("trained-gap-against-length", rows).axes[2]
    shown = markers_of(bottom, COLORS["measured"], "v")
    np.testing.assert_array_equal(shown[:, 1], gap_bounds._FLOOR)
    assert bottom.get_ylim()[0] < gap_bounds._FLOOR
