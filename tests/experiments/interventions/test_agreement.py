"""Agreement of scores with exact effects, against scipy, and samples of edges by strata."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import pearsonr, spearmanr

from experiments.interventions import agreement as module
from experiments.interventions.agreement import agreement, pearson, stratified_sample
from experiments.interventions.edge_attribution import (
    attribute,
    midpoints,
    step_doubling_error,
)
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made_edges import all_edges, made_edges


@cache
def runs_and_scores(positional=True, method="eap"):
    runs = made_edges("mamba", "mamba", resolution="tap", count=5)
    return runs, attribute(runs, method, positional=positional, points=midpoints(4))


def reaching(runs, positions):
    """Edges whose source writes something else in the two runs of some pair, by loops."""
    found = torch.zeros(*runs.graph.edges.shape, positions, dtype=torch.bool)
    for i, pair, t in (runs.differences.abs().sum(-1) > 0).nonzero().tolist():
        if t <= runs.pairs.out[pair]:
            found[i, :, t if positions > 1 else 0] = True
    return found & runs.graph.edges[:, :, None]


@pytest.mark.parametrize("positional", [True, False])
def test_the_coefficients_are_those_of_scipy_over_edges_patched_exactly(positional):
    runs, scores = runs_and_scores(positional)
    positions = runs.pairs.length if positional else 1
    only = stratified_sample(runs, scores.mean, count=15, seed=0)
    effects = exact(runs, positional=positional, only=only)
    found = agreement(runs, scores, effects, k=4, resamples=50)
    acting = only & ((scores.scores != 0) | (effects != 0)).any(dim=-1)
    assert found.edges == int(acting.sum()) >= 8
    x, y = scores.mean[acting].numpy(), effects.mean(-1)[acting].numpy()
    assert found.pearson.value == pytest.approx(pearsonr(x, y).statistic)
    assert found.spearman.value == pytest.approx(spearmanr(x, y).statistic)
    assert found.top_overlap == len({*x.argsort()[:4]} & {*y.argsort()[:4]}) / 4
    large = abs(y) > 0.01 * abs(y).max()
    assert (found.signed, found.same_sign) == (large.sum(), (x * y > 0)[large].mean())
    assert found.completeness_gap == scores.completeness_gap
    assert agreement(runs, scores, effects, resamples=5).k == min(10, found.edges // 2)
    whole = agreement(runs, scores, exact(runs, positional=positional), k=4, resamples=50)
    assert int(reaching(runs, positions).sum()) >= whole.edges > 15


def test_edges_that_can_do_nothing_do_not_count():
    """Into the output, every position but the last: score and effect are 0 there by causality."""
    runs, scores = runs_and_scores(positional=True)
    output, ends = runs.graph.destinations.index("output"), runs.pairs.out
    idle = torch.arange(runs.pairs.length) != ends[:, None]
    idle = idle.all(dim=0)
    effects = exact(runs)
    assert not effects[:, output, idle].any()
    without = effects.clone()
    without[:, output, idle] = torch.nan
    assert agreement(runs, scores, effects).edges == agreement(runs, scores, without).edges


def test_intervals_are_percentiles_over_resampled_pairs():
    runs, scores = runs_and_scores(positional=False)
    effects = exact(runs, positional=False)
    found = agreement(runs, scores, effects, resamples=4000, seed=1)
    rng, edges = np.random.default_rng(0), reaching(runs, 1)
    drawn = rng.integers(5, size=(4000, 5))
    x, y = (values[edges].numpy()[:, drawn].mean(-1).T for values in (scores.scores, effects))
    for correlation, statistic in ((found.pearson, pearsonr), (found.spearman, spearmanr)):
        some = [statistic(*means).statistic for means in zip(x[:400], y[:400], strict=True)]
        low, high = np.quantile(some, (0.025, 0.975))
        assert correlation.low <= correlation.value <= correlation.high
        assert (correlation.low, correlation.high) == pytest.approx((low, high), abs=0.05)
    again = agreement(runs, scores, effects, resamples=4000, seed=1)
    assert again == found != agreement(runs, scores, effects, resamples=4000, seed=2)


def test_effects_agree_with_themselves_and_not_with_what_is_shuffled_or_reversed():
    runs, scores = runs_and_scores()
    effects = exact(runs)
    same = agreement(runs, replace(scores, scores=effects), effects, resamples=20)
    assert same.pearson.low == pytest.approx(1)
    assert same.spearman.low == pytest.approx(1)
    assert (same.top_overlap, same.same_sign) == (1, 1)
    opposite = agreement(runs, replace(scores, scores=-effects), effects, resamples=20)
    assert opposite.pearson.high == pytest.approx(-1)
    assert opposite.same_sign == 0
    edges, shuffled = reaching(runs, runs.pairs.length), torch.zeros_like(effects)
    order = torch.randperm(int(edges.sum()), generator=torch.Generator().manual_seed(0))
    shuffled[edges] = effects[edges][order]
    wrong = agreement(runs, replace(scores, scores=shuffled), effects, resamples=20)
    assert abs(wrong.pearson.value) < 0.5 < agreement(runs, scores, effects).pearson.value


def test_entries_that_cannot_have_effects_do_not_count():
    runs, scores = runs_and_scores()
    effects, filled = exact(runs), scores.scores.clone()
    nowhere = ~reaching(runs, runs.pairs.length)
    filled[nowhere], effects[nowhere] = 3.0, 3.0
    found = agreement(runs, replace(scores, scores=filled), effects, resamples=20)
    expected = agreement(runs, scores, exact(runs), resamples=20)
    assert replace(found, completeness_gap=0.0) == replace(expected, completeness_gap=0.0)


def test_completeness_and_the_error_of_the_integration_are_handed_on():
    runs, scores = runs_and_scores(method="gates")
    fine = attribute(runs, "gates", points=midpoints(8))
    error = step_doubling_error(runs, fine)
    found = agreement(runs, scores, exact(runs), resamples=5, integration_error=error)
    assert found.integration_error == error > 0
    assert abs(found.completeness_gap) < 0.05
    assert agreement(runs, scores, exact(runs), resamples=5).integration_error is None


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@settings(max_examples=30)
@given(arrays(float, (2, 3, 6), elements=numbers))
def test_coefficients_of_rows(both):
    x, y = both
    found = pearson(x, y)
    assert (np.abs(found) <= 1 + 1e-12).all()
    np.testing.assert_array_equal(found, pearson(y, x))
    for row, value in enumerate(found):
        if np.ptp(x[row]) > 0 and np.ptp(y[row]) > 0:
            assert value == pytest.approx(pearsonr(x[row], y[row]).statistic, abs=1e-6)
        else:
            assert value == 0


def test_a_resample_without_variation_counts_as_no_correlation():
    runs, scores = runs_and_scores(positional=False)
    effects = torch.zeros_like(scores.scores)
    effects[..., :1] = exact(runs, positional=False)[..., :1]  # the other pairs: no effect at all
    found = agreement(runs, scores, effects, resamples=200)
    assert found.pearson.low <= 0 < found.pearson.high


@settings(max_examples=20)
@given(count=st.integers(1, 40), seed=st.integers(0, 99), positional=st.booleans())
def test_a_sample_has_a_third_from_each_stratum(count, seed, positional):
    runs, _ = runs_and_scores(positional)
    candidates = reaching(runs, runs.pairs.length if positional else 1)
    count = min(count, int(candidates.sum()))
    scores = torch.randn(candidates.shape, generator=torch.Generator().manual_seed(seed))
    sample = stratified_sample(runs, scores, count=count, seed=seed)
    assert int(sample.sum()) == count
    assert not (sample & ~candidates).any()
    strata = scores[candidates].abs().sort(descending=True).values.tensor_split(3)
    chosen = scores[sample].abs()
    for stratum, share in zip(strata, torch.arange(count).tensor_split(3), strict=True):
        inside = (chosen >= stratum.min()) & (chosen <= stratum.max())
        assert int(inside.sum()) == len(share)
    assert torch.equal(sample, stratified_sample(runs, scores, count=count, seed=seed))


def test_samples_differ_by_seed():
    runs, scores = runs_and_scores()
    first, second = (stratified_sample(runs, scores.mean, count=9, seed=seed) for seed in (0, 1))
    assert not torch.equal(first, second)
    every = int(reaching(runs, runs.pairs.length).sum())
    whole = stratified_sample(runs, scores.mean, count=every, seed=0)
    assert torch.equal(whole, reaching(runs, runs.pairs.length))
    assert every < int(all_edges(runs.graph, runs.pairs.length).sum())


def test_refusals():
    runs, scores = runs_and_scores(positional=False)
    effects = exact(runs, positional=False)
    edges = len(runs.graph)
    for count in (0, edges + 1):
        with pytest.raises(ValueError, match="count must be"):
            stratified_sample(runs, scores.mean, count=count, seed=0)
    with pytest.raises(ValueError, match=r"effects must have the shape of the scores \(3, 11, 1"):
        agreement(runs, scores, exact(runs))
    for k in (0, edges + 1):
        with pytest.raises(ValueError, match="k must be"):
            agreement(runs, scores, effects, k=k)
    with pytest.raises(ValueError, match="resamples must be"):
        agreement(runs, scores, effects, resamples=0)
    for name, replaced in (
        ("scores", (replace(scores, scores=torch.ones_like(effects)), effects)),
        ("effects", (scores, torch.zeros_like(effects))),
    ):
        with pytest.raises(ValueError, match=f"{name} must not all be the same, got [01].0 every"):
            agreement(runs, *replaced)
    few = stratified_sample(runs, scores.mean, count=2, seed=0)
    with pytest.raises(ValueError, match="fewest_edges=3 and edges_with_effects=2"):
        agreement(runs, scores, exact(runs, positional=False, only=few))
    one = EdgeRuns(runs.graph, runs.pairs[:1])
    with pytest.raises(ValueError, match="fewest_pairs=2 and pairs=1"):
        agreement(one, attribute(one, "eap"), exact(one))


def test_signs_of_negligible_effects_do_not_count(monkeypatch):
    runs, scores = runs_and_scores(positional=False)
    effects = exact(runs, positional=False)
    wrong = torch.where(effects.mean(-1, keepdim=True).abs() < 0.02, -effects, effects)
    wrong = replace(scores, scores=wrong)
    monkeypatch.setattr(module, "NEGLIGIBLE", 0.02 / float(effects.mean(-1).abs().max()))
    assert agreement(runs, wrong, effects, resamples=5).same_sign == 1
    monkeypatch.setattr(module, "NEGLIGIBLE", 0.0)
    assert agreement(runs, wrong, effects, resamples=5).same_sign < 1
