"""Stochastic gradient descent of linear attention on fresh prompts, several runs at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from bounds import checks
from memory.dynamics import START, Course, Population, assess, checked_steps, course
from memory.factual_recall import FactualRecall, token_counts

_AT_ONCE = 4
"""Batches that are drawn together."""
_TEST = 1


def stochastic_descent(
    tasks: Sequence[FactualRecall],
    steps: Sequence[int] | ndarray,
    *,
    seeds: Sequence[int],
    step_size: float = 0.1,
    batch: int = 1024,
    start: float = START,
    draws: int = 8,
    dtype: torch.dtype = torch.float32,
) -> list[Course]:
    """A run for each task and seed, as seen after each of these numbers of steps.

    The model is that of `memory.dynamics`, with weights of their own for every noise token. What
    is seen are all facts, each in `draws` test prompts that stay the same during the run. All tasks
    have the same sizes, and are on one device, where everything happens.
    """
    checks.count(batch=batch, draws=draws)
    checks.positive(step_size=step_size, start=start)
    checks.nonnegative(**{f"seeds[{i}]": seed for i, seed in enumerate(seeds)})
    numbers = checked_steps(steps, whole=True)
    if len(tasks) != len(seeds) or not tasks:
        raise ValueError(f"there must be a seed for each task, got {len(seeds)} for {len(tasks)}")
    shapes = {(task.S, task.R, task.D, task.noise, task.length) for task in tasks}
    if len(shapes) > 1:
        raise ValueError(f"all tasks must have the same S, R, D, noise and length, got {shapes}")
    first, device = tasks[0], tasks[0].answers.device
    training, test = (
        [torch.Generator(device).manual_seed(2 * seed + role) for seed in seeds]
        for role in (0, _TEST)
    )
    views = [_test_counts(*each, draws, dtype) for each in zip(tasks, test, strict=True)]
    populations = [Population(task) for task in tasks]
    w = torch.full((len(tasks), first.vocabulary), start, dtype=dtype, device=device)
    V = torch.full((len(tasks), first.vocabulary, first.A), start, dtype=dtype, device=device)
    entries: list[list[dict[str, ndarray]]] = [[] for _ in tasks]
    background: list[list[float]] = [[] for _ in tasks]
    done, counts, truth = 0, [], []
    for number in numbers:
        while done < number:
            if done % _AT_ONCE == 0:
                drawn = [
                    _batches(task, batch, generator, dtype)
                    for task, generator in zip(tasks, training, strict=True)
                ]
                counts, truth = (torch.stack(each, 1) for each in zip(*drawn, strict=True))
            n = counts[done % _AT_ONCE]
            residual = torch.softmax(n @ (w[..., None] * V), -1)
            true = truth[done % _AT_ONCE][..., None]
            residual.scatter_add_(-1, true, residual.new_full((), -1.0).expand(true.shape))
            g = n.mT @ residual * (-1 / batch)
            w, V = w + step_size * (V * g).sum(-1), V + step_size * w[..., None] * g
            done += 1
        if not torch.isfinite(V).all():
            raise ValueError(f"weights overflowed by step {done}: choose a smaller step_size")
        for i, population in enumerate(populations):
            logits = (views[i] @ (w[i, :, None] * V[i])).double().cpu().numpy()
            shape = (draws, population.S, population.R, population.A)
            entries[i].append(assess(population, logits.reshape(shape)))
            background[i].append(float(w[i, first.S + first.R :].abs().max()) / start)
    pairs = zip(entries, background, strict=True)
    return [course(numbers, seen, np.array(largest)) for seen, largest in pairs]


def _batches(
    task: FactualRecall, batch: int, generator: torch.Generator, dtype: torch.dtype
) -> tuple[Float[Tensor, "batches prompts vocabulary"], Tensor]:
    """How often each token occurs in prompts of several batches, and their answers."""
    prompts = task.sample(_AT_ONCE * batch, generator)
    counts = token_counts(prompts.tokens, task.vocabulary, dtype)
    return counts.reshape(_AT_ONCE, batch, -1), prompts.answer.reshape(_AT_ONCE, batch)


def _test_counts(
    task: FactualRecall, generator: torch.Generator, draws: int, dtype: torch.dtype
) -> Float[Tensor, "prompts vocabulary"]:
    drawn = [task.every_fact(generator).tokens for _ in range(draws)]
    return token_counts(torch.cat(drawn), task.vocabulary, dtype)
