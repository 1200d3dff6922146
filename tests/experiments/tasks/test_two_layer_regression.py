"""Two-layer regression: exact labels, scale, and zero coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.in_context import InContextTask
from experiments.tasks.two_layer_regression import TwoLayerRegression

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    d = draw(st.integers(1, 6))
    return TwoLayerRegression(
        d=d,
        hidden=draw(st.integers(1, 6)),
        num_examples=draw(st.integers(1, 5)),
        active=draw(st.none() | st.integers(1, d)),
    )


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_labels_are_those_of_the_network(task, seed, split):
    prompts = task.sample(3, seed=seed, split=split)
    assert isinstance(task, InContextTask)
    assert prompts.tokens.shape == (3, task.length, task.d)
    assert torch.equal(prompts.targets[..., 0], prompts.ys)
    assert (prompts.xs[..., task.active or task.d :] == 0).all()
    assert prompts.scored.tolist() == list(range(task.num_examples))
    for xs, ys, W1, W2 in zip(
        prompts.xs.numpy(),
        prompts.ys.numpy(),
        prompts.hidden["W1"].numpy(),
        prompts.hidden["W2"].numpy(),
        strict=True,
    ):
        for x, y in zip(xs, ys, strict=True):
            units = [max(0.0, float(W1[:, j] @ x)) for j in range(task.hidden)]
            assert y == pytest.approx(np.sqrt(2 / task.hidden) * (W2 @ units), abs=1e-12)


@settings(max_examples=20)
@given(tasks(), st.integers(0, 50))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(task, seed):
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(3, seed=seed, split=split) for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1)):
        assert not torch.isin(other.xs[..., 0], first.xs[..., 0]).any()
        assert not torch.isin(other.hidden["W2"], first.hidden["W2"]).any()


@pytest.mark.parametrize(
    "task",
    [
        TwoLayerRegression(d=6, hidden=5, num_examples=3),
        TwoLayerRegression(d=6, hidden=1, num_examples=3),
        TwoLayerRegression(d=6, hidden=5, num_examples=3, active=2),
    ],
)
def test_scale_is_the_mean_square_of_a_target(task):
    squares = task.sample(40_000, seed=0).ys.square().mean(dim=1)
    error = squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - task.scale) < 4 * error
    # Negative control: without the factor 2, or the width for the number of coordinates.
    assert abs(squares.mean() - task.scale / 2) > 10 * error
    assert abs(squares.mean() - task.hidden) > 4 * error


def test_one_unit_is_off_for_half_of_the_inputs():
    """W1.x is symmetric, so that relu leaves 0 with probability 1/2."""
    ys = TwoLayerRegression(d=3, hidden=1, num_examples=1).sample(10_000, seed=0).ys
    assert abs((ys == 0).double().mean() - 0.5) < 4 * 0.5 / 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"hidden": 0}, "hidden must be a whole number"),
        ({"num_examples": 0}, "num_examples must be a whole number"),
        ({"active": 0}, "active must be a whole number"),
        ({"active": 21}, "active must be at most d, got active=21 and d=20"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TwoLayerRegression(**change)
