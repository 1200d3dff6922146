"""What every bound satisfies, whichever theorem it is from, and the table of bounds over a class.

`tests/bounds/test_laws.py` runs every law on every entry; a new theorem about the class is one more
line of `BOUNDS`.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import jaxtyping
import pytest

from bounds.capacity import covering_number
from bounds.generalization import generalization_gap, rademacher_lower, rademacher_upper
from bounds.lipschitz import lipschitz_constants, output_range
from bounds.losses import Loss, binary_cross_entropy, cross_entropy, multiclass_margin, ramp
from bounds.result import Bound
from bounds.ssm import SelectiveSSMClass

Maker = Callable[[SelectiveSSMClass, int, int], Bound]
"""A bound from a class, a number of samples m and a length T."""


def gap(loss: Loss, delta: float = 0.05, union_cost: float = 0.0) -> Maker:
    def make(ssm: SelectiveSSMClass, m: int, T: int) -> Bound:
        return generalization_gap(ssm, m=m, T=T, delta=delta, loss=loss, union_cost=union_cost)

    return make


BOUNDS: dict[str, Maker] = {
    "output_range": lambda ssm, m, T: output_range(ssm, T=T),
    "lipschitz_constants": lambda ssm, m, T: lipschitz_constants(ssm, T=T),
    "maurey_cover": lambda ssm, m, T: covering_number(ssm, T=T, radius=0.3, cover="maurey"),
    "volumetric_cover": lambda ssm, m, T: covering_number(ssm, T=T, radius=0.3, cover="volumetric"),
    "rademacher_upper": lambda ssm, m, T: rademacher_upper(ssm, m=m, T=T),
    "rademacher_lower": lambda ssm, m, T: rademacher_lower(ssm, m=m, T=T),
    "gap_ramp": gap(ramp(0.5)),
    "gap_binary_cross_entropy": gap(binary_cross_entropy(4.0)),
    "gap_margin": gap(multiclass_margin(2.0), delta=1e-9),
    "gap_cross_entropy": gap(cross_entropy(n_classes=3, output_bound=2.0), delta=0.99999),
    "gap_after_seeing_data": gap(ramp(), union_cost=30.0),
}
NOT_DEFINED = {
    ("rademacher_lower", "step_logits"),
    ("rademacher_lower", "outputs"),
    ("rademacher_upper", "outputs"),
}
"""Pairs (bound, variant of the class) for which the theorem does not hold, and raises."""


def never_nan(bound: Bound) -> None:
    """Every term is a number or infinity, as is its logarithm; the value is not negative."""
    for term in bound:
        assert not math.isnan(term.stored), term
        assert not math.isnan(term.value), term
        assert term.value >= 0, term
    assert math.isfinite(bound.terms[-1].stored) or bound.terms[-1].stored == -math.inf


def audited(bound: Bound) -> None:
    """Multiprecision arithmetic, from the formulas alone, gives the same numbers."""
    audit = bound.audit(30)
    assert audit.agrees, "\n".join(line for line in str(audit).splitlines() if "DIS" in line)


def explained(bound: Bound) -> None:
    """The derivation names every term and every input, and where the theorem is."""
    text = bound.explain()
    lines = text.splitlines()
    for term in bound:
        assert term.meaning
        assert any(
            line.split()[0] == term.name and term.meaning in line for line in lines if line.strip()
        )
    assert all(f"{name}=" in text for name in bound.inputs)
    assert str(bound.source) in text
    assert all(assumption in text for assumption in bound.assumptions)


def valued_by_its_last_term(bound: Bound) -> None:
    last = list(bound)[-1]
    assert float(bound) == last.value == bound[last.name]
    with pytest.raises(KeyError, match="this bound has .*" + last.name):
        bound["no such term"]


def normalised(bound: Bound, ssm: SelectiveSSMClass) -> None:
    """The inputs are the budgets as the class normalised them."""
    budgets = ssm.inputs()
    assert {name: bound.inputs[name] for name in budgets} == budgets


def clipped(bound: Bound) -> None:
    """No gap exceeds the range of its loss, and the smallest of them is reported."""
    gaps = [term.value for term in bound if term.name.startswith("gap_")]
    assert 0 <= float(bound) == min(gaps) <= bound.inputs["c_l"]


def not_smaller(loose: Bound, tight: Bound, *, slack: float) -> None:
    """A class that contains another has no smaller bound."""
    here, there = tight.terms[-1].stored, loose.terms[-1].stored
    if tight.terms[-1].log:
        assert there >= here - slack * max(1, abs(here)) if math.isfinite(here) else True
    else:
        assert there >= here * (1 - slack)


@contextlib.contextmanager
def as_users_call() -> Iterator[None]:
    """Switch the runtime type checker of the tests off, as it is outside of them.

    With it, a string for a number raises the checker's error before our validation is reached.
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
