"""The Lloyd-Max quantiser of a standard Gaussian: the levels of least mean squared error."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.linalg import solve_banded
from scipy.special import ndtr, ndtri

MOST_BITS = 16
_STEPS = 50


@dataclass(frozen=True)
class Quantizer:
    r"""Values between two thresholds become the level between them; `distortion` is $E(g-Q(g))^2$.

    Increasing `levels` $x_i$ and the `thresholds` halfway between them.
    """

    levels: np.ndarray
    thresholds: np.ndarray
    distortion: float


@lru_cache
def gaussian_quantizer(bits: int) -> Quantizer:
    r"""The $2^{bits}$ levels that are the means of their cells, by Newton's method.

    Every level is the mean of a standard Gaussian between the midpoints to its neighbours, a
    condition with one solution since the Gaussian is log-concave (Fleischer 1964). Lloyd's
    iteration would need of the order of $4^{bits}$ steps.
    """
    if isinstance(bits, bool) or bits not in range(1, MOST_BITS + 1):
        raise ValueError(f"bits must be a whole number from 1 to {MOST_BITS}, got {bits!r}")
    # Only the positive half: the cell of the first level begins at zero.
    count = 2 ** (int(bits) - 1)
    # Levels are dense as the cube root of the density: a Gaussian of variance 3.
    levels = np.sqrt(3) * ndtri(0.5 + (np.arange(count) + 0.5) / (2 * count))
    for _ in range(_STEPS):
        mass, mean, below, above = _cells(levels)
        residual = mean - levels
        jacobian = np.zeros((3, count))
        jacobian[1] = below + above - 1
        jacobian[0, 1:] = above[:-1]
        jacobian[2, :-1] = below[1:]
        step = solve_banded((1, 1), jacobian, -residual)
        levels = levels + step
        if np.max(np.abs(step)) < 1e-12:
            break
    mass, mean, *_ = _cells(levels)
    distortion = 1 - 2 * float(np.sum(mass * mean**2))
    both = np.concatenate([-levels[::-1], levels])
    return Quantizer(both, (both[1:] + both[:-1]) / 2, distortion)


def _cells(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mass and mean of every cell, and what its mean gains from moving either neighbour."""
    edges = np.concatenate([[0.0], (levels[1:] + levels[:-1]) / 2, [np.inf]])
    density = np.exp(-(edges**2) / 2) / np.sqrt(2 * np.pi)
    mass = ndtr(-edges[:-1]) - ndtr(-edges[1:])
    mean = (density[:-1] - density[1:]) / mass
    finite = np.concatenate([edges[:-1], [0.0]])
    below = density[:-1] * (mean - edges[:-1]) / mass / 2
    above = density[1:] * (finite[1:] - mean) / mass / 2
    below[0] = above[-1] = 0  # The outermost edges do not move.
    return mass, mean, below, above
