"""Classifiers: bounds against the theorems' own, and the price of quantised models."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds import published
from bounds.compression import occam_bound, quantise
from bounds.generalization import generalization_gap
from bounds.losses import multiclass_margin, ramp
from bounds.ssm import SelectiveSSMClass
from bounds.stratification import stratify
from experiments.classifiers import (
    BITS,
    DELTA,
    audited,
    build,
    fit,
    log10_bounds,
    occam_risk,
    quantised,
    risk,
)
from experiments.models.selective_ssm import SelectiveSSM
from experiments.tasks import majority
from tests.experiments.blocks import block

# Norm-based, hybrid, parameter-counting and published bounds


def observed(model: SelectiveSSM) -> dict[str, float]:
    """The budgets of a block, from its weights."""
    tensors = {name: x.detach().double().numpy() for name, x in model.state_dict().items()}
    E, A, q = (tensors[name] for name in ("embedding.weight", "ssm.A", "ssm.q_delta"))
    p = tensors["ssm.p_delta"].item()
    budgets = dict(
        s_A=A.max(), a_lo=A.min(), p_lo=p, p_hi=p, M_A=np.abs(A).sum(),
        B_u=np.linalg.norm(E, axis=1).max(), M_E=np.abs(E).sum(),
        B_q=np.linalg.norm(q), M_q=np.abs(q).sum(),
    )  # fmt: skip
    for name, X in (
        ("w", np.atleast_2d(tensors["w"] if "w" in tensors else tensors["W"])),
        ("B", tensors["ssm.W_B"]),
        ("C", tensors["ssm.W_C"]),
    ):
        budgets |= {f"B_{name}": np.linalg.norm(X, 2), f"M_{name}": np.abs(X).sum()}
        if name != "w":
            budgets[f"F_{name}"] = np.linalg.norm(X)
    return {name: float(value) for name, value in budgets.items()}


OURS = {"norm", "hybrid", "parameter"}
KINDS = {
    "stable": (-0.2, 1, OURS | {"published"}),
    "threshold": (0.0, 1, OURS),
    "unstable": (0.1, 1, OURS),
    "several outputs": (-0.2, 4, {"norm", "parameter"}),
    "several outputs, unstable": (0.1, 4, {"norm", "parameter"}),
}


@pytest.mark.parametrize("m", [20, 10**13])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_those_of_the_theorems(kind, m):
    s_A, outputs, names = KINDS[kind]
    model = block(s_A=s_A, outputs=outputs, scale=0.3)
    report = audited(model, m=m, T=3)
    assert (report.m, report.T, report.delta) == (m, 3, DELTA)
    found = log10_bounds(report)
    assert set(found) == names
    assert all(math.isfinite(value) for value in found.values())
    budgets = observed(model)
    stratum = stratify(budgets, d=2, N=3, outputs=outputs, vocab=3)
    loss = ramp() if outputs == 1 else multiclass_margin()
    gap = generalization_gap(
        stratum.ssm, m=m, T=3, delta=DELTA, loss=loss, union_cost=stratum.union_cost
    )
    for name in names - {"published"}:
        assert min(1, 10 ** found[name]) == pytest.approx(gap[f"gap_{name}"], rel=1e-9)
        assert (10 ** found[name] < 1) == (m > 20)
    if "published" in names:
        ssm = SelectiveSSMClass(d=2, N=3, **{k: v for k, v in budgets.items() if k != "M_E"})
        theirs = published.generalization_gap(ssm, m=m, T=3, delta=DELTA, loss=ramp())
        slack = 3 * math.sqrt(math.log(2 / 0.05) / (2 * m))
        assert 10 ** found["published"] == pytest.approx(
            24 * theirs["C"] / math.sqrt(m) + slack, rel=1e-6
        )
        # The logarithm left out is of no account where both are vacuous, and only there.
        assert min(1, 10 ** found["published"]) <= float(theirs)
        assert (min(1, 10 ** found["published"]) == float(theirs)) == (m == 20)


def test_bounds_of_a_growing_model_have_finite_logarithms():
    found = log10_bounds(audited(block(s_A=3.0), m=1000, T=10_000))
    assert set(found) == OURS
    assert found["norm"] > 400
    assert all(math.isfinite(value) for value in found.values())


def test_no_certified_bound_is_below_the_measured_gap():
    """Of few weights and many samples, so that counting parameters says something."""
    data, fresh = majority.train(m=2**17, T=4, seed=0), majority.fresh(m=2**14, T=4, seed=0)
    model = build("single", data, d=1, N=1, s_A=-0.1, seed=2)
    fit(model, data, epochs=1, batch_size=2**12, seed=0, evaluate=lambda model: {})
    gap = risk(model, fresh).ramp - risk(model, data).ramp
    bounds = log10_bounds(audited(model, m=data.m, T=data.T))
    assert 10 ** bounds["parameter"] < 0.5
    assert all(gap <= 10 ** bounds[name] for name in OURS)


# Quantised models


@pytest.mark.parametrize("bits", [1, 2, 8])
@pytest.mark.parametrize("kind", ["single", "mamba"])
def test_quantised_models_are_what_their_bits_describe(kind, bits):
    data = majority.train(m=4, T=5, seed=0)
    model = build(kind, data, d=4, N=2, s_A=-0.1, seed=0)
    before = copy.deepcopy(model.state_dict())
    lossy, length = quantised(model, bits=bits), 0
    for x, y in zip(model.parameters(), lossy.parameters(), strict=True):
        expected, spent = quantise(x.detach().double().numpy(), bits=bits)
        torch.testing.assert_close(y.detach(), torch.tensor(expected).float(), rtol=0, atol=0)
        assert x.data_ptr() != y.data_ptr()
        assert len(y.unique()) <= 2**bits
        length += spent
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert any(not torch.equal(x, before[name]) for name, x in lossy.state_dict().items())
    # What is paid for is the length of the message.
    counted = sum(x.numel() for x in model.parameters())
    assert length == bits * counted + 8 * len(list(model.parameters()))
    price = (length * math.log(2) + math.log(1 / DELTA)) / 10**5
    found = occam_risk(model, train_error=0.0, m=10**5, bits=bits)
    assert found == pytest.approx(1 - math.exp(-price), rel=1e-9)


def test_frozen_parameters_are_quantised_as_well():
    model = block()
    model.ssm["A"].requires_grad_(False)
    assert not torch.equal(quantised(model, bits=3).ssm["A"], model.ssm["A"])


def test_occam_risk_counts_every_parameter():
    model, d, N, V = block(outputs=4), 2, 3, 3
    n_parameters = V * d + 4 * d + d * N + 2 * N * d + d + 1
    given = dict(train_error=0.1, m=2000, delta=DELTA, bits=BITS)
    found = occam_risk(model, train_error=0.1, m=2000)
    assert found == float(occam_bound(**given, n_parameters=n_parameters, n_tensors=7))
    for wrong in (
        dict(n_parameters=n_parameters - 1, n_tensors=7),
        dict(n_parameters=n_parameters, n_tensors=6),
    ):
        assert found > float(occam_bound(**given, **wrong))


@given(
    errors=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
    samples=st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)).map(sorted),
    bits=st.tuples(st.integers(1, 16), st.integers(1, 16)).map(sorted),
)
@settings(max_examples=40)
def test_occam_risk_grows_with_the_error_and_falls_with_the_samples(errors, samples, bits):
    model = block()
    low, high = errors
    few, many = samples
    coarse, fine = bits
    found = occam_risk(model, train_error=low, m=many, bits=coarse)
    assert low <= found <= 1
    for other in (
        occam_risk(model, train_error=high, m=many, bits=coarse),
        occam_risk(model, train_error=low, m=few, bits=coarse),
        occam_risk(model, train_error=low, m=many, bits=fine),
    ):
        assert found <= other + 1e-12
