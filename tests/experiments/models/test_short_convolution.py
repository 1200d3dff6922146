"""The short convolution against its definition, and its taps."""

import numpy as np
import pytest
import torch

from experiments.models.short_convolution import ShortConvolution
from experiments.models.sites import SitedModel


class Alone(SitedModel):
    def __init__(self, *args, **options):
        super().__init__()
        self.conv = ShortConvolution(*args, **options).double()

    def forward(self, a):
        return self.conv(a)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "length"), [(1, 4), (3, 5), (4, 2), (2, 1)])
def test_the_definition(width, length, bias):
    model = Alone(3, width, bias=bias)
    a = torch.randn(2, length, 3, dtype=torch.float64)
    weight = model.conv.weight.detach().numpy()[:, 0]
    expected = np.zeros(a.shape)
    for t in range(length):
        expected[:, t] = model.conv.bias.detach().numpy() if bias else 0
        for k in range(min(width, t + 1)):
            expected[:, t] += weight[:, width - 1 - k] * a[:, t - k].numpy()
    np.testing.assert_allclose(model(a).detach().numpy(), expected, rtol=1e-12, atol=1e-14)
    with model.record("conv.tap.*") as taps:
        np.testing.assert_allclose(model(a).detach().numpy(), expected, rtol=1e-12, atol=1e-14)
    assert list(taps) == [f"conv.tap.{k}" for k in range(width)]
    total = sum(taps.values()) + (model.conv.bias if bias else 0)
    np.testing.assert_allclose(total.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("width", "length"), [(3, 5), (4, 2), (2, 1)])
def test_gradients(width, length, bias):
    model = Alone(2, width, bias=bias)
    a = torch.randn(2, length, 2, dtype=torch.float64, requires_grad=True)
    parameters = list(model.parameters())
    assert torch.autograd.gradcheck(lambda a, *_: model(a), (a, *parameters))
    with model.record("conv.tap.*"):  # by torch, tap by tap
        by_tap = torch.autograd.grad(model(a).square().sum(), (a, *parameters))
    torch.testing.assert_close(
        torch.autograd.grad(model(a).square().sum(), (a, *parameters)), by_tap
    )


def test_half_precision_inputs():
    conv, a = ShortConvolution(3, 4), torch.randn(2, 6, 3)
    half = conv(a.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, conv(a.bfloat16().float()))
    half.sum().backward()
    assert conv.weight.grad.isfinite().all()


def test_weights_lie_as_those_of_a_depthwise_convolution_of_torch():
    conv, reference = ShortConvolution(5, 4), torch.nn.Conv1d(5, 5, 4, groups=5, padding=3)
    reference.load_state_dict(conv.state_dict())
    a = torch.randn(2, 9, 5)
    torch.testing.assert_close(conv(a), reference(a.mT)[..., :9].mT)
    assert conv.weight.abs().max() <= 0.5  # torch's start, 1 / sqrt(width)


def test_an_edited_tap_changes_the_sum_by_its_change():
    model, a = Alone(3, 4), torch.randn(2, 6, 3, dtype=torch.float64)
    with model.record("conv.tap.2") as taps:
        plain = model(a)
    with model.patch({"conv.tap.2": torch.zeros_like(a)}):
        torch.testing.assert_close(model(a), plain - taps["conv.tap.2"])


def test_malformed_sizes_are_refused():
    with pytest.raises(ValueError, match="width"):
        ShortConvolution(3, 0)
