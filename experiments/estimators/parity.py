"""Parities: y is the product of x over a hidden support, x and y of -1 and 1; all prompts at once.

Bayes         posterior over the supports of a known size
elimination   linear equations over GF(2), of any support
"""

from __future__ import annotations

from itertools import combinations
from math import comb

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.estimators.inputs import check_examples


def parity_bayes(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"], *, sparsity: int
) -> Float[Tensor, "prompts examples"]:
    r"""Probability of $y_i = 1$ given examples 1..i-1, if all supports of size `sparsity` are as
    likely.

    Among the supports that agree with the examples, the share of those whose product is 1.
    ValueError if an example leaves none.
    """
    _check_signs(xs, ys)
    d = xs.shape[-1]
    _check_sparsity(sparsity, d)
    supports = torch.tensor(list(combinations(range(d), sparsity)))
    agree = torch.ones(len(xs), len(supports), dtype=torch.bool)
    probabilities = torch.zeros_like(ys)
    for i in range(xs.shape[1]):
        product = xs[:, i, supports].prod(dim=-1)
        probabilities[:, i] = (agree & (product > 0)).sum(dim=1) / agree.sum(dim=1)
        agree &= product == ys[:, i, None]
        if not agree.any(dim=1).all():
            raise ValueError(f"ys must be parities of {sparsity} coordinates, not at {i + 1}")
    return probabilities


def parity_elimination(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"]
) -> Float[Tensor, "prompts examples"]:
    r"""Guess of $y_i$ by Gaussian elimination over GF(2) on examples 1..i-1.

    $y_i$ if all supports, of any size, that agree with the examples agree on it: where $x_i$ is in
    the span of $x_1..x_{i-1}$, with 0 for 1 and 1 for -1. Otherwise as many say 1 as say -1, and
    the guess is 0. ValueError if an example contradicts those before it.
    """
    _check_signs(xs, ys)
    prompts, examples, d = xs.shape
    bits = torch.cat([xs, ys[..., None]], dim=-1) < 0
    # Row j of a reduced echelon form has its pivot in column j, or is 0; the last column is y.
    rows = torch.zeros(prompts, d, d + 1, dtype=torch.float64)
    pivots, all_prompts = torch.arange(d), torch.arange(prompts)
    guesses = torch.zeros_like(ys)
    for i in range(examples):
        example = bits[:, i].double()
        used = example[:, None, :d] * rows[:, pivots, pivots][:, None]
        rest = ((used @ rows).squeeze(1) + example) % 2
        determined = ~rest[:, :d].any(dim=1)
        if (rest[determined, d] != 0).any():
            raise ValueError(f"ys must be parities, example {i + 1} contradicts those before it")
        guesses[:, i] = torch.where(determined, ys[:, i], 0.0)
        pivot = rest[:, :d].argmax(dim=1)  # where nothing is left, a row of 0 changes nothing
        rows = (rows + rows[all_prompts, :, pivot][..., None] * rest[:, None]) % 2
        rows[all_prompts, pivot] += rest
    return guesses


def bayes_accuracy_without_examples(d: int, sparsity: int) -> float:
    r"""Accuracy of the best guess from x alone: x with m coordinates -1 has product 1 on more or on
    fewer of the supports than -1.

    $\frac12 + \sum_m \binom dm 2^{-d} |K_s(m)| / (2 \binom ds)$, with the Krawtchouk polynomial
    $K_s(m) = \sum_j (-1)^j \binom mj \binom{d-m}{s-j}$.
    """
    _check_sparsity(sparsity, d)
    excess = sum(
        comb(d, m)
        * abs(sum((-1) ** j * comb(m, j) * comb(d - m, sparsity - j) for j in range(sparsity + 1)))
        for m in range(d + 1)
    )
    return 0.5 + excess / (2 ** (d + 1) * comb(d, sparsity))


def _check_signs(xs: Tensor, ys: Tensor) -> None:
    check_examples(xs, ys)
    for name, signs in (("xs", xs), ("ys", ys)):
        if (signs.abs() != 1).any():
            raise ValueError(f"{name} must be -1 or 1, got {signs[signs.abs() != 1][0].item()}")


def _check_sparsity(sparsity: int, d: int) -> None:
    checks.count(sparsity=sparsity, d=d)
    checks.ordered(sparsity=sparsity, d=d)
