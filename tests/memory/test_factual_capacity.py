"""Predicted errors against samples of the law they describe, and bounds that hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from memory.factual_capacity import (
    attention_only_dimension,
    attention_only_error,
    attention_only_failure,
    attention_with_mlp_error,
    independent_features,
    readout_error,
)
from tests.laws import as_users_call


def sampled(R: int, D: int, d: int, draws: int) -> tuple[float, float]:
    """Share of the facts of one subject that fail, and its standard error, by drawing outputs."""
    rng = torch.Generator().manual_seed(0)
    u = torch.randn(draws, R * D, d, generator=rng, dtype=torch.float64)
    u = torch.nn.functional.normalize(u, dim=-1)
    a = torch.randint(D, (draws, R), generator=rng) + D * torch.arange(R)
    of_subject = u.gather(1, a[..., None].expand(-1, -1, d)).sum(dim=1)
    out = of_subject[:, None] + u.view(draws, R, D, d).sum(dim=2)
    scores = out @ u.mT
    right = scores.gather(2, a[..., None])
    wrong = (scores.scatter(2, a[..., None], -torch.inf) >= right).any(dim=2).double().mean(dim=1)
    return wrong.mean().item(), wrong.std().item() / draws**0.5


@pytest.mark.parametrize(("R", "D", "d"), [(8, 4, 64), (4, 4, 32), (2, 2, 12), (3, 1, 16)])
def test_error_of_attention_is_that_of_drawn_outputs(R, D, d):
    found, deviation = sampled(R, D, d, 3000)
    predicted = attention_only_error(R=R, D=D, d=d)
    assert abs(found - predicted) < 0.05 * found + 4 * deviation
    if R * D > 4:  # control: one more answer to confuse it with is another law
        other = attention_only_error(R=R + 1, D=D + 1, d=d)
        assert abs(found - other) > 0.05 * found + 4 * deviation


def test_quadrature_has_converged():
    for R, D, d in ((8, 4, 64), (16, 8, 512), (2, 1, 8)):
        coarse, fine = (attention_only_error(R=R, D=D, d=d, refine=k) for k in (1, 4))
        assert coarse == pytest.approx(fine, rel=1e-5)


def test_error_moves_as_it_should():
    errors = [attention_only_error(R=8, D=4, d=d) for d in (16, 32, 64, 128, 256)]
    assert errors == sorted(errors, reverse=True)
    errors = [attention_only_error(R=R, D=4, d=64) for R in (2, 4, 8, 16)]
    assert errors == sorted(errors)


@pytest.mark.parametrize(("S", "R", "D"), [(16, 8, 4), (32, 32, 8), (2, 2, 1), (1, 1, 2)])
def test_dimension_is_the_smallest_that_the_bound_allows(S, R, D):
    found = attention_only_dimension(S=S, R=R, D=D, delta=0.1)
    found.audit(digits=30)
    d = int(float(found))
    assert float(attention_only_failure(S=S, R=R, D=D, d=d)) <= 0.1
    assert float(attention_only_failure(S=S, R=R, D=D, d=d - 1)) > 0.1
    attention_only_failure(S=S, R=R, D=D, d=d).audit(digits=30)
    assert S * R * attention_only_error(R=R, D=D, d=max(3, d)) <= 0.1


def test_the_leading_order_is_reached():
    for size, tolerance in ((8, 0.2), (64, 0.05), (512, 0.01)):
        found = attention_only_dimension(S=size, R=size, D=size, delta=0.01)
        assert float(found) == pytest.approx(found["leading"], rel=tolerance)


def test_features_are_counted():
    def count(**sizes):
        found = independent_features(**(dict(S=64, R=8, d=96) | sizes))
        found.audit(digits=30)
        return float(found)

    assert count(width=300, activation="relu") == 300
    assert count(width=3000, activation="relu") == 512
    assert count(width=600, activation="quadratic") == 300
    assert count(width=3000, activation="quadratic") == 48 * 8
    with pytest.raises(ValueError, match="width must be even"):
        count(width=3, activation="quadratic")
    with as_users_call(), pytest.raises(ValueError, match="activation must be one of"):
        count(width=3, activation="gelu")


def test_generic_readout_error():
    sizes = dict(S=32, R=8, D=4, d=96, activation="relu")
    errors = [attention_with_mlp_error(width=width, **sizes) for width in (16, 64, 128, 256)]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] == pytest.approx(0.766, abs=0.01)
    assert errors[-1] == 0


def drawn_errors(K: np.ndarray, relation: np.ndarray, R: int, D: int, d: int, draws: int) -> float:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(draws):
        u = rng.standard_normal((R * D, d))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        answer = rng.integers(D, size=len(K)) + D * relation
        scores = K.T @ u[answer] @ u.T
        rows = np.arange(len(K))
        right = scores[rows, answer].copy()
        scores[rows, answer] = -np.inf
        found.append(np.mean(scores.max(axis=1) >= right))
    return float(np.mean(found))


def kernel(features: int, S: int, R: int, shared: float) -> np.ndarray:
    """Hat matrix of random features, part of which tell only the relation."""
    rng = np.random.default_rng(1)
    own = rng.standard_normal((S, R, features))
    phi = (own + shared * rng.standard_normal((1, R, features))).reshape(S * R, features)
    return phi @ np.linalg.pinv(phi)


@pytest.mark.parametrize("shared", [0.0, 2.0])
@pytest.mark.parametrize("features", [8, 20, 40])
def test_error_of_a_known_kernel(features, shared):
    S, R, D, d = 16, 4, 4, 24
    K, relation = kernel(features, S, R, shared), np.tile(np.arange(R), S)
    found = drawn_errors(K, relation, R, D, d, 400)
    predicted = readout_error(K, relation, R=R, D=D, d=d)
    assert predicted == pytest.approx(found, abs=0.03)
    if shared and features == 8:  # control: relations that are not those of the kernel
        shuffled = np.random.default_rng(0).permutation(relation)
        assert abs(readout_error(K, shuffled, R=R, D=D, d=d) - found) > 0.05
    asked = np.array([3, 40, 9])
    each = [readout_error(K[:, [x]], relation, R=R, D=D, d=d, asked=np.array([x])) for x in asked]
    some = readout_error(K[:, asked], relation, R=R, D=D, d=d, asked=asked)
    assert some == pytest.approx(float(np.mean(each)), rel=1e-12)


def test_exact_kernels_make_no_error():
    relation = np.tile(np.arange(4), 4)
    assert readout_error(np.eye(16), relation, R=4, D=4, d=24) < 1e-12


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: attention_only_error(R=1, D=1, d=8), "at least 2 answers"),
        (lambda: attention_only_error(R=2, D=2, d=2), "d must be at least 3, got 2"),
        (lambda: attention_only_error(R=2, D=0, d=8), "D must be a whole number"),
        (lambda: attention_only_dimension(S=2, R=2, D=2, delta=0.0), "delta must be a number"),
        (
            lambda: readout_error(np.ones((2, 3)), np.zeros(2, dtype=int), R=2, D=2, d=8),
            "K must have a row for each of 2 facts",
        ),
        (
            lambda: independent_features(S=2, R=2, d=1, width=2, activation="relu"),
            "d must be at least 2",
        ),
    ],
)
def test_bad_input_is_named(call, named):
    with pytest.raises(ValueError, match=named):
        call()
