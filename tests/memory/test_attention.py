"""Attention heads against explicit attention, and the law of their capacity."""

from __future__ import annotations

import pytest
import torch

from memory.attention import AttentionMemory
from memory.facts import Facts, draw
from memory.linear import LinearMemory
from memory.recall import errors
from tests.memory import laws

DOUBLE = torch.float64


def test_forward_is_attention_over_the_key_and_the_sink() -> None:
    facts = draw(N=9, d=7, d_out=5, dtype=DOUBLE)
    memory = AttentionMemory(7, 5, 3, 4, inverse_temperature=2.0, dtype=DOUBLE).store(facts)
    query, key, value, output = (
        weight.detach().view(3, 4, -1)
        for weight in (memory.query, memory.key, memory.value, memory.output)
    )
    for z in facts.keys:
        tokens = torch.stack([z, memory.sink])
        values = torch.stack([z, torch.zeros_like(z)])
        answer = torch.zeros(5, dtype=DOUBLE)
        for h in range(3):
            scores = (tokens @ key[h].mT) @ (query[h] @ memory.sink) / 4**0.5
            attended = torch.softmax(2.0 * scores, dim=0) @ (values @ value[h].mT)
            answer += attended @ output[h]
        laws.close(memory(z[None])[0], answer)


@pytest.mark.parametrize("N", [5, 24, 48])
def test_exact_up_to_the_width(N: int) -> None:
    facts = draw(N=N, d=12, dtype=DOUBLE)
    memory = AttentionMemory(12, 12, 12, 4, dtype=DOUBLE).store(facts)
    laws.close(memory(facts.keys), facts.values, 1e-5)
    assert memory.counted_parameters == 12 * 4 * 24
    assert memory.learned_parameters == 12 * 4 * 12


def test_uniform_attention_is_one_matrix() -> None:
    facts = draw(N=100, d=12, dtype=DOUBLE)
    memory = AttentionMemory(12, 12, 12, 4, gating=False, dtype=DOUBLE).store(facts)
    linear = LinearMemory(12, 12, "pseudo-inverse", dtype=DOUBLE).store(facts)
    laws.close(memory(facts.keys), linear(facts.keys), 1e-5)
    assert (memory.attention(facts.keys) == 0.5).all()
    gated = AttentionMemory(12, 12, 12, 4, dtype=DOUBLE).store(facts)
    assert laws.error(gated, facts) < laws.error(memory, facts) / 2


def energy(heads: int, head_dim: int, N: int = 480, d: int = 24) -> float:
    """Cross-talk of the readout relative to its signal, by recalling one-hot outputs."""
    facts = draw(N=N, d=d, dtype=DOUBLE)
    onehot = Facts(facts.keys, torch.eye(N, dtype=DOUBLE), facts.association)
    memory = AttentionMemory(d, N, heads, head_dim, dtype=DOUBLE).store(onehot)
    kernel = memory(facts.keys).detach()
    signal = kernel.diagonal()
    return (kernel.square().sum(dim=1) / signal**2 - 1).mean().item()


@pytest.mark.parametrize(("heads", "head_dim"), [(192, 1), (48, 4), (24, 8), (16, 12)])
def test_only_the_number_of_features_matters(heads: int, head_dim: int) -> None:
    assert energy(heads, head_dim) == pytest.approx((480 - 192) / 192, rel=0.08)


def test_heads_wider_than_the_keys_waste_dimensions() -> None:
    assert energy(4, 48) > 2 * energy(24, 8)


def test_uniform_heads_do_not_store_in_rounding_errors():
    """Uniform heads are one matrix of rank d: more of them must not help in single precision."""
    facts = draw(N=70, d=32, seed=0)
    exact = draw(N=70, d=32, seed=0, dtype=torch.float64)
    wrong = {
        type_: errors(AttentionMemory(32, 32, 64, 4, gating=False, dtype=type_).store(drawn), drawn)
        for type_, drawn in ((torch.float32, facts), (torch.float64, exact))
    }
    assert wrong[torch.float32] == wrong[torch.float64] > 0
