"""What the source paper prints against what is right, on random instances of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bounds.errata import ERRATA, Check, Erratum
from bounds.result import Source
from experiments.claims import Claim
from experiments.study import Preset, Study


def _claims(erratum: Erratum) -> tuple[Claim, Claim]:
    code = erratum.code.lower()

    def claim(version: str, statement: str, source: Source, **more: Any) -> Claim:
        exact = erratum.relation == "=="
        return Claim(
            name=f"{code}-{version}",
            statement=f"{erratum.title}: {statement}",
            source=source,
            relation="<=" if erratum.relation == "==" else erratum.relation,
            measured=f"{version}_error" if exact else f"{version}_actual",
            predicted=erratum.tolerance if exact else f"{version}_claimed",
            where={"erratum": erratum.code},
            violations=f"{version}_violations",
            instances="instances",
            failure_probability=0.0,
            tolerance=erratum.tolerance,
            **more,
        )

    paper = Source("honarpisheh2025generalization", f"as printed (our erratum {erratum.code})")
    ours = Source("seqtheory", f"erratum {erratum.code}, corrected")
    return (
        claim(
            "printed", erratum.printed, paper, expected="refuted", corrected_by=f"{code}-corrected"
        ),
        claim("corrected", erratum.corrected, ours),
    )


@dataclass(frozen=True)
class PublishedErrata(Study):
    """Each statement that is wrong as printed, beside the one that replaces it.

    Instances are drawn where the printed statement fails (even m, non-normal matrices, …).
    """

    erratum: tuple[str, ...] = tuple(erratum.code for erratum in ERRATA if erratum.wrong)
    """Codes of the errata; the others in `bounds.errata` concern looseness, not falsehood."""
    instances: tuple[int, ...] = (500,)
    """Random instances of each."""

    name = "published-errata"
    title = "Statements that are wrong as printed"
    version = 1
    presets = {
        "quick": Preset("10 s"),
        "small": Preset("2 min", {"instances": (10000,)}),
    }
    claims = tuple(claim for erratum in ERRATA if erratum.wrong for claim in _claims(erratum))

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"erratum": self.erratum, "instances": self.instances}

    @staticmethod
    def measure(rng: np.random.Generator, *, erratum: str, instances: int) -> dict[str, Any]:
        tested = next(entry for entry in ERRATA if entry.code == erratum)
        drawn = [tested.instance(rng) for _ in range(instances)]
        metrics: dict[str, Any] = {}
        for version in ("printed", "corrected"):
            checked: list[Check] = [getattr(instance, version) for instance in drawn]
            errors = np.array([_excess(check, tested.relation) for check in checked])
            worst = checked[int(np.argmax(errors))]
            metrics |= {
                f"{version}_violations": sum(not tested.holds(check) for check in checked),
                f"{version}_actual": float(worst.actual),
                f"{version}_claimed": float(worst.claimed),
                f"{version}_error": float(errors.max()),
            }
        return metrics


def _excess(check: Check, relation: str) -> float:
    """By what fraction of the claimed value a statement is violated; negative where it is not."""
    excess = (check.actual - check.claimed) / max(abs(check.claimed), 1e-300)
    return {"<=": excess, ">=": -excess, "==": abs(excess)}[relation]
