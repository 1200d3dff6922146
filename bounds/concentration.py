r"""Sign sums and deviation terms: the exact Rademacher constant and the Hoeffding slack."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from bounds import checks
from bounds.stability import Real

_EPSILON = 2.0**-52

SAFE_XI = math.sqrt(0.5)
r"""$\xi_m \ge \sqrt{1/(2m)}$ for every `m` (Khinchine with Szarek's constant)."""


# ln(binom(2h, h) / 4^h) for small h; beyond, Stirling's series is exact to double precision.
_CENTRAL_BINOMIAL = np.array([math.log(math.comb(2 * h, h) / 4**h) for h in range(40)])


def log_xi(m: Real) -> Real:
    r"""$\ln \xi_m$, $\xi_m = E|\sigma_1 + \dots + \sigma_m|/m$ over independent fair signs.

    $\xi_m = 2^{1-m} \frac{k}{m} \binom{m}{k}$ with $k = \lfloor (m+1)/2 \rfloor$. It decreases like
    $\sqrt{2/(\pi m)}$, which is *not* a lower bound for even `m`. Relative error below 1e-14.
    """
    checks.count(m=m)
    m = np.asarray(m, dtype=float)
    # E|sum| is the same for m = 2h+1 and m = 2h+2 signs, so xi_m = binom(2h, h) 4^{-h} (2h+1)/m.
    half = np.floor((m - 1) / 2)
    z = np.maximum(half, len(_CENTRAL_BINOMIAL))
    tail = -1 / 8 + (1 / 192 + (-1 / 640 + (17 / 14336 - 31 / 18432 / z**2) / z**2) / z**2) / z**2
    series = -0.5 * np.log(np.pi * z) + tail / z
    exact = _CENTRAL_BINOMIAL[np.minimum(half, len(_CENTRAL_BINOMIAL) - 1).astype(int)]
    central = np.where(half < len(_CENTRAL_BINOMIAL), exact, series)
    return (central + np.log1p(2 * half) - np.log(m))[()]


def xi(m: Real) -> Real:
    r"""$\xi_m = E|\sum_i \sigma_i|/m$, exactly; $\sqrt{1/(2m)} \le \xi_m \le 1/\sqrt m$."""
    return np.exp(log_xi(m))


def hoeffding_slack(*, loss_range: Real, m: Real, log_inverse_delta: Real) -> Real:
    r"""$c_\ell \sqrt{\ln(1/\delta) / (2m)}$: deviation of a supremum (McDiarmid)."""
    checks.positive(loss_range=loss_range)
    checks.nonnegative(log_inverse_delta=log_inverse_delta)
    checks.count(m=m)
    return loss_range * np.sqrt(log_inverse_delta / (2 * np.asarray(m, dtype=float)))


def kl_bernoulli(q: float, p: float) -> float:
    r"""$\mathrm{kl}(q\,\|\,p)$ in nats between Bernoulli means; $\infty$ where `p` excludes `q`."""
    checks.fraction(q=q, p=p)
    if (p == 0 and q > 0) or (p == 1 and q < 1):
        return math.inf
    if q > 2 * p:  # the quotient may overflow
        first = q * (math.log(q) - math.log(p))
    else:
        first = q * math.log(q / p) if q > 0 else 0.0
    second = (1 - q) * (math.log1p(-q) - math.log1p(-p)) if q < 1 else 0.0
    return max(first + second, 0.0)


def kl_inverse(q: float, budget: float) -> float:
    r"""Largest `p` with $\mathrm{kl}(q\,\|\,p) \le$ `budget` (nats), rounded upwards.

    Bisection on $p - q$, in which the divergence keeps its relative accuracy however small it is.
    """
    checks.fraction(q=q)
    checks.nonnegative(budget=budget)
    if q == 0:
        return min(1.0, -math.expm1(-budget) * (1 + 4 * _EPSILON))
    low, high = 0.0, 1 - q
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if _kl(q, middle) <= budget else (low, middle)
    p = q + high
    # What a rounding error of the divergence is worth in p: its derivative is (p - q)/(p (1 - p)).
    rounding = 20 * _EPSILON * budget * p * max(1 - p, 0.0) / high if high > 0 else 0.0
    return min(1.0, math.nextafter(p + rounding, 2.0))


def _kl(q: float, excess: float) -> float:
    """Divergence kl(q || q + excess), excess >= 0: the linear parts of the logarithms cancel."""
    if excess > q > 0:  # the quotient may overflow
        first = excess - q * (math.log(q + excess) - math.log(q))
    else:
        first = q * _x_minus_log1p(excess / q) if q > 0 else excess
    second = (1 - q) * _x_minus_log1p(-excess / (1 - q)) if q < 1 else -excess
    return first + second


def _x_minus_log1p(x: float) -> float:
    """Difference x - ln(1 + x), which is x^2/2 near 0, by its series there; inf up to x = -1."""
    if x <= -1:
        return math.inf
    if abs(x) > 0.1:
        return x - math.log1p(x)
    return x * x * sum((-x) ** k / (k + 2) for k in range(18))


def sign_sums(m: int) -> Float[ndarray, " count"]:
    r"""$|\sum_i \sigma_i|$ for all $2^m$ sign vectors: the definition, for checking small `m`."""
    checks.count(m=m)
    if m > 20:
        raise ValueError(f"m must be at most 20 for enumeration, got {m}")
    bits = (np.arange(2**m)[:, None] >> np.arange(m)) & 1
    return np.abs((2 * bits - 1).sum(1)).astype(float)
