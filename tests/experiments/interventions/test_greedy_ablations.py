"""Greedy sets of blocks, against a search by whole runs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.greedy_ablations import (
    greedy_cross_talk,
    greedy_removal,
)
from experiments.interventions.logit_difference import candidate_accuracy, relative_probability
from experiments.interventions.pair_runs import pair_runs
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import by_hand, made_pairs, recorded

HYBRID = ("mamba", "attention", "mlp", "mamba")
SITES = {0: "blocks.0.mixer.conv", 1: "blocks.1.mixer.z", 3: "blocks.3.mixer.conv"}
SEEDS = st.integers(0, 50)


def measured(model, pairs, edits):
    logits = by_hand(model, pairs, edits)
    return tuple(
        float(score(logits, pairs).double().mean())
        for score in (candidate_accuracy, relative_probability)
    )


def naive(blocks, score):
    """All blocks in greedy order, and the accuracy after each choice."""
    order, accuracies = [], []
    while len(order) < len(blocks):
        left = [b for b in blocks if b not in order]
        found = [score([*order, b]) for b in left]
        best = max(range(len(left)), key=found.__getitem__)
        order.append(left[best])
        accuracies.append(found[best][0])
    return order, accuracies


@settings(max_examples=5)
@given(seed=SEEDS, stop=st.sampled_from([0.0, 0.3, 0.5, 0.91]))
def test_removal_is_the_search_by_whole_runs(seed, stop):
    model, pairs = network(*HYBRID, seed=seed), made_pairs(count=10, seed=seed)

    def score(removed):
        edits = {f"blocks.{b}.out": torch.zeros_like for b in removed}
        return measured(model, pairs, edits)

    order, accuracies = naive(range(4), score)
    end = next((i for i, accuracy in enumerate(accuracies) if accuracy < stop), 4)
    found = greedy_removal(model, pairs, stop=stop, rows=32)
    assert found.order == tuple(order[:end])
    assert found.accuracy == pytest.approx([score([])[0], *accuracies[:end]])


@settings(max_examples=5)
@given(seed=SEEDS, target=st.sampled_from([0.0, 0.2, 0.4, 1.0]))
def test_cross_talk_is_the_search_by_whole_runs(seed, target):
    model, pairs = network(*HYBRID, seed=seed), made_pairs(count=10, seed=seed)
    values = recorded(model, pairs.corrupted, *SITES.values())

    def score(live):
        edits = {SITES[b]: values[SITES[b]] for b in SITES if b not in live}
        return measured(model, pairs, edits)

    order, accuracies = naive(list(SITES), score)
    accuracies = [score([])[0], *accuracies]
    end = next((i for i, accuracy in enumerate(accuracies) if accuracy > target), 3)
    found = greedy_cross_talk(model, pairs, target=target, rows=32)
    assert found.order == tuple(order[:end])
    assert found.accuracy == pytest.approx(accuracies[: end + 1])
    if end == 3:  # nothing is patched any more
        clean = pair_runs(model, pairs).clean.candidate_accuracy.mean()
        assert found.accuracy[-1] == pytest.approx(float(clean))


def test_the_best_block_is_chosen_and_not_the_worst():
    """The reverse order would be found out: on some model it is another one."""
    orders = set()
    for seed in range(6):
        model, pairs = network("mamba", "attention", seed=seed), made_pairs(count=10, seed=seed)
        orders.add(greedy_removal(model, pairs, stop=0.0).order)
    assert orders == {(0, 1), (1, 0)}


def test_thresholds_are_fractions():
    model, pairs = network("mamba"), made_pairs()
    with pytest.raises(ValueError, match=r"stop must be a number from 0 to 1, got 1.5"):
        greedy_removal(model, pairs, stop=1.5)
    with pytest.raises(ValueError, match=r"target must be a number from 0 to 1, got -1"):
        greedy_cross_talk(model, pairs, target=-1.0)
