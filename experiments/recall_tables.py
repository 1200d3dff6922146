"""What the tables of the recall studies share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas


def curves(evaluations: Mapping[int, Mapping[str, float]]) -> dict[str, np.ndarray]:
    """`curve_steps`, and for every metric its values there."""
    found = {"curve_steps": np.array(list(evaluations))}
    for name in next(iter(evaluations.values())):
        found[f"curve_{name}"] = np.array([metrics[name] for metrics in evaluations.values()])
    return found


def at_best_rate(
    rows: pandas.DataFrame, shape: Sequence[str], by: str = "validation_accuracy"
) -> pandas.DataFrame:
    """The rows at the best `rate_factor` of each shape, by the mean of this column there.

    What is reported is of other data, so that choosing does not flatter it.
    """
    shape = list(shape)
    means = rows.groupby([*shape, "rate_factor"])[by].transform("mean")
    best = rows.assign(mean=means).sort_values("mean", kind="stable", na_position="first")
    factors = best.groupby(shape)["rate_factor"].transform("last")
    return rows[rows["rate_factor"] == factors.reindex(rows.index)]
