"""The two-layer memory against the gated form, its linearisation and least squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd.functional import jvp

from memory.facts import Facts, draw
from memory.mlp import MLPMemory, _hermite
from tests.memory import laws

DOUBLE = torch.float64
few = settings(max_examples=10)
seeds = st.integers(0, 10**6)

GATES = {
    "relu": lambda t: (t > 0).double(),
    "squared-relu": lambda t: 2 * torch.relu(t),
    "quadratic": lambda t: 2 * t,
    "cubic": lambda t: 3 * t**2,
    "quartic": lambda t: 4 * t**3,
}
HERMITE = {
    "relu": lambda t: t,
    "squared-relu": lambda t: t,
    "quadratic": lambda t: t,
    "cubic": lambda t: (t**2 - 1) / math.sqrt(2),
    "quartic": lambda t: (t**3 - 3 * t) / math.sqrt(6),
}


def gated(memory: MLPMemory, facts: Facts, keys: torch.Tensor) -> torch.Tensor:
    r"""$\sum_i v_i \sigma'(g_i z) (p_i z)$ with p_i summed fact by fact, up to a factor."""
    units = memory.sizes["width"] // 2
    gates = (memory.hidden[:units] + memory.hidden[units:]) / 2
    directions = torch.nn.functional.normalize(memory.output[:units], dim=1)
    weights = torch.zeros_like(gates)
    for key, value in zip(facts.keys, facts.values, strict=True):
        strength = HERMITE[memory.activation](gates @ key) * (directions @ value)
        weights += strength[:, None] * key
    hidden = GATES[memory.activation](keys @ gates.mT) * (keys @ weights.mT)
    return (hidden @ directions).detach()


@pytest.mark.parametrize("activation", GATES)
@few
@given(st.integers(3, 10), st.integers(3, 10), st.integers(2, 30), seeds)
def test_network_is_the_gated_form(activation: str, d: int, d_out: int, N: int, seed: int) -> None:
    facts = draw(N=N, d=d, d_out=d_out, seed=seed, dtype=DOUBLE)
    memory = MLPMemory(d, d_out, 40, "kernel", activation, seed=seed, dtype=DOUBLE).store(facts)
    keys = draw(N=20, d=d, seed=seed + 1, dtype=DOUBLE).keys
    if activation == "relu":  # The two differ where a gate opens between the rows of its pair.
        below, above = (keys @ memory.hidden.mT > 0).chunk(2, dim=1)
        keys = keys[(below == above).all(dim=1)]
        assert len(keys) >= 15
    found, expected = memory(keys).detach(), gated(memory, facts, keys)
    factor = (found * expected).sum() / expected.square().sum()
    assert factor > 0
    laws.close(found, factor * expected, 1e-12 if activation == "quadratic" else 1e-7)


def test_gated_form_is_the_tangent_of_the_network() -> None:
    facts = draw(N=30, d=8, dtype=DOUBLE)
    memory = MLPMemory(8, 8, 60, "kernel", "cubic", dtype=DOUBLE).store(facts)
    plus, minus = memory.hidden.detach().chunk(2)
    directions = memory.output.detach()[:30]

    def network(hidden: torch.Tensor) -> torch.Tensor:
        return (facts.keys @ hidden.mT) ** 3 @ directions

    _, tangent = jvp(network, ((plus + minus) / 2,), (plus - minus,))
    laws.close(memory(facts.keys), tangent, 1e-7)


def test_hermite_polynomials_are_orthonormal() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(20)
    values = torch.stack([_hermite(q, torch.from_numpy(nodes)) for q in range(6)])
    gram = (values * torch.from_numpy(weights / weights.sum())) @ values.mT
    assert torch.allclose(gram, torch.eye(6, dtype=DOUBLE), atol=1e-12)


@pytest.mark.parametrize("activation", ["relu", "gelu", "quadratic"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("N", [1, 17, 40])
def test_least_squares_is_exact_up_to_the_width(activation: str, bias: bool, N: int) -> None:
    facts = draw(N=N, d=12, M=50, d_out=7, dtype=DOUBLE)
    memory = MLPMemory(12, 7, 40, activation=activation, bias=bias, dtype=DOUBLE).store(facts)
    laws.close(memory(facts.keys), facts.values, 1e-7)
    assert laws.error(memory, facts) == 0
    assert memory.counted_parameters == 40 * (12 + 7) + 40 * bias
    assert memory.learned_parameters == 40 * 7


def test_quadratic_features_have_only_so_many_dimensions() -> None:
    facts = draw(N=40, d=6, dtype=DOUBLE)  # 21 products of coordinates
    memory = MLPMemory(6, 6, 60, activation="quadratic", dtype=DOUBLE).store(facts)
    assert (memory(facts.keys) - facts.values).abs().max() > 0.1


def test_error_falls_with_nested_features() -> None:
    facts = draw(N=400, d=24, dtype=DOUBLE)
    errors = [
        laws.error(MLPMemory(24, 24, width, dtype=DOUBLE).store(facts), facts)
        for width in (24, 60, 120, 240, 400)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0
    assert errors[0] > 0.5


@pytest.mark.parametrize(
    ("activation", "gain", "own"),
    [("quadratic", 1.0, 3.0), ("squared-relu", 2.0, 6.0), ("relu", math.pi, math.pi)],
)
@pytest.mark.parametrize(("N", "units"), [(64, 512), (400, 2048)])
def test_noise_of_the_kernel_construction(
    activation: str, gain: float, own: float, N: int, units: int
) -> None:
    r"""$\lambda = E[s^2] N/(c^2 m) + 3N/d^2 + E[s^2 h^2] d/(c^2 m)$: finite width, kernel, own."""
    d = 32
    facts = draw(N=N, d=d, dtype=DOUBLE)
    memory = MLPMemory(d, d, 2 * units, "kernel", activation, dtype=DOUBLE).store(facts)
    answers = memory(facts.keys).detach()
    signal = (answers * facts.values).sum(dim=1).mean()
    energy = (answers / signal - facts.values).square().sum(dim=1).mean().item()
    assert energy == pytest.approx(gain * N / units + 3 * N / d**2 + own * d / units, rel=0.2)


def test_kernel_recalls_where_the_product_is_large() -> None:
    facts = draw(N=200, d=48, dtype=DOUBLE)

    def error(width: int) -> float:
        memory = MLPMemory(48, 48, width, "kernel", "quadratic", dtype=DOUBLE)
        return laws.error(memory.store(facts), facts)

    assert error(4096) == 0
    assert error(32) > 0.5


def test_initial_weights_learn() -> None:
    facts = draw(N=64, d=16, dtype=DOUBLE)
    memory = MLPMemory(16, 16, 32, bias=True, dtype=DOUBLE).initialize(0)
    assert memory.hidden.std().item() == pytest.approx(16**-0.5, rel=0.1)
    assert memory.output.std().item() == pytest.approx(32**-0.5, rel=0.1)
    optimizer = torch.optim.Adam(memory.parameters(), 0.03)
    for _ in range(150):
        optimizer.zero_grad()
        scores = memory(facts.keys) @ facts.outputs.mT
        torch.nn.functional.cross_entropy(scores, facts.association).backward()
        optimizer.step()
    assert laws.error(memory, facts) < 0.05
    assert memory.hidden_bias.abs().max() > 0


def test_kernel_has_no_bias() -> None:
    with pytest.raises(ValueError, match="bias must be False"):
        MLPMemory(4, 4, 8, "kernel", bias=True)


def test_stacked_biases_broadcast() -> None:
    memories = [MLPMemory(6, 9, 8, bias=True, dtype=DOUBLE, seed=seed) for seed in range(3)]
    for seed, memory in enumerate(memories):
        memory.store(draw(N=20, d=6, d_out=9, seed=seed, dtype=DOUBLE))
    laws.stacks(
        memories, torch.stack([draw(N=5, d=6, seed=s, dtype=DOUBLE).keys for s in (4, 5, 6)])
    )
