"""The kinds of memories that studies compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from memory.associative import AssociativeMemory
from memory.attention import AttentionMemory
from memory.hopfield import HopfieldMemory
from memory.linear import LinearMemory, LowRankMemory, ProjectionMemory, QuantizedMemory
from memory.mlp import MLPMemory
from memory.states import DiagonalSSMMemory, FastWeightMemory


@dataclass(frozen=True)
class Family:
    """A kind of memory with its options, and the sizes it has by default at a dimension of keys."""

    name: str
    title: str
    memory: Callable[..., AssociativeMemory]
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Callable[[int], dict[str, int]] = lambda d: {}
    seeded: bool = False
    """Whether the memory draws random features."""

    def build(
        self,
        d: int,
        d_out: int | None = None,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        **sizes: int,
    ) -> AssociativeMemory:
        """An empty memory of keys in $R^d$; `sizes` replace the default ones."""
        arguments = {**self.options, **self.sizes(d), **sizes}
        if self.seeded:
            arguments["seed"] = seed
        d_out = d if d_out is None else d_out
        return self.memory(d=d, d_out=d_out, dtype=dtype, device=device, **arguments)


FAMILIES = {
    family.name: family
    for family in (
        Family("outer-product", "Outer product", LinearMemory),
        Family("pseudo-inverse", "Pseudo-inverse", LinearMemory, {"rule": "pseudo-inverse"}),
        Family("one-bit", "1-bit weights", QuantizedMemory, sizes=lambda d: {"bits_per_weight": 1}),
        Family("two-bit", "2-bit weights", QuantizedMemory, sizes=lambda d: {"bits_per_weight": 2}),
        Family("low-rank", "Rank d/2", LowRankMemory, sizes=lambda d: {"rank": max(1, d // 2)}),
        Family(
            "projection",
            "Keys projected to d/2",
            ProjectionMemory,
            sizes=lambda d: {"rank": max(1, d // 2)},
            seeded=True,
        ),
        Family(
            "kernel-quadratic",
            "MLP, kernel, quadratic",
            MLPMemory,
            {"rule": "kernel", "activation": "quadratic"},
            sizes=lambda d: {"width": 16 * d},
            seeded=True,
        ),
        Family(
            "kernel-relu",
            "MLP, kernel, ReLU",
            MLPMemory,
            {"rule": "kernel", "activation": "relu"},
            sizes=lambda d: {"width": 16 * d},
            seeded=True,
        ),
        Family(
            "mlp-readout",
            "MLP, least squares",
            MLPMemory,
            {"rule": "least-squares", "activation": "relu"},
            sizes=lambda d: {"width": 4 * d},
            seeded=True,
        ),
        Family(
            "attention",
            "Attention heads",
            AttentionMemory,
            sizes=lambda d: {"heads": d, "head_dim": 4},
            seeded=True,
        ),
        Family("hopfield", "Modern Hopfield", HopfieldMemory),
        Family("linear-attention", "Linear attention, decay", FastWeightMemory, {"decay": 0.999}),
        Family("delta-rule", "Delta rule", FastWeightMemory, {"rate": 1.0}),
        Family(
            "diagonal-ssm",
            "Diagonal SSM",
            DiagonalSSMMemory,
            sizes=lambda d: {"state_size": d},
            seeded=True,
        ),
    )
}
"""Every kind by its name. The kernel constructions need many units to recall anything at all."""
