"""The position-wise network of Transformer blocks."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from experiments.models.sites import Site


class MLP(nn.Module):
    """out = W_2 gelu(W_1 x + b_1) + b_2, of `ratio` times d_model units; mixes no positions.

    `tanh` takes the gelu's approximation by it, as GPT-2 does. Sites: `preactivation` and `hidden`,
    before and after the gelu.
    """

    def __init__(self, d_model: int, *, ratio: int = 4, tanh: bool = False) -> None:
        super().__init__()
        checks.count(d_model=d_model, ratio=ratio)
        self.approximate = "tanh" if tanh else "none"
        self.in_proj = nn.Linear(d_model, ratio * d_model)
        self.out_proj = nn.Linear(ratio * d_model, d_model)
        self.preactivation, self.hidden = (
            Site("batch", "length", ratio * d_model) for _ in range(2)
        )  # fmt: skip

    def forward(
        self, x: Float[Tensor, "batch length d_model"]
    ) -> Float[Tensor, "batch length d_model"]:
        """The output has the shape of the input."""
        before = self.preactivation(self.in_proj(x))
        hidden = nn.functional.gelu(before, approximate=self.approximate)
        return self.out_proj(self.hidden(hidden))
