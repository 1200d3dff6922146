"""Attention heads as an associative memory."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Facts
from memory.randomness import Role, gaussian, lecun_normal, sphere
from memory.readout import least_squares


class AttentionMemory(AssociativeMemory):
    r"""Attention of a fixed last token s over the key token and s itself, the sink of value zero.

    $F(z) = \sum_h O_h^T\, a_h(z)\, V_h z$ with
    $a_h(z) = \mathrm{softmax}(\beta q_h \cdot (K_h z, K_h s) / \sqrt{d_h})_1$ and $q_h = Q_h s$:
    every head gates its values by how much it attends to the key, so that the features
    $a_h(z) V_h z$, of which there are width = heads head_dim, have a rank beyond d. With
    `gating` False attention is uniform, and all heads together are one matrix of rank at most
    min(d, width).

    The default inverse temperature makes the difference of the scores of order one. Measured
    (seqtheory, d = 64, width 512, 99 % recalled) against a readout of as many generic features:
    2 to 3 % fewer facts for 64 heads or more, 6, 13 and 26 % fewer for 32, 16 and 8. Steep gates,
    like few heads, cost facts: a key that most heads ignore has few features.

    heads head_dim (d + d_out) parameters: the values V_h (`value`) and outputs O_h (`output`).
    The queries and keys are random features of the seed; nichani2024facts counts them too, which
    makes 4 heads head_dim d. `store` draws the values and takes the outputs by least squares, exact
    up to `width` facts while the features are independent; `learned_parameters` are the outputs.
    """

    formula = "heads*head_dim*(d + d_out)"
    query: Tensor
    key: Tensor
    sink: Tensor

    def __init__(
        self,
        d: int,
        d_out: int,
        heads: int,
        head_dim: int,
        *,
        inverse_temperature: float = 1.0,
        gating: bool = True,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, heads=heads, head_dim=head_dim)
        checks.count(heads=heads, head_dim=head_dim)
        checks.nonnegative(inverse_temperature=inverse_temperature)
        self.inverse_temperature, self.gating, self.seed = inverse_temperature, gating, seed
        width = heads * head_dim
        for name, role in (("query", Role.QUERY), ("key", Role.KEY)):
            self.register_buffer(name, gaussian(seed, role, width, d).to(device, dtype))
        self.register_buffer("sink", sphere(seed, Role.SINK, 1, d)[0].to(device, dtype))
        self.value = nn.Parameter(torch.zeros(width, d, dtype=dtype, device=device))
        self.output = nn.Parameter(torch.zeros(width, d_out, dtype=dtype, device=device))

    def attention(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N heads"]:
        """The weight of the key token in every head."""
        heads, head_dim = self.sizes["heads"], self.sizes["head_dim"]
        if not self.gating:
            return keys.new_full((*keys.shape[:-1], heads), 0.5)
        sink = self.sink.unsqueeze(-2)
        query = (self.query * sink).sum(dim=-1, keepdim=True)
        directions = (self.key * query).unflatten(-2, (heads, head_dim)).sum(dim=-2)
        # A softmax over two scores is the sigmoid of their difference.
        difference = (keys - sink) @ directions.mT / head_dim**0.5
        return torch.sigmoid(self.inverse_temperature * difference)

    def features(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N width"]:
        """The attended values of all heads, side by side."""
        weights = self.attention(keys).repeat_interleave(self.sizes["head_dim"], dim=-1)
        return weights * (keys @ self.value.mT)

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return self.features(keys) @ self.output

    @torch.no_grad()
    def store(self, facts: Facts) -> AttentionMemory:
        self.require(facts)
        width, d = self.value.shape
        self.value.copy_(gaussian(self.seed, Role.VALUE, width, d))
        self.output.copy_(least_squares(facts, self.features, self.output, width).mT)
        return self

    @torch.no_grad()
    def initialize(self, seed: int) -> AttentionMemory:
        """Random values and outputs to train from (LeCun normal)."""
        width, d = self.value.shape
        self.value.copy_(lecun_normal(seed, Role.VALUE, width, d, fan_in=d))
        d_out = self.sizes["d_out"]
        self.output.copy_(lecun_normal(seed, Role.OUTPUT, width, d_out, fan_in=width))
        return self

    @property
    def learned_parameters(self) -> int:
        """Parameters that `store` takes from the facts: the outputs; a seed gives the values."""
        return self.output.numel()
