"""Every figure by name: the study whose rows it shows, its caption, and how it is drawn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from experiments import provenance
from experiments.store import ResultStore
from experiments.studies import load
from figures import selective_ssm
from figures.style import paper, save

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plate:
    """A figure of the gallery: drawn from the rows of one study."""

    study: str
    caption: str
    draw: Callable[[DataFrame], Figure]


@dataclass(frozen=True)
class Drawn:
    """A figure on disk."""

    name: str
    caption: str
    png: Path
    pdf: Path


GALLERY: dict[str, Plate] = {
    "bound-against-length": Plate(
        "length-dependence",
        "Bounds of the reference class against the sequence length, below, at and above the "
        "stability threshold. Top: Rademacher complexity with matching lower bound and the "
        "published bound (stable case only). Bottom: the three bounds on the generalization gap; "
        "only the parameter-counting one survives instability.",
        selective_ssm.bound_against_length,
    ),
    "length-scale": Plate(
        "length-scale",
        "Length from which on the capacity is constant, over stabilities and step ranges. Ours is "
        "set by the largest step, the published one by the smallest.",
        selective_ssm.length_scale,
    ),
    "stability-map": Plate(
        "stability-map",
        "Capacity and gap bound over spectral abscissa and step size. White: the stability "
        "threshold, and where the largest step makes the model forget within 10, 100 and 1000 "
        "steps.",
        selective_ssm.stability_map,
    ),
    "capacity-terms": Plate(
        "length-dependence",
        "What the capacity is paid for: shares of the parameter blocks in γ.",
        selective_ssm.capacity_terms,
    ),
    "gap-against-samples": Plate(
        "sample-size",
        "The three gap bounds against the sample size; each is valid, and so is their minimum.",
        selective_ssm.gap_against_samples,
    ),
    "rademacher-sandwich": Plate(
        "rademacher-sandwich",
        "Rademacher complexity, by exact average over all sign vectors of the supremum over many "
        "models (points), between its upper and lower bound (lines).",
        selective_ssm.rademacher_sandwich,
    ),
    "rademacher-large-samples": Plate(
        "rademacher-large-samples",
        "Rademacher complexity of large random samples of the one-channel class, below the bounds "
        "where these are smaller than the trivial one; the distance is what a wrong constant could "
        "hide in.",
        selective_ssm.rademacher_large_samples,
    ),
    "architectures": Plate(
        "architectures",
        "Capacity against the sequence length with all norm budgets equal; the law of each row, "
        "checked against its capacity function, is in the legend. The two modes must not be "
        "compared with each other.",
        selective_ssm.architectures,
    ),
    "errata": Plate(
        "published-errata",
        "Statements of the source paper that are wrong as printed, on random instances drawn where "
        "they fail, beside their corrections.",
        selective_ssm.errata,
    ),
    "gap-holds": Plate(
        "gap-holds",
        "Largest generalization gap over thousands of models on noisy majority, exact because all "
        "inputs can be enumerated, below the bound.",
        selective_ssm.gap_holds,
    ),
}


def draw_all(
    store: ResultStore, folder: Path, preset: str = "quick", names: Iterable[str] = GALLERY
) -> list[Drawn]:
    """Draw the named figures whose studies have rows in the store; log the others."""
    drawn = []
    origin = provenance.collect()
    for name in names:
        plate = GALLERY[name]
        kind = load(plate.study)
        rows = store.rows(kind.at(preset)) if preset in kind.presets else None
        if rows is None or rows.empty:
            _log.warning("figure %s not drawn: no rows of %s at %s", name, plate.study, preset)
            continue
        with paper():
            png, pdf = save(plate.draw(kind.table(rows)), folder, name, origin)
        drawn.append(Drawn(name, plate.caption, png, pdf))
    return drawn
