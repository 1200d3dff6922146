"""Speed of a grid of attributions, against patching one cell at a time: `measure_interventions`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from experiments.bench import Measurement, median_times
from experiments.interventions.attribution import POSITIONS, attribution_grid
from experiments.interventions.corruptions import Pair, corrupt
from experiments.interventions.layers import COMPONENTS, layers
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.tasks.associative_recall import AssociativeRecall

MODELS = {"attention and MLP": ("attention", "mlp") * 2, "mamba": ("mamba",) * 2}
WIDTH, DOCUMENTS, BATCH = 64, 320, 64
TASK = AssociativeRecall(num_pairs=16, num_keys=64, num_values=64)


def measure_interventions(repeats: int) -> list[Measurement]:
    """All layers, components and positions of untrained models; ratios of ways that took turns.

    One at a time is a source, a base and a patched run for each cell, in batches of 64 documents,
    as in the code of Arora et al. (2025); cached, the first two are run once for all cells.
    """
    measured = []
    for name, blocks in MODELS.items():
        model, pair = network(blocks), corrupted_documents()
        ways: dict[str, Callable[[], object]] = {
            "grid": lambda model=model, pair=pair: grid(model, pair),
            "one": lambda model=model, pair=pair: one_at_a_time(model, pair),
            "cached": lambda model=model, pair=pair: one_at_a_time_cached(model, pair),
        }
        seconds = median_times(ways, repeats, time.perf_counter)
        cells = len(list(_cells(model)))
        measured += [
            Measurement(f"{name}, attributions", cells / seconds["grid"], "cells/s"),
            Measurement(
                f"{name}, time of a grid, of one at a time",
                100 * seconds["grid"] / seconds["one"],
                "%",
            ),
            Measurement(
                f"{name}, time of a grid, of one at a time with cached runs",
                100 * seconds["grid"] / seconds["cached"],
                "%",
            ),
        ]
    return measured


def network(blocks: tuple[str, ...]) -> SequenceModel:
    """A model of the sizes above."""
    config = ModelConfig(layers=blocks, d_model=WIDTH, vocab_size=TASK.vocab_size, max_length=64)
    return SequenceModel(config, seed=0)


def corrupted_documents() -> Pair:
    """Documents and their copies with another key."""
    return corrupt(TASK.sample(DOCUMENTS, seed=0), "key", TASK, seed=0)


def grid(model: SequenceModel, pair: Pair) -> list[float]:
    """Mean probability of the answer in each cell, and all else that a grid has."""
    return attribution_grid(model, pair, COMPONENTS, POSITIONS).patched.tolist()


@torch.no_grad()
def one_at_a_time(model: SequenceModel, pair: Pair) -> list[float]:
    """The same means, from three forward passes for each cell."""
    means = []
    for site, position in _cells(model):
        answered = []
        for clean, corrupted, at, query, answer in _batches(pair, position):
            with model.record(site) as source:
                model(clean)
            model(corrupted)
            logits = _patched(model, corrupted, site, at, source[site])
            answered.append(_probability(logits[torch.arange(len(query)), query], answer))
        means.append(torch.cat(answered).mean().item())
    return means


@torch.no_grad()
def one_at_a_time_cached(model: SequenceModel, pair: Pair) -> list[float]:
    """The same means, from one forward pass for each cell, with logits at the query alone."""
    sites = dict.fromkeys(site for site, _ in _cells(model))
    with model.record(*sites) as source:
        model(pair.clean.tokens)
    model(pair.corrupted.tokens)
    means = []
    for site, position in _cells(model):
        answered, sources = [], iter(source[site].split(BATCH))
        for _, corrupted, at, query, answer in _batches(pair, position):
            logits = _patched(model, corrupted, site, at, next(sources), query[:, None])
            answered.append(_probability(logits[:, 0], answer))
        means.append(torch.cat(answered).mean().item())
    return means


def _cells(model: SequenceModel) -> Iterator[tuple[str, str]]:
    for layer in layers(model.config.layers):
        for component in COMPONENTS:
            site = layer.site(component)
            if site is not None:
                yield from ((site, position) for position in POSITIONS)


def _batches(pair: Pair, position: str) -> Iterator[tuple[Tensor, ...]]:
    clean = pair.clean
    columns = (clean.tokens, pair.corrupted.tokens, clean.positions[position],
               clean.positions["query"], clean.answer)  # fmt: skip
    return zip(*(column.split(BATCH) for column in columns), strict=True)


def _patched(
    model: SequenceModel,
    tokens: Tensor,
    site: str,
    at: Tensor,
    source: Tensor,
    query: Tensor | None = None,
) -> Tensor:
    rows = torch.arange(len(tokens))

    def edit(activation: Tensor) -> Tensor:
        activation = activation.clone()
        activation[rows, at] = source[rows, at]
        return activation

    with model.patch({site: edit}):
        return model(tokens, query)


def _probability(logits: Tensor, answer: Tensor) -> Tensor:
    return logits.softmax(-1).gather(1, answer[:, None])
