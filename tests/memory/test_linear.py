"""Linear memories against their definitions, and their noise against theory."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from memory.facts import Facts, draw
from memory.linear import LinearMemory, LowRankMemory, ProjectionMemory, QuantizedMemory
from memory.lloyd_max import gaussian_quantizer
from tests.memory import laws

DOUBLE = torch.float64
few = settings(max_examples=15)
seeds = st.integers(0, 10**6)


@few
@given(st.integers(2, 24), st.data(), seeds)
@pytest.mark.parametrize("rule", ["outer-product", "pseudo-inverse"])
def test_orthonormal_facts_are_recalled_exactly(rule: str, d: int, data, seed: int) -> None:
    N = data.draw(st.integers(2, d))
    facts = draw(N=N, d=d, embedding="orthonormal", seed=seed, dtype=DOUBLE)
    memory = LinearMemory(d, d, rule, dtype=DOUBLE).store(facts)
    assert torch.allclose(memory(facts.keys), facts.values, atol=1e-12)
    assert torch.allclose(laws.margins(memory, facts), torch.ones(N, dtype=DOUBLE), atol=1e-12)


@few
@given(st.integers(2, 24), st.data(), seeds)
def test_pseudo_inverse_interpolates_up_to_d_and_minimises_beyond(d: int, data, seed: int) -> None:
    N = data.draw(st.integers(1, 3 * d))
    facts = draw(N=N, d=d, M=max(N, 2), d_out=5, seed=seed, dtype=DOUBLE)
    memory = LinearMemory(d, 5, "pseudo-inverse", dtype=DOUBLE).store(facts)
    residual = facts.values - memory(facts.keys)
    if N <= d:
        assume(torch.linalg.cond(facts.keys) < 1e6)
        assert residual.abs().max() < 1e-9
    else:
        gradient = (residual.mT @ facts.keys).abs().max()
        assert gradient < 1e-6


@few
@given(st.integers(2, 12), st.integers(1, 30), seeds)
def test_editing_one_fact_is_exact(d: int, N: int, seed: int) -> None:
    facts = draw(N=N + 1, d=d, seed=seed, dtype=DOUBLE)
    first = replace(facts, keys=facts.keys[:N], association=facts.association[:N])
    less = LinearMemory(d, d, dtype=DOUBLE).store(first)
    before = less.weight.detach().clone()
    less.add(facts.keys[N], facts.values[N])
    laws.close(less.weight, LinearMemory(d, d, dtype=DOUBLE).store(facts).weight)
    less.remove(facts.keys[N], facts.values[N])
    laws.close(less.weight, before)


def test_only_outer_products_are_edited() -> None:
    memory = LinearMemory(3, 3, "pseudo-inverse")
    with pytest.raises(ValueError, match="rule must be 'outer-product'"):
        memory.add(torch.ones(3), torch.ones(3))


def test_a_repeated_key_doubles_or_contradicts() -> None:
    basis = torch.eye(4, dtype=DOUBLE)
    twice = basis[[0, 0, 1]]
    agreeing = Facts(twice, basis, torch.tensor([0, 0, 1]))
    memory = LinearMemory(4, 4, dtype=DOUBLE).store(agreeing)
    assert laws.margins(memory, agreeing).tolist() == [2, 2, 1]
    contradicting = Facts(twice, basis, torch.tensor([0, 2, 1]))
    memory.store(contradicting)
    assert laws.margins(memory, contradicting).tolist() == [0, 0, 1]
    assert laws.error(memory, contradicting) == pytest.approx(2 / 3)
    inverse = LinearMemory(4, 4, "pseudo-inverse", dtype=DOUBLE).store(contradicting)
    assert torch.allclose(inverse(basis[:1]), basis[[0, 2]].mean(dim=0))


def test_full_rank_truncation_and_projection_change_nothing() -> None:
    facts = draw(N=40, d=9, d_out=9, dtype=DOUBLE)
    full = LinearMemory(9, 9, dtype=DOUBLE).store(facts)(facts.keys)
    laws.close(LowRankMemory(9, 9, 9, dtype=DOUBLE).store(facts)(facts.keys), full)
    laws.close(ProjectionMemory(9, 9, 9, dtype=DOUBLE).store(facts)(facts.keys), full)


@few
@given(st.integers(2, 12), st.integers(2, 12), st.data(), seeds)
def test_truncation_is_the_nearest_matrix_of_its_rank(d: int, d_out: int, data, seed: int) -> None:
    rank = data.draw(st.integers(1, min(d, d_out)))
    facts = draw(N=30, d=d, d_out=d_out, seed=seed, dtype=DOUBLE)
    full = LinearMemory(d, d_out, dtype=DOUBLE).store(facts).weight.detach()
    memory = LowRankMemory(d, d_out, rank, dtype=DOUBLE).store(facts)
    distance = torch.linalg.norm(memory.left @ memory.right - full)
    tail = torch.linalg.norm(torch.linalg.svdvals(full)[rank:])
    assert distance.item() == pytest.approx(tail.item(), abs=1e-10)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_quantiser_satisfies_its_conditions(bits: int) -> None:
    quantizer = gaussian_quantizer(bits)
    grid = np.linspace(-12, 12, 1_000_001)
    weight = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi) * (grid[1] - grid[0])
    cell = np.searchsorted(quantizer.thresholds, grid)
    mass = np.bincount(cell, weight)
    # The grid misplaces up to one of its steps at either edge of a cell.
    assert np.allclose(np.bincount(cell, weight * grid) / mass, quantizer.levels, atol=2e-3)
    nearest = np.abs(grid[::1000, None] - quantizer.levels).argmin(axis=1)
    assert np.mean(nearest == cell[::1000]) > 0.995
    distortion = np.sum(weight * (grid - quantizer.levels[cell]) ** 2)
    assert quantizer.distortion == pytest.approx(distortion, rel=1e-3)


def test_distortions_are_those_of_the_literature() -> None:
    # Max 1960, table I, and the limit of Panter and Dite.
    expected = [1 - 2 / math.pi, 0.1175, 0.03454, 0.009497]
    found = [gaussian_quantizer(bits).distortion for bits in (1, 2, 3, 4)]
    assert found == pytest.approx(expected, rel=1e-3)
    limit = math.sqrt(3) * math.pi / 2 * 4.0**-12
    assert gaussian_quantizer(12).distortion == pytest.approx(limit, rel=2e-3)


@pytest.mark.parametrize("bits", [1, 2, 5])
def test_quantised_weights_take_few_levels_and_lose_the_distortion(bits: int) -> None:
    facts = draw(N=400, d=48, dtype=DOUBLE)
    exact = LinearMemory(48, 48, dtype=DOUBLE).store(facts).weight
    memory = QuantizedMemory(48, 48, bits, dtype=DOUBLE).store(facts)
    assert len(memory.weight.unique()) <= 2**bits
    lost = (memory.weight - exact).square().sum() / exact.square().sum()
    assert lost.item() == pytest.approx(gaussian_quantizer(bits).distortion, rel=0.15)
    assert memory.bits == bits * 48 * 48 + 32
    if bits == 1:
        assert torch.equal(memory.weight.sign(), exact.sign())


def test_error_orders_by_bits_rank_and_rule() -> None:
    facts = [draw(N=160, d=48, seed=seed, dtype=DOUBLE) for seed in range(6)]

    def mean_error(memory) -> float:
        return sum(laws.error(memory.store(f), f) for f in facts) / len(facts)

    hebb = mean_error(LinearMemory(48, 48, dtype=DOUBLE))
    by_bits = [mean_error(QuantizedMemory(48, 48, bits, dtype=DOUBLE)) for bits in (1, 2, 6)]
    by_rank = [mean_error(LowRankMemory(48, 48, rank, dtype=DOUBLE)) for rank in (6, 12, 24, 48)]
    projected = mean_error(ProjectionMemory(48, 48, 24, dtype=DOUBLE))
    assert by_bits == sorted(by_bits, reverse=True)
    assert by_bits[-1] == pytest.approx(hebb, abs=0.01)
    assert by_rank == sorted(by_rank, reverse=True)
    assert by_rank[-1] == pytest.approx(hebb)
    assert by_rank[2] < projected
    assert mean_error(LinearMemory(48, 48, "pseudo-inverse", dtype=DOUBLE)) < hebb


def test_cross_talk_of_outer_products() -> None:
    """Right scores have mean 1 and variance (N-1)/d^2, wrong ones the variance (N-2)/d^2 + 2/d."""
    d, N, draws = 64, 256, 12
    right, wrong = [], []
    for seed in range(draws):
        facts = draw(N=N, d=d, seed=seed, dtype=DOUBLE)
        scores = LinearMemory(d, d, dtype=DOUBLE).store(facts)(facts.keys) @ facts.outputs.mT
        right.append(scores.diagonal())
        wrong.append(scores[~torch.eye(N, dtype=torch.bool)])
    correct, others = torch.cat(right), torch.cat(wrong)
    assert abs(correct.mean().item() - 1) < 0.02
    assert correct.std().item() == pytest.approx(math.sqrt(N - 1) / d, rel=0.05)
    assert others.var().item() == pytest.approx((N - 2) / d**2 + 2 / d, rel=0.05)


@pytest.mark.parametrize(
    ("rule", "d", "N", "expected"),
    # The kernel-memory formula of seqtheory, and 0 up to d facts.
    [("outer-product", 64, 128, 1.975e-2), ("pseudo-inverse", 64, 64, 0.0)],
)
def test_error_is_the_predicted_one(rule: str, d: int, N: int, expected: float) -> None:
    errors = torch.tensor(
        [
            laws.error(LinearMemory(d, d, rule, dtype=DOUBLE).store(facts), facts)
            for facts in (draw(N=N, d=d, seed=seed, dtype=DOUBLE) for seed in range(120))
        ]
    )
    assert abs(errors.mean() - expected) <= 4 * errors.std() / len(errors) ** 0.5


def test_pseudo_inverse_refunds_d_keys() -> None:
    d, N = 48, 160
    energies = []
    for seed in range(5):
        facts = draw(N=N, d=d, seed=seed, dtype=DOUBLE)
        onehot = Facts(facts.keys, torch.eye(N, dtype=DOUBLE), facts.association)
        memory = LinearMemory(d, N, "pseudo-inverse", dtype=DOUBLE).store(onehot)
        kernel = memory(facts.keys).detach()
        leverage = kernel.diagonal()
        assert leverage.sum().item() == pytest.approx(d, rel=1e-6)
        off_diagonal = kernel.square().sum(dim=1) - leverage**2
        assert torch.allclose(off_diagonal, leverage * (1 - leverage), atol=1e-6)
        energies.append((off_diagonal / leverage**2).mean().item())
    assert np.mean(energies) == pytest.approx((N - d) / d, rel=0.05)


@pytest.mark.parametrize("memory", [LinearMemory(400, 80), LowRankMemory(400, 80, 20)])
def test_initial_weights_are_lecun_normal_and_learn(memory) -> None:
    memory.initialize(3)
    weight = memory.weight if isinstance(memory, LinearMemory) else memory.right
    assert weight.std().item() == pytest.approx(400**-0.5, rel=0.05)
    assert weight.abs().max() <= 2 / 0.8796 * 400**-0.5 * 1.001
    facts = draw(N=20, d=400, d_out=80)
    loss = (memory(facts.keys) - facts.values).square().sum()
    loss.backward()
    with torch.no_grad():
        for parameter in memory.parameters():
            parameter -= 0.05 * parameter.grad
    assert (memory(facts.keys) - facts.values).square().sum() < loss
