"""Regression trees of which only the path of the query is grown.

    examples 1 ... k ──best split──▶ those on the side of x_{k+1} ──best split──▶ ... ──▶ their mean

A split depends on the examples of its own node alone, so the other side is never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from bounds import checks

TIED = 1e-9
"""Gains that differ by no more than this share of the squared error of their node are equal."""
_NUMBERS = 2**18
"""Size of a temporary, which then stays in the cache."""


def tree_guesses(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    depth: int | None = None,
    prefixes: Sequence[int] | None = None,
) -> Float[Tensor, "prompts prefixes"]:
    r"""Guess of $y_{k+1}$ from the first k examples by a regression tree, for each k of `prefixes`.

    CART (Breiman et al. 1984), as scikit-learn grows it: a node of n examples is split between
    neighbouring values of a coordinate, at the middle, where the squared error falls the most, by
    $n\,l^2 / (n_L n_R)$ for l the sum of $y - \bar y$ on the left; of equal falls, the smallest
    coordinate and then the smallest value (published code: a random coordinate). Nodes of one y, or
    of one x, are leaves, as are all at `depth` (None: no limit); a leaf guesses its mean, and no
    example at all 0. Pass `xs.sign()` for trees on signs. Takes depth x examples x d steps.
    """
    if depth is not None:
        checks.count(depth=depth)
    chosen = checked_prefixes(xs, ys, range(ys.shape[1]) if prefixes is None else prefixes)
    guesses = ys.new_zeros(len(ys), len(chosen))
    order = xs.argsort(dim=1).mT.contiguous()
    places = pad(xs.mT, (0, 1), value=torch.nan).flatten(0, 1), pad(ys, (0, 1))
    for prompt, column in _chunks(chosen, len(xs), width=xs.shape[2]):
        guesses[prompt, column] = _follow(*places, order, prompt, chosen[column], depth)
    return guesses


def checked_prefixes(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    prefixes: Sequence[int],
) -> Int[Tensor, " prefixes"]:
    """The prefixes as a tensor; ValueError unless each is followed by an example to guess."""
    if xs.shape[:2] != ys.shape or xs.numel() == 0:
        shapes = f"{tuple(xs.shape)} and {tuple(ys.shape)}"
        raise ValueError(f"xs and ys must have the same prompts and examples, got shapes {shapes}")
    for name, values in (("xs", xs), ("ys", ys)):
        if not values.isfinite().all():
            raise ValueError(f"{name} must be finite")
    if any(not 0 <= k < ys.shape[1] for k in prefixes):
        allowed = f"from 0 to {ys.shape[1] - 1}"
        raise ValueError(f"prefixes must be {allowed}, got {list(prefixes)}")
    return torch.tensor(list(prefixes), dtype=torch.int64)


def _chunks(
    prefixes: Int[Tensor, " prefixes"], prompts: int, width: int
) -> Iterator[tuple[Int[Tensor, " queries"], Int[Tensor, " queries"]]]:
    """Prompts and columns of the queries, in parts that know about as many examples each."""
    columns = prefixes.argsort(descending=True)
    columns = columns[prefixes[columns] > 0].repeat_interleave(prompts)
    start = 0
    while start < len(columns):
        most = int(prefixes[columns[start]])
        part = torch.arange(start, min(len(columns), start + 1 + _NUMBERS // (width * most)))
        yield part % prompts, columns[part]
        start += len(part)


def _follow(
    xs: Float[Tensor, "rows places"],
    ys: Float[Tensor, "prompts places"],
    order: Int[Tensor, "prompts d examples"],
    prompt: Int[Tensor, " queries"],
    known: Int[Tensor, " queries"],
    depth: int | None,
) -> Float[Tensor, " queries"]:
    """The mean of the leaf that example `known` of each `prompt` falls into.

    Rows of `xs` are coordinates of prompts. Its last place, and that of `ys`, is of no example.
    """
    d, nothing = order.shape[1], ys.shape[1] - 1
    guess, row = ys.new_zeros(len(prompt)), torch.arange(len(prompt))
    # Examples in the order of each coordinate, and 1 for those in the node of the query, or 0.
    members = order.index_select(0, prompt)
    inside, size = (members < known[:, None, None]).long(), known
    split = torch.ones_like(prompt, dtype=torch.bool)
    for level in count():
        here, values = inside[:, 0] > 0, ys[prompt[:, None], members[:, 0]]
        mean = torch.where(here, values, 0).sum(1) / size
        guess[row] = torch.where(split, mean, guess[row])
        least, largest = (torch.where(here, values, end) for end in (torch.inf, -torch.inf))
        rest = (split & (least.amin(1) < largest.amax(1))).nonzero().squeeze(1)
        if level == depth or len(rest) == 0:
            return guess
        if len(rest) < len(row):
            row, prompt, known, size, mean, members, inside = (
                part.index_select(0, rest)
                for part in (row, prompt, known, size, mean, members, inside)
            )
        members = _packed(members, inside, 1 + int(size.max()), filling=nothing)
        rows = prompt[:, None] * d + torch.arange(d)
        ordered = xs.flatten().index_select(
            0, (rows[..., None] * (nothing + 1) + members).flatten()
        )
        ordered = ordered.view(members.shape)
        residual = ys.index_select(0, prompt) - mean[:, None]
        residual[:, nothing] = 0
        split, coordinate, place = _best_split(ordered, residual, members, size)
        each = torch.arange(len(rest))
        low, high = ordered[each, coordinate, place], ordered[each, coordinate, place + 1]
        x = xs.index_select(0, rows[each, coordinate])
        query = x[each, known]
        below = query - low <= high - query  # the middle itself would be rounded
        size = torch.where(below, place, size - place)
        same_side = ((x <= low[:, None]) == below[:, None]).long()
        same_side[:, nothing] = 0
        inside = same_side[:, None].expand(-1, d, -1).gather(2, members)
    raise AssertionError("a tree without limit of depth ends in leaves")


def _packed(
    members: Int[Tensor, "queries d some"],
    inside: Int[Tensor, "queries d some"],
    width: int,
    *,
    filling: int,
) -> Int[Tensor, "queries d width"]:
    """Those inside, from place 1 of rows that are filled up before and behind."""
    packed = members.new_full((*members.shape[:2], width), filling)
    packed.scatter_(2, inside.cumsum(2).mul_(inside), members)
    packed[..., 0] = filling  # where all others went
    return packed


def _best_split(
    ordered: Float[Tensor, "queries d members"],
    residual: Float[Tensor, "queries places"],
    members: Int[Tensor, "queries d members"],
    size: Int[Tensor, " queries"],
) -> tuple[Bool[Tensor, " queries"], Int[Tensor, " queries"], Int[Tensor, " queries"]]:
    """Whether a node can be split; coordinate, and place of the last member on the left."""
    residual = residual[:, None].expand(-1, members.shape[1], -1).gather(2, members)
    error = residual[:, 0].square().sum(1)
    left = torch.arange(members.shape[2] - 1)
    weight = size[:, None] / (left * (size[:, None] - left))
    gain = residual.cumsum_(2)[..., :-1].square_().mul_(weight[:, None])
    # What fills up is NaN, which is not greater than anything, nor is anything greater.
    gain = torch.where(ordered[..., 1:] > ordered[..., :-1], gain, -torch.inf)
    largest = gain.amax(2)
    least = (largest.amax(1) - TIED * error)[:, None]
    coordinate = (largest >= least).byte().argmax(1)
    place = (gain[torch.arange(len(gain)), coordinate] >= least).byte().argmax(1)
    return least.squeeze(1) > -torch.inf, coordinate, place
