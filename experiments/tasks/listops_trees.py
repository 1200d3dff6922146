r"""Random ListOps expressions of given lengths, drawn directly instead of by rejection.

    depth 1    [MAX   2   9   [MIN ........ ]   0   ]       9 tokens: 5 for the operator's own
    depth 2                    [MIN   4   7   ]             tokens and digits, 4 for its child

The standard law (Nangia and Bowman 2018, and the Long Range Arena): a node at depth `max_depth` is
a digit; above, it is an operator with probability 1/4, with uniformly 2 to `max_arguments`
children, else a digit, and digits and operators are uniform. The Long Range Arena has depth 10 and
10 arguments, Nangia and Bowman 20 and 5. With depth 10 and 5 arguments only one tree in $10^{13}$
has a length near 1000, so trees are not drawn until one fits. The law of the lengths is known
exactly: with $P_d(n)$ the probability that a node at depth d has n tokens, and $*$ convolution,

$$P_d(n) = \tfrac34 [n = 1] + \tfrac14 \cdot \frac{1}{A - 1} \sum_{k=2}^{A} P_{d+1}^{*k}(n - 2).$$

Lengths, numbers of arguments and the lengths of the children are drawn from it level by level, all
samples together, which gives exactly the standard law given the length.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from bounds import checks

OPERATOR_RATE = 0.25
_FIRST_OPERATOR, _N_OPERATORS, _CLOSE = 10, 4, 14


def draw_trees(
    rng: np.random.Generator,
    *,
    m: int,
    shortest: int,
    longest: int,
    max_depth: int,
    max_arguments: int,
) -> tuple[Int[ndarray, "{m} {longest}"], Int[ndarray, " {m}"]]:
    """`m` expressions with `shortest` to `longest` tokens, -1 beyond their end, and their lengths.

    Operators nest at most `max_depth` - 1 deep. Raises ValueError where no expression can have such
    a length.
    """
    checks.count(m=m, shortest=shortest, longest=longest)
    checks.ordered(shortest=shortest, longest=longest)
    laws = convolution_powers(longest, max_depth=max_depth, max_arguments=max_arguments)
    chances = laws[0][1][shortest : longest + 1]
    if chances.sum() <= np.finfo(float).tiny:
        raise ValueError(
            f"no expression of depth max_depth={max_depth} with max_arguments={max_arguments} "
            f"arguments has {shortest} to {longest} tokens"
        )
    lengths = shortest + _Choice(lambda _: chances).draw(np.zeros(m, int), rng.random(m))
    tokens = np.full((m, longest), -1)
    row, start, size = np.arange(m), np.zeros(m, dtype=np.int64), lengths
    for children in [*laws[1:], None]:
        leaf = size == 1
        tokens[row[leaf], start[leaf]] = rng.integers(10, size=leaf.sum())
        row, start, size = row[~leaf], start[~leaf], size[~leaf]
        if not len(row) or children is None:
            break
        tokens[row, start] = _FIRST_OPERATOR + rng.integers(_N_OPERATORS, size=len(row))
        tokens[row, start + size - 1] = _CLOSE
        row, start, size = _split(rng, row, start + 1, size - 2, children)
    return tokens, lengths


def convolution_powers(
    longest: int, *, max_depth: int, max_arguments: int
) -> list[Float[ndarray, "powers lengths"]]:
    """Entry `[d - 1][k, n]`: the probability that k nodes at depth d together have n tokens."""
    checks.count(max_depth=max_depth, max_arguments=max_arguments)
    if max_arguments < 2:
        raise ValueError(f"max_arguments must be at least 2, got {max_arguments}")
    law = np.zeros(longest + 1)
    law[1] = 1.0
    powers = [_powers(law, max_arguments)]
    for _ in range(max_depth - 1):
        law = np.zeros(longest + 1)
        law[2:] = OPERATOR_RATE * powers[0][2:, : longest - 1].mean(0)
        law[1] = 1 - OPERATOR_RATE
        powers.insert(0, _powers(law, max_arguments))
    return powers


def _powers(law: Float[ndarray, " lengths"], largest: int) -> Float[ndarray, "powers lengths"]:
    powers = np.zeros((largest + 1, len(law)))
    powers[0, 0] = 1.0
    for k in range(largest):
        powers[k + 1] = np.convolve(powers[k], law)[: len(law)]
    return powers


def _split(
    rng: np.random.Generator,
    row: Int[ndarray, " operators"],
    start: Int[ndarray, " operators"],
    space: Int[ndarray, " operators"],
    powers: Float[ndarray, "powers lengths"],
) -> tuple[Int[ndarray, " nodes"], Int[ndarray, " nodes"], Int[ndarray, " nodes"]]:
    """Row, start and size of the children of operators with `space` tokens for them."""
    uniform = rng.random(len(row))
    left = _Choice(lambda n: powers[2:, n]).draw(space, uniform) + 2
    first = _Choice(lambda code: _first_child(powers, code))
    nodes = []
    while len(row):
        uniform = rng.random(len(row))
        size = 1 + first.draw(left * powers.shape[1] + space, uniform)
        nodes.append((row, start, size))
        more = left > 1
        row, start, space = row[more], (start + size)[more], (space - size)[more]
        left = left[more] - 1
    rows, starts, sizes = (np.concatenate(parts) for parts in zip(*nodes, strict=True))
    return rows, starts, sizes


def _first_child(powers: Float[ndarray, "powers lengths"], code: int) -> Float[ndarray, " sizes"]:
    """Weights of the sizes 1, 2, ... of the first of `left` children that share `space` tokens."""
    left, space = divmod(code, powers.shape[1])
    return powers[1, 1 : space + 1] * powers[left - 1, space - 1 :: -1]


class _Choice:
    """Indices with probability proportional to the weights of a code, by inversion."""

    def __init__(self, weights: Callable[[int], Float[ndarray, " k"]]) -> None:
        self._weights = weights
        self._totals: dict[int, tuple[Float[ndarray, " k"], int]] = {}

    def draw(self, codes: Int[ndarray, " n"], uniform: Float[ndarray, " n"]) -> Int[ndarray, " n"]:
        """A draw for each code from its number in [0, 1)."""
        order = np.argsort(codes, kind="stable")
        distinct, first = np.unique(codes[order], return_index=True)
        drawn = np.empty(len(codes), dtype=np.int64)
        for code, places in zip(distinct.tolist(), np.split(order, first[1:]), strict=True):
            totals, last = self._cumulative(code)
            below = totals.searchsorted(uniform[places] * totals[-1], side="right")
            drawn[places] = np.minimum(below, last)
        return drawn

    def _cumulative(self, code: int) -> tuple[Float[ndarray, " k"], int]:
        """Sums of the weights, and the last index of positive weight.

        A product that rounds up to the whole sum would be one past that index.
        """
        if code not in self._totals:
            totals = np.cumsum(self._weights(code))
            self._totals[code] = totals, int(totals.searchsorted(totals[-1]))
        return self._totals[code]
