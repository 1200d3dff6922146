"""Associative recall: answers, splits, knobs, and the laws of the draws."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from experiments.tasks.associative_recall import (
    AssociativeRecall,
    draw_distinct,
    draw_in_windows,
)
from experiments.tasks.recall import IGNORED

SPLITS = ("train", "validation", "test")


@st.composite
def tasks(draw):
    n = draw(st.integers(1, 7))
    repeats = draw(st.integers(0, n // 2))
    queries = draw(st.integers(1, n - repeats))
    distance = None
    if queries == 1 and repeats == 0:
        distance = draw(st.none() | st.integers(0, n - 1))
    return AssociativeRecall(
        num_pairs=n,
        num_keys=draw(st.integers(n, 12)),
        num_values=draw(st.integers(20, 30)),
        queries=queries,
        distance=distance,
        repeats=repeats,
        query=draw(st.sampled_from(("key", "value"))),
        held_out=draw(st.sampled_from((0.0, 0.4, 0.6))),
    )


def read(task, row):
    """Pairs and the rest of a document, by its layout."""
    divider = row.index(2, 1)
    pairs = list(zip(row[1:divider:2], row[2:divider:2], strict=True))
    assert row[0] == 1
    assert len(pairs) == task.num_pairs
    return pairs, row[divider + 1 :]


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50), st.sampled_from(SPLITS))
def test_every_question_has_one_answer(task, seed, split):
    documents = task.sample(6, seed=seed, split=split)
    assert torch.equal(task.solve(documents), documents.answer)
    assert documents.vocab_size == task.vocab_size == 3 + task.num_keys + task.num_values
    for row, targets in zip(documents.tokens.tolist(), documents.targets.tolist(), strict=True):
        pairs, end = read(task, row)
        latest = dict(pairs)  # of equal keys the last one stays
        keys, values = [k for k, _ in pairs], [v for _, v in pairs]
        assert all(3 <= key < 3 + task.num_keys for key in keys)
        assert all(3 + task.num_keys <= value < task.vocab_size for value in values)
        assert len(set(values)) == task.num_pairs
        assert len(latest) == task.num_pairs - task.repeats
        assert max(Counter(keys).values()) <= 2
        if task.query == "value":
            latest = {value: key for key, value in latest.items()}
        answers = [target for target in targets if target != IGNORED]
        if task.queries == 1:
            assert end == [end[0], latest[end[0]], 2]
            end = end[:1]
        assert len(set(end)) == task.queries
        assert answers == [latest[asked] for asked in end]
        begin = 2 * task.num_pairs + 2
        assert all(target != IGNORED for target in targets[begin : begin + task.queries])


@settings(max_examples=60)
@given(tasks(), st.integers(0, 50))
def test_positions_name_the_right_tokens(task, seed):
    documents = task.sample(6, seed=seed)
    tokens, at, meta = documents.tokens, documents.positions, documents.meta
    token = {name: tokens.gather(1, p.clamp(min=0)[:, None]).squeeze(1) for name, p in at.items()}
    assert torch.equal(token["key"], token["query"])
    assert torch.equal(token["value"], documents.answer)
    assert (token["bos"] == 1).all()
    assert (token["divider"] == 2).all()
    assert torch.equal(at["query"], at["divider"] + 1)
    side = 1 if task.query == "key" else -1
    assert torch.equal(at["value"], at["key"] + side)
    if task.queries == 1:
        assert torch.equal(token["answer"], documents.answer)
        assert torch.equal(at["answer"], at["query"] + 1)
    else:
        assert (at["answer"] == -1).all()
    last = meta["pair"] == task.num_pairs - 1
    for name in ("key", "value"):
        assert torch.equal(at[f"next_{name}"], torch.where(last, -1, at[name] + 2))
    for name, places in at.items():
        assert torch.isin(token[name][places >= 0], task.like(name)).all()
    assert torch.equal(torch.minimum(at["key"], at["value"]), 1 + 2 * meta["pair"])
    assert torch.equal(meta["distance"], task.num_pairs - 1 - meta["pair"])
    assert (meta["num_pairs"] == task.num_pairs).all()
    if task.distance is not None:
        assert (meta["distance"] == task.distance).all()
    keys = torch.stack([tokens[:, i] for i in range(1, 2 * task.num_pairs, 2)], dim=1)
    queried = token["key" if task.query == "key" else "value"]
    assert torch.equal(meta["overwrites"], (keys == queried[:, None]).sum(dim=1) - 1)


def held_out_questions(task, documents):
    """Of every question, whether its combination is held out for the test split."""
    row, at = documents.asked.nonzero().T
    asked, answers = documents.tokens[row, at].numpy(), documents.targets[row, at].numpy()
    keys, values = (asked, answers) if task.query == "key" else (answers, asked)
    return task.combinations.allowed(keys - 3, values - 3 - task.num_keys, "test")


@pytest.mark.parametrize("query", ["key", "value"])
@pytest.mark.parametrize("queries", [1, 5])
def test_held_out_combinations_are_asked_about_in_the_test_split_only(query, queries):
    task = AssociativeRecall(queries=queries, repeats=3, query=query, held_out=0.2)
    for split in SPLITS:
        questions = held_out_questions(task, task.sample(400, seed=0, split=split))
        assert questions.all() if split == "test" else not questions.any()
    # The published sampler has the same questions in both splits: this is what it would show.
    free = replace(task, held_out=0.0).sample(400, seed=0)
    assert held_out_questions(task, free).mean() == pytest.approx(0.2, abs=0.1)


def test_every_token_is_trained_in_both_roles():
    task = AssociativeRecall(queries=8, held_out=0.5)
    documents = task.sample(1000, seed=0)
    assert len(torch.unique(documents.tokens[documents.asked])) == task.num_keys
    assert len(torch.unique(documents.targets[documents.asked])) == task.num_values


@settings(max_examples=10)
@given(tasks(), st.integers(0, 50))
def test_equal_seeds_give_equal_documents_and_other_splits_others(task, seed):
    task = replace(task, num_keys=200, num_values=200)
    first, again = (task.sample(8, seed=seed) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    others = [task.sample(8, seed=seed, split=split).tokens for split in SPLITS[1:]]
    for other in (*others, task.sample(8, seed=seed + 1).tokens):
        assert not torch.equal(first.tokens, other)


def test_changed_documents_answer_something_else():
    task = AssociativeRecall(num_pairs=4, repeats=2, queries=1)
    documents = task.sample(300, seed=0)
    unused = torch.full((300,), 3 + task.num_keys + task.num_values)  # no token of the task

    def put(name):
        at = documents.positions[name][:, None]
        changed = documents.tokens.scatter(1, at, unused[:, None])
        return replace(documents, tokens=changed, vocab_size=documents.vocab_size + 1)

    assert torch.equal(task.solve(put("value")), unused)
    assert (task.solve(put("query")) == -1).all()
    answers, overwrites = task.solve(put("key")), documents.meta["overwrites"] > 0
    assert overwrites.any()
    assert (answers[~overwrites] == -1).all()
    for i in overwrites.nonzero().flatten().tolist():
        pairs, end = read(task, documents.tokens[i].tolist())
        older, newer = (value for key, value in pairs if key == end[0])
        assert (answers[i], documents.answer[i]) == (older, newer)


def test_every_pair_that_counts_is_equally_likely():
    task = AssociativeRecall(num_pairs=5, num_keys=10, num_values=12)
    documents = task.sample(5000, seed=0)
    assert chisquare(torch.bincount(documents.meta["pair"])).pvalue > 0.01
    assert chisquare(torch.bincount(documents.tokens[:, 1])[3:]).pvalue > 0.01
    assert chisquare(torch.bincount(documents.answer)[13:]).pvalue > 0.01
    # With repeats: the last pair always counts, and 3 of 5 do, so it is asked for in a third.
    repeated = replace(task, repeats=2).sample(5000, seed=0)
    last = (repeated.meta["distance"] == 0).double().mean().item()
    assert last == pytest.approx(1 / 3, abs=4 * (2 / 9 / 5000) ** 0.5)
    # Two of the three pairs that count overwrite one.
    assert repeated.meta["overwrites"].double().mean().item() == pytest.approx(2 / 3, abs=0.03)


def test_distinct_draws_are_uniform():
    drawn = draw_distinct(np.random.default_rng(0), 12_000, 2, among=4)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    counts = np.bincount(4 * drawn[:, 0] + drawn[:, 1], minlength=16).reshape(4, 4)
    assert chisquare(counts[~np.eye(4, dtype=bool)]).pvalue > 0.01


@given(st.integers(1, 12), st.integers(0, 9), st.data())
def test_draws_in_windows_keep_to_them(ring, seed, data):
    n = data.draw(st.integers(1, ring))
    rng = np.random.default_rng(seed)
    start, size = rng.integers(ring, size=(20, n)), rng.integers(n, ring + 1, size=(20, n))
    drawn = draw_in_windows(rng, start, size, ring=ring)
    assert ((drawn - start) % ring < size).all()
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    assert drawn.min() >= 0
    assert drawn.max() < ring


def test_draws_in_windows_by_hand():
    """Column 0 from {4, 0, 1} of a ring of 5, column 1 from {0, 1}: 4 leaves both of them."""
    start, size = np.tile([4, 0], (12_000, 1)), np.tile([3, 2], (12_000, 1))
    drawn = draw_in_windows(np.random.default_rng(0), start, size, ring=5)
    found = Counter(map(tuple, drawn.tolist()))
    law = {(4, 0): 1 / 6, (4, 1): 1 / 6, (0, 1): 1 / 3, (1, 0): 1 / 3}
    assert set(found) == set(law)
    assert chisquare([found[x] for x in law], [12_000 * p for p in law.values()]).pvalue > 0.01
    assert chisquare([found[x] for x in law]).pvalue < 1e-9  # not all equally likely


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_pairs": 0}, "num_pairs must be a whole number"),
        ({"num_keys": 7}, "num_keys must be at least num_pairs - repeats = 8, got 7"),
        ({"num_values": 7}, "num_pairs must be at most num_values"),
        ({"queries": 9}, "queries must be at most num_pairs - repeats = 8, got 9"),
        ({"repeats": 5}, "repeats must be at most half of num_pairs=8, got 5"),
        ({"repeats": -1}, "repeats must be"),
        ({"distance": 8}, "distance must be below num_pairs, got 8"),
        ({"distance": 1, "queries": 2}, "distance must be None with several queries"),
        ({"distance": 1, "repeats": 2}, "distance must be None with several queries"),
        ({"query": "pair"}, "query must be one of 'key', 'value', got 'pair'"),
        ({"held_out": 1.2}, "held_out must be a number from 0 to 1"),
        ({"held_out": 0.02, "queries": 2}, "held_out must leave each key at least queries=2"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        AssociativeRecall(**change)


def test_unknown_names_of_positions_are_named():
    with pytest.raises(ValueError, match="name must be one of 'bos', 'divider', 'key'"):
        AssociativeRecall().like("parent")
