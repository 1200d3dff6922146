"""Estimators by name that make sense for a task, and the one that models are held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.estimators.boosting import boosted_guesses
from experiments.estimators.lasso import lasso
from experiments.estimators.least_squares import averaging, least_squares, ridge
from experiments.estimators.neighbours import nearest_neighbours
from experiments.estimators.networks import network_guesses
from experiments.estimators.parity import parity_bayes, parity_elimination
from experiments.estimators.retrieval import linear_attention_readout, mean_value, nearest_key
from experiments.estimators.trees import tree_guesses
from experiments.tasks.chain_of_thought import ChainOfThought
from experiments.tasks.decision_tree import DecisionTree
from experiments.tasks.in_context import InContextTask, Prompts
from experiments.tasks.linear_regression import LinearRegression
from experiments.tasks.outlier_regression import OutlierRegression
from experiments.tasks.sparse_parity import SparseParity
from experiments.tasks.two_layer_regression import TwoLayerRegression
from experiments.tasks.vector_retrieval import VectorRetrieval

Estimator = Callable[[Prompts], Float[Tensor, "prompts guesses outputs"]]
PENALTY = 0.01
"""Of the lasso, the published one."""
_FEW = (1, 2, 4, 8, 16, 32, 64)
"""Numbers of examples at which estimators are fitted that take long, beside the largest."""


def estimators(task: InContextTask) -> Mapping[str, Estimator]:
    """Those that make sense for a task, first the best one that is fast; NaN: no guess."""
    plain = {
        "least-squares": _of_examples(least_squares),
        "nearest-neighbours": _of_examples(nearest_neighbours),
        "averaging": _of_examples(averaging),
    }
    match task:
        case LinearRegression(sparsity=None, noise=0.0):
            return plain
        case LinearRegression(sparsity=None):
            return {"ridge": _of_examples(partial(ridge, penalty=task.noise**2)), **plain}
        case LinearRegression():
            return {"lasso": _of_examples(partial(lasso, penalty=PENALTY)), **plain}
        case TwoLayerRegression():
            network = partial(network_guesses, hidden=task.hidden, seed=0)
            return {
                "nearest-neighbours": plain["nearest-neighbours"],
                "network": partial(_at_few, network),
                **plain,
            }
        case DecisionTree():
            on_signs = _of_examples(lambda xs, ys: tree_guesses(xs.sign(), ys, depth=task.depth))
            return {
                "tree-on-signs": on_signs,
                "tree": _of_examples(partial(tree_guesses, depth=task.depth)),
                "grown-tree": _of_examples(tree_guesses),
                "boosted-trees": partial(_at_few, boosted_guesses),
                **plain,
            }
        case OutlierRegression():
            return {"least-squares-on-clean": _on_clean, "least-squares": plain["least-squares"]}
        case SparseParity():
            bayes = partial(parity_bayes, sparsity=task.sparsity)
            return {
                "bayes": _of_examples(lambda xs, ys: bayes(xs, ys) - 0.5),
                "elimination": _of_examples(parity_elimination),
            }
        case VectorRetrieval():
            return {
                "nearest-key": partial(_of_pairs, nearest_key, task),
                "mean-value": partial(_of_pairs, mean_value, task),
                "linear-attention": partial(_of_pairs, linear_attention_readout, task),
            }
        case ChainOfThought():
            return {"least-squares-on-steps": partial(_on_steps, task)}
    raise ValueError(f"there are no estimators for {type(task).__name__}")


def estimate(name: str, prompts: Prompts, task: InContextTask) -> Tensor:
    """The guesses of one of the estimators of a task."""
    found = estimators(task)
    checks.one_of(tuple(found), name=name)
    return found[name](prompts)


def reference(prompts: Prompts, task: InContextTask) -> Tensor:
    """The guesses of the first of them."""
    return next(iter(estimators(task).values()))(prompts)


def _of_examples(guess: Callable[..., Tensor]) -> Estimator:
    return lambda prompts: guess(prompts.xs, prompts.ys)[..., None]


def _at_few(guess: Callable[..., Tensor], prompts: Prompts) -> Tensor:
    xs, ys = prompts.xs, prompts.ys
    last = xs.shape[1] - 1
    prefixes = [*(k for k in _FEW if k < last), last]
    guesses = torch.full_like(ys, torch.nan)
    guesses[:, prefixes] = guess(xs, ys, prefixes=prefixes)
    return guesses[..., None]


def _on_clean(prompts: Prompts) -> Tensor:
    return least_squares(prompts.xs, prompts.ys, known=prompts.hidden["clean"])[..., None]


def _of_pairs(guess: Callable[..., Tensor], task: VectorRetrieval, prompts: Prompts) -> Tensor:
    end = 2 * task.num_pairs
    return guess(prompts.tokens[:, 0:end:2], prompts.tokens[:, 1:end:2], prompts.tokens[:, end:])


def _on_steps(task: ChainOfThought, prompts: Prompts) -> Tensor:
    """Least squares from the steps shown to the answers; the steps themselves are not guessed."""
    steps, answers = prompts.tokens[:, 1::3, : task.hidden], prompts.tokens[:, 2::3, 0]
    guesses = torch.full_like(prompts.targets, torch.nan)
    guesses[:, 1::2, 0] = least_squares(steps, answers)
    return guesses
