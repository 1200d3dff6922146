"""Covers, built and counted; radius allocation; entropy integrals against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounds.covering import (
    CHAINING_RATIOS,
    allocate_radii,
    best_log_radius,
    box_log_cover,
    log_chained,
    log_dudley,
    log_maurey_coefficient,
    maurey_log_cover,
    volumetric_log_cover,
)
from tests.strategies import log_uniform

seeds = st.integers(0, 2**32 - 1)

# --- agrees, holds: the covers themselves ---------------------------------------------------------


def maurey_centres(M: float, n: int, k: int) -> np.ndarray:
    """0 and all averages of k of the 2n points +-M e_i."""
    corners = np.concatenate([M * np.eye(n), -M * np.eye(n)])
    multisets = itertools.combinations_with_replacement(range(2 * n), k)
    averages = [corners[list(chosen)].mean(0) for chosen in multisets]
    return np.unique(np.round([np.zeros(n), *averages], 12), axis=0)


def l1_ball(rng: np.random.Generator, size: int, n: int, M: float) -> np.ndarray:
    points = rng.dirichlet(np.ones(n) * 0.7, size) * rng.choice((-1, 1), size=(size, n))
    inner = np.where(rng.random((size, 1)) < 0.3, rng.random((size, 1)), 1)
    return M * points * inner


def farthest(points: np.ndarray, centres: np.ndarray) -> float:
    gaps = np.linalg.norm(points[:, None] - centres, axis=-1)
    return float(gaps.min(1).max())


@pytest.mark.parametrize(
    ("n", "ratio"), [(1, 1.5), (2, 1.2), (2, 2.1), (3, 1.6), (3, 2.3), (4, 1.9)]
)
def test_maurey_cover(n, ratio):
    """Radius and size of the cover for M / radius = `ratio`, and properness after projection."""
    M = 0.7
    radius = M / ratio
    centres = maurey_centres(M, n, math.ceil(ratio**2) - 1)
    assert math.log(len(centres)) <= maurey_log_cover(M=M, n=n, radius=radius)
    points = l1_ball(np.random.default_rng(n), 4000, n, M)
    assert farthest(points, centres) <= radius * (1 + 1e-12)
    # A further Euclidean budget B: projecting the centres keeps the radius and obeys both budgets.
    B = 0.6 * M
    shrink = np.minimum(1, B / np.maximum(np.linalg.norm(centres, axis=1), 1e-12))
    proper = centres * shrink[:, None]
    assert np.all(np.abs(proper).sum(1) <= M * (1 + 1e-9))
    assert np.all(np.linalg.norm(proper, axis=1) <= B * (1 + 1e-9))
    inside = points[np.linalg.norm(points, axis=1) <= B]
    assert farthest(inside, proper) <= radius * (1 + 1e-12)


def test_fewer_averages_do_not_cover():
    """Negative control: one average less than the proof takes leaves points uncovered."""
    M, n, ratio = 1.0, 3, 1.6
    points = l1_ball(np.random.default_rng(0), 4000, n, M)
    assert farthest(points, maurey_centres(M, n, math.ceil(ratio**2) - 2)) > M / ratio


@pytest.mark.parametrize(("n", "radius"), [(1, 0.3), (2, 0.4), (2, 1.5), (3, 0.6)])
@pytest.mark.parametrize("order", [2, np.inf])
def test_volumetric_cover(n, radius, order):
    """A maximal separated set is a proper cover; it stays below the count."""
    R, rng = 0.9, np.random.default_rng(7)
    points = rng.uniform(-R, R, size=(6000, n))
    points = points[np.linalg.norm(points, order, axis=1) <= R]
    net: list[np.ndarray] = []
    for point in points:
        if all(np.linalg.norm(point - other, order) > radius for other in net):
            net.append(point)
    assert math.log(len(net)) <= volumetric_log_cover(R=R, n=n, radius=radius)


@given(log_uniform(0.1, 10), st.integers(1, 3), log_uniform(0.05, 20))
def test_box_cover(width, n, radius):
    log_count = float(box_log_cover(width=width, n=n, radius=radius))
    cells = round(math.exp(log_count / n))
    centres = (np.arange(cells) + 0.5) * width / cells
    side = np.linspace(0, width, 101)
    assert np.abs(side[:, None] - centres).min(1).max() <= radius * (1 + 1e-9)
    if cells > 1:  # one cell fewer would be too wide
        assert width / (2 * (cells - 1)) > radius * (1 - 1e-9)


@given(log_uniform(0.1, 10), st.integers(1, 50), log_uniform(0.01, 10), st.floats(1, 3))
def test_counts_move(M, n, radius, more):
    covers = (
        lambda size, n, radius: maurey_log_cover(M=size, n=n, radius=radius),
        lambda size, n, radius: volumetric_log_cover(R=size, n=n, radius=radius),
        lambda size, n, radius: box_log_cover(width=size, n=n, radius=radius),
    )
    for cover in covers:
        here = cover(M, n, radius)
        assert here >= 0
        assert cover(M * more, n, radius) >= here
        assert cover(M, n + 1, radius) >= here
        assert cover(M, n, radius * more) <= here


def test_counts_at_the_edge():
    assert maurey_log_cover(M=2.0, n=5, radius=2.0) == 0
    assert maurey_log_cover(M=0.0, n=5, radius=1.0) == 0
    assert box_log_cover(width=0.0, n=5, radius=1.0) == 0 == box_log_cover(width=2, n=5, radius=1)
    assert volumetric_log_cover(R=0.0, n=5, radius=1.0) == 0
    assert log_maurey_coefficient(3.0, 10) == pytest.approx(math.log(9 * math.log(21)))


# --- radius allocation ----------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 6), seeds, log_uniform(1e-3, 1e3))
def test_allocation_is_optimal(blocks, seed, radius):
    rng = np.random.default_rng(seed)
    alpha, beta = 10 ** rng.uniform(-3, 3, size=(2, blocks))
    radii, smallest = allocate_radii(alpha, beta, radius=radius)
    assert beta @ radii == pytest.approx(radius)
    assert np.sum(alpha / radii**2) == pytest.approx(smallest)
    others = radii * 10 ** (rng.normal(size=(300, blocks)) * rng.choice((1e-3, 0.1, 1), (300, 1)))
    others *= radius / (others @ beta)[:, None]
    assert np.all((alpha / others**2).sum(1) >= smallest * (1 - 1e-12))


def test_allocation_by_square_roots_is_worse():
    """Negative control: the exponent 1/3 is what makes it optimal."""
    alpha, beta = np.array([1.0, 100.0]), np.array([5.0, 0.1])
    _, smallest = allocate_radii(alpha, beta, radius=1.0)
    wrong = np.sqrt(alpha / beta)
    wrong /= beta @ wrong
    assert np.sum(alpha / wrong**2) > 1.01 * smallest


# --- entropy integrals ----------------------------------------------------------------------------


def chained(x: float, lam: np.ndarray, J: np.ndarray) -> np.ndarray:
    """In units of r0, with x = r0 sqrt(m) / K."""
    return lam**J + math.sqrt(2) * (1 + 1 / lam) * (1 + (J - 1) * np.sqrt(1 + lam**2)) / x


@settings(max_examples=150)
@given(log_uniform(1e-6, 1e15), log_uniform(1e-100, 1e100), st.integers(1, 2**53))
def test_chained_is_the_minimum_over_its_grid(x, r0, m):
    log_K = math.log(r0) + 0.5 * math.log(m) - math.log(x)
    value, ratio, depth = log_chained(log_K, math.log(r0), m)
    brute = chained(x, CHAINING_RATIOS[:, None], np.arange(1, 201)).min()
    assert value - math.log(r0) == pytest.approx(math.log(brute), abs=1e-11)
    assert ratio in CHAINING_RATIOS
    assert depth >= 1
    assert depth == int(depth)
    at = chained(x, np.asarray(ratio), np.asarray(depth))
    assert math.log(at) == pytest.approx(math.log(brute), abs=1e-11)


def test_chained_on_arrays():
    log_K = np.linspace(-20, 20, 30).reshape(5, 6)
    values, ratios, depths = log_chained(log_K, 1.0, 10**4)
    assert values.shape == ratios.shape == depths.shape == (5, 6)
    for index in np.ndindex(5, 6):
        assert values[index] == pytest.approx(log_chained(log_K[index], 1.0, 10**4)[0], abs=1e-13)


@given(log_uniform(3, 1e30), log_uniform(1e-50, 1e50))
def test_chained_is_below_the_textbook_integral(x, r0):
    log_K = math.log(r0) + 0.5 * math.log(10**6) - math.log(x)
    best = min(log_chained(log_K, math.log(r0), 10**6)[0], math.log(r0))
    assert best <= log_dudley(log_K, math.log(r0), 10**6) + 1e-9


@given(log_uniform(1e-8, 1e8), log_uniform(1e-8, 1e8), st.integers(1, 10**12))
def test_textbook_integral_is_the_minimum_over_its_cut(K, r0, m):
    """Min over alpha in (0, r0] of 4 alpha + 12 (K / sqrt m) ln(r0 / alpha), if not trivial."""
    value = math.exp(log_dudley(math.log(K), math.log(r0), m))
    alpha = r0 * np.geomspace(1e-12, 1, 400)
    integrals = 4 * alpha + 12 * K / math.sqrt(m) * np.log(r0 / alpha)
    if 3 * K <= r0 * math.sqrt(m):
        assert value <= integrals.min() * (1 + 1e-9)
    else:
        assert value == pytest.approx(r0)


def dudley(log_K: float) -> float:
    return float(log_dudley(log_K, 0.0, 1))


def test_slopes_per_e_fold():
    """Asymptotically 5.26 per e-fold of the chained, 12 of the textbook integral (P6)."""
    log_K = np.array([-100.0, -400.0])
    for integral, slope in ((lambda K: log_chained(K, 0.0, 1)[0], 5.256), (dudley, 12)):
        per_unit = np.exp([integral(K) - K for K in log_K])
        assert np.diff(per_unit)[0] / 300 == pytest.approx(slope, rel=3e-3)


@given(log_uniform(1e-6, 1e6), log_uniform(1e-4, 1e4), st.floats(1, 10))
def test_integrals_move(x, r0, more):
    for integral in (lambda K, r: log_chained(K, r, 1)[0], lambda K, r: log_dudley(K, r, 1)):
        K = math.log(r0 / x)
        here = min(integral(K, math.log(r0)), math.log(r0))
        step = math.log(more)
        assert min(integral(K + step, math.log(r0)), math.log(r0)) >= here - 1e-12
        larger = math.log(r0) + step
        assert min(integral(K, larger), larger) >= here - 1e-12


@given(log_uniform(0.1, 1e4), log_uniform(1e-6, 1))
def test_radius_search_is_nearly_optimal(n, scale):
    """On the objective it serves: radius + sqrt(n ln(1 + 1/radius)) * scale."""

    def objective(log_radius):
        return np.exp(log_radius) + scale * np.sqrt(n * np.log1p(np.exp(-log_radius)))

    found = best_log_radius(objective, -27.0, 0.0)
    assert -27 <= found <= 0
    assert objective(found) <= 1.002 * objective(np.linspace(-27, 0, 20001)).min()
