"""The effect of a patch: what it does to the probability of the right answer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from bounds import checks
from experiments.tasks.sequences import stream

SMALLEST_GAP = 0.01
"""Where p(clean) - p(corrupted) is not above this, there is no ratio."""
DIRECTIONS = ("denoise", "noise")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """An effect in numbers; NaN where a ratio has no denominator above `SMALLEST_GAP`."""

    documents: int
    """The documents that have the positions."""
    clean: float
    """Mean probability of the right answer: p(clean), and so on."""
    corrupted: float
    patched: float
    ratio: float
    """The attribution of Arora et al. (2025), a ratio of means over documents."""
    low: float
    """Bootstrap interval of the ratio; infinite if resamples in its tails have no denominator."""
    high: float
    mean_of_ratios: float
    """Over the documents whose own denominator is above `SMALLEST_GAP`."""
    difference: float
    """The numerator of the ratio."""
    log_ratio: float
    """The ratio of mean log-probabilities."""


@dataclass(frozen=True, kw_only=True)
class Effect:
    r"""Log-probabilities of the right answer in three runs, and what the patch restores of them.

        denoise, clean activations in the corrupted run:
            attribution = (p(patched) - p(corrupted)) / (p(clean) - p(corrupted))
        noise, corrupted activations in the clean run:
            attribution = (p(clean) - p(patched)) / (p(clean) - p(corrupted))

    0 is no effect; 1 is full restoration in the first, full destruction in the second. `measured`
    are the documents that have the positions of the patch.
    """

    clean: Float[ndarray, " documents"]
    corrupted: Float[ndarray, " documents"]
    patched: Float[ndarray, " documents"]
    measured: Bool[ndarray, " documents"]
    direction: str

    def __post_init__(self) -> None:
        checks.one_of(DIRECTIONS, direction=self.direction)

    def ratios(
        self, weights: Float[ndarray, "resamples documents"]
    ) -> Float[ndarray, " resamples"]:
        """Ratios of means over the measured documents, so weighted; NaN as in `Summary`."""
        return self._ratio(*self._means(self._probabilities, weights))

    def summary(self, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0) -> Summary:
        """Means, ratios, and the bootstrap interval over documents.

        Equal seeds resample the documents of all effects alike.
        """
        checks.probability(confidence=confidence)
        once = np.ones((1, len(self.measured)))
        clean, corrupted, patched = (x.item() for x in self._means(self._probabilities, once))
        ratio = self.ratios(once).item()
        low = high = log_ratio = math.nan
        if not math.isnan(ratio):
            ratios = self.ratios(resampled(len(self.measured), resamples, seed))
            missing, tail = np.isnan(ratios), (1 - confidence) / 2
            low = np.quantile(np.where(missing, -np.inf, ratios), tail, method="lower")
            high = np.quantile(np.where(missing, np.inf, ratios), 1 - tail, method="higher")
            log_ratio = self._ratio(*self._means(self._logarithms, once)).item()
        each = self._ratio(*self._probabilities)[self.measured]
        each = each[~np.isnan(each)]
        return Summary(
            documents=int(self.measured.sum()),
            clean=clean,
            corrupted=corrupted,
            patched=patched,
            ratio=ratio,
            low=float(low),
            high=float(high),
            mean_of_ratios=each.mean().item() if len(each) else math.nan,
            difference=self._gain(clean, corrupted, patched),
            log_ratio=log_ratio,
        )

    @property
    def _logarithms(self) -> Float[ndarray, "3 documents"]:
        return np.stack([self.clean, self.corrupted, self.patched])

    @property
    def _probabilities(self) -> Float[ndarray, "3 documents"]:
        return np.exp(self._logarithms)

    def _means(self, values: ndarray, weights: ndarray) -> Float[ndarray, "3 resamples"]:
        weights = weights[:, self.measured]
        with np.errstate(invalid="ignore"):  # no document measured: NaN
            return values[:, self.measured] @ weights.T / weights.sum(axis=1)

    def _gain(self, clean: Any, corrupted: Any, patched: Any) -> Any:
        return patched - corrupted if self.direction == "denoise" else clean - patched

    def _ratio(self, clean: ndarray, corrupted: ndarray, patched: ndarray) -> ndarray:
        gap, gain = clean - corrupted, self._gain(clean, corrupted, patched)
        ratio = np.full_like(gap, np.nan)
        return np.divide(gain, gap, out=ratio, where=gap > SMALLEST_GAP)


@lru_cache(maxsize=4)
def resampled(
    documents: int, resamples: int, seed: int
) -> Float[ndarray, "{resamples} {documents}"]:
    """How often each document is in each of the bootstrap resamples."""
    checks.count(documents=documents, resamples=resamples)
    drawn = stream("bootstrap", documents, seed).integers(documents, size=(resamples, documents))
    drawn += documents * np.arange(resamples)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=resamples * documents)
    return counts.reshape(resamples, documents).astype(float)
