"""Metrics of pairs against their definitions written as loops, and what wrong ones would give."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.logit_difference import (
    accuracy,
    candidate_accuracy,
    logit_difference,
    normalised,
    pair_accuracy,
    relative_probability,
)
from experiments.tasks.induction import Induction
from experiments.tasks.ioi import IOI

TASKS = (IOI(), Induction(vocab_size=20, length=8))


runs = st.fixed_dictionaries(
    {
        "task": st.sampled_from(TASKS),
        "count": st.integers(1, 6),
        "copies": st.sampled_from(((), (1,), (3,))),
        "scale": st.sampled_from((0.1, 1.0, 30.0)),
        "seed": st.integers(0, 99),
    }
)


def made(*, task, count, copies, scale, seed):
    """Pairs, and logits for no, one or three copies of them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*copies, count, task.vocab_size)
    logits = torch.randn(shape, dtype=torch.float64, generator=generator)
    return task.pairs(count, seed=seed), logits * scale


@settings(max_examples=40)
@given(runs)
def test_metrics_are_what_their_definitions_say(run):
    pairs, logits = made(**run)
    found = [
        metric(logits, pairs).flatten(0, -2) if logits.ndim == 3 else metric(logits, pairs)[None]
        for metric in (
            logit_difference,
            pair_accuracy,
            candidate_accuracy,
            accuracy,
            relative_probability,
        )
    ]
    for copy, rows in enumerate(logits.reshape(-1, *logits.shape[-2:]).tolist()):
        for i, z in enumerate(rows):
            right, wrong = int(pairs.answer[i]), int(pairs.corrupted_answer[i])
            among = [int(token) for token in pairs.candidates[i] if token >= 0]
            expected = (
                z[right] - z[wrong],
                z[right] > z[wrong],
                max(among, key=lambda token, z=z: z[token]) == right,
                max(range(len(z)), key=lambda token, z=z: z[token]) == right,
                1 / sum(math.exp(z[token] - z[right]) for token in among),
            )
            for values, value in zip(found, expected, strict=True):
                assert values[copy, i].item() == pytest.approx(value, rel=1e-9, abs=1e-12)


@settings(max_examples=40)
@given(runs)
def test_right_of_all_is_right_of_the_candidates_is_right_of_the_pair(run):
    pairs, logits = made(**run)
    everywhere, names, pair = (
        metric(logits, pairs) for metric in (accuracy, candidate_accuracy, pair_accuracy)
    )
    assert (everywhere <= names).all()
    assert (names <= pair).all()
    assert (logit_difference(logits, pairs) == -logit_difference(logits, pairs.swapped())).all()
    assert (names | (relative_probability(logits, pairs) <= 0.5)).all()
    # A shift of all logits says nothing.
    shifted = relative_probability(logits + 100, pairs)
    assert torch.allclose(shifted, relative_probability(logits, pairs), rtol=1e-9)


def test_a_model_that_prefers_nothing_is_not_accurate():
    """Negative control: with >= instead of > every candidate would be right."""
    pairs = IOI().pairs(8, seed=0)
    flat = torch.zeros(8, 58)
    assert not candidate_accuracy(flat, pairs).any()
    assert not pair_accuracy(flat, pairs).any()
    counts = (pairs.candidates >= 0).sum(dim=1)
    assert torch.allclose(relative_probability(flat, pairs), 1 / counts)


finite = st.floats(-50, 50)


@settings(max_examples=60)
@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5))
def test_normalised_is_0_for_the_corrupted_and_plus_or_minus_1_for_the_clean_run(values):
    patched, clean, corrupted = torch.tensor(values, dtype=torch.float64).T
    differ = (clean - corrupted).abs() > 1e-9
    for absolute in (True, False):
        assert (normalised(corrupted, clean, corrupted, absolute=absolute) == 0).all()
    sign = torch.where(clean > corrupted, 1.0, -1.0).double()
    own = normalised(clean, clean, corrupted)
    assert torch.allclose(own[differ], sign[differ])
    signed = normalised(clean, clean, corrupted, absolute=False)
    assert torch.allclose(signed[differ], torch.ones(int(differ.sum())).double())
    # The two differ in nothing but this sign, and nothing is clipped.
    both = [normalised(patched, clean, corrupted, absolute=a)[differ] for a in (True, False)]
    assert torch.allclose(both[0], both[1] * sign[differ])
    equal = normalised(patched, clean, clean)
    assert torch.equal(equal, patched - clean)


def test_normalised_golden_values():
    """(LD - LD_corrupted) / |LD_clean - LD_corrupted|, by hand.

    clean 4, corrupted -4, span 8: patched 6 -> 10/8, 0 -> 4/8, -8 -> -4/8.
    clean -1, corrupted 3, span 4: patched -3 (more wrong) -> -6/4 with the absolute value, and
    +6/4, a gain, without. That is what the absolute value is there for.
    """
    clean, corrupted = torch.tensor([4.0, -1.0]), torch.tensor([-4.0, 3.0])
    patched = torch.tensor([[6.0, -3.0], [0.0, 1.0], [-8.0, 3.0]])
    expected = torch.tensor([[1.25, -1.5], [0.5, -0.5], [-0.5, 0.0]])
    assert torch.equal(normalised(patched, clean, corrupted), expected)
    without = normalised(patched, clean, corrupted, absolute=False)
    assert torch.equal(without, expected * torch.tensor([1.0, -1.0]))
    assert not torch.equal(without, expected)


def test_the_mean_of_ratios_is_not_the_ratio_of_means():
    """Negative control: normalising happens pair by pair, before any mean."""
    clean, corrupted = torch.tensor([10.0, 1.0]), torch.tensor([0.0, 0.0])
    patched = torch.tensor([10.0, 0.0])
    assert normalised(patched, clean, corrupted).mean() == 0.5
    assert patched.mean() / clean.mean() == pytest.approx(10 / 11)


def test_a_candidate_that_is_missing_is_nobody():
    """Negative control: -1 stands for no token, not for the last one of the vocabulary."""
    pairs = IOI().pairs(40, seed=1)
    three = pairs[(pairs.candidates < 0).any(dim=1)]
    logits = torch.zeros(len(three), 58)
    logits[:, -1] = 50.0
    logits[torch.arange(len(three)), three.answer] = 10.0
    elsewhere = (three.candidates != 57).all(dim=1)
    assert elsewhere.any()
    assert candidate_accuracy(logits, three)[elsewhere].all()
    assert (relative_probability(logits, three)[elsewhere] > 0.99).all()
    assert not accuracy(logits, three)[elsewhere].any()
