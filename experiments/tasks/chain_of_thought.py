"""Two-layer networks in context, with the hidden layer shown between input and output.

tokens   x_1 s_1 y_1 x_2 s_2 y_2 ... x_N s_N y_N      s_i = relu(W x_i), y_i = v . s_i
read at   ^   ^       ^   ^           ^   ^            the guess of s_i at x_i, of y_i at s_i

Tokens are filled up with zeros to one size. Li et al. 2023 (arXiv:2305.18869), CoT-I/O; Park et
al. 2024 (arXiv:2402.04248).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from bounds import checks
from experiments.tasks.in_context import Prompts
from experiments.tasks.linear_regression import gaussian_inputs, normal
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class ChainOfThought:
    r"""$s = \mathrm{relu}(Wx)$ and $y = v \cdot s$ with $W_{ij} \sim N(0, 2/k)$, $v \sim N(0, I)$.

    k is the size `hidden` of s, and x is standard normal of size `d_input`. Both s and y are
    guessed, y from the true s; the errors that are reported are those of y. A guess of y is the
    first output, and the others are not counted. The published code tests on the model's own s.
    """

    d_input: int = 10
    hidden: int = 8
    num_examples: int = 101
    """Triples of x, s and y, each s and y of which is guessed."""

    signs = False

    def __post_init__(self) -> None:
        checks.count(d_input=self.d_input, hidden=self.hidden, num_examples=self.num_examples)

    @property
    def d(self) -> int:
        return max(self.d_input, self.hidden)

    @property
    def d_output(self) -> int:
        return self.hidden

    @property
    def length(self) -> int:
        return 3 * self.num_examples

    @property
    def scale(self) -> float:
        r"""$E y^2$: the size of x, for $E s_j^2 = \frac{1}{2} \cdot \frac{2}{k} E \|x\|^2$."""
        return float(self.d_input)

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts with the weights `W` (hidden x d_input) and `v` they were drawn from."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        N, k = self.num_examples, self.hidden
        xs = gaussian_inputs(rng, prompts, N, d=self.d_input)
        W, v = math.sqrt(2 / k) * normal(rng, prompts, k, self.d_input), normal(rng, prompts, k)
        steps = (xs @ W.mT).relu()
        ys = steps @ v[..., None]
        targets = _rows(steps, ys, size=k)
        counted = torch.ones_like(targets, dtype=torch.bool)
        counted[:, 1::2, 1:] = False
        at = torch.arange(self.length)
        return Prompts(
            tokens=_rows(xs, steps, ys, size=self.d),
            at=at[at % 3 < 2],
            targets=targets,
            counted=counted,
            scored=torch.arange(1, 2 * N, 2),
            hidden={"W": W, "v": v},
        )


def _rows(*vectors: Tensor, size: int) -> Tensor:
    """The vectors of one example after the other, filled up with zeros."""
    padded = [pad(vector, (0, size - vector.shape[-1])) for vector in vectors]
    return torch.stack(padded, dim=2).flatten(1, 2)
