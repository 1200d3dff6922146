r"""What Honarpisheh et al. (2025) print, beside what is right: pairs of functions.

`..._as_printed` is the quantity as the paper has it, the function without that ending the one that
makes the statement true. `bounds.errata` lists them with random instances on which the printed
statement fails; do not use a printed form for anything else.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from numpy.random import Generator

from bounds import checks, published
from bounds.concentration import xi
from bounds.generalization import generalization_gap, rademacher_lower
from bounds.losses import Loss
from bounds.matrices import logarithmic_norm, spectral_abscissa, transient_constant
from bounds.ssm import SelectiveSSMClass
from bounds.stability import S1, S2, softplus

Vector = Float[ndarray, " n"]
SquareMatrix = Float[ndarray, "n n"]


def growth_factor_as_printed(
    *, s_A: float, p: float, B_q: float, B_u: float, eta: float = 0.0
) -> float:
    r"""$\rho_A = (1+e^{p-B_qB_u})^{s_A+\eta}$, the smallest step for every sign of $s_A$."""
    checks.numeric(s_A=s_A, p=p)
    checks.nonnegative(B_q=B_q, B_u=B_u, eta=eta)
    return math.exp((s_A + eta) * softplus(p - B_q * B_u))


def growth_factor(*, s_A: float, p: float, B_q: float, B_u: float, eta: float = 0.0) -> float:
    r"""Largest $e^{(s_A+\eta)\Delta}$ over the steps: a growing state takes the largest step."""
    checks.numeric(s_A=s_A, p=p)
    checks.nonnegative(B_q=B_q, B_u=B_u, eta=eta)
    worst = p - B_q * B_u if s_A + eta < 0 else p + B_q * B_u
    return math.exp((s_A + eta) * softplus(worst))


def weighted_sum_as_printed(*, rho: float, T: int) -> float:
    r"""$\frac{\rho(1-\rho^T)}{(1-\rho)^2} - \frac{T\rho^T}{\rho-1}$: wrong sign, pole at 1."""
    checks.positive(rho=rho)
    checks.count(T=T)
    if rho == 1:
        return math.inf
    return rho * (1 - rho**T) / (1 - rho) ** 2 - T * rho**T / (rho - 1)


def weighted_sum(*, rho: float, T: int) -> float:
    r"""$S_2 = \sum_{t<T} t\rho^t$; $T(T-1)/2$ at $\rho = 1$."""
    checks.positive(rho=rho)
    return float(S2(math.log(rho), T))


def matrix_exponential_norm(A: SquareMatrix) -> float:
    r"""$\|e^A\|_2$, computed."""
    return float(np.linalg.norm(matrix_exponential(A), 2))


def decay_as_printed(A: SquareMatrix, *, time: float, eta: float) -> float:
    r"""$e^{(s_A+\eta)\tau}$ as bound on $\|e^{\tau A}\|_2$: true only beyond some $t_0(A,\eta)$."""
    checks.nonnegative(time=time, eta=eta)
    return math.exp((spectral_abscissa(A) + eta) * time)


def decay(A: SquareMatrix, *, time: float, eta: float) -> float:
    r"""$K e^{(s_A+\eta)\tau}$ with the transient constant, for every $\tau \ge 0$."""
    return transient_constant(A, margin=eta) * decay_as_printed(A, time=time, eta=eta)


def exponential_difference_as_printed(X: SquareMatrix, Y: SquareMatrix) -> float:
    r"""Lemma C.3: $\max(\|e^X\|, \|e^Y\|)\,\|X-Y\|$, a bound for normal matrices only."""
    rho = max(matrix_exponential_norm(X), matrix_exponential_norm(Y))
    return rho * float(np.linalg.norm(X - Y, 2))


def exponential_difference(X: SquareMatrix, Y: SquareMatrix) -> float:
    r"""$e^{\max(\mu_2(X),\mu_2(Y))}\,\|X-Y\|$ bounds $\|e^X-e^Y\|$, with logarithmic norms."""
    return math.exp(max(logarithmic_norm(X), logarithmic_norm(Y))) * float(np.linalg.norm(X - Y, 2))


def headline_capacity(ssm: SelectiveSSMClass, *, T: int) -> float:
    r"""Capacity of Theorem 3.3 as stated, $\propto S_2$: everything with $S_1$ is dropped."""
    bound = published.capacity(ssm, T=T)
    share = bound["Pi"] * bound["M_Delta"] * bound["B_A"] * bound["S_2"] / bound["L_p"]
    steps = (bound["gamma_q"] + bound["gamma_p"]) * share ** (2 / 3)
    return (bound["gamma_A"] + steps) ** 1.5


def saturation_length_as_printed(*, s_A: float, p: float, B_q: float, B_u: float) -> float:
    r"""$1/(|s_A|\Delta_{\min})$ steps: where the published $S_1$ stops growing."""
    return _length(s_A, p - B_q * B_u)


def saturation_length(*, s_A: float, p: float, B_q: float, B_u: float) -> float:
    r"""$1/(|s_A|D)$ steps, `D` the largest step: where the largest state stops growing."""
    return _length(s_A, p + B_q * B_u)


def _length(s_A: float, logit: float) -> float:
    if not s_A < 0:
        raise ValueError(f"s_A must be a number < 0, got {s_A!r}")
    return 1 / (-s_A * float(softplus(logit)))


def sign_mean_as_printed(*, m: int) -> float:
    r"""$\sqrt{2/(\pi m)}$ as lower bound on $E|\sum\sigma_i|/m$: false for every even `m`."""
    checks.count(m=m)
    return math.sqrt(2 / (math.pi * m))


def sign_mean(*, m: int) -> float:
    r"""$\sqrt{2/(\pi(m+1))}$, below $E|\sum\sigma_i|/m$ for every `m`."""
    checks.count(m=m)
    return math.sqrt(2 / (math.pi * (m + 1)))


def growth_sum_as_printed(*, s_A: float, T: int) -> float:
    r"""$((1+s_A)^T-1)/s_A$: the output under an Euler step of the state."""
    checks.positive(s_A=s_A)
    return float(S1(math.log1p(s_A), T))


def growth_sum(*, s_A: float, T: int) -> float:
    r"""$(e^{s_AT}-1)/(e^{s_A}-1)$: the output under the stated zero-order hold."""
    checks.positive(s_A=s_A)
    return float(S1(s_A, T))


def growth_of_bounds(
    ssm: SelectiveSSMClass, *, T: int, m: int, delta: float, loss: Loss
) -> tuple[float, float]:
    r"""$\ln$ of the lower bound on the raw Rademacher complexity, and a bound on the gap.

    For $s_A > 0$ the first grows like $s_ATD$; the second, parameter-counting and for a bounded
    loss, like $\sqrt T$ up to the range of the loss. The paper concludes from the first that no
    bound on the gap can be sub-exponential.
    """
    raw = rademacher_lower(ssm, m=m, T=T).term("R_lower").stored
    gap = generalization_gap(ssm, m=m, T=T, delta=delta, loss=loss)
    return raw, gap["gap_parameter"]


def loss_complexity(*, m: int, loss_range: float) -> float:
    r"""$c_\ell\xi_m/2$: complexity of a loss class that can take either extreme on every sample."""
    checks.positive(loss_range=loss_range)
    return loss_range * float(xi(m)) / 2


def maurey_centre(a: Vector, *, M_A: float, atoms: int, rng: Generator) -> Vector:
    r"""An element of the printed cover near `a`: the mean of `atoms` matrices $\pm M_A e_i$ or 0.

    Drawn with the probabilities $|a_i|/M_A$ of Maurey's argument. Entries that are never drawn are
    0, so that with fewer atoms than entries the centre of a stable matrix is not stable.
    """
    checks.numeric(a=a)
    checks.positive(M_A=M_A)
    checks.count(atoms=atoms)
    weights = np.abs(a) / M_A
    if weights.sum() > 1 + 1e-9:
        raise ValueError(f"M_A must be at least sum |a| = {np.abs(a).sum()!r}, got {M_A!r}")
    shares = np.append(weights, max(0.0, 1 - weights.sum()))
    drawn = rng.multinomial(atoms, shares / shares.sum())[:-1]
    return M_A * np.sign(a) * drawn / atoms


def project_decays(a: Vector, *, a_lo: float, s_A: float, M_A: float) -> Vector:
    r"""Nearest point of $\{a_{lo} \le a_i \le s_A,\ \sum|a_i| \le M_A\}$: makes a cover proper.

    The Lagrangian is separable: shrink towards 0, clip to the box, and find the shrinkage by
    bisection. ValueError naming `M_A` where the set is empty.
    """
    checks.numeric(a=a)
    checks.ordered(a_lo=a_lo, s_A=s_A)
    smallest = len(a) * max(-s_A, a_lo, 0.0)
    if smallest > M_A * (1 + 1e-12):
        raise ValueError(f"M_A must be at least {smallest!r} for these decays, got {M_A!r}")

    def shrunk(by: float) -> Vector:
        return np.clip(np.sign(a) * np.maximum(np.abs(a) - by, 0), a_lo, s_A)

    if np.abs(shrunk(0.0)).sum() <= M_A:
        return shrunk(0.0)
    low, high = 0.0, float(np.abs(a).max())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.abs(shrunk(middle)).sum() > M_A else (low, middle)
    return shrunk(high)


def spectral_norm_as_logged(W: Float[ndarray, "rows columns"]) -> float:
    r"""$\|W\|_F$: what the published code logs, and Table 3 repeats, as $\|W\|_2$."""
    checks.numeric(W=W)
    return float(np.sqrt(np.square(W).sum()))


def spectral_norm(W: Float[ndarray, "rows columns"]) -> float:
    r"""$\|W\|_2 \in [\|W\|_F/\sqrt{\mathrm{rank}},\ \|W\|_F]$."""
    checks.numeric(W=W)
    return float(np.linalg.norm(W, 2))


def matrix_exponential(A: SquareMatrix) -> SquareMatrix:
    """The exponential of a matrix."""
    from scipy.linalg import expm  # imported here: nothing else in bounds pays for scipy.linalg

    return expm(A)
