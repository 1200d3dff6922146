"""What is measured in a checkpoint of Mamba on disk, by edges."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray
from scipy.stats import rankdata
from torch import Tensor

from experiments.interventions.acdc import Refined, acdc, layer_and_branch_groups
from experiments.interventions.agreement import pearson, stratified_sample
from experiments.interventions.circuit_search import Found, Ranking, ranked, smallest
from experiments.interventions.circuits import evaluate, jaccard
from experiments.interventions.edge_attribution import (
    Attribution,
    attribute,
    midpoints,
    published_points,
)
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns, Edges
from experiments.interventions.logit_difference import candidate_accuracy
from experiments.interventions.pair_maps import taps
from experiments.ioi_checkpoint import published
from experiments.ioi_checkpoint.maps import ROWS, SEED, Metrics, Subject, as_array, by_pair
from experiments.models.backbone import SequenceModel
from experiments.tasks.prompt_pairs import PromptPairs

POINTS = 5
PAIRS = 200
PATCHED, STRONGEST, GROUPS = 50, 10, 5
"""Edges of all strengths that are patched exactly, those of the largest scores that are so, too,
and groups of pairs whose mean scores are compared with mean effects."""
TARGET = 0.85
"""Accuracy above which a circuit is enough; for models that hardly exceed it, 90 % of theirs."""


def attribution(subject: Subject) -> Metrics:
    """Scores of all edges, and the circuit of the first, for 200 pairs and their exchange."""
    runs = _runs(subject.model, subject.pairs(PAIRS).doubled())
    scored, ranking, found = _circuit(runs)
    half = evaluate(runs, ranking.top(len(ranking) // 2)[None])
    integrated = attribute(runs, "gates", positional=False, points=midpoints(POINTS))
    metrics = {
        "circuit_share": np.array([int(found.circuit.sum()) / len(ranking)]),
        "half_nld": by_pair(half.nld[0]),
        "half_accuracy": by_pair(half.correct[0].double()),
        "completeness_gap": _gaps(runs, integrated),
        "published_completeness_gap": _gaps(runs, scored),
        "mean_scores": as_array(scored.mean[..., 0]),
        "circuit": found.circuit[..., 0].numpy(),
    }
    if not subject.published_depth:
        return metrics
    graph, kept = runs.graph, found.circuit
    named = [
        (graph.sources.index(source), graph.destinations.index(reader))
        for source, reader in published.PRINTED_SCORES
    ]
    centre = published.CENTRE
    overlaps = (
        _overlap(kept[: centre + 1, centre], {0: range(centre + 1)}),
        _overlap(kept[1:, -1], {0: published.TO_OUTPUT}),
        _overlap(kept[0, :-1], {0: range(centre + 1)}),
        _overlap(kept[1, :-1], {0: range(1, centre + 1)}),
    )
    scores = np.stack([by_pair(scored.scores[i, j, 0]) for i, j in named])
    by_sum = np.array([*published.PRINTED_SCORES.values()]) / published.SCALE
    return metrics | {
        "scores": scores,
        "score_ratios": scores / by_sum[:, None],
        "circuit_overlap": np.array(overlaps)[:, None],
    }


def patching(subject: Subject) -> Metrics:
    """Strong and weak edges patched one at a time, beside their scores; 200 pairs, exchanged too.

    The correlations are those of means over a group of pairs, which are repeats of each other.
    """
    runs = _runs(subject.model, subject.pairs(PAIRS).doubled())
    scored = {
        method: attribute(runs, method, positional=False, points=midpoints(POINTS))
        for method in ("eap", "gates")
    }
    count = min(PATCHED, len(runs.graph))
    scores = scored["gates"].mean
    strongest = ranked(runs.graph, scores, by="absolute").top(min(STRONGEST, count))
    sample = strongest | stratified_sample(runs, scores, count=count, seed=SEED)
    effects = by_pair(exact(runs, positional=False, only=sample)[sample])
    metrics = {"effects": effects}
    groups = np.array_split(np.arange(effects.shape[1]), min(GROUPS, effects.shape[1]))
    for method, found in scored.items():
        scores = by_pair(found.scores[sample])
        x, y = (np.stack([a[:, group].mean(axis=1) for group in groups]) for a in (scores, effects))
        metrics |= {
            f"{method}_scores": scores,
            f"{method}_pearson": pearson(x, y),
            f"{method}_spearman": pearson(rankdata(x, axis=1), rankdata(y, axis=1)),
        }
    return metrics


def refinement(subject: Subject) -> Metrics:
    """The circuit by edges between blocks, then by taps and gates too; 200 pairs, 200 others."""
    model, pairs = subject.model, subject.pairs(PAIRS).doubled()
    start = _circuit(_runs(model, pairs))[2].circuit
    runs = _runs(model, pairs, resolution="tap")
    graph = runs.graph
    groups = layer_and_branch_groups(graph)
    found = acdc(runs, start[:, graph.destination_block], groups=groups)
    del runs  # the activations of all blocks
    held_out = evaluate(
        _runs(model, subject.pairs(PAIRS, seed=SEED + 1).doubled(), resolution="tap"),
        found.circuit[None],
    )
    kept = found.circuit[..., 0]
    branches = kept.any(dim=0)
    centre, width = graph.columns(subject.centre).start, taps(model, subject.centre)
    far = [name.endswith(f".tap.{width - 1}") for name in graph.destinations]
    metrics = {
        "kept_share": np.array([np.mean([bool(found.circuit[x.unbind(1)].any()) for x in groups])]),
        "refined_nld": by_pair(held_out.nld[0]),
        "refined_accuracy": by_pair(held_out.correct[0].double()),
        "centre_taps_kept": as_array(branches[centre : centre + width])[:, None],
        "far_taps_kept": np.array([float(branches[torch.tensor(far)].sum())]),
        "refined": kept.numpy(),
        "all_drops": np.array(found.drops),
    }
    if not subject.published_depth:
        return metrics
    return metrics | _refined_by_blocks(graph, found, width)


def positional(subject: Subject) -> Metrics:
    """The circuit of edges at single tokens, for 200 aligned pairs and their exchange."""
    runs = _runs(subject.model, subject.aligned(PAIRS).doubled())
    scored, ranking, found = _circuit(runs, positional=True)
    metrics = {
        "positional_share": np.array([int(found.circuit.sum()) / len(ranking)]),
        "positional_nld": np.array([found.nld]),
        "positional_scores": as_array(scored.mean),
        "positional_circuit": found.circuit.numpy(),
    }
    if not subject.published_depth:
        return metrics
    kept, centre = found.circuit, published.CENTRE
    overlaps = (
        _overlap(kept[1 : centre + 1, centre], published.POSITIONAL_INTO),
        _overlap(kept[centre + 1], published.POSITIONAL_FROM),
        _overlap(kept[0, :-1], published.POSITIONAL_EMBED),
        _overlap(kept[1, :-1], published.POSITIONAL_FIRST),
    )
    return metrics | {
        "positional_overlap": np.array(overlaps)[:, None],
        "rest_leads": rest_leads(kept[1:, :-1])[:, None],
    }


def rest_leads(kept: Bool[Tensor, "blocks blocks positions"]) -> Float[ndarray, " groups"]:
    """Of edges between blocks, without blocks 0 and 39: how much larger a share of each published
    group is in the circuit than of those in no group, at the same positions."""
    edges = torch.ones_like(kept).permute(2, 0, 1).triu(1).permute(1, 2, 0)
    edges[[0, published.CENTRE]] = edges[:, [0, published.CENTRE]] = False
    groups = torch.zeros(len(published.REST), *kept.shape, dtype=torch.bool)
    for group, (writers, readers, positions) in zip(groups, published.REST.values(), strict=True):
        group[np.ix_(sorted(writers), sorted(readers), positions)] = True
    groups &= edges
    others = edges & ~groups.any(dim=0)
    leads = []
    for group, (_, _, positions) in zip(groups, published.REST.values(), strict=True):
        beside = others[:, :, positions]
        share = float(kept[:, :, positions][beside].double().mean())
        leads.append(float(kept[group].double().mean()) - share)
    return np.array(leads)


def edges_between(graph: EdgeGraph, source: str, destination: str) -> Edges:
    """The edges of a source, or "*" all, into a reader, or all readers in a block."""
    sources = torch.tensor([source in ("*", name) for name in graph.sources])
    readers = torch.tensor([
        name == destination or name.startswith(f"{destination}.") for name in graph.destinations
    ])  # fmt: skip
    return (sources[:, None] & readers & graph.edges)[..., None]


def named_drops(graph: EdgeGraph, found: Refined) -> Float[ndarray, " names"]:
    """What ACDC lost without each of the published groups of edges; 0 for those it has not kept."""
    drops = {
        frozenset(map(tuple, group.tolist())): drop
        for group, drop in zip(found.kept, found.drops, strict=True)
    }
    named = [edges_between(graph, *names).nonzero().tolist() for names in published.DROPS]
    return np.array([drops.get(frozenset(map(tuple, group)), 0.0) for group in named])


def _refined_by_blocks(graph: EdgeGraph, found: Refined, width: int) -> Metrics:
    """What is left around block 39, which taps are, and what the named edges had cost."""
    blocks = torch.stack(
        [
            found.circuit[:, graph.columns(block)].any(dim=1)
            for block in range(published.LAYERS + 1)
        ],
        dim=1,
    )
    overlaps = (
        _overlap(blocks[1 : published.CENTRE + 1, published.CENTRE], {0: published.REFINED_INTO}),
        _overlap(blocks[published.CENTRE + 1], {0: published.REFINED_FROM}),
    )
    branches = found.circuit[..., 0].any(dim=0)
    kept_taps = torch.stack([
        branches[graph.columns(block).start :][:width] for block in range(published.LAYERS)
    ])  # fmt: skip
    tap_overlaps = [
        _overlap(kept_taps[:, [tap]], {0: listed})
        for tap, listed in enumerate(published.BLOCKS_KEPT.values(), start=1)
    ]
    drops = named_drops(graph, found)
    order = pearson(*(rankdata(x)[None] for x in (drops, [*published.DROPS.values()])))
    return {
        "refined_overlap": np.array(overlaps)[:, None],
        "tap_overlap": np.array(tap_overlaps)[:, None],
        "early_taps_kept": np.array([float(kept_taps[1:8].sum())]),
        "drops": drops[:, None],
        "order_of_drops": order,
    }


def _runs(model: SequenceModel, pairs: PromptPairs, resolution: str = "layer") -> EdgeRuns:
    return EdgeRuns(EdgeGraph(model, resolution=resolution), pairs, rows=ROWS)


def _circuit(runs: EdgeRuns, *, positional: bool = False) -> tuple[Attribution, Ranking, Found]:
    """As published: with integrated gradients at five points, both ends among them."""
    scored = attribute(runs, "gates", positional=positional, points=published_points(POINTS))
    ranking = ranked(runs.graph, scored.mean)
    clean = float(candidate_accuracy(runs.clean.logits, runs.pairs).double().mean())
    return scored, ranking, smallest(runs, ranking, target=min(TARGET, 0.9 * clean))


def _gaps(runs: EdgeRuns, found: Attribution) -> Float[ndarray, " pairs"]:
    """How far the scores of a pair add up to something else than the effect of all edges."""
    corrupted, clean = runs.nld(torch.stack([runs.corrupted.logits, runs.clean.logits])).double()
    return by_pair(found.scores.sum(dim=(0, 1, 2)) - (corrupted - clean).cpu())


def _overlap(kept: Bool[Tensor, "nodes positions"], nodes: Mapping[int, Collection[int]]) -> float:
    """Jaccard index of the nodes kept and those listed by position."""
    listed = torch.zeros_like(kept)
    for position, some in nodes.items():
        listed[list(some), position] = True
    return jaccard(kept[None], listed[None])
