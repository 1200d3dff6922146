"""Sets of edges patched at once, against whole runs with edits and against the corrupted run."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made_edges import (
    MODELS,
    RESOLUTIONS,
    all_edges,
    by_hand,
    made_edges,
    made_model,
    some_edges,
)  # fmt: skip

CLOSE = dict(rtol=0, atol=1e-10)
every_model = pytest.mark.parametrize("name", MODELS)
every_resolution = pytest.mark.parametrize("resolution", RESOLUTIONS)


@every_model
@every_resolution
def test_all_edges_are_the_corrupted_run_and_none_the_clean_one(name, resolution):
    runs = made_edges(*MODELS[name], resolution=resolution)
    for positions in (1, runs.pairs.length):
        both = torch.stack([all_edges(runs.graph, positions)] * 2)
        both[1] = False
        corrupted, clean = runs.patched(both)
        torch.testing.assert_close(corrupted, runs.corrupted.logits, **CLOSE)
        torch.testing.assert_close(clean, runs.clean.logits, **CLOSE)
        torch.testing.assert_close(runs.nld(corrupted), torch.zeros(4).double(), **CLOSE)
        torch.testing.assert_close(runs.nld(clean), torch.ones(4).double(), **CLOSE)


@every_model
def test_the_runs_are_those_of_the_model(name):
    runs = made_edges(*MODELS[name], resolution="tap")
    model, pairs = runs.graph.model, runs.pairs
    for run, tokens in ((runs.clean, pairs.clean), (runs.corrupted, pairs.corrupted)):
        with torch.no_grad(), model.record("resid_final") as seen:
            logits = model(tokens)
        torch.testing.assert_close(run.logits, logits[torch.arange(4), pairs.out], **CLOSE)
        torch.testing.assert_close(run.stream[-1], seen["resid_final"], **CLOSE)
    moved = runs.differences.sum(0), runs.corrupted.stream[-1] - runs.clean.stream[-1]
    torch.testing.assert_close(*moved, **CLOSE)


@settings(max_examples=10)
@given(
    resolution=st.sampled_from(RESOLUTIONS),
    positional=st.booleans(),
    share=st.floats(0.1, 0.9),
    seed=st.integers(0, 99),
)
def test_any_set_of_edges_is_what_edits_in_a_whole_run_are(resolution, positional, share, seed):
    runs = made_edges("mamba", "mamba", resolution=resolution, seed=seed % 3, rows=3)
    edges = some_edges(runs.graph, runs.pairs.length if positional else 1, seed, share)
    torch.testing.assert_close(runs.patched(edges[None])[0], by_hand(runs, edges), **CLOSE)


@pytest.mark.parametrize("name", ["attention", "others"])
def test_any_set_of_edges_into_layers_of_other_mixers(name):
    runs = made_edges(*MODELS[name])
    for seed in range(4):
        edges = some_edges(runs.graph, runs.pairs.length, seed)
        torch.testing.assert_close(runs.patched(edges[None])[0], by_hand(runs, edges), **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_cached_outputs_in_place_of_live_ones_overshoot(name):
    runs = made_edges(*MODELS[name])
    edges = all_edges(runs.graph)
    torch.testing.assert_close(by_hand(runs, edges), runs.corrupted.logits, **CLOSE)
    wrong = by_hand(runs, edges, live=False)
    assert (runs.nld(wrong)).abs().max() > 0.05


@given(rows=st.integers(3, 30), seed=st.integers(0, 99))
@settings(max_examples=5)
def test_batches_do_not_matter(rows, seed):
    runs = made_edges("mamba", "mlp")
    sets = torch.stack([some_edges(runs.graph, runs.pairs.length, seed + i) for i in range(4)])
    small = EdgeRuns(runs.graph, runs.pairs, rows=rows)
    torch.testing.assert_close(small.patched(sets), runs.patched(sets), **CLOSE)


def test_normalised_differences_of_some_pairs_and_of_stacked_copies():
    runs = made_edges("mamba")
    rows = torch.tensor([2, 0])
    copies = torch.stack([runs.clean.logits, runs.corrupted.logits])
    assert runs.nld(copies).shape == (2, 4)
    half = (runs.clean.logits + runs.corrupted.logits)[rows] / 2
    torch.testing.assert_close(runs.nld(half, rows), torch.full((2,), 0.5).double(), **CLOSE)


def test_gradients_of_weights_are_as_before():
    runs = made_edges(model=made_model("mamba"))
    runs.graph.model.norm_f.weight.requires_grad_(False)
    runs.patched(all_edges(runs.graph)[None])
    fixed = [name for name, p in runs.graph.model.named_parameters() if not p.requires_grad]
    assert fixed == ["norm_f.weight"]


def test_refusals():
    runs = made_edges("mamba", "mamba")
    none = torch.zeros(1, *runs.graph.edges.shape, 1, dtype=torch.bool)
    with pytest.raises(ValueError, match="edges must have 1 or 7 positions, got 3"):
        runs.patched(none.expand(-1, -1, -1, 3))
    wrong = none.clone()
    wrong[0, 2, 1] = True
    with pytest.raises(ValueError, match="edges must be edges of the graph, got 1 -> 1"):
        runs.patched(wrong)
    with pytest.raises(ValueError, match="rows must be a whole number"):
        EdgeRuns(runs.graph, runs.pairs, rows=0)
