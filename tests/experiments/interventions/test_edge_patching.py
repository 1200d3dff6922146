"""Exact effects of single edges, against all of them patched one set at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions import edge_patching
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made_edges import (
    MODELS,
    RESOLUTIONS,
    all_edges,
    by_hand,
    made_edges,
    single,
    some_edges,
)  # fmt: skip

CLOSE = dict(rtol=0, atol=1e-10)


def brute_force(runs, positional):
    """Each edge as a set of its own, in runs from the first block on and for every pair."""
    positions = runs.pairs.length if positional else 1
    effects = torch.zeros(*runs.graph.edges.shape, positions, len(runs.pairs)).double()
    cells = all_edges(runs.graph, positions).nonzero()
    patched = runs.patched(single(runs.graph, positions))
    effects[tuple(cells.T)] = runs.nld(patched) - runs.nld(runs.clean.logits)
    return effects


@pytest.mark.parametrize("positional", [True, False])
@pytest.mark.parametrize(
    ("name", "resolution"),
    [*((name, "tap") for name in MODELS), ("hybrid", "layer"), ("hybrid", "branch")],
)
def test_every_edge_as_a_set_of_one(name, resolution, positional):
    runs = made_edges(*MODELS[name], resolution=resolution, count=2)
    effects = exact(runs, positional=positional)
    torch.testing.assert_close(effects, brute_force(runs, positional), **CLOSE)
    assert effects.abs().max() > 0.1


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_edges_are_what_edits_in_whole_runs_are(resolution):
    runs = made_edges("mamba", "mamba", resolution=resolution)
    effects = exact(runs)
    for cell in some_edges(runs.graph, runs.pairs.length, 0, share=0.05).nonzero().tolist():
        gates = torch.zeros(*runs.graph.edges.shape, runs.pairs.length)
        gates[tuple(cell)] = 1
        patched = runs.nld(by_hand(runs, gates))
        torch.testing.assert_close(effects[tuple(cell)], patched - 1, **CLOSE)


@given(rows=st.integers(5, 99))
@settings(max_examples=4)
def test_batches_do_not_matter(rows):
    runs = made_edges("attention", "mlp", resolution="branch", count=2)
    small = exact(EdgeRuns(runs.graph, runs.pairs, rows=rows))
    torch.testing.assert_close(small, exact(runs), **CLOSE)


def test_only_pairs_and_positions_with_a_difference_are_run(monkeypatch):
    runs, cells = made_edges("mamba", "mamba"), []
    patched = edge_patching._patched

    def counted(runs, column, source, position, pair):
        cells.extend(zip(source.tolist(), position.tolist(), pair.tolist(), strict=True))
        return patched(runs, column, source, position, pair)

    monkeypatch.setattr(edge_patching, "_patched", counted)
    effects = exact(runs)
    everything = len(runs.graph) * runs.pairs.length * len(runs.pairs)
    assert len(cells) < 0.6 * everything
    changed = runs.pairs.changed
    embedded = {(pair, position) for source, position, pair in cells if source == 0}
    assert embedded == {tuple(cell) for cell in changed.nonzero().tolist()}
    assert int((effects != 0).sum()) <= len(cells)


def test_differences_at_other_positions_would_be_seen():
    runs = made_edges("mamba", "mamba")
    expected = brute_force(runs, positional=True)
    wrong = EdgeRuns(runs.graph, runs.pairs)
    wrong.__dict__["differs"] = runs.differs.roll(1, dims=2)
    assert (exact(wrong) - expected).abs().max() > 0.1


def test_nothing_behind_the_last_token_has_an_effect():
    runs = made_edges("attention", "mamba", count=6)
    behind = torch.arange(runs.pairs.length)[:, None] > runs.pairs.out
    assert behind.any()
    assert exact(runs).abs().sum((0, 1))[behind].max() == 0


def test_only_some_edges():
    runs = made_edges("mamba", "mlp", "mamba")
    for positional in (True, False):
        only = some_edges(runs.graph, runs.pairs.length if positional else 1, 0, 0.3)
        only[:, 1] = False  # a destination with none at all
        found, whole = (exact(runs, positional=positional, only=edges) for edges in (only, None))
        assert torch.equal(found[only], whole[only])
        missing = runs.graph.edges[:, :, None] & ~only
        assert found[missing].isnan().all()
        assert (found[~runs.graph.edges] == 0).all()


def test_refusals():
    runs = made_edges("mamba")
    with pytest.raises(ValueError, match="only must have 7 positions, got 1"):
        exact(runs, only=all_edges(runs.graph))
    with pytest.raises(ValueError, match="only must have 1 positions, got 7"):
        exact(runs, positional=False, only=all_edges(runs.graph, 7))
    wrong = torch.ones(*runs.graph.edges.shape, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match="edges must be edges of the graph, got 0 -> 0"):
        exact(runs, only=wrong)
