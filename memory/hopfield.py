"""The modern Hopfield network as a memory: softmax attention over all stored facts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Facts

_STORED_TILE = 4096
_TILE_ENTRIES = 2**22
"""Scores held at once."""


class HopfieldMemory(AssociativeMemory):
    r"""$F(z) = V^T \mathrm{softmax}(\beta K z)$ over the stored keys K (N x d) and values V.

    N (d + d_out) parameters, N those of `store`: one retrieval step of Ramsauer et al. 2021, which
    recalls a number of random keys exponential in d but stores every one of them.
    """

    formula = "N*(d + d_out)"

    def __init__(
        self,
        d: int,
        d_out: int,
        inverse_temperature: float = 32.0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, N=0)
        checks.positive(inverse_temperature=inverse_temperature)
        self.inverse_temperature = inverse_temperature
        self.keys = nn.Parameter(torch.zeros(0, d, dtype=dtype, device=device))
        self.values = nn.Parameter(torch.zeros(0, d_out, dtype=dtype, device=device))

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        if self.keys.shape[-2] == 0:
            return keys.new_zeros(*keys.shape[:-1], self.sizes["d_out"])
        rows = max(1, _TILE_ENTRIES // _STORED_TILE // max(1, keys.shape[:-2].numel()))
        return torch.cat([self._retrieve(block) for block in keys.split(rows, dim=-2)], dim=-2)

    @property
    def activation_width(self) -> int:
        return self.sizes["d_out"]  # the scores are held in tiles

    @torch.no_grad()
    def store(self, facts: Facts) -> HopfieldMemory:
        self.require(facts)
        self.sizes["N"] = facts.N
        self.keys = nn.Parameter(facts.keys.to(self.keys, copy=True))
        self.values = nn.Parameter(facts.values.to(self.values))
        return self

    def _retrieve(self, keys: Tensor) -> Tensor:
        """The average of the values, accumulated over tiles with a running maximal score."""
        shape = torch.broadcast_shapes(keys.shape[:-2], self.keys.shape[:-2])
        total = keys.new_zeros(*shape, keys.shape[-2], self.sizes["d_out"])
        normalizer = keys.new_zeros(*shape, keys.shape[-2], 1)
        largest = torch.full_like(normalizer, -torch.inf)
        for stored, values in zip(
            self.keys.split(_STORED_TILE, dim=-2),
            self.values.split(_STORED_TILE, dim=-2),
            strict=True,
        ):
            scores = self.inverse_temperature * (keys @ stored.mT)
            previous, largest = largest, largest.maximum(scores.amax(dim=-1, keepdim=True))
            weights, shrink = (scores - largest).exp(), (previous - largest).exp()
            total = shrink * total + weights @ values
            normalizer = shrink * normalizer + weights.sum(dim=-1, keepdim=True)
        return total / normalizer
