"""What a memory stores: random keys and outputs, and which key maps to which output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bounds import checks

Embedding = Literal["sphere", "gaussian", "orthonormal", "onehot"]
Association = Literal["cyclic", "random"]

_KEYS, _OUTPUTS, _ASSOCIATION = range(3)
_BLOCK_ENTRIES = 2**22
"""Entries drawn at once in double precision, before they are rounded to the requested type."""


@dataclass(frozen=True)
class Facts:
    """Key `i` has the embedding `keys[i]` and belongs to the output `association[i]` of M."""

    keys: Float[Tensor, "N d"]
    outputs: Float[Tensor, "M d_out"]
    association: Int[Tensor, " N"]

    def __post_init__(self) -> None:
        if self.keys.ndim != 2 or len(self.keys) < 1:
            raise ValueError(f"keys must be an N x d matrix, N >= 1, got {tuple(self.keys.shape)}")
        if self.outputs.ndim != 2 or len(self.outputs) < 2:
            shape = tuple(self.outputs.shape)
            raise ValueError(f"outputs must be an M x d_out matrix with M >= 2, got {shape}")
        if self.association.dtype != torch.int64:
            raise ValueError(f"association must be of type int64, got {self.association.dtype}")
        if self.keys.dtype != self.outputs.dtype:
            types = f"{self.keys.dtype} and {self.outputs.dtype}"
            raise ValueError(f"keys and outputs must be of one type, got {types}")
        if self.association.shape != self.keys.shape[:1]:
            shape = tuple(self.association.shape)
            raise ValueError(
                f"association must name one output for each of N={self.N}, got {shape}"
            )
        if self.association.min() < 0 or self.association.max() >= self.M:
            raise ValueError(f"association must name outputs from 0 to M-1 = {self.M - 1}")
        for name, embeddings in (("keys", self.keys), ("outputs", self.outputs)):
            # A sum is finite only if every entry is, and needs no second copy of the matrix.
            if not torch.isfinite(embeddings.sum(dtype=torch.float64)):
                raise ValueError(f"{name} must be finite, got NaN or infinite entries")

    @property
    def N(self) -> int:
        """Number of facts."""
        return len(self.keys)

    @property
    def M(self) -> int:
        """Number of outputs to choose from."""
        return len(self.outputs)

    @property
    def d(self) -> int:
        """Dimension of the keys."""
        return self.keys.shape[1]

    @property
    def d_out(self) -> int:
        """Dimension of the outputs."""
        return self.outputs.shape[1]

    def first(self, N: int, M: int) -> Facts:
        """The first `N` facts, among the first `M` outputs."""
        return Facts(self.keys[:N], self.outputs[:M], self.association[:N])

    @property
    def values(self) -> Float[Tensor, "N d_out"]:
        """The output embedding each key is to retrieve."""
        return self.outputs[self.association]


def draw(
    *,
    N: int,
    d: int,
    M: int | None = None,
    d_out: int | None = None,
    seed: int = 0,
    embedding: Embedding = "sphere",
    association: Association = "cyclic",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Facts:
    r"""`N` random facts about keys in $R^d$ with `M` outputs (by default N) in $R^{d_{out}}$.

    Nested: the facts for a smaller N are the first ones of those for a larger N, whatever the
    device and type, so that probes of a capacity search share their random numbers. Embeddings are
    uniform on the unit sphere, Gaussian with variance 1/d per entry, a random orthonormal basis or
    the standard one (both at most d). Key i belongs to output i mod M ("cyclic": the identity for
    M = N, injective for M > N, balanced classes for M < N), or to one drawn uniformly.
    """
    M = N if M is None else M
    d_out = d if d_out is None else d_out
    checks.count(N=N, M=M, d=d, d_out=d_out)
    N, M, d, d_out = int(N), int(M), int(d), int(d_out)
    checks.nonnegative(seed=seed)
    if not dtype.is_floating_point:
        raise ValueError(f"dtype must be a floating-point type, got {dtype}")
    if M < 2:
        raise ValueError(f"M must be at least 2 outputs to choose from, got {M}")
    checks.one_of(get_args(Embedding), embedding=embedding)
    checks.one_of(get_args(Association), association=association)
    if association == "cyclic":
        target = torch.arange(N) % M
    else:
        rng = np.random.default_rng([seed, M, _ASSOCIATION])
        target = torch.from_numpy(rng.integers(M, size=N))
    return Facts(
        keys=_embed("N", N, d, embedding, [seed, d, _KEYS], dtype, device),
        outputs=_embed("M", M, d_out, embedding, [seed, d_out, _OUTPUTS], dtype, device),
        association=target.to(device),
    )


def _embed(
    name: str,
    count: int,
    d: int,
    embedding: Embedding,
    entropy: list[int],
    dtype: torch.dtype,
    device: torch.device | str,
) -> Float[Tensor, "count d"]:
    if embedding in ("orthonormal", "onehot") and count > d:
        raise ValueError(f"{name} must be at most d={d} for {embedding} embeddings, got {count}")
    if embedding == "onehot":
        return torch.eye(d, dtype=dtype, device=device)[:count]
    rng = np.random.default_rng(entropy)
    if embedding == "orthonormal":
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        return torch.from_numpy(basis[:count]).to(device, dtype)
    drawn = torch.empty(count, d, dtype=dtype, device=device)
    rows = max(1, _BLOCK_ENTRIES // d)
    for start in range(0, count, rows):
        block = torch.from_numpy(rng.standard_normal((min(rows, count - start), d)))
        if embedding == "sphere":
            block /= torch.linalg.vector_norm(block, dim=1, keepdim=True)
        else:
            block /= d**0.5
        drawn[start : start + rows] = block.to(device, dtype)
    return drawn
