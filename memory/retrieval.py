r"""Probability that a memory answers a key wrongly, and the number of facts at a given accuracy.

One model covers the families of memories. A key recalls $F(e_x) = \sum_{x'} K_{x'x} u_{f(x')}$ with
$K_{xx} = 1$ after scaling: its own output plus cross-talk (`Crosstalk`), whose direction is random.
Sharp for large $d$; for outer products within 2 % of measured error rates down to 1e-3 at $d = 64$.
Derivations: docs/proofs.md, M5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.interpolate import CubicSpline
from scipy.linalg import eigh_tridiagonal
from scipy.special import betainc, gammaln, log_ndtr, logsumexp

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from memory.lloyd_max import gaussian_quantizer

_FEWEST_RANDOM = 16
"""Outputs of random facts from which on the quadrature is good to 1e-3."""
_SMALLEST_LOAD = 1e-8
"""Below, errors are of the order of exp(-1e7) and the tails that matter have too many panels."""
_LARGEST_EXPONENT = 600.0


@dataclass(frozen=True)
class Crosstalk:
    r"""What a recalled vector contains besides its own output, relative to that output's weight.

    `energy` $\lambda = \sum_{x' \ne x} K_{x'x}^2$ is the squared length of the cross-talk;
    `kernel_variance` $\kappa^2$ the mean of $K_{x'x}^2$ over one other key, the part of the
    cross-talk a competitor has for itself.
    """

    energy: float
    kernel_variance: float

    def __post_init__(self) -> None:
        checks.nonnegative(energy=self.energy, kernel_variance=self.kernel_variance)


def outer_product(*, N: int, key_dimension: int) -> Crosstalk:
    r"""Sum of outer products of outputs and unit keys: $\kappa^2 = 1/d$, $\lambda = (N-1)/d$.

    Also for keys projected onto `key_dimension` coordinates and scaled to unit length.
    """
    checks.count(N=N, key_dimension=key_dimension)
    return Crosstalk((N - 1) / key_dimension, 1 / key_dimension)


def least_squares(*, N: int, features: int, ridge: float = 0.0) -> Crosstalk:
    r"""Least-squares readout of generic unit features, penalty `ridge` $\alpha$ times $|W|^2$.

    $\lambda = \gamma / ((1+g)^2 \alpha + \gamma) / g$, $\gamma = N/m$, where $g$ solves
    $g\,(\alpha + \gamma/(1+g)) = 1$; $\kappa^2 = \lambda/(N-1)$. Without ridge
    $\lambda = (N-m)_+/m$: the pseudo-inverse memory is that of $m = d$ features. With a large
    ridge it is the outer product. Limit of large $N$, $m$ for independent isotropic features.
    """
    checks.count(N=N, features=features)
    checks.nonnegative(ridge=ridge)
    load = N / features
    if ridge == 0:
        energy = max(0, N - features) / features
    else:
        b = ridge + load - 1
        root = math.hypot(b, 2 * math.sqrt(ridge))
        g = 2 / (b + root) if b > 0 else (root - b) / (2 * ridge)
        energy = load / (((1 + g) ** 2 * ridge + load) * g)
    return Crosstalk(energy, energy / max(1, N - 1))


def quantised(crosstalk: Crosstalk, *, bits: int) -> Crosstalk:
    r"""The same memory with its weights rounded to $2^{bits}$ Lloyd-Max levels: energy over $1-D$.

    $D$ is the distortion of a standard Gaussian ($D = 1 - 2/\pi$ for one bit): the weights of a
    loaded memory are nearly Gaussian, and what rounding adds is uncorrelated with them.
    """
    distortion = gaussian_quantizer(bits).distortion
    return Crosstalk(crosstalk.energy / (1 - distortion), crosstalk.kernel_variance)


def gated_mlp(*, N: int, width: int, d: int, gate: Literal["linear", "relu", "step"]) -> Crosstalk:
    r"""MLP $F(z) = \sum_i v_i\, s(g_i \cdot z)\, (P_i \cdot z)$ with outer-product weights $P$.

    $P_i = \frac1m \sum_x (g_i \cdot e_x)(v_i \cdot u_{f(x)})\, e_x$ for `width` $m$ units, $v_i$
    uniform on the unit sphere of dimension `d`, $g_i$ standard normal. Gate $s$: "linear" is the
    quadratic MLP, "step" the linearised ReLU network, "relu" the linearised squared-ReLU network.
    $\lambda = N/(\eta m) + 3N/d^2 + \tau d/m$ and $\kappa^2 = 3/d^2 + 3/(\eta m d)$ with
    $\eta = c^2/E s^2$ (1, $1/\pi$, 1/2), $\tau = E[s^2 t^2]/c^2$ (3, $\pi$, 6), $c = E[s(t)\,t]$.
    """
    checks.count(N=N, width=width, d=d)
    checks.one_of(tuple(_GATES), gate=gate)
    efficiency, fourth = _GATES[gate]
    return Crosstalk(
        N / (efficiency * width) + 3 * N / d**2 + fourth * d / width,
        3 / d**2 + 3 / (efficiency * width * d),
    )


_GATES = {"linear": (1.0, 3.0), "relu": (0.5, 6.0), "step": (1 / math.pi, math.pi)}


def decaying_state(*, N: int, key_dimension: int, decay: float, age: int) -> Crosstalk:
    r"""Linear attention $S \leftarrow \alpha S + v k^\top$ after `N` writes, asked for an old key.

    $\lambda = (\alpha^{-2a} (1-\alpha^{2N})/(1-\alpha^2) - 1)/d_k$ for `decay` $\alpha$ and the
    `age` $a$ of the key, 0 for the last; $\kappa^2 = \lambda/(N-1)$, the mean over competitors.
    """
    checks.count(N=N, key_dimension=key_dimension)
    _check_age(age, N)
    checks.fraction(decay=decay)
    if decay == 0:
        raise ValueError("decay must be above 0: a state that forgets at once holds no fact")
    rate = -2 * math.log(decay)
    writes = math.expm1(-rate * N) / math.expm1(-rate) if rate > 0 else N
    if rate * age > _LARGEST_EXPONENT:
        raise ValueError(f"age must leave something of the fact at decay={decay}, got {age}")
    energy = max(0.0, math.exp(rate * age) * writes - 1) / key_dimension
    return Crosstalk(energy, energy / max(1, N - 1))


def delta_rule(*, N: int, key_dimension: int, rate: float, age: int) -> Crosstalk:
    r"""Delta rule $S \leftarrow S + \beta (v - S k) k^\top$ after `N` writes of unit keys.

    Asked for the key of `age` $a$ writes ago, whose weight is $\beta q^a$, $q = 1-\beta/d_k$:
    $\lambda = (1 - (1 - \beta(2-\beta)/d_k)^N)\,(1/(\beta (2-\beta) q^{2a}) - 1)$, to first order
    in $1/d_k$. Small `rate` $\beta$: the outer product. $\kappa^2 = \lambda/(N-1)$, the mean over
    competitors of all ages.
    """
    checks.count(N=N, key_dimension=key_dimension)
    _check_age(age, N)
    checks.positive(rate=rate)
    if not rate < min(2, key_dimension):
        raise ValueError(f"rate must be below 2 and below key_dimension, got {rate}")
    gain = rate * (2 - rate)
    filled = -math.expm1(N * math.log1p(-gain / key_dimension))
    log_kept = 2 * age * math.log1p(-rate / key_dimension) if age else 0.0
    if -log_kept > _LARGEST_EXPONENT:
        raise ValueError(f"age must leave something of the fact at rate={rate}, got {age}")
    kept = math.exp(log_kept)
    energy = filled * max(0.0, 1 / (gain * kept) - 1)
    return Crosstalk(energy, energy / max(1, N - 1))


def _check_age(age: int, N: int) -> None:
    if isinstance(age, bool) or age not in range(N):
        raise ValueError(f"age must be a whole number from 0 to N - 1 = {N - 1}, got {age!r}")


def gaussian_retrieval_error(crosstalk: Crosstalk, *, N: int, M: int, d: int) -> Bound:
    r"""Error of one key with scores taken as Gaussian, injective facts.

    $1 - E[\Phi(c/\sqrt{v + \kappa^2})^{N-1}\, \Phi(c/\sqrt v)^{M-N}]$ where $g$ is standard normal,
    $c = 1 + g \sqrt{\lambda/d}$ the score of the correct output, $v = \lambda/d + (2c-1)_+/d$ the
    variance of the score of a competitor without a key of its own. Over-predicts errors by a few
    per cent at $d \ge 256$, by 10 to 60 % at $d = 64$, and more where they are below 1e-3;
    `retrieval_error` does not. Source: seqtheory, M5.
    """
    checks.count(N=N, M=M, d=d)
    checks.ordered(N=N, M=M)
    derive = Derivation(
        dict(energy=crosstalk.energy, kernel_variance=crosstalk.kernel_variance, N=N, M=M, d=d)
    )
    load = derive("load", crosstalk.energy / d, "energy/d", "variance of the correct score")
    derive(
        "error",
        log_gaussian_error(
            load=float(load),
            own=crosstalk.kernel_variance,
            spread=1 / d,
            owners=N - 1,
            others=M - N,
        ),
        "gaussian_error(load, kernel_variance, 1/d, N - 1, M - N)",
        "probability of a wrong answer",
        log=True,
    )
    return derive.bound(
        "to leading order in d, one key is answered wrongly with probability error",
        Source("seqtheory", "M5"),
        "injective facts; cross-talk is Gaussian",
        "competitors are independent given the correct score",
    )


def limiting_retrieval_error(*, load: float, M: int) -> Bound:
    r"""Error of one key to leading order in $1/d$, at fixed load $\alpha = \lambda/d$.

    $1 - E\,\Phi((1 + \sqrt\alpha g)/\sqrt\alpha)^{M-1}$, $\alpha = N/d^2$ for the outer product:
    the curve on which errors at all dimensions collapse, for injective facts ($N \le M$).
    Source: seqtheory, M5.
    """
    checks.positive(load=load)
    checks.count(M=M)
    derive = Derivation(dict(load=load, M=M))
    derive(
        "error", log_gaussian_error(load=load, own=0.0, spread=0.0, owners=M - 1, others=0),
        "gaussian_error(load, 0, 0, M - 1, 0)", "probability of a wrong answer", log=True,
    )  # fmt: skip
    return derive.bound(
        "as d grows at a fixed load, the error of one key tends to error",
        Source("seqtheory", "M5"),
        "injective facts; terms of relative order 1/d are dropped",
    )


def log_gaussian_error(
    *, load: float, own: float, spread: float, owners: int, others: int
) -> float:
    r"""Logarithm of $1 - E[\Phi(c/\sqrt{v + own})^{owners}\,\Phi(c/\sqrt v)^{others}]$.

    $c = 1 + g \sqrt{load}$, $g$ standard normal, $v = load + spread\,(2c-1)_+$. Relative accuracy
    1e-12, however small the error: Gauss-Legendre on panels that meet at the kink $c = 1/2$.
    """
    checks.nonnegative(load=load, own=own, spread=spread, owners=owners, others=others)
    if 0 < load < _SMALLEST_LOAD:
        raise ValueError(f"load must be 0 or at least {_SMALLEST_LOAD}, got {load}")
    if load == 0:  # c = 1; only the length of the recalled vector and the own keys are random
        return float(_log_any(1.0, spread, own, owners, others))
    # Errors come from typical g, or from those that bring the correct score down to zero.
    low, kink = -10 - 1 / math.sqrt(load), -0.5 / math.sqrt(load)
    edges = np.linspace(low, min(kink, 10), 3 + int(4 * (min(kink, 10) - low)))
    if kink < 10:
        edges = np.append(edges, np.linspace(kink, 10, 3 + int(4 * (10 - kink)))[1:])
    x, weights = np.polynomial.legendre.leggauss(16)
    half = np.diff(edges)[:, None] / 2
    g = (edges[1:] + edges[:-1])[:, None] / 2 + half * x
    c = 1 + g * math.sqrt(load)
    logs = _log_any(c, load + spread * np.maximum(2 * c - 1, 0), own, owners, others)
    return float(logsumexp(logs - 0.5 * g * g + np.log(half * weights / math.sqrt(2 * math.pi))))


def _log_any(
    c: float | Float[ndarray, ...],
    v: float | Float[ndarray, ...],
    own: float,
    owners: int,
    others: int,
) -> Float[ndarray, ...]:
    """ln(1 - Phi(c/sqrt(v + own))^owners Phi(c/sqrt(v))^others), also where all is tiny."""
    with np.errstate(divide="ignore"):
        x, y = c / np.sqrt(v + own), c / np.sqrt(v)
        union = np.logaddexp(np.log(owners) + log_ndtr(-x), np.log(others) + log_ndtr(-y))
        log_correct = owners * log_ndtr(x) + others * log_ndtr(y)
        return np.where(union < -40, union, np.log(-np.expm1(log_correct)))


Association = Literal["injective", "random"]


def retrieval_error(
    crosstalk: Crosstalk,
    *,
    N: int,
    M: int,
    d: int,
    association: Association = "injective",
    refine: int = 1,
) -> float:
    r"""Error of one key at finite size: no Gaussian approximation of scores.

    The recalled vector is $u_{f(x)}$ plus cross-talk of length $r = \sqrt{\lambda' G}$ in a uniform
    direction, first coordinate $t_0$ along $u_{f(x)}$: $c = 1 + r t_0$ is the correct score,
    $z^2 = 1 + 2 r t_0 + r^2$ the squared length. A competitor with a key of its own adds $\rho u_y$
    and wins with probability $q = E_\rho \Pr(t > (c - \rho)/\sqrt{z^2 - 2\rho c + \rho^2})$ over a
    coordinate $t$ of a uniform unit vector; one without a key has $\rho = 0$.
    Here $\lambda' = \lambda - \kappa^2 (N-1)/(M-1)$: a competitor's own part is in $\rho$, which is
    distributed as a coordinate of a uniform unit vector of dimension $1/\kappa^2$ (as for outer
    products); $G$ is Gamma of mean 1 with the variance $v_G$ that $r^2$ has for outer products.
    "injective": $N - 1$ competitors with and $M - N$ without a key. "random": every output, the
    correct one included, owns Poisson($N/M$) further keys, and $\lambda' = \lambda (1 - 2/M)$.
    `refine` multiplies the numbers of quadrature nodes; 1 is good to 1e-5 (injective), to 1e-3
    (random, $M \ge 16$). Source: seqtheory, M5.
    """
    checks.count(N=N, M=M, d=d, refine=refine)
    if d < 3:
        raise ValueError(f"d must be at least 3, got {d}")
    checks.one_of(("injective", "random"), association=association)
    if M == 1:
        return 0.0
    if association == "random" and M < _FEWEST_RANDOM:
        raise ValueError(f"M must be at least {_FEWEST_RANDOM} for random facts, got {M}")
    variance = crosstalk.kernel_variance
    dimension = max(3.0, 1 / variance) if variance > 0 else math.inf
    length_variance = 2 / d * (1 - 1 / N) + 2 / N * (1 - 3 / (dimension + 2))
    if association == "injective":
        checks.ordered(N=N, M=M)
        energy = crosstalk.energy - variance * (N - 1) / (M - 1)
        rho, rho_weights = _coordinate_rule(dimension, 15 * refine)
        own, own_weights = np.zeros(1), np.ones(1)
    else:
        energy = crosstalk.energy * (1 - 2 / M)
        length_variance += 2 / M
        rho, rho_weights = own, own_weights = _coordinate_sum_rule(N / M, dimension, 16 * refine)
    rho, own = math.sqrt(variance) * rho, math.sqrt(variance) * own
    t0, t0_weights = _coordinate_tail_rule(d, 80 * refine)
    length, length_weights = _gamma_rule(1 / length_variance, 8 * refine)
    r = np.sqrt(max(0.0, energy) * length)[:, None]
    signal = 1 + own[:, None, None]
    c = signal + r * t0
    square = signal**2 + 2 * signal * r * t0 + r * r
    tail = _coordinate_tail(d)

    def wins(shift: float) -> Float[ndarray, "own length t0"]:
        distance = np.sqrt(np.maximum(square - 2 * shift * c + shift**2, 1e-300))
        return tail((c - shift) / distance)

    with_key = sum(w * wins(shift) for shift, w in zip(rho, rho_weights, strict=True))
    owners = N - 1 if association == "injective" else M - 1
    log_correct = owners * np.log1p(-np.minimum(with_key, 1 - 1e-16))
    if association == "injective" and M > N:
        log_correct += (M - N) * np.log1p(-np.minimum(wins(0.0), 1 - 1e-16))
    wrong = -np.expm1(log_correct)
    mean = float(np.einsum("h,g,t,hgt->", own_weights, length_weights, t0_weights, wrong))
    return min(1.0, mean)


def predicted_facts(
    crosstalk_of: Callable[[int], Crosstalk],
    *,
    d: int,
    accuracy: float,
    M: int | None = None,
) -> int:
    r"""Facts a memory holds by `retrieval_error`: largest `N` with error at most $1 -$ `accuracy`.

    `accuracy` 1 asks for every fact: the median over draws solves $N \cdot$ error $= \ln 2$, keys
    failing nearly independently. `crosstalk_of` gives the cross-talk at `N` facts; `M=None` means
    as many outputs as facts, all different, otherwise the facts are random among `M` outputs.
    """
    checks.fraction(accuracy=accuracy)
    if accuracy == 0:
        raise ValueError("accuracy must be above 0, where every number of facts would do")

    def holds(N: int) -> bool:
        error = retrieval_error(
            crosstalk_of(N), N=N, M=N if M is None else M, d=d,
            association="injective" if M is None else "random",
        )  # fmt: skip
        return N * error <= math.log(2) if accuracy == 1 else error <= 1 - accuracy

    low, high = 1, 2
    while holds(high):
        low, high = high, 2 * high
        if high > checks.LARGEST_COUNT:
            raise ValueError("the memory holds more than 2**53 facts at this accuracy")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


Rule = tuple[Float[ndarray, " nodes"], Float[ndarray, " nodes"]]


@lru_cache
def _coordinate_tail_rule(d: int, nodes: int) -> Rule:
    """Gauss-Legendre rule with the density of a coordinate of a uniform unit vector as weight.

    Not the Gauss rule of that density: small errors come from its far tail.
    """
    x, weights = np.polynomial.legendre.leggauss(nodes)
    t = x * min(1.0, 9 / math.sqrt(d))
    density = weights * np.exp((d - 3) / 2 * np.log1p(-t * t))
    return t, density / density.sum()


@lru_cache
def _coordinate_rule(dimension: float, nodes: int) -> Rule:
    """Gauss rule of a coordinate of a uniform unit vector, scaled to variance 1.

    Normal in infinite dimension. From the recurrence of Gegenbauer's polynomials.
    """
    (x,), (weights,) = _coordinate_rules(np.array([dimension]), nodes)
    return x, weights


def _coordinate_rules(
    dimension: Float[ndarray, " rules"], nodes: int
) -> tuple[Float[ndarray, "rules nodes"], Float[ndarray, "rules nodes"]]:
    j, inverse = np.arange(1, nodes), 1 / dimension[:, None]
    squared = j * (1 + (j - 3) * inverse) / (
        (1 + (2 * j - 2) * inverse) * (1 + (2 * j - 4) * inverse)
    )  # fmt: skip
    matrices = np.zeros((len(dimension), nodes, nodes))
    matrices[:, j - 1, j] = matrices[:, j, j - 1] = np.sqrt(squared)
    x, vectors = np.linalg.eigh(matrices)
    return x, vectors[:, 0] ** 2


@lru_cache
def _gamma_rule(shape: float, nodes: int) -> Rule:
    """Gauss rule of the Gamma law of mean 1, from its recurrence (Golub and Welsch)."""
    j = np.arange(nodes)
    diagonal, off = 2 * j + shape, np.sqrt(j[1:] * (j[1:] + shape - 1))
    x, vectors = eigh_tridiagonal(diagonal / shape, off / shape)
    return x, vectors[0] ** 2


@lru_cache
def _coordinate_sum_rule(mean: float, dimension: float, nodes: int) -> Rule:
    """Gauss rule of a sum of Poisson many coordinates of variance 1, by Lanczos on a mixture.

    The sum of n coordinates in dimension D has nearly the law of n times one in dimension nD:
    variance and support agree exactly, kurtosis to order 1/D^2.
    """
    spread = 9 * math.sqrt(mean) + 20
    n = np.arange(max(0, math.floor(mean - spread)), math.ceil(mean + spread) + 1)
    logs = n * math.log(mean) - gammaln(n + 1.0)
    x, weights = _coordinate_rules(np.maximum(n, 1) * dimension, nodes)
    x = (np.sqrt(n)[:, None] * x).ravel()
    weights = (np.exp(logs - logsumexp(logs))[:, None] * weights).ravel()
    basis, off = [np.sqrt(weights / weights.sum())], []
    for _ in range(nodes - 1):
        vector = x * basis[-1]
        for _ in range(2):  # twice is enough to stay orthogonal
            for one in basis:
                vector = vector - (one @ vector) * one
        off.append(float(np.linalg.norm(vector)))
        basis.append(vector / off[-1])
    # The law is symmetric, so that the recurrence has no diagonal.
    points, vectors = eigh_tridiagonal(np.zeros(nodes), np.array(off))
    return points, vectors[0] ** 2


@lru_cache(maxsize=64)
def _coordinate_tail(d: int) -> Callable[[Float[ndarray, ...]], Float[ndarray, ...]]:
    """Pr(t > tau), t a coordinate of a uniform unit vector, by a spline of its logarithm.

    In the angle asin(tau), up to where the tail is about 1e-280; relative error below 1e-7 where
    the tail is above 1e-100. The incomplete beta function itself would take most of the time.
    """
    largest = min(math.acos(math.exp(-650 / (d - 1))), math.pi / 2 - 1e-6)
    angles = np.linspace(0, largest, 1001)
    upper = betainc((d - 1) / 2, 0.5, np.cos(angles) ** 2) / 2
    logs = np.concatenate([np.log1p(-upper[:0:-1]), np.log(upper)])
    spline = CubicSpline(np.concatenate([-angles[:0:-1], angles]), logs)

    def tail(tau: Float[ndarray, ...]) -> Float[ndarray, ...]:
        angle = np.arcsin(np.clip(tau, -1, 1))
        inside = np.exp(spline(np.clip(angle, -largest, largest)))
        return np.where(angle > largest, 0.0, np.minimum(inside, 1.0))

    return tail
