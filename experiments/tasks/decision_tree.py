r"""Decision trees: every prompt has its own, of which it shows examples.

                 x_7 > 0                 tokens   x_1 (y_1, 0, ..., 0) x_2 (y_2, 0, ..., 0) ...
           no /         \ yes            y_i      the number at the leaf that x_i comes to
        x_2 > 0         x_7 > 0
        /     \         /     \
     -0.4     1.3    0.2     -2.1        0.2 is out of reach: coordinates can repeat on a path

Garg et al. 2022 (arXiv:2208.01066); Park et al. 2024 (arXiv:2402.04248).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from bounds import checks
from experiments.tasks.in_context import Prompts, check_active, examples
from experiments.tasks.linear_regression import gaussian_inputs
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class DecisionTree:
    """x ~ N(0, I), y = the leaf of x in a full binary tree with leaves ~ N(0, 1).

    A node asks whether one coordinate of x is positive, chosen uniformly among all `d`, also where
    fewer are `active` (published code): a coordinate that is zero is not positive, so with few of
    them most trees are shallow in effect and easier.
    `hidden`: "coordinates" of the nodes and "leaves", both level by level; the children of node n,
    counted from 0, are 2n + 1 (no) and 2n + 2 (yes).
    """

    d: int = 20
    depth: int = 4
    num_examples: int = 101
    active: int | None = None
    """The coordinates of x behind are zero; None: none are."""

    d_output = 1
    scale = 1.0
    signs = False

    def __post_init__(self) -> None:
        checks.count(d=self.d, depth=self.depth, num_examples=self.num_examples)
        check_active(self.active, d=self.d)

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        return 2 * self.num_examples

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts of one split, each with a tree of its own."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        first_leaf = 2**self.depth - 1
        coordinates = rng.integers(self.d, size=(prompts, first_leaf))
        leaves = rng.normal(size=(prompts, first_leaf + 1))
        inputs = gaussian_inputs(rng, prompts, self.num_examples, d=self.d, active=self.active)
        xs = inputs.numpy()
        node = np.zeros((prompts, self.num_examples), dtype=np.int64)
        for _ in range(self.depth):
            asked = np.take_along_axis(coordinates, node, axis=1)
            positive = np.take_along_axis(xs, asked[..., None], axis=2).squeeze(2) > 0
            node = 2 * node + 1 + positive
        ys = np.take_along_axis(leaves, node - first_leaf, axis=1)
        hidden = {"coordinates": torch.from_numpy(coordinates), "leaves": torch.from_numpy(leaves)}
        return examples(inputs, torch.from_numpy(ys), hidden)
