"""Batched trainings against one network of PyTorch at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.estimators import networks
from experiments.estimators.networks import initial_weights, network_guesses
from tests.experiments.estimators.test_trees import normal


def alone(x, y, query, weights, steps, learning_rate, optimizer=torch.optim.Adam):
    first, bias, second, last = weights
    d, hidden = first.shape
    model = torch.nn.Sequential(
        torch.nn.Linear(d, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 1)
    ).double()
    with torch.no_grad():
        for part, start in zip(
            model.parameters(), (first.T, bias[0], second.T, last[0]), strict=True
        ):
            part.copy_(start)
    steps_of = optimizer(model.parameters(), lr=learning_rate)
    for _ in range(steps):
        steps_of.zero_grad()
        torch.nn.functional.mse_loss(model(x).squeeze(1), y).backward()
        steps_of.step()
    return model(query).item()


def one_at_a_time(xs, ys, k, seed, *, hidden, steps, learning_rate, **options):
    rng = np.random.default_rng((seed, k))
    weights = initial_weights(len(xs), xs.shape[2], hidden, rng)
    return [
        alone(x[:k], y[:k], x[k], start, steps, learning_rate, **options)
        for x, y, *start in zip(xs, ys, *weights, strict=True)
    ]


@given(k=st.integers(1, 6), d=st.integers(1, 3), hidden=st.integers(1, 5), seed=st.integers(0, 99))
@settings(max_examples=6)
def test_equals_one_training_at_a_time(k, d, hidden, seed):
    xs, ys = normal(3, k + 1, d, seed)
    sizes = dict(hidden=hidden, steps=8, learning_rate=0.05)
    guesses = network_guesses(xs, ys, prefixes=[k], seed=seed, **sizes)
    expected = torch.tensor(one_at_a_time(xs, ys, k, seed, **sizes), dtype=torch.float64)
    torch.testing.assert_close(guesses[:, 0], expected)


def test_another_optimizer_is_found_out():
    xs, ys = normal(3, 7, 2)
    sizes = dict(hidden=5, steps=8, learning_rate=0.05)
    guesses = network_guesses(xs, ys, prefixes=[6], seed=0, **sizes)[:, 0]
    other = one_at_a_time(xs, ys, 6, 0, **sizes, optimizer=torch.optim.SGD)
    assert (guesses - torch.tensor(other)).abs().min() > 1e-4


def test_initial_weights_are_those_of_pytorch_in_distribution():
    """Uniform within 1 / sqrt(fan-in): variance of a third of one over the fan-in."""
    first, bias, second, last = initial_weights(300, 4, 25, np.random.default_rng(0))
    for part, fan_in in ((first, 4), (bias, 4), (second, 25), (last, 25)):
        assert part.abs().max() <= fan_in**-0.5
        assert part.var().item() == pytest.approx(1 / (3 * fan_in), rel=0.15)
    layer = torch.nn.Linear(4, 25)
    for part in layer.parameters():
        assert part.abs().max() <= 0.5 < 1.2 * part.abs().max()


def test_prefixes_prompts_and_chunks_change_nothing(monkeypatch):
    xs, ys = normal(4, 8, 2)
    sizes = dict(hidden=3, steps=5, seed=1)
    both = network_guesses(xs, ys, prefixes=[6, 0, 2], **sizes)
    assert (both[:, 1] == 0).all()
    monkeypatch.setattr(networks, "_NUMBERS", 30)
    torch.testing.assert_close(network_guesses(xs, ys, prefixes=[2], **sizes), both[:, 2:])
    torch.testing.assert_close(network_guesses(xs[:2], ys[:2], prefixes=[6], **sizes), both[:2, :1])
    ys[:, 2:] = 9
    torch.testing.assert_close(network_guesses(xs, ys, prefixes=[2], **sizes), both[:, 2:])
    other = network_guesses(xs, ys, prefixes=[2], hidden=3, steps=5, seed=2)
    assert (other - both[:, 2:]).abs().min() > 1e-6


def test_learns_a_line_better_than_zero():
    xs, _ = normal(5, 61, 2)
    ys = xs.sum(2)
    guesses = network_guesses(xs, ys, prefixes=[60], seed=0)[:, 0]
    assert (guesses - ys[:, 60]).square().mean() < 0.1 * ys.square().mean()


@pytest.mark.parametrize("name", ["hidden", "steps", "learning_rate"])
def test_refuses(name):
    xs, ys = normal(1, 3, 1)
    with pytest.raises(ValueError, match=name):
        network_guesses(xs, ys, prefixes=[1], seed=0, **{name: 0})
    with pytest.raises(ValueError, match="prefixes"):
        network_guesses(xs, ys, prefixes=[3], seed=0)
