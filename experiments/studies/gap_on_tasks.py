"""Do the gaps of the published tasks say anything? Baselines and padding beside them."""

from __future__ import annotations

from dataclasses import dataclass

import pandas

from bounds.result import Source
from experiments.claims import Claim
from experiments.studies.generalization import FIGURE, Generalization
from experiments.study import Preset

_BASELINE = Source("seqtheory", "majority class of the test sample")
_BRIEF = 640
"""Steps of the published trainings, at most. After 1500 steps on 4000 samples (seqtheory, small
preset) single blocks are 13 points above the majority class at T = 50, and 3 at T = 100."""


@dataclass(frozen=True)
class GapOnTasks(Generalization):
    """Both models on ListOps and on reviews, beside the rate of the majority class."""

    model: tuple[str, ...] = ("single", "mamba")
    task: tuple[str, ...] = ("listops", "reviews")
    d: tuple[int, ...] = (16,)
    T: tuple[int, ...] = (50,)
    steps: tuple[int, ...] = (200,)
    seed: tuple[int, ...] = tuple(range(3))

    name = "gap-on-tasks"
    title = "Gaps on ListOps and reviews"
    version = 1
    presets = {
        "quick": Preset("30 s"),
        "small": Preset("15 min", {"T": (50, 100), "m": (4000,), "steps": (1500,)}),
        "medium": Preset("5 h", {"T": (100, 300, 600), "m": (25000,), "steps": (10000,)}),
        "paper": Preset("days; hours on a GPU", {
            "T": tuple(range(100, 1001, 100)), "m": (1000, 25000), "steps": (2900,),
            "seed": tuple(range(5)),
        }),
    }  # fmt: skip
    claims = (
        Claim(
            name="listops-hardly-above-majority-class",
            statement="ListOps, trained for 640 steps or less: the test accuracy is at most 5 "
            "points above that of the majority class, so that the gap says little",
            source=_BASELINE,
            relation="<=",
            measured="above_baseline",
            predicted=0.05,
            where={"task": "listops", "model": "single", "brief": True},
            over=("T",),
            tolerance=0.0,
        ),
        Claim(
            name="occam-bound-vacuous-for-large-vocabularies",
            statement="with an embedding of 512 subwords and samples of this size, the Occam bound "
            "is no better than guessing",
            source=FIGURE,
            relation=">=",
            measured="occam_risk",
            predicted="guessing_error",
            where={"task": "reviews"},
            over=("model", "T"),
            tolerance=0.0,
        ),
    )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Rows with the test accuracy above that of the majority class; brief trainings marked."""
        above = rows["guessing_error"] - rows["test_error"]
        return rows.assign(above_baseline=above, brief=rows["steps"] <= _BRIEF)
