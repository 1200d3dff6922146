"""The benchmark compares estimators that guess the same. No timing is asserted."""

import pytest
import torch

from experiments import bench_in_context
from experiments.bench_in_context import ESTIMATORS, linear_examples, measure_in_context

SMALL = dict(PROMPTS=3, EXAMPLES=7, D=4, LOOPED=2, TASKS={"linear": (4, tuple(ESTIMATORS))})


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, size in SMALL.items():
        monkeypatch.setattr(bench_in_context, name, size)


def test_every_estimator_and_their_sum_are_measured():
    found = {m.name: m for m in measure_in_context(1)}
    assert [name.removeprefix("linear, ") for name in found] == [
        *ESTIMATORS,
        "all estimators",
        "all estimators, batched",
    ]
    assert all(m.value > 0 for m in found.values())


def test_times_of_the_loop_are_scaled(monkeypatch):
    monkeypatch.setattr(bench_in_context, "median_times", lambda ways, _: dict.fromkeys(ways, 2.0))
    found = [m.value for m in measure_in_context(1)]
    assert found == pytest.approx([1.5] * 5 + [8.0])


@pytest.mark.parametrize("name", ESTIMATORS)
def test_both_ways_guess_the_same(name, monkeypatch):
    monkeypatch.setattr(bench_in_context, "GAP", 1e-12)
    xs, ys = linear_examples(2)
    batched, plain = ESTIMATORS[name]
    guesses = bench_in_context.one_at_a_time(plain, xs, ys)
    assert guesses.abs().max() > 0.1
    torch.testing.assert_close(batched(xs, ys), guesses, atol=1e-4, rtol=0)
