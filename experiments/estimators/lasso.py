"""The lasso on every prefix of every prompt, solved to a duality gap, all prompts at once."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.estimators.inputs import check_examples

GAP = 1e-10
"""Largest duality gap of a solution, relative to the objective of the weights 0. The last step is
mostly one of Newton on the right coordinates, which leaves none but rounding."""
STEPS = 1000
"""Steps for a prefix, a few for each coordinate that enters or leaves; more are an error."""
DAMPING = 1e-10
"""Relative; where the active columns are dependent, steps are large enough to drop one."""


def lasso(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    *,
    penalty: float,
) -> Float[Tensor, "prompts examples"]:
    r"""Guess of $y_i$ by the minimiser of $|y - Xw|^2 / 2k + \alpha |w|_1$ over k = i - 1 examples.

    Without an intercept; $\alpha$ is the `penalty`, and the first guess is 0. One of the minimisers
    if there are several. RuntimeError if one is not found to the duality gap above, as rounding
    may have it if $\alpha$ is below 1e-6 of the largest $|X^T y| / k$. Baseline of Garg et al. 2022
    (arXiv:2208.01066).
    """
    check_examples(xs, ys)
    checks.positive(penalty=penalty)
    prompts, examples, d = xs.shape
    gram = torch.zeros(prompts, d, d, dtype=torch.float64)
    moment, power = torch.zeros_like(xs[:, 0]), torch.zeros_like(ys[:, 0])
    weights, guesses = torch.zeros_like(moment), torch.zeros_like(ys)
    for k in range(1, examples):
        x, y = xs[:, k - 1], ys[:, k - 1]
        gram += (x[:, :, None] * x[:, None, :] - gram) / k
        moment += (x * y[:, None] - moment) / k
        power += (y * y - power) / k
        weights = minimise(gram, moment, power, weights, penalty=penalty)
        guesses[:, k] = (weights * xs[:, k]).sum(dim=-1)
    return guesses


def minimise(
    gram: Float[Tensor, "problems d d"],
    moment: Float[Tensor, "problems d"],
    power: Float[Tensor, " problems"],
    start: Float[Tensor, "problems d"],
    *,
    penalty: float,
) -> Float[Tensor, "problems d"]:
    r"""Minimisers of $p/2 - m \cdot w + w^T G w / 2 + \alpha |w|_1$, from the weights `start`.

    $G = X^T X / k$, $m = X^T y / k$ and $p = |y|^2 / k$. Active set method (Osborne et al. 2000, "A
    new approach to variable selection in least squares problems"): Newton steps on the coordinates
    that are not 0, which end where the first of them gets there; the coordinate that violates its
    condition most is among them from the next step on.
    """
    solution, weights = start.clone(), start
    problems = torch.arange(len(start))
    for _ in range(STEPS):
        slope = moment - (gram @ weights[..., None]).squeeze(-1)
        unsolved = _gap(weights, slope, moment, power, penalty) > GAP * power / 2
        solution[problems[~unsolved]] = weights[~unsolved]
        if not unsolved.any():
            return solution
        problems, power, gram, moment, weights, slope = (
            values[unsolved] for values in (problems, power, gram, moment, weights, slope)
        )
        weights = _step(gram, weights, slope, penalty)
    raise RuntimeError(f"{len(problems)} lassos are not solved after {STEPS} steps")


def _gap(weights: Tensor, slope: Tensor, moment: Tensor, power: Tensor, penalty: float) -> Tensor:
    """The objective, less that of the dual at the residual times the largest feasible scale."""
    scale = (penalty / slope.abs().amax(dim=-1)).clamp(max=1)
    residual = power - (weights * (moment + slope)).sum(dim=-1)
    product = power - (weights * moment).sum(dim=-1)
    return residual * (1 + scale**2) / 2 + penalty * weights.abs().sum(dim=-1) - scale * product


def _step(gram: Tensor, weights: Tensor, slope: Tensor, penalty: float) -> Tensor:
    active = weights != 0
    violation = torch.where(
        active, slope - penalty * weights.sign(), slope - slope.clamp(-penalty, penalty)
    )
    entering = violation.abs().argmax(dim=-1, keepdim=True)
    active = active.scatter(-1, entering, True)  # none enters if the worst is active already
    pairs = active[:, :, None] & active[:, None, :]
    damping = torch.where(active, DAMPING * gram.diagonal(dim1=1, dim2=2), 1.0)
    hessian = torch.where(pairs, gram, 0.0) + torch.diag_embed(damping)
    step = torch.linalg.solve(hessian, torch.where(active, violation, 0.0))
    crosses = weights * (weights + step) < 0
    share = torch.where(crosses, weights / -step, 1.0)
    first = share.amin(dim=-1, keepdim=True)
    return torch.where(crosses & (share == first), 0.0, weights + first * step)
