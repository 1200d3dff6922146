"""How published statements about a model become claims about what was measured again.

A metric is an array of cells x repeats, mostly pairs of prompts, and a cell a published number.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from numpy import ndarray

from bounds.result import Source
from experiments.claims import Claim, Outcome


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The mean of every cell of a metric is close to what is published, or on one side of it.

    Close, where `relation` is "~": at most `bound` away; else the mean itself is bounded. Cells
    without a published number, NaN, are left out.
    """

    name: str
    metric: str
    statement: str
    place: str
    published: Any
    """One number for each cell, or by the name of the cell."""
    relation: str
    bound: float
    source: str = "ensign2024investigating"
    """Of the bibliography."""
    expected: Outcome = "supported"
    corrected_by: str | None = None

    @property
    def claim(self) -> Claim:
        """What is checked with the rows of `compared`."""
        return Claim(
            name=self.name,
            statement=self.statement,
            source=Source(key=self.source, place=self.place),
            relation=">=" if self.relation == ">=" else "<=",
            measured="measured",
            predicted=self.bound,
            where={"is_370m": True, "claim": self.name},
            over=("cell",),
            tolerance=0.0,
            expected=self.expected,
            corrected_by=self.corrected_by,
        )

    @property
    def values(self) -> ndarray:
        """What is published."""
        by_name = isinstance(self.published, Mapping)
        return np.array(list(self.published.values()) if by_name else self.published, dtype=float)

    def rows(self, metric: ndarray) -> Iterator[dict[str, Any]]:
        """A row for each repeat of each cell, on both sides where it is to be close.

        ValueError where the metric has other cells.
        """
        values = self.values
        if metric.shape[:-1] != values.shape:
            raise ValueError(
                f"metric {self.metric!r} must have cells {values.shape}, got {metric.shape[:-1]}"
            )
        sides = {" (above)": 1, " (below)": -1} if self.relation == "~" else {"": 1}
        for (index, value), repeats in zip(
            np.ndenumerate(values), metric.reshape(-1, metric.shape[-1]), strict=True
        ):
            origin = value if self.relation == "~" else 0.0
            for side, sign in sides.items() if np.isfinite(value) else ():
                for number in repeats[np.isfinite(repeats)]:
                    yield {
                        "claim": self.name,
                        "cell": self._cell(index) + side,
                        "measured": sign * (number - origin),
                    }

    def _cell(self, index: tuple[int, ...]) -> str:
        if isinstance(self.published, Mapping):
            name = list(self.published)[index[0]]
            return name if isinstance(name, str) else " -> ".join(name)
        return ", ".join(map(str, index)) or "mean"


def compared(rows: pandas.DataFrame, comparisons: Sequence[Comparison]) -> pandas.DataFrame:
    """The rows that the claims are about, from those of trials.

    There is one more of each trial, about nothing, which says whether the model is the one that
    the published numbers are of; of other models there are no more.
    """
    found = [
        {"is_370m": trial["is_370m"], "claim": "", "cell": "", "measured": np.nan}
        for _, trial in rows.iterrows()
    ]
    for _, trial in rows[rows["is_370m"].astype(bool)].iterrows():
        for comparison in comparisons:
            metric = trial.get(comparison.metric)
            if isinstance(metric, ndarray):
                found += ({"is_370m": True, **row} for row in comparison.rows(metric))
    return pandas.DataFrame(found)
