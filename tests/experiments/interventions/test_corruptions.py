"""Corrupted documents: what changes, what does not, and what they answer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.corruptions import CORRUPTIONS, Pair, corrupt
from experiments.tasks.associative_recall import AssociativeRecall
from experiments.tasks.recall import IGNORED, Documents
from tests.experiments.interventions.made import TASK

SWAPS = ("swap-keys", "swap-values")
each = pytest.mark.parametrize("kind", CORRUPTIONS)


def at(documents, name):
    return documents.tokens.gather(1, documents.positions[name][:, None]).squeeze(1)


def assert_fresh(pair, task, role):
    """One token of each document was replaced, by one of its class that the document lacks."""
    changed = pair.clean.tokens != pair.corrupted.tokens
    assert changed.sum(dim=1).eq(1).all()
    new = pair.corrupted.tokens[changed]
    assert torch.isin(new, task.like(role)).all()
    assert not (new[:, None] == pair.clean.tokens).any()


@st.composite
def drawn(draw):
    num_pairs = draw(st.integers(2, 6))
    task = AssociativeRecall(
        num_pairs=num_pairs,
        num_keys=num_pairs + draw(st.integers(1, 4)),
        num_values=num_pairs + draw(st.integers(1, 4)),
        query=draw(st.sampled_from(["key", "value"])),
    )
    return task, task.sample(draw(st.integers(1, 9)), seed=draw(st.integers(0, 99)))


@each
@settings(max_examples=30)
@given(drawn(), st.integers(0, 99))
def test_what_changes_and_what_is_left_of_the_answer(kind, case, seed):
    task, documents = case
    pair = corrupt(documents, kind, task, seed=seed)
    clean, corrupted = documents.tokens, pair.corrupted.tokens
    changed = pair.where("changed")
    assert torch.equal(changed, clean != corrupted)
    assert pair.derivable == (kind == "distractor")
    if kind in SWAPS:
        own = pair.where(kind.removeprefix("swap-").removesuffix("s"))
        assert changed.sum(dim=1).eq(2).all()
        assert (changed & own).any(dim=1).all()
        assert torch.equal(clean.sort(dim=1).values, corrupted.sort(dim=1).values)
    elif kind == "query":
        assert torch.equal(changed, pair.where("query"))
        assert (at(pair.corrupted, "query")[:, None] == clean).any(dim=1).all()
    else:
        assert_fresh(pair, task, "value" if kind == "value" else "key")
        if kind == "distractor":
            assert not (changed & pair.where("key")).any()
        else:
            assert torch.equal(changed, pair.where(kind))


def published(documents, role, task, seed):
    """As the published code does it: any other key, for values too (Arora et al. 2025)."""
    rng = np.random.default_rng(seed)
    tokens, keys = documents.tokens.clone(), task.like("key").numpy()
    for row, position in zip(tokens, documents.positions[role], strict=True):
        row[position] = int(rng.choice(keys[keys != row[position].item()]))
    return Pair(
        clean=documents,
        corrupted=replace(documents, tokens=tokens),
        kind=role,
        derivable=0.0,
    )


@pytest.mark.parametrize("role", ["key", "value"])
def test_the_published_corruption_would_be_noticed(role):
    documents = TASK.sample(50, seed=0)
    assert_fresh(corrupt(documents, role, TASK, seed=0), TASK, role)
    with pytest.raises(AssertionError):
        assert_fresh(published(documents, role, TASK, seed=0), TASK, role)


@each
def test_draws_depend_on_the_seed_alone_and_not_on_the_documents_behind(kind):
    documents = TASK.sample(30, seed=3)
    first, again, other = (corrupt(documents, kind, TASK, seed=s).corrupted for s in (1, 1, 2))
    assert torch.equal(first.tokens, again.tokens)
    assert not torch.equal(first.tokens, other.tokens)
    few = Documents(
        tokens=documents.tokens[:4],
        targets=documents.targets[:4],
        positions={name: x[:4] for name, x in documents.positions.items()},
        meta={},
        vocab_size=documents.vocab_size,
    )
    assert torch.equal(corrupt(few, kind, TASK, seed=1).corrupted.tokens, first.tokens[:4])


def test_fresh_tokens_are_uniform_over_those_that_are_left():
    documents = TASK.sample(1200, seed=0)
    pair = corrupt(documents, "key", TASK, seed=0)
    left = [set(TASK.like("key").tolist()) - set(row.tolist()) for row in documents.tokens]
    ranks = [sorted(x).index(k) for x, k in zip(left, at(pair.corrupted, "key"), strict=True)]
    assert np.bincount(ranks) == pytest.approx(400, abs=65)  # 3 are left; 4 standard deviations


def test_an_earlier_pair_with_the_same_key_may_answer_instead():
    task = AssociativeRecall(num_pairs=4, num_keys=9, num_values=9, repeats=2)
    documents = task.sample(40, seed=0)
    for kind, derivable in (("key", 0.0), ("value", 0.0), ("distractor", 1.0)):
        assert corrupt(documents, kind, task, seed=0).derivable == derivable


class OneClass:
    """Every token is a key and a value, as in trees."""

    vocab_size = 5

    def sample(self, documents, *, seed, split="train"):
        raise NotImplementedError

    def like(self, name):
        return torch.arange(5)

    def solve(self, documents):
        return torch.full((len(documents),), -1)


def documents(tokens, **positions):
    tokens = torch.tensor([tokens])
    targets = torch.full_like(tokens, IGNORED)
    positions = {name: torch.tensor([x]) for name, x in positions.items()}
    targets[0, positions["query"]] = 0
    return Documents(tokens=tokens, targets=targets, positions=positions, meta={}, vocab_size=5)


def test_what_a_task_cannot_do_is_refused():
    one = documents([1, 2, 3, 1], key=0, value=1, query=3)
    assert corrupt(one, "key", OneClass(), seed=0).corrupted.tokens[0, 0] in (0, 4)
    for kind in ("query", "distractor", *SWAPS):
        with pytest.raises(ValueError, match="do not tell keys from values"):
            corrupt(one, kind, OneClass(), seed=0)
    with pytest.raises(ValueError, match="document 0 has every token of the class"):
        corrupt(documents([0, 1, 2, 3, 4, 1], key=1, query=5), "key", OneClass(), seed=0)
    with pytest.raises(ValueError, match="document 0 has no key"):
        corrupt(documents([1, 2], key=-1, query=1), "key", OneClass(), seed=0)
    with pytest.raises(ValueError, match=r"position must be one of 'query'"):
        corrupt(documents([1, 2], query=1), "key", OneClass(), seed=0)
    with pytest.raises(ValueError, match=r"kind must be one of 'key', .* got 'divider'"):
        corrupt(one, "divider", OneClass(), seed=0)
    single = AssociativeRecall(num_pairs=1, num_keys=3, num_values=3)
    with pytest.raises(ValueError, match="document 0 has no other value"):
        corrupt(single.sample(2, seed=0), "swap-values", single, seed=0)


def test_pairs_that_differ_in_more_than_tokens_are_refused():
    clean = TASK.sample(3, seed=0)
    with pytest.raises(ValueError, match="all but their tokens"):
        Pair(clean=clean, corrupted=TASK.sample(3, seed=1), kind="key", derivable=0.0)
    pair = Pair(clean=clean, corrupted=clean, kind="key", derivable=1.0)
    assert not pair.where("changed").any()
    with pytest.raises(ValueError, match=r"position must be one of 'changed', .*got 'kee'"):
        pair.where("kee")
