"""What prompts must be, how examples are interleaved, and how a curriculum changes a task."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.tasks.chain_of_thought import ChainOfThought
from experiments.tasks.in_context import (
    Curriculum,
    InContextTask,
    Prompts,
    Ramp,
    examples,
    interleaved,
)
from experiments.tasks.linear_regression import LinearRegression
from experiments.tasks.two_layer_regression import TwoLayerRegression


def two_prompts(**change) -> Prompts:
    """Two prompts of three tokens, with guesses at the first and the last."""
    fields = dict(
        tokens=torch.zeros(2, 3, 4, dtype=torch.float64),
        at=torch.tensor([0, 2]),
        targets=torch.zeros(2, 2, 1, dtype=torch.float64),
        counted=torch.ones(2, 2, 1, dtype=torch.bool),
        scored=torch.tensor([1]),
        hidden={"weights": torch.zeros(2, 4)},
    )
    return Prompts(**{**fields, **change})


def test_prompts_know_their_number():
    assert len(two_prompts()) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(tokens=torch.zeros(2, 0, 4).double()),
            r"tokens must be prompts x length x d, not empty, got \(2, 0, 4\)",
        ),
        (dict(at=torch.tensor([0, 3])), r"at must be from 0 to 2, got \[0, 3\]"),
        (dict(at=torch.tensor([-1, 2])), r"at must be from 0 to 2, got \[-1, 2\]"),
        (dict(scored=torch.tensor([2])), r"scored must be from 0 to 1, got \[2\]"),
        (dict(scored=torch.tensor([], dtype=torch.int64)), r"scored must be from 0 to 1, got \[\]"),
        (dict(tokens=torch.zeros(2, 3, 4)), "tokens must be finite and of type float64"),
        (dict(tokens=torch.full((2, 3, 4), torch.nan).double()), "tokens must be finite"),
        (dict(targets=torch.full((2, 2, 1), torch.inf).double()), "targets must be finite"),
        (dict(hidden={"weights": torch.zeros(3, 4)}), r"hidden\['weights'\] must have one entry"),
    ],
)
def test_bad_prompts_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        two_prompts(**change)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("tokens", (2, 3), r"tokens must be prompts x length x d, not empty, got \(2, 3\)"),
        ("targets", (3, 2, 1), r"targets must have 2 prompts and 2 guesses.*\(3, 2, 1\)"),
        ("targets", (2, 3, 1), r"targets must have 2 prompts and 2 guesses.*\(2, 3, 1\)"),
        ("counted", (2, 2, 2), r"counted must have the shape of the targets, got \(2, 2, 2\)"),
    ],
)
def test_bad_shapes_are_named_without_the_check_of_the_tests(name, shape, message):
    prompts = two_prompts()
    vars(prompts)[name] = torch.zeros(shape, dtype=getattr(prompts, name).dtype)
    with pytest.raises(ValueError, match=message):
        prompts.__post_init__()


def test_interleaving_drawn_out():
    xs = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]).double()
    ys = torch.tensor([[5.0, 6.0]]).double()
    assert interleaved(xs, ys).tolist() == [[[1, 2], [5, 0], [3, 4], [6, 0]]]
    prompts = examples(xs, ys, {"weights": xs[:, 0]})
    assert prompts.at.tolist() == [0, 2]
    assert prompts.targets.tolist() == [[[5], [6]]]
    assert prompts.counted.all()
    assert prompts.scored.tolist() == [0, 1]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 99))
def test_examples_are_found_again_and_guessed_before_they_are_seen(n, num_examples, d, seed):
    rng = torch.Generator().manual_seed(seed)
    xs = torch.randn(n, num_examples, d, generator=rng, dtype=torch.float64)
    ys = torch.randn(n, num_examples, generator=rng, dtype=torch.float64)
    prompts = examples(xs, ys, {})
    assert torch.equal(prompts.xs, xs)
    assert torch.equal(prompts.ys, ys)
    assert torch.equal(prompts.tokens[:, prompts.at], xs)
    assert torch.equal(prompts.tokens[:, prompts.at + 1, 0], prompts.targets[..., 0])
    assert (prompts.tokens[:, 1::2, 1:] == 0).all()


@pytest.mark.parametrize(
    ("ramp", "values"),
    [
        # Garg et al.: 15 increments of 2000 steps, so that step 30 000 is the first at the end.
        (
            Ramp(start=5, end=20, interval=2000),
            {0: 5, 1999: 5, 2000: 6, 29_999: 19, 30_000: 20, 500_000: 20},
        ),
        (
            Ramp(start=11, end=41, increment=2, interval=2000),
            {0: 11, 2000: 13, 29_999: 39, 30_000: 41, 10**6: 41},
        ),
        # Park et al., many outliers: 250 increments of 200 steps.
        (
            Ramp(start=12, end=512, increment=2, interval=200),
            {0: 12, 200: 14, 49_999: 510, 50_000: 512, 10**6: 512},
        ),
        # The last increment is cut off.
        (Ramp(start=1, end=6, increment=4, interval=1), {0: 1, 1: 5, 2: 6, 3: 6}),
    ],
)
def test_ramps_are_those_of_the_papers(ramp, values):
    assert {step: ramp(step) for step in values} == values


@given(st.integers(1, 9), st.integers(0, 20), st.integers(1, 5), st.integers(1, 7))
def test_ramps_rise_by_their_increments_from_start_to_end(start, rise, increment, interval):
    ramp = Ramp(start=start, end=start + rise, increment=increment, interval=interval)
    value = start
    for step in range(interval * (rise // increment + 3)):
        if step and step % interval == 0:
            value = min(value + increment, ramp.end)
        assert ramp(step) == value
    assert value == ramp.end


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": 0}, "start must be a whole number"),
        ({"end": 1}, "start must be at most end, got start=2 and end=1"),
        ({"increment": 0}, "increment must be a whole number"),
        ({"interval": 0}, "interval must be a whole number"),
    ],
)
def test_bad_ramps_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Ramp(**{"start": 2, "end": 3, "interval": 1, **change})


@pytest.mark.parametrize("task", [LinearRegression(noise=0.5), TwoLayerRegression(hidden=3)])
@pytest.mark.parametrize("step", [0, 1, 9, 10, 1000])
def test_a_curriculum_changes_what_it_names_and_nothing_else(task, step):
    active = Ramp(start=2, end=6, interval=5)
    num_examples = Ramp(start=3, end=8, increment=2, interval=2)
    both = Curriculum(active=active, num_examples=num_examples).task(task, step)
    assert both == replace(task, active=active(step), num_examples=num_examples(step))
    assert Curriculum(active=active).task(task, step) == replace(task, active=active(step))
    assert Curriculum().task(task, step) == task
    prompts = both.sample(2, seed=0)
    assert prompts.tokens.shape == (2, 2 * num_examples(step), 20)
    assert (prompts.xs[..., active(step) :] == 0).all()
    assert prompts.xs[..., active(step) - 1].all()


def test_a_curriculum_needs_the_field():
    ramp = Ramp(start=1, end=2, interval=1)
    stage = Curriculum(num_examples=ramp).task(ChainOfThought(), 0)
    assert stage == ChainOfThought(num_examples=1)
    with pytest.raises(ValueError, match="active: ChainOfThought has no such field to ramp up"):
        Curriculum(active=ramp).task(ChainOfThought(), 0)


def test_a_curriculum_stays_inside_the_task():
    ramp = Ramp(start=1, end=21, interval=1)
    assert Curriculum(active=ramp).task(LinearRegression(), 19).sample(1, seed=0)
    with pytest.raises(ValueError, match="active must be at most d, got active=21 and d=20"):
        Curriculum(active=ramp).task(LinearRegression(), 20)


def test_prompts_are_no_task():
    assert not isinstance(two_prompts(), InContextTask)
