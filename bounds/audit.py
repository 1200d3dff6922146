"""Independent re-evaluation of a bound: every formula again, in multiprecision, from the inputs.

The double-precision code and the formulas share nothing: the code works with logarithms and series
around cancellations, the formulas are the textbook closed forms below, evaluated with enough digits
for the cancellations not to matter.
"""

from __future__ import annotations

from dataclasses import dataclass
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


MULTIPRECISION = Arithmetic(
    number=mpmath.mpf,
    power=lambda base, exponent: base**exponent,
    constants={"E": lambda: +mp.e, "pi": lambda: +mp.pi},
    functions={
        "exp": mp.exp,
        "log": mp.log,
        "log1p": mp.log1p,
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
        "xi": _xi,
        "kl_inverse": _kl_inverse,
    },
)
