"""Are the numbers right? Every term against multiprecision and against a rigorous enclosure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.audit import TOLERANCE
from bounds.generalization import generalization_gap
from bounds.losses import ramp
from bounds.result import Source
from experiments.claims import Claim
from experiments.members import reference_class
from experiments.study import Preset, Study


@dataclass(frozen=True)
class AuditedNumbers(Study):
    """Random classes, signs of s_A and lengths up to 10⁹; about fifty terms each."""

    seed: tuple[int, ...] = (0, 1, 2, 3)
    """Independent batches."""
    classes: tuple[int, ...] = (100,)
    """Random classes per batch."""

    name = "audited-numbers"
    title = "Numerical correctness"
    version = 1
    presets = {
        "quick": Preset("10 s"),
        "small": Preset("2 min", {"seed": tuple(range(40))}),
    }
    claims = (
        Claim(
            name="audit-agrees",
            statement="every term equals its formula evaluated in 50-digit arithmetic",
            source=Source("seqtheory", "bounds.audit"),
            relation="<=",
            measured="worst_error",
            predicted=TOLERANCE,
            violations="disagreements",
            instances="terms",
            over=("seed",),
            failure_probability=0.0,
            tolerance=0.0,
        ),
        Claim(
            name="certificate-agrees",
            statement="the certified upper value is the number reported, up to 1e-9",
            source=Source("seqtheory", "bounds.certify"),
            relation="<=",
            measured="worst_certified_difference",
            predicted=1e-9,
            violations="disagreeing_certificates",
            instances="certificates",
            over=("seed",),
            failure_probability=0.0,
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"seed": self.seed, "classes": self.classes}

    @staticmethod
    def measure(rng: np.random.Generator, *, seed: int, classes: int) -> dict[str, Any]:
        worst, disagreements, terms = 0.0, 0, 0
        differences = []
        for _ in range(classes):
            size = float(10 ** rng.uniform(-6, 0.5))
            ssm = reference_class(
                d=int(rng.integers(1, 64)),
                N=int(rng.integers(1, 16)),
                s_A=float(rng.choice([-size, 0.0, size])),
                a_lo=-4.0,
                p_hi=float(rng.uniform(-1, 2)),
                B_u=float(10 ** rng.uniform(-1, 1)),
                B_q=float(rng.uniform(0, 2)),
                M_w=None, M_B=None, M_C=None, M_q=None,
            )  # fmt: skip
            bound = generalization_gap(
                ssm,
                m=int(10 ** rng.uniform(1, 12)),
                T=int(10 ** rng.uniform(0, 9)),
                delta=0.05,
                loss=ramp(),
            )
            audit = bound.audit(digits=50)
            worst = max(worst, audit.worst.error)
            disagreements += sum(not audited.agrees for audited in audit.terms)
            terms += len(audit.terms)
            differences.append(abs(bound.certify().upper / float(bound) - 1))
        return {
            "worst_error": worst,
            "disagreements": disagreements,
            "terms": terms,
            "worst_certified_difference": max(differences),
            "disagreeing_certificates": sum(difference > 1e-9 for difference in differences),
            "certificates": len(differences),
        }
