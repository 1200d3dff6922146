"""The one interface of all memories: `AssociativeMemory`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from bounds.audit import MULTIPRECISION
from bounds.formula import evaluate
from memory.facts import Facts

_Memory = TypeVar("_Memory", bound="AssociativeMemory")


class AssociativeMemory(nn.Module, ABC):
    r"""A map F from keys to output embeddings; key x retrieves $\arg\max_y u_y \cdot F(e_x)$.

    The weights may come from `store` or from training: the forward pass is the same. What depends
    on the facts is an `nn.Parameter` and counts as storage; random features that a seed regenerates
    are buffers and do not, except for the layers of an MLP and the values of attention heads, which
    can be trained and count as in nichani2024facts (see `learned_parameters`). Forward accepts
    leading batch dimensions, in the keys and, where a memory is one of a stack of trained ones, in
    its parameters.
    """

    formula: ClassVar[str]
    """Number of parameters as SymPy-readable text in the `sizes`."""

    def __init__(self, *, d: int, d_out: int, **sizes: int) -> None:
        super().__init__()
        checks.count(d=d, d_out=d_out)
        self.sizes = {"d": d, "d_out": d_out, **sizes}
        """The dimensions of keys and outputs, and those of the memory, by name."""

    @abstractmethod
    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]: ...

    @abstractmethod
    def store(self: _Memory, facts: Facts) -> _Memory:
        """Set the weights to hold `facts` in closed form, forgetting everything else."""

    @property
    def stated_parameters(self) -> int:
        """Number of parameters by the formula."""
        return int(evaluate(self.formula, self.sizes, MULTIPRECISION))

    @property
    def counted_parameters(self) -> int:
        """Number of parameters in the tensors."""
        return sum(parameter.numel() for parameter in self.parameters())

    @property
    def learned_parameters(self) -> int:
        """Number of parameters that `store` takes from the facts; a seed regenerates the others."""
        return self.counted_parameters

    @property
    def activation_width(self) -> int:
        """Numbers the forward pass holds for one key: the longest side of a parameter."""
        return max(max(parameter.shape, default=1) for parameter in self.parameters())

    @property
    def bits(self) -> float:
        """Storage in bits: the width of the parameters' type, unless a memory quantises them."""
        return float(sum(p.numel() * torch.finfo(p.dtype).bits for p in self.parameters()))

    def require(self, facts: Facts) -> None:
        """ValueError where the dimensions of the facts are not those of the memory."""
        for name in ("d", "d_out"):
            if getattr(facts, name) != self.sizes[name]:
                raise ValueError(
                    f"{name} of the facts must be {self.sizes[name]}, that of the memory, "
                    f"got {getattr(facts, name)}"
                )
