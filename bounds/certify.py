"""Rigorous enclosure of a bound: every formula again, in ball arithmetic, rounded outwards.

A `Bound` is computed in double precision and its value may lie a few units in the last place below
the theorem's. Here each formula is evaluated on Arb balls, which contain the exact value whatever
the rounding, at a precision raised until the balls are narrower than doubles can tell. Inputs are
taken as the exact doubles they are; so are free choices, or their exponentials.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from flint import arb, ctx

from bounds.audit import TOLERANCE
from bounds.formula import Arithmetic, evaluate
from bounds.result import Bound, Term, render

PRECISIONS = (128, 256, 512, 1024, 2048, 4096)
"""Working precisions in bits, tried in turn."""


@dataclass(frozen=True)
class CertifiedTerm:
    """A term with doubles that enclose its exact value, or its logarithm if it is stored so."""

    term: Term
    lower: float
    upper: float
    side: int
    """1 or -1 where the stored value is above or below the exact one, 0 if it may be equal."""

    @property
    def error(self) -> float:
        """Signed distance of the stored value from the enclosure, 0 inside.

        Relative, or relative to max(1, |ln|) for terms stored as logarithms.
        """
        stored = self.term.stored
        if self.lower <= stored <= self.upper:
            return 0.0
        end = self.lower if stored < self.lower else self.upper
        scale = max(abs(end), 1.0) if self.term.log else abs(end)
        if not (math.isfinite(stored) and math.isfinite(end) and scale > 0):
            return math.copysign(math.inf, stored - end)
        return (stored - end) / scale

    @property
    def agrees(self) -> bool:
        """Whether the stored value is in the enclosure up to double-precision error."""
        return abs(self.error) <= TOLERANCE


@dataclass(frozen=True)
class Certificate:
    """Outcome of certifying a bound: an enclosure of each term and of the value."""

    precision: int
    terms: tuple[CertifiedTerm, ...]
    lower: float
    """At most the exact value of the bound."""
    upper: float
    """At least the exact value of the bound; `inf` beyond the largest double."""

    @property
    def agrees(self) -> bool:
        """Whether every stored value is in its enclosure up to double-precision error."""
        return all(certified.agrees for certified in self.terms)

    @property
    def worst(self) -> CertifiedTerm:
        """The term whose stored value lies farthest outside its enclosure."""
        return max(self.terms, key=lambda certified: abs(certified.error))

    @property
    def undershoots(self) -> bool:
        """Whether the value in double precision is below the exact one (unsafe as upper bound)."""
        return self.terms[-1].side < 0

    @property
    def overshoots(self) -> bool:
        """Whether the value in double precision is above the exact one (unsafe as lower bound)."""
        return self.terms[-1].side > 0

    def __getitem__(self, name: str) -> CertifiedTerm:
        for certified in self.terms:
            if certified.term.name == name:
                return certified
        raise KeyError(f"no term {name!r} in this certificate")

    def __str__(self) -> str:
        lines = []
        for c in self.terms:
            ends = f"[{render(c.lower, log=c.term.log)}, {render(c.upper, log=c.term.log)}]"
            side = {-1: "too small", 0: "exact", 1: "too large"}[c.side]
            outside = "" if c.agrees else "  OUTSIDE"
            lines.append(f"{c.term.name:>16} in {ends}  error {c.error:+.1e} ({side}){outside}")
        return "\n".join([*lines, f"certified at {self.precision} bits: value <= {self.upper!r}"])


def certify(bound: Bound) -> Certificate:
    """Enclose every term of `bound`, in order, each from the enclosures before it.

    A term may stay wide only where a `ceiling` cannot be decided; its upper end is then the larger
    choice. Raises ArithmeticError naming the term where a comparison cannot be decided, or nothing
    be enclosed, at the highest precision.
    """
    for precision in PRECISIONS:
        last = precision == PRECISIONS[-1]
        with ctx.workprec(precision):
            try:
                balls = _balls(bound)
            except _UndecidedError as undecided:
                if last:
                    raise ArithmeticError(f"{undecided} at {precision} bits") from None
                continue
            terms = tuple(_certified(*pair) for pair in zip(bound, balls, strict=True))
            if last or all(map(_narrow, terms)):
                return Certificate(
                    precision, terms, *_outwards(balls[-1].lower(), balls[-1].upper())
                )
    raise AssertionError("the last precision returns or raises")


def _balls(bound: Bound) -> list[arb]:
    names = {name: _Ball(arb(value)) for name, value in bound.inputs.items()}
    balls = []
    for term in bound:
        if term.formula:
            try:
                ball = evaluate(term.formula, names, BALLS).ball
            except _UndecidedError as undecided:
                raise _UndecidedError(f"term {term.name}: {undecided}") from None
        else:
            ball = arb(term.stored).exp() if term.log else arb(term.stored)
        if ball.is_nan():
            raise _UndecidedError(f"term {term.name}: no enclosure of {term.formula!r}")
        names[term.name] = _Ball(ball)
        balls.append(ball)
    return balls


def _certified(term: Term, ball: arb) -> CertifiedTerm:
    lower, upper = ball.lower(), ball.upper()
    if term.log:
        lower = lower.log().lower() if lower > 0 else arb.neg_inf()
        upper = upper.log().upper() if upper > 0 else arb.neg_inf()
    stored = arb(term.stored)
    return CertifiedTerm(term, *_outwards(lower, upper), int(stored > upper) - int(stored < lower))


def _outwards(lower: arb, upper: arb) -> tuple[float, float]:
    """The nearest double at most `lower`, and the nearest at least `upper` (both exact)."""
    below, above = float(lower), float(upper)
    while arb(below) > lower:
        below = math.nextafter(below, -math.inf)
    while arb(above) < upper:
        above = math.nextafter(above, math.inf)
    return below, above


def _narrow(certified: CertifiedTerm) -> bool:
    """Whether an enclosure is as tight as a few doubles."""
    lower, upper = certified.lower, certified.upper
    if lower == upper or (lower == sys.float_info.max and upper == math.inf):
        return True
    size = max(abs(lower), abs(upper))
    return upper - lower <= 4 * math.ulp(max(size, 1.0) if certified.term.log else size)


class _UndecidedError(ArithmeticError):
    """A question that balls of this width leave open."""


@dataclass(frozen=True, slots=True)
class _Ball:
    """An Arb ball whose comparisons are decided or raise (Arb's own are False when undecided)."""

    ball: arb

    def __add__(self, other: _Ball) -> _Ball:
        return _Ball(self.ball + other.ball)

    def __sub__(self, other: _Ball) -> _Ball:
        return _Ball(self.ball - other.ball)

    def __mul__(self, other: _Ball) -> _Ball:
        return _Ball(self.ball * other.ball)

    def __truediv__(self, other: _Ball) -> _Ball:
        return _Ball(self.ball / other.ball)

    def __neg__(self) -> _Ball:
        return _Ball(-self.ball)

    def __abs__(self) -> _Ball:
        return _Ball(abs(self.ball))

    def __lt__(self, other: _Ball) -> bool:
        return _decide(self.ball < other.ball, self.ball >= other.ball)

    def __le__(self, other: _Ball) -> bool:
        return _decide(self.ball <= other.ball, self.ball > other.ball)

    def __gt__(self, other: _Ball) -> bool:
        return other < self

    def __ge__(self, other: _Ball) -> bool:
        return other <= self


def _decide(yes: bool, no: bool) -> bool:
    if yes == no:
        raise _UndecidedError("a comparison of overlapping enclosures is undecided")
    return yes


def _on_balls(function: Callable[..., arb]) -> Callable[..., _Ball]:
    return lambda *arguments: _Ball(function(*(a.ball for a in arguments)))


def _increasing(function: Callable[..., arb]) -> Callable[..., _Ball]:
    """Enclosure of a function that increases in every argument, from its values at the ends.

    The ends are exact, so that cancellation in a closed form costs precision of the work only.
    """

    def enclose(*arguments: arb) -> arb:
        low = function(*(a.lower() for a in arguments))
        if all(a.is_exact() for a in arguments):
            return low
        return low.union(function(*(a.upper() for a in arguments)))

    return _on_balls(enclose)


def _extra_bits(x: arb) -> int:
    """Bits that closed forms with a double pole at the exact number x = 0 lose there."""
    mantissa, exponent = x.man_exp()
    return 192 + 3 * max(0, -(int(exponent) + int(mantissa).bit_length()))


def _S1(rate: arb, T: arb) -> arb:
    return (rate * T).expm1() / rate.expm1() if rate != 0 else T


def _S2(rate: arb, T: arb) -> arb:
    if rate == 0 or T == 1:
        return T * (T - 1) / 2
    with ctx.extraprec(_extra_bits(rate)):
        numerator = rate.exp() - T * (rate * T).exp() + (T - 1) * (rate * (T + 1)).exp()
        return numerator / rate.expm1() ** 2


def _c(x: arb) -> arb:
    return x / -(-x).expm1() if x != 0 else arb(1)


def _J(s: arb, Y: arb) -> arb:
    if s == 0 or Y == 0:
        return Y**2 / 2
    with ctx.extraprec(_extra_bits(s) + _extra_bits(Y)):
        return (1 + (s * Y - 1) * (s * Y).exp()) / s**2


def _I(s: arb, Y: arb) -> arb:
    before = Y / arb.const_e()
    if s >= 0 or -s * Y <= 1:
        return before
    beyond = (3 / arb.const_e() - (1 - s * Y) * (s * Y).exp()) / -s
    return beyond if -s * Y > 1 else before.union(beyond)


def _xi(m: arb) -> arb:
    """binom(2h, h) 4^{-h} (2h+1)/m with h = floor((m-1)/2), by log-gammas."""
    h = ((m - 1) / 2).floor()
    with ctx.extraprec(128):
        log_central = (2 * h + 1).lgamma() - 2 * (h + 1).lgamma() - 2 * h * arb.const_log2()
        return log_central.exp() * (2 * h + 1) / m


def _kl_inverse(q: arb, budget: arb) -> arb:
    """Largest p with kl(q||p) <= budget, between points where each side is certain."""
    if q == 0:
        return -(-budget).expm1()
    if q == 1 or budget == 0:
        return q
    low, high = q, arb(1)
    for _ in range(2 * ctx.prec):
        p = ((low + high) / 2).mid()
        if not low < p < high:
            break
        divergence = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
        if divergence <= budget:
            low = p
        elif divergence > budget:
            high = p
        else:
            break
    return low.union(high)


def _log2(x: arb) -> arb:
    """Exact at powers of two, where comparisons with whole numbers would stay undecided."""
    if x.is_exact() and x > 0:
        mantissa, exponent = x.man_exp()
        if mantissa == 1:
            return arb(exponent)
    return x.log() / arb.const_log2()


def _not_enclosed(name: str) -> Callable[..., _Ball]:
    """A function of the audit that has no rigorous enclosure here."""

    def refuse(*_: _Ball) -> _Ball:
        raise ArithmeticError(f"{name} is an integral without a rigorous enclosure: audit instead")

    return refuse


BALLS = Arithmetic(
    number=lambda text: _Ball(arb(text)),
    power=_on_balls(lambda base, exponent: base**exponent),
    constants={"E": lambda: _Ball(arb.const_e()), "pi": lambda: _Ball(arb.pi())},
    functions={
        "exp": _on_balls(arb.exp),
        "log": _on_balls(arb.log),
        "log1p": _on_balls(arb.log1p),
        "log2": _on_balls(_log2),
        "loggamma": _on_balls(arb.lgamma),
        "lambertw": _on_balls(arb.lambertw),
        "sqrt": _on_balls(arb.sqrt),
        "Abs": abs,
        "Min": _on_balls(lambda *balls: reduce(arb.min, balls)),
        "Max": _on_balls(lambda *balls: reduce(arb.max, balls)),
        "ceiling": _on_balls(arb.ceil),
        "softplus": _on_balls(lambda v: v.exp().log1p()),
        "S1": _increasing(_S1),
        "S2": _increasing(_S2),
        "J": _increasing(_J),
        "I": _increasing(_I),
        "c": _increasing(_c),
        "xi": _on_balls(_xi),
        "kl_inverse": _increasing(_kl_inverse),
        "gaussian_error": _not_enclosed("gaussian_error"),
        "statistical_dimension": _not_enclosed("statistical_dimension"),
    },
)
