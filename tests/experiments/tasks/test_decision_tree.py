"""Decision trees: which leaf an input comes to, what the trees are drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest

from experiments.tasks.decision_tree import DecisionTree
from experiments.tasks.in_context import Curriculum, InContextTask, Ramp

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    d = draw(st.integers(1, 6))
    return DecisionTree(
        d=d,
        depth=draw(st.integers(1, 5)),
        num_examples=draw(st.integers(1, 12)),
        active=draw(st.none() | st.integers(1, d)),
    )


def leaf(coordinates, leaves, x, yes=1):
    """The leaf of one input: down the left or the right half of the leaves."""
    node = 0
    while len(leaves) > 1:
        right = (x[coordinates[node]] > 0) == bool(yes)
        half = len(leaves) // 2
        leaves = leaves[half:] if right else leaves[:half]
        node = 2 * node + (2 if right else 1)
    return leaves[0]


def by_hand(prompts, yes=1):
    hidden = (prompts.hidden["coordinates"].tolist(), prompts.hidden["leaves"].tolist())
    rows = zip(*hidden, prompts.xs.tolist(), strict=True)
    found = [[leaf(c, v, x, yes) for x in xs] for c, v, xs in rows]
    return torch.tensor(found, dtype=torch.float64)


@settings(max_examples=50)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_targets_are_the_leaves_that_the_inputs_come_to(task, seed, split):
    prompts = task.sample(3, seed=seed, split=split)
    assert isinstance(task, InContextTask)
    assert prompts.tokens.shape == (3, task.length, task.d)
    assert prompts.hidden["coordinates"].shape == (3, 2**task.depth - 1)
    assert prompts.hidden["leaves"].shape == (3, 2**task.depth)
    assert torch.equal(prompts.targets.squeeze(2), by_hand(prompts))
    assert torch.equal(prompts.ys, prompts.targets.squeeze(2))
    assert prompts.counted.all()
    if task.active is not None:
        assert (prompts.xs[..., task.active :] == 0).all()


def test_exchanged_children_are_another_tree():
    prompts = DecisionTree(d=6, num_examples=20).sample(5, seed=0)
    assert (by_hand(prompts, yes=0) != prompts.ys).double().mean() > 0.9


@settings(max_examples=30)
@given(tasks(), st.integers(0, 50))
def test_only_the_signs_matter_and_only_those_asked_about(task, seed):
    prompts = task.sample(3, seed=seed)
    for xs, ys, asked in zip(prompts.xs, prompts.ys, prompts.hidden["coordinates"], strict=True):
        assert len(ys.unique()) <= 2**task.depth
        signs = (xs[:, asked] > 0).tolist()
        known = {}
        for pattern, y in zip(map(tuple, signs), ys.tolist(), strict=True):
            assert known.setdefault(pattern, y) == y


@given(st.integers(1, 5), st.integers(0, 50))
def test_of_one_coordinate_two_leaves_are_in_reach(depth, seed):
    prompts = DecisionTree(d=1, depth=depth, num_examples=9).sample(3, seed=seed)
    leaves = prompts.hidden["leaves"]
    expected = torch.where(prompts.xs[..., 0] > 0, leaves[:, -1:], leaves[:, :1])
    assert torch.equal(prompts.ys, expected)


def test_leaves_in_reach():
    """Of depth 2 and two coordinates: each child of the root repeats its question with probability
    1/2 and then has one leaf in reach, else two; 3 leaves on average, with variance 2 * 0.25."""
    prompts = DecisionTree(d=2, depth=2, num_examples=60).sample(2000, seed=0)
    found = np.array([len(ys.unique()) for ys in prompts.ys])
    error = np.sqrt(0.5 / 2000)
    assert abs(found.mean() - 3) < 4 * error
    assert abs(found.mean() - 4) > 20 * error


def test_the_draws_have_the_stated_laws():
    task = DecisionTree(d=5, depth=3, num_examples=40, active=2)
    prompts = task.sample(3000, seed=1)
    coordinates, leaves = prompts.hidden["coordinates"], prompts.hidden["leaves"]
    assert chisquare(coordinates.flatten().bincount(minlength=5)).pvalue > 0.01
    assert kstest(leaves.flatten(), "norm").pvalue > 0.01
    assert kstest(prompts.xs[:50, :, :2].flatten(), "norm").pvalue > 0.01
    squares = prompts.ys.square().mean(dim=1)
    assert abs(squares.mean() - task.scale) < 4 * squares.std() / np.sqrt(3000)
    # Asked about a coordinate that is not active, everything goes left.
    left = coordinates[:, 0] >= 2
    assert (prompts.ys[left][..., None] == leaves[left][:, None, :4]).any(dim=2).all()


def test_a_curriculum_ramps_both_up():
    curriculum = Curriculum(
        active=Ramp(start=5, end=20, interval=2000),
        num_examples=Ramp(start=26, end=101, increment=5, interval=2000),
    )
    assert curriculum.task(DecisionTree(), 4000) == DecisionTree(active=7, num_examples=36)
    assert curriculum.task(DecisionTree(), 10**6) == DecisionTree(active=20)


@settings(max_examples=10)
@given(st.integers(0, 50))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(seed):
    task = DecisionTree(d=4, num_examples=6)
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(3, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1).tokens):
        assert not torch.isin(first.tokens[first.tokens != 0], other).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"depth": 0}, "depth must be a whole number"),
        ({"num_examples": 0}, "num_examples must be a whole number"),
        ({"active": 0}, "active must be a whole number"),
        ({"active": 21}, "active must be at most d"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        DecisionTree(**change)


def test_unknown_splits_are_named():
    with pytest.raises(ValueError, match="split must be one of"):
        DecisionTree().sample(2, seed=0, split="dev")
