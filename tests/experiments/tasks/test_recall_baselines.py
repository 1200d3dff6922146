"""Baselines: by hand, and where their value is known."""

from dataclasses import replace

import pytest
import torch

from experiments.tasks.associative_recall import AssociativeRecall
from experiments.tasks.multi_query_recall import MultiQueryRecall
from experiments.tasks.recall import IGNORED, Documents
from experiments.tasks.recall_baselines import baselines


def documents(rows: list[list[int]], answers: list[int]) -> Documents:
    """`BOS document EOS query`, without padding."""
    tokens = torch.tensor(rows)
    n, length = tokens.shape
    targets = torch.full_like(tokens, IGNORED)
    targets[:, -1] = torch.tensor(answers)
    at = {"bos": 0, "divider": length - 2, "query": length - 1}
    return Documents(
        tokens=tokens,
        targets=targets,
        positions={name: torch.full((n,), place) for name, place in at.items()},
        meta={},
        vocab_size=9,
    )


def of(task, train, test):
    return baselines(train, test, answers=task.like("answer"))


def test_chance_counts_answers_that_no_sample_asked_for():
    task = AssociativeRecall(num_pairs=16, num_keys=1000, num_values=1000)
    assert of(task, task.sample(5, seed=0), task.sample(50, seed=1))["chance"] == 1 / 16


def test_all_rules_by_hand():
    train = documents(
        [[1, 3, 6, 2, 3], [1, 3, 7, 2, 3], [1, 3, 7, 2, 3], [1, 4, 6, 2, 4], [1, 4, 6, 2, 4]],
        [6, 7, 7, 6, 6],
    )
    test = documents(
        [
            # 6, the most frequent, is also last; three candidates
            [1, 7, 3, 8, 3, 6, 2, 3],
            # 7, the most frequent answer to 3, at the first place of 3; two candidates
            [1, 3, 7, 3, 8, 8, 2, 3],
            # 8, the first token, before 4; one candidate
            [1, 8, 4, 5, 5, 5, 2, 4],
            # 5 was never asked about, so 6 stands for it; no candidate is right, 5 is missing
            [1, 3, 3, 3, 3, 7, 2, 5],
        ],
        [6, 7, 8, 6],
    )
    assert baselines(train, test, answers=torch.tensor([6, 7, 8])) == {
        "chance": pytest.approx((1 / 3 + 1 / 2 + 1 + 0) / 4),
        "most frequent": 2 / 4,
        "most frequent for the query": 2 / 4,
        "first token": 1 / 4,
        "last token": 1 / 4,
        "left of the query": 2 / 4,
        "right of the query": 1 / 4,
        "right of its first place": 1 / 4,
    }


def test_associative_recall():
    """Chance is one in the number of pairs; copying the last value is right for the last pair."""
    task = AssociativeRecall(num_pairs=5)
    rules = of(task, task.sample(2000, seed=0), task.sample(2000, seed=0, split="test"))
    assert rules["chance"] == pytest.approx(1 / 5)
    assert rules["last token"] == pytest.approx(1 / 5, abs=0.04)
    assert rules["most frequent"] == pytest.approx(1 / 64, abs=0.02)
    assert rules["right of the query"] == rules["right of its first place"] == 1
    backwards = replace(task, query="value")
    rules = of(backwards, backwards.sample(500, seed=0), backwards.sample(500, seed=1))
    assert (rules["left of the query"], rules["right of the query"]) == (1, 0)


def test_the_first_of_two_pairs_is_the_wrong_one():
    task = AssociativeRecall(num_pairs=6, repeats=2)
    test = task.sample(500, seed=1)
    rules = of(task, task.sample(500, seed=0), test)
    assert rules["right of the query"] == 1
    kept = (test.meta["overwrites"] == 0).double().mean().item()
    assert rules["right of its first place"] == pytest.approx(kept)


def test_what_is_learned_about_a_query_is_worth_nothing_on_held_out_combinations():
    """Three values for each key: one in two of the trained ones is the most frequent."""
    task = AssociativeRecall(num_pairs=2, num_keys=20, num_values=3, held_out=0.34)
    train = task.sample(3000, seed=0)
    same = of(task, train, task.sample(500, seed=0, split="validation"))
    other = of(task, train, task.sample(500, seed=0, split="test"))
    assert same["most frequent for the query"] == pytest.approx(1 / 2, abs=0.1)
    assert other["most frequent for the query"] == 0


def test_documents_without_divider_end_at_the_query():
    task = MultiQueryRecall(vocab_size=40, length=16)
    rules = of(task, task.sample(500, seed=0), task.sample(500, seed=1))
    assert rules["chance"] == pytest.approx(1 / 4)
    assert rules["right of the query"] == 1


def test_other_vocabularies_are_named():
    train, test = (AssociativeRecall(num_keys=k).sample(2, seed=0) for k in (64, 65))
    with pytest.raises(ValueError, match="train must have the tokens of test: 131 against 132"):
        baselines(train, test, answers=torch.tensor([70]))
