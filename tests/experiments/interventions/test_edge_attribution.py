"""Attributions of edges: completeness, finite differences, sums, and models that are linear."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from experiments.interventions.edge_attribution import (
    INTEGRATED,
    METHODS,
    attribute,
    midpoints,
    published_points,
    step_doubling_error,
)
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made_edges import (
    MODELS,
    RESOLUTIONS,
    by_hand,
    made_edges,
    made_model,
)  # fmt: skip

CLOSE = dict(rtol=0, atol=1e-10)
FEW = midpoints(3)
every_method = pytest.mark.parametrize("method", METHODS)
every_model = pytest.mark.parametrize("name", MODELS)


@every_model
def test_gates_add_up_to_the_effect_of_all_edges(name):
    runs = made_edges(*MODELS[name], resolution="tap")  # branches add up to layers: see below
    found = attribute(runs, "gates", points=midpoints(20))
    assert found.effect_of_all == pytest.approx(-1)
    assert -1.02 < float(found.mean.sum()) < -0.98
    assert abs(found.completeness_gap) < 0.02
    assert abs(attribute(runs, "eap").completeness_gap) > 0.05  # others promise nothing


def test_the_sum_needs_gradients_through_the_live_outputs(monkeypatch):
    runs, walk = made_edges("mamba", "mamba", "mamba"), EdgeGraph.walk

    def detached(self, embedded, ends, moved):
        return walk(self, embedded, ends, lambda block, r, w: moved(block, r.detach(), w))

    monkeypatch.setattr(EdgeGraph, "walk", detached)
    assert abs(attribute(runs, "gates", points=midpoints(6)).completeness_gap) > 0.1


def test_a_mean_over_pairs_in_place_of_the_sum_breaks_the_sum():
    runs = made_edges("mamba", "mamba")
    found = attribute(runs, "gates", points=midpoints(6))
    scaled = float(found.mean.sum()) / len(runs.pairs)
    assert abs(scaled - found.effect_of_all) > 0.7


@every_model
def test_gates_at_the_corrupted_end_are_nothing(name):
    runs = made_edges(*MODELS[name], resolution="tap")
    assert attribute(runs, "gates", points=(1.0,)).scores.abs().max() < 1e-12
    assert published_points(1) == (1.0,)


def test_counting_the_corrupted_end_makes_the_sum_too_small():
    runs = made_edges("mamba", "mamba")
    without = attribute(runs, "gates", points=published_points(5)[:-1])
    biased = attribute(runs, "gates", points=published_points(5))
    torch.testing.assert_close(biased.scores, 0.8 * without.scores, **CLOSE)


@settings(max_examples=6)
@given(
    resolution=st.sampled_from(RESOLUTIONS), point=st.sampled_from([0.0, 0.3, 0.8]),
    positional=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_gradient_of_a_gate_is_a_finite_difference(resolution, point, positional, seed):
    runs = made_edges("mamba", "mamba", resolution=resolution, seed=seed % 3, count=2)
    found = attribute(runs, "gates", points=(point,), positional=positional).scores
    cells, step = found.abs().sum(-1).nonzero(), 1e-4
    cell = tuple(cells[seed % len(cells)].tolist())
    gates = torch.full(found.shape[:3], point, dtype=torch.float64)
    ends = []
    for sign in (1, -1):
        gates[cell] = point + sign * step
        ends.append(runs.nld(by_hand(runs, gates)))
    slope = (ends[0] - ends[1]) / (2 * step)
    torch.testing.assert_close(found[cell], slope, rtol=1e-3, atol=1e-7)


@every_model
def test_eap_is_the_slope_of_patching_nothing(name):
    runs = made_edges(*MODELS[name], resolution="tap")
    eap = attribute(runs, "eap").scores
    torch.testing.assert_close(attribute(runs, "gates", points=(0.0,)).scores, eap, **CLOSE)
    torch.testing.assert_close(attribute(runs, "inputs", points=(0.0,)).scores, eap, **CLOSE)


@every_model
def test_from_the_corrupted_run_is_eap_with_the_prompts_swapped(name):
    runs = made_edges(*MODELS[name], resolution="tap")
    corrupted = attribute(runs, "corrupted").scores
    swapped = attribute(EdgeRuns(runs.graph, runs.pairs.swapped()), "eap").scores
    torch.testing.assert_close(corrupted, swapped, **CLOSE)
    both = (attribute(runs, "eap").scores + corrupted) / 2
    torch.testing.assert_close(attribute(runs, "both").scores, both, **CLOSE)
    ends = attribute(runs, "inputs", points=(1.0,)).scores
    torch.testing.assert_close(ends, corrupted, **CLOSE)
    assert (corrupted - attribute(runs, "eap").scores).abs().max() > 0.01


@pytest.mark.parametrize("method", INTEGRATED)
def test_a_path_is_the_mean_of_its_points(method):
    runs = made_edges("mamba", "mlp")
    each = [attribute(runs, method, points=(point,)).scores for point in FEW]
    torch.testing.assert_close(
        attribute(runs, method, points=FEW).scores, torch.stack(each).mean(0), **CLOSE
    )


@every_method
def test_without_positions_they_are_sums_over_positions(method):
    runs = made_edges("mamba", "attention", "mlp", resolution="tap")
    single, summed = (attribute(runs, method, positional=p, points=FEW) for p in (True, False))
    assert summed.scores.shape[2] == 1
    torch.testing.assert_close(summed.scores, single.scores.sum(2, keepdim=True), **CLOSE)


@pytest.mark.parametrize("method", ["eap", "gates"])
@pytest.mark.parametrize(
    ("name", "resolution"), [*((name, "tap") for name in MODELS), ("hybrid", "branch")]
)
def test_branches_add_up_to_layers(method, name, resolution):
    fine = made_edges(*MODELS[name], resolution=resolution)
    whole = EdgeRuns(EdgeGraph(fine.graph.model), fine.pairs)
    found, expected = (attribute(runs, method, points=(0.4,)).scores for runs in (fine, whole))
    by_block = torch.zeros_like(expected)
    by_block.index_put_(
        (fine.graph.source_block[:, None] + 1, fine.graph.destination_block), found, accumulate=True
    )
    torch.testing.assert_close(by_block, expected, **CLOSE)


@every_method
def test_scores_of_a_pair_do_not_depend_on_the_others(method):
    runs = made_edges("mamba", "mlp")
    whole = attribute(runs, method, points=FEW).scores
    small = EdgeRuns(runs.graph, runs.pairs, rows=3)
    torch.testing.assert_close(attribute(small, method, points=FEW).scores, whole, **CLOSE)
    alone = attribute(EdgeRuns(runs.graph, runs.pairs[1:2]), method, points=FEW).scores
    torch.testing.assert_close(alone, whole[..., 1:2], **CLOSE)


def linear_runs():
    """Three linear blocks that mix positions, and no norm: effects of single edges are linear."""

    class Mixed(nn.Module):
        def __init__(self, seed):
            super().__init__()
            rng = torch.Generator().manual_seed(seed)
            self.weights = torch.randn(2, 16, 16, generator=rng).double() / 8

        def forward(self, x):
            return x @ self.weights[0] + x.cumsum(1) @ self.weights[1]

    model = made_model("mlp", "mlp", "mlp")
    model.norm_f = nn.Identity()
    for number, block in enumerate(model.blocks):
        block.norm, block.mixer = nn.Identity(), Mixed(number)
    return made_edges(model=model)


@pytest.mark.parametrize("positional", [True, False])
def test_every_gradient_is_exact_for_a_linear_model(positional):
    runs = linear_runs()
    effects = exact(runs, positional=positional)
    for method in METHODS[:-1]:
        found = attribute(runs, method, positional=positional, points=FEW)
        torch.testing.assert_close(found.scores, effects, **CLOSE)
    assert abs(float(effects.mean(-1).sum()) + 1) > 0.1  # these do not add up
    fine = attribute(runs, "inputs", positional=positional, points=midpoints(4))
    assert step_doubling_error(runs, fine) < 1e-12
    gates = attribute(runs, "gates", points=midpoints(10))
    assert abs(gates.completeness_gap) < 0.01


@every_method
def test_edges_without_a_difference_and_entries_that_are_none_have_no_score(method):
    runs = made_edges("mamba", "attention", resolution="tap", count=6)
    found = attribute(runs, method, points=FEW)
    assert found.scores.dtype == torch.float64
    assert found.method == method
    assert (found.scores[~runs.graph.edges] == 0).all()
    same = ~runs.differs.mT[:, None].expand(found.scores.shape)
    assert found.scores[same].abs().max() < 1e-12


def test_points():
    assert midpoints(1) == (0.5,)
    assert midpoints(4) == (0.125, 0.375, 0.625, 0.875)
    assert published_points(5) == (0, 0.25, 0.5, 0.75, 1)
    for points in (midpoints, published_points):
        with pytest.raises(ValueError, match="points must be a whole number from 1"):
            points(0)


@pytest.mark.parametrize("method", INTEGRATED)
def test_the_error_of_the_steps_falls_with_their_number(method):
    runs = made_edges("mamba", "mamba")
    errors = [
        step_doubling_error(runs, attribute(runs, method, points=midpoints(2 * points)))
        for points in (1, 4)
    ]
    assert errors[0] > 4 * errors[1] > 0
    coarse, fine = (attribute(runs, method, points=midpoints(m)).mean for m in (4, 8))
    assert errors[1] == pytest.approx(float((coarse - fine).abs().max()))


def test_no_gradients_of_weights():
    runs = made_edges("mamba")
    attribute(runs, "gates", points=FEW)
    assert all(p.grad is None and p.requires_grad for p in runs.graph.model.parameters())


def test_refusals():
    runs = made_edges("mamba")
    with pytest.raises(ValueError, match=r"method must be one of 'eap', .* got 'acdc'"):
        attribute(runs, "acdc")
    for points in ((), (0.5, 1.2), (-0.1,), (float("nan"),)):
        with pytest.raises(ValueError, match="points must be from 0 to 1, and at least one"):
            attribute(runs, "gates", points=points)
    with pytest.raises(ValueError, match="method must be one of 'inputs', 'gates', got 'eap'"):
        step_doubling_error(runs, attribute(runs, "eap"))
    for points in (midpoints(3), published_points(4)):
        with pytest.raises(ValueError, match="points must be an even number of midpoints, got"):
            step_doubling_error(runs, attribute(runs, "gates", points=points))
