"""Epochs show every row once, in an order that follows from the seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.batches import Epochs


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 2**70), st.integers(0, 5))
def test_an_epoch_has_every_row_once(rows: int, batch_size: int, seed: int, epoch: int):
    x = torch.arange(rows)
    batches = Epochs(x, 10 * x, batch_size=batch_size, seed=seed)
    steps = range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch)
    found = [batches(step) for step in steps]
    assert sorted(torch.cat([first for first, _ in found]).tolist()) == list(range(rows))
    assert all(torch.equal(10 * first, second) for first, second in found)
    assert all(len(first) == batch_size for first, _ in found[:-1])
    again = Epochs(x, batch_size=batch_size, seed=seed)
    assert all(
        torch.equal(again(step)[0], first)
        for step, (first, _) in reversed(list(zip(steps, found, strict=True)))
    )


def test_epochs_and_seeds_differ_in_order():
    orders = {
        tuple(Epochs(torch.arange(20), batch_size=20, seed=seed)(epoch)[0].tolist())
        for seed in range(5)
        for epoch in range(5)
    }
    assert len(orders) == 25


def test_epochs_that_cannot_be():
    with pytest.raises(ValueError, match=r"same number of rows, got shapes \(3,\), \(4,\)"):
        Epochs(torch.zeros(3), torch.zeros(4), batch_size=1, seed=0)
    with pytest.raises(ValueError, match="same number of rows, got shapes none"):
        Epochs(batch_size=1, seed=0)
    with pytest.raises(ValueError, match="batch_size must be"):
        Epochs(torch.zeros(3), batch_size=0, seed=0)
