"""A number from a theorem, with everything needed to check it: `Source`, `Term`, `Bound`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bounds.audit import Audit
    from bounds.certify import Certificate

_LOG_LARGEST = math.log(1.7976931348623157e308)


@dataclass(frozen=True)
class Source:
    """Where a statement comes from.

    `key` is an entry of docs/references.bib (`seqtheory` for results proved in docs/proofs.md),
    `place` the theorem, lemma or section.
    """

    key: str
    place: str

    def __str__(self) -> str:
        return f"{self.key}, {self.place}"


@dataclass(frozen=True)
class Term:
    """One named intermediate quantity of a bound.

    `formula` is SymPy-readable text over the inputs and the earlier terms; an empty formula marks a
    free choice (a covering radius, a chaining ratio) for which every admissible value gives a valid
    bound. With `log=True`, `stored` is the natural logarithm of the quantity, so that quantities
    beyond 1e308 keep full precision.
    """

    name: str
    stored: float
    formula: str
    meaning: str
    log: bool = False

    @property
    def value(self) -> float:
        """The quantity itself; `inf` where it exceeds the largest double."""
        if not self.log:
            return self.stored
        return math.exp(self.stored) if self.stored < _LOG_LARGEST else math.inf

    def __str__(self) -> str:
        return render(self.stored, log=self.log)


def render(stored: float, *, log: bool) -> str:
    """Six significant digits, also for quantities known only by their logarithm."""
    if not log or abs(stored) < 690 or math.isinf(stored):
        return f"{math.exp(stored) if log else stored:.6g}"
    exponent, mantissa = divmod(stored / math.log(10), 1)
    return f"{10**mantissa:.4f}e{int(exponent):+d}"


@dataclass(frozen=True)
class Bound:
    """One evaluated point of a theorem; its value is that of the last term.

    `float(bound)` is the value, `bound["G1"]` a term's value, `explain()` the derivation as text,
    `audit()` re-evaluates every formula in multiprecision arithmetic, `certify()` encloses every
    term in outward-rounded intervals.
    """

    statement: str
    inputs: Mapping[str, float]
    terms: tuple[Term, ...]
    source: Source
    assumptions: tuple[str, ...] = ()
    _index: dict[str, Term] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        index = {term.name: term for term in self.terms}
        if len(index) != len(self.terms) or index.keys() & self.inputs.keys():
            raise ValueError("every term of a bound needs a name of its own")
        object.__setattr__(self, "_index", index)

    def __float__(self) -> float:
        return self.terms[-1].value

    def __getitem__(self, name: str) -> float:
        return self.term(name).value

    def __iter__(self) -> Iterator[Term]:
        return iter(self.terms)

    def term(self, name: str) -> Term:
        """The term called `name`; KeyError lists the names there are."""
        if name not in self._index:
            raise KeyError(f"no term {name!r}; this bound has {', '.join(self._index)}")
        return self._index[name]

    def explain(self) -> str:
        """The derivation, one term a line: name = value, formula, meaning."""
        lines = [*textwrap.wrap(self.statement, 100), f"source: {self.source}"]
        lines += [f"assumes: {assumption}" for assumption in self.assumptions]
        lines.append("inputs: " + ", ".join(f"{k}={v:.6g}" for k, v in self.inputs.items()))
        width = max(len(term.name) for term in self.terms)
        for term in self.terms:
            formula = term.formula or "chosen"
            lines.append(f"  {term.name:<{width}} = {term!s:<13} {term.meaning}  [{formula}]")
        return "\n".join(lines)

    def audit(self, digits: int = 50) -> Audit:
        """Re-evaluate the whole chain from the inputs with `digits` decimal digits (mpmath)."""
        from bounds.audit import audit

        return audit(self, digits)

    def certify(self) -> Certificate:
        """Enclose every term in an interval that provably contains it (Arb)."""
        from bounds.certify import certify

        return certify(self)
