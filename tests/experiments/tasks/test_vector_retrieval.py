"""Recall of vectors: norms, queries and their answers, and the two variants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from experiments.tasks.in_context import InContextTask
from experiments.tasks.vector_retrieval import VectorRetrieval

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw, variants=("paper", "released")):
    pairs, variant = draw(st.integers(1, 8)), draw(st.sampled_from(variants))
    return VectorRetrieval(
        d=draw(st.integers(2, 8)),
        num_pairs=pairs,
        num_queries=draw(st.integers(1, pairs)) if variant == "paper" else 1,
        query_noise=draw(st.sampled_from((0.0, 0.4, 5.0))),
        variant=variant,
    )


def parts(task, prompts):
    n = 2 * task.num_pairs
    return prompts.tokens[:, :n:2], prompts.tokens[:, 1:n:2], prompts.tokens[:, n:]


def nearest(task, prompts):
    """The number of the key at the smallest distance from each query."""
    keys, _, queries = parts(task, prompts)
    return torch.cdist(queries, keys).argmin(dim=2)


def of_pairs(vectors, pair):
    return vectors.gather(1, pair[..., None].expand(-1, -1, vectors.shape[2]))


@settings(max_examples=80)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_targets_are_values_of_the_prompt(task, seed, split):
    prompts = task.sample(5, seed=seed, split=split)
    _, values, queries = parts(task, prompts)
    assert isinstance(task, InContextTask)
    assert task.d_output == task.d
    assert prompts.tokens.shape == (5, task.length, task.d)
    assert queries.shape == (5, task.num_queries, task.d)
    assert torch.equal(prompts.tokens[:, prompts.at], queries)
    assert torch.equal(prompts.targets, of_pairs(values, prompts.hidden["pair"]))
    assert prompts.counted.all()
    # So the guess 0 has exactly the error 1.
    assert torch.allclose(prompts.tokens.square().mean(dim=2), torch.tensor(task.scale).double())


@settings(max_examples=40)
@given(tasks(variants=("paper",)), st.integers(0, 50))
def test_queries_are_different_keys_with_an_answer(task, seed):
    prompts = task.sample(5, seed=seed)
    keys, _, queries = parts(task, prompts)
    pair = prompts.hidden["pair"]
    assert all(len(set(row)) == task.num_queries for row in pair.tolist())
    if task.query_noise == 0:
        assert torch.equal(queries, of_pairs(keys, pair))
        assert torch.equal(nearest(task, prompts), pair)


@settings(max_examples=40)
@given(tasks(variants=("released",)), st.integers(0, 50))
def test_released_targets_belong_to_the_nearest_key(task, seed):
    prompts = task.sample(5, seed=seed)
    assert torch.equal(nearest(task, prompts), prompts.hidden["pair"])


def test_noise_brings_other_keys_nearer_to_queries_of_the_paper_variant():
    task = VectorRetrieval(d=4, num_pairs=6, query_noise=1.0)
    prompts = task.sample(300, seed=0)
    missed = (nearest(task, prompts) != prompts.hidden["pair"]).double().mean()
    assert 0.2 < missed < 0.8


@pytest.mark.parametrize(("variant", "share"), [("paper", 0.0), ("released", 0.2)])
def test_released_queries_are_once_in_pairs_plus_one_times_no_key(variant, share):
    task = VectorRetrieval(d=3, num_pairs=4, variant=variant)
    prompts = task.sample(4000, seed=0)
    keys, _, queries = parts(task, prompts)
    unknown = ~(queries == keys).all(dim=2).any(dim=1)
    assert binomtest(int(unknown.sum()), 4000, share).pvalue > 0.01
    if variant == "released":  # not one in the number of pairs
        assert binomtest(int(unknown.sum()), 4000, 1 / 4).pvalue < 1e-6


@pytest.mark.parametrize("variant", ["paper", "released"])
def test_all_pairs_are_asked_about_equally_often(variant):
    task = VectorRetrieval(d=3, num_pairs=5, variant=variant)
    pair = task.sample(4000, seed=1).hidden["pair"].flatten()
    assert chisquare(pair.bincount(minlength=5)).pvalue > 0.01
    many = VectorRetrieval(d=3, num_pairs=5, num_queries=3).sample(4000, seed=1).hidden["pair"]
    for query in many.T:
        assert chisquare(query.bincount(minlength=5)).pvalue > 0.01


def test_noisy_queries_have_the_stated_angle():
    r"""$k \cdot q / d = (1 + \sigma z / \sqrt d) / |k + \sigma g| \sqrt d$ with z ~ N(0, 1), which
    tends to $1 / \sqrt{1 + \sigma^2}$; the deviation is of order $1 / d$."""
    task = VectorRetrieval(d=1000, num_pairs=2, query_noise=2.0)
    prompts = task.sample(200, seed=0)
    keys, _, queries = parts(task, prompts)
    cosine = (of_pairs(keys, prompts.hidden["pair"]) * queries).mean(dim=2)
    assert abs(cosine.mean() - 1 / np.sqrt(5)) < 0.01
    # Noise of standard deviation sigma / sqrt(d) in each coordinate would hardly be seen.
    assert abs(cosine.mean() - 1) > 0.5


def test_vectors_have_no_preferred_direction():
    prompts = VectorRetrieval(d=3, num_pairs=20).sample(500, seed=0)
    vectors = prompts.tokens[:, :-1].flatten(0, 1)
    covariance = vectors.T @ vectors / len(vectors)
    # Products of two coordinates have a standard deviation below 1 (x_i^2 <= 3, mean 1).
    assert (covariance - torch.eye(3)).abs().max() < 5 / np.sqrt(len(vectors))
    assert vectors.mean(dim=0).abs().max() < 5 / np.sqrt(len(vectors))


@settings(max_examples=10)
@given(st.integers(0, 50), st.sampled_from(("paper", "released")))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(seed, variant):
    task = VectorRetrieval(d=4, num_pairs=5, variant=variant)
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(3, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1).tokens):
        assert not torch.isin(first.tokens, other).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 1}, "d must be at least 2"),
        ({"num_pairs": 0}, "num_pairs must be a whole number"),
        ({"num_queries": 0}, "num_queries must be a whole number"),
        ({"num_queries": 65}, "num_queries must be at most num_pairs"),
        ({"query_noise": -1.0}, "query_noise must be"),
        ({"variant": "blog"}, "variant must be one of 'paper', 'released'"),
        ({"variant": "released", "num_queries": 2}, "num_queries must be 1 if released, got 2"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        VectorRetrieval(**change)
