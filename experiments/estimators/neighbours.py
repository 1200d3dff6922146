"""Nearest neighbours among the examples seen so far, for all prompts at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.estimators.inputs import check_examples


def nearest_neighbours(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"], *, k: int = 3
) -> Float[Tensor, "prompts examples"]:
    r"""Guess of $y_i$ by the mean over the `k` examples of 1..i-1 whose x is nearest to $x_i$.

    Euclidean distances, of equal ones the earlier example first; the mean of all examples while
    they are fewer, and 0 for the first guess. Baseline of Garg et al. 2022 (arXiv:2208.01066).
    """
    check_examples(xs, ys)
    checks.count(k=k)
    guesses = torch.zeros_like(ys)
    for i in range(1, xs.shape[1]):
        distances = (xs[:, :i] - xs[:, i, None]).square().sum(dim=-1)
        nearest = distances.argsort(dim=-1, stable=True)[:, :k]
        guesses[:, i] = ys.gather(1, nearest).mean(dim=-1)
    return guesses
