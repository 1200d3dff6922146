"""Nearest neighbours agree with a search of one prefix after the other."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators.neighbours import nearest_neighbours
from tests.experiments.estimators.prefixes import examples, small_examples


@settings(max_examples=60)
@given(small_examples(), st.integers(1, 5))
def test_mean_of_the_nearest(drawn, k):
    xs, ys = drawn
    found = nearest_neighbours(xs, ys, k=k)
    for x, y, guesses in zip(xs.tolist(), ys.tolist(), found.tolist(), strict=True):
        assert guesses[0] == 0
        for i in range(1, len(x)):
            far = [sum((a - b) ** 2 for a, b in zip(x[j], x[i], strict=True)) for j in range(i)]
            nearest = sorted(range(i), key=lambda j, far=far: (far[j], j))[:k]
            assert guesses[i] == pytest.approx(sum(y[j] for j in nearest) / len(nearest))


def test_the_mean_of_all_while_they_are_few():
    xs, ys = examples(4, 6, 3)
    means = ys.cumsum(dim=1) / torch.arange(1, 7)
    found = nearest_neighbours(xs, ys, k=9)
    torch.testing.assert_close(found[:, 1:], means[:, :-1])
    assert not torch.allclose(nearest_neighbours(xs, ys)[:, 4:], means[:, 3:-1])


def test_bad_arguments_are_named():
    xs, ys = examples(2, 3, 2)
    with pytest.raises(ValueError, match="k must be a whole number"):
        nearest_neighbours(xs, ys, k=0)
    with pytest.raises(ValueError, match="ys must be finite"):
        nearest_neighbours(xs, ys / 0)
