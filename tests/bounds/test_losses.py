"""Losses: range and Lipschitz constant, against the losses themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bounds.losses import Loss, binary_cross_entropy, cross_entropy, multiclass_margin, ramp
from tests.strategies import log_uniform

seeds = st.integers(0, 2**32 - 1)


def softmax_cross_entropy(z: np.ndarray) -> np.ndarray:
    """Loss of class 0 on logits (..., classes)."""
    return np.logaddexp.reduce(z, axis=-1) - z[..., 0]


def ball(rng: np.random.Generator, size: int, n: int, radius: float) -> np.ndarray:
    z = rng.normal(size=(size, n))
    z[:2] = 0
    z[0, 0], z[0, 1], z[1, 0], z[1, 1] = -1, 1, 1, -1  # the extreme directions
    z *= radius / np.linalg.norm(z, axis=-1, keepdims=True)
    return z * np.where(rng.random((size, 1)) < 0.7, 1, rng.random((size, 1)))


def assert_admissible(loss: Loss, values: np.ndarray, z: np.ndarray) -> None:
    assert np.all((values >= 0) & (values <= loss.range * (1 + 1e-12)))
    gaps = np.abs(values[:, None] - values)
    distances = np.linalg.norm(z[:, None] - z, axis=-1)
    assert np.all(gaps <= loss.lipschitz * distances * (1 + 1e-9) + 1e-12)


@given(log_uniform(1e-2, 30), seeds)
def test_binary_cross_entropy(bound, seed):
    z = np.append(np.random.default_rng(seed).uniform(-bound, bound, 50), [-bound, bound])
    loss = binary_cross_entropy(bound)
    assert_admissible(loss, np.logaddexp(0, -z), z[:, None])
    assert loss.range == pytest.approx(math.log1p(math.exp(bound)))  # attained


@given(st.integers(2, 12), log_uniform(1e-2, 30), seeds)
def test_cross_entropy(n_classes, bound, seed):
    z = ball(np.random.default_rng(seed), 50, n_classes, bound)
    loss = cross_entropy(n_classes=n_classes, output_bound=bound)
    assert_admissible(loss, softmax_cross_entropy(z), z)


@given(log_uniform(1e-2, 10), seeds)
def test_ramp(margin, seed):
    z = np.random.default_rng(seed).normal(scale=2, size=60)
    values = np.clip(1 - z / margin, 0, 1)
    assert_admissible(ramp(margin), values, z[:, None])
    assert np.all(values >= (z <= 0))


@given(log_uniform(1e-2, 10), st.integers(2, 6), seeds)
def test_multiclass_margin(margin, n_classes, seed):
    z = ball(np.random.default_rng(seed), 60, n_classes, 3.0)
    values = np.clip(1 - (z[:, 0] - z[:, 1:].max(-1)) / margin, 0, 1)
    assert_admissible(multiclass_margin(margin), values, z)
    assert np.all(values >= (z[:, 0] <= z[:, 1:].max(-1)))


def test_moves_and_limits():
    bounds = np.geomspace(1e-3, 1e3, 20)
    ranges = [binary_cross_entropy(float(b)).range for b in bounds]
    assert ranges == sorted(ranges)
    ranges = [cross_entropy(n_classes=k, output_bound=1.0).range for k in range(2, 30)]
    assert ranges == sorted(ranges)
    assert binary_cross_entropy(1e6).range == 1e6  # no overflow
    assert cross_entropy(n_classes=10, output_bound=1e6).range == pytest.approx(
        math.sqrt(2) * 1e6 + math.log(9)
    )
    assert cross_entropy(n_classes=2, output_bound=1e-9).range == pytest.approx(math.log(2))
    assert ramp(0.25).lipschitz == 4


# --- negative controls: constants that are too small are caught by the same check ---


def test_smaller_constants_fail():
    z = np.array([[-1.0, 1.0], [1.0, -1.0], [1e-4, -1e-4], [-0.99, 0.99]]) * 10
    values = softmax_cross_entropy(z)
    good = cross_entropy(n_classes=2, output_bound=float(np.linalg.norm(z[0])))
    assert_admissible(good, values, z)
    for wrong in (Loss("x", good.range / 1.1, good.lipschitz), Loss("x", good.range, 1.0)):
        with pytest.raises(AssertionError):
            assert_admissible(wrong, values, z)
