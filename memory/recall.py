"""Which facts a memory recalls: exact margins, streamed over keys and outputs in tiles."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import hypergeom
from torch import Tensor

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Facts

MEMORY_BUDGET = 2**25
"""Default working memory in bytes, beside the facts and the memory themselves."""
_ROWS = 1024
"""Keys scored at once where the budget allows: enough for full speed of matrix products."""
_DOUBTFUL = 1e-4
r"""In single precision a margin is decided again in double precision where it is smaller than this
times $|F(e_x)| \max_y |u_y|$: rounding moves scores by about a hundredth of that."""
_FIRST_LOOK = 256
_VECTORS = 6
"""Vectors held for every key of a tile: the key, what the memory makes of it, the result."""


@torch.no_grad()
def margins(
    memory: AssociativeMemory,
    facts: Facts,
    which: Int[Tensor, " tested"] | None = None,
    *,
    memory_budget: int = MEMORY_BUDGET,
) -> Float[Tensor, " tested"]:
    r"""$\mu_x = s_{f(x)}(x) - \max_{y \ne f(x)} s_y(x)$ with $s_y(x) = u_y \cdot F(e_x)$, by key.

    Of the keys `which` (all by default), in their order. A fact is recalled where its margin is
    positive: a tie is a failure. Scores are never held for more than a tile of keys and outputs,
    within `memory_budget` bytes. In single precision, doubtful signs are decided by evaluating the
    same weights in double precision. ValueError for a budget that cannot hold one score for each
    of the tile's keys, and for non-finite scores.
    """
    memory.require(facts)
    types = {parameter.dtype for parameter in memory.parameters()}
    if types != {facts.keys.dtype}:
        found = ", ".join(map(str, types))
        raise ValueError(f"facts must have the type of the memory, {found}, got {facts.keys.dtype}")
    index = torch.arange(facts.N, device=facts.keys.device) if which is None else which
    found = torch.empty(len(index), dtype=facts.keys.dtype, device=facts.keys.device)
    if not len(index):
        return found
    width = max(memory.activation_width, facts.d, facts.d_out)
    rows, columns = _tile(facts, width, min(len(index), _ROWS), memory_budget)
    largest = torch.linalg.vector_norm(facts.outputs, dim=1).max()
    double: AssociativeMemory | None = None
    for start in range(0, len(index), rows):
        at = index[start : start + rows]
        retrieved = memory(facts.keys[at])
        margin = _margins(retrieved, facts.outputs, facts.association[at], columns)
        if margin.dtype == torch.float32:
            scale = torch.linalg.vector_norm(retrieved, dim=1) * largest
            doubtful = (margin.abs() <= _DOUBTFUL * scale).nonzero().squeeze(1)
            if len(doubtful):
                double = double or deepcopy(memory).double()
                again = at[doubtful]
                exact = _margins(
                    double(facts.keys[again].double()),
                    facts.outputs,
                    facts.association[again],
                    max(1, memory_budget // (8 * (facts.d_out + len(again)))),
                )
                margin[doubtful] = exact.to(margin.dtype)
        found[start : start + rows] = margin
    return found


def errors(memory: AssociativeMemory, facts: Facts, *, memory_budget: int = MEMORY_BUDGET) -> int:
    """Number of facts that are not recalled, over all keys."""
    return int((margins(memory, facts, memory_budget=memory_budget) <= 0).sum())


@dataclass(frozen=True)
class Probe:
    """Whether a memory recalls enough of `N` facts, as decided after `tested` of them."""

    N: int
    passed: bool
    errors: int
    tested: int


def probe(
    memory: AssociativeMemory,
    facts: Facts,
    *,
    accuracy: float,
    risk: float = 1e-6,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> Probe:
    r"""Whether at least the share `accuracy` of the facts is recalled.

    Keys are visited in a random order, in blocks that double in size, and the probe stops once its
    outcome is certain, or decided with an error probability of at most `risk`: given K errors among
    all N facts, those among the n seen are hypergeometric, and each look spends an equal part of
    the risk on either side. `risk=0` waits for certainty.
    """
    if not 0 < accuracy <= 1:
        raise ValueError(f"accuracy must be above 0 and at most 1, got {accuracy!r}")
    if not 0 <= risk < 1:
        raise ValueError(f"risk must be from 0 to below 1, got {risk!r}")
    # 1e-9 only absorbs the rounding of 1 - accuracy.
    allowed = math.floor((1 - accuracy) * facts.N + 1e-9)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(facts.N))
    order = order.to(facts.keys.device)
    looks = list(_looks(facts.N))
    seen = failed = 0
    for stop in looks:
        which = order[seen:stop]
        failed += int((margins(memory, facts, which, memory_budget=memory_budget) <= 0).sum())
        seen = stop
        if failed > allowed:
            return Probe(facts.N, False, failed, seen)
        if failed + facts.N - seen <= allowed:
            return Probe(facts.N, True, failed, seen)
        if hypergeom.sf(failed - 1, facts.N, allowed, seen) < risk / len(looks):
            return Probe(facts.N, False, failed, seen)
        if hypergeom.cdf(failed, facts.N, allowed + 1, seen) < risk / len(looks):
            return Probe(facts.N, True, failed, seen)
    raise AssertionError("a probe of all facts is decided")


def _looks(N: int) -> Iterator[int]:
    """Numbers of keys after which a probe asks whether it is decided."""
    seen = _FIRST_LOOK
    while seen < N:
        yield seen
        seen *= 2
    yield N


def _tile(facts: Facts, width: int, rows: int, budget: int) -> tuple[int, int]:
    """Keys and outputs of a tile: the scores, and a few vectors of `width` per key, fit it."""
    checks.count(memory_budget=budget)
    size = facts.keys.element_size()
    while rows > 1 and size * rows * (_VECTORS * width + 64) > budget // 2:
        rows //= 2
    columns = (budget - size * rows * _VECTORS * width) // (size * rows)
    if columns < 1:
        least = size * (_VECTORS * width + 1)
        raise ValueError(f"memory_budget must be at least {least} bytes here, got {budget}")
    return rows, min(columns, facts.M)


def _margins(
    retrieved: Float[Tensor, "rows d_out"],
    outputs: Float[Tensor, "M d_out"],
    target: Int[Tensor, " rows"],
    columns: int,
) -> Float[Tensor, " rows"]:
    count = len(retrieved)
    correct = retrieved.new_empty(count)
    best = retrieved.new_full((count,), -math.inf)
    buffer = retrieved.new_empty(count * columns)
    for start in range(0, len(outputs), columns):
        block = outputs[start : start + columns].to(retrieved.dtype)
        scores = torch.matmul(
            retrieved, block.mT, out=buffer[: count * len(block)].view(count, len(block))
        )
        inside = ((target >= start) & (target < start + len(block))).nonzero().squeeze(1)
        place = target[inside] - start
        correct[inside] = scores[inside, place]
        scores[inside, place] = -math.inf
        best = torch.maximum(best, scores.amax(dim=1))
    margin = correct - best
    if not torch.isfinite(margin).all():
        raise ValueError("memory must return finite scores, got NaN or infinite ones")
    return margin
