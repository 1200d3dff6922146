"""Recipes: learning rates against PyTorch's schedulers, and settings that cannot be."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.batches import Epochs
from experiments.recipe import Plateau, Recipe
from experiments.train import train
from tests.experiments.least_squares import Weights
from tests.laws import as_users_call


@given(
    st.sampled_from(["constant", "cosine", "linear", "plateau"]),
    st.integers(1, 60),
    st.data(),
)
def test_rates(schedule, steps: int, data: st.DataObject):
    warmup = data.draw(st.integers(0, steps))
    recipe = Recipe(steps=steps, learning_rate=2.0, schedule=schedule, warmup=warmup)
    rates = [recipe.rate(step) for step in range(steps)]
    assert all(0 < rate <= 2 for rate in rates)
    assert max(rates) == 2
    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    left = steps - warmup
    for t, rate in enumerate(rates[warmup:]):
        expected = {"cosine": 1 + math.cos(math.pi * t / left), "linear": 2 * (1 - t / left)}
        assert rate == pytest.approx(expected.get(schedule, 2.0))


def test_cosine_is_pytorchs():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    recipe = Recipe(steps=9, learning_rate=0.3, schedule="cosine")
    for step in range(9):
        assert recipe.rate(step) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


@given(st.lists(st.floats(0.01, 1.0) | st.sampled_from([0.5, 0.50004, 0.4]), max_size=60))
def test_plateau_is_pytorchs(losses: list[float]):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.9, patience=5)
    plateau = Plateau()
    for loss in losses:
        plateau.epoch(loss)
        scheduler.step(loss)
        assert plateau.factor == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)


def test_plateau_counts_epochs():
    """A constant loss: the rate falls after 1 + 6 epochs of 3 steps, and every 6 epochs then."""
    model = Weights(0)
    data = Epochs(torch.ones(3), batch_size=1, seed=0)
    recipe = Recipe(steps=60, learning_rate=0.5, weight_decay=0.1, schedule="plateau")
    outcome = train(model, lambda m, batch: 0 * m.w.sum() + 7, data, recipe, seed=0)
    assert outcome.losses == (7.0,) * 20
    moving = Weights(1)
    train(moving, lambda m, batch: 0 * m.w.sum() + 7, data, recipe, seed=0)
    expected = math.prod(
        1 - 0.1 * 0.5 * 0.9**k for k, epochs in enumerate((7, 6, 6, 1)) for _ in range(3 * epochs)
    )
    assert moving.w.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be a whole number"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number > 0, got 0.0"),
        ({"optimizer": "sgd"}, "optimizer must be one of 'adamw', 'adam', got 'sgd'"),
        ({"weight_decay": -1.0}, "weight_decay must be"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1"),
        ({"epsilon": 0.0}, "epsilon must be"),
        ({"schedule": "step"}, "schedule must be one of 'constant'"),
        ({"warmup": -1}, "warmup must be a whole number"),
        ({"warmup": 11}, "warmup must be at most steps"),
        ({"clip": 0.0}, "clip must be"),
        ({"evaluate_every": 0}, "evaluate_every must be"),
        ({"stop_when": ("loss", math.nan)}, "the target of stop_when must be"),
    ],
)
def test_settings_that_cannot_be(changes: dict, message: str):
    with as_users_call(), pytest.raises(ValueError, match=message):
        Recipe(**{"steps": 10, "learning_rate": 0.1, **changes})
