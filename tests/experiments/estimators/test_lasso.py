"""The lasso meets its optimality conditions, and stops with an error where it cannot."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators import lasso as module
from experiments.estimators.lasso import lasso, minimise
from tests.experiments.estimators.prefixes import examples, one_at_a_time, small_examples

PENALTIES = (1.0, 0.1, 0.01)


def solve(xs, ys, penalty):
    """Weights from all examples of each prompt."""
    k = xs.shape[1]
    moment = (xs * ys[..., None]).sum(dim=1) / k
    power, start = ys.square().mean(dim=1), torch.zeros_like(moment)
    return minimise(xs.mT @ xs / k, moment, power, start, penalty=penalty)


def violation(xs, ys, weights, penalty):
    """How far 0 is from the subdifferential of the objective."""
    residual = ys - (xs @ weights[..., None]).squeeze(-1)
    slope = (xs * residual[..., None]).mean(dim=1)
    beyond = slope - slope.clamp(-penalty, penalty)
    return torch.where(weights == 0, beyond, slope - penalty * weights.sign()).abs().max()


def objective(xs, ys, weights, penalty):
    residual = ys - (xs @ weights[..., None]).squeeze(-1)
    return residual.square().mean(dim=1) / 2 + penalty * weights.abs().sum(dim=1)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("count", [1, 8, 20, 40])
def test_conditions_of_independent_examples(penalty, count):
    xs, ys = examples(100, count, 20, noise=0.3)
    weights = solve(xs, ys, penalty)
    assert violation(xs, ys, weights, penalty) < 1e-5 * penalty
    # Of another penalty, or of the square error without the half, they are not met.
    assert violation(xs, ys, weights, 2 * penalty) > 0.1 * penalty
    assert violation(xs, ys, weights, penalty / 2) > 0.1 * penalty
    assert ((weights != 0).sum(dim=1) <= count).all()


@settings(max_examples=100)
@given(small_examples(), st.sampled_from((*PENALTIES, 1e-4)), st.integers(0, 99))
def test_dependent_examples_have_no_better_weights(drawn, penalty, seed):
    xs, ys = drawn
    weights = solve(xs, ys, penalty)
    least = objective(xs, ys, weights, penalty)
    generator = torch.Generator().manual_seed(seed)
    for size in (1e-4, 1e-2, 1.0):
        other = weights + size * torch.randn(weights.shape, generator=generator)
        assert (objective(xs, ys, other, penalty) >= least - 1e-9).all()
    assert (least <= ys.square().mean(dim=1) / 2 + 1e-12).all()


@pytest.mark.parametrize("penalty", PENALTIES)
def test_guesses_are_of_the_solution_for_each_prefix(penalty):
    xs, ys = examples(5, 15, 6, noise=0.3)
    alone = one_at_a_time(lambda x, y: solve(x[None], y[None], penalty)[0], xs, ys)
    torch.testing.assert_close(lasso(xs, ys, penalty=penalty), alone, atol=1e-4, rtol=0)


def test_orthogonal_coordinates_are_thresholded():
    """With X^T X = k I each weight is that of least squares, moved to 0 by the penalty."""
    xs = 2 * torch.eye(4, dtype=torch.float64)[None]  # k = 4
    ys = torch.tensor([[6.0, -1.0, 0.3, 0.0]], dtype=torch.float64)  # least squares: ys / 2
    expected = torch.tensor([[2.6, -0.1, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(solve(xs, ys, 0.4), expected)


def test_sparse_weights_are_found_sooner_than_by_least_squares():
    xs, _ = examples(200, 15, 20)
    weights = torch.zeros(20, dtype=torch.float64)
    weights[:3] = torch.tensor([1.0, -2.0, 0.5])
    ys = xs @ weights
    errors = (lasso(xs, ys, penalty=0.01) - ys).square().mean(dim=0) / weights.square().sum()
    assert errors[0].item() == pytest.approx(1, abs=0.3)
    assert errors[14] < 0.05 < 1 - 14 / 20


def test_what_is_not_solved_is_an_error(monkeypatch):
    xs, ys = examples(10, 6, 4)
    monkeypatch.setattr(module, "STEPS", 1)
    with pytest.raises(RuntimeError, match="lassos are not solved after 1 steps"):
        lasso(xs, ys, penalty=0.01)


def test_bad_arguments_are_named():
    xs, ys = examples(2, 3, 2)
    with pytest.raises(ValueError, match="penalty must be a finite number > 0"):
        lasso(xs, ys, penalty=0.0)
    with pytest.raises(ValueError, match="xs must be finite"):
        lasso(xs / 0, ys, penalty=1.0)
