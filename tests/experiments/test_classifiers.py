"""Classifiers: losses by hand, outputs by definition, training against plain Adam."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from experiments import classifiers
from experiments.classifiers import (
    build,
    cross_entropy,
    fit,
    last_outputs,
    margin,
    outputs_on,
    risk,
)
from experiments.models.selective_ssm import SelectiveSSM
from experiments.tasks import listops, majority
from experiments.tasks.sequences import LabelledSequences
from tests.experiments.blocks import block
from tests.experiments.checkpoints import run_single_block

NAN, INF = math.nan, math.inf


def sequences(tokens, labels, *, vocab_size: int, n_classes: int = 2) -> LabelledSequences:
    tokens = torch.as_tensor(tokens)
    return LabelledSequences(
        tokens=tokens,
        labels=torch.as_tensor(labels),
        lengths=torch.full((len(tokens),), tokens.shape[1]),
        vocab_size=vocab_size,
        n_classes=n_classes,
    )


class Lookup(nn.Module):
    """The outputs at every position are the row of a table that its token names."""

    def __init__(self, table: list[list[float]]) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def forward(self, tokens: Tensor, at: Tensor) -> Tensor:
        return torch.take_along_dim(self.table[tokens], at[..., None], dim=1)


def risk_of(outputs: list[list[float]], labels: list[int]):
    """The risk of a model with these outputs, one row for each sample."""
    tokens = [[0, i] for i in range(len(outputs))]
    data = sequences(tokens, labels, vocab_size=len(outputs), n_classes=max(2, len(outputs[0])))
    return risk(Lookup(outputs), data)


# Losses


def test_margin_of_one_output_is_it_with_the_sign_of_the_label():
    found = margin(torch.tensor([[2.0], [-0.5], [0.25], [-3.0]]), torch.tensor([1, 1, 0, 0]))
    assert found.tolist() == [2.0, -0.5, -0.25, 3.0]


def test_margin_of_several_outputs_is_over_the_best_other_one():
    z = torch.tensor([[1.0, 3, 2], [1, 3, 2], [0.5, 0.5, -1], [-9, -9, -8]])
    assert margin(z, torch.tensor([1, 0, 0, 2])).tolist() == [1, -2, 0, 1]


def test_risk_of_one_output_by_hand():
    found = risk_of([[2.0], [0.25], [-0.5], [0.0], [NAN], [INF], [-INF]], [1] * 7)
    assert found.error == pytest.approx(4 / 7)
    assert found.ramp == pytest.approx((0 + 0.75 + 1 + 1 + 1 + 0 + 1) / 7)
    # With the other labels, right and wrong change places, but zero and NaN stay wrong.
    found = risk_of([[2.0], [0.25], [-0.5], [0.0], [NAN], [INF], [-INF]], [0] * 7)
    assert found.error == pytest.approx(5 / 7)
    assert found.ramp == pytest.approx((1 + 1 + 0.5 + 1 + 1 + 1 + 0) / 7)


def test_risk_of_several_outputs_by_hand():
    outputs = [[1, 3, 2.5], [4, 1, 0], [1, 1, 0], [0, NAN, 9], [NAN, 0, 9], [INF, INF, 0],
               [INF, 0, 0]]  # fmt: skip
    found = risk_of(outputs, [1, 0, 0, 1, 2, 0, 0])
    assert found.error == pytest.approx(4 / 7)
    assert found.ramp == pytest.approx((0.5 + 0 + 1 + 1 + 1 + 1 + 0) / 7)


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)
LABELLED = st.lists(st.tuples(FLOATS, st.integers(0, 1)), min_size=1, max_size=8)


@given(LABELLED)
def test_one_output_is_the_second_of_two_whose_first_is_zero(drawn):
    z, labels = [z for z, _ in drawn], [label for _, label in drawn]
    assert risk_of([[x] for x in z], labels) == risk_of([[0.0, x] for x in z], labels)


@given(LABELLED)
def test_ramp_lies_between_the_errors_at_margins_zero_and_one(drawn):
    z = torch.tensor([[z] for z, _ in drawn])
    labels = torch.tensor([label for _, label in drawn])
    found = risk_of(z.tolist(), labels.tolist())
    below_one = 1 - (margin(z, labels) >= 1).double().mean().item()
    assert found.error <= found.ramp + 1e-12
    assert found.ramp <= below_one + 1e-12


def test_cross_entropy_is_that_of_the_formulas():
    labels = torch.tensor([0, 1, 1])
    z = torch.tensor([[0.5], [-2.0], [3.0]], dtype=torch.float64)
    expected = [math.log1p(math.exp(x)) for x in (0.5, 2.0, -3.0)]
    assert cross_entropy(z, labels).item() == pytest.approx(sum(expected) / 3)
    z = torch.tensor([[1.0, 2, 3], [0, -1, 4], [2, 2, 2]], dtype=torch.float64)
    labels = torch.tensor([2, 1, 0])
    expected = [math.log(sum(math.exp(x - row[y]) for x in row))
                for row, y in zip(z.tolist(), labels.tolist(), strict=True)]  # fmt: skip
    assert cross_entropy(z, labels).item() == pytest.approx(sum(expected) / 3)


@given(st.lists(st.tuples(st.floats(-1e4, 1e4), st.integers(0, 1)), min_size=1, max_size=8))
def test_cross_entropy_of_one_output_is_that_of_two_and_bounds_the_error(drawn):
    z = torch.tensor([[z] for z, _ in drawn], dtype=torch.float64)
    labels = torch.tensor([label for _, label in drawn])
    loss = cross_entropy(z, labels).item()
    two = torch.cat([torch.zeros_like(z), z], dim=1)
    assert loss == pytest.approx(cross_entropy(two, labels).item(), rel=1e-12, abs=1e-12)
    wrong = (margin(z, labels) <= 0).double().mean().item()
    assert wrong * math.log(2) <= loss + 1e-12


# Outputs


@pytest.mark.parametrize("outputs", [1, 4])
def test_last_outputs_of_a_single_block_are_those_of_its_definition(outputs):
    model = block(outputs=outputs).double()
    tensors = {name: x.detach().numpy() for name, x in model.state_dict().items()}
    tokens = np.random.default_rng(0).integers(3, size=(4, 6))
    expected = [run_single_block(tensors, row)[-1] for row in tokens]
    found = last_outputs(model, torch.tensor(tokens)).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_last_outputs_of_a_backbone_are_those_after_the_padding():
    data = listops.train(m=6, T=9, seed=0)
    model = build("mamba", data, d=4, N=2, s_A=0.0, seed=0)
    z = model(data.tokens)
    torch.testing.assert_close(last_outputs(model, data.tokens), z[:, -1])
    assert z.shape == (6, 13, 10)
    ends = z[torch.arange(6), data.lengths - 1]
    assert not torch.allclose(last_outputs(model, data.tokens), ends)


@pytest.mark.parametrize("kind", ["single", "mamba"])
@pytest.mark.parametrize("tokens_of_a_batch", [1, 20, 47])
def test_outputs_do_not_depend_on_the_batches(kind, tokens_of_a_batch, monkeypatch):
    data = majority.train(m=11, T=6, seed=0)
    model = build(kind, data, d=4, N=2, s_A=-0.1, seed=0).double()
    at_once = last_outputs(model, data.tokens).detach()
    monkeypatch.setattr(classifiers, "_TOKENS", tokens_of_a_batch)
    found = outputs_on(model, data)
    torch.testing.assert_close(found, at_once, rtol=1e-9, atol=1e-9)
    assert not found.requires_grad
    assert found.dtype == torch.float64


# Models and training


def test_new_models_fit_their_data():
    binary, digits = majority.train(m=4, T=5, seed=0), listops.train(m=4, T=9, seed=0)
    for data, outputs in ((binary, 1), (digits, 10)):
        single = build("single", data, d=4, N=3, s_A=0.05, seed=1)
        assert isinstance(single, SelectiveSSM)
        assert single.spectral_abscissa == pytest.approx(0.05)
        assert single.ssm["A"].shape == (4, 3)
        mamba = build("mamba", data, d=4, N=3, s_A=0.05, seed=1)
        assert mamba.blocks[0].mixer.A_log.shape[1] == 3
        for model in (single, mamba):
            assert last_outputs(model, data.tokens).shape == (4, outputs)
    with pytest.raises(ValueError, match="model is 'single' or 'mamba', got 'rnn'"):
        build("rnn", binary, d=4, N=3, s_A=0.0, seed=0)


def loss_on(model: nn.Module, data: LabelledSequences) -> float:
    return cross_entropy(outputs_on(model, data), data.labels).item()


def trained(kind: str, *, seed: int = 0, epochs: int = 6):
    """A model that has learned to tell what the last token is, and how that went."""
    tokens = torch.randint(2, (64, 5), generator=torch.Generator().manual_seed(0))
    data = sequences(tokens, tokens[:, -1], vocab_size=2)
    model = build(kind, data, d=4, N=2, s_A=-0.1, seed=0)
    outcome = fit(
        model, data, epochs=epochs, batch_size=24, seed=seed,
        evaluate=lambda model: {"loss": loss_on(model, data), "error": risk(model, data).error},
    )  # fmt: skip
    return model, outcome


@pytest.mark.parametrize("kind", ["single", "mamba"])
def test_training_learns_and_is_deterministic(kind):
    model, outcome = trained(kind)
    assert outcome.status == "finished"
    assert list(outcome.evaluations) == [3 * epoch for epoch in range(7)]
    assert outcome.final["loss"] < 0.7 * outcome.evaluations[0]["loss"]
    assert len(outcome.losses) == 6
    again, same = trained(kind)
    assert same.evaluations == outcome.evaluations
    for x, y in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(x, y)
    _, other = trained(kind, seed=1)
    assert other.evaluations[0] == outcome.evaluations[0]
    assert other.losses != outcome.losses


def test_training_is_adam_with_a_penalty_and_clipped_gradients():
    """Whole batches, so that their order does not matter; fewer epochs than a plateau lasts."""
    data = majority.train(m=16, T=12, seed=0)
    model = build("single", data, d=3, N=2, s_A=0.3, seed=0).double()
    plain = copy.deepcopy(model)
    fit(model, data, epochs=4, batch_size=16, seed=0, evaluate=lambda model: {})
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01, weight_decay=1e-5)
    norms = []
    for _ in range(4):
        optimizer.zero_grad()
        signs = torch.where(data.labels == 1, 1.0, -1.0)
        nn.functional.softplus(-signs * plain(data.tokens)[:, 0]).mean().backward()
        norms.append(nn.utils.clip_grad_norm_(plain.parameters(), 5.0).item())
        optimizer.step()
    assert max(norms) > 5
    for x, y in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-7, atol=1e-9)
