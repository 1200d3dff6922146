"""Edge graphs of random models, and a plain engine that patches edges in whole runs."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn.functional import linear

from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_runs import EdgeRuns
from experiments.interventions.pair_runs import pair_runs
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import made_pairs, preferred

MODELS = {
    "mamba": ("mamba", "mamba"),
    "mamba2": ("mamba2", "mamba2"),
    "attention": ("attention", "mlp", "attention"),
    "hybrid": ("mamba", "attention", "mlp"),
    "others": ("base-conv", "mamba2", "delta-net"),
}
OPTIONS = {
    "attention": {"heads": 2, "bias": True},
    "mamba": {"d_state": 4},
    "mamba2": {"d_state": 4},
}
RESOLUTIONS = ("layer", "branch", "tap")


def made_model(*layers, seed=0, options=OPTIONS):
    used = {name: some for name, some in options.items() if name in layers}
    return network(*layers, seed=seed, mixers=used)


@cache
def made_edges(*layers, resolution="layer", seed=0, count=4, rows=512, model=None):
    """The pairs, of 4 times as many, whose answers the model tells apart best.

    Where it hardly does, normalised logit differences divide by next to nothing.
    """
    model = made_model(*layers, seed=seed) if model is None else model
    pairs = preferred(model, made_pairs(count=4 * count, seed=seed))
    runs = pair_runs(model, pairs)
    span = runs.clean.logit_difference - runs.corrupted.logit_difference
    best = span.argsort(descending=True)[:count]
    return EdgeRuns(EdgeGraph(model, resolution=resolution), pairs[best], rows=rows)


def all_edges(graph, positions=1):
    return graph.edges[:, :, None].expand(-1, -1, positions)


def some_edges(graph, positions, seed, share=0.5):
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.rand(*graph.edges.shape, positions, generator=rng) < share
    return drawn & graph.edges[:, :, None]


def single(graph, positions=1):
    """Each edge as a set of its own."""
    cells = all_edges(graph, positions).nonzero()
    sets = torch.zeros(len(cells), *graph.edges.shape, positions, dtype=torch.bool)
    sets[torch.arange(len(cells)), *cells.T] = True
    return sets


@torch.no_grad()
def by_hand(runs, gates, live=True):
    """Logits of whole runs in which edits at the sites of the model hand each reader

        r + sum_i gate_i (corrupted_i - live_i),

    for Mamba at every resolution and other mixers at that of layers. Not `live`, the cached outputs
    of the clean run stand for those of this one.
    """  # fmt: skip
    graph, pairs, edits, written = runs.graph, runs.pairs, {}, {}
    gates = gates.to(torch.float64)

    def write(source):
        def see(activation):
            written[source] = activation if live else runs.clean.written[source]

        return see

    def read(column, stream):
        for i in range(len(runs.graph.sources)):
            if graph.edges[i, column]:
                told = runs.corrupted.written[i] - written[i]
                stream = stream + gates[i, column, :, None] * told
        return stream

    def into(block, streams, column, branch):
        mixer = block.mixer
        conv, gate = mixer.in_proj.weight.chunk(2)

        def edit(activation):
            u = block.norm(read(column, streams[block]))
            if branch == "gate":
                return linear(u, gate)
            if branch == "conv":
                return linear(u, conv)
            k = int(branch.removeprefix("tap."))
            a, tap = linear(u, conv), torch.zeros_like(activation)
            for t in range(k, a.shape[1]):
                tap[:, t] = mixer.conv1d.weight[:, 0, -1 - k] * a[:, t - k]
            return tap

        return edit

    def keep(streams, block):
        def see(activation):
            streams[block] = activation

        return see

    streams = {}
    edits["embedded"] = write(0)
    for number, block in enumerate(runs.graph.model.blocks):
        edits[f"blocks.{number}.out"] = write(number + 1)
        for column in range(graph.columns(number).start, graph.columns(number).stop):
            branch = graph.destinations[column].partition(".")[2]
            if not branch:
                edits[f"blocks.{number}.layer_input"] = lambda r, column=column: read(column, r)
                continue
            site = {"gate": "skip", "conv": "conv_input"}.get(branch, f"conv1d.{branch}")
            edits[f"blocks.{number}.layer_input"] = keep(streams, block)
            edits[f"blocks.{number}.mixer.{site}"] = into(block, streams, column, branch)
    edits["resid_final"] = lambda r: read(len(graph.destinations) - 1, r)
    with runs.graph.model.patch(edits):
        logits = runs.graph.model(pairs.clean)
    return logits[torch.arange(len(pairs)), pairs.out]
