"""Speed of regression trees of all prompts and prefixes, against growing them one at a time."""

from __future__ import annotations

import time

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from experiments.bench import Measurement, median_times
from experiments.estimators.trees import tree_guesses
from experiments.tasks.decision_tree import DecisionTree

PROMPTS, EXAMPLES, D, DEPTH = 1280, 101, 20, 4
"""The evaluation of Park et al. 2024 (arXiv:2402.04248)."""
BATCHED, PLAIN = 64, 2
"""Prompts that are timed, all prefixes of each; times are scaled to all prompts."""


def measure_trees(repeats: int) -> list[Measurement]:
    """Trees of limited and of any depth; ratios of ways that took turns."""
    measured = []
    for name, depth in ((f"depth {DEPTH}", DEPTH), ("any depth", None)):
        xs, ys = tree_prompts(BATCHED)
        ways = {
            "batched": lambda xs=xs, ys=ys, depth=depth: tree_guesses(xs, ys, depth=depth),
            "plain": lambda xs=xs, ys=ys, depth=depth: one_at_a_time(xs[:PLAIN], ys[:PLAIN], depth),
        }
        seconds = median_times(ways, repeats, time.process_time)
        batched, plain = (seconds["batched"] / BATCHED, seconds["plain"] / PLAIN)
        measured += [
            Measurement(f"trees of {name}, all prompts and prefixes", PROMPTS * batched, "s"),
            Measurement(f"trees of {name}, one at a time", PROMPTS * plain, "s"),
            Measurement(f"trees of {name}, speed", plain / batched, "times"),
        ]
    return measured


def tree_prompts(
    prompts: int,
) -> tuple[Float[Tensor, "prompts examples d"], Float[Tensor, "prompts examples"]]:
    """Inputs, and outputs of full trees on signs of random coordinates."""
    drawn = DecisionTree(d=D, depth=DEPTH, num_examples=EXAMPLES).sample(prompts, seed=0)
    return drawn.xs, drawn.ys


def one_at_a_time(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    depth: int | None,
) -> Float[Tensor, "prompts examples"]:
    """The same guesses, from a whole tree for each prompt and prefix."""
    guesses = np.zeros(ys.shape)
    for i, (x, y) in enumerate(zip(xs.numpy(), ys.numpy(), strict=True)):
        for k in range(1, len(y)):
            guesses[i, k] = _guess(_grow(x[:k], y[:k], depth), x[k])
    return torch.from_numpy(guesses)


def _grow(x: ndarray, y: ndarray, depth: int | None) -> float | tuple:
    """A mean, or coordinate, threshold and the trees of both sides."""
    if depth == 0 or (y == y[0]).all():
        return y.mean()
    order = x.argsort(axis=0)
    ordered = np.take_along_axis(x, order, axis=0)
    left = np.arange(1, len(y))[:, None]
    sums = (y - y.mean())[order].cumsum(axis=0)[:-1]
    gains = np.where(
        ordered[1:] > ordered[:-1], sums**2 * len(y) / (left * (len(y) - left)), -np.inf
    )
    place, coordinate = np.unravel_index(gains.argmax(), gains.shape)
    if gains[place, coordinate] < 0:
        return y.mean()
    threshold = ordered[place : place + 2, coordinate].mean()
    below, rest = x[:, coordinate] <= threshold, None if depth is None else depth - 1
    return coordinate, threshold, _grow(x[below], y[below], rest), _grow(x[~below], y[~below], rest)


def _guess(tree: float | tuple, query: ndarray) -> float:
    while isinstance(tree, tuple):
        coordinate, threshold, below, above = tree
        tree = below if query[coordinate] <= threshold else above
    return tree
