"""What every intervention satisfies on every model: `self_tests`."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from experiments.interventions.corruptions import CHANGED, Pair
from experiments.interventions.interchange import interchange
from experiments.interventions.patches import patch
from experiments.interventions.runs import ROWS
from experiments.models.backbone import SequenceModel


class InterventionError(RuntimeError):
    """An intervention that did something else than it says."""


@dataclass(frozen=True, kw_only=True)
class SelfTests:
    """Largest deviations from the expected log-probability of the right answer, in one document.

    Each is a rounding error where interventions are right.
    """

    everything: float
    """The first stream and the outputs of all blocks patched everywhere: the source run."""
    nothing: float
    """No patch: the base run."""
    changed: float
    """The input of the first block patched where the documents of the pair differ: the source run.
    Where the key is corrupted this is an attribution of 1 at the key."""
    unchanged: float
    """The same at all other tokens: the base run."""
    control: float
    """Inputs and outputs of all blocks patched at the answer, behind the query: the base run. It is
    0, and says nothing, where no document has that token."""

    def check(self, tolerance: float) -> None:
        """Raises InterventionError with those that are not below the tolerance."""
        wrong = {k: v for k, v in asdict(self).items() if not v <= tolerance}
        if wrong:
            found = ", ".join(f"{name} {value:.2g}" for name, value in wrong.items())
            raise InterventionError(f"interventions are off by more than {tolerance:g}: {found}")


def self_tests(
    model: SequenceModel, pair: Pair, *, direction: str = "denoise", rows: int = ROWS
) -> SelfTests:
    """Patch the model in ways whose outcome is known; the pair names the "answer"."""
    blocks = range(len(model.blocks))
    sites = [f"blocks.{i}.{end}" for i in blocks for end in ("resid_pre", "normed", "out")]
    patches = dict(
        everything=patch("blocks.0.resid_pre", *(f"blocks.{i}.out" for i in blocks)),
        nothing=frozenset(),
        changed=patch("blocks.0.resid_pre", at=[CHANGED]),
        unchanged=patch("blocks.0.resid_pre", but=[CHANGED]),
        control=patch(*sites, "resid_final", at=["answer"]),
    )
    effects = interchange(model, pair, list(patches.values()), direction=direction, rows=rows)
    deviations = {}
    for name, effect in zip(patches, effects, strict=True):
        source, base = effect.clean, effect.corrupted
        if direction == "noise":
            source, base = base, source
        expected = source if name in ("everything", "changed") else base
        deviations[name] = float(np.abs(effect.patched - expected)[effect.measured].max(initial=0))
    return SelfTests(**deviations)
