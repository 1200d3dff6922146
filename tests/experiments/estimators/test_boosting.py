"""Boosting against plain whole trees, one fit at a time."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators import boosting
from experiments.estimators.boosting import boosted_guesses
from tests.experiments.estimators.test_trees import normal, whole


def plain_tree(x, r, depth, penalty):
    """A function of the input."""
    n, total = len(r), r.sum()
    value = (total / (n + penalty)).item()
    best = (1e-6, None, None, None)
    for j in range(x.shape[1]) if depth else ():
        values = x[:, j].unique()
        for low, high in pairwise(values):
            left = x[:, j] <= low
            a, b, m = r[left].sum(), r[~left].sum(), left.sum()
            gain = a**2 / (m + penalty) + b**2 / (n - m + penalty) - total**2 / (n + penalty)
            if gain > best[0] + 1e-9 * r.square().sum():
                best = gain, j, low, high
    _, j, low, high = best
    if j is None:
        return lambda _: value
    left = x[:, j] <= low
    below = plain_tree(x[left], r[left], depth - 1, penalty)
    above = plain_tree(x[~left], r[~left], depth - 1, penalty)
    return lambda query: (below if 2 * query[j] <= low + high else above)(query)


def plain_boosting(xs, ys, k, rounds, depth, learning_rate, penalty=1.0):
    guesses = []
    for x, y in zip(xs, ys, strict=True):
        guess, residual = y[:k].mean().item(), y[:k] - y[:k].mean()
        for _ in range(rounds):
            tree = plain_tree(x[:k], residual, depth, penalty)
            residual = residual - learning_rate * torch.tensor([tree(row) for row in x[:k]])
            guess += learning_rate * tree(x[k])
        guesses.append(guess)
    return torch.tensor(guesses, dtype=torch.float64)


@given(
    k=st.integers(1, 9),
    d=st.integers(1, 3),
    depth=st.integers(1, 4),
    rounds=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    signs=st.booleans(),
)
@settings(max_examples=20)
def test_equals_plain_boosting(k, d, depth, rounds, seed, signs):
    xs, ys = whole(2, k + 1, d, seed, -1, 2) if signs else normal(2, k + 1, d, seed)
    sizes = dict(rounds=rounds, depth=depth, learning_rate=0.3)
    guesses = boosted_guesses(xs, ys, prefixes=[k], **sizes)[:, 0]
    torch.testing.assert_close(guesses, plain_boosting(xs, ys, k, **sizes), rtol=1e-6, atol=1e-6)


def test_another_penalty_is_found_out():
    xs, ys = normal(3, 10, 2)
    sizes = dict(rounds=2, depth=2, learning_rate=0.3)
    guesses = boosted_guesses(xs, ys, prefixes=[9], **sizes)[:, 0]
    torch.testing.assert_close(guesses, plain_boosting(xs, ys, 9, **sizes))
    assert (guesses - plain_boosting(xs, ys, 9, **sizes, penalty=0.0)).abs().max() > 1e-2


def test_by_hand():
    """Mean 2; residuals -2, -2, 2, 2 of two and two: leaves -4/3 and 4/3, half of which is added.

    The second round has residuals -4/3 on the left, and adds half of -8/9.
    """
    xs = torch.tensor([[[0.0], [1.0], [4.0], [5.0], [0.2]]], dtype=torch.float64)
    ys = torch.tensor([[0.0, 0.0, 4.0, 4.0, 9.0]], dtype=torch.float64)
    for rounds, guess in ((1, 2 - 2 / 3), (2, 2 - 2 / 3 - 4 / 9)):
        sizes = dict(rounds=rounds, depth=1, learning_rate=0.5)
        assert boosted_guesses(xs, ys, prefixes=[4], **sizes).item() == pytest.approx(guess)


def test_learns_a_function_of_one_coordinate():
    xs, _ = normal(4, 61, 5)
    ys = xs[..., 2].sign()
    guesses = boosted_guesses(xs, ys, prefixes=[60, 0], rounds=10)
    assert (guesses[:, 0].sign() == ys[:, 60]).all()
    assert (guesses[:, 1] == 0).all()


@given(seed=st.integers(0, 10**6))
@settings(max_examples=4)
def test_prefixes_chunks_and_later_examples_change_nothing(seed):
    xs, ys = normal(3, 9, 2, seed)
    sizes = dict(rounds=2, depth=2)
    both = boosted_guesses(xs, ys, prefixes=[6, 3], **sizes)
    later = ys.clone()
    later[:, 6:] = 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boosting, "_NUMBERS", 1)
        alone = boosted_guesses(xs, later, prefixes=[3], **sizes)
        torch.testing.assert_close(both[:, 1:], alone)
        assert torch.equal(both[:, :1], boosted_guesses(xs, later, prefixes=[6], **sizes))


@pytest.mark.parametrize("name", ["rounds", "depth", "learning_rate"])
def test_refuses(name):
    xs, ys = normal(1, 3, 1)
    with pytest.raises(ValueError, match=name):
        boosted_guesses(xs, ys, prefixes=[1], **{name: 0})
    with pytest.raises(ValueError, match="prefixes"):
        boosted_guesses(xs, ys, prefixes=[3])
