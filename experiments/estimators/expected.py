r"""Expected squared errors of the estimators, relative to those of the guess 0.

Examples are of x ~ N(0, I) and $y = w \cdot x$ with any w, sparse ones among them. Keys, values and
queries have norm $\sqrt d$ and uniform directions, and every query is one of the keys.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks


def least_squares_errors(examples: int, *, d: int) -> Float[Tensor, " examples"]:
    r"""$\max(0, 1 - k/d)$ for the guess after k = 0, 1, ... examples.

    The weights are the projection of w on the span of k uniform directions.
    """
    checks.count(examples=examples, d=d)
    return (1 - torch.arange(examples, dtype=torch.float64) / d).clamp(min=0)


def averaging_errors(examples: int, *, d: int) -> Float[Tensor, " examples"]:
    r"""1, then $(d + 1)/k$ for the guess after k = 1, 2, ... examples: above 1 for k <= d.

    The weights are Sw with $S = \sum_j x_j x_j^T / k$, of which $E[(S - I)^2] = I (d + 1)/k$.
    """
    checks.count(examples=examples, d=d)
    errors = (d + 1) / torch.arange(examples, dtype=torch.float64)
    errors[0] = 1
    return errors


def mean_value_error(pairs: int) -> float:
    r"""$1 - 1/n$ for n pairs: $(1 - 1/n)^2$ of the value asked for, $1/n^2$ of each other one."""
    checks.count(pairs=pairs)
    return 1 - 1 / pairs


def linear_attention_error(pairs: int, *, d: int) -> float:
    r"""$(n - 1)/d$ for n pairs: $E (k \cdot q)^2 / d^2 = 1/d$ of each value not asked for."""
    checks.count(pairs=pairs, d=d)
    return (pairs - 1) / d
