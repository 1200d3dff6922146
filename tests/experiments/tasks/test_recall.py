"""What documents must be, and which combinations are held out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from experiments.tasks.recall import IGNORED, Documents, HeldOut, generator, rightmost


def two_documents(**change) -> Documents:
    fields = dict(
        tokens=torch.tensor([[1, 3, 5, 2, 3], [1, 4, 5, 2, 4]]),
        targets=torch.tensor([[IGNORED] * 4 + [5]] * 2),
        positions={"query": torch.tensor([4, 4]), "key": torch.tensor([1, 1])},
        meta={"length": torch.tensor([2, 2])},
        vocab_size=6,
    )
    return Documents(**{**fields, **change})


def test_documents_know_their_questions():
    documents = two_documents()
    assert len(documents) == 2
    assert documents.answer.tolist() == [5, 5]
    assert documents.asked.nonzero().tolist() == [[0, 4], [1, 4]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict.fromkeys(("tokens", "targets"), torch.zeros(2, 0, dtype=torch.int64)),
            r"tokens must be a documents x length matrix, not empty, got \(2, 0\)",
        ),
        (dict(positions={"key": torch.tensor([1, 1])}), "positions must name the query, got key"),
        (dict(positions={"query": torch.tensor([5, 4])}), r"positions\['query'\] must be from -1"),
        (dict(positions={"query": torch.tensor([-1, 4])}), "targets must have the answer"),
        (dict(positions={"query": torch.tensor([3, 4])}), "targets must have the answer"),
        (dict(meta={"length": torch.tensor([2, 2]).int()}), r"meta\['length'\] must be of type"),
        (dict(vocab_size=5), "tokens must be from 0 to 4"),
        (dict(targets=torch.tensor([[IGNORED] * 4 + [6]] * 2)), "targets must be from 0 to 5"),
    ],
)
def test_bad_documents_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        two_documents(**change)


@given(st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=1, max_size=5))
def test_rightmost(rows):
    expected = [max([i for i, true in enumerate(row) if true], default=-1) for row in rows]
    assert rightmost(torch.tensor(rows)).tolist() == expected


@given(st.integers(1, 40), st.integers(2, 40), st.floats(0, 0.9))
def test_splits_share_the_combinations_out(num_keys, num_values, share):
    assume(share == 0 or 0 < round(share * num_values) < num_values)
    held_out = HeldOut(num_keys=num_keys, num_values=num_values, share=share)
    keys, values = np.meshgrid(np.arange(num_keys), np.arange(num_values), indexing="ij")
    allowed = {s: held_out.allowed(keys, values, s) for s in ("train", "validation", "test")}
    assert np.array_equal(allowed["train"], allowed["validation"])
    if held_out.width == 0:
        assert all(every.all() for every in allowed.values())
        return
    assert np.array_equal(allowed["train"], ~allowed["test"])
    assert set(allowed["test"].sum(axis=1)) == {round(share * num_values)}
    by_value = allowed["test"].sum(axis=0)
    assert abs(by_value - num_keys * held_out.width / num_values).max() <= 1
    # The windows are the same sets.
    for split, matrix in allowed.items():
        start, size = held_out.window(np.arange(num_keys), split)
        for key in range(num_keys):
            places = (start[key] + np.arange(size[key])) % num_values
            assert set(held_out.ring[places]) == set(np.flatnonzero(matrix[key]))


def test_held_out_combinations_are_those_of_every_object():
    first, second = (HeldOut(num_keys=9, num_values=7, share=0.3) for _ in range(2))
    keys, values = np.repeat(np.arange(9), 7), np.tile(np.arange(7), 9)
    expected = first.allowed(keys, values, "test")
    assert np.array_equal(second.allowed(keys, values, "test"), expected)
    assert not np.array_equal(replace(first, share=0.5).allowed(keys, values, "test"), expected)


@pytest.mark.parametrize("share", [-0.1, 1.5, 1.0, 0.01, 0.99])
def test_bad_shares_are_named(share):
    with pytest.raises(ValueError, match="held_out must"):
        HeldOut(num_keys=4, num_values=4, share=share)


@settings(max_examples=20)
@given(st.integers(0, 5), st.sampled_from(("train", "validation", "test")))
def test_generators_depend_on_task_seed_and_split(seed, split):
    first, again = (generator("a", documents=1, seed=seed, split=split).random() for _ in range(2))
    assert first == again
    assert first != generator("b", documents=1, seed=seed, split=split).random()
    assert first != generator("a", documents=1, seed=seed + 1, split=split).random()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"documents": 0}, "documents must be a whole number"),
        ({"seed": -1}, "seed must be"),
        ({"split": "dev"}, "split must be one of 'train', 'validation', 'test', got 'dev'"),
    ],
)
def test_bad_requests_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        generator("task", **{"documents": 1, "seed": 0, "split": "train", **change})
