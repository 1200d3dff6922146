"""Linear regression: exact labels, supports, moments, and what simple estimators reach."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.in_context import InContextTask
from experiments.tasks.linear_regression import LinearRegression

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    d = draw(st.integers(1, 7))
    active = draw(st.none() | st.integers(1, d))
    return LinearRegression(
        d=d,
        num_examples=draw(st.integers(1, 6)),
        active=active,
        sparsity=draw(st.none() | st.integers(1, active or d)),
        noise=draw(st.sampled_from((0.0, 0.5))),
    )


def deviations(prompts, expected):
    """Standard errors between the mean square of the scored targets and the expected one."""
    squares = prompts.targets[:, prompts.scored, 0].square().mean(dim=1)  # independent
    return abs(squares.mean() - expected) / (squares.std() / len(squares) ** 0.5)


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_labels_are_those_of_the_weights(task, seed, split):
    prompts = task.sample(4, seed=seed, split=split)
    assert isinstance(task, InContextTask)
    assert prompts.tokens.shape == (4, task.length, task.d)
    assert prompts.targets.shape == (4, task.num_examples, task.d_output)
    assert torch.equal(prompts.targets[..., 0], prompts.ys)
    assert prompts.counted.all()
    assert prompts.scored.tolist() == list(range(task.num_examples))
    noise = prompts.ys - torch.einsum("pnd,pd->pn", prompts.xs, prompts.hidden["weights"])
    if task.noise == 0:
        assert noise.abs().max() < 1e-13
    else:
        assert noise.abs().min() > 0


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50))
def test_supports_are_exact_and_inactive_coordinates_zero(task, seed):
    active = task.active or task.d
    prompts = task.sample(5, seed=seed)
    weights = prompts.hidden["weights"]
    assert ((weights != 0).sum(dim=1) == task.nonzero).all()
    assert (weights[:, active:] == 0).all()
    assert (prompts.xs[..., active:] == 0).all()
    assert (prompts.xs[..., :active] != 0).all()


@settings(max_examples=20)
@given(tasks(), st.integers(0, 50))
def test_equal_seeds_give_equal_prompts_and_other_splits_others(task, seed):
    first, again = (task.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.hidden["weights"], again.hidden["weights"])
    others = [task.sample(3, seed=seed, split=split) for split in SPLITS[1:]]
    for other in (*others, task.sample(3, seed=seed + 1)):
        # Not one number of the first is used again.
        assert not torch.isin(other.xs[..., 0], first.xs[..., 0]).any()
        assert not torch.isin(other.ys, first.ys).any()


@pytest.mark.parametrize(
    "task",
    [
        LinearRegression(d=6, num_examples=4),
        LinearRegression(d=6, num_examples=4, active=2),
        LinearRegression(d=6, num_examples=4, sparsity=2),
        LinearRegression(d=6, num_examples=4, active=4, sparsity=1),
        LinearRegression(d=6, num_examples=4, noise=2.0),
        LinearRegression(d=6, num_examples=4, active=3, noise=1.0),
    ],
)
def test_scale_is_the_mean_square_of_a_target(task):
    """E (w.x)^2 = E |w|^2, one for each weight that is drawn, and the noise is independent."""
    prompts = task.sample(20_000, seed=1)
    assert deviations(prompts, task.scale) < 4
    # Negative control: neither d nor the square root, where these are something else.
    for wrong in {float(task.d), task.scale**0.5} - {task.scale}:
        assert deviations(prompts, wrong) > 20


def test_inputs_and_weights_are_standard_normal():
    prompts = LinearRegression(d=5, num_examples=4).sample(10_000, seed=0)
    for values in (prompts.xs, prompts.hidden["weights"]):
        n = values.numel()
        # The first four moments of N(0, 1), with the standard deviations of their estimates.
        for power, moment, deviation in (
            (1, 0, 1),
            (2, 1, 2**0.5),
            (3, 0, 15**0.5),
            (4, 3, 96**0.5),
        ):
            assert abs((values**power).mean() - moment) < 4 * deviation / n**0.5
    both = torch.cat([prompts.xs.flatten(1), prompts.hidden["weights"]], dim=1)
    correlations = both.T @ both / len(both) - torch.eye(25)
    assert correlations.abs().max() < 6 / len(both) ** 0.5


def test_supports_are_uniform_in_the_active_coordinates():
    task = LinearRegression(d=6, num_examples=1, active=4, sparsity=2)
    supports = task.sample(6_000, seed=0).hidden["weights"] != 0
    pairs = supports.double().T @ supports.double()
    observed = [pairs[i, j].item() for i in range(4) for j in range(i)]
    assert chisquare(observed).pvalue > 0.01
    # Negative control: a support drawn among all coordinates.
    supports = replace(task, active=None).sample(6_000, seed=0).hidden["weights"] != 0
    assert supports[:, 4:].any()


def test_errors_of_least_squares_and_of_averaging():
    """Over the weights' direction, k examples fix k of d dimensions: the minimum-norm solution has
    the error 1 - k/d. That of (1/k) sum y_i x_i has E|w|^2 - 2 E w.Sw + E w.S^2w with S the mean
    of x x^T, E S = I and E S^2 = (1 + (d + 1)/k) I: the error (d + 1)/k.
    """
    d, n = 5, 8_000
    prompts = LinearRegression(d=d, num_examples=9).sample(n, seed=0)
    for k in (1, 2, 4, 5, 8):
        xs, ys, query = prompts.xs[:, :k], prompts.ys[:, :k, None], prompts.xs[:, k]
        averaged = (xs.mT @ ys).squeeze(-1) / k
        for estimate, expected in (
            ((torch.linalg.pinv(xs) @ ys).squeeze(-1), max(0, 1 - k / d)),
            (averaged, (d + 1) / k),
        ):
            errors = ((query * estimate).sum(dim=1) - prompts.ys[:, k]).square() / d
            assert abs(errors.mean() - expected) < 4 * errors.std() / n**0.5 + 1e-9


def test_noise_is_in_the_labels_and_in_the_targets():
    task = LinearRegression(d=3, num_examples=5, noise=2.0)
    prompts = task.sample(10_000, seed=0)
    noise = prompts.ys - (prompts.xs @ prompts.hidden["weights"][..., None]).squeeze(-1)
    covariance = noise.T @ noise / len(noise)
    assert (covariance - 4 * torch.eye(5)).abs().max() < 4 * 4 * 2**0.5 / len(noise) ** 0.5
    assert torch.equal(prompts.targets[..., 0], prompts.ys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"num_examples": 0}, "num_examples must be a whole number"),
        ({"active": 0}, "active must be a whole number"),
        ({"active": 21}, "active must be at most d, got active=21 and d=20"),
        ({"sparsity": 0}, "sparsity must be a whole number"),
        ({"sparsity": 21}, "sparsity must be at most active, got sparsity=21 and active=20"),
        ({"sparsity": 3, "active": 2}, "sparsity must be at most active"),
        ({"noise": -1.0}, "noise must be a finite number >= 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        LinearRegression(**change)


def test_unknown_splits_are_named():
    with pytest.raises(ValueError, match="split must be one of"):
        LinearRegression().sample(1, seed=0, split="dev")
