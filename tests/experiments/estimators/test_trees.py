"""Trees against plain ones in exact arithmetic, and what they must not depend on."""

from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import bench_in_context_trees
from experiments.estimators import trees
from experiments.estimators.trees import tree_guesses


def plain_guess(x, y, query, depth):
    """Exact: of the best splits, the first by coordinate and then by value."""
    mean = sum(y) / Fraction(len(y))
    best = None
    for j in range(len(query)) if depth != 0 and len(set(y)) > 1 else ():
        values = sorted({row[j] for row in x})
        for low, high in pairwise(values):
            left = [b for a, b in zip(x, y, strict=True) if a[j] <= low]
            n = len(y)
            gain = (sum(left) - len(left) * mean) ** 2 * n / (len(left) * (n - len(left)))
            if best is None or gain > best[0]:
                best = gain, j, low, high
    if best is None:
        return mean
    _, j, low, high = best
    below = query[j] <= Fraction(low + high) / 2
    side = [(a, b) for a, b in zip(x, y, strict=True) if (a[j] <= low) == below]
    x, y = zip(*side, strict=True)
    return plain_guess(x, y, query, None if depth is None else depth - 1)


def plain_guesses(xs, ys, depth):
    guesses = torch.zeros(ys.shape, dtype=torch.float64)
    for i, (x, y) in enumerate(zip(xs.long().tolist(), ys.long().tolist(), strict=True)):
        for k in range(1, len(y)):
            guesses[i, k] = float(plain_guess(x[:k], y[:k], x[k], depth))
    return guesses


def whole(prompts, examples, d, seed, low, high):
    """Whole numbers, among which ties of every kind are common."""
    rng = torch.Generator().manual_seed(seed)
    numbers = torch.randint(low, high, (prompts, examples, d + 1), generator=rng).double()
    return numbers[..., :d], numbers[..., d]


def normal(prompts, examples, d, seed=0):
    rng = torch.Generator().manual_seed(seed)
    shape = (prompts, examples, d + 1)
    numbers = torch.randn(shape, generator=rng, dtype=torch.float64)
    return numbers[..., :d], numbers[..., d]


sizes = dict(
    examples=st.integers(2, 9),
    d=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    high=st.sampled_from([1, 2, 50]),
    depth=st.sampled_from([1, 2, 4, None]),
)


@given(**sizes)
@settings(max_examples=40)
def test_equals_plain_trees(examples, d, seed, high, depth):
    """With signs, hardly any two of the same, and repeated inputs of different outputs."""
    xs, ys = whole(3, examples, d, seed, -high, high + 1)
    torch.testing.assert_close(tree_guesses(xs, ys, depth=depth), plain_guesses(xs, ys, depth))


def test_ties_decided_the_other_way_are_found_out():
    xs, ys = whole(20, 8, 3, 0, -2, 3)
    plain = plain_guesses(xs, ys, None)
    torch.testing.assert_close(tree_guesses(xs, ys), plain)
    assert (tree_guesses(xs.flip(2), ys) - plain).abs().max() > 0.5
    assert (tree_guesses(-xs, ys) - plain).abs().max() > 0.5


@given(depth=st.sampled_from([1, 3, None]), seed=st.integers(0, 10**6))
@settings(max_examples=8)
def test_equals_whole_trees_of_the_benchmark(depth, seed):
    """Of one coordinate, where different splits are of different gain with probability one."""
    xs, ys = normal(2, 25, 1, seed)
    plain = bench_in_context_trees.one_at_a_time(xs, ys, depth)
    torch.testing.assert_close(tree_guesses(xs, ys, depth=depth), plain)


def test_by_hand():
    """Means 2 and 6 of x < 2 and > 3; depth 2 parts each pair at 0.5 and 4.5."""
    xs = torch.tensor([[[0.0], [1.0], [4.0], [5.0], [0.2]]], dtype=torch.float64)
    ys = torch.tensor([[1.0, 3.0, 5.0, 7.0, 0.0]], dtype=torch.float64)
    assert tree_guesses(xs, ys, depth=1, prefixes=[4]).item() == 2
    assert tree_guesses(xs, ys, depth=2, prefixes=[4]).item() == 1
    assert tree_guesses(xs, ys, depth=1, prefixes=[0, 1, 2]).tolist() == [[0, 1, 3]]


def test_splits_that_gain_nothing_are_made():
    """Exclusive or: the first split gains nothing, and both together everything."""
    xs = torch.tensor([[[-1, -1], [-1, 1], [1, -1], [1, 1], [-1, 1]]], dtype=torch.float64)
    ys = torch.tensor([[1, -1, -1, 1, 0]], dtype=torch.float64)
    assert tree_guesses(xs, ys, depth=1, prefixes=[4]).item() == 0
    assert tree_guesses(xs, ys, depth=2, prefixes=[4]).item() == -1


@given(seed=st.integers(0, 10**6), depth=st.sampled_from([2, None]))
@settings(max_examples=15)
def test_moves_and_scales_with_the_outputs(seed, depth):
    xs, ys = normal(3, 12, 2, seed)
    guesses = tree_guesses(xs, ys, depth=depth)
    torch.testing.assert_close(
        tree_guesses(xs, 5 - 3 * ys, depth=depth)[:, 1:], 5 - 3 * guesses[:, 1:]
    )


@given(seed=st.integers(0, 10**6))
@settings(max_examples=10)
def test_a_known_input_is_recalled(seed):
    """Without limit the leaf of an input seen before has its output alone."""
    xs, ys = normal(3, 12, 2, seed)
    xs[:, -1] = xs[:, 4]
    torch.testing.assert_close(tree_guesses(xs, ys)[:, -1], ys[:, 4])
    assert (tree_guesses(xs, ys, depth=1)[:, -1] - ys[:, 4]).abs().max() > 1e-3


def test_prefixes_and_chunks_change_nothing(monkeypatch):
    xs, ys = normal(4, 30, 5)
    guesses = tree_guesses(xs, ys)
    chosen = [20, 3, 0, 29, 3]
    torch.testing.assert_close(tree_guesses(xs, ys, prefixes=chosen), guesses[:, chosen])
    monkeypatch.setattr(trees, "_NUMBERS", 1000)
    torch.testing.assert_close(tree_guesses(xs, ys), guesses)
    later = ys.clone()
    later[:, 10:] = 7
    torch.testing.assert_close(tree_guesses(xs, later)[:, :11], guesses[:, :11])


def test_signs_help_where_only_signs_matter():
    """Trees on signs err less from signs than from numbers."""
    xs, ys = bench_in_context_trees.tree_prompts(200)
    errors = {
        name: (tree_guesses(x, ys, depth=4, prefixes=[100])[:, 0] - ys[:, 100]).square().mean()
        for name, x in (("signs", xs.sign()), ("numbers", xs))
    }
    assert 0 < errors["signs"] < 0.7 * errors["numbers"]


def test_benchmark_compares_both_ways(monkeypatch):
    monkeypatch.setattr(bench_in_context_trees, "EXAMPLES", 8)
    monkeypatch.setattr(bench_in_context_trees, "BATCHED", 2)
    measured = bench_in_context_trees.measure_trees(1)
    assert [m.unit for m in measured] == ["s", "s", "times"] * 2
    assert all(m.value > 0 for m in measured)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(depth=0), "depth must be a whole number"),
        (dict(prefixes=[5]), "prefixes must be from 0 to 4, got"),
        (dict(prefixes=[-1]), "prefixes must be from 0 to 4, got"),
        (dict(ys=torch.full((2, 5), torch.nan).double()), "ys must be finite"),
        (dict(xs=torch.full((2, 5, 3), torch.inf).double()), "xs must be finite"),
        (dict(xs=torch.zeros(2, 5, 0).double()), "same prompts and examples"),
    ],
)
def test_refuses(change, message):
    xs, ys = normal(2, 5, 3)
    with pytest.raises(ValueError, match=message):
        tree_guesses(**(dict(xs=xs, ys=ys) | change))
