"""The maps of toys: what is chosen and averaged, and which tables their claims hold of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import ioi_tables
from experiments.claims import asserted
from experiments.interventions.name_codes import SLOTS
from experiments.ioi_tables import ALIGNED, TASK, balanced, name_directions, tap_shares
from experiments.studies import ioi_maps
from experiments.studies.ioi_maps import IOIMaps
from experiments.tasks.ioi import FORMATS
from experiments.toys import TrainedToy, build

CLAIMS = {claim.name: claim for claim in IOIMaps.claims}
PAIRS = balanced(3, seed=0)
PLACES = [3, 5, 7, 13, 15]
"""Of n1 to n5 in every aligned prompt."""
TINY = dict(pairs=1, averaged=200, swapped=8, max_steps=3)


def made_up(toy: str = "toy-2x64", seeds: int = 3, **changed: Any) -> pandas.DataFrame:
    """What the models of these seeds would say if all claims held; the tap is the seed's."""

    def metrics(seed: int) -> dict[str, Any]:
        few = 0.01 * seed
        resample, taps = np.zeros((5, 2, 20)), np.zeros((5, 2, 4, 20))
        for i, format_ in enumerate(FORMATS):
            at = PLACES[SLOTS.index(format_.changed)]
            resample[i, :, at] = 0.9 - few
            taps[i, 1, seed + 2 if seed < 2 else 0, at + (seed + 2 if seed < 2 else 0)] = 0.7
        within = np.kron(np.eye(2), np.ones((3, 3)))[:5, :5]
        return {
            "accuracy": 1.0, "relative_probability": 0.98, "all_patched_accuracy": 0.0,
            "bottleneck": 1, "convolved": True, "alone_accuracy": np.array([few, 0.75 + few]),
            "alone_best": 0.75 + few, "alone_other": few, "resample": resample, "taps": taps,
            "resampled": 0.9 - few, "resampled_elsewhere": 0.05 + few,
            "removed_accuracy": np.array([0.3, 0.2 + few]),
            "removed_probability": np.array([0.3, 0.2 + few]),
            "tap": seed + 2 if seed < 2 else 0, "looks_back": 0.7 + few, "all_look_back": 0.8 + few,
            "replace": 0.2 + 0.7 * within, "add_subtract": np.full((5, 5), 0.9),
            "code_cosines": 0.5 + 0.5 * np.eye(5), "cosines": np.eye(20),
            "replace_first": 0.9 + few, "replace_second": 0.9 + few, "replace_split": 0.7 + few,
            "add_subtract_written": 0.9 * within, "write_cosines": 2 * within - 1,
            "written_first": 0.9 + few, "written_second": 0.9 + few, "written_across": few,
            "selected_apart": 1.2 + few,
            "add_subtract_first": 0.9 + few, "add_subtract_second": 0.9 + few,
            "writes": np.full((5, 20), 0.5), "writes_to_answer": np.full(20, 0.25),
            "own_writes": np.array([9.0, 10.0, 11.0, -9.0, -8.0]), "first_writes": 10.0 + few,
            "second_writes": -8.5 + few, "write_error": 1e-6 + 1e-8 * seed,
        }  # fmt: skip

    return IOIMaps.table(
        pandas.DataFrame(
            [{"toy": toy, "seed": seed, **metrics(seed), **changed} for seed in range(seeds)]
        )
    )


def test_pairs_are_as_many_of_each_format_with_names_in_the_same_places():
    assert PAIRS.meta["format"].bincount().tolist() == [3] * 5
    for slot, place in zip(SLOTS, PLACES, strict=True):
        assert set(PAIRS.roles[slot].tolist()) == {place}
    assert set(PAIRS.meta["template"].tolist()) <= {0, 1, 3}
    assert (PAIRS.out == 19).all()
    assert not balanced(3, seed=1).clean.equal(PAIRS.clean)
    assert ioi_tables.ALIGNED.vocab_size == TASK.vocab_size


@settings(max_examples=15)
@given(st.integers(0, 3), st.floats(0.1, 1.0), st.floats(0.0, 1.0))
def test_taps_share_the_effect_of_the_block(tap: int, size: float, rest: float):
    """Of `size` at the changed name and `rest` where another token is read."""
    effects = torch.zeros(4, 20, len(PAIRS), dtype=torch.float64)
    for pair, format_ in enumerate(PAIRS.meta["format"].tolist()):
        name = PLACES[SLOTS.index(FORMATS[format_].changed)]
        effects[tap, name + tap, pair] = size
        effects[(tap + 1) % 4, 1, pair] = rest
    expected = np.zeros(4)
    expected[tap] = size / (size + rest)
    np.testing.assert_allclose(tap_shares(effects, PAIRS), expected)
    # Read at the wrong offset, the same effects are those of other tokens.
    assert tap_shares(effects.roll(1, dims=1), PAIRS)[tap] == 0


def test_a_block_without_effects_has_no_shares():
    assert tap_shares(-torch.ones(4, 20, len(PAIRS)).double(), PAIRS).tolist() == [0.0] * 4


def test_effects_at_the_changed_name_are_told_from_others(monkeypatch: pytest.MonkeyPatch):
    effects = torch.zeros(2, 20, len(PAIRS), dtype=torch.float64)
    for pair, format_ in enumerate(PAIRS.meta["format"].tolist()):
        effects[:, PLACES[SLOTS.index(FORMATS[format_].changed)], pair] = torch.tensor([0.9, 0.6])
        effects[0, 19, pair] = -0.25 if format_ == 3 else 0.1
    monkeypatch.setattr(ioi_tables, "resample_map", lambda model, pairs: effects)
    found = ioi_tables.resampled(build("toy-2x64", TASK, seed=0), PAIRS, 1)
    assert found["resampled"] == pytest.approx(0.6)
    assert found["resampled_elsewhere"] == pytest.approx(0.25)
    assert found["resample"].shape == (5, 2, 20)


def test_directions_are_of_a_name_beside_those_that_are_absent():
    """24 names, 3 of them in the prompt: with orthonormal rows 1 and -1/21."""
    model = build("toy-2x64", TASK, seed=0)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(*model.embedding.weight.shape))
    for slot, place in zip(SLOTS, PLACES, strict=True):
        for pair, direction in enumerate(name_directions(model, PAIRS, slot)):
            there = set(PAIRS.clean[pair].tolist()) & set(ALIGNED.grammar.names)
            expected = torch.zeros(TASK.vocab_size)
            expected[sorted(set(ALIGNED.grammar.names) - there)] = -1 / 21
            expected[PAIRS.clean[pair, place]] = 1
            torch.testing.assert_close(direction[: TASK.vocab_size], expected)


def measured(monkeypatch: pytest.MonkeyPatch, toy: str) -> dict[str, Any]:
    """Of an untrained toy, whose accuracy is that of chance."""

    def untrained(name: str, task: Any, *, seed: int, **_: Any) -> TrainedToy:
        return TrainedToy(
            model=build(name, task, seed=seed), steps=0, accuracies={0: 0.0}, accuracy=0.0
        )

    monkeypatch.setattr(ioi_maps, "trained", untrained)
    return IOIMaps.measure(np.random.default_rng(0), toy=toy, seed=0, **TINY)


def test_maps_have_the_shape_of_the_model_and_what_is_claimed_of_them_is_in_them(
    monkeypatch: pytest.MonkeyPatch,
):
    found = measured(monkeypatch, "toy-2x64")
    assert found["taps"].shape == (5, 2, 4, 20)
    assert found["writes"].shape == (5, 20)
    assert found["replace"].shape == found["code_cosines"].shape == (5, 5)
    assert found["cosines"].shape == (20, 20)
    assert found["bottleneck"] == found["greedy_order"][0]
    assert found["alone_best"] == found["alone_accuracy"][found["bottleneck"]]
    assert found["alone_other"] == found["alone_accuracy"][1 - found["bottleneck"]]
    # Both blocks hear the clean tokens at the end of the greedy order, as in the clean run.
    assert len(found["greedy_accuracy"]) == 3
    at = PLACES[0]
    assert found["own_writes"][0] == pytest.approx(found["writes"][0, at : at + 4].sum())
    assert found["first_writes"] == pytest.approx(found["own_writes"][:3].mean())
    assert found["replace_first"] == pytest.approx(found["replace"][:3, :3].mean())
    assert found["write_error"] < ioi_maps.EXACT
    written, told, kept = (
        found[name] for name in ("add_subtract_written", "code_cosines", "write_cosines")
    )
    assert found["written_second"] == pytest.approx(written[3:, 3:].mean())
    across = written[:3, 3:].sum() + written[3:, :3].sum()
    assert found["written_across"] == pytest.approx(across / 12)
    apart = (told - kept)[:3, 3:].mean()  # both are symmetric
    assert found["selected_apart"] == pytest.approx(apart)


def test_a_bottleneck_without_a_state_has_no_taps_codes_and_writes(
    monkeypatch: pytest.MonkeyPatch,
):
    order = {"bottleneck": 1, "greedy_order": np.array([1]), "greedy_accuracy": np.array([0.0])}
    monkeypatch.setattr(ioi_tables, "bottleneck_order", lambda model, working: order)
    found = measured(monkeypatch, "toy-hybrid")
    assert not found["convolved"]
    assert "tap" not in found
    # Of a mamba, an attention, an MLP and a mamba, the MLP mixes nothing.
    assert np.isnan(found["alone_accuracy"]).tolist() == [False, False, True, False]
    rows = IOIMaps.table(pandas.DataFrame([{"toy": "toy-hybrid", "seed": 0, **found}]))
    for claim in IOIMaps.claims:
        assert asserted(claim.check(rows), claim) == "undecided", claim.name


def test_every_claim_is_tried():
    others = {"the-tap-looks-one-token-back", "attention-mixes-tokens-in-hybrids"}
    assert set(CLAIMS) == {*SPOILED, *others}


def test_published_statements_are_of_mamba_alone_and_one_is_of_hybrids():
    """Hybrids that contradict them do not count; models of Mamba do."""
    mamba, hybrid = made_up(), made_up("toy-hybrid", resampled_elsewhere=0.9, written_across=0.9)
    rows = IOIMaps.table(pandas.concat([mamba, hybrid], ignore_index=True))
    assert CLAIMS["nothing-is-read-elsewhere"].check(rows).outcome == "supported"
    assert CLAIMS["the-other-kind-swaps-nothing-in-the-state"].check(rows).outcome == "refuted"
    attends = CLAIMS["attention-mixes-tokens-in-hybrids"]
    assert attends.check(rows).outcome == "supported"
    assert attends.check(made_up("toy-hybrid", bottleneck=0)).outcome == "refuted"
    assert asserted(attends.check(mamba), attends) == "undecided"


SPOILED = {
    "one-block-mixes-tokens-for-the-answer": dict(alone_best=0.45),
    "no-other-block-mixes-tokens-for-the-answer": dict(alone_other=0.3),
    "bottleneck-reads-the-changed-name": dict(resampled=0.2),
    "nothing-is-read-elsewhere": dict(resampled_elsewhere=0.2),
    "first-block-and-bottleneck-are-necessary": dict(removed_accuracy=np.array([0.1, 0.6])),
    "one-tap-looks-back": dict(looks_back=0.4),
    "taps-look-back": dict(all_look_back=0.4),
    "first-mentions-are-interchangeable-add-subtract": dict(add_subtract_first=0.7),
    "second-mentions-are-interchangeable-add-subtract": dict(add_subtract_second=0.7),
    "first-mentions-are-interchangeable-replace": dict(replace_first=0.7),
    "second-mentions-are-interchangeable-replace": dict(replace_second=0.7),
    "mentions-have-codes-of-their-own": dict(replace_split=0.2),
    "first-mentions-are-interchangeable-in-the-state": dict(written_first=0.7),
    "second-mentions-are-interchangeable-in-the-state": dict(written_second=0.7),
    "the-other-kind-swaps-nothing-in-the-state": dict(written_across=0.3),
    "the-selection-separates-the-mentions": dict(selected_apart=0.4),
    "first-mentions-write-for-their-names": dict(first_writes=-1.0),
    "second-mentions-write-against-their-names": dict(second_writes=1.0),
    "writes-add-up": dict(write_error=1e-3),
}


@pytest.mark.parametrize("name", [*SPOILED, "the-tap-looks-one-token-back"])
def test_claims_hold_of_what_was_published_and_not_of_anything_else(name: str):
    claim = CLAIMS[name]
    assert asserted(claim.check(made_up()), claim) == "as expected"
    if name == "the-tap-looks-one-token-back":
        assert claim.check(made_up(tap=1)).outcome != "refuted"
    else:
        assert claim.check(made_up(**SPOILED[name])).outcome == "refuted"


def test_the_verdict_on_the_tap_says_how_many_seeds_have_another():
    rows = made_up()
    rows.loc[0, "from_one"] = 0
    verdict = CLAIMS["the-tap-looks-one-token-back"].check(rows)
    assert "2 of 3 instances violate it" in verdict.evidence


def test_models_that_have_not_learned_the_task_are_left_out():
    rows = made_up(alone_best=0.0)
    rows = IOIMaps.table(rows.assign(accuracy=[1.0, 0.5, 0.5]))
    assert rows["solved"].tolist() == [True, False, False]
    rows.loc[0, "alone_best"] = 0.8
    assert CLAIMS["one-block-mixes-tokens-for-the-answer"].check(rows).outcome == "supported"
    verdict = CLAIMS["one-tap-looks-back"].check(IOIMaps.table(rows.assign(accuracy=0.5)))
    assert "no row has solved = True" in verdict.evidence
