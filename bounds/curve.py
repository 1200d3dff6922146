"""The gap bounds over a grid of arguments: one array for each term.

The chain of terms is the one a `Bound` records, computed by the same functions on arrays. Its cost
does not depend on `T`; the grid is cut into blocks that fit a processor's cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from bounds.derivation import Derivation
from bounds.generalization import add_gap, add_lower, gap_inputs
from bounds.losses import Loss
from bounds.ssm import SelectiveSSMClass
from bounds.stability import Real

BLOCK = 8192
"""Largest number of grid points computed at once."""


def curve(
    ssm: SelectiveSSMClass,
    *,
    m: Real,
    T: Real,
    delta: Real,
    loss: Loss,
    union_cost: float = 0.0,
) -> dict[str, Float[ndarray, ...]]:
    r"""Every term of `generalization_gap` and `rademacher_lower`, over a grid.

    `m`, `T`, `delta` and every numeric field of `ssm` may be arrays; they broadcast,
    and each returned array has the shape of the grid. Product grids are cheapest as open grids
    (`np.ix_`) with the axis of `m` last: a term is computed once for every point it depends on.

    Terms stored as logarithms have names that begin with `ln_`. Where the lower bound does not
    apply (`step_logits` or several `outputs` given, or $a_{lo} > 0$) `ln_R_lower` is $-\infty$, the
    logarithm of the trivial bound. Raises ValueError naming a malformed argument.
    """
    gap_inputs(ssm, m, T, delta, loss, union_cost)
    arguments = {"m": m, "T": T, "delta": delta}
    budgets = {field.name: getattr(ssm, field.name) for field in fields(ssm)}
    lowest, highest = budgets.pop("step_logits") or (None, None)
    budgets |= {"lowest": lowest, "highest": highest}
    arrays = {
        name: np.asarray(value) for name, value in (arguments | budgets).items() if np.ndim(value)
    }
    shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    arrays = {
        name: array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
        for name, array in arrays.items()
    }
    terms: dict[str, Float[ndarray, ...]] = {}
    for block in _blocks(shape, math.prod(shape) if _mixed(ssm) else BLOCK):
        here = {name: _take(array, block) for name, array in arrays.items()}
        low, high = here.pop("lowest", lowest), here.pop("highest", highest)
        logits = None if low is None else (low, high)
        at = arguments | {name: here.pop(name) for name in arguments if name in here}
        part = _terms(
            replace(ssm, step_logits=logits, **here), loss=loss, union_cost=union_cost, **at
        )
        for name, values in part.items():
            terms.setdefault(name, np.empty(shape))[block] = values
    return terms


def _terms(
    ssm: SelectiveSSMClass, *, m: Real, T: Real, delta: Real, loss: Loss, union_cost: float
) -> dict[str, Float[ndarray, ...]]:
    derive = Derivation({})
    add_gap(derive, ssm, m=m, T=T, delta=delta, loss=loss, union_cost=union_cost)
    add_lower(derive, ssm, m, T)
    terms = derive.arrays()
    attained = np.less_equal(ssm.a_lo, 0) & (ssm.step_logits is None) & (ssm.outputs == 1)
    return terms | {"ln_R_lower": np.where(attained, terms["ln_R_lower"], -np.inf)}


def _mixed(ssm: SelectiveSSMClass) -> bool:
    """Whether some points but not all have one step sequence: those have fewer terms alone."""
    several = np.greater(ssm.n_steps, 1)
    return bool(np.any(several) and not np.all(several))


def _blocks(shape: tuple[int, ...], size: int) -> Iterator[tuple[slice, ...]]:
    """Slices that together cover a grid, each of at most `size` points, last axes whole."""
    axis = len(shape) - 1
    while axis > 0 and math.prod(shape[axis:]) <= size:
        axis -= 1
    length = max(1, size // math.prod(shape[axis + 1 :])) if shape else 1
    for index in np.ndindex(shape[: max(axis, 0)]):
        leading = tuple(slice(i, i + 1) for i in index)
        for start in range(0, shape[axis] if shape else 1, length):
            yield (*leading, slice(start, start + length))[: len(shape)]


def _take(array: ndarray, block: tuple[slice, ...]) -> ndarray:
    """The part of `array` that broadcasts with `block` of the grid."""
    sizes = array.shape[: len(block)]
    return array[tuple(s if n > 1 else slice(None) for s, n in zip(block, sizes, strict=True))]
