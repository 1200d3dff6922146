"""The two-layer network as a memory: $F(z) = V^T \\sigma(W z + b)$."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from bounds import checks
from memory.associative import AssociativeMemory
from memory.facts import Facts
from memory.randomness import Role, gaussian, lecun_normal, sphere
from memory.readout import BLOCK_ENTRIES, blocks, least_squares

MLPRule = Literal["kernel", "least-squares"]
Activation = Literal["relu", "squared-relu", "gelu", "quadratic", "cubic", "quartic"]

_BIAS_DEVIATION = 0.5
"""Of random biases: enough to break the symmetry of ReLU, little against pre-activations of 1."""


class _Shape(NamedTuple):
    apply: Callable[[Tensor], Tensor]
    degree: int
    """Of the Hermite polynomial that the derivative is paired with in the kernel construction."""


_SHAPES: dict[str, _Shape] = {
    "relu": _Shape(torch.relu, 1),
    "squared-relu": _Shape(lambda t: torch.relu(t).square(), 1),
    "gelu": _Shape(nn.functional.gelu, 1),
    "quadratic": _Shape(torch.square, 1),
    "cubic": _Shape(lambda t: t**3, 2),
    "quartic": _Shape(lambda t: t**4, 3),
}


class MLPMemory(AssociativeMemory):
    r"""$F(z) = V^T \sigma(W z + b)$, W of width x d and V of width x d_out.

    width (d + d_out) parameters as nichani2024facts counts them, with `bias` width more: all of
    the network, also its random weights, and both rows of every pair below. `learned_parameters`
    counts what depends on the facts.

    "kernel" (nichani2024facts, theorem 2; seqtheory for the explicit form): width/2 gated units
    $F(z) = \sum_i v_i\,\sigma'(g_i \cdot z)\,(p_i \cdot z)$ of random g_i (Gaussian) and v_i
    (sphere) with $p_i \propto \sum_x h_q(g_i \cdot e_x)\,(v_i \cdot u_{f(x)})\,e_x$, h_q the
    Hermite polynomial of the degree of $\sigma'$ (1 for ReLU, the step), the linearisation at
    random weights. As a plain network, unit i is the pair of hidden rows $g_i \pm \epsilon p_i$
    with the output rows $\pm v_i$, a central difference: equal to F for the quadratic activation,
    up to $O(\epsilon^2)$ for the other smooth ones, and for ReLU equal except on keys with
    $|g_i \cdot z| < \epsilon |p_i \cdot z|$. Keys are meant to be of unit length.

    "least-squares": random W (and b), V by least squares; exact up to `width` facts.
    """

    formula = "width*(d + d_out + bias)"

    def __init__(
        self,
        d: int,
        d_out: int,
        width: int,
        rule: MLPRule = "least-squares",
        activation: Activation = "relu",
        *,
        bias: bool = False,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(d=d, d_out=d_out, width=width, bias=int(bias))
        checks.count(width=width)
        checks.one_of(get_args(MLPRule), rule=rule)
        checks.one_of(get_args(Activation), activation=activation)
        if rule == "kernel" and width % 2:
            raise ValueError(f"width must be even for rule 'kernel', got {width}")
        if rule == "kernel" and bias:
            raise ValueError("bias must be False for rule 'kernel', got True")
        self.rule, self.activation, self.seed = rule, activation, seed
        self.hidden = nn.Parameter(torch.zeros(width, d, dtype=dtype, device=device))
        self.hidden_bias = (
            nn.Parameter(torch.zeros(width, dtype=dtype, device=device)) if bias else None
        )
        self.output = nn.Parameter(torch.zeros(width, d_out, dtype=dtype, device=device))

    def features(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N width"]:
        r"""The hidden layer $\sigma(W z + b)$."""
        pre_activations = keys @ self.hidden.mT
        if self.hidden_bias is not None:
            pre_activations = pre_activations + self.hidden_bias.unsqueeze(-2)
        return _SHAPES[self.activation].apply(pre_activations)

    def forward(self, keys: Float[Tensor, "... N d"]) -> Float[Tensor, "... N d_out"]:
        return self.features(keys) @ self.output

    @torch.no_grad()
    def store(self, facts: Facts) -> MLPMemory:
        self.require(facts)
        if self.rule == "kernel":
            self._store_kernel(facts)
        else:
            self._store_least_squares(facts)
        return self

    @torch.no_grad()
    def initialize(self, seed: int) -> MLPMemory:
        """Random weights to train from (LeCun normal, no bias), as in nichani2024facts."""
        d, d_out, width = (self.sizes[name] for name in ("d", "d_out", "width"))
        self.hidden.copy_(lecun_normal(seed, Role.HIDDEN, width, d, fan_in=d))
        self.output.copy_(lecun_normal(seed, Role.OUTPUT, width, d_out, fan_in=width))
        if self.hidden_bias is not None:
            self.hidden_bias.zero_()
        return self

    @property
    def learned_parameters(self) -> int:
        """Parameters that `store` takes from the facts: every p_i, or V; a seed gives the rest."""
        if self.rule == "kernel":
            return self.hidden.numel() // 2
        return self.output.numel()

    def _store_least_squares(self, facts: Facts) -> None:
        width, d = self.sizes["width"], self.sizes["d"]
        self.hidden.copy_(gaussian(self.seed, Role.HIDDEN, width, d))
        if self.hidden_bias is not None:
            drawn = gaussian(self.seed, Role.HIDDEN_BIAS, width, 1).squeeze(1)
            self.hidden_bias.copy_(_BIAS_DEVIATION * drawn)
        self.output.copy_(least_squares(facts, self.features, self.output, width).mT)

    def _store_kernel(self, facts: Facts) -> None:
        units, degree = self.sizes["width"] // 2, _SHAPES[self.activation].degree
        gates = gaussian(self.seed, Role.HIDDEN, units, self.sizes["d"]).to(self.hidden.device)
        directions = sphere(self.seed, Role.OUTPUT, units, self.sizes["d_out"]).to(gates)
        weights = torch.zeros_like(gates)
        rows = max(1, BLOCK_ENTRIES // (units + facts.d + facts.d_out))
        for keys, values in blocks(facts, gates, rows):
            weights.addmm_((_hermite(degree, keys @ gates.mT) * (values @ directions.mT)).mT, keys)
        # A common factor is free, and this one makes both parts of a row of the same size.
        weights *= gates.norm() / weights.norm().clamp_min(torch.finfo(weights.dtype).tiny)
        step = 1.0
        if self.activation != "quadratic":
            # Rounding errors of a central difference grow as 1/step, its own error as step^2.
            step = torch.finfo(self.hidden.dtype).eps ** (1 / 3)
        self.hidden.copy_(torch.cat([gates + step * weights, gates - step * weights]))
        self.output.copy_(torch.cat([directions, -directions]) / (2 * step))


def _hermite(degree: int, t: Tensor) -> Tensor:
    """Hermite polynomial, orthonormal under the standard Gaussian."""
    previous, current = torch.zeros_like(t), torch.ones_like(t)
    for n in range(degree):
        previous, current = current, (t * current - n**0.5 * previous) / (n + 1) ** 0.5
    return current
