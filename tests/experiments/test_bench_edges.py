"""The benchmark compares ways of patching edges that find the same. No timing is asserted."""

import json

import pytest
import torch

from experiments import bench_edges
from experiments.bench import main
from experiments.bench_edges import edge_runs, one_at_a_time
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made import V
from tests.experiments.interventions.made_pairs import made_pairs


class Short:
    """Prompts of seven tokens."""

    vocab_size = V

    def pairs(self, count, *, seed):
        return made_pairs(count, seed=seed)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few weights, pairs, tokens and points."""
    for name, size in dict(WIDTH=8, LAYERS=1, PAIRS=3, POINTS=2, TASK=Short()).items():
        monkeypatch.setattr(bench_edges, name, size)


def test_both_ways_find_the_same_effects(monkeypatch):
    monkeypatch.setattr(bench_edges, "LAYERS", 2)
    runs = edge_runs()
    runs.graph.model.double()
    runs = EdgeRuns(runs.graph, runs.pairs)
    effects = exact(runs)
    assert effects.abs().max() > 0.1
    torch.testing.assert_close(one_at_a_time(runs), effects, rtol=0, atol=1e-9)


def test_speed_and_share_are_measured(tmp_path, monkeypatch):
    def times(ways, repeats, clock):
        for way in ways.values():
            way()
        return {"exact": 2.0, "one": 8.0, "gates": 3.0}

    monkeypatch.setattr(bench_edges, "median_times", times)
    path = tmp_path / "bench.json"
    assert main(["edges", "--repeats", "1", "--json", str(path)]) == 0
    found = {
        m["name"]: (m["value"], m["unit"]) for m in json.loads(path.read_text())["measurements"]
    }
    assert found == {
        "exact effects": (7 * 7 / 2, "edges/s"),
        "time of exact effects, of one run for each edge": (25, "%"),
        "integrated gradients of gates, 2 points": (3, "s"),
    }
