"""Figures of indirect object identification show the means and the seeds of the table."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas
import pytest
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.figure import Figure

from experiments.interventions.name_codes import SLOTS
from experiments.ioi_tables import ALIGNED, balanced
from experiments.studies.ioi_maps import IOIMaps
from figures.ioi_maps import (
    PUBLISHED,
    WORDS,
    ioi_ablations,
    ioi_cosines,
    ioi_resample,
    ioi_swaps,
    ioi_taps,
    ioi_writes,
)
from figures.panels import NothingToDrawError
from figures.plates import GALLERY
from figures.style import paper
from tests.experiments.test_ioi_maps import made_up

FIGURES = (ioi_resample, ioi_taps, ioi_ablations, ioi_cosines, ioi_swaps, ioi_writes)
CHANGED = (3, 5, 7, 15, 13)
"""Position of the name that differs, by format."""


def draw(figure: Callable[[pandas.DataFrame], Figure], rows: pandas.DataFrame) -> Figure:
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return figure(rows)


def maps(figure: Figure) -> list[np.ndarray]:
    """The numbers of every map, but not of colour bars."""
    meshes = [mesh for axis in figure.axes if axis.get_label() != "<colorbar>"
              for mesh in axis.collections if isinstance(mesh, QuadMesh)]  # fmt: skip
    return [np.ma.filled(mesh.get_array(), np.nan) for mesh in meshes]


def hybrid() -> pandas.DataFrame:
    """Beside the toy of two blocks one of four, which has taps in the outer ones only."""
    wide = made_up(toy="toy-hybrid", seeds=2)
    taps = np.full((5, 4, 4, 20), np.nan)
    taps[:, [0, 3]] = 0.1
    wide["taps"] = [taps] * 2
    wide["resample"] = [np.full((5, 4, 20), 0.1)] * 2
    wide["alone_accuracy"] = [np.array([0.1, 0.9, np.nan, 0.2])] * 2
    wide["removed_probability"] = [np.array([0.1, 0.2, 0.9, 0.3])] * 2
    wide["convolved"] = [True, False]
    wide["bottleneck"] = [3, 1]
    for name in (
        "cosines",
        "code_cosines",
        "writes",
        "replace",
        "add_subtract",
        "add_subtract_written",
        "write_cosines",
    ):
        wide[name] = wide[name].where(wide["convolved"])
    return pandas.concat([made_up(), wide], ignore_index=True)


def test_words_are_those_of_the_prompts():
    pairs = balanced(2, seed=0)
    for prompt in pairs.clean:
        for word, found in zip(WORDS, ALIGNED.words(prompt), strict=True):
            assert word in ("opener", "place", "object", *SLOTS) or word == found
    for slot in SLOTS:
        assert (pairs.roles[slot] == WORDS.index(slot)).all()


def test_published_swaps_are_those_of_the_statements():
    """Means over slots of one kind of mention: of 9 cells, of 4, and within less across."""
    put, added = (np.array(PUBLISHED[name]) for name in ("replace", "add_subtract"))
    within = np.kron(np.eye(2), np.ones((3, 3)))[:5, :5].astype(bool)
    stated = {claim.name: claim.statement for claim in IOIMaps.claims}
    for name, value in (
        ("first-mentions-are-interchangeable-add-subtract", added[:3, :3].mean()),
        ("second-mentions-are-interchangeable-add-subtract", added[3:, 3:].mean()),
        ("first-mentions-are-interchangeable-replace", put[:3, :3].mean()),
        ("second-mentions-are-interchangeable-replace", put[3:, 3:].mean()),
        ("mentions-have-codes-of-their-own", put[within].mean() - put[~within].mean()),
    ):
        assert f"mamba-370m: {value:.2f}" in stated[name]


def test_resampling_is_averaged_over_seeds():
    drawn = maps(draw(ioi_resample, made_up()))
    assert len(drawn) == 5
    for cells, at in zip(drawn, CHANGED, strict=True):
        np.testing.assert_allclose(cells[:, at], 0.89)  # of 0.9, 0.89 and 0.88
        assert np.count_nonzero(cells) == 2


def test_every_seed_has_its_own_taps():
    drawn = maps(draw(ioi_taps, made_up()))
    assert len(drawn) == 3 * 5
    for k, cells in enumerate(drawn):
        tap = (2, 3, 0)[k // 5]
        assert np.argwhere(cells).tolist() == [[tap, CHANGED[k % 5] + tap]]


def test_bars_are_means_and_dots_are_seeds():
    left, right = draw(ioi_ablations, made_up()).axes
    assert [bar.get_height() for bar in left.patches] == pytest.approx([0, 0.01, 0.76, 1])
    assert [bar.get_height() for bar in right.patches] == pytest.approx([0.3, 0.21, 0.98])
    dots = [line.get_ydata()[2] for line in left.lines if line.get_marker() == "."]
    assert dots == pytest.approx([0.75, 0.76, 0.77])


def test_swaps_stand_beside_the_published_ones():
    figure = draw(ioi_swaps, made_up())
    drawn = maps(figure)
    # Of three seeds, in two ways with a published one beside them and in one without.
    assert len(drawn) == 2 * (3 + 1) + 3
    for put, added, written in zip(drawn[:3], drawn[4:7], drawn[8:], strict=True):
        np.testing.assert_allclose(written[:, 0], [0.9, 0.9, 0.9, 0, 0])
        np.testing.assert_allclose(put[0], [0.9, 0.9, 0.9, 0.2, 0.2])
        np.testing.assert_allclose(added, 0.9)
    named = [axis for axis in figure.axes if axis.get_xlabel() == "mean of slot"]
    assert len(named) == 4
    np.testing.assert_allclose(drawn[3], PUBLISHED["replace"])
    np.testing.assert_allclose(drawn[7], PUBLISHED["add_subtract"])
    assert [text.get_text() for text in figure.axes[0].texts][:5] == [*["0.90"] * 3, "0.20", "0.20"]


def test_writes_and_cosines_are_those_of_every_seed():
    figure = draw(ioi_writes, made_up())
    for cells in (drawn := maps(figure)):
        np.testing.assert_allclose(cells, [[0.5] * 20] * 5 + [[0.25] * 20])
    assert len(drawn) == 3
    bars = [bar.get_width() for bar in figure.axes[1].patches]
    assert bars == pytest.approx([9, 10, 11, -9, -8, 5])
    assert len(maps(draw(ioi_cosines, made_up()))) == 3 * 3


def test_a_block_that_mixes_no_tokens_is_hatched():
    left = draw(ioi_ablations, hybrid()).axes[2]
    assert [bar.get_hatch() for bar in left.patches].count("////") == 1
    # Nor is there a map of a bottleneck without a state: three seeds of one toy, one of the other.
    assert len(maps(draw(ioi_taps, hybrid()))) == 4 * 5


def test_missing_cells_are_hatched():
    rows = made_up(seeds=1, replace=np.full((5, 5), np.nan))
    first = draw(ioi_swaps, rows).axes[0]
    (missing,) = [patches for patches in first.collections if isinstance(patches, PatchCollection)]
    assert len(missing.get_paths()) == 25


@pytest.mark.parametrize("figure", FIGURES)
def test_drawn_of_one_model_and_of_several_toys(figure):
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        one = figure(made_up(seeds=1))
        one.canvas.draw()
        assert len(figure(hybrid()).axes) > len(one.axes)


@pytest.mark.parametrize("figure", FIGURES)
def test_models_that_have_not_learned_the_task_are_not_drawn(figure):
    with pytest.raises(NothingToDrawError, match="no model that has learned"):
        figure(made_up(accuracy=0.5))


def test_all_of_them_are_in_the_gallery():
    assert {plate.draw for plate in GALLERY.values() if plate.studies == ("ioi-maps",)} == {
        *FIGURES
    }
