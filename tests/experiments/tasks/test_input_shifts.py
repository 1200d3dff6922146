"""Shifted prompts: each shift by its definition, and by what least squares makes of it."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.in_context import InContextTask
from experiments.tasks.input_shifts import QUERY_SHIFTS, SHIFTS, ShiftedRegression, noisy_labels
from experiments.tasks.linear_regression import LinearRegression


@st.composite
def tasks(draw, *, noise=(0.0, 0.5)):
    """With at least two examples and coordinates, and no more examples than coordinates."""
    d = draw(st.integers(2, 7))
    active = draw(st.none() | st.integers(2, d))
    return LinearRegression(
        d=d,
        num_examples=draw(st.integers(2, active or d)),
        active=active,
        sparsity=draw(st.none() | st.integers(1, active or d)),
        noise=draw(st.sampled_from(noise)),
    )


seeds = st.integers(0, 50)
factors = st.sampled_from((1 / 3, 1.0, 2.0))


def least_squares(prompts):
    """The minimum-norm guess of the last y from the others."""
    weights = torch.linalg.pinv(prompts.xs[:, :-1]) @ prompts.ys[:, :-1, None]
    return (prompts.xs[:, -1] * weights.squeeze(-1)).sum(dim=1)


@settings(max_examples=80)
@given(tasks(), st.sampled_from(tuple(SHIFTS)), seeds, factors, factors)
def test_labels_are_those_of_the_weights(task, shift, seed, a, b):
    shifted = ShiftedRegression(task=task, shift=shift, x_factor=a, y_factor=b)
    prompts = shifted.sample(4, seed=seed)
    assert isinstance(shifted, InContextTask)
    assert prompts.tokens.shape == (4, shifted.length, shifted.d)
    assert (prompts.xs[..., task.active or task.d :] == 0).all()
    last, every = [task.num_examples - 1], list(range(task.num_examples))
    assert prompts.scored.tolist() == (last if shift in QUERY_SHIFTS else every)
    assert ((prompts.hidden["weights"] != 0).sum(dim=1) == task.nonzero).all()
    if task.noise == 0:
        ys = torch.einsum("pnd,pd->pn", prompts.xs, prompts.hidden["weights"])
        assert (prompts.ys - ys).abs().max() < 1e-12


@settings(max_examples=20)
@given(tasks(), st.sampled_from(tuple(SHIFTS)), seeds)
def test_equal_seeds_give_equal_prompts_and_other_splits_others(task, shift, seed):
    shifted = ShiftedRegression(task=task, shift=shift)
    first, again = (shifted.sample(3, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [shifted.sample(3, seed=seed, split=split) for split in ("validation", "test")]
    for other in (*others, shifted.sample(3, seed=seed + 1)):
        assert not torch.isin(other.xs[..., 0], first.xs[..., 0]).any()


@settings(max_examples=40)
@given(tasks(), seeds)
def test_contexts_of_random_quadrants_have_one_sign_pattern(task, seed):
    active = task.active or task.d
    prompts = ShiftedRegression(task=task, shift="random_quadrants").sample(6, seed=seed)
    signs = prompts.xs[:, :-1, :active].sign()
    assert (signs == signs[:, :1]).all()


def test_sign_patterns_and_those_of_the_query_are_independent_and_uniform():
    task = LinearRegression(d=3, num_examples=2)
    xs = ShiftedRegression(task=task, shift="random_quadrants").sample(10_000, seed=0).xs
    signs = xs.sign().flatten(1)
    covariance = signs.T @ signs / len(signs)
    assert (covariance - torch.eye(6)).abs().max() < 5 / 100
    assert signs.mean(dim=0).abs().max() < 5 / 100


@settings(max_examples=60)
@given(tasks(noise=(0.0,)), seeds)
def test_an_orthogonal_query_is_orthogonal_and_on_the_side_it_was(task, seed):
    shifted = ShiftedRegression(task=task, shift="orthogonal_query")
    prompts = shifted.sample(6, seed=seed)
    context, query = prompts.xs[:, :-1], prompts.xs[:, -1]
    products = (context @ query[..., None]).squeeze(-1)
    assert (products.abs() <= 1e-12 * context.norm(dim=-1) * query.norm(dim=-1, keepdim=True)).all()
    # So examples say nothing about it.
    assert least_squares(prompts).abs().max() < 1e-9


@settings(max_examples=40)
@given(st.integers(2, 6), seeds)
def test_an_orthogonal_query_is_what_the_projection_leaves(num_examples, seed):
    rng = np.random.default_rng(seed)
    xs = torch.from_numpy(rng.standard_normal((5, num_examples, 6)))
    found = SHIFTS["orthogonal_query"](rng, xs)
    context, query = xs[:, :-1], xs[:, -1]
    projected = (torch.linalg.pinv(context) @ context @ query[..., None]).squeeze(-1)
    rest = query - projected
    expected = rest * (query.norm(dim=1) / rest.norm(dim=1))[:, None]
    assert torch.equal(found[:, :-1], context)
    assert (found[:, -1] - expected).abs().max() < 1e-8
    # Negative control: the other side, and what is not orthogonal.
    for wrong in (-expected, query):
        assert (found[:, -1] - wrong).abs().max() > 1e-3


@settings(max_examples=40)
@given(tasks(noise=(0.0,)), seeds)
def test_a_copied_query_is_in_the_context(task, seed):
    prompts = ShiftedRegression(task=task, shift="copied_query").sample(6, seed=seed)
    equal = (prompts.xs[:, :-1] == prompts.xs[:, -1:]).all(dim=-1)
    assert (equal.sum(dim=1) == 1).all()
    assert (prompts.ys[:, :-1][equal] - prompts.ys[:, -1]).abs().max() < 1e-12
    # So least squares, of zero error on the context, is right.
    assert (least_squares(prompts) - prompts.ys[:, -1]).abs().max() < 1e-8


def test_every_example_is_copied_as_often_with_noise_of_its_own():
    task = LinearRegression(d=5, num_examples=5, noise=1.0)
    prompts = ShiftedRegression(task=task, shift="copied_query").sample(4_000, seed=0)
    equal = (prompts.xs[:, :-1] == prompts.xs[:, -1:]).all(dim=-1)
    assert chisquare(equal.sum(dim=0)).pvalue > 0.01
    apart = (prompts.ys[:, :-1][equal] - prompts.ys[:, -1]).square()  # of mean 2 and variance 8
    assert abs(apart.mean() - 2) < 4 * (8 / 4_000) ** 0.5


@settings(max_examples=40)
@given(tasks(noise=(0.0,)), seeds)
def test_half_subspaces_have_half_the_dimensions(task, seed):
    active = task.active or task.d
    task = replace(task, num_examples=active + 1)
    prompts = ShiftedRegression(task=task, shift="half_subspace").sample(4, seed=seed)
    values = torch.linalg.svdvals(prompts.xs)
    assert (values[:, active // 2 :] < 1e-12 * values[:, :1]).all()
    assert (values[:, active // 2 - 1] > 1e-6 * values[:, 0]).all()


def test_subspaces_differ_between_prompts_and_have_every_direction():
    """A projection on m of d random dimensions is (m/d) I on average."""
    task = LinearRegression(d=4, num_examples=4)
    xs = ShiftedRegression(task=task, shift="half_subspace").sample(5_000, seed=0).xs
    projections = torch.linalg.pinv(xs, rtol=1e-9) @ xs
    assert (projections.mean(dim=0) - 0.5 * torch.eye(4)).abs().max() < 4 * 0.5 / 5_000**0.5


def test_skewed_inputs_have_variances_that_fall_as_squares():
    """4 (1, 1/4, 1/9, 1/16) / (1 + 1/4 + 1/9 + 1/16) in every prompt's own basis."""
    task = LinearRegression(d=4, num_examples=20_000)
    xs = ShiftedRegression(task=task, shift="skewed").sample(5, seed=0).xs
    variances = torch.linalg.eigvalsh(xs.mT @ xs / 20_000).flip(-1)
    expected = 4 * torch.tensor([1, 1 / 4, 1 / 9, 1 / 16]) / (205 / 144)
    error = 5 * math.sqrt(2 / 20_000)
    assert (variances / expected - 1).abs().max() < error
    # Negative control: variances that fall as 1, 1/2, 1/3, 1/4.
    wrong = 4 / torch.arange(1, 5) / (25 / 12)
    assert (variances / wrong - 1).abs().max() > 10 * error


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize(
    "task",
    [
        LinearRegression(d=6, num_examples=4),
        LinearRegression(d=7, num_examples=4, active=5, sparsity=2, noise=1.0),
    ],
)
def test_scale_is_the_mean_square_of_a_scored_target(task, shift):
    shifted = ShiftedRegression(task=task, shift=shift, x_factor=2.0, y_factor=1 / 3)
    prompts = shifted.sample(10_000, seed=0)
    squares = prompts.targets[:, prompts.scored, 0].square().mean(dim=1)
    error = squares.std() / 100
    assert abs(squares.mean() - shifted.scale) < 4 * error
    # Negative control: that of the task as it was.
    assert abs(squares.mean() - task.scale) > 10 * error


@pytest.mark.parametrize("shift", SHIFTS)
def test_shifts_keep_the_total_variance(shift):
    task = LinearRegression(d=7, num_examples=4, active=5)
    xs = ShiftedRegression(task=task, shift=shift).sample(10_000, seed=0).xs
    for squares in xs.square().sum(dim=-1).T:
        assert abs(squares.mean() - 5) < 4 * squares.std() / 100


def test_noisy_labels_have_the_mean_square_they_had_without():
    """For v = 3 and noise 2, y = (w.x + 2 e) sqrt(3/7): of its mean square 3, 12/7 is noise."""
    task = LinearRegression(d=3, num_examples=5)
    noisy = noisy_labels(task, noise=2.0)
    assert noisy.scale == pytest.approx(task.scale)
    prompts = noisy.sample(10_000, seed=0)
    noise = prompts.ys - (prompts.xs @ prompts.hidden["weights"][..., None]).squeeze(-1)
    assert abs(noise.square().mean() - 12 / 7) < 4 * 12 / 7 * (2 / 50_000) ** 0.5
    squares = prompts.ys.square().mean(dim=1)
    assert abs(squares.mean() - 3) < 4 * squares.std() / 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shift": "rotated"}, "shift must be one of 'none', 'random_quadrants'.*got 'rotated'"),
        ({"x_factor": 0.0}, "x_factor must be a finite number > 0"),
        ({"y_factor": -1.0}, "y_factor must be a finite number > 0"),
        ({"shift": "orthogonal_query"}, "task must have at most 20 examples.*num_examples=41"),
        (
            {"shift": "orthogonal_query", "task": LinearRegression(num_examples=4, active=3)},
            "task must have at most 3 examples",
        ),
        (
            {"shift": "copied_query", "task": LinearRegression(num_examples=1)},
            "task must have at least 2 examples",
        ),
        (
            {"shift": "half_subspace", "task": LinearRegression(active=1)},
            "task must have at least 2 active coordinates",
        ),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        ShiftedRegression(**{"task": LinearRegression(), **change})


def test_bad_noise_is_named():
    with pytest.raises(ValueError, match="noise must be a finite number >= 0"):
        noisy_labels(LinearRegression(), noise=-1.0)
