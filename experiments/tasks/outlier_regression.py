"""Linear regression with outliers: pairs among the examples that say nothing about the weights.

    tokens   x_1 (y_1, 0, ..., 0)  o o'  x_3 (y_3, 0, ..., 0)  o'' o'''  ...      y_i = w . x_i
    guesses   ^                    -      ^                    -                  - not counted

Park et al. 2024 (arXiv:2402.04248).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from bounds import checks
from experiments.tasks.in_context import Prompts, check_active, interleaved
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class OutlierRegression(ABC):
    """y = w . x, x ~ N(0, I), w ~ N(0, I); each pair is an outlier with probability `share`.

    `hidden`: "weights", zero behind the active coordinates, and "clean", whether an example is
    (prompts x examples). What follows an outlier is not counted.
    """

    d: int
    num_examples: int
    share: float
    """Of outliers, from 0 to below 1."""
    active: int | None = None
    """The coordinates of clean x behind are zero; None: none are."""

    d_output = 1
    signs = False

    def __post_init__(self) -> None:
        checks.count(d=self.d, num_examples=self.num_examples)
        checks.fraction(share=self.share)
        if self.share == 1:
            raise ValueError(f"share must be below 1, or nothing is guessed, got {self.share!r}")
        check_active(self.active, d=self.d)

    @property
    def num_active(self) -> int:
        """Number of active coordinates."""
        return self.d if self.active is None else self.active

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return 2 * self.num_examples

    @property
    def scale(self) -> float:
        """E[y^2] of a clean example: the number of active coordinates."""
        return float(self.num_active)

    @abstractmethod
    def outliers(
        self, rng: np.random.Generator, weights: Float[ndarray, "prompts d"]
    ) -> Float[ndarray, "prompts length d"]:
        """The tokens of prompts of these weights if all examples were outliers."""

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts of one split."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        clean = torch.from_numpy(rng.random((prompts, self.num_examples)) >= self.share)
        weights = rng.normal(size=(prompts, self.d))
        xs = rng.normal(size=(prompts, self.num_examples, self.d))
        weights[:, self.num_active :] = 0
        xs[..., self.num_active :] = 0
        ys = torch.from_numpy((xs @ weights[..., None]).squeeze(2))
        outliers = torch.from_numpy(self.outliers(rng, weights))
        tokens = interleaved(torch.from_numpy(xs), ys)
        return Prompts(
            tokens=torch.where(clean.repeat_interleave(2, dim=1)[..., None], tokens, outliers),
            at=torch.arange(0, self.length, 2),
            targets=ys[..., None],
            counted=clean[..., None],
            scored=torch.arange(self.num_examples),
            hidden={"weights": torch.from_numpy(weights), "clean": clean},
        )


@dataclass(frozen=True, kw_only=True)
class OrthogonalOutliers(OutlierRegression):
    r"""Outlier tokens, those of x and those of y alike, lie in a plane orthogonal to w.

    Paper: the prompt has one plane, uniform among those orthogonal to its w in the active
    coordinates, with orthonormal basis (u, v). Each outlier token is $r (a u + b v)$ with its own
    uniform direction (a, b) on the unit circle, and r the square root of the number of active
    coordinates, the root mean square norm of a clean x. So outliers do tell something: two tokens
    that w is orthogonal to.

    Released (published code): the outliers of a prompt have all the same x token and the same
    y token. Each is $a' u + b' v$ with $a' = a / (a^2 + b^2)$, $b' = b / (a'^2 + b^2)$, a, b ~
    N(0, 1), in a plane of its own that is orthogonal to weights unrelated to the prompt's w; u and
    v are Gaussian vectors less their projections on these weights and on each other, not rescaled.
    All `d` coordinates take part.
    """

    d: int = 20
    num_examples: int = 101
    share: float = 0.5
    variant: str = "paper"
    """One of "paper", "released"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of(("paper", "released"), variant=self.variant)
        name = "d" if self.active is None else "active"
        if self.num_active < 3:
            raise ValueError(
                f"{name} must be at least 3, for weights and a plane orthogonal to them, got "
                f"{self.num_active}"
            )

    def outliers(
        self, rng: np.random.Generator, weights: Float[ndarray, "prompts d"]
    ) -> Float[ndarray, "prompts length d"]:
        """The tokens of prompts of these weights if all examples were outliers."""
        prompts = len(weights)
        if self.variant == "released":
            a, b = rng.normal(size=(2, prompts, 2, 1))
            a = a / (a**2 + b**2)
            b = b / (a**2 + b**2)  # of the new a
            u, v = orthogonal_vectors(rng, rng.normal(size=(prompts, 2, self.d)))
            return np.tile(a * u + b * v, (1, self.num_examples, 1))
        n = self.num_active
        angle = rng.uniform(0, 2 * np.pi, size=(prompts, self.length, 1))
        u, v = (
            vector / np.linalg.norm(vector, axis=1, keepdims=True)
            for vector in orthogonal_vectors(rng, weights[:, :n])
        )
        tokens = np.zeros((prompts, self.length, self.d))
        tokens[..., :n] = np.sqrt(n) * (np.cos(angle) * u[:, None] + np.sin(angle) * v[:, None])
        return tokens


@dataclass(frozen=True, kw_only=True)
class ManyOutliers(OutlierRegression):
    """Every outlier is x = (1, ..., 1), y = 1, in all `d` coordinates however many are active
    (published code)."""

    d: int = 20
    num_examples: int = 512
    share: float = 0.9

    def outliers(
        self, rng: np.random.Generator, weights: Float[ndarray, "prompts d"]
    ) -> Float[ndarray, "prompts length d"]:
        """The tokens of prompts of these weights if all examples were outliers."""
        tokens = np.zeros((len(weights), self.length, self.d))
        tokens[:, 0::2] = 1
        tokens[:, 1::2, 0] = 1
        return tokens


def orthogonal_vectors(
    rng: np.random.Generator, weights: Float[ndarray, "*batch d"]
) -> tuple[Float[ndarray, "*batch d"], Float[ndarray, "*batch d"]]:
    """Two Gaussian vectors made orthogonal to the weights, and the second to the first as well."""
    # Gram-Schmidt: w, g, h = Q R, of which the columns of Q times the diagonal of R are orthogonal.
    gaussian = rng.normal(size=(*weights.shape, 2))
    basis, triangle = np.linalg.qr(np.concatenate([weights[..., None], gaussian], axis=-1))
    vectors = basis * np.diagonal(triangle, axis1=-2, axis2=-1)[..., None, :]
    return vectors[..., 1], vectors[..., 2]
