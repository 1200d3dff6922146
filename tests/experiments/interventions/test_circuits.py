"""Circuits: what they leave of a model, pruning, and how alike they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.circuits import complete, evaluate, jaccard, pruned, stability
from experiments.interventions.edge_graph import EdgeGraph
from tests.experiments.interventions.made_circuits import (
    HYBRID,
    MAMBA,
    MODELS,
    SEEDS,
    heads,
    made_circuit,
    made_runs,
    on_paths,
)

RESOLUTIONS = st.sampled_from(["layer", "branch", "tap"])
SHARES = st.sampled_from([0.1, 0.2, 0.35, 0.6])
EXACT = {"atol": 1e-10, "rtol": 0}


def logits(runs, circuit):
    return runs.patched((runs.graph.edges[:, :, None] & ~circuit)[None])[0]


@settings(max_examples=6)
@given(layers=MODELS, resolution=RESOLUTIONS, positions=st.sampled_from([1, 7]), seed=SEEDS)
def test_all_edges_are_the_clean_run_and_none_the_corrupted_one(
    layers, resolution, positions, seed
):
    runs = made_runs(*layers, resolution=resolution, seed=seed)
    everything = complete(runs.graph, positions=positions)
    found = evaluate(runs, torch.stack([everything, torch.zeros_like(everything)]))
    torch.testing.assert_close(found.mean_nld, torch.tensor([1.0, 0.0]).double(), **EXACT)
    assert found.accuracy.tolist() == [1.0, 0.0]
    assert found.nld.shape == found.correct.shape == (2, len(runs.pairs))


@settings(max_examples=2)
@given(seed=SEEDS, rows=st.sampled_from([3, 10]))
def test_circuits_are_evaluated_each_on_its_own(seed, rows):
    runs, few = (made_runs(*MAMBA, seed=seed, count=4, rows=r) for r in (512, rows))
    circuits = torch.stack([made_circuit(runs.graph, 7, 0.8, seed + i) for i in range(4)])
    found, again = evaluate(runs, circuits), evaluate(few, circuits)
    torch.testing.assert_close(found.nld, again.nld, **EXACT)
    for circuit, nld in zip(circuits, found.nld, strict=True):
        torch.testing.assert_close(runs.nld(logits(runs, circuit)), nld, **EXACT)


@settings(max_examples=10)
@given(
    layers=MODELS, resolution=RESOLUTIONS, positions=st.sampled_from([1, 7]),
    share=SHARES, seed=SEEDS,
)  # fmt: skip
def test_pruning_never_changes_the_logits(layers, resolution, positions, share, seed):
    runs = made_runs(*layers, resolution=resolution, seed=seed, count=5)
    circuit = made_circuit(runs.graph, positions, share, seed)
    kept = pruned(runs.graph, circuit)
    torch.testing.assert_close(logits(runs, kept), logits(runs, circuit), **EXACT)
    assert not (kept & ~circuit).any()
    assert kept.equal(pruned(runs.graph, kept))


@settings(max_examples=10)
@given(layers=MODELS, resolution=st.sampled_from(["layer", "branch"]), share=SHARES, seed=SEEDS)
def test_what_is_left_is_on_a_path(layers, resolution, share, seed):
    graph = EdgeGraph(heads(*layers), resolution=resolution)
    circuit = made_circuit(graph, 4, share, seed)
    assert pruned(graph, circuit).equal(on_paths(graph, circuit))


def test_edges_are_lost_and_edges_are_left():
    graph = EdgeGraph(heads(*HYBRID), resolution="tap")
    circuit = made_circuit(graph, 7, 0.1)
    assert 0 < int(pruned(graph, circuit).sum()) < int(circuit.sum())


def test_paths_by_hand():
    """Block 0 hands on at 4 what it read at 3, not at 2; block 1 has read nothing that is kept."""
    graph = EdgeGraph(heads(*MAMBA))
    circuit = torch.zeros_like(complete(graph, positions=7))
    embed, first, second, third = range(4)
    circuit[embed, 0, 3] = circuit[first, 2, 4] = circuit[third, 3, 6] = True
    kept = circuit.clone()
    circuit[first, 2, 2] = circuit[second, 3, 6] = circuit[embed, 1, 0] = False
    circuit[first, 3, 2] = circuit[second, 2, 4] = circuit[embed, 2, 6] = True
    kept[embed, 2, 6] = True
    assert pruned(graph, circuit).equal(kept)


def test_it_matters_that_blocks_hand_on_to_later_positions():
    """A path that may not leave its position would lose edges that change the logits."""
    runs = made_runs(*MAMBA)
    circuit = made_circuit(runs.graph, 7, 0.6)
    wrong = on_paths(runs.graph, circuit, carries=lambda t, later: t == later)
    assert (logits(runs, wrong) - logits(runs, circuit)).abs().max() > 1e-3


def test_it_matters_which_sources_a_reader_feeds():
    """A query or key of one head hands on to no other; a tap or a gate to its whole block."""
    graph = EdgeGraph(heads("attention", "mamba"), resolution="tap")
    circuit = torch.zeros_like(complete(graph))
    output = len(graph.destinations) - 1
    circuit[0, graph.destinations.index("0.q.0")] = True
    circuit[graph.sources.index("0.head.1"), output] = True
    assert not pruned(graph, circuit).any()
    circuit[graph.sources.index("0.head.0"), graph.destinations.index("1.gate")] = True
    circuit[graph.sources.index("1"), output] = True
    circuit[graph.sources.index("0.head.1"), output] = False
    assert pruned(graph, circuit).equal(circuit)


def masks(*numbers):
    out = torch.zeros(2, 3, 1, dtype=torch.bool)
    out.view(-1)[list(numbers)] = True
    return out


SETS = st.sets(st.integers(0, 5)).map(lambda numbers: masks(*numbers))


@given(a=SETS, b=SETS, c=SETS)
def test_jaccard_index(a, b, c):
    assert jaccard(a, a) == 1
    assert jaccard(a, b) == jaccard(b, a)
    assert 0 <= jaccard(a, b) <= 1
    assert (jaccard(a, b) == 1) == a.equal(b)
    assert 1 - jaccard(a, c) <= 2 - jaccard(a, b) - jaccard(b, c) + 1e-12


def test_jaccard_by_hand():
    a, b, c = masks(0, 1), masks(1, 2), masks(5)
    assert jaccard(a, b) == 1 / 3
    assert stability(torch.stack([a, b, c])) == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert stability(torch.stack([a, a, b])) == pytest.approx((1 + 2 / 3) / 3)


def test_what_is_no_circuit():
    runs = made_runs(*MAMBA)
    with pytest.raises(ValueError, match="edges must be edges of the graph, got 0 -> 0"):
        evaluate(runs, torch.ones(1, 4, 4, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="edges must have 1 or 7 positions, got 3"):
        evaluate(runs, complete(runs.graph, positions=3)[None])
    with pytest.raises(ValueError, match="positions must be a whole number"):
        complete(runs.graph, positions=0)
    with pytest.raises(ValueError, match="circuits must be at least 2, got 1"):
        stability(masks(0)[None])
