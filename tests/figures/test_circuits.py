"""Figures of toys, edges and circuits show what the tables say."""

from __future__ import annotations

import warnings

import numpy as np
import pandas
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from experiments.interventions.edge_graph import EdgeGraph
from experiments.studies.circuits import CircuitStudy
from experiments.studies.toys import Toys
from experiments.tasks.ioi import IOI
from experiments.toys import TOYS, build
from figures import circuit_graph, circuits
from figures.circuits import RANKINGS
from figures.panels import NothingToDrawError
from figures.style import paper, save
from tests.experiments.test_circuit_study import made_up as made_up_circuits
from tests.experiments.test_edge_attribution_study import EDGES
from tests.experiments.test_edge_attribution_study import made_up as made_up_edges


def made_up_toys(**axes) -> pandas.DataFrame:
    return pandas.DataFrame([
        trial.config
        | {"accuracy": 1.0, "steps": 200, "curve_steps": np.array([0, 100, 200]),
           "curve_accuracy": np.array([0.0, 0.1 * trial.config["seed"], 1.0])}
        for trial in Toys(**axes).trials()
    ])  # fmt: skip


def drawn(draw, *tables: pandas.DataFrame) -> Figure:
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return draw(*tables)


FIGURES = {
    "toys": (circuits.toys, made_up_toys()),
    "all-toys": (circuits.toys, made_up_toys(toys=tuple(TOYS), tasks=("ioi", "induction"))),
    "edge-agreement": (circuits.edge_agreement, made_up_edges()),
    "faithfulness": (circuits.faithfulness, made_up_circuits()),
    "circuit": (circuit_graph.circuit, made_up_circuits(), made_up_edges()),
    "one-seed": (circuit_graph.circuit, made_up_circuits(1), made_up_edges(1)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(name: str, tmp_path):
    draw, *tables = FIGURES[name]
    with paper():
        png, _ = save(drawn(draw, *tables), tmp_path, name, {})
    with Image.open(png) as image:
        assert image.width > 700


def test_learning_curves_are_those_of_the_rows():
    rows = made_up_toys()
    (axis,) = drawn(circuits.toys, rows).axes
    curves = [line.get_ydata() for line in axis.lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose(curves, np.stack(list(rows["curve_accuracy"])))
    assert any(np.allclose(line.get_ydata(), 0.96) for line in axis.lines)


def test_toys_of_one_family_have_one_colour_and_deeper_ones_are_dashed():
    looks = {toy: circuits._look(toy) for toy in TOYS}
    assert looks["toy-2x64"][1] == looks["toy-4x64"][1]
    assert looks["toy-2x64"][0] == "-" != looks["toy-4x64"][0]
    assert len({color for _, color in looks.values()}) == 3


def test_every_edge_is_a_point_of_its_score_and_effect():
    rows = made_up_edges(2).query("toy == 'toy-2x64'")
    first, *_, sums = drawn(circuits.edge_agreement, rows).axes
    clouds = [line for line in first.lines if line.get_marker() == "."]
    for cloud, (_, row) in zip(clouds, rows.iterrows(), strict=True):
        np.testing.assert_allclose(np.sort(cloud.get_xdata()), np.sort(row["scores_eap"][EDGES]))
        np.testing.assert_allclose(np.sort(cloud.get_ydata()), np.sort(row["effects"][EDGES]))
    totals = [line.get_xdata()[0] for line in sums.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(totals, [-1] * 8 + [-1 / 30] * 2)
    assert "Pearson 0.98\n[0.96, 0.99]" in first.texts[0].get_text()


def test_faithfulness_is_the_mean_over_seeds_that_have_learned():
    rows = made_up_circuits(4)
    rows["learned"] = rows["seed"] < 3
    left, right = drawn(circuits.faithfulness, rows).axes
    for axis, kind in ((left, "nld"), (right, "accuracy")):
        black = [line for line in axis.lines if to_hex(line.get_color()) == "#000000"]
        *thin, thick = sorted(black, key=lambda line: line.get_linewidth())
        assert len(thin) == 3
        curves = np.stack(list(rows.loc[rows["learned"], f"{kind}_exact"]))[:, 1:]
        np.testing.assert_allclose(thick.get_ydata(), curves.mean(axis=0))
        np.testing.assert_allclose(thick.get_xdata(), rows["sizes"][0][1:] / 360)
    assert any(np.allclose(line.get_xdata(), 0.147) for line in right.lines)


def test_the_circuit_has_a_line_for_every_edge_and_the_words_of_a_prompt():
    rows, edges = made_up_circuits(), made_up_edges()
    axis, matrix, _ = drawn(circuit_graph.circuit, rows, edges).axes
    lines = [line for line in axis.lines if len(line.get_xdata()) == 2]
    assert len(lines) == rows["circuit_gates"][0].sum() == 30
    # One was made up to be removed by discovery.
    assert sum(line.get_alpha() < 1 for line in lines) == 1
    widest = max(lines, key=lambda line: line.get_linewidth())
    kept = np.where(rows["circuit_gates"][0], np.abs(edges["scores_gates"][0]), -1)
    names = circuit_graph.Layout(graph("tap")).branches
    where = np.unravel_index(kept.argmax(), kept.shape)
    assert to_hex(widest.get_color()) == circuit_graph.COLORS[names[where[1]]].lower()
    words = [label.get_text() for label in axis.get_xticklabels()]
    assert len(words) == 20
    assert words[0] == "BOS"
    assert [words[i][:3] for i in (3, 5, 7, 13, 15)] == ["n1:", "n2:", "n3:", "n4:", "n5:"]
    cells = np.array([float(text.get_text()) for text in matrix.texts]).reshape(3, 3)
    np.testing.assert_allclose(np.diag(cells), rows["split_jaccard"], atol=0.006)
    found = CircuitStudy.table(rows)["seed_jaccard"][0]
    np.testing.assert_allclose(cells[np.triu_indices(3, 1)].mean(), found, atol=0.006)


def graph(resolution: str, toy: str = "toy-2x64") -> EdgeGraph:
    return EdgeGraph(build(toy, IOI(), seed=0), resolution=resolution)


def test_taps_end_where_they_are_read():
    """Destination 2 is tap 2 of block 0, 4 its gate, 10 the output."""
    layout = circuit_graph.Layout(graph("tap"))
    for destination, further in ((0, 0), (1, 1), (2, 2), (3, 3), (4, 0)):
        (start, end), (bottom, top) = layout.ends(0, destination, 7)
        assert end - start == pytest.approx(further)
        assert abs(start - 7) < 0.3
        assert bottom == 0 < top < 1
    (start, end), (bottom, top) = layout.ends(2, 10, 19)
    assert (start, end) == (19, 19)
    assert 2 < bottom < top == layout.output


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("resolution", ["layer", "branch", "tap"])
def test_every_branch_has_a_colour_and_every_edge_rises(toy: str, resolution: str):
    made = graph(resolution, toy)
    layout = circuit_graph.Layout(made)
    for source, destination in made.edges.nonzero().tolist():
        assert layout.color(destination).startswith(("#", "0."))
        (start, end), (bottom, top) = layout.ends(source, destination, 3)
        assert bottom < top
        assert start <= end


def test_random_circuits_are_as_alike_as_the_chance_says():
    rng = np.random.default_rng(0)
    cells = np.array([rng.permutation(360) < 40 for _ in range(200)])
    both = (cells[::2] & cells[1::2]).sum(1) / (cells[::2] | cells[1::2]).sum(1)
    chance = circuit_graph.chance(made_up_circuits(kept=40))
    assert chance == pytest.approx(both.mean(), rel=0.1)


def test_what_is_not_there_is_said():
    rows, edges = made_up_circuits(), made_up_edges()
    none, whole = "no toy that has learned", "no circuit of edges at single positions"
    for draw, tables, why in (
        (circuits.faithfulness, (rows.assign(learned=False),), none),
        (circuits.edge_agreement, (edges.assign(learned=False),), none),
        (circuit_graph.circuit, (rows.assign(learned=False), edges), none),
        (circuit_graph.circuit, (rows.assign(positional=False), edges), whole),
        (circuit_graph.circuit, (rows, edges.assign(pairs=1)), "no scores of the model"),
    ):
        with pytest.raises(NothingToDrawError, match=why):
            draw(*tables)


def test_the_finest_edges_are_drawn_and_tasks_are_told_apart():
    fine = made_up_circuits()
    coarse = fine.assign(resolution="layer")
    summed = fine.assign(positional=False)
    other = fine.assign(task="two-name-ioi")
    models = list(circuits.trained_models(pandas.concat([coarse, fine, summed, other])))
    assert [title for title, _ in models] == ["toy-2x64, ioi", "toy-2x64, two-name-ioi"]
    for _, at in models:
        assert len(at) == 3
        assert set(at["resolution"]) == {"tap"}
        assert at["positional"].all()


def test_every_ranking_of_the_study_has_a_name_and_colour():
    assert set(RANKINGS) > {"exact", "eap", "inputs", "gates"}
    assert len({color for _, color in RANKINGS.values()}) == len(RANKINGS)
