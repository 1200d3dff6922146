"""The terms of a theorem while they are computed, on one point or on a whole grid at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from bounds.result import Bound, Source, Term
from bounds.stability import Real


@dataclass
class Derivation:
    """A chain of named quantities, each with its formula as text.

    Calling it records a quantity and returns it, so that a theorem reads as its own derivation.
    Scalars end in a `Bound`, arrays in one array per term.
    """

    inputs: Mapping[str, Real]
    steps: list[tuple[str, Real, str, str, bool]] = field(default_factory=list)

    def __call__(
        self, name: str, stored: Real, formula: str, meaning: str, *, log: bool = False
    ) -> Real:
        self.steps.append((name, stored, formula, meaning, log))
        return stored

    def bound(self, statement: str, source: Source, *assumptions: str) -> Bound:
        """The chain as a `Bound`; ValueError if it was computed on a grid."""
        if any(np.ndim(stored) for _, stored, *_ in self.steps):
            raise ValueError("a Bound is one point; use bounds.curve for grids of arguments")
        terms = tuple(
            Term(name, float(stored), formula, meaning, log)
            for name, stored, formula, meaning, log in self.steps
        )
        inputs = {name: float(value) for name, value in self.inputs.items()}
        return Bound(statement, inputs, terms, source, assumptions)

    def arrays(self) -> dict[str, Float[ndarray, ...]]:
        """Stored value of every term (a logarithm, name prefixed `ln_`, where it may overflow)."""
        return {
            (f"ln_{name}" if log else name): np.asarray(stored)
            for name, stored, _, _, log in self.steps
        }
