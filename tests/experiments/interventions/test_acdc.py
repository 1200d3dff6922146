"""Automatic circuit discovery: against a plain search, on planted models, and its bound."""

from itertools import pairwise

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from experiments.interventions import acdc as module
from experiments.interventions.acdc import acdc, layer_and_branch_groups, removable
from experiments.interventions.circuits import complete, evaluate, pruned
from experiments.interventions.edge_graph import EdgeGraph
from tests.experiments.interventions.made_circuits import (
    HYBRID,
    MAMBA,
    MODELS,
    SEEDS,
    heads,
    made_circuit,
    made_runs,
)

THRESHOLDS = st.sampled_from([1e-4, 0.02, 0.1, 0.4])


def mean_nld(runs, circuit):
    return float(evaluate(runs, circuit[None]).mean_nld)


def naive(runs, start, threshold, groups):
    """Sets one after the other, each evaluated when its turn comes."""
    graph, circuit, drops = runs.graph, pruned(runs.graph, start), {}
    baseline = mean_nld(runs, start)

    def decide(numbers):
        nonlocal circuit, baseline
        numbers = [n for n in numbers if circuit[groups[n].unbind(1)].any()]
        if not numbers:
            return
        trial = circuit.clone()
        for number in numbers:
            trial[groups[number].unbind(1)] = False
        after = mean_nld(runs, trial)
        if baseline - after <= threshold:
            circuit, baseline = trial, after
        elif len(numbers) == 1:
            drops[numbers[0]] = baseline - after
        else:
            decide(numbers[: len(numbers) // 2])
            decide(numbers[len(numbers) // 2 :])

    for block in reversed(range(len(graph.branches) + 1)):
        into = [int(graph.destination_block[g[:, 1]].min()) == block for g in groups]
        decide([n for n, here in enumerate(into) if here])
        circuit = pruned(graph, circuit)
    return circuit, [drop for n, drop in drops.items() if circuit[groups[n].unbind(1)].any()]


@settings(max_examples=4)
@given(
    layers=st.sampled_from([("mamba",) * 2, ("attention", "mamba")]),
    positions=st.sampled_from([1, 7]), threshold=THRESHOLDS, seed=SEEDS,
    rows=st.sampled_from([4, 9, 40]),
    share=st.sampled_from([0.5, 1.0]),
)  # fmt: skip
# Here it matters which half comes first.
@example(layers=("attention", "mamba"), positions=1, threshold=0.1, seed=2, rows=9, share=1.0)
def test_it_is_the_plain_search_however_many_circuits_a_pass_has(
    layers, positions, threshold, seed, rows, share
):
    runs = made_runs(*layers, seed=seed, count=4, rows=rows)
    start = made_circuit(runs.graph, positions, share, seed)
    groups = list(start.nonzero().flip(0)[:, None])
    found = acdc(runs, start, threshold=threshold)
    circuit, drops = naive(runs, start, threshold, groups)
    assert found.circuit.equal(circuit)
    assert found.drops == pytest.approx(drops, abs=1e-9)


@settings(max_examples=3)
@given(layers=MODELS, threshold=THRESHOLDS, seed=SEEDS)
def test_no_removal_falls_further_than_the_threshold(layers, threshold, seed):
    runs = made_runs(*layers, resolution="branch", seed=seed, count=4, rows=8)
    start = complete(runs.graph)
    found = acdc(runs, start, threshold=threshold, groups=layer_and_branch_groups(runs.graph))
    assert found.nld[0] == pytest.approx(1)
    assert all(before - after <= threshold for before, after in pairwise(found.nld))
    assert mean_nld(runs, found.circuit) == pytest.approx(found.nld[-1], abs=1e-9)
    removals = len(found.nld) - 1
    assert found.nld[-1] >= found.nld[0] - removals * threshold - 1e-9
    assert all(drop > threshold for drop in found.drops)
    assert len(found.drops) == len(found.kept)
    assert found.circuit.equal(pruned(runs.graph, found.circuit))
    covered = torch.zeros_like(start)
    for group in found.kept:
        assert found.circuit[group.unbind(1)].any()
        covered[group.unbind(1)] = True
    assert not (found.circuit & ~covered).any()


def published(start, after, threshold):
    """Goes back to the sets up to and with the one that failed."""
    return min(removable(start, after, threshold) + 1, len(after))


def test_the_published_rollback_breaks_the_bound(monkeypatch):
    """It takes what was refused, so that a removal costs more than the threshold."""
    runs = made_runs(*HYBRID, count=4, rows=24)
    start = complete(runs.graph)
    right = acdc(runs, start, threshold=0.02)
    monkeypatch.setattr(module, "removable", published)
    wrong = acdc(runs, start, threshold=0.02)
    assert all(a - b <= 0.02 for a, b in pairwise(right.nld))
    assert any(a - b > 0.02 for a, b in pairwise(wrong.nld))
    assert wrong.nld[-1] < right.nld[-1]


def test_removable_by_hand():
    assert removable(1.0, [0.95, 0.9, 0.7, 0.7], 0.1) == 2
    assert removable(1.0, [0.5], 0.1) == 0
    assert removable(1.0, [1.5, 1.45], 0.1) == 2
    assert removable(1.0, [1.5, 1.35], 0.1) == 1
    assert published(1.0, [0.95, 0.9, 0.7, 0.7], 0.1) == 3


@pytest.mark.parametrize(("layers", "resolution"), [(MAMBA, "layer"), (HYBRID, "branch")])
def test_a_block_that_writes_nothing_loses_all_its_edges(layers, resolution):
    runs = made_runs(*layers, resolution=resolution, count=4, rows=8, zeroed=(1,))
    found = acdc(runs, complete(runs.graph), threshold=1e-9)
    into = found.circuit[:, runs.graph.destination_block == 1]
    out_of = found.circuit[runs.graph.source_block == 1]
    assert not into.any()
    assert not out_of.any()
    assert found.circuit.any()
    assert mean_nld(runs, found.circuit) > 1 - 1e-6
    whole = made_runs(*layers, resolution=resolution, count=4, rows=8)
    kept = acdc(whole, complete(whole.graph), threshold=1e-9).circuit
    assert kept[:, whole.graph.destination_block == 1].any()


def test_with_no_limit_one_removal_is_all():
    runs = made_runs(*MAMBA)
    found = acdc(runs, complete(runs.graph), threshold=1e9)
    assert not found.circuit.any()
    assert found.kept == found.drops == ()
    # The start and the edges into the output; without them, none is on a path.
    assert found.evaluations == 2
    assert found.nld == pytest.approx((1.0, 0.0), abs=1e-10)


def test_an_empty_circuit_stays_empty():
    runs = made_runs(*MAMBA, count=4)
    found = acdc(runs, torch.zeros_like(complete(runs.graph)))
    assert not found.circuit.any()
    assert found.kept == ()
    assert found.evaluations == 1


def test_edges_in_no_group_stay():
    runs = made_runs(*MAMBA)
    start = complete(runs.graph)
    output = len(runs.graph.destinations) - 1
    groups = [cell[None] for cell in start.nonzero() if cell[1] == output]
    found = acdc(runs, start, threshold=0.1, groups=groups[:2])
    assert len(found.kept) + len(found.nld) - 1 <= 2
    assert found.circuit[2:, output].all()
    assert found.circuit[2, :output].equal(start[2, :output])


def test_groups_of_the_paper():
    """48 layers: 1225 edges between blocks, and four taps and a gate in each (of its 1609 elements;
    the other 144 are the steps from the convolution through the state to the output)."""
    graph = EdgeGraph(heads(*["mamba"] * 48, d_model=2), resolution="tap")
    groups = layer_and_branch_groups(graph)
    assert len(groups) == 1225 + 5 * 48
    assert len(layer_and_branch_groups(EdgeGraph(graph.model))) == 1225


@settings(max_examples=4)
@given(layers=MODELS, resolution=st.sampled_from(["layer", "branch", "tap"]))
def test_groups_have_every_edge_once_from_a_source_and_once_into_a_branch(layers, resolution):
    graph = EdgeGraph(heads(*layers), resolution=resolution)
    times = torch.zeros_like(complete(graph), dtype=torch.int64)
    for group in layer_and_branch_groups(graph):
        blocks = graph.destination_block[group[:, 1]]
        assert (blocks == blocks[0]).all()
        assert len(group[:, 0].unique()) == 1 or len(group[:, 1].unique()) == 1
        times[group.unbind(1)] += 1
    several = torch.tensor([len(b) > 1 for b in (*graph.branches, ())])[graph.destination_block]
    assert times[:, :, 0].equal(graph.edges * (1 + several.long()))


def test_what_cannot_be_refined():
    runs = made_runs(*MAMBA)
    start = complete(runs.graph)
    with pytest.raises(ValueError, match=r"threshold must be a finite number >= 0, got -0.1"):
        acdc(runs, start, threshold=-0.1)
    for group in (torch.tensor([[0, 0, 1]]), torch.tensor([[-1, 0, 0]]), torch.empty(0, 3).long()):
        with pytest.raises(ValueError, match=r"groups must have edges within \(4, 4, 1\)"):
            acdc(runs, start, groups=[group])
    with pytest.raises(ValueError, match="edges must be edges of the graph"):
        acdc(runs, torch.ones_like(start))
