"""Linear estimators of the next y, for all prompts at once: least squares, ridge and averaging.

least squares     weights of least norm among those of least squared error
ridge             posterior mean for weights N(0, I) and noise of variance `penalty`
averaging         mean of y x
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from bounds import checks
from experiments.estimators.inputs import check_examples

TOLERANCE = 1e-8
"""An x counts as in the span of those before if its distance to it is at most this times |x|."""


def least_squares(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    known: Bool[Tensor, "prompts examples"] | None = None,
) -> Float[Tensor, "prompts examples"]:
    r"""Guess of $y_i$ by the weights of least norm that fit examples 1..i-1 best, $X^+ y$.

    With `known`, only those examples of 1..i-1 are used; every y is guessed. Relative error about
    1e-16 times the squared condition number (over the span) of the worst prefix so far. Baseline of
    Garg et al. 2022 (arXiv:2208.01066).
    """
    identity = torch.eye(xs.shape[-1], dtype=torch.float64).repeat(len(xs), 1, 1)
    return _recursive(xs, ys, known, diffuse=identity, covariance=torch.zeros_like(identity))


def ridge(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    penalty: float,
    known: Bool[Tensor, "prompts examples"] | None = None,
) -> Float[Tensor, "prompts examples"]:
    r"""Guess of $y_i$ by the minimiser of $|y - Xw|^2 + \lambda |w|^2$ over examples 1..i-1.

    The best guess in squared error if w ~ N(0, I) and $y = w \cdot x$ plus noise of variance
    $\lambda$, the `penalty`; `least_squares` in the limit of none. Relative error about 1e-16
    $|X|^2 / \lambda$.
    """
    checks.positive(penalty=penalty)
    identity = torch.eye(xs.shape[-1], dtype=torch.float64).repeat(len(xs), 1, 1)
    return _recursive(
        xs, ys, known, diffuse=torch.zeros_like(identity), covariance=identity / penalty
    )


def averaging(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"]
) -> Float[Tensor, "prompts examples"]:
    r"""Guess $w \cdot x_i$ of $y_i$, w the mean of $y_j x_j$ over j < i; the first guess is 0."""
    check_examples(xs, ys)
    sums = (ys[..., None] * xs).cumsum(dim=1)[:, :-1]
    seen = torch.arange(1, xs.shape[1], dtype=torch.float64)
    guesses = torch.zeros_like(ys)
    guesses[:, 1:] = (sums * xs[:, 1:]).sum(dim=-1) / seen
    return guesses


def _recursive(
    xs: Tensor, ys: Tensor, known: Tensor | None, *, diffuse: Tensor, covariance: Tensor
) -> Tensor:
    """Kalman filter of constant weights with noise of variance 1, one step for each example.

    The prior of the weights is N(0, covariance + infinity times diffuse), where `diffuse` projects
    on what no example has measured yet; in the limit this is the recursion of Greville 1960. Both
    matrices are overwritten.
    """
    check_examples(xs, ys)
    if known is not None and known.shape != ys.shape:
        raise ValueError(f"known must have the shape of ys, got {tuple(known.shape)}")
    weights = torch.zeros_like(xs[:, 0])
    guesses = torch.zeros_like(ys)
    for i in range(xs.shape[1]):
        x = xs[:, i]
        guesses[:, i] = (weights * x).sum(dim=-1)
        if known is not None:
            x = x * known[:, i, None]  # an example with x = 0 moves nothing
        h = (covariance @ x[..., None]).squeeze(-1)
        variance = 1 + (x * h).sum(dim=-1, keepdim=True)
        gain = h / variance
        if diffuse.diagonal(dim1=1, dim2=2).sum(dim=1).max() > 0.5:  # d less the rank
            new = (diffuse @ (diffuse @ x[..., None])).squeeze(-1)  # twice, against rounding
            size = (new * new).sum(dim=-1, keepdim=True)
            is_new = size > TOLERANCE**2 * (x * x).sum(dim=-1, keepdim=True)
            step = torch.where(is_new, new / size, 0.0)
            gain = torch.where(is_new, step, gain)
            diffuse -= step[..., None] * new[:, None]
        weights += gain * (ys[:, i] - guesses[:, i])[:, None]
        half = gain * variance / 2 - h
        covariance.baddbmm_(torch.stack([gain, half], dim=-1), torch.stack([half, gain], dim=1))
    return guesses
