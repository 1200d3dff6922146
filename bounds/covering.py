r"""Covers of norm balls, and the entropy integral that turns covers into Rademacher complexity.

A class whose log covering number is at most $K^2/\epsilon^2$ has Rademacher complexity of order
$(K/\sqrt m) \ln(\cdot)$; the functions here carry the constants (D3 to D5 of
docs/proofs.md). Centres are projected onto the set they cover, which is convex and closed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from bounds import checks
from bounds.stability import Real

CHAINING_RATIOS = np.arange(5, 91) / 100
"""Ratios between successive scales over which the chained entropy integral is minimised."""


def log_maurey_coefficient(M: Real, n: Real) -> Real:
    r"""$\ln\alpha$ with $\alpha = M^2 \ln(2n+1)$.

    The $\ell_1$ ball of radius `M` in $R^n$ has $\ln N \le \alpha/\epsilon^2$ in the $\ell_2$
    metric, for every $\epsilon > 0$ and any sample: averages of $\lceil M^2/\epsilon^2 \rceil - 1$
    of the points $\pm M e_i$ (Maurey).
    """
    checks.nonnegative(M=M)
    checks.count(n=n)
    with np.errstate(divide="ignore"):
        return 2 * np.log(M) + np.log(np.log(2 * np.asarray(n, dtype=float) + 1))


def maurey_log_cover(*, M: Real, n: Real, radius: Real) -> Real:
    r"""$\ln N(\epsilon)$ of an $\ell_1$ ball: $\alpha/\epsilon^2$, and 0 from $\epsilon = M$ on."""
    checks.positive(radius=radius)
    sparse = np.exp(log_maurey_coefficient(M, n) - 2 * np.log(radius))
    return np.where(np.greater_equal(radius, M), 0.0, sparse)[()]


def volumetric_log_cover(*, R: Real, n: Real, radius: Real) -> Real:
    r"""$n \ln(1 + 2R/\epsilon)$: any subset of a radius-`R` ball of any norm on $R^n$ (packing)."""
    checks.nonnegative(R=R)
    checks.count(n=n)
    checks.positive(radius=radius)
    return n * np.log1p(2 * np.asarray(R) / radius)


def box_log_cover(*, width: Real, n: Real, radius: Real) -> Real:
    r"""$n \ln \max(1, \lceil w/(2\epsilon) \rceil)$: a cube of side `width` in the sup norm."""
    checks.nonnegative(width=width)
    checks.count(n=n)
    checks.positive(radius=radius)
    return n * np.log(np.maximum(1.0, np.ceil(np.asarray(width) / (2 * np.asarray(radius)))))


def allocate_radii(
    alpha: Float[ndarray, " blocks"], beta: Float[ndarray, " blocks"], *, radius: float
) -> tuple[Float[ndarray, " blocks"], float]:
    r"""Radii minimising $\sum \alpha_i/\epsilon_i^2$ under $\sum \beta_i \epsilon_i = \epsilon$.

    Returns them with the minimum $\gamma^3/\epsilon^2$, $\gamma = \sum \alpha_i^{1/3}
    \beta_i^{2/3}$; $\epsilon_i = (\epsilon/\gamma)(\alpha_i/\beta_i)^{1/3}$ (Edelman et al.
    2022, Lemma A.8).
    """
    checks.positive(alpha=alpha, beta=beta, radius=radius)
    if np.shape(alpha) != np.shape(beta):
        raise ValueError(
            f"alpha and beta must have one entry for each block, got shapes {np.shape(alpha)} "
            f"and {np.shape(beta)}"
        )
    gamma = float(np.sum(np.cbrt(alpha) * np.cbrt(beta) ** 2))
    return radius / gamma * np.cbrt(alpha / beta), gamma**3 / radius**2


def log_dudley(log_K: Real, log_r0: Real, m: Real) -> Real:
    r"""Logarithm of the textbook integral $\min_\alpha 4\alpha + 12 (K/\sqrt m) \ln(r_0/\alpha)$.

    $12 (K/\sqrt m)(1 + \ln(r_0\sqrt m/(3K)))$ while $3K \le r_0 \sqrt m$, else the trivial $r_0$.
    """
    checks.numeric(log_K=log_K, log_r0=log_r0)
    checks.count(m=m)
    excess = log_r0 + 0.5 * np.log(m) - np.log(3.0) - log_K
    with np.errstate(invalid="ignore", divide="ignore"):
        integral = np.log(12.0) + log_K - 0.5 * np.log(m) + np.log1p(np.maximum(excess, 0))
    return np.where(excess >= 0, integral, log_r0)[()]


def log_chained(log_K: Real, log_r0: Real, m: Real) -> tuple[Real, Real, Real]:
    r"""Chained entropy integral with its ratio and depth: $\ln R$, $\lambda$, $J$.

    $R(\lambda, J) = r_0 \lambda^J + \sqrt2 (1 + 1/\lambda) [1 + (J-1)\sqrt{1+\lambda^2}] K/\sqrt m$
    bounds the Rademacher complexity of a class within $r_0$ of a centre with $\ln N \le
    K^2/\epsilon^2$, for every $\lambda \in (0,1)$ and $J \ge 1$. In units of $r_0$ it is a line in
    $K/(r_0\sqrt m)$ for each $(\lambda, J)$, so that the best pair is found by bisection among the
    corners of the lower envelope of these lines.
    """
    checks.numeric(log_K=log_K, log_r0=log_r0)
    checks.count(m=m)
    log_x = np.asarray(log_r0 + 0.5 * np.log(m) - log_K)
    envelope = _chaining_envelope()
    line = np.searchsorted(envelope.log_corners, log_x)
    # Divided by max(r0, K/sqrt(m)), so that neither a tiny nor a huge class overflows.
    r0_share, K_share = np.exp(np.minimum(log_x, 0.0)), np.exp(-np.maximum(log_x, 0.0))
    smallest = r0_share * envelope.remainder[line] + K_share * envelope.slope[line]
    scale = log_r0 - np.minimum(log_x, 0.0)
    return (scale + np.log(smallest))[()], envelope.ratio[line], envelope.depth[line]


class _Envelope(NamedTuple):
    """Lines remainder + slope/x, lowest in turn as x = r0 sqrt(m)/K passes each corner."""

    log_corners: Float[ndarray, " corners"]
    ratio: Float[ndarray, " lines"]
    depth: Float[ndarray, " lines"]
    remainder: Float[ndarray, " lines"]
    slope: Float[ndarray, " lines"]


@lru_cache(maxsize=1)
def _chaining_envelope() -> _Envelope:
    """Lower envelope over every chaining ratio and every depth down to scales of e^-690."""
    depths = np.floor(690 / -np.log(CHAINING_RATIOS)).astype(int)
    ratio = np.repeat(CHAINING_RATIOS, depths)
    depth = np.concatenate([np.arange(1.0, last + 1) for last in depths])
    remainder = np.exp(np.log(ratio) * depth)
    slope = np.sqrt(2) * (1 + 1 / ratio) * (1 + (depth - 1) * np.sqrt(1 + ratio**2))
    order = np.lexsort((remainder, slope))
    lowest = np.minimum.accumulate(remainder[order])
    order = order[np.append(True, lowest[1:] < lowest[:-1])]
    hull: list[int] = []
    corners: list[float] = []  # corners[i]: the x at which line hull[i + 1] takes over from hull[i]
    for line in order:
        corner = 0.0
        while hull:
            gain = remainder[hull[-1]] - remainder[line]
            corner = (slope[line] - slope[hull[-1]]) / gain
            if not corners or corner > corners[-1]:
                break
            hull.pop()
            corners.pop()
        if hull:
            corners.append(corner)
        hull.append(line)
    return _Envelope(np.log(corners), ratio[hull], depth[hull], remainder[hull], slope[hull])


def best_log_radius(objective: Callable[[Real], Real], low: float, high: float) -> Real:
    """Logarithm of a radius that nearly minimises `objective` between e^low and e^high.

    Every radius gives a valid bound, so the search need not be exact: a coarse grid, then three
    refinements around its best point, elementwise over whatever shape `objective` returns.
    """
    spacing = (high - low) / 12
    centre: Real = low
    smallest: Real = np.asarray(objective(low))
    around = np.array([-2, -1, 1, 2])
    for offsets in (np.arange(2, 13, 2), np.array([-1, 1]), around / 3, around / 9):
        start = centre
        for offset in offsets:
            candidate = np.clip(start + offset * spacing, low, high)
            value = objective(candidate)
            centre = np.where(value < smallest, candidate, centre)
            smallest = np.minimum(value, smallest)
    return np.asarray(centre)[()]
