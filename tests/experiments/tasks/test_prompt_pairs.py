"""Pairs of prompts: what is refused, and swapping, doubling and aligning them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.tasks.greater_than import GreaterThan
from experiments.tasks.induction import Induction
from experiments.tasks.ioi import IOI
from experiments.tasks.prompt_pairs import (
    PairTask,
    PromptPairs,
    aligned_pairs,
    generator,
    joined,
)
from experiments.tasks.two_name_ioi import TwoNameIOI

TASKS = (IOI(), TwoNameIOI(), GreaterThan(), Induction())
TENSORS = ("clean", "corrupted", "answer", "corrupted_answer", "candidates")


def same(first, second):
    return (
        all(torch.equal(getattr(first, name), getattr(second, name)) for name in TENSORS)
        and first.roles.keys() == second.roles.keys()
        and all(torch.equal(at, second.roles[name]) for name, at in first.roles.items())
        and first.meta.keys() == second.meta.keys()
        and all(torch.equal(each, second.meta[name]) for name, each in first.meta.items())
    )


def made(**changed):
    """Two pairs over ten tokens, the second a token shorter."""
    values = {
        "clean": torch.tensor([[1, 5, 6, 2], [1, 7, 2, 0]]),
        "corrupted": torch.tensor([[1, 5, 8, 2], [1, 9, 2, 0]]),
        "answer": torch.tensor([6, 7]),
        "corrupted_answer": torch.tensor([8, 9]),
        "candidates": torch.tensor([[5, 6, 8], [7, 9, -1]]),
        "roles": {"name": torch.tensor([2, 1]), "out": torch.tensor([3, 2])},
        "meta": {"format": torch.tensor([0, 1])},
        "vocab_size": 10,
    }
    return PromptPairs(**(values | changed))


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10)
@given(count=st.integers(1, 20), seed=st.integers(0, 99))
def test_doubling_is_symmetric_and_swapping_twice_is_nothing(task, count, seed):
    pairs = task.pairs(count, seed=seed)
    assert isinstance(task, PairTask)
    assert len(pairs) == count
    assert same(pairs.swapped().swapped(), pairs)
    assert not same(pairs.swapped(), pairs)
    doubled = pairs.doubled()
    assert len(doubled) == 2 * count
    assert same(doubled[:count], pairs)
    assert same(doubled[count:], pairs.swapped())
    order = torch.cat([torch.arange(count, 2 * count), torch.arange(count)])
    assert same(doubled.swapped(), doubled[order])


@pytest.mark.parametrize("task", TASKS)
@settings(max_examples=10)
@given(count=st.integers(1, 30), seed=st.integers(0, 99))
def test_aligned_pairs_are_the_largest_group_with_equal_positions(task, count, seed):
    pairs = task.pairs(count, seed=seed)
    groups = {}
    for i in range(count):
        places = tuple(int(at[i]) for at in pairs.roles.values())
        groups.setdefault(places, []).append(i)
    aligned = pairs.aligned()
    assert len(aligned) == max(map(len, groups.values()))
    assert all(len(at.unique()) == 1 for at in aligned.roles.values())
    assert aligned.length == int(aligned.out[0]) + 1
    rows = torch.tensor(groups[tuple(int(at[0]) for at in aligned.roles.values())])
    assert torch.equal(aligned.clean, pairs.clean[rows, : aligned.length])
    assert torch.equal(aligned.answer, pairs.answer[rows])
    assert same(aligned.aligned(), aligned)


@pytest.mark.parametrize("task", TASKS[:3])
@settings(max_examples=10)
@given(count=st.integers(1, 20), seeds=st.tuples(st.integers(0, 99), st.integers(100, 199)))
def test_aligned_pairs_of_any_seed_have_the_same_positions(task, count, seeds):
    """However few: three of four templates agree."""
    first, second = (aligned_pairs(task, count, seed=seed) for seed in seeds)
    assert len(first) == len(second) == count
    assert first.length == second.length
    assert all(int(at[0]) == int(second.roles[role][0]) for role, at in first.roles.items())
    assert same(first.aligned(), first)


def test_what_is_never_aligned_is_said_with_the_number_drawn():
    with pytest.raises(ValueError, match=r"of 400 pairs of Induction.* 45 are needed"):
        aligned_pairs(Induction(), 45, seed=0)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_determined_by_their_seeds(task):
    assert same(task.pairs(20, seed=3), task.pairs(20, seed=3))
    tokens, ends = task.sequences(20, seed=3)
    again, ends_again = task.sequences(20, seed=3)
    assert torch.equal(tokens, again)
    assert torch.equal(ends, ends_again)
    assert not torch.equal(task.pairs(20, seed=3).clean, task.pairs(20, seed=4).clean)
    assert not torch.equal(tokens, task.sequences(20, seed=4)[0])
    prompts = tokens[:, : task.pairs(20, seed=3).length]
    assert not torch.equal(prompts, task.pairs(20, seed=3).clean)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_refuse_bad_counts_and_seeds(task):
    for sample in (task.pairs, task.sequences):
        with pytest.raises(ValueError, match=r"count must be a whole number from 1 .* got 0"):
            sample(0, seed=1)
        with pytest.raises(ValueError, match="seed must be a finite number >= 0, got -1"):
            sample(3, seed=-1)


def test_streams_of_tasks_and_kinds_are_independent():
    draws = {
        float(generator(task, count=1, seed=seed, kind=kind).random())
        for task in TASKS
        for seed in range(5)
        for kind in ("pairs", "sequences")
    }
    assert len(draws) == len(TASKS) * 5 * 2
    with pytest.raises(ValueError, match="kind must be one of 'pairs', 'sequences', got 'tests'"):
        generator(IOI(), count=1, seed=0, kind="tests")


def test_pairs_may_be_chosen_by_number_or_where_true():
    pairs = made()
    assert same(pairs[torch.tensor([1])], pairs[torch.tensor([False, True])])
    assert same(joined(pairs[:1], pairs[1:]), pairs)
    assert pairs[1:].changed.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    ("message", "changed"),
    [
        (
            "must be of equal length, got clean .2, 4. and corrupted .2, 3.",
            {"corrupted": torch.tensor([[1, 5, 8], [1, 9, 2]])},
        ),
        (
            "must be of equal length, but not those of pair 1",
            {"corrupted": torch.tensor([[1, 5, 8, 2], [1, 9, 2, 3]])},
        ),
        (
            "the answers of a pair must differ, but not those of pair 1",
            {"corrupted_answer": torch.tensor([8, 7])},
        ),
        (
            "the prompts of a pair must differ, but not those of pair 0",
            {"corrupted": torch.tensor([[1, 5, 6, 2], [1, 9, 2, 0]])},
        ),
        (
            "candidates must have the answer, but not those of pair 0",
            {"candidates": torch.tensor([[5, 3, 8], [7, 9, -1]])},
        ),
        (
            "candidates must have the corrupted answer, but not those of pair 1",
            {"candidates": torch.tensor([[5, 6, 8], [7, 6, -1]])},
        ),
        ("candidates must be from -1 to 9", {"candidates": torch.tensor([[6, 8, -2], [7, 9, 0]])}),
        ("clean must be from 0 to 7", {"vocab_size": 8, "clean": torch.full((2, 4), 8)}),
        ("roles must name the last token", {"roles": {"name": torch.tensor([2, 1])}}),
        ("roles must name the last token", {"roles": {"out": torch.tensor([3, -1])}}),
        ("from -1 to 3", {"roles": {"out": torch.tensor([3, 4])}}),
        ("one number for each of 2 pairs", {"meta": {"format": torch.tensor([0])}}),
        ("type int64", {"candidates": torch.tensor([[5, 6, 8], [7, 9, -1]], dtype=torch.int32)}),
        ("pairs x length matrix, not empty", {"clean": torch.zeros(0, 4, dtype=torch.int64)}),
    ],
)
def test_what_does_not_fit_is_named(message, changed):
    pairs = made()
    for name, value in changed.items():
        # Not by `made`, where the types already refuse unequal shapes.
        object.__setattr__(pairs, name, value)
    with pytest.raises(ValueError, match=message):
        pairs.__post_init__()


def test_a_difference_that_stands_in_the_padding_is_no_pair():
    """Negative control: the same tokens are a pair where they belong to the prompt."""
    values = {
        "clean": torch.tensor([[1, 5, 6, 3]]),
        "corrupted": torch.tensor([[1, 5, 8, 4]]),
        "answer": torch.tensor([6]),
        "corrupted_answer": torch.tensor([8]),
        "candidates": torch.tensor([[6, 8]]),
        "meta": {},
    }
    made(**values, roles={"out": torch.tensor([3])})
    with pytest.raises(ValueError, match="equal length"):
        made(**values, roles={"out": torch.tensor([2])})


def test_the_pairs_stay_as_they_were_made():
    pairs = made()
    before = replace(pairs, clean=pairs.clean.clone())
    pairs.doubled()
    pairs.aligned()
    assert same(pairs, before)
