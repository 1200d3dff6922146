"""Faithfulness curves: their ends, what they are compared with, areas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.circuit_search import ranked
from experiments.interventions.circuits import evaluate
from experiments.interventions.edge_attribution import attribute
from experiments.interventions.faithfulness import faithfulness_curve, log_grid
from tests.experiments.interventions.made_circuits import HYBRID, MAMBA, SEEDS, made_runs


def made_curve(layers=MAMBA, seed=0, sizes=(0, 3, 5, 10), worst_first=False):
    runs = made_runs(*layers, seed=seed)
    scores = attribute(runs, "both", positional=False).mean
    ranking = ranked(runs.graph, -scores if worst_first else scores)
    return runs, ranking, faithfulness_curve(runs, ranking, sizes, draws=3, seed=seed)


@settings(max_examples=3)
@given(seed=SEEDS)
def test_ends_and_what_is_between(seed):
    runs, ranking, curve = made_curve(seed=seed)
    for kept in (curve.circuit, curve.random):
        assert kept.mean_nld[..., 0].abs().max() < 1e-10
        assert (kept.mean_nld[..., -1] - 1).abs().max() < 1e-10
    assert (curve.complement.mean_nld[[0, -1]] - torch.tensor([1, 0])).abs().max() < 1e-10
    top = ranking.top(3)
    found = evaluate(runs, torch.stack([top, runs.graph.edges[:, :, None] & ~top]))
    torch.testing.assert_close(curve.circuit.nld[1], found.nld[0])
    torch.testing.assert_close(curve.complement.nld[1], found.nld[1])
    assert curve.circuit.correct[1].equal(found.correct[0])
    assert curve.random.nld.shape == (3, 4, len(runs.pairs))
    assert curve.monotone == bool(
        (curve.circuit.accuracy.sort().values == curve.circuit.accuracy).all()
    )


def test_draws_differ_and_come_again():
    a, b, c = (made_curve(seed=seed)[2].random.nld for seed in (0, 0, 1))
    assert a.equal(b)
    assert not a.equal(c)
    assert not a[0, 1].equal(a[1, 1])


def test_a_good_order_beats_random_edges_and_they_the_worst_order():
    good, bad = (
        made_curve(HYBRID, sizes=range(16))[2],
        made_curve(HYBRID, sizes=range(16), worst_first=True)[2],
    )
    areas = [
        good.area(good.circuit.mean_nld),
        good.area(good.random.mean_nld.mean(dim=0)),
        bad.area(bad.circuit.mean_nld),
    ]
    assert areas[0] > areas[1] + 0.1
    assert areas[1] > areas[2] + 0.1
    # What is kept last of the one order is kept first of the other.
    torch.testing.assert_close(good.complement.nld, bad.circuit.nld.flip(0))


def test_areas_by_hand():
    _, _, curve = made_curve(sizes=(0, 5, 10))
    values = torch.tensor([0.0, 0.5, 1.0]).double()
    assert curve.area(values) == pytest.approx(0.5)
    assert curve.area(torch.tensor([0.0, 1.0, 1.0]).double()) == pytest.approx(0.75)
    _, _, curve = made_curve(sizes=(0, 1, 10))
    assert curve.area(torch.tensor([0.0, 1.0, 1.0]).double()) == pytest.approx(0.95)


def test_table():
    _, _, curve = made_curve()
    table = curve.table
    assert list(table.columns) == ["size", "kept", "nld", "accuracy"]
    assert table["size"].tolist() == [0, 3, 5, 10] * 3
    rows = table.set_index(["kept", "size"])
    assert rows.loc[("random", 5), "nld"] == pytest.approx(float(curve.random.nld[:, 2].mean()))
    assert rows.loc[("complement", 3), "accuracy"] == float(curve.complement.accuracy[1])


@given(count=st.integers(1, 10**5), points=st.integers(2, 30))
def test_grids_have_both_ends(count, points):
    grid = log_grid(count, points=points)
    assert grid[0] == 0
    assert grid[-1] == count
    assert list(grid) == sorted(set(grid))
    assert len(grid) <= points + 1


def test_grid_by_hand():
    assert log_grid(100, points=3) == (0, 1, 10, 100)
    assert log_grid(3) == (0, 1, 2, 3)


def test_what_is_no_curve():
    runs, ranking, _ = made_curve()
    for sizes in ((0,), (3, 3), (5, 2)):
        with pytest.raises(ValueError, match="sizes must increase, and be at least two"):
            faithfulness_curve(runs, ranking, sizes, seed=0)
    with pytest.raises(ValueError, match="count must be from 0 to 10, got 11"):
        faithfulness_curve(runs, ranking, (0, 11), seed=0)
    with pytest.raises(ValueError, match="draws must be a whole number"):
        faithfulness_curve(runs, ranking, (0, 1), draws=0, seed=0)
    with pytest.raises(ValueError, match="points must be a whole number"):
        log_grid(5, points=0)
