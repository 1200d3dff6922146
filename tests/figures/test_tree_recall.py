"""The figure of recall in trees shows the accuracies and attributions of the table."""

from __future__ import annotations

import warnings

import numpy as np
import pandas
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

from experiments.studies.tree_recall import TreeRecallStudy
from figures.style import paper, save
from figures.tree_recall import tree_recall
from tests.experiments.test_tree_recall import made_up

POSITIONS = ("key", "value", "divider", "query")


def table(**changed):
    rows = made_up(last_token=0.52, right_of_key=0.49, **changed)
    for k, position in enumerate(POSITIONS):
        rows[f"at_{position}"] = 0.1 * k + 0.02 * rows["grammar"]
    return TreeRecallStudy.table(rows)


def draw(rows) -> Figure:
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return tree_recall(rows)


def heights(axis, marker: str, hollow: bool = False) -> list[float]:
    return [
        line.get_ydata()[0]
        for line in axis.lines
        if line.get_marker() == marker and (line.get_markerfacecolor() == "white") == hollow
    ]


def test_accuracies_are_means_over_grammars_beside_the_rules():
    top, _ = draw(table()).axes
    np.testing.assert_allclose(heights(top, "o"), [0.86] * 7)
    np.testing.assert_allclose(heights(top, "o", hollow=True), [0.54] * 7)
    np.testing.assert_allclose(heights(top, "X"), [0.61] * 7)
    rules = [line.get_ydata()[0] for line in top.lines if line.get_linestyle() in (":", "--")]
    np.testing.assert_allclose(rules, [0.52, 0.49])
    # 95 %: 0.01 (the deviation) / sqrt(3) times 4.303, the t quantile of two degrees of freedom.
    bars = [bar for bar in top.collections if isinstance(bar, LineCollection)]
    (low, high) = bars[0].get_segments()[0][:, 1]
    assert (high - low) / 2 == pytest.approx(4.303 * 0.01 / np.sqrt(3), rel=1e-3)


def test_attributions_are_shown_by_position():
    _, bottom = draw(table()).axes
    for k, marker in enumerate("vos^"):
        np.testing.assert_allclose(heights(bottom, marker), [0.1 * k + 0.02] * 7)
        assert all(line.get_alpha() == 1 for line in bottom.lines if line.get_marker() == marker)


def test_models_that_have_not_learned_are_faint():
    rows = table(shortcut=0.8)
    _, bottom = draw(rows).axes
    assert {line.get_alpha() for line in bottom.lines if line.get_marker() in tuple("vos^")} == {
        0.3
    }
    assert "not learned" in {text.get_text() for text in bottom.get_legend().get_texts()}


def test_drawn_from_single_runs_of_many_architectures(tmp_path):
    rows = table()
    alone = rows[(rows["grammar"] == 0) & ~rows["held_out"].astype(bool) & (rows["layers"] == 2)]
    names = ("hyena", "h3", "base-conv", "based-conv-long", "attention-without-positions")
    others = [alone.iloc[:1].assign(architecture=name) for name in names]
    with paper():
        png, _ = save(draw(pandas.concat([alone, *others])), tmp_path, "tree-recall", {})
    with Image.open(png) as image:
        assert image.width > 1000
