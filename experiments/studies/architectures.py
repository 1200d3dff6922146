"""How do the capacities of different architectures grow with the sequence length?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.comparison import Row, comparison_table
from bounds.result import Source
from experiments.claims import Claim
from experiments.study import Preset, Study

_START = 10**4
"""Laws are compared from this length on, relative to it."""
_ROWS: dict[str, Row] = {
    ", ".join(part for part in (row.architecture, row.case, row.mode) if part): row
    for row in comparison_table()
    if row.capacity is not None
}
_LAWS = {"1": 0.0, "polylog T": 0.1, "sqrt(T)": 0.5, "T": 1.0, "T^2": 2.0, "exp(T)": 1.0}
"""Power of T that a law stands for: of the capacity, for "exp(T)" of its logarithm."""


def _claim(name: str, law: str, relation: Any, statement: str, **more: Any) -> Claim:
    return Claim(
        name=name,
        statement=statement,
        source=Source(
            "seqtheory", "other architectures; compare honarpisheh2025generalization, Table 1"
        ),
        relation=relation,
        measured="growth",
        predicted="law_value",
        where={"law": law, "long": True},
        over=("row", "T"),
        **more,
    )


@dataclass(frozen=True)
class Architectures(Study):
    """Capacities with all norm budgets equal, each against the law it is listed with."""

    row: tuple[str, ...] = tuple(_ROWS)
    """Rows of the comparison table that have a capacity function."""
    T: tuple[int, ...] = tuple(sorted({round(10 ** (k / 4)) for k in range(33)}))
    """Sequence lengths (steps)."""

    name = "architectures"
    title = "Length laws across architectures"
    version = 1
    presets = {"quick": Preset("5 s")}
    claims = (
        _claim(
            "length-free", "1", "<=", tolerance=1e-6,
            statement="softmax attention, averaged linear attention, contracting RNNs, stable LTI "
            "and stable selective SSMs: capacity free of T",
        ),
        _claim(
            "logarithmic", "polylog T", "<=", tolerance=0.0,
            statement="parameter-counting bounds of linear attention and of a selective SSM at "
            "s_A = 0: capacity below T^0.1",
        ),
        _claim(
            "root", "sqrt(T)", "~", tolerance=0.05,
            statement="parameter-counting bounds of expanding RNNs and unstable selective SSMs "
            "grow as √T",
        ),
        _claim(
            "linear", "T", "~", tolerance=0.05,
            statement="linear attention, and RNNs at ‖A‖ = 1 with bounded activation: capacity "
            "grows as T",
        ),
        _claim(
            "quadratic", "T^2", "~", tolerance=0.05,
            statement="RNNs at ‖A‖ = 1 and selective SSMs at s_A = 0: capacity grows as T²",
        ),
        _claim(
            "exponential", "exp(T)", "~", tolerance=0.05,
            statement="expanding RNNs and unstable selective SSMs: the logarithm of the norm-based "
            "capacity grows as T",
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"row": self.row, "T": self.T}

    @staticmethod
    def measure(rng: np.random.Generator, *, row: str, T: int) -> dict[str, Any]:
        listed = _ROWS[row]
        log_C, start = _log_capacity(listed, T), _log_capacity(listed, _START)
        exponential = listed.T_law == "exp(T)"
        with np.errstate(over="ignore"):
            growth = log_C / start if exponential else np.exp(log_C - start)
        return {
            "architecture": listed.architecture,
            "case": listed.case,
            "mode": listed.mode,
            "law": listed.T_law,
            "long": T >= _START,
            "ln_C": log_C,
            "growth": growth,
            "law_value": (T / _START) ** _LAWS[listed.T_law],
        }


def _log_capacity(row: Row, T: int) -> float:
    assert row.capacity is not None
    last = row.capacity(T).terms[-1]
    return last.stored if last.log else float(np.log(last.stored))
