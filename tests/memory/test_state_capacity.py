"""Predicted capacities of states against drawn states, and chosen embeddings that hold all."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.state_capacity import (
    additive_error,
    additive_squared_error,
    chosen_state_facts,
    crossing,
)

SIZES = [
    (6, 16, 4, 32, 0.15), (12, 16, 8, 32, 0.15), (12, 32, 8, 16, 0.15), (4, 32, 2, 32, 0.25)
]  # fmt: skip


def unit(draws: int, count: int, size: int, rng: torch.Generator) -> torch.Tensor:
    x = torch.randn(draws, count, size, generator=rng, dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=-1)


def sampled(N: int, M: int, n: int, p: int, heads: int = 1) -> tuple[float, float]:
    """Share of wrong answers and its standard error, of drawn states."""
    draws, rng, scores = 2000, torch.Generator().manual_seed(0), torch.zeros(())
    outputs = unit(draws, M, p, rng)
    for part in outputs.split(p // heads, dim=-1):
        keys = unit(draws, N, n, rng)
        state = part[:, :N].mT @ keys
        scores = scores + keys @ state.mT @ part.mT
    wrong = (scores.argmax(-1) != torch.arange(N)).double().mean(dim=1)
    return wrong.mean().item(), wrong.std().item() / draws**0.5


@pytest.mark.parametrize(("N", "M", "n", "p", "tolerance"), SIZES)
def test_additive_error_is_that_of_drawn_states(N, M, n, p, tolerance):
    found, deviation = sampled(N, M, n, p)
    predicted = additive_error(N=N, M=M, key_dimension=n, value_dimension=p)
    assert abs(found - predicted) < tolerance * found + 4 * deviation
    # Control: a state of half the size.
    half = additive_error(N=N, M=M, key_dimension=n // 2, value_dimension=p)
    assert abs(found - half) > tolerance * found + 4 * deviation


@pytest.mark.parametrize(("N", "n", "heads"), [(6, 4, 4), (8, 4, 8), (8, 2, 16)])
def test_heads_average_the_overlaps_of_their_keys(N, n, heads):
    found, deviation = sampled(N, 16, n, 32, heads=heads)
    predicted, single = (
        additive_error(N=N, M=16, key_dimension=n, value_dimension=32, heads=h) for h in (heads, 1)
    )
    assert abs(found - predicted) < found / 3 + 4 * deviation
    assert abs(found - single) > found / 3 + 4 * deviation


def test_errors_move_as_they_should():
    error = partial(additive_error, N=8, M=32, key_dimension=8, value_dimension=32)
    assert error(N=4) < error() < error(N=16)
    assert error(key_dimension=16) < error() < error(key_dimension=4)
    assert error(value_dimension=64) < error() < error(value_dimension=16)
    assert error(M=16) < error() < error(M=64)


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=8),
    st.floats(0.05, 0.95),
)
def test_crossing_is_where_the_line_through_the_accuracies_falls_below(shares, accuracy):
    found = crossing(lambda N: shares[N - 1], limit=len(shares), accuracy=accuracy)
    at = np.arange(len(shares) + 1)
    lines = np.append(1.0, shares)
    if found == len(shares):
        assert min(shares[:-1], default=1.0) >= accuracy
    else:
        assert np.interp(found, at, lines) == pytest.approx(accuracy, abs=1e-9)
        assert (np.interp(np.linspace(0, found, 50), at, lines) >= accuracy - 1e-9).all()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((1.0, 0.8), 1.5), ((0.6,), 0.25), ((0.95, 0.95), 2.0), ((1.0, 0.5, 1.0), 1.2)],
)
def test_crossing_golden(shares, expected):
    """(1.0 - 0.9)/(1.0 - 0.8) = 1/2 behind 1; (1 - 0.9)/(1 - 0.6) behind 0; never; 0.1/0.5."""
    found = crossing(lambda N: shares[N - 1], limit=len(shares), accuracy=0.9)
    assert found == pytest.approx(expected)


@given(M=st.integers(2, 12), data=st.data())
def test_chosen_embeddings_hold_every_choice_of_facts(M, data):
    """A simplex of outputs and keys on a half circle, or orthonormal keys and outputs on it."""
    K = data.draw(st.integers(1, 12))
    bound = chosen_state_facts(K=K, M=M, key_dimension=2, value_dimension=max(2, M - 1))
    bound.audit(digits=20)
    N = int(float(bound))
    assert N == min(K, M)
    simplex = np.eye(M) - 1 / M  # spans M - 1 dimensions
    angles = np.pi * np.arange(K) / K
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    turn = 2 * np.pi * np.arange(M) / M
    for keys, outputs in (
        (circle, simplex),
        (np.eye(K), np.stack([np.cos(turn), np.sin(turn)], axis=1)),
    ):
        rng = np.random.default_rng(data.draw(st.integers(0, 99)))
        k, y = rng.permutation(K)[:N], rng.permutation(M)[:N]
        scores = keys[k] @ (keys[k].T @ outputs[y]) @ outputs.T
        others = scores.copy()
        others[np.arange(N), y] = -np.inf
        assert (scores[np.arange(N), y] > others.max(axis=1) + 1e-9).all()


def test_without_room_only_one_fact_is_sure():
    def facts(**sizes):
        return float(chosen_state_facts(K=8, M=16, **sizes))

    assert facts(key_dimension=2, value_dimension=15) == 8
    assert facts(key_dimension=8, value_dimension=2) == 8
    assert facts(key_dimension=7, value_dimension=14) == 1
    assert facts(key_dimension=1, value_dimension=15) == 1


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: additive_error(N=9, M=8, key_dimension=4, value_dimension=8), "N"),
        (lambda: chosen_state_facts(K=4, M=1, key_dimension=4, value_dimension=8), "M"),
        (lambda: chosen_state_facts(K=4, M=4, key_dimension=4, value_dimension=1), "value_dim"),
        (lambda: crossing(lambda N: 1.0, limit=0, accuracy=0.9), "limit"),
        (lambda: crossing(lambda N: 1.0, limit=2, accuracy=1.0), "accuracy"),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()


@pytest.mark.parametrize(("N", "n"), [(1, 4), (4, 4), (9, 16)])
def test_squared_error_is_that_of_the_best_multiple_of_what_is_read(N, n):
    rng = torch.Generator().manual_seed(0)
    keys, values = unit(4000, N, n, rng), unit(4000, N, 8, rng)
    read = (keys[:, :1] @ keys.mT @ values)[:, 0]
    value = values[:, 0]
    factor = (read * value).sum() / read.square().sum()
    found = ((factor * read - value).square().sum() / value.square().sum()).item()
    assert found == pytest.approx(additive_squared_error(N=N, key_dimension=n), abs=0.02)
    if N > 1:  # Control: without the factor the error is larger.
        plain = ((read - value).square().sum() / value.square().sum()).item()
        assert plain > found + 0.05
