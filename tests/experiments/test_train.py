"""Trainings reach known solutions, do what PyTorch does, and diverge in order."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from experiments import device
from experiments.recipe import Recipe
from experiments.train import train
from tests.experiments.least_squares import Weights, example, minimize, same_bits
from tests.experiments.trainable import fit, network, squares

# Known solutions


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_reaches_the_least_squares_solution(schedule):
    x, y = example()
    model = Weights(0, 0, 0)
    outcome = minimize(model, Recipe(steps=600, learning_rate=0.1, schedule=schedule))
    expected = torch.linalg.lstsq(x, y[:, None]).solution[:, 0]
    torch.testing.assert_close(model.w.detach(), expected, rtol=0, atol=1e-6)
    assert (outcome.status, outcome.steps, outcome.diverged_at) == ("finished", 600, None)


def test_decay_of_adam_is_an_l2_penalty():
    """Mean square plus lambda/2 |w|^2: ridge regression."""
    x, y = example()
    model = Weights(0, 0, 0)
    recipe = Recipe(
        steps=600, learning_rate=0.1, schedule="cosine", optimizer="adam", weight_decay=0.8
    )
    minimize(model, recipe)
    n = len(x)
    expected = torch.linalg.solve(x.T @ x / n + 0.4 * torch.eye(3), x.T @ y / n)
    torch.testing.assert_close(model.w.detach(), expected, rtol=0, atol=1e-6)


def test_decay_of_adamw_is_a_factor():
    """Without a gradient, the product of 1 - rate times decay; exempt parameters stay."""
    model = Weights(2, -3)
    model.fixed = nn.Parameter(torch.ones(2))
    model.fixed._no_weight_decay = True
    recipe = Recipe(steps=5, learning_rate=0.1, weight_decay=0.5, schedule="linear")
    train(
        model, lambda m, _: 0 * (m.w.sum() + m.fixed.sum()), lambda step: (), recipe, seed=0
    )  # fmt: skip
    factor = math.prod(1 - 0.5 * 0.1 * (1 - t / 5) for t in range(5))
    torch.testing.assert_close(model.w.detach(), factor * Weights(2, -3).w.detach())
    assert model.fixed.tolist() == [1, 1]


@pytest.mark.parametrize("clip", [None, 0.3])
def test_same_steps_as_a_plain_loop(clip: float | None):
    """Unfused, with the gradient scaled and the rates set by hand."""
    recipe = Recipe(
        steps=12, learning_rate=0.1, weight_decay=0.2, schedule="cosine", warmup=3, clip=clip
    )
    ours, theirs = Weights(1, 2, 3), Weights(1, 2, 3)
    outcome = minimize(ours, recipe)
    optimizer = torch.optim.AdamW(theirs.parameters(), weight_decay=0.2, foreach=False)
    losses, lengths = [], []
    for step in range(12):
        warm = min(1, (step + 1) / 3)
        rate = 0.1 * warm * (1 if step < 3 else (1 + math.cos(math.pi * (step - 3) / 9)) / 2)
        optimizer.param_groups[0]["lr"] = rate
        loss = squares(theirs, example())
        (gradient,) = torch.autograd.grad(loss, [theirs.w])
        lengths.append(gradient.norm().item())
        theirs.w.grad = gradient * min(1, (clip or math.inf) / lengths[-1])
        optimizer.step()
        losses.append(loss.item())
    assert min(lengths) > 0.3, "nothing to clip"
    torch.testing.assert_close(ours.w, theirs.w, rtol=1e-6, atol=1e-9)
    assert outcome.losses == pytest.approx([sum(losses) / 12], rel=1e-6)


def test_frozen_parameters_stay():
    model = network()
    model[0].requires_grad_(False)
    fit(model=model)
    before = network().state_dict()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {"1.weight", "1.bias", "4.weight", "4.bias"}


# Randomness and modes


def test_seed_alone_decides():
    torch.manual_seed(1)
    first = fit()
    torch.manual_seed(2)
    second, other = fit(), fit(seed=4)
    assert same_bits(first[1], second[1])
    assert first[0].losses == second[0].losses
    assert first[0].evaluations == second[0].evaluations
    assert not same_bits(first[1], other[1])


def test_callers_generator_is_untouched():
    before = torch.get_rng_state()
    fit()
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ZeroDivisionError):
        fit(before=lambda step: step // (step - 5))
    assert torch.equal(before, torch.get_rng_state())


def test_every_step_has_its_own_noise_and_evaluations_do_not_disturb_it():
    drawn: list[float] = []

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        assert model.training
        drawn.append(torch.rand(()).item())
        return squares(model, batch)

    def evaluate(model: nn.Module) -> dict[str, float]:
        assert not model.training
        assert not torch.is_grad_enabled()
        torch.rand(17)
        return {}

    def noise(every: int | None) -> list[float]:
        drawn.clear()
        recipe = Recipe(steps=10, learning_rate=0.1, evaluate_every=every)
        model = Weights(0, 0, 0)
        train(model, loss, lambda step: example(), recipe, seed=0, evaluate=evaluate)
        assert not model.training
        return list(drawn)

    assert len(set(noise(None))) == 10
    assert noise(None) == noise(1) == noise(3)


@pytest.mark.parametrize("parameters", [3, 2**20])
def test_small_models_have_one_thread(parameters: int):
    seen = []

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        seen.append(torch.get_num_threads())
        return model.w.sum()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        model = Weights(*[0.0] * parameters)
        train(model, loss, lambda step: (), Recipe(steps=1, learning_rate=0.1), seed=0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1 if parameters == 3 else 2]


# Batches and evaluations


def test_batches_may_be_named():
    x, y = example()
    one, other = Weights(0, 0, 0), Weights(0, 0, 0)
    recipe = Recipe(steps=5, learning_rate=0.1)
    minimize(one, recipe)
    train(
        other,
        lambda model, batch: squares(model, (batch["x"], batch["y"])),
        lambda step: {"x": x, "y": y},
        recipe,
        seed=0,
    )
    assert torch.equal(one.w, other.w)


def test_when_it_is_evaluated():
    calls = []
    recipe = Recipe(steps=10, learning_rate=0.1, evaluate_every=4)
    model = Weights(0, 0, 0)
    outcome = minimize(
        model, recipe, evaluate=lambda m: {"w": calls.append(0) or m.w[0], "n": len(calls)}
    )
    assert list(outcome.evaluations) == [0, 4, 8, 10]
    assert len(calls) == 4
    assert outcome.final == {"w": model.w[0].item(), "n": 4}
    assert len(outcome.losses) == 3, "two periods of 4 steps, and half of one"
    once = minimize(Weights(0, 0, 0), Recipe(steps=10, learning_rate=0.1))
    assert once.evaluations == {0: {}, 10: {}}


def test_stops_at_the_target():
    recipe = Recipe(steps=100, learning_rate=0.1, evaluate_every=5, stop_when=("w", 0.55))
    model = Weights(0, 0, 0)
    outcome = minimize(model, recipe, evaluate=lambda m: {"w": m.w[0]})
    assert outcome.status == "target reached"
    assert outcome.steps == max(outcome.evaluations) < 100
    assert outcome.final["w"] == model.w[0].item() >= 0.55
    assert all(outcome.evaluations[step]["w"] < 0.55 for step in range(0, outcome.steps, 5))
    there = minimize(Weights(0.55, 0, 0), recipe, evaluate=lambda m: {"w": m.w[0]})
    assert (there.status, there.steps, there.losses) == ("target reached", 0, ())


# Divergence


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 1, 6])
def test_divergence_keeps_the_last_finite_parameters(what: str, bad: float, at: int):
    model, trace, step = Weights(0, 0, 0), [], iter(range(100))

    def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        trace.append(model.w.detach().clone())
        value = squares(model, batch)
        if next(step) < at:
            return value
        if what == "loss":
            return value * bad
        model.w.register_hook(lambda gradient: gradient * bad)
        return value

    recipe = Recipe(steps=20, learning_rate=0.1, evaluate_every=2)
    outcome = train(
        model, loss, lambda _: example(), recipe, seed=0, evaluate=lambda m: {"w": m.w[0]}
    )
    assert outcome.status == "diverged"
    assert outcome.diverged_at == at
    assert outcome.steps == max(0, at - 1)
    assert torch.equal(model.w, trace[outcome.steps])
    assert outcome.final["w"] == model.w[0].item()
    assert max(outcome.evaluations) == outcome.steps
    assert all(math.isfinite(loss) for loss in outcome.losses)


@pytest.mark.parametrize("steps", [1, 3])
def test_divergence_by_the_learning_rate(steps: int):
    """Also after the last step, whose parameters no loss is computed for."""
    model = Weights(0, 0, 0).float()

    def evaluate(m: nn.Module) -> dict[str, float]:
        return {"w": m.w[0]}

    recipe = Recipe(steps=steps, learning_rate=1e39)
    data = tuple(tensor.float() for tensor in example())
    outcome = train(model, squares, lambda step: data, recipe, seed=0, evaluate=evaluate)
    assert (outcome.status, outcome.steps, outcome.diverged_at) == ("diverged", 0, 1)
    assert model.w.tolist() == [0, 0, 0]
    assert outcome.evaluations == {0: {"w": 0.0}}


# What is shown and refused


def test_progress_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capfd):
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    recipe = Recipe(steps=5, learning_rate=0.125)
    minimize(Weights(0, 0, 0), recipe, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    minimize(Weights(0, 0, 0), recipe)
    assert capfd.readouterr() == ("", "")
    minimize(Weights(0, 0, 0), recipe, progress=True)
    out, shown = capfd.readouterr()
    assert out == ""
    assert "5/5" in shown
    assert "learning rate 0.125" in shown


def test_arguments_that_cannot_be(monkeypatch: pytest.MonkeyPatch):
    recipe = Recipe(steps=2, learning_rate=0.1)

    def attempt(batch=lambda step: example(), seed=0, evaluate=None, every=1.0, **changes) -> None:
        changed = dataclasses.replace(recipe, **changes)
        train(
            Weights(0, 0, 0), squares, batch, changed,
            seed=seed, evaluate=evaluate, checkpoint_every=every,
        )  # fmt: skip

    monkeypatch.setenv(device.VARIABLE, "cpu")
    with pytest.raises(ValueError, match="bfloat16 must be False on the device 'cpu', got True"):
        attempt(bfloat16=True)
    with pytest.raises(ValueError, match="seed must be a whole number >= 0, got -1"):
        attempt(seed=-1)
    with pytest.raises(ValueError, match="checkpoint_every must be"):
        attempt(every=-1.0)
    with pytest.raises(ValueError, match="evaluate must be given for stop_when"):
        attempt(stop_when=("loss", 1.0))
    with pytest.raises(ValueError, match=r"stop_when must name a metric \('a', 'b'\), got 'loss'"):
        attempt(stop_when=("loss", 1.0), evaluate=lambda model: {"a": 0.0, "b": 0.0})
    with pytest.raises(ValueError, match="batch must return a tuple or mapping of tensors, got a "):
        attempt(batch=lambda step: torch.zeros(3))
    with pytest.raises(ValueError, match="schedule 'plateau' needs epochs"):
        attempt(schedule="plateau")
