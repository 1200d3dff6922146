"""Two names: ABBA and BABA, and subject and indirect object exchanged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.ioi import IOI
from experiments.tasks.two_name_ioi import TwoNameIOI


def at(tokens, positions):
    return tokens.gather(1, positions[:, None]).squeeze(1)


@settings(max_examples=40)
@given(st.integers(2, 30), st.integers(0, 99))
def test_the_answer_is_the_other_name_and_flips_with_the_subject(num_names, seed):
    task = TwoNameIOI(num_names=num_names)
    pairs = task.pairs(12, seed=seed)
    n1, n2, n3 = (at(pairs.clean, pairs.roles[role]) for role in ("n1", "n2", "n3"))
    baba = pairs.meta["format"] == 1
    assert torch.equal(n3, torch.where(baba, n1, n2))
    assert torch.equal(pairs.answer, torch.where(baba, n2, n1))
    assert torch.equal(pairs.corrupted_answer, n3)
    assert torch.equal(at(pairs.corrupted, pairs.roles["n3"]), pairs.answer)
    assert (pairs.changed.sum(dim=1) == 1).all()
    assert torch.equal(pairs.changed.long().argmax(dim=1), pairs.roles["n3"])
    assert (at(pairs.clean, pairs.out) == task.grammar.templates[0][-1]).all()
    assert torch.equal(pairs.candidates.sort().values, torch.stack([n1, n2], 1).sort().values)


def test_positions_and_words():
    task = TwoNameIOI(templates=(2,), formats=(1,))
    pairs = task.pairs(1, seed=0)
    assert [int(places[0]) for places in pairs.roles.values()] == [2, 4, 10, 14]
    words = task.words(pairs.clean[0])
    assert words[:4] == ["BOS", "When", words[10], "and"]
    assert words[5:8] == ["arrived", "at", "the"]
    assert words[-5:-2] == [words[10], "gave", "a"]
    # The vocabulary of the three-name task, so that one model can be asked both.
    assert task.grammar.vocabulary == IOI().grammar.vocabulary
    every = TwoNameIOI().pairs(100, seed=0).aligned()
    assert [int(places[0]) for places in every.roles.values()] == [3, 5, 11, 15]


def test_formats_and_templates_are_uniform():
    pairs = TwoNameIOI().pairs(2000, seed=0)
    joint = pairs.meta["format"] * 4 + pairs.meta["template"]
    assert chisquare(torch.bincount(joint, minlength=8)).pvalue > 1e-3


@settings(max_examples=20)
@given(st.integers(0, 99))
def test_training_prompts_end_with_the_name_that_comes_once(seed):
    task = TwoNameIOI()
    tokens, ends = task.sequences(20, seed=seed)
    for row, end in zip(tokens.tolist(), ends.tolist(), strict=True):
        n1, n2, n3 = [token for token in row[: end + 1] if token >= task.grammar.names[0]]
        assert {row[end + 1], n3} == {n1, n2}
        assert row[end + 2 :] == [0] * (len(row) - end - 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_names": 1}, "names_of_a_pair must be at most num_names"),
        ({"templates": (5,)}, "templates must be different numbers from 0 to 3"),
        ({"formats": (2,)}, "formats must be different numbers from 0 to 1"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TwoNameIOI(**change)
