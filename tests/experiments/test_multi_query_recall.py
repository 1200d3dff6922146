"""The study of multi-query recall: its states, its table, and its claims on made-up trainings."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.claims import asserted
from experiments.recall_batches import ShortAndLong
from experiments.studies.multi_query_recall import (
    RATES,
    RECURRENT,
    MultiQueryRecallStudy,
    build,
    capacity,
    curve,
    random_capacity,
    state_size,
)
from experiments.tasks.multi_query_recall import MultiQueryRecall

TASK = MultiQueryRecall(vocab_size=16, length=16, num_pairs=4)
CLAIMS = {claim.name: claim for claim in MultiQueryRecallStudy.claims}


@pytest.mark.parametrize("family", RECURRENT)
@pytest.mark.parametrize("key_dim", [1, 2, 4, 8])
def test_states_of_all_families_have_the_same_size(family, key_dim):
    model = build(family, TASK, key_dim=key_dim, d=8, seed=0)
    assert state_size(model) == key_dim * 8
    tokens = TASK.sample(3, seed=0).tokens
    with torch.no_grad(), model.record("blocks.*.mixer.h.5") as states:
        model(tokens)
    assert sum(h[0].numel() for h in states.values()) == key_dim * 8


def test_attention_keeps_its_keys_and_values():
    """2 d numbers of each of 16 tokens."""
    for key_dim in (1, 8):
        assert state_size(build("attention", TASK, key_dim=key_dim, d=8, seed=0)) == 2 * 8 * 16


@pytest.mark.parametrize(
    ("family", "key_dim", "named"),
    [("gla", 4, "family"), ("attention", 3, "key_dim"), ("mamba2", 0, "key_dim")],
)
def test_bad_input_is_named(family, key_dim, named):
    with pytest.raises(ValueError, match=named):
        build(family, TASK, key_dim=key_dim, d=8, seed=0)


@given(step=st.integers(0, 1000), seed=st.integers(0, 9))
def test_batches_ask_for_every_pair_of_short_documents(step, seed):
    batches = ShortAndLong(task=TASK, batch_size=3, seed=seed)
    tokens, at, answers = batches(step)
    n = at.shape[1]
    assert 1 <= n <= 4
    assert tokens.shape == (3, 4 * n)
    keys, values = tokens[:, 0 : 2 * n : 2], tokens[:, 1 : 2 * n : 2]
    asked = tokens.gather(1, at)
    written = values.gather(1, (asked[:, :, None] == keys[:, None]).int().argmax(-1))
    assert torch.equal(written, answers)
    for again, first in zip(batches(step), (tokens, at, answers), strict=True):
        assert torch.equal(again, first)


def test_batches_have_all_numbers_of_pairs():
    batches = ShortAndLong(task=TASK, batch_size=1, seed=0)
    assert {batches(step)[1].shape[1] for step in range(60)} == {1, 2, 3, 4}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_capacity_is_at_most_what_was_tested(accuracies):
    found = capacity(np.array(accuracies))
    assert 0 <= found <= len(accuracies)
    assert (found == len(accuracies)) or min(accuracies) < 0.9


def test_capacity_golden():
    """0.96 at 2 and 0.80 at 3: 2 + 6/16."""
    assert capacity(np.array([1.0, 0.96, 0.8, 0.95])) == pytest.approx(2.375)


class Solver(torch.nn.Module):
    """Looks the answer up, if the document has few enough pairs."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.unused = most, torch.nn.Parameter(torch.zeros(()))

    def forward(self, tokens, at):
        n = at.shape[1]
        keys, values = tokens[:, 0 : 2 * n : 2], tokens[:, 1 : 2 * n : 2]
        place = (tokens.gather(1, at)[:, :, None] == keys[:, None]).int().argmax(-1)
        found = values.gather(1, place) if n <= self.most else torch.zeros_like(at)
        return torch.nn.functional.one_hot(found, TASK.vocab_size).float()


def test_curve_is_that_of_a_model_of_known_capacity():
    found = curve(Solver(most=2), TASK, seed=0)
    np.testing.assert_array_equal(found, [1, 1, 0, 0])
    assert capacity(found) == pytest.approx(2.1)


def test_documents_are_as_short_as_they_can_be():
    assert TASK.with_pairs(3).length == 12
    with pytest.raises(ValueError, match="length"):
        MultiQueryRecall(vocab_size=16, length=11, num_pairs=3)


@pytest.mark.parametrize(("key_dim", "expected"), [(1, 1.46), (4, 4.85)])
def test_prediction_golden(key_dim, expected):
    """By `retrieval_error`: 6.3 % at 4 and 11 % at 5 pairs, for keys of size 4."""
    found = random_capacity(key_dim=key_dim, heads=1, d=32, M=16, limit=8)
    assert found == pytest.approx(expected, abs=0.01)
    assert random_capacity(key_dim=16, heads=1, d=32, M=16, limit=8) == 8


def made_up(holds, *, seeds=6, factors=(1.0,)) -> pandas.DataFrame:
    """Trainings whose capacities are given by family and size of the keys, with some scatter."""
    rng, study = np.random.default_rng(0), MultiQueryRecallStudy(family=(*RATES,))
    rows = []
    for family, n, factor, seed in itertools.product(RATES, (2, 4), factors, range(seeds)):
        at = min(8.0, holds(family, n) * math.exp(0.03 * rng.standard_normal()))
        size = n * 32 if family in RECURRENT else 2 * 32 * 32
        fixed = {name: values[0] for name, values in study.grid().items()}
        rows.append(
            fixed
            | {"family": family, "key_dim": n, "seed": seed, "rate_factor": factor,
               "capacity": at, "accuracy": 1.0 if at == 8 else 0.5, "state_size": size,
               "validation_accuracy": factor * at / 8, "accuracies": np.linspace(1, at / 8, 8)}
        )  # fmt: skip
    return MultiQueryRecallStudy.table(pandas.DataFrame(rows))


def expected_by_theory(family, n):
    return {"attention": 9.0, "delta-net": 1.5 * n + 3, "mamba2": 1.5 * n}.get(family, 1.6 * n)


def test_every_claim_comes_out_as_expected_where_theory_holds():
    table = made_up(expected_by_theory)
    # One is what training fails to do, and two sizes are too few for the other.
    left_out = ("delta-net-recalls-what-random-keys-allow", "capacity-scales-as-predicted")
    for claim in CLAIMS.values():
        if claim.name not in left_out:
            assert asserted(claim.check(table), claim) == "as expected", claim.name


SPOILED = {
    "linear-attention-capacity-grows-with-its-state": ("plus", "growth", -9.0),
    "delta-net-capacity-grows-with-its-state": ("plus", "growth", -9.0),
    "mamba2-capacity-grows-with-its-state": ("plus", "growth", -9.0),
    "linear-attention-recalls-what-random-keys-allow": ("scale", "random", 3.0),
    "delta-net-recalls-what-random-keys-allow": ("scale", "random", 3.0),
    "delta-rule-recalls-more-than-additive-state": ("plus", "over_additive", -9.0),
    "attention-recalls-with-keys-of-any-size": ("scale", "accuracy", 0.5),
}


@pytest.mark.parametrize("name", SPOILED)
def test_wrong_statements_are_refuted(name):
    kind, column, by = SPOILED[name]
    table = made_up(expected_by_theory)
    table[column] = table[column] * by if kind == "scale" else table[column] + by
    assert CLAIMS[name].check(table).outcome == "refuted"


@pytest.mark.parametrize(("power", "expected"), [(1.0, "supported"), (0.4, "refuted")])
def test_scaling_is_judged_over_sizes_that_are_not_full(power, expected):
    rng, rows = np.random.default_rng(0), []
    fixed = {name: values[0] for name, values in MultiQueryRecallStudy().grid().items()}
    for n, seed in itertools.product((2, 4, 8, 32), range(6)):
        predicted = random_capacity(key_dim=n, heads=1, d=32, M=32, limit=24)
        at = min(24.0, 1.2 * predicted**power * math.exp(0.03 * rng.standard_normal()))
        rows.append(
            fixed
            | {"family": "linear-attention", "key_dim": n, "seed": seed, "num_pairs": 24,
               "vocab_size": 64, "capacity": at, "accuracy": at / 24, "state_size": n * 32,
               "validation_accuracy": at / 24}
        )  # fmt: skip
    table = MultiQueryRecallStudy.table(pandas.DataFrame(rows))
    assert not table.loc[table["key_dim"] == 32, "within"].any()
    assert CLAIMS["capacity-scales-as-predicted"].check(table).outcome == expected


def test_a_state_that_holds_what_random_keys_allow_is_within_their_limit():
    def weak(family, n):
        return 0.8 * random_capacity(key_dim=n, heads=1, d=32, M=16, limit=8)

    verdict = CLAIMS["random-keys-limit-trained-states"].check(made_up(weak))
    assert verdict.outcome == "supported"


def test_table_has_growth_and_differences_of_each_seed():
    table = made_up(expected_by_theory).set_index(["family", "key_dim", "seed"])
    for family, seed in itertools.product(RECURRENT, range(6)):
        small, large = (table.loc[(family, n, seed)] for n in (2, 4))
        assert small["growth"] == pytest.approx(large["capacity"] - small["capacity"])
        assert small["compared"]
        assert not large["compared"]
        for row in (small, large):
            beside = table.loc[("linear-attention", row.name[1], seed)]
            assert row["over_additive"] == pytest.approx(row["capacity"] - beside["capacity"])
    assert set(table["chosen"]) == {15}  # all keys: 16 answers in 32 dimensions


def test_without_linear_attention_nothing_is_compared_with_it():
    table = MultiQueryRecallStudy.table(
        made_up(expected_by_theory)
        .query("family != 'linear-attention'")
        .drop(columns=["random", "chosen"])
    )
    assert not table["paired"].any()


def test_only_the_best_learning_rate_counts():
    table = made_up(expected_by_theory, factors=(0.3, 1.0))
    assert set(table["rate_factor"]) == {1.0}
    assert len(table) == len(RATES) * 2 * 6


TINY = {"d": (8,), "vocab_size": (10,), "num_pairs": (2,), "max_steps": (3,), "seed": (0,),
        "key_dim": (2,)}  # fmt: skip


@pytest.mark.parametrize("family", RATES)
def test_same_trial_gives_the_same_metrics(family):
    (trial,) = MultiQueryRecallStudy.at("quick", family=(family,), **TINY).trials()
    first, again = (MultiQueryRecallStudy.measure(trial.rng, **trial.config) for _ in range(2))
    assert first.keys() == again.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert first["accuracy"] == first["accuracies"][-1]
    assert first["steps"] == 3
    table = MultiQueryRecallStudy.table(pandas.DataFrame([trial.config | first]))
    assert not table["compared"].any()


def test_where_all_pairs_are_recalled_there_is_nothing_to_compare():
    table = made_up(lambda family, n: 20.0)
    assert not table["compared"].any()
    assert not table["paired"].any()
    enough = table["random"] >= table["num_pairs"]
    assert enough.any()
    assert (table["told"] == ~enough).all()
