r"""Bounds that count bits: quantised Occam, and PAC-Bayes for Gaussian weights.

Unlike every norm-based bound they can be far below 1 on a trained model. Both concern the
distribution of the training sample alone (its noise included) and a prior, a bit width or a grid
fixed before the data are seen; choosing among `k` such costs $\ln k$.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from bounds import checks
from bounds.concentration import kl_inverse
from bounds.derivation import Derivation
from bounds.result import Bound, Source

SCALE_BITS = 8
"""Bits spent on the scale of each tensor."""
_STEPS_PER_OCTAVE, _UNIT_CODE = 8, 128
_LARGEST_BITS = 16
_VACUOUS = 60
"""Where kl(q||p) may reach 60 (1 - q), the risk may reach 1 - e^-60 (1 - q); stated as 1."""


def encode(tensor: Float[ndarray, ...], *, bits: int) -> Bool[ndarray, " length"]:
    r"""The message, exactly $n\,b + 8$ bits long, that `decode` turns into the quantised tensor.

    The scale is the smallest $2^{(c-128)/8}$, $1 \le c \le 255$, that covers the largest absolute
    entry up to rounding (larger entries saturate); each entry is rounded to one of $2^b$ equally
    spaced levels between minus and plus that scale. A tensor of zeros has scale code 0. Nothing
    but the shape and `bits` is shared with the decoder.
    """
    _check_bits(bits)
    checks.numeric(tensor=tensor)
    largest = float(np.abs(tensor).max())
    code = 0
    if largest > 0:
        code = _UNIT_CODE + math.ceil(_STEPS_PER_OCTAVE * math.log2(largest) - 1e-9)
        code = min(max(code, 1), 2**SCALE_BITS - 1)
    levels = 2**bits - 1
    unit = np.clip(np.ravel(tensor) / _scale(code), -1, 1) if code else np.zeros(tensor.size)
    indices = np.rint((unit + 1) / 2 * levels).astype(np.int64)
    return np.concatenate([_to_bits(np.array([code]), SCALE_BITS), _to_bits(indices, bits)])


def decode(
    message: Bool[ndarray, " length"], *, bits: int, shape: tuple[int, ...]
) -> Float[ndarray, ...]:
    """The tensor a message of `encode` stands for; ValueError if its length does not fit."""
    _check_bits(bits)
    length = SCALE_BITS + bits * math.prod(shape)
    if len(message) != length:
        raise ValueError(f"message must have {length} bits for shape {shape}, got {len(message)}")
    code = int(_from_bits(message[:SCALE_BITS], SCALE_BITS)[0])
    indices = _from_bits(message[SCALE_BITS:], bits)
    if code == 0:
        return np.zeros(shape)
    return (_scale(code) * (2 * indices / (2**bits - 1) - 1)).reshape(shape)


def quantise(tensor: Float[ndarray, ...], *, bits: int) -> tuple[Float[ndarray, ...], int]:
    """The tensor after encoding and decoding, and the number of bits that took."""
    message = encode(tensor, bits=bits)
    return decode(message, bits=bits, shape=tensor.shape), len(message)


def occam_bound(
    *,
    train_error: float,
    m: int,
    delta: float,
    n_parameters: int,
    n_tensors: int,
    bits: int,
    widths_tried: int = 1,
) -> Bound:
    r"""Risk of a quantised model: $\mathrm{kl}(\hat e\,\|\,e) \le (\ln|H| + \ln(1/\delta))/m$.

    $\ln|H| = (nb + 8k)\ln2 + \ln$ `widths_tried` for `n_parameters` $n$ in `n_tensors` $k$ tensors
    quantised to `bits` $b$ (see `encode`). `train_error` is that of the quantised model, the mean
    of any loss with values in [0, 1]. The Chernoff bound for one hypothesis and a union bound over
    the class need no $\ln(2\sqrt m)$. No dependence on the sequence length or on stability.
    """
    checks.fraction(train_error=train_error)
    checks.count(m=m, n_parameters=n_parameters, n_tensors=n_tensors, widths_tried=widths_tried)
    checks.probability(delta=delta)
    _check_bits(bits)
    checks.ordered(n_tensors=n_tensors, n_parameters=n_parameters)
    derive = Derivation(
        dict(train_error=train_error, m=m, delta=delta, n_parameters=n_parameters,
             n_tensors=n_tensors, bits=bits, widths_tried=widths_tried)
    )  # fmt: skip
    length = n_parameters * bits + SCALE_BITS * n_tensors
    derive("length", length, "n_parameters*bits + 8*n_tensors", "bits that describe the model")
    ln_H = derive(
        "ln_H", length * math.log(2) + math.log(widths_tried),
        "length*log(2) + log(widths_tried)", "log number of models",
    )  # fmt: skip
    price = float((ln_H + math.log(1 / delta)) / m)
    derive("price", price, "(ln_H + log(1/delta))/m", "nats per sample")
    _add_largest(derive, "risk", "risk, at most", train_error, "train_error", price, "price")
    return derive.bound(
        "with probability 1 - delta, the risk of the quantised model is at most risk",
        Source("seqtheory", "compression"),
        "m independent samples from the distribution the risk refers to, noise included",
        "train_error is that of the quantised model",
    )  # fmt: skip


def gaussian_kl(
    *,
    mean: Float[ndarray, ...],
    posterior_scale: float | Float[ndarray, ...],
    prior_scale: float,
    prior_mean: float | Float[ndarray, ...] = 0.0,
) -> float:
    r"""KL divergence (nats) between Gaussians with independent coordinates.

    $\sum_i \frac12 (r_i^2 - 1 - \ln r_i^2) + (\mu_i - \mu_{0,i})^2 / (2\sigma_0^2)$, with $r_i =$
    `posterior_scale` / `prior_scale`, from $N(\mu, \sigma^2)$ to $N(\mu_0, \sigma_0^2)$.
    """
    checks.numeric(mean=mean, prior_mean=prior_mean)
    checks.positive(posterior_scale=posterior_scale, prior_scale=prior_scale)
    ratio = np.broadcast_to(np.divide(posterior_scale, prior_scale), np.shape(mean))
    spread = (ratio - 1) * (ratio + 1) / 2 - np.log(ratio)
    shift = np.square(np.subtract(mean, prior_mean) / prior_scale) / 2
    return float(np.sum(np.maximum(spread, 0) + shift))


def smallest_gaussian_kl(
    *,
    mean: Float[ndarray, ...],
    posterior_scale: float | Float[ndarray, ...],
    prior_scales: Sequence[float],
    prior_mean: float | Float[ndarray, ...] = 0.0,
) -> tuple[float, float]:
    """Smallest KL over a grid of prior scales fixed in advance, and the scale that attains it.

    `pac_bayes_bound` must then be told the size of the grid (`priors_tried`).
    """
    if len(prior_scales) == 0:
        raise ValueError("prior_scales must have at least one entry, got none")
    checks.positive(prior_scales=np.asarray(prior_scales))
    return min(
        (
            gaussian_kl(mean=mean, posterior_scale=posterior_scale, prior_scale=scale,
                        prior_mean=prior_mean),
            scale,
        )
        for scale in prior_scales
    )  # fmt: skip


def pac_bayes_bound(
    *,
    sampled_error: float,
    draws: int,
    kl: float,
    m: int,
    delta: float,
    draw_delta: float,
    priors_tried: int = 1,
) -> Bound:
    r"""Risk of a classifier whose weights are drawn afresh from the posterior (Gibbs risk).

    $\mathrm{kl}(\hat e_Q\,\|\,e_Q) \le (\mathrm{KL} + \ln(k\,2\sqrt m/\delta))/m$ (Maurer) over
    `priors_tried` $k$ priors. The Gibbs training error $\hat e_Q$ is itself bounded from the mean
    training error `sampled_error` of `draws` independent draws of the weights, except with
    probability `draw_delta` (Langford and Caruana). Holds with probability
    $1-\delta-\delta_{draw}$, for losses with values in [0, 1].
    """
    checks.fraction(sampled_error=sampled_error)
    checks.count(draws=draws, m=m, priors_tried=priors_tried)
    checks.nonnegative(kl=kl)
    checks.probability(delta=delta, draw_delta=draw_delta)
    derive = Derivation(
        dict(sampled_error=sampled_error, draws=draws, kl=kl, m=m, delta=delta,
             draw_delta=draw_delta, priors_tried=priors_tried)
    )  # fmt: skip
    draw_price = math.log(1 / draw_delta) / draws
    derive("draw_price", draw_price, "log(1/draw_delta)/draws", "nats per draw of the weights")
    gibbs = _add_largest(
        derive, "gibbs_error", "Gibbs training error, at most",
        sampled_error, "sampled_error", draw_price, "draw_price",
    )  # fmt: skip
    price = (kl + math.log(priors_tried) + math.log(2 * math.sqrt(m) / delta)) / m
    formula = "(kl + log(priors_tried) + log(2*sqrt(m)/delta))/m"
    derive("price", price, formula, "nats per sample")
    _add_largest(derive, "risk", "risk, at most", gibbs, "gibbs_error", price, "price")
    return derive.bound(
        "with probability 1 - delta - draw_delta, the Gibbs risk is at most risk",
        Source("maurer2004note", "Theorem 5"),
        "m independent samples; every prior chosen before seeing them",
        "the risk is that of weights drawn afresh for every prediction",
    )


def _add_largest(
    derive: Derivation, name: str, meaning: str, q: float, q_name: str, budget: float, price: str
) -> float:
    """The largest mean that a sample mean of `q` leaves possible at this budget."""
    largest = 1.0 if budget >= _VACUOUS * (1 - q) else kl_inverse(q, budget)
    formula = (
        f"Piecewise((1, {price} >= {_VACUOUS}*(1 - {q_name})),"
        f" (kl_inverse({q_name}, {price}), True))"
    )
    derive(name, largest, formula, meaning)
    return largest


def _check_bits(bits: int) -> None:
    checks.count(bits=bits)
    if bits > _LARGEST_BITS:
        raise ValueError(f"bits must be a whole number from 1 to {_LARGEST_BITS}, got {bits!r}")


def _scale(code: int) -> float:
    return 2.0 ** ((code - _UNIT_CODE) / _STEPS_PER_OCTAVE)


def _to_bits(numbers: ndarray, width: int) -> ndarray:
    return (numbers[:, None] >> np.arange(width) & 1).astype(bool).ravel()


def _from_bits(message: ndarray, width: int) -> ndarray:
    return message.reshape(-1, width) @ (1 << np.arange(width))
