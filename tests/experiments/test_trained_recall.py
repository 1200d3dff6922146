"""Trained factual recall: tables with known answers, numbers of the tasks, knock-outs, refusals."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments import prompted
from experiments.studies import factual_recall, trained_recall
from experiments.studies.factual_recall import SCALINGS, FactualRecallCapacity, numbers
from experiments.studies.factual_trade_off import FactualTradeOff, _exchange_rates
from experiments.study import Study

SHORT = {"max_steps": (20,), "batch_size": (32,), "seed": (0, 1)}


def claim_of(study: type[Study], name: str):
    return next(claim for claim in study.claims if claim.name == name)


def run(*models: tuple[int, int, float]) -> pandas.DataFrame:
    """Models of one draw: attention and MLP parameters, accuracy."""
    rows = pandas.DataFrame(models, columns=["attention_parameters", "mlp_parameters", "accuracy"])
    return rows.assign(width=rows["mlp_parameters"] // 10)


ALONE = ((100, 0, 0.2), (200, 0, 0.6), (400, 0, 0.5), (600, 0, 0.9))


def test_exchange_rates_of_a_table_made_by_hand():
    """200 recall 0.6, 600 recall 0.9, and 400 no more than 200: 0.7 needs 200 + 400/3."""
    rows = run(*ALONE, (100, 50, 0.4), (100, 50, 0.7), (400, 50, 0.5), (200, 100, 0.6))
    found = _exchange_rates(rows)
    assert np.isnan(found[:4]).all()
    expected = [(150 - 100) / 50, (200 + 400 / 3 - 100) / 50, (175 - 400) / 50, 0]
    np.testing.assert_allclose(found[4:], expected)
    shuffled = rows.sample(frac=1, random_state=0)
    np.testing.assert_allclose(_exchange_rates(shuffled), found[shuffled.index])


def test_exchange_rates_are_nan_beyond_attention_alone():
    rows = run(*ALONE, (100, 50, 0.9), (100, 50, 1.0), (100, 50, 0.1))
    assert np.isnan(_exchange_rates(rows)).all()
    for alone in ((), ALONE[:1]):
        assert np.isnan(_exchange_rates(run(*alone, (100, 50, 0.4)))).all()


def traded(rate: float) -> pandas.DataFrame:
    """Rows of models that recall as if an MLP parameter were so many of attention."""
    rows = []
    for trial in FactualTradeOff(seed=(0, 1, 2), heads=(1, 2, 4, 8, 16, 32)).trials():
        c = trial.config
        attention, mlp = 4 * c["heads"] * c["head_dim"] * c["d"], 2 * c["width"] * c["d"]
        recalled = (attention + rate * mlp) / (9000 + 10 * c["seed"])
        row = dict(
            c, accuracy=min(1.0, recalled), attention_parameters=attention, mlp_parameters=mlp,
            parameters=attention + mlp,
        )  # fmt: skip
        if mlp:
            row |= dict(accuracy_without_mlp=0.0, accuracy_without_attention=1.0)
        rows.append(row)
    return pandas.DataFrame(rows)


@pytest.mark.parametrize(
    ("rate", "least", "most"),
    [(2.0, "supported", "supported"), (0.5, "refuted", "supported"), (4.5, "supported", "refuted")],
)
def test_claims_on_exchange_rates_find_the_true_one(rate, least, most):
    table = FactualTradeOff.table(traded(rate))
    counted = table[table["carried"]]
    np.testing.assert_allclose(counted["exchange_rate"], rate, rtol=1e-9)
    assert (counted["heads"] * counted["head_dim"] >= counted["d"]).all()
    assert claim_of(FactualTradeOff, "mlp-replaces-attention").check(table).outcome == least
    assert claim_of(FactualTradeOff, "mlp-replaces-at-most-four").check(table).outcome == most


def test_models_that_diverged_and_grids_without_mlp_have_no_knock_out():
    rows = traded(2.0)
    knocked = ["accuracy_without_mlp", "accuracy_without_attention"]
    wide = (rows["width"] == 48) & (rows["heads"] == 4)
    rows.loc[wide, ["accuracy", *knocked]] = 0.0, math.nan, math.nan
    table = FactualTradeOff.table(rows)
    assert not table.loc[wide, ["with_mlp", "wide"]].to_numpy().any()
    assert table.loc[~wide, "with_mlp"].equals(table.loc[~wide, "width"] > 0)
    alone = FactualTradeOff.table(rows[rows["width"] == 0].drop(columns=knocked))
    for claim in FactualTradeOff.claims:
        claim.check(table)
        claim.check(alone)


@pytest.mark.parametrize(("power", "outcome"), [(1.0, "supported"), (2.0, "refuted")])
def test_capacities_that_are_not_linear_are_refuted(power, outcome):
    study = FactualRecallCapacity(scaling=("answers-fixed",), load=tuple(np.geomspace(0.2, 5, 24)))
    rows = [
        dict(
            c, N=round(100 * c["load"] * (1 + 0.05 * c["seed"]) * (c["d"] / 8) ** (2 * power)),
            best_accuracy=1.0 if c["load"] < 1 else 0.5,
        )
        for c in (trial.config for trial in study.trials())
    ]  # fmt: skip
    table = FactualRecallCapacity.table(pandas.DataFrame(rows))
    claim = claim_of(FactualRecallCapacity, "facts-linear-in-parameters-answers-fixed")
    assert claim.check(table).outcome == outcome
    np.testing.assert_allclose(table["parameters"], 8 * table["d"] ** 2)


@given(
    st.sampled_from(SCALINGS), st.integers(2, 16), st.floats(30, 1e5), st.floats(1, 2)
)  # fmt: skip
def test_tasks_have_about_the_bits_asked_for(scaling, D, bits, factor):
    S, R, found = numbers(scaling, D, bits)
    held = S * R * math.log2(found)
    smallest = {"answers-fixed": 4, "relations-square-root": 8, "answers-distinct": 4}[scaling]
    if S * R > smallest:
        # Whole numbers: half a subject more or less, and half a relation.
        slack = (1 + 0.5 / (S - 0.5)) * (1 + 0.5 / (R - 0.5))
        if scaling == "answers-distinct":
            slack *= math.log2(S + 1) / math.log2(S)
        assert 1 / slack / 1.01 < held / bits < slack * 1.01
    more = numbers(scaling, D, bits * factor)
    assert more[0] >= S
    assert more[1] >= R
    assert found == (S if scaling == "answers-distinct" else D)


def test_bits_of_perfect_and_of_guessed_answers():
    rows = pandas.DataFrame(
        {"S": [6, 6, 6, 6], "R": [5, 5, 5, 5], "D": [4, 4, 4, 4], "accuracy": [1, 0.25, 0.1, 0.0]}
    )
    np.testing.assert_allclose(trained_recall.bits_held(rows), [60, 0, 0, 0], atol=1e-9)
    half = float(trained_recall.bits_held(rows.assign(accuracy=0.5))[0])
    assert half == pytest.approx(30 * (2 - 1 - 0.5 * math.log2(3)))


def test_batches_hold_every_trial_once_and_draws_of_a_size_together(monkeypatch):
    study = FactualTradeOff(heads=(1, 4), width=(0, 8))
    monkeypatch.setattr(trained_recall, "_BATCH", 1.0)
    alone = study.batches(study.trials())
    assert [len(batch) for batch in alone] == [1] * len(study.trials())
    monkeypatch.undo()
    batches = study.batches(study.trials())
    ordered = [trial for batch in batches for trial in batch]
    assert set(ordered) == set(study.trials())
    shapes = [(trial.config["heads"], trial.config["width"]) for trial in ordered]
    changes = sum(one != other for one, other in zip(shapes[1:], shapes, strict=False))
    assert changes == 3


def test_knock_outs_are_measured_where_there_is_an_mlp():
    study = FactualTradeOff(heads=(2,), width=(0, 8), **SHORT)
    trials = study.trials()
    members = [study.member(**trial.config) for trial in trials]
    outcomes = dict(prompted.train(members))
    for trial, found in study.measure_together(trials):
        index = trials.index(trial)
        one, config = members[index], trial.config
        assert found["N"] == config["S"] ** 2
        assert found["accuracy"] == outcomes[index].accuracy
        assert found["parameters"] == found["attention_parameters"] + found["mlp_parameters"]
        for path in ("attention", "mlp"):
            assert (f"accuracy_without_{path}" in found) == (config["width"] > 0)
        if config["width"]:
            task = one.task
            pairs = torch.arange(task.S * task.R).repeat(4)
            generator = torch.Generator().manual_seed(config["seed"] + 1)
            asked = task.ask(pairs // task.R, pairs % task.R, generator)
            with torch.no_grad():
                x = one.model.attended(asked.tokens)
                term = one.model.mlp(x)
            for path, out in (("mlp", x + term.mean(0)), ("attention", x.mean(0) + term)):
                best = (out @ one.model.unembedding.mT).argmax(1)
                share = (best == asked.answer).double().mean().item()
                assert found[f"accuracy_without_{path}"] == pytest.approx(share, abs=2e-3)


def test_models_that_diverge_are_not_knocked_out():
    study = FactualTradeOff(heads=(2,), width=(8,), learning_rate=(1e38,), **SHORT)
    for _, found in study.measure_together(study.trials()):
        assert found["diverged"]
        assert "accuracy_without_mlp" not in found


def test_heads_without_a_dimension_and_unknown_scalings_are_refused():
    config = dict(FactualRecallCapacity().trials()[0].config)
    with pytest.raises(ValueError, match=r"head_ratio\*d/heads must be at least 1, got head_ratio"):
        FactualRecallCapacity.member(**config | {"head_ratio": 0.25})
    with pytest.raises(ValueError, match="scaling must be one of"):
        FactualRecallCapacity.member(**config | {"scaling": "cubic"})


@pytest.mark.parametrize("preset", FactualRecallCapacity.presets)
def test_every_preset_has_heads_with_dimensions(preset):
    study = FactualRecallCapacity.at(preset)
    for d in study.d:
        for heads in study.heads:
            for ratio in study.head_ratio:
                assert factual_recall._shape(d, heads, ratio, 1.0)[1] > 0
