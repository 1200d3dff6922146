"""Random facts: nested, of the stated distribution, and refused where they make no sense."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from memory.facts import Facts, draw

KINDS = ("sphere", "gaussian", "orthonormal", "onehot")


@given(
    few=st.integers(2, 60),
    more=st.integers(0, 60),
    d=st.integers(1, 130),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 9),
)
def test_fewer_facts_are_the_first_of_more(few, more, d, kind, seed):
    if kind in ("orthonormal", "onehot"):
        d += few + more
    small = draw(N=few, d=d, seed=seed, embedding=kind, dtype=torch.float64)
    large = draw(N=few + more, d=d, seed=seed, embedding=kind, dtype=torch.float64)
    assert torch.equal(small.keys, large.keys[:few])
    assert torch.equal(small.outputs, large.outputs[:few])
    assert torch.equal(small.association, large.association[:few])


@pytest.mark.parametrize("association", ["cyclic", "random"])
def test_associations_are_nested_too(association):
    small = draw(N=20, d=4, M=7, association=association)
    large = draw(N=50, d=4, M=7, association=association)
    assert torch.equal(small.association, large.association[:20])


def test_random_association_is_uniform():
    counts = np.bincount(draw(N=70_000, d=1, M=7, association="random").association, minlength=7)
    assert abs(counts - 10_000).max() < 5 * np.sqrt(10_000 * 6 / 7)


def test_sphere_is_isotropic_with_unit_rows():
    keys = draw(N=50_000, d=5, dtype=torch.float64).keys
    torch.testing.assert_close(keys.norm(dim=1), torch.ones(50_000, dtype=torch.float64))
    second = keys.mT @ keys / 50_000
    torch.testing.assert_close(second, torch.eye(5, dtype=torch.float64) / 5, atol=5e-3, rtol=0)


def test_gaussian_has_variance_one_over_d():
    keys = draw(N=50_000, d=5, embedding="gaussian", dtype=torch.float64).keys
    assert keys.var().item() == pytest.approx(1 / 5, rel=0.02)
    assert keys.norm(dim=1).std() > 0.1


def test_orthonormal_rows():
    facts = draw(N=6, d=9, embedding="orthonormal", dtype=torch.float64)
    for rows in (facts.keys, facts.outputs):
        torch.testing.assert_close(rows @ rows.mT, torch.eye(6, dtype=torch.float64))


def test_keys_and_outputs_are_independent_and_seeds_differ():
    facts, other = draw(N=9, d=9), draw(N=9, d=9, seed=1)
    assert not torch.equal(facts.keys, facts.outputs)
    assert not torch.equal(facts.keys, other.keys)


def test_types_see_the_same_facts():
    single, double = draw(N=9, d=9), draw(N=9, d=9, dtype=torch.float64)
    assert torch.equal(single.keys, double.keys.float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"N": 0}, "N must be a whole number"),
        ({"N": 5, "M": 1}, "M must be at least 2"),
        ({"N": 1}, "M must be at least 2"),
        ({"N": 5, "d": 0}, "d must be a whole number"),
        ({"N": 5, "embedding": "cube"}, "embedding must be one of"),
        ({"N": 5, "association": "nearest"}, "association must be one of"),
        ({"N": 5, "embedding": "orthonormal"}, "N must be at most d=4"),
        ({"N": 5, "d": 5, "d_out": 4, "embedding": "onehot"}, "M must be at most d=4"),
    ],
)
def test_bad_arguments_are_named(options, message):
    unchecked = inspect.unwrap(draw)  # words outside the type are for users without type checks
    with pytest.raises(ValueError, match=message):
        unchecked(**{"d": 4, **options})


@pytest.mark.parametrize(
    ("keys", "outputs", "association", "message"),
    [
        (torch.full((2, 3), torch.nan), torch.eye(2), [0, 1], "keys must be finite"),
        (torch.eye(2), torch.eye(2) / 0, [0, 1], "outputs must be finite"),
        (torch.eye(2), torch.eye(2), [0, 2], "outputs from 0 to M-1 = 1"),
        (torch.eye(2), torch.eye(2), [0, -1], "outputs from 0 to M-1 = 1"),
        (torch.eye(2)[:0], torch.eye(2), [], "keys must be an N x d matrix"),
        (torch.eye(2), torch.eye(2)[:1], [0, 0], "M >= 2"),
    ],
)
def test_impossible_facts_are_named(keys, outputs, association, message):
    with pytest.raises(ValueError, match=message):
        Facts(keys, outputs, torch.tensor(association, dtype=torch.int64))
