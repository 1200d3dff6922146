"""Induction: what follows the first A follows the second."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.induction import BOS, FORMATS, Induction


@st.composite
def fields(draw):
    length = draw(st.integers(6, 12))
    return {
        "length": length,
        "vocab_size": length + 1 + draw(st.integers(0, 20)),
        "formats": draw(st.sampled_from(((0,), (1,), (0, 1)))),
    }


def induced(row):
    """The token behind the only earlier place of the last one."""
    (place,) = [i for i, token in enumerate(row[:-1]) if token == row[-1]]
    return row[place + 1]


@settings(max_examples=60)
@given(fields(), st.integers(0, 99))
def test_answers_follow_the_earlier_place_of_the_last_token(fields, seed):
    task = Induction(**fields)
    pairs = task.pairs(10, seed=seed)
    for i in range(10):
        clean, corrupted = pairs.clean[i].tolist(), pairs.corrupted[i].tolist()
        assert clean[0] == BOS
        assert min(clean) == BOS
        assert len(set(clean)) == task.length - 1  # all different, but for the second A
        assert induced(clean) == pairs.answer[i]
        assert induced(corrupted) == pairs.corrupted_answer[i]
        assert clean[-1] == corrupted[-1]
        at = {role: int(places[i]) for role, places in pairs.roles.items()}
        assert clean[at["key"]] == clean[at["out"]]
        assert (at["value"], at["other_value"]) == (at["key"] + 1, at["other_key"] + 1)
        assert len(set(at.values())) == 5
        assert pairs.meta["distance"][i] == task.length - 1 - at["key"]
        changed = pairs.changed[i].nonzero().flatten().tolist()
        among = [token for token in pairs.candidates[i].tolist() if token >= 0]
        if FORMATS[pairs.meta["format"][i]] == "another B":
            assert changed == [at["value"]]
            assert pairs.corrupted_answer[i] not in clean
            assert len(among) == 3
        else:
            assert changed == sorted((at["key"], at["other_key"]))
            assert pairs.corrupted_answer[i] == clean[at["other_value"]]
            assert len(among) == 2


@settings(max_examples=20)
@given(fields(), st.integers(0, 99))
def test_training_prompts_end_with_their_answers(fields, seed):
    task = Induction(**fields)
    tokens, ends = task.sequences(10, seed=seed)
    assert (ends == task.length - 1).all()
    for row in tokens.tolist():
        assert row[-1] == induced(row[:-1])


def test_places_of_the_two_pairs_and_formats_are_uniform():
    """Two blocks among 4 single tokens, in order: 6 x 5 / 2 places, times which comes first."""
    pairs = Induction(length=10).pairs(6000, seed=0)
    joint = pairs.roles["key"] * 10 + pairs.roles["other_key"]
    counts = torch.bincount(joint)
    assert (counts > 0).sum() == 30
    assert chisquare(counts[counts > 0]).pvalue > 1e-3
    assert chisquare(torch.bincount(pairs.meta["format"])).pvalue > 1e-3


def test_the_longest_prompt_uses_every_token():
    task = Induction(length=6, vocab_size=7, formats=(0,))
    pairs = task.pairs(20, seed=0)
    together = torch.cat([pairs.clean, pairs.corrupted], dim=1).sort(dim=1).values
    assert all(set(row) == set(range(1, 7)) for row in together.tolist())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": 5}, "least_length must be at most length"),
        ({"length": 16, "vocab_size": 16}, "vocab_size=16"),
        ({"formats": (2,)}, "formats must be different numbers from 0 to 1"),
        ({"formats": ()}, "formats must be different numbers"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        Induction(**change)
