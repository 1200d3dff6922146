"""Gradient boosting: trees one after the other, each of what those before it leave over."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from bounds import checks
from experiments.estimators.trees import TIED, checked_prefixes

PENALTY = 1.0
"""Of the squares of the values of the leaves: lambda of XGBoost."""
LEAST_GAIN = 1e-6
"""A split gains more than this."""
_NUMBERS = 2**18
"""Size of a temporary, which then stays in the cache."""


def boosted_guesses(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    prefixes: Sequence[int],
    rounds: int = 100,
    depth: int = 6,
    learning_rate: float = 0.3,
) -> Float[Tensor, "prompts prefixes"]:
    r"""Guess of $y_{k+1}$ from the first k examples by boosted trees, for each k of `prefixes`.

    XGBoost (Chen and Guestrin 2016, arXiv:1603.02754) for squared error with exact splits and its
    default sizes. From the mean of y on (published code, XGBoost 1.6: from 0.5), each round adds
    `learning_rate` times a tree of the residuals r: of all splits between neighbouring values of a
    coordinate the one of the largest gain, $G_L^2/(n_L+1) + G_R^2/(n_R+1) - G^2/(n+1)$ with G sums
    of r, if it is above 1e-6; of equal ones the smallest coordinate, then value. A leaf says
    $G/(n+1)$. No example: 0. Takes rounds x depth x examples x d steps, thousands of times those of
    one tree's path, for each prompt and prefix: choose few.
    """
    checks.count(rounds=rounds, depth=depth)
    checks.positive(learning_rate=learning_rate)
    guesses = ys.new_zeros(len(ys), len(prefixes))
    for column, k in enumerate(checked_prefixes(xs, ys, prefixes).tolist()):
        if k == 0:
            continue
        for part in torch.arange(len(xs)).split(1 + _NUMBERS // (k * xs.shape[2])):
            x, y, query = xs[part, :k].mT.contiguous(), ys[part, :k], xs[part, k]
            guesses[part, column] = _boosted(x, y, query, rounds, depth, learning_rate)
    return guesses


def _boosted(
    x: Float[Tensor, "fits d examples"],
    y: Float[Tensor, "fits examples"],
    query: Float[Tensor, "fits d"],
    rounds: int,
    depth: int,
    learning_rate: float,
) -> Float[Tensor, " fits"]:
    guess = y.mean(1)
    residual = y - guess[:, None]
    order = x.argsort()
    for _ in range(rounds):
        leaf, leaf_of_query = _grown(x, residual, query, order, depth)
        sums, sizes = (
            y.new_zeros(len(y), 2**depth).scatter_add_(1, leaf, part)
            for part in (residual, torch.ones_like(residual))
        )
        values = learning_rate * sums / (sizes + PENALTY)
        residual = residual - values.gather(1, leaf)
        guess = guess + values.gather(1, leaf_of_query).squeeze(1)
    return guess


def _grown(
    x: Float[Tensor, "fits d examples"],
    residual: Float[Tensor, "fits examples"],
    query: Float[Tensor, "fits d"],
    order: Int[Tensor, "fits d examples"],
    depth: int,
) -> tuple[Int[Tensor, "fits examples"], Int[Tensor, "fits 1"]]:
    """The leaves of the examples and of the query in one tree.

    Children of node i are 2i and 2i + 1, or 2i alone for a leaf. Level by level, `order` lists the
    examples by node, and within a node by coordinate; the nodes are in the same places for every
    coordinate.
    """
    node, node_of_query = torch.zeros_like(order[:, 0]), torch.zeros_like(order[:, 0, :1])
    for level in range(depth):
        coordinate, low, high = _splits(x, residual, order, node, 2**level)
        asked = query.gather(1, coordinate.gather(1, node_of_query))
        bottom, top = (edge.gather(1, node_of_query) for edge in (low, high))
        node_of_query = 2 * node_of_query + (asked - bottom > top - asked)
        tested = x.gather(1, coordinate.gather(1, node)[:, None]).squeeze(1)
        right = tested > low.gather(1, node)
        node = 2 * node + right
        # Both sides keep their order; on the right places of each node are its right examples.
        goes = right[:, None].expand_as(order).gather(2, order)
        place = (node.sort(dim=1).values % 2 == 1)[:, None].expand_as(order)
        ordered = torch.empty_like(order)
        ordered.masked_scatter_(place, order.masked_select(goes))
        order = ordered.masked_scatter_(~place, order.masked_select(~goes))
    return node, node_of_query


def _splits(
    x: Float[Tensor, "fits d examples"],
    residual: Float[Tensor, "fits examples"],
    order: Int[Tensor, "fits d examples"],
    node: Int[Tensor, "fits examples"],
    nodes: int,
) -> tuple[Int[Tensor, "fits nodes"], Float[Tensor, "fits nodes"], Float[Tensor, "fits nodes"]]:
    """Of each node the coordinate and the values between which it is split; inf if it is not."""
    fits, d, k = order.shape
    node = node.sort(dim=1).values  # of each place, from here on
    start, end = (torch.searchsorted(node, node, right=side) for side in (False, True))
    left, size = torch.arange(1, k + 1) - start, end - start
    values, ordered = residual[:, None].expand_as(x).gather(2, order), x.gather(2, order)
    sums = torch.nn.functional.pad(values.cumsum(2), (1, 0))
    before, after = (sums.gather(2, at[:, None].expand_as(order)) for at in (start, end))
    below, total = sums[..., 1:] - before, after - before
    shares = (1 / (n + PENALTY) for n in (left, size - left, size))
    lower, upper, whole = (share[:, None] for share in shares)
    gain = below.square() * lower + (total - below).square() * upper - total.square() * whole
    next_up = torch.nn.functional.pad(ordered[..., 1:], (0, 1))
    allowed = (next_up > ordered) & (left < size)[:, None]
    gain = torch.where(allowed, gain, -torch.inf)

    def per_node(of_places: Tensor, how: str, empty: float) -> Tensor:
        full = of_places.new_full((fits, nodes), empty)
        return full.scatter_reduce(1, node, of_places, how)

    best = per_node(gain.amax(1), "amax", -torch.inf)
    error = per_node(values[:, 0].square(), "sum", 0.0)
    tied = gain >= (best - TIED * error).gather(1, node)[:, None]
    candidates = torch.where(tied, torch.arange(d * k).view(d, k), d * k - 1).amin(1)
    first = per_node(candidates, "amin", d * k - 1)
    low, high = (part.flatten(1).gather(1, first) for part in (ordered, next_up))
    leaf = best <= LEAST_GAIN
    return first // k, low.masked_fill(leaf, torch.inf), high.masked_fill(leaf, torch.inf)
