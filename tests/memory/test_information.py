"""Counting bits: enumeration, monotone in everything, saturated by codes, never beaten."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from memory.information import (
    BITS_PER_PARAMETER,
    BITS_PER_PARAMETER_SOURCE,
    bits_needed,
    bits_per_parameter,
    facts_limit,
    factual_recall_bits,
)
from tests.strategies import log_uniform

sizes = log_uniform(1, 1e9).map(round)


def maps(N, M, assignment):
    if assignment == "any":
        return list(itertools.product(range(M), repeat=N))
    return list(itertools.permutations(range(M), N))


# --- agrees ---


@pytest.mark.parametrize(("N", "M"), [(2, 2), (3, 3), (2, 5), (4, 6)])
def test_enumeration(N, M):
    for assignment in ("any", "injective"):
        exact = math.log2(len(maps(N, M, assignment)))
        assert float(bits_needed(N=N, M=M, assignment=assignment)) == pytest.approx(exact)


def test_golden():
    """log2 100! = 524.76499...; 10 keys of 4 outputs, 10 % errors: each costs
    2 - h2(0.1) - 0.1 log2 3 = 2 - 0.468996 - 0.158496."""
    permutation = bits_needed(N=100, M=100, assignment="injective")
    assert float(permutation) == pytest.approx(524.7649932900597, rel=1e-14)
    rate = bits_needed(N=10, M=4, error=0.1)
    assert float(rate) == pytest.approx(13.725081563, rel=1e-9)
    density = bits_per_parameter(N=100, M=100, parameters=378, assignment="injective")
    assert float(density) == pytest.approx(1.388267, rel=1e-6)
    # Half of all maps need one bit less.
    assert float(bits_needed(N=100, M=2, delta=0.5)) == pytest.approx(99)


@settings(max_examples=40)
@given(sizes, st.integers(0, 10**12), st.floats(0, 0.5), st.sampled_from(["any", "injective"]))
def test_audited_and_certified(N, more, error, assignment):
    bounds = [bits_needed(N=N, M=N + more + 1, assignment=assignment, error=error, delta=0.1)]
    bounds.append(
        bits_per_parameter(N=N, M=N + more + 1, parameters=17, assignment=assignment, error=error)
    )
    bounds.append(facts_limit(bits=1.5 * N, M=more + 2, error=min(error, 0.4)))
    if error < 0.2:
        bounds.append(facts_limit(bits=1.5 * N, error=round(error, 3)))
    for bound in bounds:
        assert bound.audit().agrees, str(bound.audit())
        assert bound.certify().agrees


def test_large_sets_of_outputs_do_not_cancel():
    for N, M in ((1, 10**15), (7, 2**53), (40, 10**4), (10**4, 10**12)):
        with mp.workdps(60):
            exact = (mp.loggamma(mpf(M) + 1) - mp.loggamma(mpf(M - N) + 1)) / mp.log(2)
        assert float(bits_needed(N=N, M=M, assignment="injective")) == pytest.approx(
            float(exact), rel=1e-14
        )


# --- moves ---


@settings(max_examples=40)
@given(st.integers(1, 10**6), st.integers(2, 10**6), st.floats(0, 0.4))
def test_monotone(N, M, error):
    here = float(bits_needed(N=N, M=M, error=error))
    assert float(bits_needed(N=N + 1, M=M, error=error)) >= here
    assert float(bits_needed(N=N, M=M + 1, error=error)) >= here
    assert float(bits_needed(N=N, M=M, error=error + 0.05)) <= here
    assert float(bits_needed(N=N, M=M, error=error, delta=0.3)) <= here


@settings(max_examples=40)
@given(log_uniform(1, 1e9), st.integers(2, 10**6))
def test_limit_inverts_need(bits, M):
    facts = int(float(facts_limit(bits=bits, M=M)))
    if facts:
        assert float(bits_needed(N=facts, M=M)) <= bits * (1 + 1e-11)
    assert float(bits_needed(N=facts + 1, M=M)) > bits * (1 - 1e-11)
    N = int(float(facts_limit(bits=bits)))
    assert float(bits_needed(N=N, M=N, assignment="injective")) <= bits * (1 + 1e-11)
    more = bits_needed(N=N + 1, M=N + 1, assignment="injective")
    assert float(more) > bits * (1 - 1e-11)


# --- limits ---


def test_guessing_needs_nothing():
    assert float(bits_needed(N=1000, M=4, error=0.75)) == pytest.approx(0, abs=1e-9)
    assert float(bits_needed(N=5, M=1)) == 0
    assert float(facts_limit(bits=1.0)) == 2
    assert float(facts_limit(bits=0.5)) == 1


# --- holds ---


@pytest.mark.parametrize(
    ("N", "M", "k", "assignment"),
    [
        (3, 2, 1, "any"),
        (4, 3, 1, "any"),
        (3, 4, 1, "any"),
        (4, 4, 2, "any"),
        (3, 3, 1, "injective"),
        (4, 4, 2, "injective"),
        (3, 4, 1, "injective"),
    ],
)
def test_no_set_of_answers_covers_with_fewer_bits(N, M, k, assignment):
    """A greedy code of answer tables that covers every map up to k errors is never below."""
    everything = np.array(maps(N, M, assignment))
    uncovered, words = everything, 0
    candidates = np.array(maps(N, M, "any"))
    while len(uncovered):
        close = (candidates[:, None, :] != uncovered[None]).sum(-1) <= k
        best = close.sum(1).argmax()
        uncovered, words = uncovered[~close[best]], words + 1
    needed = bits_needed(N=N, M=M, assignment=assignment, error=min(k / N, 1 - 1 / M))
    assert float(needed) <= math.log2(words) + 1e-9


def test_control_without_the_ball_the_bound_is_beaten():
    """Three keys, two outputs, one error: the tables 000 and 111 cover all eight maps."""
    assert float(bits_needed(N=3, M=2, error=1 / 3)) <= 1
    assert 3 * (1 - 1 / 3) * math.log2(2) > 1  # what counting only the right answers would claim


def test_reference_line():
    assert BITS_PER_PARAMETER == 2
    assert BITS_PER_PARAMETER_SOURCE.key == "allenzhu2024knowledge"


@pytest.mark.parametrize(
    "call",
    [
        lambda: bits_needed(N=3, M=2, assignment="injective"),
        lambda: bits_needed(N=3, M=2, error=0.6),
        lambda: bits_needed(N=3, M=2, delta=1.0),
        lambda: bits_needed(N=0, M=2),
        lambda: facts_limit(bits=10.0, M=1),
        lambda: facts_limit(bits=10.0, M=2, error=0.5),
        lambda: facts_limit(bits=10.0, error=1.0),
        lambda: facts_limit(bits=0.0),
    ],
)
def test_refuses(call):
    with pytest.raises(ValueError, match=r"must|no information"):
        call()


# --- factual recall ---


def test_tables_of_factual_recall_are_counted():
    for S, R, D in ((1, 2, 2), (2, 1, 3), (2, 2, 3)):
        tables = math.log2(len(list(itertools.product(range(D), repeat=S * R))))
        assert float(factual_recall_bits(S=S, R=R, D=D)) == pytest.approx(tables)
    blocks = {
        tuple(sorted(order[:2])) for order in itertools.permutations(range(4))
    }  # the answers of the first of two relations with two answers each
    whole = factual_recall_bits(S=3, R=2, D=2, partition=True)
    assert float(whole) == pytest.approx(6 + math.log2(len(blocks)))
    assert whole["blocks"] == pytest.approx(math.log2(6))


@given(st.integers(1, 10**4), st.integers(1, 500), st.integers(2, 500), st.floats(0, 0.5))
@settings(max_examples=40)
def test_factual_recall_is_any_map_into_the_blocks(S, R, D, error):
    found = factual_recall_bits(S=S, R=R, D=D, error=error)
    assert found.audit().agrees
    assert float(found) == pytest.approx(float(bits_needed(N=S * R, M=D, error=error)), rel=1e-12)
    assert factual_recall_bits(S=S, R=R, D=D, partition=True).audit().agrees
    # Control: to choose among all answers costs more than to choose in a block.
    if R > 1:
        assert float(found) < float(bits_needed(N=S * R, M=R * D, error=error))


def test_guessing_in_the_block_needs_no_bits():
    assert float(factual_recall_bits(S=9, R=3, D=4, error=0.75)) == pytest.approx(0, abs=1e-12)
    assert float(factual_recall_bits(S=9, R=3, D=1)) == 0


def test_factual_recall_names_what_is_wrong():
    with pytest.raises(ValueError, match="error must be at most 1 - 1/M"):
        factual_recall_bits(S=2, R=2, D=2, error=0.6)
    with pytest.raises(ValueError, match="error must be 0 where the partition"):
        factual_recall_bits(S=2, R=2, D=2, error=0.1, partition=True)
    with pytest.raises(ValueError, match="S must be a whole number"):
        factual_recall_bits(S=0, R=2, D=2)
