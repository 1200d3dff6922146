"""Small networks, one trained from scratch for each prompt and prefix."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.estimators.trees import checked_prefixes

_NUMBERS = 2**20
"""Weights and units of all examples that are trained at once."""


def network_guesses(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    prefixes: Sequence[int],
    hidden: int = 100,
    steps: int = 100,
    learning_rate: float = 5e-3,
    seed: int,
) -> Float[Tensor, "prompts prefixes"]:
    r"""Guess of $y_{k+1}$ by a network trained on the first k examples, for each k of `prefixes`.

    $\hat y = w_2 \cdot \mathrm{relu}(W_1 x + b_1) + b_2$ with `hidden` units, from the weights of
    `initial_weights`, after so many steps of Adam on the mean squared error of all k examples, as
    in Garg et al. 2022 (arXiv:2208.01066) and its published code. No example: 0. Takes
    6 x steps x k x d x hidden multiplications for each prompt and prefix.
    """
    checks.count(hidden=hidden, steps=steps)
    checks.positive(learning_rate=learning_rate)
    guesses = ys.new_zeros(len(ys), len(prefixes))
    d = xs.shape[2]
    for column, k in enumerate(checked_prefixes(xs, ys, prefixes).tolist()):
        if k == 0:
            continue
        rng = np.random.default_rng((seed, k))
        for part in torch.arange(len(xs)).split(1 + _NUMBERS // (hidden * (d + k))):
            weights = initial_weights(len(part), d, hidden, rng)
            trained = _trained(weights, xs[part, :k], ys[part, :k], steps, learning_rate)
            guesses[part, column] = outputs(trained, xs[part, k : k + 1]).squeeze(1)
    return guesses


def initial_weights(
    networks: int, d: int, hidden: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""$W_1$, $b_1$, $w_2$, $b_2$ of each network, uniform within one over the root of the fan-in.

    PyTorch's default. One network after the other is drawn, so that more of them begin alike.
    """
    sizes, shapes = (hidden * d, hidden, hidden, 1), ((d, hidden), (1, hidden), (hidden, 1), (1, 1))
    uniform = torch.from_numpy(rng.uniform(-1, 1, size=(networks, sum(sizes))))
    first, bias, second, last = (
        part.reshape(networks, *shape)
        for part, shape in zip(uniform.split(sizes, dim=1), shapes, strict=True)
    )
    return first / d**0.5, bias / d**0.5, second / hidden**0.5, last / hidden**0.5


def outputs(
    weights: tuple[Tensor, Tensor, Tensor, Tensor], x: Float[Tensor, "networks examples d"]
) -> Float[Tensor, "networks examples"]:
    """Of each network at inputs of its own."""
    first, bias, second, last = weights
    return torch.baddbmm(last, torch.baddbmm(bias, x, first).relu(), second).squeeze(2)


def _trained(
    weights: tuple[Tensor, Tensor, Tensor, Tensor],
    x: Float[Tensor, "networks examples d"],
    y: Float[Tensor, "networks examples"],
    steps: int,
    learning_rate: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # Adam treats every weight by itself, so one optimizer of the sum of losses is one of each.
    parameters = [part.clone().requires_grad_() for part in weights]
    first, bias, second, last = parameters
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss = (outputs((first, bias, second, last), x) - y).square().mean(1).sum()
            loss.backward()
            optimizer.step()
    return first.detach(), bias.detach(), second.detach(), last.detach()
