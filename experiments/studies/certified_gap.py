"""Are certified bounds on the risk of trained models ever below what guessing has?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas

from bounds.result import Source
from experiments.claims import Claim
from experiments.classifiers import BITS
from experiments.studies.generalization import Generalization
from experiments.study import Preset

_OCCAM = Source("seqtheory", f"quantised Occam bound, {BITS} bits per weight")
_NORMS = Source("seqtheory", "theorems D5 to D7, class from a countable family")
_EACH = ("m",)


@dataclass(frozen=True)
class CertifiedGap(Generalization):
    """Single blocks on majority with more and more samples, each with every bound that applies."""

    s_A: tuple[float, ...] = (-0.1,)
    frozen: tuple[bool, ...] = (True,)
    m: tuple[int, ...] = (250, 4000, 16000)
    steps: tuple[int, ...] = (320,)
    T: tuple[int, ...] = (50,)
    seed: tuple[int, ...] = tuple(range(5))

    name = "certified-gap"
    title = "Certified bounds of trained models"
    version = 1
    presets = {
        "quick": Preset("1 min"),
        "small": Preset("10 min", {"m": (250, 1000, 4000, 16000, 64000), "seed": tuple(range(20))}),
    }
    claims = (
        Claim(
            name="occam-bound-holds",
            statement="the error of the quantised model is at most its Occam bound (of confidence "
            "0.95), on average over samples",
            source=_OCCAM,
            relation="<=",
            measured="quantised_fresh_error",
            predicted="occam_risk",
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="occam-bound-not-vacuous",
            statement="from 4000 samples on, it is at most half the error of guessing",
            source=_OCCAM,
            relation="<=",
            measured="occam_risk",
            predicted="half_of_guessing",
            where={"many": True},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="parameter-bound-not-vacuous",
            statement="from 4000 samples on, the parameter-counting bound on the gap is below 0.9",
            source=_NORMS,
            relation="<=",
            measured="parameter",
            predicted=0.9,
            where={"many": True},
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="norm-bound-vacuous",
            statement="the norm-based bound on the gap of the ramp loss is at least 1000 times "
            "what is trivial, for every model",
            source=_NORMS,
            relation=">=",
            measured="log10_norm",
            predicted=3.0,
            over=_EACH,
            tolerance=0.0,
        ),
        Claim(
            name="certified-above-measured",
            statement="the gap of the ramp loss is at most the smallest of the certified bounds "
            "(of confidence 0.95), on average over samples",
            source=_NORMS,
            relation="<=",
            measured="ramp_gap",
            predicted="certified",
            over=_EACH,
            tolerance=0.0,
        ),
    )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Bounds clipped at what is trivial, and what guessing has."""
        kinds = ["log10_norm", "log10_hybrid", "log10_parameter"]
        return rows.assign(
            many=rows["m"] >= 4000,
            half_of_guessing=rows["guessing_error"] / 2,
            parameter=np.minimum(1.0, 10 ** rows["log10_parameter"]),
            certified=np.minimum(1.0, 10 ** rows[kinds].min(axis=1)),
        )
