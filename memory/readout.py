"""Linear readouts of features, accumulated in double precision over blocks of facts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from memory.facts import Facts

BLOCK_ENTRIES = 2**22
"""Entries of keys, values and features held at once."""

RIDGE = 1e-8
"""Ridge of the normal equations, relative to the mean eigenvalue of the Gram matrix."""

RANK_TOLERANCE = 1e-10
"""Singular values below this fraction of the largest count as zero; also those that rounding of
the features to their own type can make."""

Features = Callable[[Tensor], Tensor]
"""A map of keys (N, d) to features (N, width)."""


def blocks(
    facts: Facts, like: Tensor, rows: int
) -> Iterator[tuple[Float[Tensor, "rows d"], Float[Tensor, "rows d_out"]]]:
    """Keys and values of `rows` facts at a time, in the order of the facts, typed as `like`."""
    for keys, association in zip(
        facts.keys.split(rows), facts.association.split(rows), strict=True
    ):
        yield keys.to(like), facts.outputs[association].to(like)


def outer_products(
    facts: Facts, features: Features, like: Tensor, width: int
) -> Float[Tensor, "d_out width"]:
    r"""$\sum_x u_{f(x)} \phi(e_x)^T$ in double precision, for keys typed as `like`."""
    total = torch.zeros(facts.d_out, width, dtype=torch.float64, device=like.device)
    for keys, values in blocks(facts, like, _rows(facts, width)):
        total.addmm_(values.double().mT, features(keys).double())
    return total


def least_squares(
    facts: Facts, features: Features, like: Tensor, width: int
) -> Float[Tensor, "d_out width"]:
    r"""The matrix W with the least $\sum_x |W \phi(e_x) - u_{f(x)}|^2$, in double precision.

    Up to `width` facts: the W of least norm, exact when the features are independent. More facts:
    the normal equations with a ridge of 1e-8 of the mean eigenvalue, which decides only directions
    that the features do not determine.
    """
    if width >= facts.N:
        seen = [
            (features(keys).double(), values.double())
            for keys, values in blocks(facts, like, _rows(facts, width))
        ]
        stacked, targets = (torch.cat(parts).cpu() for parts in zip(*seen, strict=True))
        rounding = torch.finfo(like.dtype).eps * max(stacked.shape)
        # Not gelsy, which torch starts from uninitialised pivots so that it may lose rank.
        solution = torch.linalg.lstsq(
            stacked, targets, rcond=max(RANK_TOLERANCE, rounding), driver="gelsd"
        )
        return solution.solution.mT.to(like.device)
    gram = torch.zeros(width, width, dtype=torch.float64, device=like.device)
    moment = torch.zeros(width, facts.d_out, dtype=torch.float64, device=like.device)
    for keys, values in blocks(facts, like, _rows(facts, width)):
        block = features(keys).double()
        gram.addmm_(block.mT, block)
        moment.addmm_(block.mT, values.double())
    ridge = RIDGE * gram.diagonal().mean()
    gram.diagonal().add_(ridge.clamp_min(torch.finfo(torch.float64).tiny))
    return torch.cholesky_solve(moment, torch.linalg.cholesky(gram)).mT


def _rows(facts: Facts, width: int) -> int:
    return max(1, BLOCK_ENTRIES // (facts.d + facts.d_out + width))
