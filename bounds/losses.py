"""Losses a generalization bound accepts: bounded and Lipschitz in the model's output."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bounds import checks


@dataclass(frozen=True)
class Loss:
    r"""A loss with values in $[0, c_\ell]$ (`range`), $\ell_\ell$-Lipschitz (`lipschitz`).

    The Lipschitz constant is with respect to the Euclidean norm of the outputs.
    """

    name: str
    range: float
    lipschitz: float

    def __post_init__(self) -> None:
        checks.positive(range=self.range, lipschitz=self.lipschitz)


def ramp(margin: float = 1.0) -> Loss:
    r"""Ramp of margin $\gamma$ on $y z$: in [0,1], $1/\gamma$-Lipschitz, $\ge$ 0-1 error."""
    checks.positive(margin=margin)
    return Loss("ramp", 1.0, 1 / margin)


def binary_cross_entropy(output_bound: float) -> Loss:
    r"""$\ln(1+e^{-yz})$ clipped at its value on $|z| \le$ `output_bound`; 1-Lipschitz."""
    checks.positive(output_bound=output_bound)
    return Loss("binary cross-entropy", math.log1p(math.exp(-output_bound)) + output_bound, 1.0)


def multiclass_margin(margin: float = 1.0) -> Loss:
    r"""Ramp of $z_y - \max_{k\ne y} z_k$: in [0,1], $\sqrt2/\gamma$-Lipschitz, $\ge$ 0-1 error."""
    checks.positive(margin=margin)
    return Loss("multiclass margin", 1.0, math.sqrt(2) / margin)


def cross_entropy(*, n_classes: int, output_bound: float) -> Loss:
    r"""Softmax cross-entropy on $\|z\|_2 \le$ `output_bound`.

    $\sqrt2$-Lipschitz in $\ell_2$; at most $\ln(1 + (K-1)e^{\sqrt2\,\text{bound}})$, since two
    logits differ by at most $\sqrt2\|z\|_2$.
    """
    checks.count(n_classes=n_classes)
    checks.positive(output_bound=output_bound)
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")
    spread = math.sqrt(2) * output_bound
    largest = spread + math.log(math.exp(-spread) + (n_classes - 1))
    return Loss("cross-entropy", largest, math.sqrt(2))
