"""Closed forms of expected errors, against simulations."""

import pytest
import torch

from experiments.estimators.expected import averaging_errors, least_squares_errors
from experiments.estimators.least_squares import averaging, least_squares
from tests.experiments.estimators.prefixes import examples


def simulated(guess, xs, ys):
    return (guess(xs, ys) - ys).square().mean(dim=0) / xs.shape[2]


@pytest.mark.parametrize("d", [1, 5])
def test_errors_of_least_squares_and_of_averaging(d):
    xs, ys = examples(40_000, 9, d)
    errors = simulated(least_squares, xs, ys)
    torch.testing.assert_close(errors, least_squares_errors(9, d=d), rtol=0.08, atol=1e-9)
    errors, expected = simulated(averaging, xs, ys), averaging_errors(9, d=d)
    torch.testing.assert_close(errors, expected, rtol=0.15, atol=0)
    # Without the variance of the squares: (d - 1)/k.
    wrong = (d - 1) / torch.arange(1, 9)
    assert not torch.allclose(errors[1:], wrong.double(), rtol=0.15)


def test_sparse_weights_have_the_same_errors():
    xs, _ = examples(40_000, 7, 4)
    ys = 2 * xs[..., 0]  # |w|^2 = 4 = d
    expected = least_squares_errors(7, d=4)
    torch.testing.assert_close(simulated(least_squares, xs, ys), expected, rtol=0.08, atol=1e-9)
    expected = averaging_errors(7, d=4)
    torch.testing.assert_close(simulated(averaging, xs, ys), expected, rtol=0.15, atol=0)


def test_golden_values():
    assert least_squares_errors(4, d=2).tolist() == [1, 0.5, 0, 0]
    assert averaging_errors(4, d=2).tolist() == [1, 3, 1.5, 1]


def test_bad_arguments_are_named():
    for errors in (least_squares_errors, averaging_errors):
        with pytest.raises(ValueError, match="examples must be a whole number"):
            errors(0, d=2)
        with pytest.raises(ValueError, match="d must be a whole number"):
            errors(3, d=0)
