"""Indirect object identification: who is odd, what changes, where names stand, how it is drawn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.ioi import FORMATS, IOI, TEMPLATES
from experiments.tasks.ioi_grammar import OBJECTS, PLACES, Grammar
from experiments.tasks.pair_formats import letters

NAMES = ("n1", "n2", "n3", "n4", "n5")

fields = st.fixed_dictionaries(
    {
        "num_names": st.integers(4, 30),
        "templates": st.lists(st.integers(0, 3), min_size=1, unique=True).map(tuple),
        "formats": st.lists(st.integers(0, 4), min_size=1, unique=True).map(tuple),
    }
)


def at(tokens, positions):
    return tokens.gather(1, positions[:, None]).squeeze(1)


def odd_one(five):
    (odd,) = [name for name in five if five.count(name) == 1]
    return odd


@settings(max_examples=40)
@given(fields, st.integers(0, 99))
def test_the_name_that_comes_once_is_the_answer(fields, seed):
    task = IOI(**fields)
    pairs = task.pairs(12, seed=seed)
    for tokens, answer in (
        (pairs.clean, pairs.answer),
        (pairs.corrupted, pairs.corrupted_answer),
    ):
        named = torch.stack([at(tokens, pairs.roles[role]) for role in NAMES], dim=1)
        for five, right in zip(named.tolist(), answer.tolist(), strict=True):
            assert len(set(five)) == 3
            assert len(set(five[:3])) == 3
            assert odd_one(five) == right
            assert all(word.startswith("N") for word in task.words(torch.tensor(five)))
        # Nobody is named anywhere else.
        assert (((tokens >= task.grammar.names[0]).sum(dim=1)) == 5).all()


@settings(max_examples=40)
@given(fields, st.integers(0, 99))
def test_one_name_changes_and_it_is_that_of_the_format(fields, seed):
    task = IOI(**fields)
    pairs = task.pairs(12, seed=seed)
    assert (pairs.changed.sum(dim=1) == 1).all()
    changed = pairs.changed.long().argmax(dim=1)
    # The table of the formats, by number: the role that changes, and the names in all.
    role = dict(enumerate(("n1", "n2", "n3", "n5", "n4")))
    for i, number in enumerate(pairs.meta["format"].tolist()):
        assert number in task.formats
        assert FORMATS[number].changed == role[number]
        assert changed[i] == pairs.roles[role[number]][i]
        among = pairs.candidates[i][pairs.candidates[i] >= 0].tolist()
        named = {*pairs.clean[i].tolist(), *pairs.corrupted[i].tolist()}
        assert len(among) == len(set(among)) == (4 if number < 3 else 3)
        assert set(among) == named & set(task.grammar.names)


@settings(max_examples=20)
@given(fields, st.integers(0, 99))
def test_templates_are_what_they_say(fields, seed):
    task = IOI(**fields)
    pairs = task.pairs(8, seed=seed)
    for i, number in enumerate(pairs.meta["template"].tolist()):
        assert number in task.templates
        words = task.words(pairs.clean[i, : int(pairs.out[i]) + 1])
        five = iter([words[int(pairs.roles[role][i])] for role in NAMES])
        text = "".join(f" {word}" if word not in ",." else word for word in words[1:]).strip()
        text = text.replace("After wards", "Afterwards").replace("F riends", "Friends")
        place, thing = ([word for word in words if word in each] for each in (PLACES, OBJECTS))
        expected = TEMPLATES[number].replace("[P]", place[0]).replace("[O]", thing[0])
        while "[N]" in expected:
            expected = expected.replace("[N]", next(five), 1)
        assert text == expected
        assert (pairs.clean[i, int(pairs.out[i]) + 1 :] == 0).all()


def test_positions_are_those_of_the_published_tokens():
    """Ensign and Garriga-Alonso 2024, counted with BOS; the third template is one shorter."""
    for template in range(4):
        pairs = IOI(templates=(template,)).pairs(3, seed=0)
        expected = [2, 4, 6, 12, 14, 18] if template == 2 else [3, 5, 7, 13, 15, 19]
        assert [int(places[0]) for places in pairs.roles.values()] == expected
        assert list(pairs.roles) == [*NAMES, "out"]
        assert pairs.length == expected[-1] + 1
    pairs = IOI().pairs(100, seed=0)
    assert pairs.length == 20
    assert set(pairs.aligned().meta["template"].tolist()) == {0, 1, 3}
    assert IOI().vocab_size == 58


def test_golden_letters():
    """A, B, C, D stand for the names drawn first, second, ...; the last letter is the answer."""
    assert letters("CAB AB C") == [2, 0, 1, 0, 1, 2]
    assert [format.name for format in FORMATS] == [
        "CAB AB → DAB AB",
        "ACB AB → ADB AB",
        "ABC AB → ABD AB",
        "ABC AB → ABC AC",
        "ABC AC → ABC BC",
    ]
    # Candidates are in the order of the letters.
    pairs = IOI(formats=(0,)).pairs(5, seed=0)
    drawn = [at(pairs.clean, pairs.roles[role]) for role in ("n2", "n3", "n1")]
    expected = torch.stack([*drawn, at(pairs.corrupted, pairs.roles["n1"])], dim=1)
    assert torch.equal(pairs.candidates, expected)


def test_formats_templates_and_fillers_are_uniform():
    task = IOI()
    pairs = task.pairs(4000, seed=0)
    joint = pairs.meta["format"] * 4 + pairs.meta["template"]
    assert chisquare(torch.bincount(joint, minlength=20)).pvalue > 1e-3
    for tokens in (task.grammar.places, task.grammar.objects):
        counts = [int((pairs.clean == token).sum()) for (token,) in tokens]
        assert sum(counts) == 4000
        assert chisquare(counts).pvalue > 1e-3
    names = torch.bincount(pairs.answer, minlength=58)[list(task.grammar.names)]
    assert int(names.sum()) == 4000
    assert chisquare(names).pvalue > 1e-3


def test_training_prompts_have_the_odd_one_in_any_slot_and_the_others_in_any_order():
    task = IOI()
    tokens, ends = task.sequences(4000, seed=0)
    counts = torch.zeros(6)
    for row, end in zip(tokens.tolist(), ends.tolist(), strict=True):
        five = [token for token in row[: end + 1] if token >= task.grammar.names[0]]
        odd = odd_one(five)
        assert row[end + 1] == odd
        assert row[end + 2 :] == [0] * (len(row) - end - 2)
        slot = five.index(odd)
        again = [name for name in five[:3] if name != odd]
        counts[2 * slot + (five[3:] == again)] += 1
    assert chisquare(counts).pvalue > 1e-3
    # Negative control: the formats of the pairs are not uniform in this, with all of them.
    pairs = task.pairs(4000, seed=0)
    slots = torch.stack([at(pairs.clean, pairs.roles[role]) == pairs.answer for role in NAMES[:3]])
    assert chisquare(slots.sum(dim=1)).pvalue < 1e-3


def test_prompts_to_train_on_are_hardly_ever_those_of_the_pairs():
    """6.2 million prompts are equally likely: 5000 of them hit one in 1200."""
    task = IOI()
    tokens, _ = task.sequences(5000, seed=0)
    pairs = task.pairs(1000, seed=0)
    trained = {tuple(row) for row in tokens[:, :20].tolist()}
    # The answer behind the third template stands within the first 20 tokens.
    clean = pairs.clean.clone()
    short = pairs.out == 18
    clean[short, 19] = pairs.answer[short]
    assert sum(tuple(row) in trained for row in clean.tolist()) <= 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_names": 3}, "names_of_a_pair must be at most num_names, got names_of_a_pair=4"),
        ({"num_names": 0}, "num_names must be a whole number"),
        ({"templates": ()}, r"templates must be different numbers from 0 to 3, got \(\)"),
        ({"templates": (0, 4)}, "templates must be different numbers from 0 to 3"),
        ({"formats": (1, 1)}, r"formats must be different numbers from 0 to 4, got \(1, 1\)"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        IOI(**change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": (5, 5)}, "names must be different tokens"),
        ({"places": ((7,), (7, 8))}, "places must all have the same number of tokens"),
        ({"objects": ()}, "objects must all have the same number of tokens"),
        ({"templates": ()}, "templates must each have the slots"),
        ({"templates": ((1, -1, -2, -3),)}, "two names or more and 2 for place and object"),
        ({"templates": ((1, -1, -2, -3, -4), (1, -1, -2, -3, -5))}, "templates must each have"),
    ],
)
def test_a_grammar_that_does_not_fit_is_named(change, message):
    parts = {"names": (5, 6), "places": ((7,),), "objects": ((8,),), "vocab_size": 9}
    parts |= {"templates": ((1, -1, -2, -3, -4),)}
    Grammar(**parts)
    with pytest.raises(ValueError, match=message):
        Grammar(**(parts | change))


def test_tokens_without_a_spelling_are_numbers():
    grammar = Grammar(
        templates=((1, -1, -2, -3, -4),),
        names=(5, 6),
        places=((7,),),
        objects=((8,),),
        vocab_size=9,
        vocabulary={5: "Ann"},
    )
    assert grammar.words(torch.tensor([1, 5])) == ["1", "Ann"]
