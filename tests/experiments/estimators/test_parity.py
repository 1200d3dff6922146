"""Parities: guesses agree with enumerations, and accuracies with counts and known tables."""

from fractions import Fraction
from itertools import combinations, product
from math import prod

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators.parity import (
    bayes_accuracy_without_examples,
    parity_bayes,
    parity_elimination,
)


def parities(prompts, count, d, sparsity, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    xs = torch.randint(2, (prompts, count, d), generator=generator).double() * 2 - 1
    supports = torch.rand(prompts, 1, d, generator=generator).argsort(dim=-1)[..., :sparsity]
    return xs, xs.gather(2, supports.expand(-1, count, -1)).prod(dim=-1)


@st.composite
def prompts(draw):
    d = draw(st.integers(1, 5))
    sparsity = draw(st.integers(1, d))
    seed = draw(st.integers(0, 9999))
    return sparsity, *parities(3, draw(st.integers(1, 9)), d, sparsity, seed=seed)


def votes(xs, ys, i, sizes):
    """What each support that agrees with the examples before i says of it."""
    d = len(xs[0])
    supports = [s for size in sizes for s in combinations(range(d), size)]
    agree = [s for s in supports if all(prod(xs[j][c] for c in s) == ys[j] for j in range(i))]
    return [prod((xs[i][c] for c in s), start=1.0) for s in agree]


@settings(max_examples=50)
@given(prompts())
def test_guesses_are_those_of_an_enumeration(drawn):
    sparsity, xs, ys = drawn
    bayes, elimination = parity_bayes(xs, ys, sparsity=sparsity), parity_elimination(xs, ys)
    for p in range(len(xs)):
        for i in range(xs.shape[1]):
            says = votes(xs[p].tolist(), ys[p].tolist(), i, [sparsity])
            assert bayes[p, i].item() == pytest.approx(says.count(1.0) / len(says))
            says = votes(xs[p].tolist(), ys[p].tolist(), i, range(xs.shape[2] + 1))
            assert elimination[p, i].item() == pytest.approx(sum(says) / len(says))


@pytest.mark.parametrize(("d", "sparsity"), [(1, 1), (5, 2), (6, 2), (6, 3), (7, 4)])
def test_accuracy_without_examples_is_a_count(d, sparsity):
    supports = list(combinations(range(d), sparsity))
    inputs = list(product((-1, 1), repeat=d))
    right = sum(abs(sum(prod(x[c] for c in s) for s in supports)) for x in inputs)
    exact = Fraction(1, 2) + Fraction(right, 2 * len(inputs) * len(supports))
    assert bayes_accuracy_without_examples(d, sparsity) == pytest.approx(float(exact), abs=1e-15)


def test_known_accuracies_without_examples():
    """By hand for d = 2, sparsity 1: right when x_1 = x_2, and half the time when not."""
    assert bayes_accuracy_without_examples(2, 1) == 0.75
    assert bayes_accuracy_without_examples(10, 2) == 0.5546875
    assert bayes_accuracy_without_examples(6, 2) == 0.59375


@pytest.mark.parametrize(
    ("d", "sparsity", "table"),
    [
        (10, 2, {0: 0.555, 2: 0.607, 4: 0.718, 6: 0.871, 8: 0.96, 10: 0.99, 13: 0.999}),
        (6, 2, {0: 0.594, 2: 0.682, 4: 0.84, 6: 0.95, 8: 0.987}),
        (10, 3, {0: 0.529, 2: 0.561, 4: 0.633, 6: 0.764, 8: 0.903, 10: 0.971}),
    ],
)
def test_accuracy_of_the_posterior(d, sparsity, table):
    """The mean of max(p, 1 - p) and the share of right guesses estimate the same accuracy."""
    n = 6000
    xs, ys = parities(n, max(table) + 1, d, sparsity)
    p = parity_bayes(xs, ys, sparsity=sparsity)
    promised = torch.maximum(p, 1 - p).mean(dim=0)
    right = torch.where(p == 0.5, 0.5, ((p > 0.5) == (ys > 0)).double()).mean(dim=0)
    for examples, accuracy in table.items():
        assert promised[examples].item() == pytest.approx(accuracy, abs=0.01)
        assert right[examples].item() == pytest.approx(accuracy, abs=0.025)  # 4 standard errors
    # What does not know the size of the support is right less often.
    blind = 0.5 + 0.5 * (parity_elimination(xs, ys) != 0).double().mean(dim=0)
    assert (blind[1:6] < promised[1:6] - 0.03).all()


def test_elimination_answers_as_often_as_random_vectors_span():
    """The next x is in the span of k vectors of rank r with probability 2^(r - d)."""
    d, n = 4, 6000
    xs, ys = parities(n, 3, d, 2)
    answered = (parity_elimination(xs, ys) != 0).double().mean(dim=0)
    one = Fraction(1, 16)  # one vector is 0 with probability 1/16
    two = Fraction(1, 16) ** 2 + 3 * one * Fraction(15, 16)  # rank at most 1
    ranks = {0: one**2, 1: two - one**2, 2: 1 - two}
    expected = [one, one * one + (1 - one) * 2 * one, sum(p * 2**r * one for r, p in ranks.items())]
    for found, share in zip(answered.tolist(), expected, strict=True):
        assert found == pytest.approx(float(share), abs=0.02)


def test_bad_arguments_are_named():
    xs, ys = parities(2, 3, 4, 2)
    for sparsity in (0, 5):
        with pytest.raises(ValueError, match="sparsity must be"):
            parity_bayes(xs, ys, sparsity=sparsity)
    with pytest.raises(ValueError, match="sparsity must be at most d"):
        bayes_accuracy_without_examples(3, 4)
    with pytest.raises(ValueError, match=r"xs must be -1 or 1, got 0\.0"):
        parity_elimination(xs - xs, ys)
    with pytest.raises(ValueError, match="ys must be -1 or 1"):
        parity_bayes(xs, 2 * ys, sparsity=2)
    ones = torch.ones(1, 2, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="ys must be parities of 2 coordinates, not at 1"):
        parity_bayes(ones, -ones[..., 0], sparsity=2)
    with pytest.raises(ValueError, match="example 1 contradicts"):
        parity_elimination(ones, -ones[..., 0])
