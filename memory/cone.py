r"""Statistical dimension of the cone of score vectors that answer wrongly, without sampling.

A key with $N$ candidate answers is answered correctly when its score vector lies in the cone
$C = \{s : s_0 \ge s_j\ \text{for all}\ j\}$. $\delta(N) = E\,\mathrm{dist}(g, C)^2$ over standard
normal $g$ is what one key costs a trained memory, in parameters (`memory.capacity.learned_facts`).
"""

from __future__ import annotations

import math
from functools import cache, lru_cache

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.special import erfcx, ndtr, wofz

from bounds import checks

LARGEST_N = 10**12
"""Largest number of answers for which the accuracy has been checked."""
_BATCH = 64
_NEGLIGIBLE = 1e-20
_STEP, _REACH = 1 / 16, 9.25  # exp(-9.25^2/2) < 3e-19


@lru_cache(maxsize=4096)
def statistical_dimension(N: int) -> float:
    r"""$\delta(N) = E\,\mathrm{dist}(g, C)^2$ for $N$ answers, relative error below 1e-13.

    $\delta(1) = 0$, $\delta(2) = 1/2$, $\delta(3) = 5/6$; $\delta(N) \sim 2 \ln N$, slowly.
    Source: seqtheory, theorem M1. Equals $E K$, see `active_competitors`.
    """
    probabilities = active_competitors(N)
    return float(np.arange(len(probabilities)) @ probabilities)


def active_competitors(N: int) -> Float[ndarray, " k"]:
    r"""$P(K = k)$, $k = 0, 1, \dots$: how many competitors a projection onto $C$ has to lower.

    $P(K=k) = \binom{N-1}{k}\, p_k\, E\,\Phi(t)^{N-1-k}$ with $t \sim N(0, 1/(k+1))$ and $p_k$ the
    probability that $g_1, \dots, g_k$ all exceed the mean of $g_0, \dots, g_k$. These are the conic
    intrinsic volumes of the regular simplex with $N$ vertices, seen from a vertex. The list ends
    where the rest is below 1e-19. Source: seqtheory, theorem M1.
    """
    checks.count(N=N)
    checks.ordered(N=N, LARGEST_N=LARGEST_N)
    N = int(N)
    log_binomial, logs = np.zeros(1), []
    for first in range(0, N, _BATCH):
        k = np.arange(first, min(first + _BATCH, N))
        # Cumulated from ratios: differences of log-gammas would lose ten digits at N = 1e8.
        steps = np.where(k > 0, np.log((N - k) / np.maximum(k, 1)), 0.0)
        log_binomial = log_binomial[-1] + np.cumsum(steps)
        log_p = np.array([_log_internal_angle(int(each)) for each in k])
        logs.append(log_binomial + log_p + _log_external_angle(N, k))
        last = logs[-1][-2:]
        if len(last) == 2 and last[1] < last[0] and last[1] < math.log(_NEGLIGIBLE):
            break
    return np.exp(np.concatenate(logs))


@cache
def _log_internal_angle(k: int) -> float:
    r"""$\ln p_k$, $p_k = \sqrt{k+1} \int \phi(h)\,[w(h/\sqrt2)/2]^k\,dh$ with Faddeeva's $w$.

    The integrand is entire; along $h = x + ia$ through its saddle point nothing cancels, and the
    trapezoid rule converges exponentially.
    """
    if k == 0:
        return 0.0
    a = _saddle(k)
    x = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    ratio = wofz((x + 1j * a) / math.sqrt(2)) / erfcx(a / math.sqrt(2))
    integrand = np.exp(-0.5 * x * x - 1j * a * x + k * np.log(ratio))
    mean = _STEP * integrand.real.sum() / math.sqrt(2 * math.pi)
    height = 0.5 * a * a + k * math.log(erfcx(a / math.sqrt(2)) / 2)
    return 0.5 * math.log(k + 1) + height + math.log(mean)


def _saddle(k: int) -> float:
    """Root a > 0 of (k+1) a = k H(a), H the hazard rate of the normal law, by bisection."""
    low, high = 0.0, math.sqrt(k)  # H(a) < (a + sqrt(a^2 + 4))/2 puts the root below sqrt(k)
    while low < (middle := (low + high) / 2) < high and high - low > 1e-9:
        hazard = math.sqrt(2 / math.pi) / erfcx(middle / math.sqrt(2))
        low, high = (middle, high) if (k + 1) * middle < k * hazard else (low, middle)
    return middle


def _log_external_angle(N: int, k: Int[ndarray, " k"]) -> Float[ndarray, " k"]:
    r"""$\ln E\,\Phi(t)^{N-1-k}$ over $t \sim N(0, 1/(k+1))$, by the trapezoid rule.

    The integrand is log-concave; its width to the left of the mode is at most `sigma`, and to the
    right at most that of the normal weight.
    """
    precision, power = (k + 1.0)[:, None], (N - 1.0 - k)[:, None]
    mode = np.zeros_like(power)
    for _ in range(100):  # Newton on a concave function, from its left
        hazard = _hazard(mode)
        slope = power * hazard - precision * mode
        curvature = precision + power * hazard * (mode + hazard)
        mode = mode + slope / curvature
        if np.all(np.abs(slope) <= 1e-9 * curvature):
            break
    sigma = 1 / np.sqrt(curvature)
    left, right = mode - _REACH * sigma, mode + _REACH / np.sqrt(precision)
    nodes = 1 + int(np.ceil(((right - left) / sigma).max() / (2 * _STEP)))
    step = (right - left) / nodes
    t = left + step * np.arange(nodes + 1)
    exponent = -0.5 * precision * t * t + power * _log_ndtr(t)
    top = exponent.max(1, keepdims=True)
    total = np.exp(exponent - top).sum(1, keepdims=True) * step * np.sqrt(precision)
    return (top + np.log(total / math.sqrt(2 * math.pi)))[:, 0]


def _hazard(t: Float[ndarray, "k 1"]) -> Float[ndarray, "k 1"]:
    """Derivative phi/Phi of ln Phi."""
    return math.sqrt(2 / math.pi) / erfcx(-t / math.sqrt(2))


def _log_ndtr(t: Float[ndarray, "k t"]) -> Float[ndarray, "k t"]:
    """Logarithm of Phi with full relative accuracy on both sides."""
    lower = np.log(erfcx(-np.minimum(t, 0) / math.sqrt(2)) / 2) - 0.5 * np.minimum(t, 0) ** 2
    return np.where(t < 0, lower, np.log1p(-ndtr(-np.abs(t))))
