"""Linear regression in context: weights that are drawn anew for every prompt.

tokens   x_1 (y_1, 0, ..., 0) x_2 (y_2, 0, ..., 0) ... x_N (y_N, 0, ..., 0)      y_i = w . x_i
read at   ^                    ^                        ^

Garg et al. 2022 (arXiv:2208.01066); Park et al. 2024 (arXiv:2402.04248).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.tasks.in_context import Prompts, check_active, examples
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class LinearRegression:
    r"""$y = w \cdot x + \sigma \varepsilon$ with x, w and $\varepsilon$ standard normal.

    Only the first `active` coordinates of x and w are not zero; of those of w, only `sparsity`,
    which are drawn for every prompt. The labels in the prompt and the targets are the same numbers,
    noise included, so that no guess has an error below $\sigma^2$.
    """

    d: int = 20
    num_examples: int = 41
    """Pairs of x and y, each y of which is guessed."""
    sparsity: int | None = None
    """None: as many as there are active coordinates."""
    active: int | None = None
    """None: all d."""
    noise: float = 0.0
    r"""Standard deviation $\sigma$."""

    d_output = 1
    signs = False

    def __post_init__(self) -> None:
        checks.count(d=self.d, num_examples=self.num_examples)
        checks.nonnegative(noise=self.noise)
        check_active(self.active, d=self.d)
        if self.sparsity is not None:
            checks.count(sparsity=self.sparsity)
            checks.ordered(sparsity=self.sparsity, active=self.active or self.d)

    @property
    def length(self) -> int:
        return 2 * self.num_examples

    @property
    def nonzero(self) -> int:
        r"""Weights that are not zero. Also $E (w \cdot x)^2$, since all of them are active."""
        return self.sparsity or self.active or self.d

    @property
    def scale(self) -> float:
        r"""$E y^2$: the number of weights that are not zero, plus $\sigma^2$."""
        return self.nonzero + self.noise**2

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts with the `weights` they were drawn from."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        xs = gaussian_inputs(rng, prompts, self.num_examples, d=self.d, active=self.active)
        weights = self.weights(rng, prompts)
        return examples(xs, self.labels(rng, xs, weights), {"weights": weights})

    def weights(self, rng: np.random.Generator, prompts: int) -> Float[Tensor, "prompts d"]:
        active = self.active or self.d
        # A row is a random permutation of the numbers from 0.
        order = rng.random((prompts, active)).argsort(axis=1)
        kept = torch.zeros(prompts, self.d, dtype=torch.bool)
        kept[:, :active] = torch.from_numpy(order < self.nonzero)
        return normal(rng, prompts, self.d).where(kept, 0)

    def labels(
        self,
        rng: np.random.Generator,
        xs: Float[Tensor, "prompts examples d"],
        weights: Float[Tensor, "prompts d"],
    ) -> Float[Tensor, "prompts examples"]:
        ys = (xs @ weights[..., None]).squeeze(-1)
        return ys + self.noise * normal(rng, *ys.shape)


def gaussian_inputs(
    rng: np.random.Generator, prompts: int, num_examples: int, *, d: int, active: int | None = None
) -> Float[Tensor, "prompts examples d"]:
    """Standard normal vectors, with zeros behind the first `active` coordinates."""
    xs = normal(rng, prompts, num_examples, d)
    xs[..., active or d :] = 0
    return xs


def normal(rng: np.random.Generator, *shape: int) -> Float[Tensor, " ..."]:
    """Independent standard normal numbers."""
    return torch.from_numpy(rng.standard_normal(shape))
