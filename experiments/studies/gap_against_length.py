"""How do accuracy and generalization gap of trained classifiers depend on the sequence length?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas

from bounds.result import Source
from experiments.claims import Claim
from experiments.studies.generalization import FIGURE, Generalization
from experiments.study import Preset

_BAYES = Source("seqtheory", "the Bayes rule of noisy majority, in closed form")
_SERIES = ["model", "task", "d", "N", "s_A", "frozen", "m", "steps", "seed", "stable"]
_MAJORITY = {"task": "majority", "frozen": True}


@dataclass(frozen=True)
class GapAgainstLength(Generalization):
    """Classifiers trained at several lengths from a stable and from a marginal start."""

    s_A: tuple[float, ...] = (-0.1,)
    frozen: tuple[bool, ...] = (True, False)
    steps: tuple[int, ...] = (320,)
    T: tuple[int, ...] = (25, 100, 200)
    seed: tuple[int, ...] = tuple(range(3))

    name = "gap-against-length"
    title = "Measured gaps against the sequence length"
    version = 1
    presets = {
        "quick": Preset("1 min"),
        "small": Preset(
            "15 min",
            {"model": ("single", "mamba"), "T": (25, 50, 100, 200, 400), "steps": (640,),
             "seed": tuple(range(4))},
        ),
        "medium": Preset(
            "3 h",
            {"s_A": (-0.1, 0.0), "T": tuple(range(25, 401, 25)), "steps": (640,),
             "seed": tuple(range(20))},
        ),
        "paper": Preset(
            "1 h",
            {"s_A": (0.0,), "frozen": (False,), "T": tuple(range(25, 401, 25)), "steps": (640,),
             "seed": tuple(range(5))},
        ),
    }  # fmt: skip
    claims = (
        Claim(
            name="gap-free-of-length-when-stable",
            statement="trained to s_A < 0: the gap grows by at most half a point per doubling of T",
            source=FIGURE,
            relation="<=",
            measured="gap_per_doubling",
            predicted=0.005,
            where={"series": "stable"},
            tolerance=0.0,
        ),
        Claim(
            name="reported-gap-is-distribution-shift",
            statement="majority, fixed s_A < 0: at least three quarters of the gap to the clean "
            "test set are the shift from noisy to clean inputs",
            source=_BAYES,
            relation=">=",
            measured="shift",
            predicted="most_of_reported_gap",
            where=_MAJORITY,
            tolerance=0.0,
        ),
        Claim(
            name="clean-error-is-that-of-noisy-bayes-rule",
            statement="majority, fixed s_A < 0: the clean test error is within 5 points of that of "
            "the rule that is best on noisy inputs",
            source=_BAYES,
            relation="<=",
            measured="distance_to_bayes",
            predicted=0.05,
            where=_MAJORITY,
            tolerance=0.0,
        ),
    )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Rows with the slope of the gap over log T, on the first row of each series."""
        # Mamba is stable by construction.
        final = rows["final_s_A"] if "final_s_A" in rows else pandas.Series(np.nan, rows.index)
        stable = final.fillna(-1) < 0
        rows = rows.assign(
            stable=stable,
            series="",
            shift=rows["test_error"] - rows["fresh_error"],
            most_of_reported_gap=0.75 * rows["reported_gap"],
            distance_to_bayes=(rows["test_error"] - rows["bayes_clean_error"]).abs(),
            gap_per_doubling=np.nan,
        )
        for _, series in rows.groupby([*rows.columns.intersection(_SERIES)]):
            if len(set(series["T"])) >= 3:
                # On one row only: claims about means take every row for a measurement.
                first = series.index[0]
                slope = np.polyfit(np.log2(series["T"]), series["gap"], 1)[0]
                rows.loc[first, "gap_per_doubling"] = slope
                rows.loc[first, "series"] = "stable" if series["stable"].iloc[0] else "unstable"
        return rows
