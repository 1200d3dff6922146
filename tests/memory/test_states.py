"""Recurrent states against the recursions they are defined by, and Hopfield against softmax."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory import hopfield
from memory.facts import Facts, draw
from memory.hopfield import HopfieldMemory
from memory.linear import LinearMemory
from memory.states import DiagonalSSMMemory, FastWeightMemory
from tests.memory import laws

DOUBLE = torch.float64
few = settings(max_examples=12)
seeds = st.integers(0, 10**6)
rates = st.sampled_from([None, 0.1, 0.7, 1.0])
decays = st.sampled_from([0.3, 0.95, 1.0])


def part(facts: Facts, start: int, stop: int) -> Facts:
    return replace(facts, keys=facts.keys[start:stop], association=facts.association[start:stop])


@few
@given(st.integers(2, 9), st.integers(2, 9), st.integers(1, 300), rates, decays, seeds)
def test_chunks_are_the_recursion(
    d: int, d_out: int, N: int, rate: float | None, decay: float, seed: int
) -> None:
    facts = draw(N=N, d=d, M=max(N, 2), d_out=d_out, seed=seed, dtype=DOUBLE)
    state = torch.zeros(d_out, d, dtype=DOUBLE)
    for key, value in zip(facts.keys, facts.values, strict=True):
        state = decay * state
        written = value if rate is None else rate * (value - state @ key)
        state = state + torch.outer(written, key)
    memory = FastWeightMemory(d, d_out, rate, decay, dtype=DOUBLE).store(facts)
    laws.close(memory.state, state)


@few
@given(st.integers(2, 9), st.integers(1, 300), decays, st.booleans(), seeds)
def test_ssm_is_the_recursion(d: int, N: int, decay: float, mixed: bool, seed: int) -> None:
    facts = draw(N=N, d=d, M=max(N, 2), d_out=4, seed=seed, dtype=DOUBLE)
    channels = [decay ** (j / 2) for j in range(5)] if mixed else decay
    memory = DiagonalSSMMemory(d, 4, 5, channels, seed=seed, dtype=DOUBLE).store(facts)
    state = torch.zeros(5, 4, dtype=DOUBLE)
    for key, value in zip(facts.keys, facts.values, strict=True):
        projected = memory.projection @ key
        written = torch.outer(projected / projected.norm(), value)
        state = torch.as_tensor(channels, dtype=DOUBLE).expand(5)[:, None] * state + written
    laws.close(memory.state, state)


@pytest.mark.parametrize(
    "memory", [FastWeightMemory(8, 8, 0.5, 0.9, dtype=DOUBLE), DiagonalSSMMemory(8, 8, 6, 0.9)]
)
def test_writing_goes_on_where_it_stopped(memory) -> None:
    facts = draw(N=60, d=8, dtype=memory.state.dtype)
    at_once = memory.store(facts).state.detach().clone()
    memory.store(part(facts, 0, 25)).write(part(facts, 25, 60))
    laws.close(memory.state, at_once, 1e-5)


def test_a_state_that_only_adds_is_the_outer_product() -> None:
    facts = draw(N=300, d=12, dtype=DOUBLE)
    hebb = LinearMemory(12, 12, dtype=DOUBLE).store(facts)
    laws.close(FastWeightMemory(12, 12, dtype=DOUBLE).store(facts).state, hebb.weight)


@few
@given(st.integers(2, 12), st.integers(1, 100), seeds)
def test_delta_rule_recalls_the_last_key(d: int, N: int, seed: int) -> None:
    facts = draw(N=N, d=d, M=max(N, 2), seed=seed, dtype=DOUBLE)
    memory = FastWeightMemory(d, d, 1.0, dtype=DOUBLE).store(facts)
    laws.close(memory(facts.keys[-1:]), facts.values[-1:])


def test_a_smaller_rate_does_not() -> None:
    facts = draw(N=50, d=12, dtype=DOUBLE)
    memory = FastWeightMemory(12, 12, 0.5, dtype=DOUBLE).store(facts)
    assert (memory(facts.keys[-1:]) - facts.values[-1:]).abs().max() > 0.1


def test_repeated_passes_converge_to_the_pseudo_inverse() -> None:
    facts = draw(N=8, d=16, dtype=DOUBLE)
    memory = FastWeightMemory(16, 16, 1.0, dtype=DOUBLE).store(facts)
    for _ in range(400):
        memory.write(facts)
    exact = LinearMemory(16, 16, "pseudo-inverse", dtype=DOUBLE).store(facts)
    laws.close(memory.state, exact.weight, 1e-8)


def test_stationary_norm_of_the_delta_rule() -> None:
    rate, d = 0.6, 32
    norms = []
    for seed in range(12):
        memory = FastWeightMemory(d, d, rate, dtype=DOUBLE)
        memory.store(draw(N=800, d=d, seed=seed, dtype=DOUBLE))
        norms.append(memory.state.detach().square().sum().item())
    assert sum(norms) / len(norms) == pytest.approx(rate * d / (2 - rate), rel=0.05)


def test_decay_recalls_the_recent_facts() -> None:
    facts = draw(N=600, d=48, dtype=DOUBLE)
    memory = FastWeightMemory(48, 48, decay=0.98, dtype=DOUBLE).store(facts)
    assert laws.error(memory, facts) > 0.5
    right = laws.margins(memory, facts) > 0
    assert right[-10:].all()
    assert right[:200].double().mean() < 0.05


def test_states_of_a_model_are_projected_keys() -> None:
    r"""Overlaps of $Bk/|Bk|$ have the second moment 1/n + 1/d; a held state is their Hebb rule."""
    facts = draw(N=300, d=64, dtype=DOUBLE)
    memory = DiagonalSSMMemory(64, 64, 32, dtype=DOUBLE).store(facts)
    features = memory.features(facts.keys)
    laws.close(memory.state, features.mT @ facts.values)
    overlaps = (features @ features.mT)[~torch.eye(300, dtype=torch.bool)]
    assert overlaps.square().mean().item() == pytest.approx(1 / 32 + 1 / 64, rel=0.1)


@few
@given(st.integers(2, 9), st.integers(1, 60), st.floats(0.1, 500), seeds)
def test_hopfield_is_a_softmax_over_the_facts(d: int, N: int, beta: float, seed: int) -> None:
    facts = draw(N=N, d=d, M=max(N, 2), d_out=5, seed=seed, dtype=DOUBLE)
    memory = HopfieldMemory(d, 5, beta, dtype=DOUBLE).store(facts)
    keys = draw(N=7, d=d, seed=seed + 1, dtype=DOUBLE).keys
    expected = torch.softmax(beta * keys @ facts.keys.mT, dim=1) @ facts.values
    laws.close(memory(keys), expected)
    assert memory.sizes["N"] == N
    assert memory.stated_parameters == N * (d + 5)


def test_hopfield_tiles_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = draw(N=100, d=8, dtype=DOUBLE)
    memory = HopfieldMemory(8, 8, 10.0, dtype=DOUBLE).store(facts)
    whole = memory(facts.keys)
    monkeypatch.setattr(hopfield, "_STORED_TILE", 9)
    monkeypatch.setattr(hopfield, "_TILE_ENTRIES", 63)
    laws.close(memory(facts.keys), whole)


def test_hopfield_recalls_far_more_facts_than_dimensions_if_cold_enough() -> None:
    facts = draw(N=3000, d=16, dtype=DOUBLE)
    assert laws.error(HopfieldMemory(16, 16, 2000.0, dtype=DOUBLE).store(facts), facts) == 0
    assert laws.error(HopfieldMemory(16, 16, 2.0, dtype=DOUBLE).store(facts), facts) > 0.5


def test_hopfield_keeps_its_own_copy() -> None:
    facts = draw(N=10, d=4, dtype=DOUBLE)
    memory = HopfieldMemory(4, 4, dtype=DOUBLE).store(facts)
    before = memory.keys.detach().clone()
    facts.keys.zero_()
    assert torch.equal(memory.keys, before)
