"""The capacity search: brackets, repeats, common random numbers, and an oracle it must find."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory import measured
from memory.facts import draw
from memory.linear import LinearMemory
from memory.measured import Capacity, capacity, search
from memory.recall import Probe, errors


def outer_product(d, **options):
    return lambda seed: LinearMemory(d, d, **options)


@pytest.fixture
def threshold(monkeypatch):
    """Replaces probes by an oracle that recalls up to a number of facts."""

    def use(recalled):
        def probe(memory, facts, **options):
            return Probe(facts.N, recalled(facts.N), 0, facts.N)

        monkeypatch.setattr(measured, "probe", probe)

    return use


@given(limit=st.integers(2, 3000), start=st.integers(1, 4000), resolution=st.floats(1e-4, 0.2))
def test_finds_the_threshold_from_anywhere(limit, start, resolution):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            measured, "probe", lambda memory, facts, **_: Probe(facts.N, facts.N <= limit, 0, 1)
        )
        found = search(outer_product(1), seed=0, d=1, start=start, resolution=resolution)
    assert found.facts <= limit < found.ceiling
    assert found.ceiling - found.facts == 1 or found.ceiling / found.facts <= 1 + resolution
    assert found.contradictions == 0


def test_failure_at_the_lower_end_is_not_a_capacity(threshold):
    """The lower end of the bracket is probed: a memory that always fails stores nothing."""
    threshold(lambda N: False)
    found = search(outer_product(4), seed=0, d=4)
    assert (found.facts, found.ceiling) == (0, 2)
    with pytest.raises(ValueError, match="no number of facts is recalled for seeds"):
        _ = Capacity(0.99, (found,)).facts


def test_the_most_facts_end_the_search(threshold):
    threshold(lambda N: True)
    found = search(outer_product(4), seed=0, d=4, most=50)
    assert (found.facts, found.ceiling) == (50, math.inf)


def test_lack_of_monotonicity_is_reported(threshold):
    threshold(lambda N: (N < 100 and not 40 < N < 60) or N == 150)
    found = search(outer_product(4), seed=0, d=4, start=90)
    assert found.facts == 99
    assert found.contradictions == 2  # half the capacity fails, 1.5 times it passes


def test_orthonormal_keys_are_stored_up_to_d():
    build, single = outer_product(24, dtype=torch.float64), dict(seed=0, d=24, accuracy=1.0)
    found = search(build, **single, embedding="orthonormal", most=24, dtype=torch.float64)
    assert found.facts == 24


def test_result_agrees_with_counting_errors():
    for seed in range(3):
        found = search(outer_product(32), seed=seed, d=32, accuracy=0.99)
        for N, passes in ((found.facts, True), (int(found.ceiling), False)):
            facts = draw(N=N, d=32, seed=seed)
            wrong = errors(LinearMemory(32, 32).store(facts), facts)
            assert (wrong <= 0.01 * N) is passes


def test_relabelled_outputs_leave_the_errors_unchanged():
    facts = draw(N=150, d=32, seed=1, dtype=torch.float64)
    order = torch.from_numpy(np.random.default_rng(0).permutation(150))
    relabelled = type(facts)(facts.keys, facts.outputs[order], torch.argsort(order))
    counts = [errors(LinearMemory(32, 32, dtype=torch.float64).store(f), f)
              for f in (facts, relabelled)]  # fmt: skip
    assert counts[0] == counts[1] > 0


def test_capacity_grows_fourfold_with_twice_the_width():
    few, many = (capacity(outer_product(d), d=d, seeds=range(6)) for d in (64, 128))
    assert 3.3 < many.facts / few.facts < 4.4  # 3.74 expected, and 8 % of noise
    assert few.interval()[0] < 118.8 < few.interval()[1]  # mean of an independent simulation
    assert few.contradiction_rate < 0.1


def test_same_seed_same_search():
    assert search(outer_product(16), seed=3, d=16) == search(outer_product(16), seed=3, d=16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d": 0}, "d must be a whole number"),
        ({"resolution": 0}, "resolution must be a finite number > 0"),
        ({"accuracy": 2.0}, "accuracy must be above 0"),
        ({"memory_budget": 10}, "memory_budget must be at least"),
        ({"seeds": ()}, "seeds must name at least one draw"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        capacity(outer_product(4), **{"d": 4, **options})


def test_an_interval_needs_repeats():
    with pytest.raises(ValueError, match="at least 2 seeds"):
        capacity(outer_product(8), d=8, seeds=(0,)).interval()
