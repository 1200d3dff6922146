"""Regression of a random two-layer network in context, drawn anew for every prompt.

tokens   x_1 (y_1, 0, ..., 0) ... x_N (y_N, 0, ..., 0)      y_i = sqrt(2/h) W2 . relu(x_i W1)
read at   ^                        ^

Garg et al. 2022 (arXiv:2208.01066).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bounds import checks
from experiments.tasks.in_context import Prompts, check_active, examples
from experiments.tasks.linear_regression import gaussian_inputs, normal
from experiments.tasks.recall import generator


@dataclass(frozen=True, kw_only=True)
class TwoLayerRegression:
    r"""$y = \sqrt{2/h}\, W_2^\top \mathrm{relu}(W_1^\top x)$, all entries standard normal.

    $W_1$ is d x h and $W_2$ has h entries, h the size `hidden` of the network; there are no biases.
    Only the first `active` coordinates of x are not zero.
    """

    d: int = 20
    hidden: int = 100
    num_examples: int = 101
    """Pairs of x and y, each y of which is guessed."""
    active: int | None = None
    """None: all d."""

    d_output = 1
    signs = False

    def __post_init__(self) -> None:
        checks.count(d=self.d, hidden=self.hidden, num_examples=self.num_examples)
        check_active(self.active, d=self.d)

    @property
    def length(self) -> int:
        return 2 * self.num_examples

    @property
    def scale(self) -> float:
        r"""$E y^2$: the active coordinates.

        Unit j adds $\frac{2}{h} E\, \mathrm{relu}(W_{1j} \cdot x)^2$, of which relu leaves half:
        $\frac{1}{h} E \|x\|^2$.
        """
        return float(self.active or self.d)

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts with the weights `W1` and `W2` they were drawn from."""
        rng = generator(self, documents=prompts, seed=seed, split=split)
        xs = gaussian_inputs(rng, prompts, self.num_examples, d=self.d, active=self.active)
        first, second = normal(rng, prompts, self.d, self.hidden), normal(rng, prompts, self.hidden)
        ys = ((xs @ first).relu() @ second[..., None]).squeeze(-1)
        return examples(xs, math.sqrt(2 / self.hidden) * ys, {"W1": first, "W2": second})
