"""Recurrent states as memories: what is left after the facts were written one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Facts
from memory.randomness import Role, gaussian
from memory.readout import blocks

_CHUNK = 128
"""Facts written at once: the cost per fact is of the order of chunk (d + d_out) + d d_out."""


class FastWeightMemory(AssociativeMemory):
    r"""The state S of linear attention, d_out x d (`state`), read by $F(z) = S z$.

    d d_out parameters. Facts are written in their order, the last one is the most recent:
    $S \leftarrow \alpha S + v k^T$ without a `rate` (fast weights, linear attention), and
    $S \leftarrow \alpha S + \beta (v - \alpha S k) k^T$ with `rate` $\beta$ (delta rule, Widrow
    and Hoff 1960; DeltaNet; gated by the `decay` $\alpha$). The delta rule is meant for keys of
    unit length. Chunks of facts are written at once, in exact arithmetic the same as one by one
    (Yang et al. 2024): within a chunk the corrections solve a triangular system.
    """

    formula = "d*d_out"

    def __init__(
        self,
        d: int,
        d_out: int,
        rate: float | None = None,
        decay: float = 1.0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out)
        if rate is not None:
            checks.positive(rate=rate)
        checks.positive(decay=decay)
        checks.fraction(decay=decay)
        self.rate, self.decay = rate, decay
        self.state = nn.Parameter(torch.zeros(d_out, d, dtype=dtype, device=device))

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return keys @ self.state.mT

    @torch.no_grad()
    def store(self, facts: Facts) -> FastWeightMemory:
        self.require(facts)
        self.state.zero_()
        return self.write(facts)

    @torch.no_grad()
    def write(self, facts: Facts) -> FastWeightMemory:
        """Write the facts into the present state."""
        self.require(facts)
        state = self.state.double()
        for keys, values in blocks(facts, state, _CHUNK):
            age = _ages(keys)
            retained = self.decay ** (age + 1)
            if self.rate is not None:
                # Entry (t, i): what the write of fact i left of itself when fact t is written.
                overlap = (keys @ keys.mT) * self.decay ** (age - age[:, None]).clamp_min(0)
                system = self.rate * overlap.tril(-1)
                error = values - retained.flip(0)[:, None] * (keys @ state.mT)
                values = torch.linalg.solve_triangular(
                    system, self.rate * error, upper=False, unitriangular=True
                )
            state = retained[0] * state + (self.decay ** age[:, None] * values).mT @ keys
        self.state.copy_(state)
        return self


class DiagonalSSMMemory(AssociativeMemory):
    r"""The state h of a diagonal state space model, state_size x d_out (`state`).

    state_size d_out parameters. Writing a fact is $h \leftarrow \mathrm{diag}(a) h + b(k) v^T$ and
    reading is $F(z) = h^T b(z)$ with $b(z) = Bz/|Bz|$, B a random Gaussian matrix that the seed
    regenerates (a Mamba-2 head with B = C and no convolution). A `decay` $a_j$ of 1 is a gate that
    holds.
    """

    formula = "state_size*d_out"
    decays: Tensor
    projection: Tensor

    def __init__(
        self,
        d: int,
        d_out: int,
        state_size: int,
        decay: float | Sequence[float] = 1.0,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, state_size=state_size)
        checks.count(state_size=state_size)
        checks.positive(decay=decay)
        checks.fraction(decay=decay)
        decays = torch.as_tensor(decay, dtype=torch.float64)
        if decays.ndim > 1 or (decays.ndim == 1 and len(decays) != state_size):
            raise ValueError(
                f"decay must be one number or one of every channel, {state_size}, "
                f"got the shape {tuple(decays.shape)}"
            )
        self.register_buffer("decays", decays.expand(state_size).to(device, dtype))
        projection = gaussian(seed, Role.PROJECTION, state_size, d)
        self.register_buffer("projection", projection.to(device, dtype))
        self.state = nn.Parameter(torch.zeros(state_size, d_out, dtype=dtype, device=device))

    def features(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N state_size"]:
        """The projected keys, of unit length."""
        return nn.functional.normalize(keys @ self.projection.mT, dim=-1)

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return self.features(keys) @ self.state

    @torch.no_grad()
    def store(self, facts: Facts) -> DiagonalSSMMemory:
        self.require(facts)
        self.state.zero_()
        return self.write(facts)

    @torch.no_grad()
    def write(self, facts: Facts) -> DiagonalSSMMemory:
        """Write the facts into the present state."""
        self.require(facts)
        state, decays = self.state.double(), self.decays.double()
        for keys, values in blocks(facts, self.state, _CHUNK):
            features = self.features(keys).double()
            kept = features * decays ** _ages(features)[:, None]
            state = decays[:, None] ** len(keys) * state + kept.mT @ values.double()
        self.state.copy_(state)
        return self


def _ages(rows: Float[Tensor, "rows columns"]) -> Float[Tensor, " rows"]:
    """How many facts are written after each."""
    return torch.arange(len(rows) - 1, -1, -1, dtype=rows.dtype, device=rows.device)
