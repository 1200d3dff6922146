"""Independent re-evaluation of a bound: every formula again, in multiprecision, from the inputs.

The double-precision code and the formulas share nothing: the code works with logarithms and series
around cancellations, the formulas are the textbook closed forms below, evaluated with enough digits
for the cancellations not to matter.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import mpmath
from mpmath import mp

from bounds import checks
from bounds.formula import Arithmetic, evaluate
from bounds.result import Bound, Term

TOLERANCE = 1e-11
"""Largest accepted error: relative, or relative to max(1, |ln|) for terms stored as logarithms."""


@dataclass(frozen=True)
class AuditedTerm:
    """A term beside its multiprecision reference; `error` as in `TOLERANCE`."""

    term: Term
    reference: str
    error: float

    @property
    def agrees(self) -> bool:
        return self.error <= TOLERANCE


@dataclass(frozen=True)
class Audit:
    """Outcome of auditing a bound."""

    digits: int
    terms: tuple[AuditedTerm, ...]

    @property
    def agrees(self) -> bool:
        """Whether every term equals its reference within the tolerance."""
        return all(audited.agrees for audited in self.terms)

    @property
    def worst(self) -> AuditedTerm:
        """The term with the largest error."""
        return max(self.terms, key=lambda audited: audited.error)

    def __str__(self) -> str:
        lines = [
            f"{a.term.name:>16} {a.term!s:>14}  {a.reference:>24}  error {a.error:.1e}"
            f"{'' if a.agrees else '  DISAGREES'}"
            for a in self.terms
        ]
        verdict = "every term agrees" if self.agrees else f"{self.worst.term.name} disagrees"
        return "\n".join([*lines, f"audit at {self.digits} digits: {verdict}"])


def audit(bound: Bound, digits: int = 50) -> Audit:
    """Re-evaluate every formula of `bound` at `digits` decimal digits.

    Inputs are taken as the exact doubles they are; each formula sees the references of the terms
    before it, not their double-precision values. Free choices are taken as given.
    """
    checks.count(digits=digits)
    with mp.workdps(digits + 15):
        names: dict[str, Any] = {name: mp.mpf(value) for name, value in bound.inputs.items()}
        audited = []
        for term in bound:
            stored = mp.mpf(term.stored)
            if term.formula:
                names[term.name] = evaluate(term.formula, names, MULTIPRECISION)
            else:
                names[term.name] = mp.exp(stored) if term.log else stored
            reference = names[term.name]
            error = _error(stored, reference, log=term.log)
            audited.append(AuditedTerm(term, _text(reference, min(digits, 16)), error))
    return Audit(digits, tuple(audited))


def _text(reference: Any, digits: int) -> str:
    """Decimal digits, or e to a power where writing out the decimal exponent is hopeless."""
    if reference > 0 and abs(mp.log(reference)) > 1e6:
        return f"exp({mp.nstr(mp.log(reference), digits)})"
    return mp.nstr(reference, digits)


def _error(stored: Any, reference: Any, *, log: bool) -> float:
    if log:
        exact = mp.log(reference) if reference > 0 else -mp.inf
        if stored == exact:
            return 0.0
        return float(abs(stored - exact) / max(1, abs(exact)))
    if stored == reference:
        return 0.0
    return float(abs(stored - reference) / abs(reference)) if reference else float("inf")


def _extra_digits(x: Any) -> int:
    """Digits that closed forms with a double pole at x = 0 lose there."""
    return 20 + int(3 * max(0, -mp.log10(abs(x))))


def _S1(rate: Any, T: Any) -> Any:
    if rate == 0:
        return T
    with mp.workdps(mp.dps + _extra_digits(rate)):
        return (mp.exp(rate * T) - 1) / (mp.exp(rate) - 1)


def _S2(rate: Any, T: Any) -> Any:
    if rate == 0:
        return T * (T - 1) / 2
    with mp.workdps(mp.dps + _extra_digits(rate)):
        rho = mp.exp(rate)
        return (rho - T * mp.exp(rate * T) + (T - 1) * mp.exp(rate * (T + 1))) / (1 - rho) ** 2


def _c(x: Any) -> Any:
    with mp.workdps(mp.dps + (_extra_digits(x) if x else 0)):
        return x / (1 - mp.exp(-x)) if x else mp.mpf(1)


def _J(s: Any, Y: Any) -> Any:
    if s * Y == 0:
        return Y**2 / 2
    with mp.workdps(mp.dps + _extra_digits(s * Y)):
        return (1 + (s * Y - 1) * mp.exp(s * Y)) / s**2


def _I(s: Any, Y: Any) -> Any:
    if s >= 0 or -s * Y <= 1:
        return Y / mp.e
    return 1 / (mp.e * -s) + (2 / mp.e - (1 - s * Y) * mp.exp(s * Y)) / -s


def _xi(m: Any) -> Any:
    k = mp.floor((m + 1) / 2)
    with mp.workdps(mp.dps + 10 + int(mp.log10(m + 1))):
        log_binomial = mp.loggamma(m + 1) - mp.loggamma(k + 1) - mp.loggamma(m - k + 1)
        return mp.exp((1 - m) * mp.log(2) + log_binomial) * k / m


def _kl_inverse(q: Any, budget: Any) -> Any:
    def kl(p: Any) -> Any:
        if p == 1 and q < 1:
            return mp.inf
        first = q * mp.log(q / p) if q else 0
        return first + ((1 - q) * mp.log((1 - q) / (1 - p)) if q < 1 else 0)

    low, high = q, mp.mpf(1)
    for _ in range(4 * mp.dps):
        middle = (low + high) / 2
        low, high = (middle, high) if kl(middle) <= budget else (low, middle)
    return high


_DIGITS_OF_INTEGRALS = 30
"""Working digits of quantities that are integrals, whatever the digits of the audit."""


@cache
def _shifted_line(a: int) -> tuple[Any, list[tuple[Any, Any]]]:
    """Spacing, and pairs phi(h), w(h/sqrt 2)/2, w Faddeeva's, on the line h = x + ia, x >= 0."""
    step = mp.mpf(3) / 8
    pairs = []
    for i in range(30):
        h = mp.mpc(step * i, a)
        faddeeva = mp.exp(-h * h / 2) * mp.erfc(mp.mpc(a, -step * i) / mp.sqrt(2))
        pairs.append((mp.npdf(h), faddeeva / 2))
    return step, pairs


@cache
def _internal_angle(k: int) -> Any:
    """Probability p_k of docs/proofs.md, M1; sqrt(k) is close to the height of the saddle."""
    step, pairs = _shifted_line(round(math.sqrt(k)))
    values = [(density * half**k).real for density, half in pairs]
    return mp.sqrt(k + 1) * step * (values[0] + 2 * mp.fsum(values[1:]))


@lru_cache(maxsize=1)
def _normal_table() -> tuple[list[Any], list[Any], list[float]]:
    """Points t of spacing 1/64, |t| <= 12, with ln Phi(t) in multiprecision and as doubles."""
    nodes = [mp.mpf(i) / 64 for i in range(-768, 769)]
    logs = [mp.log1p(-mp.ncdf(-t)) if t > 0 else mp.log(mp.ncdf(t)) for t in nodes]
    return nodes, logs, [float(log) for log in logs]


def _external_angle(N: Any, k: int) -> Any:
    """E Phi(t)^(N-1-k) over normal t of variance 1/(k+1), by the trapezoid rule."""
    nodes, logs, doubles = _normal_table()
    power, precision = N - 1 - k, k + 1
    sizes = [
        float(power) * log - precision * (i - 768) ** 2 / 8192 for i, log in enumerate(doubles)
    ]
    top = max(sizes)
    total = mp.fsum(
        mp.exp(power * logs[i] - precision * nodes[i] ** 2 / 2)
        for i, size in enumerate(sizes)
        if size > top - 60
    )
    return mp.sqrt(precision / (2 * mp.pi)) * total / 64


def _statistical_dimension(N: Any) -> Any:
    """Mean number of active competitors (docs/proofs.md, M1) to 20 digits."""
    if N <= 2:  # exact, so that comparisons with whole numbers are decided
        return (N - 1) / 2
    with mp.workdps(_DIGITS_OF_INTEGRALS):
        total, binomial = mp.mpf(0), mp.mpf(1)
        for k in range(1, int(N)):
            binomial *= (N - k) / k
            term = k * binomial * _internal_angle(k) * _external_angle(N, k)
            total += term
            if k > total and term < mp.mpf(10) ** -22:
                break
        return total


def _gaussian_error(load: Any, own: Any, spread: Any, owners: Any, others: Any) -> Any:
    """Error of one key with Gaussian scores (docs/proofs.md, M5) to 20 digits."""

    def log_cdf(x: Any) -> Any:
        return mp.log1p(-mp.ncdf(-x)) if x > 0 else mp.log(mp.ncdf(x))

    def error(g: Any) -> Any:
        c = 1 + g * mp.sqrt(load)
        v = load + spread * max(0, 2 * c - 1)
        log_correct = owners * log_cdf(c / mp.sqrt(v + own)) if owners else 0
        return -mp.expm1(log_correct + (others * log_cdf(c / mp.sqrt(v)) if others else 0))

    with mp.workdps(_DIGITS_OF_INTEGRALS):
        if load == 0:
            return error(0)
        low, kink, high = -10 - 1 / mp.sqrt(load), -1 / (2 * mp.sqrt(load)), mp.mpf(10)
        ends = [low, min(kink, high), high] if kink < high else [low, high]
        edges = [
            left + (right - left) * i / n
            for left, right in itertools.pairwise(ends)
            for n in [int(right - left) + 1]
            for i in range(n)
        ]
        return mp.quad(
            lambda g: mp.npdf(g) * error(g), [*edges, high], method="gauss-legendre", maxdegree=5
        )


MULTIPRECISION = Arithmetic(
    number=mpmath.mpf,
    power=lambda base, exponent: base**exponent,
    constants={"E": lambda: +mp.e, "pi": lambda: +mp.pi},
    functions={
        "exp": mp.exp,
        "log": mp.log,
        "log1p": mp.log1p,
        "log2": lambda x: mp.log(x, 2),
        "loggamma": mp.loggamma,
        "sqrt": mp.sqrt,
        "Abs": abs,
        "Min": min,
        "Max": max,
        "ceiling": mp.ceil,
        "softplus": lambda v: mp.log(1 + mp.exp(v)) if v > -20 else mp.log1p(mp.exp(v)),
        "S1": _S1,
        "S2": _S2,
        "J": _J,
        "I": _I,
        "c": _c,
        "lambertw": mp.lambertw,
        "xi": _xi,
        "kl_inverse": _kl_inverse,
        "gaussian_error": _gaussian_error,
        "statistical_dimension": _statistical_dimension,
    },
)
