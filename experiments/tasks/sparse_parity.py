"""Sparse parity: the product of a few coordinates, which ones is for the examples to tell.

    x_1 = (+ - - +)  y_1 = -      x_2 = (- - + +)  y_2 = -      ...      of coordinates 1 and 3

Park et al. 2024 (arXiv:2402.04248).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bounds import checks
from experiments.tasks.associative_recall import draw_distinct
from experiments.tasks.in_context import Prompts, examples
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class SparseParity:
    r"""$y = \prod_{j \in S} x_j$, x uniform in {-1, 1}^d, S uniform among the sets of `sparsity`
    coordinates.

    Every prompt has a set of its own. `shared_support` (published code): all prompts of one call of
    `sample` have the same, so one step of a training is about one function.
    `hidden`: "support", whether a coordinate is in S (prompts x d).
    """

    d: int = 10
    sparsity: int = 2
    num_examples: int = 140
    shared_support: bool = False

    d_output = 1
    scale = 1.0
    signs = True

    def __post_init__(self) -> None:
        checks.count(d=self.d, sparsity=self.sparsity, num_examples=self.num_examples)
        checks.ordered(sparsity=self.sparsity, d=self.d)

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return 2 * self.num_examples

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts of one split."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        xs = 2.0 * rng.integers(2, size=(prompts, self.num_examples, self.d)) - 1
        chosen = draw_distinct(
            rng, 1 if self.shared_support else prompts, self.sparsity, among=self.d
        )
        support = np.zeros((prompts, self.d), dtype=bool)
        np.put_along_axis(support, np.broadcast_to(chosen, (prompts, self.sparsity)), True, axis=1)
        ys = np.where(support[:, None], xs, 1.0).prod(axis=2)
        hidden = {"support": torch.from_numpy(support)}
        return examples(torch.from_numpy(xs), torch.from_numpy(ys), hidden)
