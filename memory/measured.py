"""Measured capacity: the most facts a memory recalls, by a sequential search over nested facts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import t

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Association, Embedding, Facts, draw
from memory.recall import MEMORY_BUDGET, Probe, probe

_GROWTH = 1.3
"""Factor between probes until the capacity is bracketed."""
_BELOW = (0.5, 0.7, 0.85, 0.95)
_ABOVE = (1.05, 1.2, 1.5)
"""Loads relative to the capacity at which monotonicity is checked."""


@dataclass(frozen=True)
class Search:
    """The capacity of one draw of facts, with the probes that bracket it.

    `facts` is the largest number that passed below `ceiling`, the smallest that failed: all probes
    at most `facts` that the search made passed, all from `ceiling` on failed. `contradictions`
    counts those of `checked` further probes, below and above, that did otherwise: whether N facts
    are recalled is not strictly monotone in N for a single draw.
    """

    seed: int
    facts: int
    ceiling: float
    probes: tuple[Probe, ...]
    contradictions: int
    checked: int


@dataclass(frozen=True)
class Capacity:
    """Capacities over several draws of facts."""

    accuracy: float
    searches: tuple[Search, ...]

    @property
    def facts(self) -> float:
        """Geometric mean of the capacities."""
        return math.exp(np.mean(self._logs))

    @property
    def contradiction_rate(self) -> float:
        """Share of the monotonicity checks that failed."""
        checked = sum(search.checked for search in self.searches)
        if not checked:
            raise ValueError("no search checked monotonicity: search with check=True")
        return sum(search.contradictions for search in self.searches) / checked

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Student t interval of the geometric mean; it needs two draws."""
        checks.probability(confidence=confidence)
        logs = self._logs
        if len(logs) < 2:
            raise ValueError(f"an interval needs at least 2 seeds, there is {len(logs)}")
        error = max(float(np.std(logs, ddof=1)) / math.sqrt(len(logs)), 1e-300)
        low, high = t.interval(confidence, len(logs) - 1, float(np.mean(logs)), error)
        return math.exp(low), math.exp(high)

    @property
    def _logs(self) -> list[float]:
        failed = [search.seed for search in self.searches if search.facts == 0]
        if failed:
            raise ValueError(f"no number of facts is recalled for seeds {failed}")
        return [math.log(search.facts) for search in self.searches]


def capacity(
    build: Callable[[int], AssociativeMemory],
    *,
    d: int,
    accuracy: float = 0.99,
    seeds: Iterable[int] = range(8),
    **options: Any,
) -> Capacity:
    """The largest number of facts that `build(seed)` recalls, over repeats; options of `search`.

    Different memories that are given the same seeds see the same facts.
    """
    searches = tuple(search(build, seed=s, d=d, accuracy=accuracy, **options) for s in seeds)
    if not searches:
        raise ValueError("seeds must name at least one draw, got none")
    return Capacity(accuracy, searches)


def search(
    build: Callable[[int], AssociativeMemory],
    *,
    seed: int,
    d: int,
    d_out: int | None = None,
    M: int | None = None,
    accuracy: float = 0.99,
    start: float | None = None,
    most: int = 10**7,
    resolution: float = 0.01,
    embedding: Embedding = "sphere",
    association: Association = "cyclic",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    memory_budget: int = MEMORY_BUDGET,
    check: bool = True,
) -> Search:
    r"""The largest N with at least the share `accuracy` of N nested facts recalled, for one draw.

    Brackets the capacity from `start` (a prediction; by default d) by steps of 30 %, then bisects
    ln N until the ends differ by less than `resolution`, relative, or are neighbours. Both ends are
    probed. All probes share one draw of keys and outputs, of which they take the first N; `M` is
    the number of outputs, by default N. With `check`, monotonicity is tested at loads around the
    result. The search ends at `most` facts, with an infinite ceiling if they are all recalled; 0
    facts mean that the smallest number possible already failed.
    """
    checks.positive(resolution=resolution, **({} if start is None else {"start": start}))
    checks.count(d=d, most=most)
    if M is None and association != "cyclic":
        raise ValueError(
            f"association must be 'cyclic' for as many outputs as facts, got {association!r}"
        )
    least = 2 if M is None else 1
    outcomes: dict[int, Probe] = {}

    drawn: Facts | None = None

    def passes(N: int) -> bool:
        nonlocal drawn
        if N not in outcomes:
            if drawn is None or N > drawn.N:
                drawn = draw(
                    N=N, d=d, d_out=d_out, M=M, seed=seed, embedding=embedding,
                    association=association, dtype=dtype, device=device,
                )  # fmt: skip
            facts = drawn.first(N, N if M is None else M)
            outcomes[N] = probe(
                build(seed).to(device).store(facts), facts,
                accuracy=accuracy, seed=seed, memory_budget=memory_budget,
            )  # fmt: skip
        return outcomes[N].passed

    N = min(max(least, round(d if start is None else start)), most)
    low, high = 0, math.inf
    while True:
        if passes(N):
            low = N
            if N == most or high < math.inf:
                break
            N = min(most, max(N + 1, round(N * _GROWTH)))
        else:
            high = N
            if N == least or low > 0:
                break
            N = max(least, min(N - 1, round(N / _GROWTH)))
    while 0 < low < high - 1 < math.inf and high / low > 1 + resolution:
        N = min(max(round(math.sqrt(low * high)), low + 1), int(high) - 1)
        if passes(N):
            low = N
        else:
            high = N
    probes = tuple(outcomes[N] for N in sorted(outcomes))
    wrong = tested = 0
    if check and low > 0:
        below = {round(share * low) for share in _BELOW} - {low}
        above = {math.ceil(share * high) for share in _ABOVE if share * high <= most} - {high}
        # Not those whose outcome the search has already used.
        below = {N for N in below if N >= least} - outcomes.keys()
        above -= outcomes.keys()
        tested = len(below) + len(above)
        wrong = sum(not passes(N) for N in below) + sum(passes(N) for N in above)
    return Search(seed, low, high, probes, wrong, tested)
