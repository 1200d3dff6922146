"""Figures of trained factual recall, from made-up accuracies of few sizes and of larger grids."""

from __future__ import annotations

import numpy as np
import pandas
import pytest
from PIL import Image

from experiments.studies import factual_recall as capacities
from experiments.studies import load
from figures import factual_recall
from figures.gallery import GALLERY
from figures.style import paper, save
from memory.information import factual_recall_bits


def capacity_table(**axes) -> pandas.DataFrame:
    """Trainings that recall loads below 1.1, and a size of the task each as the study has it."""
    kind = load("factual-recall")

    def number_of_facts(c) -> int:
        heads, head_dim, width = capacities._shape(
            c["d"], c["heads"], c["head_ratio"], c["mlp_ratio"]
        )
        parameters = 4 * heads * head_dim * c["d"] + 2 * width * c["d"]
        bits = c["load"] * (1 + 0.05 * c["seed"]) * 0.15 * parameters
        S, R, _ = capacities.numbers(c["scaling"], c["D"], bits)
        return S * R

    rows = [
        dict(t.config, N=number_of_facts(t.config), best_accuracy=float(t.config["load"] < 1.1))
        for t in kind.at("quick", **axes).trials()
    ]
    return kind.table(pandas.DataFrame(rows))


def trade_off_table(best: float = 1.0, **axes) -> pandas.DataFrame:
    """Models whose accuracy grows with their parameters, twice as fast with those of the MLP."""
    kind = load("factual-trade-off")
    rows = []
    for trial in kind.at("quick", **axes).trials():
        c = trial.config
        attention, mlp = 4 * c["heads"] * c["head_dim"] * c["d"], 2 * c["width"] * c["d"]
        accuracy = min(best, (attention + 2 * mlp) / (2500 + 100 * c["seed"]))
        row = dict(
            c, accuracy=accuracy, diverged=False, attention_parameters=attention,
            mlp_parameters=mlp, parameters=attention + mlp,
        )  # fmt: skip
        if mlp:
            row |= dict(accuracy_without_mlp=0.1, accuracy_without_attention=accuracy / 2)
        rows.append(row)
    return kind.table(pandas.DataFrame(rows))


def drawn(name: str, rows: pandas.DataFrame, folder):
    with paper():
        figure = GALLERY[name].draw(rows)
        png, _ = save(figure, folder, name, {})
    with Image.open(png) as image:
        assert image.width > 1000
    return figure


SHAPES = [{"d": (16,), "seed": (0,)}, {"scaling": ("answers-distinct",)}, {"D": (4, 8)}]
SHAPES += [{"head_ratio": (0.5, 1.0), "mlp_ratio": (0.0, 1.0, 2.0)}, {"mlp_ratio": (1.0, 4.0)}]


@pytest.mark.parametrize("axes", SHAPES)
def test_capacities_are_drawn_from_few_sizes_and_shapes(axes, tmp_path):
    figure = drawn("factual-recall-capacity", capacity_table(**axes), tmp_path)
    several = max(len(axes.get(name, ())) for name in ("head_ratio", "mlp_ratio")) > 1
    assert len(figure.axes) == (6 if several else 2)


def test_slopes_of_the_legend_are_those_of_the_table(tmp_path):
    rows = capacity_table()
    exact = rows.assign(facts=0.1 * rows["parameters"] * (1 + 0.01 * rows["seed"]))
    figure = drawn("factual-recall-capacity", exact, tmp_path)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(texts) == 3
    assert all("slope $1.00" in text for text in texts)


@pytest.mark.parametrize("D", [4, None])
def test_the_limits_are_where_the_facts_need_these_bits(D):
    bits = np.array([3e3, 1e5])
    for most, available in zip(factual_recall._most(bits, D), bits, strict=True):
        S = round(most**0.5)
        needed = factual_recall_bits(S=S, R=S, D=D or S, error=0.01)
        assert float(needed) == pytest.approx(available, rel=0.06)


GRIDS = [
    {},
    {"seed": (0,)},
    {"heads": (4,), "seed": (0,)},
    {"width": (0,)},
    {"width": (8, 16)},
    {"heads": (1, 2, 3, 4, 6, 8, 10, 12, 16), "width": (0, 8, 16, 24, 32, 48, 64, 96)},
    {"heads": tuple(range(1, 14)), "width": tuple(range(0, 104, 8)), "seed": (0,)},
]


@pytest.mark.parametrize("axes", GRIDS)
def test_the_trade_off_is_drawn_from_small_and_large_grids(axes, tmp_path):
    figure = drawn("factual-trade-off", trade_off_table(**axes), tmp_path)
    whole, mlp, _, attention = figure.axes[:4]
    for axis in (whole, mlp, attention):
        (mesh,) = (each for each in axis.collections if hasattr(each, "get_coordinates"))
        assert mesh.get_clim() == (0, 1)
    grid = load("factual-trade-off").at("quick", **axes)
    empty = len(grid.heads) * grid.width.count(0)
    assert [len(axis.patches) for axis in (whole, mlp, attention)] == [0, empty, empty]


def test_the_trade_off_is_drawn_where_none_recalls_enough(tmp_path):
    whole = drawn("factual-trade-off", trade_off_table(best=0.5), tmp_path).axes[0]
    assert not any(line.get_color() == "#D55E00" for line in whole.get_lines())


def test_the_boundary_lies_between_the_cells_it_divides():
    good = np.array([[False, False, True], [False, True, True]])
    lines = factual_recall._between(good, np.arange(4.0), np.arange(3.0))
    assert sorted(lines) == [[(1, 1), (1, 2)], [(1, 1), (2, 1)], [(2, 0), (2, 1)]]
    everything = factual_recall._between(np.ones((2, 3), bool), np.arange(4.0), np.arange(3.0))
    assert everything == []


def test_the_guide_line_starts_where_attention_alone_recalls_enough():
    values = pandas.DataFrame([[0.5, 0.9, 1.0], [0.9, 1.0, 1.0]], [0, 64], [10, 20, 30])
    assert factual_recall._enough(values) == (30, 0)
    assert factual_recall._enough(values.assign(**{"30": 0.5}).iloc[:, :2]) == (20, 64)
    assert factual_recall._enough(values * 0.9) is None


def test_cells_lie_about_their_sizes():
    np.testing.assert_allclose(factual_recall._edges([2, 4, 10]), [1, 3, 7, 13])
    assert factual_recall._edges([0]).tolist() == [-0.5, 0.5]
