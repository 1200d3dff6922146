"""Studies of unstable starts: the initial loss, states of a training, and tables."""

from __future__ import annotations

import math

import numpy as np
import pandas
import pytest
import torch
from torch.nn.functional import softplus

from experiments.models.selective_ssm import SelectiveSSM
from experiments.studies import unstable_start
from experiments.studies.initial_loss import InitialLoss
from experiments.studies.start_sweep import StartSweep
from experiments.studies.unstable_start import UnstableStart
from experiments.tasks import majority
from tests.experiments.blocks import PADDED, by_hand
from tests.experiments.checkpoints import run_single_block


def test_slopes_of_the_initial_loss():
    steps = {0: (2.0, 0.5), 1: (0.4, 0.1)}
    rows = pandas.DataFrame([
        dict(s_A=0.1, seed=seed, T=T, largest_step=largest, smallest_step=smallest,
             log_loss=0.3 + 0.095 * largest * T)
        for seed, (largest, smallest) in steps.items()
        for T in (25, 50, 100)
    ])  # fmt: skip
    table = InitialLoss.table(rows)
    # Of the other model the state grows e^4 times at most.
    assert table["seed"].tolist() == [0]
    (row,) = table.to_dict("records")
    assert row["rate"] == pytest.approx(0.19)
    assert row["largest_step_rate"] == pytest.approx(0.2)
    assert row["share"] == pytest.approx(0.95)
    assert row["share_of_smallest"] == pytest.approx(3.8)


def test_initial_loss_of_a_new_model():
    found = InitialLoss.measure(np.random.default_rng(0), m=20, s_A=0.1, T=30, seed=0)
    model = SelectiveSSM(vocab_size=2, d=4, N=4, s_A=0.1, seed=0).double()
    tensors = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    tokens = majority.test(m=20, T=30, seed=0).tokens.numpy()
    z = np.array([run_single_block(tensors, row)[-1] for row in tokens])
    loss = (np.logaddexp(0, z) + np.logaddexp(0, -z)).mean() / 2
    assert found["log_loss"] == pytest.approx(math.log(loss))
    E, q, p = (tensors[k] for k in ("embedding.weight", "ssm.q_delta", "ssm.p_delta"))
    steps = np.logaddexp(0, E @ q + p)
    assert found["largest_step"] == pytest.approx(steps.max())
    assert found["smallest_step"] == pytest.approx(steps.min())


def test_starts_are_told_apart_by_their_loss():
    rows = pandas.DataFrame({
        "initial_loss": [0.7, 1e12, 1e13, 1e16, 2e16, math.inf],
        "succeeded": [True, False, True, False, True, False],
    })  # fmt: skip
    table = UnstableStart.table(rows)
    assert table["start"].tolist() == ["moderate", "moderate", "between", "between", "huge", "huge"]
    assert table["failed"].tolist() == [False, True, False, True, False, True]
    # As read back from files, where a column may hold objects.
    assert UnstableStart.table(rows.astype({"succeeded": object})).equals(
        table.astype({"succeeded": object})
    )


@pytest.mark.parametrize("s_A", [-0.5, 0.25])
def test_state_of_a_training(s_A):
    logits = [-1.0, 0.5, 2.0]
    net = by_hand(logits, s_A=s_A)
    found = unstable_start._state(net, PADDED)
    with torch.no_grad():
        z = net(PADDED.tokens)[:, 0]
    signs = torch.tensor([-1.0, 1, 1])
    assert found["loss"] == pytest.approx(softplus(-signs * z).mean().item())
    assert found["s_A"] == s_A
    steps = softplus(torch.tensor(logits))[PADDED.tokens].sum(1)
    assert found["growth"] == pytest.approx((s_A * steps).max().item())


@pytest.mark.parametrize("task", ["majority", "listops"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_training_from_an_unstable_start(task, precision):
    point = dict(m=24, s_A=0.1, T=12, seed=0, epochs=2)
    found = UnstableStart.measure(np.random.default_rng(0), precision=precision, task=task, **point)
    assert found["status"] == "finished"
    assert found["initial_s_A"] == pytest.approx(0.1)
    assert found["spectral_abscissas"].tolist()[0] == found["initial_s_A"]
    assert found["losses"].shape == (3,)
    assert (found["losses"][0], found["losses"][-1]) == (
        found["initial_loss"], found["final_loss"],
    )  # fmt: skip
    assert 0 < found["guessing"] <= math.log(2 if task == "majority" else 10)
    assert found["succeeded"] == (found["final_loss"] <= 1.1 * found["guessing"])


def test_the_sweep_is_measured_as_the_other_study():
    assert StartSweep.measure is UnstableStart.measure
    assert {trial.config["s_A"] > 0 for trial in StartSweep.at("quick").trials()} == {True, False}
