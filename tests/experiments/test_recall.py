"""Models of the recall studies: architectures, batches, what is read off a patched model."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from experiments import recall
from experiments.interventions import effects
from experiments.interventions.attribution import attribution_grid
from experiments.interventions.corruptions import corrupt
from experiments.interventions.interchange import interchange
from experiments.interventions.layers import COMPONENTS
from experiments.interventions.patches import patch
from experiments.recall import ARCHITECTURES, INNER, POSITIONS
from experiments.recall_batches import ShortAndLong, questions
from experiments.tasks.associative_recall import AssociativeRecall
from experiments.tasks.recall import IGNORED

TASK = AssociativeRecall(num_pairs=3, num_keys=6, num_values=6)


def made(architecture, layers=2, mlp=False):
    return recall.build(architecture, TASK, d=8, layers=layers, mlp=mlp, length=12, seed=0)


def key_pair(documents=12):
    return corrupt(TASK.sample(documents, seed=0, split="test"), "key", TASK, seed=0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("layers", "mlp"), [(1, False), (3, True)])
def test_every_architecture_answers_questions(architecture, layers, mlp):
    model = made(architecture, layers, mlp)
    behind = mlp and not architecture.startswith("mamba")
    assert len(model.blocks) == layers * (1 + behind)
    loss = recall.cross_entropy(model, ShortAndLong(task=TASK, batch_size=4, seed=0)(0))
    assert math.isfinite(loss.item())


def test_names_say_the_width_of_the_convolution():
    assert isinstance(made("mamba-conv-0").blocks[0].mixer.conv1d, nn.Identity)
    for width in (1, 2, 3):
        mixer = made(f"mamba-conv-{width}").blocks[0].mixer
        assert mixer.conv1d.weight.shape[-1] == width
    assert made("mamba").blocks[0].mixer.conv1d.weight.shape[-1] == 4
    assert made("based-conv-2").config.mixers["base-conv"]["d_conv"] == 2
    assert made("based-conv-long").config.layers == ("long-base-conv", "taylor-attention")
    assert made("based", 3).config.layers == ("base-conv", "taylor-attention", "base-conv")


def test_unknown_architectures_are_refused():
    with pytest.raises(ValueError, match="architecture must be one of"):
        made("transformer")


def test_batches_are_short_and_long_and_follow_from_the_step():
    batches = ShortAndLong(task=TASK, batch_size=5, seed=3)
    pairs = set()
    for step in range(30):
        tokens, at, answers = batches(step)
        n = at.shape[1]
        pairs.add(n)
        assert tokens.shape == (5, 3 * n + 2 if n > 1 else 7)  # a single answer is written
        assert (answers != IGNORED).all()
        for again, first in zip(batches(step), (tokens, at, answers), strict=True):
            assert again.equal(first)
        values = tokens[:, 2 : 2 * n + 1 : 2].sort(dim=1).values
        assert answers.sort(dim=1).values.equal(values)  # every pair is asked for
    assert pairs == {1, 2, 3}
    assert not batches(0)[0].equal(replace(batches, seed=4)(0)[0])


def test_fewer_questions_than_columns_are_ignored():
    documents = TASK.sample(4, seed=0)
    tokens, at, answers = questions(documents, 2)
    assert tokens.equal(documents.tokens)
    assert at[:, 0].equal(documents.positions["query"])
    assert answers[:, 0].equal(documents.answer)
    assert (answers[:, 1] == IGNORED).all()


def test_accuracy_counts_right_answers():
    documents = TASK.sample(50, seed=0)
    model = made("attention")
    logits = model(documents.tokens)
    query = documents.positions["query"]
    best = logits[torch.arange(50), query].argmax(-1)
    assert recall.accuracy(model, documents) == (best == documents.answer).double().mean()


@pytest.mark.parametrize("architecture", ["attention", "mamba", "delta-net"])
def test_the_grid_has_every_cell_at_its_place(architecture, monkeypatch):
    # Random models tell clean from corrupted documents by a little only, of either sign.
    monkeypatch.setattr(effects, "SMALLEST_GAP", -math.inf)
    model, pair = made(architecture).double(), key_pair()
    found = recall.grid(model, pair)
    components = (*COMPONENTS, *(f"mixer.{site}" for site in INNER))
    assert found["grid_ratio"].shape == (2, len(components), len(POSITIONS))
    for component, position in (("block_input", "value"), ("mixer_output", "query")):
        cells = attribution_grid(model, pair, [component], [position])
        at = found["grid_ratio"][:, components.index(component), POSITIONS.index(position)]
        np.testing.assert_allclose(at, cells["ratio"])
    here = found["grid_ratio"][0, components.index("block_input")]
    np.testing.assert_allclose(here[[0, 4, 6]], [1, 0, 0], atol=1e-5)  # key, divider, answer
    assert np.isnan(found["grid_ratio"][:, components.index("mlp_output")]).all()
    absent = "mixer.delta" if architecture == "attention" else "mixer.h_read.{t}"
    missing = np.isnan(found["grid_ratio"][:, components.index(absent)]).all()
    assert missing == (architecture == "attention")
    second = recall.at_second_layer(model, pair)
    assert second["at_value"] == pytest.approx(
        found["grid_ratio"][1, 0, POSITIONS.index("value")], abs=1e-6
    )


def test_exactness_counts_the_tests_that_fail(monkeypatch):
    model, pair = made("based"), key_pair()
    found = recall.exactness(model, pair)
    assert found["self_test"] < 1e-4
    assert (found["inexact"], found["patched_runs"]) == (0, 60)
    monkeypatch.setattr(recall, "EXACT", -1.0)
    assert recall.exactness(model, pair)["inexact"] == 5


def test_one_layer_has_no_second():
    assert recall.at_second_layer(made("mamba", layers=1), key_pair()) == {}


def test_convolutions_of_all_layers_are_patched_behind_the_key():
    assert recall.bound_by_convolution(made("attention"), key_pair()) == {}
    assert recall.bound_by_convolution(made("mamba-conv-0"), key_pair()) == {}
    found = recall.bound_by_convolution(made("mamba"), key_pair())
    assert set(found) == {"sufficient", "necessary"}


def test_tokens_behind_the_key_are_patched_together(monkeypatch):
    monkeypatch.setattr(effects, "SMALLEST_GAP", -math.inf)
    model, pair = made("attention").double(), key_pair()
    found = recall.at_second_layer(model, pair)
    (effect,) = interchange(model, pair, [patch("blocks.1.resid_pre", at=recall.BEHIND_KEY)])
    assert found["at_behind_key"] == pytest.approx(effect.ratios(np.ones((1, 12))).item())
    assert found["at_behind_key"] != pytest.approx(found["at_value"], rel=1e-3)


def test_training_records_accuracy_and_mechanism_on_one_axis():
    outcome = recall.fit(
        made("based"), ShortAndLong(task=TASK, batch_size=8, seed=0), TASK.sample(20, seed=1),
        learning_rate=3e-3, steps=4, target=1.0, seed=0, watched=key_pair(), evaluate_every=2,
    )  # fmt: skip
    assert list(outcome.evaluations) == [0, 2, 4]
    for metrics in outcome.evaluations.values():
        assert {"accuracy", "at_key", "at_value", "at_query"} <= set(metrics)
