"""Trained classifiers of a study: samples, what stays fixed, metrics of models made by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from bounds.compression import occam_bound
from experiments.classifiers import (
    DELTA,
    audited,
    build,
    fit,
    log10_bounds,
    quantised,
    risk,
)
from experiments.studies import generalization
from experiments.studies.certified_gap import CertifiedGap
from experiments.studies.gap_against_length import GapAgainstLength
from experiments.studies.gap_against_stability import GapAgainstStability
from experiments.studies.gap_on_tasks import GapOnTasks
from experiments.studies.generalization import Generalization, samples
from experiments.tasks import majority
from experiments.tasks.sequences import LabelledSequences
from tests.experiments.blocks import PADDED, by_hand

BOUNDS = ("norm", "hybrid", "parameter", "published")
POINT = dict(
    model="single", task="majority", d=3, N=2, s_A=-0.1, frozen=False, step_logit=None, T=9, m=32,
    steps=3, batch_size=16, seed=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """Risks are estimated on 300 new samples at most; none is kept for other tests."""
    samples.cache_clear()
    monkeypatch.setattr(generalization, "_FRESH", 300)
    yield
    samples.cache_clear()


@pytest.fixture
def untrained(monkeypatch):
    """Models are measured as they are made; what `fit` was asked for."""
    asked = {}

    def stub(net, data, **options):
        asked.update(options, data=data)
        return SimpleNamespace(status="finished", losses=(0.5,))

    monkeypatch.setattr(generalization, "fit", stub)
    return asked


def measured(**changes) -> dict:
    return Generalization.measure(np.random.default_rng(0), **{**POINT, **changes})


def same(one: LabelledSequences, other: LabelledSequences) -> bool:
    return torch.equal(one.tokens, other.tokens) and torch.equal(one.labels, other.labels)


# Samples


def test_majority_is_tested_on_another_distribution_than_it_is_trained_on():
    train, fresh, test = samples("majority", m=300, T=40, seed=0)
    ones = [sample.tokens.double().mean().item() for sample in (train, fresh, test)]
    # Half the inputs are ones, less a quarter of them where they are noisy.
    assert ones == pytest.approx([0.375, 0.375, 0.5], abs=0.06)
    assert test.labels.equal((2 * test.tokens.sum(1) > 40).long())
    for noisy in (train, fresh):
        assert not noisy.labels.equal((2 * noisy.tokens.sum(1) > 40).long())
    assert not same(train, fresh)
    assert (train.m, fresh.m, test.m) == (300, 300, 300)


@pytest.mark.parametrize("task", ["listops", "reviews"])
def test_other_tasks_are_tested_on_fresh_samples_of_their_distribution(task):
    train, fresh, test = samples(task, m=50, T=12, seed=0)
    assert fresh is test
    assert train.m == 50
    assert 50 <= test.m <= 300
    assert not same(train, LabelledSequences(**{
        name: getattr(test, name)[:50] for name in ("tokens", "labels", "lengths")
    }, vocab_size=test.vocab_size, n_classes=test.n_classes, pad=test.pad))  # fmt: skip
    assert (train.vocab_size, train.pad) == (test.vocab_size, test.pad)


@pytest.mark.parametrize("task", ["majority", "listops", "reviews"])
def test_samples_follow_from_the_seed(task):
    draw = samples.__wrapped__
    one, again, other = (draw(task, m=20, T=12, seed=seed) for seed in (0, 0, 1))
    assert all(same(x, y) for x, y in zip(one, again, strict=True))
    assert not any(same(x, y) for x, y in zip(one, other, strict=True))


def test_reviews_are_read_from_a_path(tmp_path):
    for split in ("train", "test"):
        for sentiment in ("neg", "pos"):
            for k in range(4):
                file = tmp_path / split / sentiment / f"{k}_{k}.txt"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"a {split} review, {sentiment} number {k}")
    train, fresh, test = samples(str(tmp_path), m=6, T=10, seed=0)
    assert fresh is test
    assert (train.m, test.m) == (6, 8)
    assert sorted(test.labels.tolist()) == [0] * 4 + [1] * 4


# What stays fixed in training


@pytest.mark.parametrize("s_A", [None, -0.3, 0.0, 0.02])
@pytest.mark.parametrize("step_logit", [None, -4.0, 0.5])
def test_what_is_frozen_stays_and_the_rest_is_trained(s_A, step_logit):
    data = majority.train(m=40, T=6, seed=0)
    net = build("single", data, d=3, N=2, s_A=-0.1, seed=0)
    start = {name: x.detach().clone() for name, x in net.named_parameters()}
    generalization._fix(net, s_A, step_logit)
    fit(net, data, epochs=2, batch_size=20, seed=0, evaluate=lambda net: {})
    fixed = {}
    if s_A is not None:
        fixed["ssm.A"] = s_A
    if step_logit is not None:
        fixed |= {"ssm.p_delta": step_logit, "ssm.q_delta": 0.0}
    for name, parameter in net.named_parameters():
        if name in fixed:
            assert torch.all(parameter == torch.tensor(fixed[name]))
        else:
            assert torch.all(parameter != start[name])
    with torch.no_grad(), net.record("delta") as seen:
        net(torch.tensor([[0, 1]]))
    if step_logit is not None:
        step = math.log1p(math.exp(step_logit))
        assert seen["delta"].flatten().tolist() == pytest.approx([step, step])
    else:
        assert seen["delta"][0, 0] != seen["delta"][0, 1]


def test_a_model_may_be_measured_with_everything_fixed():
    found = measured(frozen=True, s_A=0.0, step_logit=-1.0)
    assert found["final_s_A"] == 0
    assert found["growth"] == 0
    assert found["mean_step"] == pytest.approx(math.log1p(math.exp(-1)))
    assert math.isfinite(found["log10_norm"])


# Metrics


@pytest.mark.parametrize("s_A", [-0.5, 0.25])
def test_steps_and_stability_of_a_single_block(s_A):
    logits = [-1.0, 0.5, 2.0]
    net = by_hand(logits, s_A=s_A)
    found = generalization._of_single_block(net, PADDED)
    a, b, pad = (math.log1p(math.exp(v)) for v in logits)
    assert found["final_s_A"] == s_A
    assert found["pad_step"] == pytest.approx(pad)
    assert found["mean_step"] == pytest.approx((a + b + b + b + a + a) / 6)
    totals = (a + b + pad, b + b + a, a + pad + pad)
    assert found["growth"] == pytest.approx(max(s_A * total for total in totals))
    expected = log10_bounds(audited(net, m=3, T=3))
    assert ("published" in expected) == (s_A < 0)
    for name in BOUNDS:
        value = found[f"log10_{name}"]
        assert value == expected[name] if name in expected else math.isnan(value)


def test_bounds_that_are_not_defined_are_nan():
    data = LabelledSequences(**{**vars(PADDED), "n_classes": 3, "pad": None,
                                "lengths": torch.tensor([3, 3, 3])})  # fmt: skip
    found = generalization._of_single_block(by_hand([0.0, 1.0, 2.0], s_A=-0.5, outputs=3), data)
    missing = {name for name in BOUNDS if math.isnan(found[f"log10_{name}"])}
    assert missing == {"hybrid", "published"}
    assert "pad_step" not in found


def test_measurements_are_those_of_the_model(untrained):
    found = measured()
    train, fresh, test = samples("majority", m=32, T=9, seed=0)
    net = build("single", train, d=3, N=2, s_A=-0.1, seed=0)
    on_train, on_fresh, on_test = (risk(net, data) for data in (train, fresh, test))
    assert found["gap"] == on_fresh.error - on_train.error
    assert found["reported_gap"] == on_test.error - on_train.error
    assert found["ramp_gap"] == on_fresh.ramp - on_train.ramp
    for name, on in (("train", on_train), ("fresh", on_fresh), ("test", on_test)):
        assert found[f"{name}_error"] == on.error
    ones = test.labels.double().mean().item()
    assert found["guessing_error"] == pytest.approx(min(ones, 1 - ones))
    assert found["pad_share"] == 0
    n = 2 * 3 + 3 + 3 * 2 + 2 * 2 * 3 + 3 + 1
    assert found["parameters"] == n
    lossy = quantised(net)
    assert found["quantised_train_error"] == risk(lossy, train).error
    assert found["quantised_fresh_error"] == risk(lossy, fresh).error
    assert found["occam_risk"] == float(occam_bound(
        train_error=risk(lossy, train).error, m=32, delta=DELTA, n_parameters=n, n_tensors=7, bits=8
    ))  # fmt: skip
    rule = majority.bayes_rule(T=9)
    assert found["bayes_error"] == 1 - rule.noisy_accuracy
    assert found["bayes_clean_error"] == 1 - rule.clean_accuracy
    assert found["losses"].tolist() == [0.5]
    assert untrained["data"] is train


@pytest.mark.usefixtures("untrained")
def test_exchanging_training_and_fresh_samples_turns_the_gaps_around(monkeypatch):
    found = measured()
    drawn = samples("majority", m=32, T=9, seed=0)
    exchanged = generalization.Samples(drawn.fresh, drawn.train, drawn.test)
    monkeypatch.setattr(generalization, "samples", lambda task, **sizes: exchanged)
    turned = measured()
    assert found["gap"] != 0
    for name in ("gap", "ramp_gap"):
        assert turned[name] == -found[name]


@pytest.mark.parametrize(
    ("steps", "m", "batch_size", "epochs"),
    [(3, 32, 16, 2), (4, 32, 16, 2), (5, 33, 16, 2), (1, 32, 64, 1), (160, 200, 64, 40)],
)
def test_steps_are_rounded_up_to_epochs(untrained, steps, m, batch_size, epochs):
    measured(steps=steps, m=m, batch_size=batch_size)
    assert untrained["epochs"] == epochs


def test_a_model_that_learns_labels_by_heart_has_a_gap():
    found = measured(m=8, T=21, d=8, N=4, steps=60)
    assert found["train_error"] == 0
    assert found["gap"] == found["fresh_error"] > 0.1
    assert found["status"] == "finished"


@pytest.mark.parametrize(("task", "T"), [("listops", 12), ("reviews", 120)])
@pytest.mark.parametrize("model", ["single", "mamba"])
def test_tasks_with_padding(model, task, T):
    found = measured(model=model, task=task, d=4, T=T, frozen=model == "mamba")
    assert found["pad_share"] > 0
    assert found["reported_gap"] == found["gap"]
    assert not {"bayes_error", "bayes_clean_error"} & set(found)
    single = {"final_s_A", "mean_step", "growth", "pad_step", *(f"log10_{name}" for name in BOUNDS)}
    assert single & set(found) == (single if model == "single" else set())
    if model == "single":
        assert math.isnan(found["log10_hybrid"]) == (task == "listops")
    again = measured(model=model, task=task, d=4, T=T, frozen=model == "mamba")
    for name, value in found.items():
        np.testing.assert_array_equal(value, again[name])


@pytest.mark.parametrize("study", [GapAgainstLength, GapAgainstStability, GapOnTasks, CertifiedGap])
@pytest.mark.parametrize("preset", ["quick", "small"])
def test_grids_are_what_a_point_is_measured_with(study, preset):
    trials = study.at(preset).trials()
    assert all(trial.config.keys() == POINT.keys() for trial in trials)
    assert len({trial.key for trial in trials}) == len(trials)
