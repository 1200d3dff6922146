"""Least squares, ridge and averaging agree with fits of one prefix after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators.least_squares import averaging, least_squares, ridge
from tests.experiments.estimators.prefixes import examples, one_at_a_time, small_examples


def least_norm(x, y):
    return torch.linalg.lstsq(x, y[:, None], driver="gelsd").solution[:, 0]


def penalised(penalty):
    """Least squares with sqrt(penalty) I below X and 0 below y."""

    def fit(x, y):
        d = x.shape[1]
        below = penalty**0.5 * torch.eye(d, dtype=torch.float64)
        return least_norm(torch.cat([x, below]), torch.cat([y, y.new_zeros(d)]))

    return fit


def masks(ys, seed):
    return torch.rand(ys.shape, generator=torch.Generator().manual_seed(seed)) < 0.6


@settings(max_examples=60)
@given(small_examples(), st.sampled_from((1e-6, 1.0, 1e6)))
def test_least_norm_on_dependent_examples(drawn, scale):
    xs, ys = drawn
    found = least_squares(scale * xs, ys)
    torch.testing.assert_close(found, one_at_a_time(least_norm, xs, ys), atol=1e-10, rtol=0)


@settings(max_examples=40)
@given(small_examples(), st.integers(0, 99), st.sampled_from((1e-3, 0.5, 10.0)))
def test_only_known_examples_are_used(drawn, seed, penalty):
    xs, ys = drawn
    known = masks(ys, seed)
    for found, fit in (
        (least_squares(xs, ys, known=known), least_norm),
        (ridge(xs, ys, penalty=penalty, known=known), penalised(penalty)),
    ):
        expected = one_at_a_time(fit, xs, ys, known)
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)
    if not known[:, 0].all():  # the others must not matter at all
        changed = torch.where(known, ys, 1e3)
        torch.testing.assert_close(
            least_squares(xs, ys, known=known), least_squares(xs, changed, known=known)
        )


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_independent_examples(noise):
    xs, ys = examples(10, 41, 20, noise=noise)
    found = least_squares(xs, ys)
    torch.testing.assert_close(found, one_at_a_time(least_norm, xs, ys), atol=1e-8, rtol=0)
    if not noise:
        torch.testing.assert_close(found[:, 20:], ys[:, 20:], atol=1e-8, rtol=0)
    for penalty, tolerance in ((1.0, 1e-11), (1e-3, 1e-9)):
        expected = one_at_a_time(penalised(penalty), xs, ys)
        found = ridge(xs, ys, penalty=penalty)
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)
        # Divided by the number of examples, as in other conventions, it is another estimator.
        other = one_at_a_time(lambda x, y, p=penalty: penalised(p * len(x))(x, y), xs, ys)
        assert (found - other).abs().max() > 1e-3


def test_a_nearly_dependent_example_counts_as_dependent():
    """|x_2 - x_1| is 1e-10: w = (1, 0) from the first; the second would ask for w = (1, 1e10)."""
    xs = torch.tensor([[[1.0, 0.0], [1.0, 1e-10], [0.0, 1.0]]], dtype=torch.float64)
    ys = torch.tensor([[1.0, 2.0, 0.0]], dtype=torch.float64)
    assert least_squares(xs, ys)[0, 2].abs() < 1e-8
    xs[0, 1, 1] = 1e-6
    assert least_squares(xs, ys)[0, 2].item() == pytest.approx(1e6, rel=1e-6)


def test_ridge_becomes_least_squares():
    xs, ys = examples(10, 12, 5, noise=1.0)
    limit = least_squares(xs, ys)
    far = [(ridge(xs, ys, penalty=p) - limit).abs().max() for p in (1e-2, 1e-4, 1e-6)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 1e-2 * far[0]


def test_ridge_at_the_variance_of_the_noise_is_best():
    xs, ys = examples(3000, 12, 6, noise=1.5)
    errors = {p: (ridge(xs, ys, penalty=p) - ys)[:, 4:].square().mean() for p in (0.5, 2.25, 9.0)}
    assert min(errors, key=errors.__getitem__) == 2.25
    assert (least_squares(xs, ys) - ys)[:, 4:].square().mean() > errors[2.25]


@settings(max_examples=40)
@given(small_examples())
def test_averaging_is_the_mean(drawn):
    xs, ys = drawn
    expected = one_at_a_time(lambda x, y: (x * y[:, None]).mean(dim=0), xs, ys)
    torch.testing.assert_close(averaging(xs, ys), expected)


@settings(max_examples=40)
@given(small_examples(), st.integers(0, 8))
def test_a_guess_knows_nothing_of_what_follows(drawn, i):
    xs, ys = drawn
    later = torch.arange(xs.shape[1]) >= i
    changed = torch.where(later, 7.0, ys)
    for guess in (least_squares, averaging, lambda x, y: ridge(x, y, penalty=0.1)):
        torch.testing.assert_close(guess(xs, ys)[:, : i + 1], guess(xs, changed)[:, : i + 1])
        assert (guess(xs, ys)[:, 0] == 0).all()


def test_bad_arguments_are_named():
    xs, ys = examples(2, 3, 2)
    with pytest.raises(ValueError, match="penalty must be a finite number > 0"):
        ridge(xs, ys, penalty=0.0)
    for guess in (least_squares, averaging):
        with pytest.raises(ValueError, match="xs must be finite and of type float64"):
            guess(xs.float(), ys)
        with pytest.raises(ValueError, match="ys must be finite"):
            guess(xs, ys / 0)
        with pytest.raises(ValueError, match="xs must be prompts x examples x d, not empty"):
            guess(xs[:0], ys[:0])
