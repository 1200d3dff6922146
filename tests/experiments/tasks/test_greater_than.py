"""Greater than: which years are right, what is corrupted, and how ends are drawn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.greater_than import GreaterThan


def year(task, tokens):
    return tokens - (task.vocab_size - task.num_years)


@settings(max_examples=40)
@given(st.integers(4, 100), st.integers(0, 99))
def test_answers_are_above_the_start_and_wrong_ones_are_not(num_years, seed):
    task = GreaterThan(num_years=num_years)
    pairs = task.pairs(20, seed=seed)
    clean, corrupted = pairs.clean.T, pairs.corrupted.T
    start = year(task, clean[8])
    assert torch.equal(start, pairs.meta["start"])
    assert (start >= 2).all()
    assert (year(task, corrupted[8]) == 1).all()
    assert (pairs.changed.sum(dim=1) == 1).all()
    answer, other = year(task, pairs.answer), year(task, pairs.corrupted_answer)
    assert ((answer > start) & (answer < num_years)).all()
    assert ((other > 1) & (other <= start)).all()
    assert torch.equal(clean[pairs.roles["century"][0]], clean[pairs.out[0]])
    assert torch.equal(pairs.candidates, torch.stack([pairs.answer, pairs.corrupted_answer], 1))


def test_a_prompt_in_words():
    task = GreaterThan()
    pairs = task.pairs(1, seed=0)
    words = task.words(pairs.clean[0])
    noun, century, start = (words[int(pairs.roles[r][0])] for r in ("noun", "century", "start"))
    assert " ".join(words) == (
        f"BOS The {noun} lasted from the year {century} {start} to the year {century}"
    )
    assert start == f"{int(pairs.meta['start'][0]):02}"
    assert task.vocab_size == 8 + 8 + 8 + 100


def test_the_logit_difference_of_a_model_that_is_right_is_large_and_then_0():
    """All right ends are equally likely, as in the training data: what the pairs promise."""
    task = GreaterThan(num_years=20)
    pairs = task.pairs(50, seed=0)
    years = torch.arange(task.vocab_size) - (task.vocab_size - 20)
    rows = torch.arange(50)
    for tokens, least in ((pairs.clean, 10.0), (pairs.corrupted, 0.0)):
        logits = torch.where(years > year(task, tokens[:, 8])[:, None], 10.0, 0.0)
        difference = logits[rows, pairs.answer] - logits[rows, pairs.corrupted_answer]
        assert (difference == least).all()


def test_starts_and_ends_are_uniform():
    task = GreaterThan(num_years=12)
    pairs = task.pairs(4000, seed=0)
    assert chisquare(torch.bincount(pairs.meta["start"])[2:11]).pvalue > 1e-3
    at_five = year(task, pairs.answer)[pairs.meta["start"] == 5]
    assert chisquare(torch.bincount(at_five, minlength=12)[6:]).pvalue > 1e-3
    at_five = year(task, pairs.corrupted_answer)[pairs.meta["start"] == 5]
    assert chisquare(torch.bincount(at_five, minlength=6)[2:]).pvalue > 1e-3


def test_training_spans_end_after_they_began_and_begin_in_01_too():
    task = GreaterThan(num_years=12)
    tokens, ends = task.sequences(4000, seed=0)
    assert (ends == 12).all()
    assert tokens.shape == (4000, 14)
    start, end = year(task, tokens[:, 8]), year(task, tokens[:, 13])
    assert ((end > start) & (end < 12)).all()
    assert chisquare(torch.bincount(start, minlength=11)[1:]).pvalue > 1e-3
    assert chisquare(torch.bincount(end[start == 1], minlength=12)[2:]).pvalue > 1e-3


@pytest.mark.parametrize("num_years", [3, 101])
def test_bad_arguments_are_named(num_years):
    with pytest.raises(ValueError, match=f"num_years=.*{num_years}"):
        GreaterThan(num_years=num_years)
