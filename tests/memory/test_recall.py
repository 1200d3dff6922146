"""Streamed margins equal direct ones, also in single precision, and probes decide rightly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from memory.associative import AssociativeMemory
from memory.facts import Facts, draw
from memory.recall import errors, margins, probe


class Matrix(AssociativeMemory):
    """The outer-product memory, as small as it gets."""

    formula = "d*d_out"

    def __init__(self, d, d_out, dtype=torch.float64):
        super().__init__(d=d, d_out=d_out)
        self.weight = torch.nn.Parameter(torch.zeros(d_out, d, dtype=dtype))

    def forward(self, keys):
        return keys @ self.weight.mT

    def store(self, facts):
        self.require(facts)
        self.weight.data = facts.values.mT @ facts.keys
        return self


def stored(facts):
    return Matrix(facts.d, facts.d_out, facts.keys.dtype).store(facts)


def direct(memory, facts):
    """Margins from the whole score matrix, in double precision."""
    scores = (memory.double()(facts.keys.double()) @ facts.outputs.double().mT).detach()
    rows = torch.arange(facts.N)
    correct = scores[rows, facts.association].clone()
    scores[rows, facts.association] = -math.inf
    return correct - scores.max(1).values


@given(
    N=st.integers(2, 150),
    M=st.integers(2, 90),
    d=st.integers(2, 24),
    seed=st.integers(0, 99),
    budget=st.integers(6_000, 200_000),
)
def test_streamed_equals_direct_for_every_tile_size(N, M, d, seed, budget):
    facts = draw(N=N, d=d, M=M, seed=seed, dtype=torch.float64)
    memory = stored(facts)
    found = margins(memory, facts, memory_budget=budget)
    np.testing.assert_allclose(found, direct(memory, facts), rtol=0, atol=1e-12)


@given(N=st.integers(2, 300), d=st.integers(2, 24), seed=st.integers(0, 99))
def test_single_precision_decides_as_double_precision(N, d, seed):
    facts = draw(N=N, d=d, seed=seed)
    memory = stored(facts)
    found = margins(memory, facts) > 0
    assert torch.equal(found, direct(memory, facts) > 0)


def test_close_scores_are_decided_in_double_precision():
    """Outputs that differ beyond single precision: only the second evaluation tells them apart."""
    keys = torch.eye(2)[:1]
    outputs = torch.tensor([[1.0, 0.0], [1.0 - 1e-7, 0.0]])
    memory = Matrix(2, 2, torch.float32)
    memory.weight.data = torch.tensor([[0.3, 0.0], [0.0, 0.0]])
    for target, recalled in ((0, True), (1, False)):
        facts = Facts(keys, outputs, torch.tensor([target]))
        assert (margins(memory, facts) > 0).item() is recalled


def test_a_tie_is_a_failure():
    facts = Facts(torch.eye(2), torch.ones(2, 2), torch.tensor([0, 1]))
    assert errors(stored(facts), facts) == 2


@given(
    N=st.integers(2, 900),
    accuracy=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    d=st.integers(3, 24),
    seed=st.integers(0, 50),
)
def test_probe_agrees_with_counting(N, accuracy, d, seed):
    facts = draw(N=N, d=d, M=40, seed=seed)
    memory = stored(facts)
    wrong = errors(memory, facts)
    outcome = probe(memory, facts, accuracy=accuracy, risk=0, seed=seed)
    assert outcome.passed == (wrong <= math.floor((1 - accuracy) * N + 1e-9))
    assert outcome.errors <= wrong
    assert outcome.tested <= N


def test_probe_stops_early_and_rarely_errs():
    """At risk 0.1 fewer keys are seen than for certainty, and at most a tenth of probes err."""
    seen, certain, wrong = 0, 0, 0
    facts = draw(N=4000, d=24, M=40, seed=3)
    memory = stored(facts)
    truth = errors(memory, facts) / facts.N
    repeats = 60
    for seed in range(repeats):
        accuracy = 1 - truth * (0.97 if seed % 2 else 1.03)
        exact = probe(memory, facts, accuracy=accuracy, risk=0, seed=seed)
        quick = probe(memory, facts, accuracy=accuracy, risk=0.1, seed=seed)
        seen, certain = seen + quick.tested, certain + exact.tested
        wrong += quick.passed != exact.passed
    assert seen < certain
    assert binomtest(wrong, repeats, 0.1, "greater").pvalue > 1e-4


def test_first_failure_ends_a_probe_for_all_facts():
    facts = draw(N=4000, d=8, seed=0)
    outcome = probe(stored(facts), facts, accuracy=1.0)
    assert not outcome.passed
    assert outcome.tested == 256


@given(seed=st.integers(0, 99), scale=st.floats(1e-3, 1e3))
def test_margins_scale_with_the_memory(seed, scale):
    facts = draw(N=40, d=8, seed=seed, dtype=torch.float64)
    memory = stored(facts)
    before = margins(memory, facts)
    memory.weight.data *= scale
    after = margins(memory, facts)
    np.testing.assert_allclose(after, scale * before, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 99))
def test_another_output_never_repairs_a_fact(seed):
    facts = draw(N=30, d=8, M=30, seed=seed, dtype=torch.float64)
    more = Facts(facts.keys, draw(N=30, d=8, M=35, seed=seed, dtype=torch.float64).outputs,
                 facts.association)  # fmt: skip
    memory = stored(facts)
    assert (margins(memory, more) <= margins(memory, facts) + 1e-12).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_budget": 8}, "memory_budget must be at least"),
        ({"memory_budget": 0}, "memory_budget must be a whole number"),
    ],
)
def test_impossible_budgets_are_named(options, message):
    facts = draw(N=10, d=4)
    with pytest.raises(ValueError, match=message):
        margins(stored(facts), facts, **options)


@pytest.mark.parametrize("accuracy", [0.0, 1.1, -1])
def test_impossible_accuracies_are_named(accuracy):
    facts = draw(N=10, d=4)
    with pytest.raises(ValueError, match="accuracy must be above 0"):
        probe(stored(facts), facts, accuracy=accuracy)


def test_non_finite_scores_are_named():
    facts = draw(N=10, d=4)
    memory = stored(facts)
    memory.weight.data[0, 0] = math.nan
    with pytest.raises(ValueError, match="finite scores"):
        margins(memory, facts)


def test_other_dimensions_are_named():
    with pytest.raises(ValueError, match="d of the facts must be 4"):
        margins(stored(draw(N=10, d=4)), draw(N=10, d=5))


def test_other_types_are_named():
    with pytest.raises(ValueError, match="facts must have the type of the memory"):
        margins(stored(draw(N=10, d=4)), draw(N=10, d=4, dtype=torch.float64))
