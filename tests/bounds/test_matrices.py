"""Decay of matrix exponentials: abscissa, logarithmic norm, transient constant."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from bounds.matrices import logarithmic_norm, spectral_abscissa, transient_constant
from tests.strategies import log_uniform, square_matrices

JORDAN = -np.eye(4) + 30 * np.eye(4, k=1)


def growth(A: np.ndarray, tau: float) -> float:
    return float(np.linalg.norm(expm(tau * A), 2))


def worst_times(A: np.ndarray, margin: float) -> np.ndarray:
    """Where tau^k e^{-margin tau} peaks, for every power a Schur form can produce, and around."""
    peaks = np.arange(1, max(len(A), 2)) / margin
    scale = max(float(np.linalg.norm(A, 2)), 1e-3)
    times = np.concatenate([peaks, [0.0, 1 / scale, 3 / scale], np.geomspace(1e-3, 10, 6) / margin])
    return times[times * scale < 300]


# --- agrees ---


@given(square_matrices())
def test_abscissa_and_logarithmic_norm(A):
    scale = max(1.0, float(np.linalg.norm(A, 2)))
    assert spectral_abscissa(A) == pytest.approx(
        np.linalg.eigvals(A.T).real.max(), abs=1e-3 * scale
    )
    # mu is the derivative of the norm of the exponential at 0.
    h = 1e-6 / scale
    slope = (np.linalg.norm(np.eye(len(A)) + h * A, 2) - 1) / h
    assert logarithmic_norm(A) == pytest.approx(slope, abs=1e-4 * scale)
    assert spectral_abscissa(A) <= logarithmic_norm(A) + 1e-3 * scale


def test_known_values():
    A = np.array([[-1.0, 4.0], [0.0, -2.0]])
    assert spectral_abscissa(A) == pytest.approx(-1)
    assert logarithmic_norm(A) == pytest.approx(-1.5 + math.hypot(0.5, 2))
    # One off-diagonal entry: K = 1 + c / (e eta).
    assert transient_constant(A, margin=0.5) == pytest.approx(1 + 4 / (math.e * 0.5))
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert transient_constant(rotation, margin=0.1) == pytest.approx(1)


# --- moves ---


@given(square_matrices(), log_uniform(1e-2, 10), st.floats(1, 5))
def test_constant_falls_with_the_margin(A, margin, more):
    loose, tight = (transient_constant(A, margin=eta) for eta in (margin, margin * more))
    assert 1 <= tight <= loose * (1 + 1e-12)


# --- limits ---


@given(square_matrices(), st.floats(-2, 2))
def test_shift_and_transpose(A, shift):
    shifted = A + shift * np.eye(len(A))
    scale = max(1.0, float(np.linalg.norm(A, 2)))
    assert logarithmic_norm(shifted) == pytest.approx(logarithmic_norm(A) + shift, abs=1e-9 * scale)
    constants = [transient_constant(B, margin=1.0) for B in (A, shifted, A.T)]
    assert constants == pytest.approx([constants[0]] * 3, rel=1e-3)


def test_constant_beyond_the_exponent_range_is_infinite():
    assert transient_constant(1e150 * np.eye(4, k=1), margin=1e-3) == math.inf
    assert transient_constant(np.triu(np.ones((64, 64))), margin=1e-9) == math.inf


# --- holds ---


@settings(max_examples=60)
@given(square_matrices(), log_uniform(0.05, 10))
@example(JORDAN, 0.1)
def test_decay(A, margin):
    K = transient_constant(A, margin=margin)
    rate, mu = spectral_abscissa(A) + margin, logarithmic_norm(A)
    for tau in worst_times(A, margin):
        log_norm = math.log(growth(A, tau))
        assert log_norm <= math.log(K) + rate * tau + 1e-6
        assert log_norm <= mu * tau + 1e-9 * max(1, abs(mu * tau))


@given(square_matrices(largest=3))
def test_complex_matrices(A):
    A = A + 1j * A.T
    K = transient_constant(A, margin=1.0)
    for tau in (0.1, 0.7):
        if np.linalg.norm(A, 2) * tau < 100:
            assert growth(A, tau) <= K * math.exp((spectral_abscissa(A) + 1) * tau) * (1 + 1e-6)
            assert growth(A, tau) <= math.exp(logarithmic_norm(A) * tau) * (1 + 1e-9)


# --- negative control: the constant of normal matrices ---


def test_a_matrix_that_is_not_normal_outgrows_its_abscissa():
    margin = 0.1
    rate = spectral_abscissa(JORDAN) + margin
    ratios = [growth(JORDAN, tau) / math.exp(rate * tau) for tau in worst_times(JORDAN, margin)]
    assert max(ratios) > 1000  # so K = 1 is wrong
    assert max(ratios) <= transient_constant(JORDAN, margin=margin)
