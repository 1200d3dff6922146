"""MQAR: answers, layout, and where the questions stand."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.multi_query_recall import MultiQueryRecall
from experiments.tasks.recall import IGNORED

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    n, passes = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    return MultiQueryRecall(
        vocab_size=draw(st.integers(2 * n + 2, 40)),
        length=2 * n * (passes + 1) + draw(st.integers(0, 9)),
        num_pairs=n,
        power=draw(st.sampled_from((0.01, 1.0, 2.0))),
        passes=passes,
        random_non_queries=draw(st.booleans()),
    )


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_every_key_is_asked_about_once(task, seed, split):
    documents = task.sample(5, seed=seed, split=split)
    assert torch.equal(task.solve(documents), documents.answer)
    n, first_value = task.num_pairs, task.vocab_size // 2
    context = 2 * n * task.passes
    for row, targets in zip(documents.tokens.tolist(), documents.targets.tolist(), strict=True):
        assert len(row) == task.length
        assert row[:context] == row[: 2 * n] * task.passes
        keys, values = row[: 2 * n : 2], row[1 : 2 * n : 2]
        assert len(set(keys)) == len(set(values)) == n
        assert all(0 < key < first_value for key in keys)
        assert all(first_value <= value < task.vocab_size for value in values)
        asked = [i for i, target in enumerate(targets) if target != IGNORED]
        assert all(i >= context and (i - context) % 2 == 0 for i in asked)
        questions = {row[i]: targets[i] for i in asked}
        assert len(asked) == n
        assert questions == dict(zip(keys, values, strict=True))
        if not task.random_non_queries:
            filler = [token for i, token in enumerate(row) if i >= context and i not in asked]
            assert set(filler) <= {0}


@settings(max_examples=40)
@given(tasks(), st.integers(0, 50))
def test_positions_name_the_right_tokens(task, seed):
    documents = task.sample(5, seed=seed)
    tokens, at, meta = documents.tokens, documents.positions, documents.meta
    token = {name: tokens.gather(1, p.clamp(min=0)[:, None]).squeeze(1) for name, p in at.items()}
    assert torch.equal(token["key"], token["query"])
    assert torch.equal(token["value"], documents.answer)
    assert (documents.asked.long().argmax(dim=1) == at["query"]).all()
    assert (at["divider"] == -1).all()
    assert (at["answer"] == -1).all()
    assert torch.equal(meta["distance"], at["query"] - at["key"])
    last = meta["pair"] == task.num_pairs - 1
    assert torch.equal(at["next_key"], torch.where(last, -1, at["value"] + 1))
    assert torch.equal(at["next_value"], torch.where(last, -1, at["value"] + 2))
    # The last time that the pairs are written.
    assert (at["key"] >= 2 * task.num_pairs * (task.passes - 1)).all()
    for name in ("key", "value", "next_key", "next_value", "query"):
        assert torch.isin(token[name][at[name] >= 0], task.like(name)).all()


@settings(max_examples=10)
@given(tasks(), st.integers(0, 50))
def test_equal_seeds_give_equal_documents_and_other_splits_others(task, seed):
    task = replace(task, vocab_size=5000)
    first, again = (task.sample(8, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(8, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(8, seed=seed + 1).tokens):
        assert not torch.equal(first.tokens, other)


def test_slots_are_successive_draws_with_the_stated_weights():
    """Key i has slot s_i: P(s_1 = g, s_2 = h) = w_g w_h / (1 - w_g) for normalised weights w."""
    task = MultiQueryRecall(vocab_size=40, length=12, num_pairs=2)
    documents = task.sample(20_000, seed=0)
    row, at = documents.asked.nonzero().T
    first = documents.tokens[row, at] == documents.tokens[row, 0]
    slots = torch.stack([(at[first] - 4) // 2, (at[~first] - 4) // 2], dim=1)
    found = Counter(map(tuple, slots.tolist()))
    w = np.arange(1, 5) ** (0.01 - 1)
    w /= w.sum()
    law = {(g, h): w[g] * w[h] / (1 - w[g]) for g in range(4) for h in range(4) if g != h}
    observed = [found[pair] for pair in law]
    assert chisquare(observed, [20_000 * p for p in law.values()]).pvalue > 0.01
    # Neither uniform nor, what is easily mistaken for it, proportional to both weights.
    wrong = np.array([w[g] * w[h] for g, h in law])
    assert chisquare(observed, 20_000 * wrong / wrong.sum()).pvalue < 1e-9
    assert chisquare(observed).pvalue < 1e-9


def test_changed_documents_answer_something_else():
    task = MultiQueryRecall(vocab_size=40)
    documents = task.sample(100, seed=0)
    unused = torch.full((100, 1), 40)

    def put(name):
        changed = documents.tokens.scatter(1, documents.positions[name][:, None], unused)
        return replace(documents, tokens=changed, vocab_size=41)

    assert (task.solve(put("value")) == 40).all()
    assert (task.solve(put("query")) == -1).all()
    assert (task.solve(put("key")) == -1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_pairs": 0}, "num_pairs must be a whole number"),
        ({"vocab_size": 9}, "vocab_size must be at least 10, for num_pairs=4"),
        ({"length": 15}, "length must be at least 16"),
        ({"length": 23, "passes": 2}, "length must be at least 24"),
        ({"power": 0.0}, "power must be"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        MultiQueryRecall(**change)


def test_unknown_names_of_positions_are_named():
    with pytest.raises(ValueError, match="name must be one of 'key'"):
        MultiQueryRecall().like("divider")
