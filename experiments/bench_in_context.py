"""Speed of the estimators on all prompts and prefixes at once: `measure_in_context`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from experiments.bench import Measurement, median_times
from experiments.estimators.lasso import lasso
from experiments.estimators.least_squares import averaging, least_squares
from experiments.estimators.neighbours import nearest_neighbours

PROMPTS, EXAMPLES, D = 1280, 41, 20
LOOPED = 4
"""Prompts that are looped over; the time of the loop is scaled to all."""
NEIGHBOURS, PENALTY = 3, 0.01
GAP = 1e-4
"""Of the plain lasso, relative to the mean square of y: the default of scikit-learn, and far more
than the other lasso allows itself."""

Plain = Callable[[np.ndarray, np.ndarray, np.ndarray], float]
"""From the x and y of a prefix and the next x to the guess of the next y."""


def measure_in_context(repeats: int) -> list[Measurement]:
    """All guesses of all prompts of a task, against a fit for each prompt and prefix on its own.

    The latter is how the code of Garg et al. 2022 (arXiv:2208.01066) does it. Processor times.
    """
    measured = []
    for task, (nonzero, names) in TASKS.items():
        xs, ys = linear_examples(nonzero)
        scale = PROMPTS / len(xs[:LOOPED])
        total = {"batched": 0.0, "looped": 0.0}
        for name in names:
            batched, plain = ESTIMATORS[name]
            ways: dict[str, Callable[[], object]] = {
                "batched": partial(batched, xs, ys),
                "looped": partial(one_at_a_time, plain, xs[:LOOPED], ys[:LOOPED]),
            }
            seconds = median_times(ways, repeats)
            seconds["looped"] *= scale
            total = {way: total[way] + seconds[way] for way in total}
            measured.append(_ratio(f"{task}, {name}", seconds))
        measured.append(_ratio(f"{task}, all estimators", total))
        measured.append(Measurement(f"{task}, all estimators, batched", total["batched"], "s"))
    return measured


def linear_examples(nonzero: int) -> tuple[Tensor, Tensor]:
    """Examples of y = w x with so many weights that are not 0."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    xs, weights = draw(PROMPTS, EXAMPLES, D), draw(PROMPTS, D)
    weights[:, nonzero:] = 0
    return xs, (xs @ weights[..., None]).squeeze(-1)


def one_at_a_time(plain: Plain, xs: Tensor, ys: Tensor) -> Tensor:
    """The same guesses, from a fit for each prompt and prefix."""
    guesses = torch.zeros_like(ys)
    for prompt, (x, y) in enumerate(zip(xs.numpy(), ys.numpy(), strict=True)):
        for i in range(1, len(x)):
            guesses[prompt, i] = plain(x[:i], y[:i], x[i])
    return guesses


def plain_least_squares(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    """By singular values."""
    return float(np.linalg.lstsq(x, y, rcond=None)[0] @ query)


def plain_neighbours(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    """By sorting all distances."""
    return float(y[np.argsort(((x - query) ** 2).sum(axis=1))[:NEIGHBOURS]].mean())


def plain_averaging(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    """By the mean of y x."""
    return float((x.T @ y / len(y)) @ query)


def plain_lasso(x: np.ndarray, y: np.ndarray, query: np.ndarray) -> float:
    """By coordinate descent, one coordinate after the other."""
    weights, residual = np.zeros(x.shape[1]), y.copy()
    squares = (x**2).sum(axis=0)
    while _gap(x, y, weights, residual) > GAP * (y @ y) / len(y):
        for j in range(len(weights)):
            slope = x[:, j] @ residual + squares[j] * weights[j]
            new = np.sign(slope) * max(abs(slope) - len(y) * PENALTY, 0) / squares[j]
            residual += x[:, j] * (weights[j] - new)
            weights[j] = new
    return float(weights @ query)


ESTIMATORS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Plain]] = {
    "least squares": (least_squares, plain_least_squares),
    "nearest neighbours": (partial(nearest_neighbours, k=NEIGHBOURS), plain_neighbours),
    "averaging": (averaging, plain_averaging),
    "lasso": (partial(lasso, penalty=PENALTY), plain_lasso),
}
TASKS = {
    "linear": (20, ("least squares", "nearest neighbours", "averaging")),
    "sparse linear": (3, tuple(ESTIMATORS)),
}
"""The weights that are not 0, and the baselines of the task."""


def _gap(x: np.ndarray, y: np.ndarray, weights: np.ndarray, residual: np.ndarray) -> float:
    slope = np.abs(x.T @ residual).max()
    scale = min(1, len(y) * PENALTY / slope) if slope > 0 else 1
    squares = residual @ residual * (1 + scale**2) / 2 - scale * (residual @ y)
    return squares / len(y) + PENALTY * np.abs(weights).sum()


def _ratio(name: str, seconds: dict[str, float]) -> Measurement:
    return Measurement(name, seconds["looped"] / seconds["batched"], "times as fast")
