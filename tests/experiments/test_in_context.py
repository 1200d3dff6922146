"""Models on prompts: losses, errors and trainings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from experiments import in_context, in_context_models
from experiments.in_context import SETTINGS, FreshPrompts, Setting, batch, curve, errors, final
from experiments.in_context_models import MODELS
from experiments.tasks.in_context import Curriculum, InContextTask, Ramp
from experiments.tasks.linear_regression import LinearRegression
from experiments.tasks.outlier_regression import OrthogonalOutliers
from experiments.tasks.sparse_parity import SparseParity

TASK = LinearRegression(d=3, num_examples=6)


class Constant(nn.Module):
    """Guesses the same everywhere."""

    def __init__(self, guess: float, outputs: int = 1) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.full((outputs,), guess))

    def forward(self, tokens, at):
        return self.guess.expand(*at.shape, -1)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_has_prompts_that_models_fit_to(name):
    setting = SETTINGS[name]
    task = setting.curriculum.task(setting.task, 0)
    prompts = task.sample(2, seed=0)
    assert isinstance(setting.task, InContextTask)
    assert prompts.tokens.shape[2] == setting.task.d
    assert prompts.tokens.shape[1] <= setting.task.length
    assert prompts.targets.shape[2] == setting.task.d_output


@pytest.mark.parametrize("name", [n for n, s in SETTINGS.items() if not s.task.signs])
def test_the_guess_0_has_error_1(name):
    """The scale of every task; standard errors are below 0.05 with so many prompts."""
    task = SETTINGS[name].task
    prompts = task.sample(200 if task.length > 200 else 1000, seed=1)
    found = curve(torch.zeros_like(prompts.targets), prompts, task)
    assert found.nanmean().item() == pytest.approx(1, abs=0.25 if name == "many-outliers" else 0.15)


def test_errors_of_right_guesses_are_0_and_uncounted_ones_are_left_out():
    task = OrthogonalOutliers(d=4, num_examples=12)
    prompts = task.sample(50, seed=0)
    assert errors(prompts.targets, prompts, task).nansum() == 0
    wrong = prompts.targets + ~prompts.counted * 100.0
    assert errors(wrong, prompts, task).nansum() == 0
    counted = errors(wrong, prompts, task).isfinite()
    assert torch.equal(counted, prompts.counted[..., 0])


def test_signs_are_right_wrong_or_half():
    task = SparseParity(d=4, sparsity=2, num_examples=8)
    prompts = task.sample(20, seed=0)
    for guesses, error in ((3 * prompts.targets, 0), (-prompts.targets, 1), (0, 0.5)):
        found = errors(guesses + torch.zeros_like(prompts.targets), prompts, task)
        assert (found == error).all()


def test_final_error_is_the_mean_of_the_last_quarter():
    assert final(torch.tensor([9.0, 9, 9, 9, 9, 9, 1, 3], dtype=torch.float64)) == 2
    assert final(torch.tensor([9.0, 5], dtype=torch.float64)) == 5


def test_loss_is_squared_or_logistic_and_ignores_what_is_not_counted():
    model, regression = Constant(2.0), TASK.sample(30, seed=0)
    expected = (2 - regression.targets).square().mean().item()
    assert in_context.loss(model, batch(regression), signs=False).item() == pytest.approx(expected)
    parity = SparseParity(d=4, sparsity=2, num_examples=8).sample(30, seed=0)
    ones = (parity.targets == 1).double().mean().item()
    expected = ones * math.log1p(math.exp(-2)) + (1 - ones) * math.log1p(math.exp(2))
    assert in_context.loss(model, batch(parity), signs=True).item() == pytest.approx(expected)
    outliers = OrthogonalOutliers(d=4, num_examples=12).sample(30, seed=0)
    tokens, at, targets, counted = batch(outliers)
    changed = (tokens, at, targets + ~counted * 5.0, counted)
    assert in_context.loss(model, changed, signs=False) == in_context.loss(
        model, batch(outliers), signs=False
    )


def test_batches_follow_the_curriculum_and_are_new_at_every_step():
    curriculum = Curriculum(
        active=Ramp(start=1, end=3, interval=10), num_examples=Ramp(start=4, end=6, interval=10)
    )
    fresh = FreshPrompts(task=TASK, curriculum=curriculum, batch_size=5, seed=0)
    for step, active, examples in ((0, 1, 4), (9, 1, 4), (10, 2, 5), (99, 3, 6)):
        tokens, at, targets, _ = fresh(step)
        assert tokens.shape == (5, 2 * examples, 3)
        assert targets.shape == (5, examples, 1)
        assert (tokens[:, 0::2, active:] == 0).all()
        assert (tokens[:, 0, active - 1] != 0).all()
        assert at.shape == (5, examples)
    assert not torch.equal(fresh(50)[0], fresh(51)[0])
    assert torch.equal(fresh(50)[0], fresh(50)[0])


def test_a_model_learns_what_constants_cannot():
    """One dimension: after one example y is known; the trained model beats the guess 0 by far."""
    task = LinearRegression(d=1, num_examples=4)
    setting = Setting(kind="linear", task=task, d_model=16, steps=300)
    model = in_context_models.build("mamba", task, d_model=16, layers=1, heads=2, seed=0)
    outcome = in_context.fit(
        model, setting, task.sample(200, seed=0, split="validation"), learning_rate=5e-3,
        batch_size=32, steps=300, evaluate_every=100, seed=0,
    )  # fmt: skip
    assert list(outcome.evaluations) == [0, 100, 200, 300]
    assert outcome.final["error"] < 0.6 < outcome.evaluations[0]["error"]
    assert outcome.final["skill"] == pytest.approx(1 - outcome.final["error"])


def test_training_ends_at_the_target():
    setting = Setting(kind="linear", task=TASK, d_model=16, steps=300, target=10.0)
    model = in_context_models.build("mamba", TASK, d_model=16, layers=1, heads=2, seed=0)
    outcome = in_context.fit(
        model, setting, TASK.sample(20, seed=0, split="validation"), learning_rate=1e-3,
        batch_size=8, steps=300, evaluate_every=100, seed=0,
    )  # fmt: skip
    assert (outcome.status, outcome.steps) == ("target reached", 0)


@pytest.mark.parametrize("name", MODELS)
def test_guesses_are_those_of_the_model_at_all_prompts(name):
    """More prompts than a batch, and none twice."""
    model = in_context_models.build(name, TASK, d_model=16, layers=1, heads=2, seed=0)
    prompts = TASK.sample(300, seed=0)
    found = in_context.guesses(model, prompts)
    tokens, at, _, _ = batch(prompts)
    with torch.no_grad():
        expected = model(tokens[250:260], at[250:260])
    np.testing.assert_allclose(found[250:260], expected.double(), atol=1e-5)
    assert found.shape == prompts.targets.shape
    assert found.dtype == torch.float64
