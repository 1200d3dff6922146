"""Edge runs of random models that are right about every pair, and slow searches for paths."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st

from experiments.interventions.circuits import complete
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_runs import EdgeRuns
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import made_pairs

MAMBA = ("mamba", "mamba", "mamba")
HYBRID = ("mamba", "attention", "mlp", "mamba")
MODELS = st.sampled_from([MAMBA, HYBRID])
SEEDS = st.integers(0, 50)


def heads(*layers, **options):
    """Random weights, and two heads wherever there is attention."""
    mixers = {"attention": {"heads": 2}} if "attention" in layers else {}
    return network(*layers, mixers=mixers, **options)


def made_runs(*layers, resolution="layer", seed=0, count=12, rows=512, zeroed=()):
    """The model prefers the answers to both prompts of each pair; these blocks write nothing."""
    model = heads(*layers, seed=seed)
    with torch.no_grad():
        for number, block in enumerate(model.blocks):
            block.mixer.out_proj.weight.mul_(0 if number in zeroed else 5)
    graph, pairs = EdgeGraph(model, resolution=resolution), made_pairs(count=4 * count, seed=seed)
    clean, corrupted = (
        graph.run(tokens, pairs.out).logits for tokens in (pairs.clean, pairs.corrupted)
    )
    # Of all tokens, the two that change places most clearly.
    margin = torch.minimum(
        clean[:, :, None] - clean[:, None, :], corrupted[:, None, :] - corrupted[:, :, None]
    )
    margin, best = margin.flatten(1).max(dim=1)
    clear = margin.argsort(descending=True)[:count]
    answer, other = best[clear] // pairs.vocab_size, best[clear] % pairs.vocab_size
    pairs = replace(
        pairs[clear],
        answer=answer,
        corrupted_answer=other,
        candidates=torch.stack([answer, other], dim=1),
    )
    return EdgeRuns(graph, pairs, rows=rows)


def made_circuit(graph, positions, share, seed=0):
    """Each edge with this probability."""
    edges = complete(graph, positions=positions)
    return edges & (torch.rand(edges.shape, generator=torch.Generator().manual_seed(seed)) < share)


def onward(graph, circuit, carries=lambda t, later: t <= later):
    """Pairs of edges of which the second continues the first: its reader writes what that reads."""
    edges = [tuple(edge) for edge in circuit.nonzero().tolist()]
    return edges, [
        (a, b) for a in edges for b in edges if graph.feeds[a[1], b[0]] and carries(a[2], b[2])
    ]


def to_output(graph, circuit, **rules):
    """The edges from which a path leads to the output."""
    edges, steps = onward(graph, circuit, **rules)
    found = {edge for edge in edges if graph.destinations[edge[1]] == "output"}
    while more := {a for a, b in steps if b in found} - found:
        found |= more
    return found


def from_embed(graph, circuit, **rules):
    """The edges to which a path leads from the embedding."""
    edges, steps = onward(graph, circuit, **rules)
    found = {edge for edge in edges if graph.sources[edge[0]] == "embed"}
    while more := {b for a, b in steps if a in found} - found:
        found |= more
    return found


def on_paths(graph, circuit, **rules):
    """The edges on a path from the embedding to the output, as a circuit."""
    found = to_output(graph, circuit, **rules) & from_embed(graph, circuit, **rules)
    mask = torch.zeros_like(circuit)
    for edge in found:
        mask[edge] = True
    return mask
