"""Costs of mixers: as stated, as counted, and what the counter cannot see."""

from math import log2

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from experiments.models import cost
from experiments.models.mixers import MIXERS
from experiments.models.scan import VARIABLE, selective_scan

WIDTHS = st.integers(1, 40)
LENGTHS = st.integers(1, 24)
STATES = st.integers(1, 6).map(lambda modes: 2 * modes)


@pytest.fixture(autouse=True, scope="module")
def definition():
    """Other implementations of the scan have matrix products in it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, "reference")
        yield


def made(mixer, d_model, d_state):
    if mixer == "attention":
        return MIXERS[mixer](d_model, bias=True)
    return MIXERS[mixer](d_model, **({} if mixer == "mlp" else {"d_state": d_state}))


def counted_flops(module, length, d_model):
    """Of one sequence more, so that what is done once for a batch is not among them."""
    totals = []
    for batch in (1, 2):
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            module(torch.zeros(batch, length, d_model))
        totals.append(counter.get_total_flops())
    return totals[1] - totals[0]


@pytest.mark.parametrize("mixer", cost.MIXERS)
@settings(max_examples=10)
@given(d_model=WIDTHS, d_state=STATES, length=LENGTHS)
def test_stated_costs_are_the_counted_ones(mixer, d_model, d_state, length):
    module = made(mixer, d_model, d_state)
    parameters = cost.mixer_parameters(mixer, d_model=d_model, d_state=d_state)
    assert parameters == sum(p.numel() for p in module.parameters())
    flops = cost.matmul_flops(mixer, d_model=d_model, length=length, d_state=d_state)
    assert flops * length == counted_flops(module, length, d_model)


def test_other_mixers_are_told_apart():
    bare = MIXERS["attention"](8)
    assert cost.mixer_parameters("attention", d_model=8) - 3 * 8 == sum(
        p.numel() for p in bare.parameters()
    )
    # The mask is no reason for the kernel to leave out half of the scores.
    counted = counted_flops(bare, length=6, d_model=8)
    assert counted == 6 * cost.matmul_flops("attention", d_model=8, length=6)
    assert counted != 6 * (8 * 8**2 + 2 * 6 * 8)


@pytest.mark.parametrize(
    ("mixer", "squared", "linear"),
    [("attention", 4, 4), ("mlp", 8, 5), ("mamba", 6.25, 110), ("s4d", 2, 36), ("s4-mamba", 6, 78)],
)
def test_parameters_at_16_states_are_the_published_ones(mixer, squared, linear):
    for d in (16, 64, 256):
        assert cost.mixer_parameters(mixer, d_model=d) == squared * d**2 + linear * d
    assert cost.mixer_parameters("mamba", d_model=256) == 437_760
    # Where 16 does not divide the width, the rank of the steps is rounded up.
    assert cost.mixer_parameters("mamba", d_model=24) == 6 * 24**2 + 4 * 24 * 2 + 110 * 24


class Elementwise(TorchDispatchMode):
    """Counts one operation for each element of what is multiplied, added, exponentiated, summed."""

    operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.__name__.split(".")[0]
        if name in ("mul", "add", "exp"):
            self.operations += out.numel()
        elif name == "sum":
            self.operations += args[0].numel()
        return out


@settings(max_examples=15)
@given(channels=st.integers(1, 6), states=STATES, length=st.integers(1, 5))
def test_operations_of_the_selective_scan_are_those_of_its_definition(channels, states, length):
    u, B = torch.ones(1, channels, length), torch.ones(1, states, length)
    with Elementwise() as seen:
        selective_scan(u, u, -torch.ones(channels, states), B, B, backend="reference")
    d_model = channels  # of which there are 2 d_model channels, and a convolution of 4 taps
    stated = cost.scan_flops("mamba", d_model=d_model, length=length, d_state=states)
    assert 2 * seen.operations == (stated - 2 * 4 * 2 * d_model) * length
    six = 2 * d_model * (6 * states + 1) * length  # without the exponential
    assert 2 * seen.operations != six


def radix_2(n):
    """Operations of a complex transform: two of half the size, n / 2 products and n sums."""
    return 0 if n == 1 else 2 * radix_2(n // 2) + 6 * n // 2 + 2 * n


@pytest.mark.parametrize(("length", "padded"), [(1, 2), (4, 8), (5, 16), (64, 128), (82, 256)])
def test_operations_of_a_fourier_convolution(length, padded):
    # A real transform is half a complex one.
    expected = 2 * radix_2(padded) / 2 + 6 * (padded // 2 + 1)
    assert cost.fft_flops(length) * length == pytest.approx(expected, rel=1e-12)
    assert radix_2(padded) == 5 * padded * log2(padded)


@settings(max_examples=30)
@given(length=st.integers(1, 300))
def test_the_padding_is_that_of_the_convolution(length):
    padded = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if "fft_c2r" in func.__name__:
                padded.append(args[3])
            return func(*args, **(kwargs or {}))

    with Sizes():
        made("s4d", 1, 2)(torch.zeros(1, length, 1))
    (n,) = padded
    assert cost.fft_flops(length) * length == pytest.approx(5 * n * log2(n) + 6 * (n / 2 + 1))


def test_a_mamba_block_at_16_states():
    # The linear term is (22 N + 18) D: (144 + 14 N) D has the 8 N D of the matrix products at 16.
    def flops(d, N):
        stated = {"d_model": d, "length": 82, "d_state": N}
        return cost.matmul_flops("mamba", **stated) + cost.scan_flops("mamba", **stated)

    for d in (16, 64, 256):
        assert flops(d, 16) == 12.5 * d**2 + 370 * d
        assert flops(d, 8) == 12.5 * d**2 + (22 * 8 + 18) * d
        assert flops(d, 8) != 12.5 * d**2 + (144 + 14 * 8) * d


@settings(max_examples=30)
@given(d_model=WIDTHS, length=LENGTHS, more=st.integers(1, 20))
def test_wider_and_longer_costs_more(d_model, length, more):
    for mixer in cost.MIXERS:
        for flops in (cost.matmul_flops, cost.scan_flops):
            narrow = flops(mixer, d_model=d_model, length=length)
            assert narrow <= flops(mixer, d_model=d_model + more, length=length)
        narrow = cost.mixer_parameters(mixer, d_model=d_model)
        assert narrow < cost.mixer_parameters(mixer, d_model=d_model + more)
    attention = [
        cost.matmul_flops("attention", d_model=d_model, length=n) for n in (length, length + more)
    ]
    assert attention[1] - attention[0] == 4 * d_model * more


def test_what_has_no_cost_is_refused():
    with pytest.raises(ValueError, match="mixer must be one of"):
        cost.mixer_parameters("hyena", d_model=8)
    with pytest.raises(ValueError, match="length must be a whole number"):
        cost.scan_flops("s4d", d_model=8, length=0)
    with pytest.raises(ValueError, match="d_model must be a whole number"):
        cost.matmul_flops("mlp", d_model=0, length=4)
