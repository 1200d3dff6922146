"""The smallest training: least squares in a few weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from experiments.recipe import Recipe
from experiments.train import Outcome, train
from tests.experiments.trainable import squares


class Weights(nn.Module):
    """One vector of weights."""

    def __init__(self, *initial: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(initial, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def example() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(20, 3, generator=rng, dtype=torch.float64)
    return x, x.sum(1) + torch.randn(20, generator=rng, dtype=torch.float64)


def minimize(model: nn.Module, recipe: Recipe, **options) -> Outcome:
    return train(model, squares, lambda step: example(), recipe, seed=0, **options)


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
