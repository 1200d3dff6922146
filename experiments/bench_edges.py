"""Speed of patching every edge exactly, against one run for each: `measure_edges`."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import linear, pad

from experiments.bench import Measurement, median_times
from experiments.interventions.edge_attribution import POINTS, attribute, midpoints
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from experiments.models.backbone import Block, ModelConfig, SequenceModel
from experiments.models.sites import Edit
from experiments.tasks.ioi import IOI

WIDTH, LAYERS, PAIRS = 64, 2, 60
TASK = IOI()


def measure_edges(repeats: int) -> list[Measurement]:
    """All edges of an untrained model, from branches of its blocks at single positions.

    One at a time is a run of all pairs for each edge and position, from the tokens on, with edits
    at the sites of the model; the clean and the corrupted run are there already for both ways.
    """
    runs = edge_runs()
    ways: dict[str, Callable[[], object]] = {
        "exact": partial(exact, runs),
        "one": partial(one_at_a_time, runs),
        "gates": partial(attribute, runs, "gates", points=midpoints(POINTS)),
    }
    seconds = median_times(ways, repeats, time.perf_counter)
    edges = len(runs.graph) * runs.pairs.length
    return [
        Measurement("exact effects", edges / seconds["exact"], "edges/s"),
        Measurement(
            "time of exact effects, of one run for each edge",
            100 * seconds["exact"] / seconds["one"],
            "%",
        ),
        Measurement(f"integrated gradients of gates, {POINTS} points", seconds["gates"], "s"),
    ]


def edge_runs() -> EdgeRuns:
    """Pairs, and a model of the sizes above."""
    config = ModelConfig(layers=("mamba",) * LAYERS, d_model=WIDTH, vocab_size=TASK.vocab_size)
    graph = EdgeGraph(SequenceModel(config, seed=0), resolution="tap")
    return EdgeRuns(graph, TASK.pairs(PAIRS, seed=0))


@torch.no_grad()
def one_at_a_time(runs: EdgeRuns) -> Float[Tensor, "sources destinations positions pairs"]:
    """The same effects, from one forward pass for each edge."""
    graph, pairs = runs.graph, runs.pairs
    effects = torch.zeros(*graph.edges.shape, pairs.length, len(pairs), dtype=torch.float64)
    clean = runs.nld(runs.clean.logits)
    for source, destination in graph.edges.nonzero().tolist():
        for position in range(pairs.length):
            told = torch.zeros_like(runs.clean.stream[0])
            told[:, position] = runs.differences[source, :, position]
            with graph.model.patch(_edits(graph, destination, told)):
                logits = graph.model(pairs.clean, pairs.out[:, None])[:, 0]
            effects[source, destination, position] = runs.nld(logits) - clean
    return effects


def _edits(graph: EdgeGraph, destination: int, told: Tensor) -> dict[str, Edit]:
    number, _, branch = graph.destinations[destination].partition(".")
    if not branch:
        return {"resid_final": lambda stream: stream + told}
    block, kept = graph.model.blocks[int(number)], []
    site = {"gate": "skip"}.get(branch, f"conv1d.{branch}")
    return {
        f"blocks.{number}.layer_input": kept.append,
        f"blocks.{number}.mixer.{site}": lambda _: _read(block, branch, kept[0] + told),
    }


def _read(block: Block, branch: str, stream: Tensor) -> Tensor:
    conv, gate = block.mixer.in_proj.weight.chunk(2)
    if branch == "gate":
        return linear(block.norm(stream), gate)
    k = int(branch.removeprefix("tap."))
    shifted = pad(linear(block.norm(stream), conv), (0, 0, k, 0))[:, : stream.shape[1]]
    return block.mixer.conv1d.weight[:, 0, -1 - k] * shifted
