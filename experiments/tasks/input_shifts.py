"""Linear regression on prompts unlike those of the training.

tokens   x_1 y_1 ... x_{N-1} y_{N-1} | x_N y_N      the context | the query and its target

Garg et al. 2022 (arXiv:2208.01066). Where the query is unlike the context, a curve over the size of
the context needs one task for each size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.tasks.in_context import Prompts, examples
from experiments.tasks.linear_regression import LinearRegression, gaussian_inputs, normal
from experiments.tasks.recall import generator

Inputs = Float[Tensor, "prompts examples d"]


def random_quadrants(rng: np.random.Generator, xs: Inputs) -> Inputs:
    r"""$s \odot |x_i|$ for i < N, with signs s that a prompt has in common; $x_N$ as it was."""
    prompts, _, d = xs.shape
    signs = torch.from_numpy(rng.choice([-1.0, 1.0], size=(prompts, 1, d)))
    return torch.cat([signs * xs[:, :-1].abs(), xs[:, -1:]], dim=1)


def orthogonal_query(rng: np.random.Generator, xs: Inputs) -> Inputs:
    r"""$\|x_N\| P x_N / \|P x_N\|$ for $x_N$, with P the projection off the other inputs."""
    q, r = torch.linalg.qr(xs.mT)
    # The last column of q is P x_N up to a factor, of which the last entry of r has the sign.
    length = xs[:, -1].norm(dim=-1, keepdim=True) * r[:, -1, -1:].sign()
    return torch.cat([xs[:, :-1], (length * q[..., -1])[:, None]], dim=1)


def copied_query(rng: np.random.Generator, xs: Inputs) -> Inputs:
    """One of the inputs of the context, drawn uniformly, for $x_N$."""
    prompts, num_examples, _ = xs.shape
    chosen = torch.from_numpy(rng.integers(num_examples - 1, size=prompts))
    query = xs[torch.arange(prompts), chosen]
    return torch.cat([xs[:, :-1], query[:, None]], dim=1)


def half_subspace(rng: np.random.Generator, xs: Inputs) -> Inputs:
    r"""Normal in a random subspace of $\lfloor d/2 \rfloor$ dimensions; $E \|x\|^2 = d$."""
    d = xs.shape[-1]
    return _with_spectrum(rng, xs, (torch.arange(d) < d // 2).double())


def skewed(rng: np.random.Generator, xs: Inputs) -> Inputs:
    r"""Normal with variances $\propto 1/i^2$ along a random basis; $E \|x\|^2 = d$."""
    return _with_spectrum(rng, xs, 1 / torch.arange(1, xs.shape[-1] + 1).double())


def _with_spectrum(rng: np.random.Generator, xs: Inputs, deviations: Tensor) -> Inputs:
    """Normal with these standard deviations, up to a factor, along a random basis. The published
    code draws one basis for all prompts."""
    prompts, _, d = xs.shape
    basis = torch.linalg.qr(normal(rng, prompts, d, d)).Q
    return xs * (deviations * math.sqrt(d) / deviations.norm()) @ basis.mT


SHIFTS: dict[str, Callable[[np.random.Generator, Inputs], Inputs]] = {
    "none": lambda rng, xs: xs,
    "random_quadrants": random_quadrants,
    "orthogonal_query": orthogonal_query,
    "copied_query": copied_query,
    "half_subspace": half_subspace,
    "skewed": skewed,
}
"""What becomes of the active coordinates of standard normal inputs."""
QUERY_SHIFTS = ("random_quadrants", "orthogonal_query", "copied_query")
"""Those that make the query unlike the context; only its guess is scored."""


@dataclass(frozen=True, kw_only=True)
class ShiftedRegression:
    r"""$y = b\,(w \cdot x + \sigma \varepsilon)$, where $x = a\, x'$ and the shift makes x' of
    standard normal inputs.

    The `weights` that prompts were drawn from are b w. ValueError where the query cannot be
    orthogonal to the context or there is none to copy from.
    """

    task: LinearRegression
    shift: str = "none"
    """A name in `SHIFTS`."""
    x_factor: float = 1.0
    """a"""
    y_factor: float = 1.0
    """b"""

    d_output = 1
    signs = False

    def __post_init__(self) -> None:
        checks.one_of(tuple(SHIFTS), shift=self.shift)
        checks.positive(x_factor=self.x_factor, y_factor=self.y_factor)
        num_examples, active = self.task.num_examples, self.task.active or self.task.d
        if self.shift == "orthogonal_query" and num_examples > active:
            raise ValueError(
                f"task must have at most {active} examples, its active coordinates, for a query "
                f"orthogonal to the others, got num_examples={num_examples}"
            )
        if self.shift == "copied_query" and num_examples < 2:
            raise ValueError("task must have at least 2 examples to copy one, got num_examples=1")
        if self.shift == "half_subspace" and active < 2:
            raise ValueError("task must have at least 2 active coordinates to halve, got 1")

    @property
    def d(self) -> int:
        return self.task.d

    @property
    def length(self) -> int:
        return self.task.length

    @property
    def scale(self) -> float:
        r"""$E y^2$, which the shifts leave as it was: all keep $E \|x\|^2$."""
        return self.y_factor**2 * (self.x_factor**2 * self.task.nonzero + self.task.noise**2)

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        rng = generator(self, documents=prompts, seed=seed, split=split)
        task, active = self.task, self.task.active or self.task.d
        xs = gaussian_inputs(rng, prompts, task.num_examples, d=task.d, active=active)
        xs[..., :active] = self.x_factor * SHIFTS[self.shift](rng, xs[..., :active])
        weights = task.weights(rng, prompts)
        ys = task.labels(rng, xs, weights)
        sampled = examples(xs, self.y_factor * ys, {"weights": self.y_factor * weights})
        if self.shift in QUERY_SHIFTS:
            return replace(sampled, scored=sampled.scored[-1:])
        return sampled


def noisy_labels(task: LinearRegression, *, noise: float = 1.0) -> ShiftedRegression:
    r"""The task with noise in its labels, and these shrunk to the mean square they had without.

    $y = (w \cdot x + \sigma \varepsilon) \sqrt{v / (v + \sigma^2)}$, $v = E (w \cdot x)^2$. The
    published code divides by the standard deviation of the labels of a batch instead.
    """
    y_factor = math.sqrt(task.nonzero / (task.nonzero + noise**2))
    return ShiftedRegression(task=replace(task, noise=noise), y_factor=y_factor)
