"""The position-wise network against its definition."""

import numpy as np
from scipy.special import erf

from tests.experiments.models.mixers.alone import Alone, inputs, run


def test_the_definition():
    model, x = Alone("mlp", ratio=3), inputs()
    out, seen = run(model, x)
    before = x.numpy() @ model.weight("in_proj.weight").T + model.weight("in_proj.bias")
    np.testing.assert_allclose(seen["preactivation"], before, rtol=1e-9, atol=1e-12)
    hidden = before * (1 + erf(before / 2**0.5)) / 2
    assert hidden.shape == (2, 7, 48)
    expected = hidden @ model.weight("out_proj.weight").T + model.weight("out_proj.bias")
    np.testing.assert_allclose(out, expected, rtol=1e-9, atol=1e-12)


def test_the_approximation_of_gpt_2_is_another_function():
    model, x = Alone("mlp", tanh=True), inputs()
    _, seen = run(model, x)
    before = seen["preactivation"]
    inner = (2 / np.pi) ** 0.5 * (before + 0.044715 * before**3)
    np.testing.assert_allclose(seen["hidden"], before * (1 + np.tanh(inner)) / 2, atol=1e-12)
    exact = before * (1 + erf(before / 2**0.5)) / 2
    assert 1e-6 < np.abs(seen["hidden"] - exact).max() < 5e-4  # the approximation's largest error


def test_it_mixes_no_positions():
    model, x = Alone("mlp"), inputs()
    np.testing.assert_allclose(model(x.flip(1)).detach(), model(x).flip(1).detach(), rtol=1e-12)
