r"""Step sums of a selective state-space recurrence, stable for every sign of the decay.

With steps $0 \le \Delta_k \le D$, elapsed times $\tau_k = \sum_{j>k} \Delta_j$ and a decay rate $s$
(the spectral abscissa of the state matrix), the whole theory rests on three sums over $k \le T$:

    G1  bounds  sum_k Delta_k e^{s tau_k}                         (state, range of the output)
    G2  bounds  sum_k Delta_k tau_k e^{s tau_k}                   (sensitivity to the state matrix)
    H   bounds  sum_k Delta_k sup_{a_lo<=a<=s} |a| tau_k e^{a tau_k}      (sensitivity to the step)

Everything is computed as a natural logarithm, because $e^{sTD}$ overflows long before it stops
being interesting. All functions broadcast over arrays, cost the same for every $T$, and take `s` in
1/time, `D` in time, `T` in steps. Relative error of the linear value: below 1e-12 where it fits a
double; of the logarithm: below 1e-14 relative to max(1, |ln|). Malformed arguments raise ValueError
naming the argument, its value and what is allowed. Source: lemma D1 of docs/proofs.md; for
constant steps G1 and G2 are the sums of Honarpisheh et al. (2025), Lemmas E.4 to E.7.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Num
from numpy import ndarray

from bounds import checks

Real = float | np.number | Num[ndarray, "..."]
"""A number, or an array of numbers that broadcasts with the other arguments."""

# k(x) = 1/(1-e^{-x}) - 1/x = 1/2 + sum_n B_{2n} x^{2n-1} / (2n)!
_K_SERIES = (
    1 / 12,
    -1 / 720,
    1 / 30240,
    -1 / 1209600,
    1 / 47900160,
    -691 / 1307674368000,
    1 / 74724249600,
    -3617 / 10670622842880000,
)
_PSI_TERMS = 30


def softplus(v: Real) -> Real:
    r"""Step size $\Delta = \ln(1 + e^v)$ of the pre-activation `v`."""
    checks.numeric(v=v)
    return np.logaddexp(0.0, v)


def log_softplus(v: Real) -> Real:
    r"""$\ln\ln(1 + e^v)$, which is `v` itself far below 0, where the step size underflows."""
    checks.numeric(v=v)
    return np.where(np.less(v, -40), v, np.log(np.logaddexp(0.0, np.maximum(v, -40.0))))[()]


def log1mexp(x: Real) -> Real:
    r"""$\ln(1 - e^{-x})$ for $x \ge 0$, accurate at both ends; $-\infty$ at 0."""
    checks.nonnegative(x=x)
    x = np.asarray(x, dtype=float)
    with np.errstate(divide="ignore"):
        return np.where(x < np.log(2), np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))[()]


def log_c(x: Real) -> Real:
    r"""$\ln c(x)$ with $c(x) = x/(1-e^{-x})$, for $x \ge 0$; $\max(1,x) \le c \le 1+x$."""
    checks.nonnegative(x=x)
    x = np.asarray(x, dtype=float)
    series = np.log1p(x / 2 + x * x / 12)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x < 1e-5, series, np.log(x) - log1mexp(x))[()]


def log_S1(rate: Real, T: Real) -> Real:
    r"""$\ln S_1$ with $S_1 = \sum_{t<T} e^{\lambda t}$, `rate` $= \lambda$ per step."""
    checks.numeric(rate=rate)
    checks.count(T=T)
    rate, T = np.asarray(rate, dtype=float), np.asarray(T, dtype=float)
    size = np.abs(rate)
    with np.errstate(invalid="ignore"):
        closed = np.maximum(rate, 0) * (T - 1) + log1mexp(size * T) - log1mexp(size)
    flat = np.log(T) + rate * (T - 1) / 2
    return np.where(size * T < 1e-9, flat, closed)[()]


def log_mean_index(rate: Real, T: Real) -> Real:
    r"""$\ln(S_2/S_1)$: mean of $t < T$ under weights $e^{\lambda t}$; $-\infty$ at $T = 1$.

    The rational closed form cancels twice near $\lambda = 0$; instead
    $S_2/S_1 = T k(\lambda T) - k(\lambda)$, $k(x) = 1/(1-e^{-x}) - 1/x$, where the $1/x$ parts
    cancel exactly and are left out for $|\lambda| > 1$. Unlike the sums, the ratio never overflows.
    """
    checks.numeric(rate=rate)
    checks.count(T=T)
    rate, T = np.asarray(rate, dtype=float), np.asarray(T, dtype=float)
    with np.errstate(all="ignore"):
        near = T * _k(rate * T) - _k(rate)
        growing = T / -np.expm1(-rate * T) - 1 / -np.expm1(-rate)
        moderate = np.log(np.maximum(np.where(rate > 1, growing, near), 0))
        # 1/(e^r - 1) - T/(e^{rT} - 1) with r = -rate, in logarithms: each part may underflow.
        size = np.maximum(-rate, 1.0)
        complement = log1mexp(size)
        lost = T * np.exp(-size * (T - 1) + complement - log1mexp(size * T))
        decaying = -size - complement + np.log1p(-lost)
        return np.where(rate < -1, decaying, moderate)[()]


def log_S2(rate: Real, T: Real) -> Real:
    r"""$\ln S_2$ with $S_2 = \sum_{t<T} t e^{\lambda t}$; $-\infty$ at $T = 1$."""
    return log_S1(rate, T) + log_mean_index(rate, T)


def _k(x: Real) -> Real:
    """1/(1-e^{-x}) - 1/x; the series avoids the cancellation around 0."""
    x2 = np.where(np.abs(x) < 0.5, x, 0.0) ** 2
    series = np.zeros_like(x2)
    for coefficient in reversed(_K_SERIES):
        series = series * x2 + coefficient
    with np.errstate(all="ignore"):
        closed = -1 / np.expm1(-x) - 1 / x
    return np.where(np.abs(x) < 0.5, 0.5 + series * x, np.where(x < -700, -1 / x, closed))


def log_J(s: Real, Y: Real) -> Real:
    r"""$\ln J$ with $J(s,Y) = \int_0^Y r e^{sr}\,dr = Y^2 \psi(sY)$, $Y \ge 0$."""
    checks.numeric(s=s)
    checks.nonnegative(Y=Y)
    Y = np.asarray(Y, dtype=float)
    with np.errstate(divide="ignore"):
        return (2 * np.log(Y) + _log_psi(np.asarray(s * Y, dtype=float)))[()]


def _log_psi(y: Float[ndarray, ...]) -> Float[ndarray, ...]:
    """Logarithm of psi(y) = int_0^1 r e^{yr} dr = (1 + (y-1) e^y) / y^2."""
    small = np.clip(y, -1, 1)
    term, series = np.ones_like(small), np.zeros_like(small)
    for k in range(_PSI_TERMS):
        series = series + term / (k + 2)
        term = term * small / (k + 1)
    with np.errstate(all="ignore"):
        growing = y + np.log((y - 1) + np.exp(-y)) - 2 * np.log(y)
        decaying = np.log1p(-(1 - y) * np.exp(y)) - 2 * np.log(-y)
    return np.where(y > 1, growing, np.where(y < -1, decaying, np.log(series)))


def I(s: Real, Y: Real) -> Real:  # noqa: E743
    r"""$\int_0^Y \sup_{a \le s} |a| \tau e^{a\tau} d\tau$ for $s<0$; $Y/e$ for $s \ge 0$.

    For $s<0$ the integrand is $1/e$ up to $\tau = 1/|s|$ and $|s|\tau e^{-|s|\tau}$ beyond.
    """
    checks.numeric(s=s)
    checks.nonnegative(Y=Y)
    s, Y = np.asarray(s, dtype=float), np.asarray(Y, dtype=float)
    r = np.maximum(-s, 0)
    with np.errstate(all="ignore"):
        beyond = (3 / np.e - (1 + r * Y) * np.exp(-r * Y)) / r
    return np.where(r * Y <= 1, Y / np.e, beyond)[()]


def log_G1(s: Real, D: Real, T: Real) -> Real:
    r"""$\ln G_1$, $G_1 = D\,S_1(sD, T)$; attained by constant steps $D$ for every sign of $s$."""
    checks.numeric(s=s)
    checks.positive(D=D)
    return np.log(D) + log_S1(np.multiply(s, D), T)


def log_G2(s: Real, D: Real, D_min: Real, T: Real) -> Real:
    r"""$\ln G_2$.

    $G_2 = D^2 S_2(sD,T)$ for $s \ge 0$, and
    $\min\{c(|s|D)\,J(s,TD),\; D^2 S_2(s D_{\min},T)\}$ for $s<0$.
    """
    checks.numeric(s=s)
    checks.positive(D=D)
    checks.nonnegative(D_min=D_min)
    checks.ordered(D_min=D_min, D=D)
    checks.count(T=T)
    s, D, D_min, T = (np.asarray(value, dtype=float) for value in (s, D, D_min, T))
    decay = np.minimum(s, 0)
    growing = 2 * np.log(D) + log_S2(np.maximum(s, 0) * D, T)
    integral = log_c(-decay * D) + log_J(decay, np.multiply(T, D))
    shortest_steps = 2 * np.log(D) + log_S2(decay * D_min, T)
    return np.where(s < 0, np.minimum(integral, shortest_steps), growing)[()]


def log_H(s: Real, D: Real, D_min: Real, a_lo: Real, T: Real) -> Real:
    r"""$\ln H$, $H = \min\{D/e + I(s,TD) + \max(s,0) G_2,\; \max(|a_{lo}|,|s|) G_2\}$."""
    checks.ordered(a_lo=a_lo, s=s)
    checks.positive(D=D)
    checks.count(T=T)
    s, D, T = (np.asarray(value, dtype=float) for value in (s, D, T))
    G2 = log_G2(s, D, D_min, T)
    with np.errstate(divide="ignore"):
        growth = np.log(np.maximum(s, 0)) + G2
        envelope = np.logaddexp(np.log(D / np.e + I(s, np.multiply(T, D))), growth)
        extreme = np.log(np.maximum(np.abs(a_lo), np.abs(s))) + G2
    return np.minimum(envelope, extreme)[()]


def S1(rate: Real, T: Real) -> Real:
    r"""$S_1 = \sum_{t<T} e^{\lambda t} = (e^{\lambda T}-1)/(e^\lambda-1)$."""
    return _linear(log_S1(rate, T))


def S2(rate: Real, T: Real) -> Real:
    r"""$S_2 = \sum_{t<T} t e^{\lambda t}$."""
    return _linear(log_S2(rate, T))


def J(s: Real, Y: Real) -> Real:
    r"""$J(s,Y) = \int_0^Y r e^{sr}\,dr$."""
    return _linear(log_J(s, Y))


def G1(s: Real, D: Real, T: Real) -> Real:
    """Linear value of `log_G1`; inf where it overflows."""
    return _linear(log_G1(s, D, T))


def G2(s: Real, D: Real, D_min: Real, T: Real) -> Real:
    """Linear value of `log_G2`; inf where it overflows."""
    return _linear(log_G2(s, D, D_min, T))


def H(s: Real, D: Real, D_min: Real, a_lo: Real, T: Real) -> Real:
    """Linear value of `log_H`; inf where it overflows."""
    return _linear(log_H(s, D, D_min, a_lo, T))


def _linear(log_value: Real) -> Real:
    with np.errstate(over="ignore"):
        return np.exp(log_value)
