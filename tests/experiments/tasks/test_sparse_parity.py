"""Sparse parity: targets, supports, and what can be known without examples."""

from itertools import combinations
from math import comb

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from experiments.tasks.in_context import Curriculum, InContextTask, Ramp
from experiments.tasks.sparse_parity import SparseParity

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    d = draw(st.integers(1, 8))
    return SparseParity(
        d=d,
        sparsity=draw(st.integers(1, d)),
        num_examples=draw(st.integers(1, 12)),
        shared_support=draw(st.booleans()),
    )


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_targets_are_the_products_over_the_support(task, seed, split):
    prompts = task.sample(4, seed=seed, split=split)
    support = prompts.hidden["support"]
    assert isinstance(task, InContextTask)
    assert task.signs
    assert prompts.tokens.shape == (4, task.length, task.d)
    assert support.shape == (4, task.d)
    assert (support.sum(dim=1) == task.sparsity).all()
    assert set(prompts.xs.unique().tolist()) <= {-1.0, 1.0}
    for xs, ys, chosen in zip(prompts.xs, prompts.ys, support, strict=True):
        negative = (xs[:, chosen] < 0).sum(dim=1)
        assert torch.equal(ys, 1.0 - 2.0 * (negative % 2))
    assert torch.equal(prompts.targets.squeeze(2), prompts.ys)
    assert prompts.counted.all()
    if task.shared_support:
        assert (support == support[0]).all()


@settings(max_examples=8)
@given(st.sampled_from([(6, 2), (6, 3), (5, 5)]), st.booleans(), st.integers(0, 20))
def test_signs_are_balanced_and_no_smaller_product_tells_them(size, shared, seed):
    d, sparsity = size
    task = SparseParity(d=d, sparsity=sparsity, num_examples=50, shared_support=shared)
    prompts = task.sample(200, seed=seed)
    support, xs, ys = prompts.hidden["support"], prompts.xs, prompts.ys
    row, member = support.nonzero().T
    inside = xs[row, :, member].reshape(200, sparsity, 50)
    # Means of 10 000 independent signs; five standard errors.
    assert ys.mean().abs() < 5 / 100
    for order in range(1, sparsity):
        for chosen in combinations(range(sparsity), order):
            assert (ys * inside[:, list(chosen)].prod(dim=1)).mean().abs() < 5 / 100
    assert (ys * inside.prod(dim=1)).mean() == 1


@pytest.mark.parametrize("shared", [False, True])
def test_all_supports_are_equally_likely(shared):
    task = SparseParity(d=5, num_examples=1, shared_support=shared)
    calls = range(400) if shared else [0]
    prompts = 2 if shared else 2000
    drawn = torch.cat(
        [task.sample(prompts, seed=i).hidden["support"][:: 2 if shared else 1] for i in calls]
    )
    number = drawn.long() @ (2 ** torch.arange(5))
    assert len(number.unique()) == comb(5, 2)
    assert chisquare(number.unique(return_counts=True)[1]).pvalue > 0.01


def prior_accuracy(d, sparsity):
    """Of the sign that most supports give an x with m entries -1, m binomial: C(m, j) C(d - m,
    sparsity - j) supports have j of them, and with j odd the sign -1."""
    total = 0.0
    for m in range(d + 1):
        odd = sum(comb(m, j) * comb(d - m, sparsity - j) for j in range(1, sparsity + 1, 2))
        total += comb(d, m) / 2**d * max(odd, comb(d, sparsity) - odd) / comb(d, sparsity)
    return total


def test_inputs_alone_tell_a_little():
    """0.5547 for two of ten coordinates, 0.59375 for two of six."""
    assert prior_accuracy(10, 2) == pytest.approx(0.5546875)
    assert prior_accuracy(6, 2) == pytest.approx(0.59375)
    prompts = SparseParity(num_examples=4).sample(4000, seed=0)
    m = (prompts.xs < 0).sum(dim=2)
    guess = torch.where(m * (10 - m) > 45 / 2, -1.0, 1.0)
    # One guess for each prompt: those of one prompt share its support.
    right = int((guess == prompts.ys)[:, 0].sum())
    assert binomtest(right, 4000, prior_accuracy(10, 2)).pvalue > 0.01
    assert binomtest(right, 4000, 0.5).pvalue < 1e-6


def test_supports_of_one_call_differ_unless_shared():
    support = SparseParity(num_examples=1).sample(64, seed=0).hidden["support"]
    assert len(support.unique(dim=0)) > 20
    shared = SparseParity(num_examples=1, shared_support=True).sample(64, seed=0).hidden["support"]
    assert len(shared.unique(dim=0)) == 1


@settings(max_examples=10)
@given(st.integers(0, 50), st.booleans())
def test_equal_seeds_give_equal_prompts_and_other_splits_others(seed, shared):
    task = SparseParity(num_examples=10, shared_support=shared)
    first, again = (task.sample(5, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(5, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(5, seed=seed + 1).tokens):
        assert not torch.equal(first.tokens, other)


def test_there_are_no_active_coordinates_to_ramp_up():
    with pytest.raises(ValueError, match="active: SparseParity has no such field"):
        Curriculum(active=Ramp(start=1, end=5, interval=1)).task(SparseParity(), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"sparsity": 0}, "sparsity must be a whole number"),
        ({"num_examples": 0}, "num_examples must be a whole number"),
        ({"sparsity": 11}, "sparsity must be at most d"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        SparseParity(**change)
