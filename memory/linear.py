"""Linear memories F(z) = W z: of full rank, of low rank, on projected keys, and quantised."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from memory import lloyd_max
from memory.associative import AssociativeMemory
from memory.facts import Facts
from memory.randomness import Role, gaussian, lecun_normal
from memory.readout import least_squares, outer_products

LinearRule = Literal["outer-product", "pseudo-inverse"]


class LinearMemory(AssociativeMemory):
    r"""$F(z) = W z$ with W of d_out x d (`weight`): d d_out parameters.

    "outer-product" (correlation matrix, Hebb): $W = \sum_x u_{f(x)} e_x^T$, nichani2024facts,
    theorem 1. "pseudo-inverse": $W = \arg\min \sum_x |W e_x - u_{f(x)}|^2$, which recalls up to d
    independent keys exactly (Kohonen and Ruohonen 1973).
    """

    formula = "d*d_out"

    def __init__(
        self,
        d: int,
        d_out: int,
        rule: LinearRule = "outer-product",
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out)
        checks.one_of(get_args(LinearRule), rule=rule)
        self.rule: LinearRule = rule
        self.weight = nn.Parameter(torch.zeros(d_out, d, dtype=dtype, device=device))

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return keys @ self.weight.mT

    @torch.no_grad()
    def store(self, facts: Facts) -> LinearMemory:
        self.require(facts)
        solve = outer_products if self.rule == "outer-product" else least_squares
        self.weight.copy_(solve(facts, _identity, self.weight, facts.d))
        return self

    @torch.no_grad()
    def initialize(self, seed: int) -> LinearMemory:
        """Random weights to train from (LeCun normal)."""
        d, d_out = self.sizes["d"], self.sizes["d_out"]
        self.weight.copy_(lecun_normal(seed, Role.OUTPUT, d_out, d, fan_in=d))
        return self

    @torch.no_grad()
    def add(self, key: Float[Tensor, " d"], value: Float[Tensor, " d_out"]) -> LinearMemory:
        """Store one more fact, $W + u e^T$: exactly what storing all facts at once gives."""
        return self._edit(key, value, 1)

    @torch.no_grad()
    def remove(self, key: Float[Tensor, " d"], value: Float[Tensor, " d_out"]) -> LinearMemory:
        """Take back a stored fact, $W - u e^T$."""
        return self._edit(key, value, -1)

    def _edit(self, key: Tensor, value: Tensor, sign: int) -> LinearMemory:
        if self.rule != "outer-product":
            raise ValueError(f"rule must be 'outer-product' to edit one fact, got {self.rule!r}")
        self.weight.addr_(value, key, alpha=sign)
        return self


class QuantizedMemory(AssociativeMemory):
    r"""$F(z) = W z$ with entries of W on $2^b$ levels, $b$ = `bits_per_weight`: d d_out parameters.

    W is that of `LinearMemory`, rounded to the levels of the Lloyd-Max quantiser of a Gaussian with
    the root mean square of its entries. `weight` holds the levels themselves; what counts as `bits`
    is $b\,d\,d_{out}$ for which level, and 32 for the scale.
    """

    formula = "d*d_out"

    def __init__(
        self,
        d: int,
        d_out: int,
        bits_per_weight: int,
        rule: LinearRule = "outer-product",
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, bits_per_weight=bits_per_weight)
        checks.one_of(get_args(LinearRule), rule=rule)
        self.rule: LinearRule = rule
        self.quantizer = lloyd_max.gaussian_quantizer(bits_per_weight)
        self.weight = nn.Parameter(torch.zeros(d_out, d, dtype=dtype, device=device))

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return keys @ self.weight.mT

    @torch.no_grad()
    def store(self, facts: Facts) -> QuantizedMemory:
        self.require(facts)
        exact = LinearMemory(
            facts.d, facts.d_out, self.rule, dtype=torch.float64, device=self.weight.device
        )
        weight = exact.store(facts).weight
        scale = weight.square().mean().sqrt()
        thresholds = torch.from_numpy(self.quantizer.thresholds).to(scale)
        levels = torch.from_numpy(self.quantizer.levels).to(scale)
        self.weight.copy_(scale * levels[torch.bucketize(weight, scale * thresholds)])
        return self

    @property
    def bits(self) -> float:
        return float(self.sizes["bits_per_weight"] * self.weight.numel() + 32)


class LowRankMemory(AssociativeMemory):
    r"""$F(z) = A B z$, A of d_out x rank (`left`) and B of rank x d (`right`).

    rank (d + d_out) parameters. `store` truncates the singular value decomposition of the
    outer-product matrix (nichani2024facts, remark after theorem 1).
    """

    formula = "rank*(d + d_out)"

    def __init__(
        self,
        d: int,
        d_out: int,
        rank: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, rank=rank)
        _require_rank(rank, min(d, d_out), "min(d, d_out)")
        self.left = nn.Parameter(torch.zeros(d_out, rank, dtype=dtype, device=device))
        self.right = nn.Parameter(torch.zeros(rank, d, dtype=dtype, device=device))

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return keys @ self.right.mT @ self.left.mT

    @torch.no_grad()
    def store(self, facts: Facts) -> LowRankMemory:
        self.require(facts)
        rank = self.sizes["rank"]
        matrix = outer_products(facts, _identity, self.right, facts.d)
        left, singular_values, right = torch.linalg.svd(matrix, full_matrices=False)
        scale = singular_values[:rank].sqrt()
        self.left.copy_(left[:, :rank] * scale)
        self.right.copy_(scale[:, None] * right[:rank])
        return self

    @torch.no_grad()
    def initialize(self, seed: int) -> LowRankMemory:
        """Random weights to train from (LeCun normal)."""
        d, d_out, rank = (self.sizes[name] for name in ("d", "d_out", "rank"))
        self.left.copy_(lecun_normal(seed, Role.OUTPUT, d_out, rank, fan_in=rank))
        self.right.copy_(lecun_normal(seed, Role.HIDDEN, rank, d, fan_in=d))
        return self


class ProjectionMemory(AssociativeMemory):
    r"""$F(z) = A\,Bz/|Bz|$: an outer-product memory of keys projected to `rank` coordinates.

    B has random orthonormal rows, which the seed regenerates: only A, of d_out x rank (`left`),
    is stored. It is what a matrix of that rank does without looking at the facts.
    """

    formula = "rank*d_out"
    projection: Tensor

    def __init__(
        self,
        d: int,
        d_out: int,
        rank: int,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, rank=rank)
        _require_rank(rank, d, "d")
        basis = torch.linalg.qr(gaussian(seed, Role.PROJECTION, d, d)).Q[:rank]
        self.register_buffer("projection", basis.to(device, dtype))
        self.left = nn.Parameter(torch.zeros(d_out, rank, dtype=dtype, device=device))

    def features(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N rank"]:
        """The projected keys, of unit length again."""
        return nn.functional.normalize(keys @ self.projection.mT, dim=-1)

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return self.features(keys) @ self.left.mT

    @torch.no_grad()
    def store(self, facts: Facts) -> ProjectionMemory:
        self.require(facts)
        self.left.copy_(outer_products(facts, self.features, self.left, self.sizes["rank"]))
        return self


def _identity(keys: Tensor) -> Tensor:
    return keys


def _require_rank(rank: int, largest: int, meaning: str) -> None:
    checks.count(rank=rank)
    if rank > largest:
        raise ValueError(f"rank must be at most {meaning} = {largest}, got {rank}")
