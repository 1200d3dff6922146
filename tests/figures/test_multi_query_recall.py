"""The figure of multi-query recall shows the trainings, and the predictions beside them."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from matplotlib.colors import to_rgba

from experiments.studies.multi_query_recall import random_capacity
from figures.multi_query_recall import FAMILIES, ONE_HEAD, multi_query_recall
from figures.style import paper, save
from memory.state_capacity import additive_error


def trainings(families=tuple(FAMILIES), seeds=3, key_dims=(2, 4)) -> pandas.DataFrame:
    rows = []
    for family in families:
        for n in key_dims:
            for seed in range(seeds):
                shares = np.linspace(1, 0.3 + 0.1 * seed, 8)
                size = 2048 if family == "attention" else 32 * n
                rows.append(
                    {"family": family, "key_dim": n, "d": 32, "vocab_size": 32, "num_pairs": 8,
                     "seed": seed, "accuracies": shares, "capacity": n + seed, "state_size": size}
                )  # fmt: skip
    return pandas.DataFrame(rows)


def drawn(rows: pandas.DataFrame):
    with paper():
        figure = multi_query_recall(rows)
        figure.canvas.draw()
    return figure


def lines(axis, color):
    return [
        line.get_xydata()
        for line in axis.lines
        if to_rgba(line.get_color()) == to_rgba(color) and line.get_linestyle() == "-"
        and len(line.get_xdata()) > 1
    ]  # fmt: skip


def markers(axis, family):
    _, color, marker = FAMILIES[family]
    return np.concatenate(
        [line.get_xydata() for line in axis.lines
         if line.get_marker() == marker and to_rgba(line.get_color()) == to_rgba(color)]
    )  # fmt: skip


def test_markers_are_the_means_of_the_trainings():
    rows = trainings()
    axes = drawn(rows).axes
    assert len(axes) == 3
    for family in FAMILIES:
        of = rows[rows["family"] == family]
        for axis, n in zip(axes[:2], (2, 4), strict=True):
            means = np.stack([*of.loc[of["key_dim"] == n, "accuracies"]]).mean(axis=0)
            np.testing.assert_allclose(markers(axis, family), np.c_[np.arange(1, 9), means])
        means = of.groupby("state_size")["capacity"].mean()
        np.testing.assert_allclose(markers(axes[2], family), np.c_[means.index, means])


@pytest.mark.parametrize(("color", "heads"), [(ONE_HEAD, 1), (FAMILIES["delta-net"][1], 8)])
def test_lines_are_the_predictions(color, heads):
    axes = drawn(trainings()).axes
    (line,) = lines(axes[1], color)
    sizes = dict(M=16, key_dimension=4, value_dimension=32)
    expected = [1 - additive_error(N=N, heads=heads, **sizes) for N in range(1, 9)]
    np.testing.assert_allclose(line, np.c_[np.arange(1, 9), expected])
    (line,) = lines(axes[2], color)
    assert line[:, 0].tolist() == [32, 64, 128]
    assert line[2, 1] == random_capacity(key_dim=4, heads=heads, d=32, M=16, limit=8)


@pytest.mark.parametrize(
    "sizes", [dict(families=("linear-attention", "attention")), dict(seeds=1, key_dims=(4,))]
)
def test_few_trainings_are_drawn(sizes, tmp_path):
    png, _ = save(drawn(trainings(**sizes)), tmp_path, "few", {})
    assert png.exists()
