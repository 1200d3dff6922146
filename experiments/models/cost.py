"""What mixers cost: parameters, and operations for each token of a forward pass.

With D = d_model, E = 2 D, N = d_state, R = ceil(D / 16), T = length, and F the operations of a
convolution for each channel and token (`fft_flops`):

    mixer      parameters                    matrix products          convolutions and scans
    attention  4 D^2 + 4 D                   8 D^2 + 4 T D            0
    mlp        8 D^2 + 5 D                   16 D^2                   0
    mamba      6 D^2 + 4 D R + (6 N + 14) D  12 D^2 + 8 D R + 8 N D   8 E + (7 N + 1) E
    s4d        2 D^2 + (2 N + 4) D           4 D^2                    D F
    s4-mamba   6 D^2 + (4 N + 14) D          12 D^2                   8 E + E F

Attention has biases in both maps; all else is as the mixers are by default. A multiplication, an
addition and an exponential are one operation each. Left out is what takes time proportional to D
and nothing else: biases, norms, activations, gates and skips; and the kernels of s4d and s4-mamba,
which are made once for a batch. Attention computes all T scores, of which the mask keeps half.
"""

from __future__ import annotations

import math

from bounds import checks

MIXERS = ("attention", "mlp", "mamba", "s4d", "s4-mamba")
"""The mixers whose costs are stated."""
_D_CONV = 4


def mixer_parameters(mixer: str, *, d_model: int, d_state: int = 16) -> int:
    """Number of parameters of a mixer, without the norm before it."""
    checks.one_of(MIXERS, mixer=mixer)
    checks.count(d_model=d_model, d_state=d_state)
    D, N, R = d_model, d_state, math.ceil(d_model / 16)
    return {
        "attention": 4 * D**2 + 4 * D,
        "mlp": 8 * D**2 + 5 * D,
        "mamba": 6 * D**2 + 4 * D * R + (6 * N + 14) * D,
        "s4d": 2 * D**2 + (2 * N + 4) * D,
        "s4-mamba": 6 * D**2 + (4 * N + 14) * D,
    }[mixer]


def matmul_flops(mixer: str, *, d_model: int, length: int, d_state: int = 16) -> int:
    """Operations of the matrix products for a token: what torch's FlopCounterMode counts."""
    checks.one_of(MIXERS, mixer=mixer)
    checks.count(d_model=d_model, length=length, d_state=d_state)
    D, N, R = d_model, d_state, math.ceil(d_model / 16)
    return {
        "attention": 8 * D**2 + 4 * length * D,
        "mlp": 16 * D**2,
        "mamba": 12 * D**2 + 8 * D * R + 8 * N * D,
        "s4d": 4 * D**2,
        "s4-mamba": 12 * D**2,
    }[mixer]


def scan_flops(mixer: str, *, d_model: int, length: int, d_state: int = 16) -> float:
    r"""Operations of the convolutions and scans for a token, which that counter cannot see.

    In each channel of Mamba, $e^{\Delta A} h + (\Delta s) B$ and $C h$ are 7 for each state and one
    for $\Delta s$.
    """
    checks.one_of(MIXERS, mixer=mixer)
    checks.count(d_model=d_model, length=length, d_state=d_state)
    E = 2 * d_model
    taps = 2 * _D_CONV * E
    return {
        "attention": 0.0,
        "mlp": 0.0,
        "mamba": taps + (7.0 * d_state + 1) * E,
        "s4d": d_model * fft_flops(length),
        "s4-mamba": taps + E * fft_flops(length),
    }[mixer]


def fft_flops(length: int) -> float:
    """Operations for each token of a causal convolution of one channel: of n, the power of two from
    2 `length`, a real transform and its inverse, 5/2 n log2(n) each (radix 2), and n/2 + 1 products
    of complex numbers, 6 each."""
    checks.count(length=length)
    n = 1 << (2 * length - 1).bit_length()
    return (5 * n * math.log2(n) + 6 * (n / 2 + 1)) / length
