r"""What is wrong or loose in Honarpisheh et al. (2025), as negative controls.

Each erratum is a pair of functions, as printed and as corrected, and a generator of random
instances on which both can be checked: the printed statement must fail, the corrected one hold.

    for erratum in ERRATA:
        printed, corrected = erratum.violations(rng, instances=200)

Besides these the text and the published code differ in the noise of the majority task (10 % in the
appendix, 25 % in the code) and its width (d = 16 and d = 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, NamedTuple

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from bounds import checks, published
from bounds.concentration import xi
from bounds.covering import log_dudley
from bounds.generalization import rademacher_lower
from bounds.losses import ramp
from bounds.matrices import spectral_abscissa
from bounds.misprints import (
    decay,
    decay_as_printed,
    exponential_difference,
    exponential_difference_as_printed,
    growth_factor,
    growth_factor_as_printed,
    growth_of_bounds,
    growth_sum,
    growth_sum_as_printed,
    headline_capacity,
    loss_complexity,
    matrix_exponential,
    maurey_centre,
    project_decays,
    saturation_length,
    saturation_length_as_printed,
    sign_mean,
    sign_mean_as_printed,
    spectral_norm,
    spectral_norm_as_logged,
    weighted_sum,
    weighted_sum_as_printed,
)
from bounds.ssm import SelectiveSSMClass
from bounds.stability import softplus


class Check(NamedTuple):
    """A quantity computed from its definition, and what a statement says about it."""

    actual: float
    claimed: float


class Instance(NamedTuple):
    """One random instance of a printed statement and of the one that replaces it."""

    printed: Check
    corrected: Check


@dataclass(frozen=True)
class Erratum:
    """`relation` reads "actual relation claimed"; "==" is up to the relative `tolerance`.

    `wrong` tells statements that are false as printed from the others: a constant left implicit, a
    remark that says less than it seems to, something the text relies on without stating it, or a
    valid bound that is not tight. For these `printed` is our reading of what one might take away.
    Instances are drawn where the statement fails, so rates of violation compare nothing else.
    """

    code: str
    title: str
    printed: str
    corrected: str
    relation: Literal["<=", ">=", "=="]
    instance: Callable[[Generator], Instance]
    functions: tuple[str, ...]
    tolerance: float = 1e-9
    wrong: bool = True

    def holds(self, check: Check) -> bool:
        """Whether the statement is true of this instance, up to rounding."""
        slack = self.tolerance * abs(check.claimed)
        above = check.actual > check.claimed + slack
        below = check.actual < check.claimed - slack
        return not {"<=": above, ">=": below, "==": above or below}[self.relation]

    def violations(self, rng: Generator, *, instances: int) -> tuple[int, int]:
        """How many of so many random instances violate the printed and the corrected statement."""
        checks.count(instances=instances)
        drawn = [self.instance(rng) for _ in range(instances)]
        return (
            sum(not self.holds(instance.printed) for instance in drawn),
            sum(not self.holds(instance.corrected) for instance in drawn),
        )


def _growth(rng: Generator) -> Instance:
    s_A, p, B_q, B_u = rng.uniform(0.01, 0.5), rng.normal(), rng.uniform(0.2, 2), 1.0
    T, d = int(rng.integers(1, 20)), 4
    q, u = _on_sphere(rng, B_q, 1, d)[0], _on_sphere(rng, B_u, T, d)
    actual = math.exp(s_A * float(np.sum(softplus(p + u @ q))))
    budgets = dict(s_A=s_A, p=p, B_q=B_q, B_u=B_u)
    return Instance(
        Check(actual, growth_factor_as_printed(**budgets) ** T),
        Check(actual, growth_factor(**budgets) ** T),
    )


def _weighted(rng: Generator) -> Instance:
    rho, T = math.exp(rng.uniform(-0.5, 0.5)), int(rng.integers(2, 30))
    actual = sum(t * rho**t for t in range(T))
    return Instance(
        Check(actual, weighted_sum_as_printed(rho=rho, T=T)),
        Check(actual, weighted_sum(rho=rho, T=T)),
    )


def _transient(rng: Generator) -> Instance:
    A, eta = _non_normal(rng, 4), 0.1
    step = matrix_exponential(A / 20)
    powers = np.stack(list(accumulate([step] * 60, np.matmul)))
    norms = np.linalg.norm(powers, 2, axis=(1, 2))
    times = np.arange(1, 61) / 20
    worst = int(np.argmax(np.log(norms) - (spectral_abscissa(A) + eta) * times))
    norm, time = float(norms[worst]), float(times[worst])
    return Instance(
        Check(norm, decay_as_printed(A, time=time, eta=eta)),
        Check(norm, decay(A, time=time, eta=eta)),
    )


def _difference(rng: Generator) -> Instance:
    X = rng.uniform(6, 10) * _non_normal(rng, 4)
    left, _, right = np.linalg.svd(matrix_exponential(X / 2))
    Y = X + 0.01 * np.outer(right[0], left[:, 0])
    actual = float(np.linalg.norm(matrix_exponential(X) - matrix_exponential(Y), 2))
    return Instance(
        Check(actual, exponential_difference_as_printed(X, Y)),
        Check(actual, exponential_difference(X, Y)),
    )


def _headline(rng: Generator) -> Instance:
    """Rademacher complexity from the capacity must not fall below the lower bound."""
    d, N, T, m = 2, 2, int(rng.integers(10, 1000)), 10**4
    s_A, p = -rng.uniform(10, 14), rng.uniform(1, 2)
    ssm = SelectiveSSMClass(d=d, N=N, s_A=s_A, a_lo=1.2 * s_A, p_lo=p, p_hi=p, B_q=0.1)
    lower = float(rademacher_lower(ssm, m=m, T=T))
    full = published.capacity(ssm, T=T)
    log_range = math.log(rademacher_lower(ssm, m=m, T=T)["b_lower"])
    claims = (math.exp(log_dudley(math.log(C), log_range, m))
              for C in (headline_capacity(ssm, T=T), float(full)))  # fmt: skip
    return Instance(*(Check(lower, claimed) for claimed in claims))


def _saturation(rng: Generator) -> Instance:
    """Steps until the largest state has covered 1 - 1/e of its way, counted by recurrence."""
    budgets = dict(s_A=-rng.uniform(1, 4) * 1e-3, p=rng.normal(), B_q=rng.uniform(0.5, 3), B_u=1.0)
    D = float(softplus(budgets["p"] + budgets["B_q"]))
    state, steps, limit = 0.0, 0, D / -math.expm1(budgets["s_A"] * D)
    while state < (1 - 1 / math.e) * limit:
        state, steps = math.exp(budgets["s_A"] * D) * state + D, steps + 1
    return Instance(
        Check(steps, saturation_length_as_printed(**budgets)),
        Check(steps, saturation_length(**budgets)),
    )


def _signs(rng: Generator) -> Instance:
    m = 2 * int(rng.integers(1, 1500))
    actual = float(xi(m))
    return Instance(Check(actual, sign_mean_as_printed(m=m)), Check(actual, sign_mean(m=m)))


def _hold(rng: Generator) -> Instance:
    s_A, T, state = rng.uniform(0.01, 0.5), int(rng.integers(2, 40)), 0.0
    for _ in range(T):
        state = math.exp(s_A) * state + 1
    return Instance(
        Check(state, growth_sum_as_printed(s_A=s_A, T=T)), Check(state, growth_sum(s_A=s_A, T=T))
    )


def _exponential_growth(rng: Generator) -> Instance:
    """One channel, one state, step 1: the class of Theorem 4.1, with a bounded loss."""
    p = math.log(math.e - 1)
    s_A = rng.uniform(0.05, 0.3)
    T, m, loss = math.ceil(rng.uniform(20, 60) / s_A), 10 ** int(rng.integers(4, 8)), ramp()
    ssm = SelectiveSSMClass(d=1, N=1, s_A=s_A, a_lo=0, p_lo=p, p_hi=p, B_q=0)
    raw, gap = growth_of_bounds(ssm, T=T, m=m, delta=0.05, loss=loss)
    floor = loss_complexity(m=m, loss_range=loss.range)
    return Instance(Check(math.log(gap), raw), Check(math.log(gap), math.log(floor)))


def _unstable_centre(rng: Generator) -> Instance:
    n, s_A = int(rng.integers(4, 16)), -rng.uniform(0.1, 1)
    a = s_A - rng.exponential(size=n)
    a_lo, M_A, time = 1.1 * float(a.min()), 1.1 * float(np.abs(a).sum()), rng.uniform(0.5, 5)
    atoms = int(rng.integers(1, n))
    centre = maurey_centre(a, M_A=M_A, atoms=atoms, rng=rng)
    proper = project_decays(centre, a_lo=a_lo, s_A=s_A, M_A=M_A)
    claimed = math.exp(time * s_A)
    return Instance(
        Check(math.exp(time * float(centre.max())), claimed),
        Check(math.exp(time * float(proper.max())), claimed),
    )


def _logged_norm(rng: Generator) -> Instance:
    W = rng.normal(size=(4, int(rng.integers(2, 17))))
    actual = math.sqrt(float(np.linalg.eigvalsh(W @ W.T).max()))
    return Instance(Check(actual, spectral_norm_as_logged(W)), Check(actual, spectral_norm(W)))


def _on_sphere(rng: Generator, radius: float, rows: int, columns: int) -> ndarray:
    points = rng.normal(size=(rows, columns))
    return radius * points / np.linalg.norm(points, axis=1, keepdims=True)


def _non_normal(rng: Generator, n: int) -> ndarray:
    """Stable and triangular, with entries off the diagonal that dwarf the eigenvalues."""
    above = np.triu(2 * rng.normal(size=(n, n)), 1)
    return above - np.diag(rng.uniform(0.2, 1, n))


ERRATA: tuple[Erratum, ...] = (
    Erratum(
        "E1", "growth factor takes the smallest step for every sign of s_A",
        "||A^(t)|| <= (1 + e^{p - B_q B_u})^{s_A t}, also for s_A > 0",
        "for s_A > 0 the largest step counts: (1 + e^{p + B_q B_u})^{s_A t}",
        "<=", _growth, ("growth_factor_as_printed", "growth_factor"),
    ),
    Erratum(
        "E2", "sign of the last term of S_2",
        "S_2 = rho (1 - rho^T)/(1 - rho)^2 - T rho^T/(rho - 1)",
        "S_2 = rho (1 - rho^T)/(1 - rho)^2 - T rho^T/(1 - rho), and T(T-1)/2 at rho = 1",
        "==", _weighted, ("weighted_sum_as_printed", "weighted_sum"),
    ),
    Erratum(
        "E3", "no transient constant for matrices that are not normal",
        "||e^{tau A}|| <= e^{(s_A + eta) tau}; true beyond a t_0 that the constants absorb",
        "||e^{tau A}|| <= K(eta) e^{(s_A + eta) tau} for every tau",
        "<=", _transient, ("decay_as_printed", "decay"), wrong=False,
    ),
    Erratum(
        "E4", "difference of exponentials of matrices that are not normal (Lemma C.3)",
        "||e^X - e^Y|| <= max(||e^X||, ||e^Y||) ||X - Y||",
        "||e^X - e^Y|| <= e^{max(mu(X), mu(Y))} ||X - Y||, mu the logarithmic norm",
        "<=", _difference, ("exponential_difference_as_printed", "exponential_difference"),
    ),
    Erratum(
        "E5", "S_1 dropped from the capacity as dominated by S_2",
        "the capacity is proportional to S_2 (constants reconstructed)",
        "S_1 dominates for rho < 1/2; with it the bound stays above the matching lower bound",
        "<=", _headline, ("headline_capacity", "published.capacity"),
    ),
    Erratum(
        "E6", "length after which a stable model's bound stops growing",
        "1/(|s_A| D_min) steps",
        "1/(|s_A| D) steps",
        "==", _saturation, ("saturation_length_as_printed", "saturation_length"), tolerance=0.02,
        wrong=False,
    ),
    Erratum(
        "E7", "mean of a sign sum in Theorem 4.1, for even m",
        "E|sum of m signs|/m >= sqrt(2/(pi m))",
        "E|sum of m signs|/m >= sqrt(2/(pi (m + 1))); the printed value is the limit",
        ">=", _signs, ("sign_mean_as_printed", "sign_mean"),
    ),
    Erratum(
        "E7b", "growth in the lower bound, Theorem 4.1",
        "the model yields ((1 + s_A)^T - 1)/s_A",
        "with the stated zero-order hold it yields (e^{s_A T} - 1)/(e^{s_A} - 1), which is more",
        "==", _hold, ("growth_sum_as_printed", "growth_sum"), wrong=False,
    ),
    Erratum(
        "E8", "no sub-exponential bound on the gap for s_A > 0",
        "every bound on the gap is at least the lower bound of Theorem 4.1 (logarithms compared)",
        "that bounds unbounded outputs; a bounded loss has a gap bound that grows like sqrt(T), and"
        " is only bounded from below by c_l xi_m / 2",
        ">=", _exponential_growth, ("growth_of_bounds", "loss_complexity"), wrong=False,
    ),
    Erratum(
        "E9", "cover centres outside the class",
        "the centre of the cover next to a stable matrix decays like the class",
        "its projection onto the class does, and is as near",
        "<=", _unstable_centre, ("maurey_centre", "project_decays"), wrong=False,
    ),
    Erratum(
        "E10", "Frobenius norms reported as spectral norms",
        "the logged norm of W is ||W||_2",
        "it is ||W||_F, an upper bound on ||W||_2 by up to sqrt(rank)",
        "==", _logged_norm, ("spectral_norm_as_logged", "spectral_norm"), wrong=False,
    ),
)  # fmt: skip
"""E1 to E10; `functions` are in `bounds.misprints` unless another module is named."""
