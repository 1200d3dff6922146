r"""Stability of a state matrix: spectral abscissa, logarithmic norm, transient constant.

The decay $\|e^{\tau A}\| \le e^{s\tau}$ holds with $s$ the spectral abscissa only for normal `A`.
For any other matrix either $s$ is the logarithmic norm, or a transient constant `K` multiplies the
exponential (D2' of docs/proofs.md, correcting Honarpisheh et al., Lemmas C.3 and E.3).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Complex, Float
from numpy import ndarray

from bounds import checks

SquareMatrix = Float[ndarray, "n n"] | Complex[ndarray, "n n"]


def spectral_abscissa(A: SquareMatrix) -> float:
    r"""$s_A = \max \operatorname{Re} \lambda(A)$ (1/time)."""
    _square(A)
    return float(np.linalg.eigvals(A).real.max())


def logarithmic_norm(A: SquareMatrix) -> float:
    r"""$\mu_2(A) = \lambda_{\max}((A + A^*)/2)$; $\|e^{\tau A}\|_2 \le e^{\mu_2 \tau}$."""
    _square(A)
    return float(np.linalg.eigvalsh((A + A.conj().T) / 2).max())


def transient_constant(A: SquareMatrix, *, margin: float) -> float:
    r"""`K` with $\|e^{\tau A}\|_2 \le K e^{(s_A+\eta)\tau}$ for all $\tau \ge 0$, `margin` $=\eta$.

    Schur form $A = Q(\Lambda + N)Q^*$ and Van Loan's
    $\|e^{\tau A}\| \le e^{s_A\tau} \sum_{k<n} (\|N\|_F \tau)^k/k!$ give
    $K = 1 + \sum_{0<k<n} (\|N\|_F\, k/(e\eta))^k / k!$; 1 for a normal matrix,
    infinity where it exceeds the largest double.
    """
    from scipy.linalg import schur  # imported here: nothing else in bounds pays for scipy.linalg

    _square(A)
    checks.positive(margin=margin)
    triangular, _ = schur(np.asarray(A, dtype=complex), output="complex")
    departure = float(np.linalg.norm(np.triu(triangular, 1)))
    ratio = departure / (math.e * margin)
    with np.errstate(over="ignore"):
        terms = [np.float64(ratio * k) ** k / math.factorial(k) for k in range(1, len(A))]
        return float(1 + np.sum(terms))


def _square(A: SquareMatrix) -> None:
    if A.ndim != 2 or A.shape[0] != A.shape[1] or A.size == 0:
        raise ValueError(f"A must be a non-empty square matrix, got shape {A.shape}")
    if not np.all(np.isfinite(A)):
        raise ValueError("A must have finite entries, got NaN or infinity")
