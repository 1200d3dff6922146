"""A circuit drawn as a graph over the tokens of a prompt, and how alike those of all seeds are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from pandas import DataFrame, Series

from experiments.interventions.circuits import jaccard
from experiments.interventions.edge_graph import EdgeGraph
from experiments.studies.toy_edges import PAIRS_SEED, drawn
from experiments.toys import TASKS, TOYS, build
from figures.circuits import trained_models
from figures.classifiers import SMALL
from figures.panels import NothingToDrawError
from figures.style import FULL_WIDTH

COLORS = {
    "tap.0": "#0072B2", "tap.1": "#56B4E9", "tap.2": "#009E73", "tap.3": "#882255",
    "conv": "#0072B2", "gate": "#D55E00", "step": "#E69F00", "input": "0.25",
    "q": "#D55E00", "k": "#0072B2", "v": "#009E73",
}  # fmt: skip
"""Of branches, those of attention by their letter."""
_THICKEST, _THINNEST = 4.0, 0.5
_HALF = 0.15
"""Of the height of a block, the distance of two blocks being 1."""


class Layout:
    """Where the tokens, blocks and ends of edges of a graph stand; x is the position."""

    def __init__(self, graph: EdgeGraph) -> None:
        self.graph = graph
        self.output = 0.8 + len(graph.branches)

    @cached_property
    def branches(self) -> list[str]:
        """Of every destination; the output has one "input"."""
        return [branch.name for block in self.graph.branches for branch in block] + ["input"]

    def color(self, destination: int) -> str:
        """By branch."""
        name = self.branches[destination]
        return COLORS[name if name in COLORS else name[0]]

    def ends(self, source: int, destination: int, position: int) -> tuple[list[float], list[float]]:
        """Of an edge at a position, its x and its y; tap k is read k positions on."""
        block = int(self.graph.destination_block[destination])
        names = self.branches[self.graph.columns(block)]
        name = self.branches[destination]
        beside = 0.12 * (names.index(name) - (len(names) - 1) / 2)
        tap = int(name.removeprefix("tap.")) if name.startswith("tap.") else 0
        written = 1 + int(self.graph.source_block[source])
        is_output = block == len(self.graph.branches)
        bottom = written + _HALF if written else 0.0
        top = self.output if is_output else 1 + block - _HALF
        return [position + beside, position + tap + beside], [bottom, top]


def circuit(circuits: DataFrame, attributions: DataFrame) -> Figure:
    """The circuit by integrated gates of one seed, and the similarity of those of all seeds."""
    positional = circuits[circuits["positional"].astype(bool)]
    if positional.empty:
        raise NothingToDrawError("no circuit of edges at single positions")
    title, seeds = next(trained_models(positional))
    row = seeds.iloc[0]
    scores = _scores(row, attributions)
    graph = EdgeGraph(build(row["toy"], TASKS[row["task"]], seed=0), resolution=row["resolution"])
    figure = plt.figure(figsize=(FULL_WIDTH, 2.7 + 0.8 * len(graph.branches)))
    graph_line, line = figure.add_gridspec(2, 1, height_ratios=[1 + len(graph.branches), 1.1])
    axis = figure.add_subplot(graph_line)
    layout = Layout(graph)
    _edges(axis, layout, row, scores)
    _rows(axis, layout, TOYS[row["toy"]].layers, _labels(row))
    axis.set_title(f"{title}, seed {row['seed']}: {row['circuit_gates'].sum()} of "
                   f"{row['edges']} edges", fontsize=7)  # fmt: skip
    below, beside = line.subgridspec(1, 2, width_ratios=[1, 2.4])
    _stability(figure.add_subplot(below), seeds)
    _legend(figure.add_subplot(beside), layout)
    return figure


def _scores(row: Series, attributions: DataFrame) -> np.ndarray:
    """The scores by integrated gates of the model whose circuit is drawn."""
    same = np.ones(len(attributions), dtype=bool)
    for name in ("toy", "task", "resolution", "positional", "pairs", "seed"):
        same &= attributions[name].to_numpy() == row[name]
    if not same.any():
        raise NothingToDrawError("no scores of the model that has the circuit")
    return attributions[same].iloc[0]["scores_gates"]


def _labels(row: Series) -> list[str]:
    """The words of one prompt, names and the like after their roles."""
    task = TASKS[row["task"]]
    pairs = drawn(row["task"], int(row["pairs"]), seed=PAIRS_SEED, positional=True)
    tokens = pairs.clean[0]
    words = task.words(tokens) if hasattr(task, "words") else list(map(str, tokens.tolist()))
    for role, at in pairs.roles.items():
        words[int(at[0])] = f"{role}: {words[int(at[0])]}"
    return words


def _edges(axis: Axes, layout: Layout, row: Series, scores: np.ndarray) -> None:
    kept, discovered = row["circuit_gates"], row["circuit_acdc"]
    largest = np.abs(scores[kept]).max()
    for edge in np.argwhere(kept):
        x, y = layout.ends(*map(int, edge))
        axis.plot(
            x, y, color=layout.color(int(edge[1])), solid_capstyle="round",
            linewidth=_width(abs(scores[tuple(edge)]) / largest),
            alpha=1.0 if discovered[tuple(edge)] else 0.25, zorder=2 if y[1] - y[0] < 1 else 1,
        )  # fmt: skip


def _width(share: float) -> float:
    """Of an edge with this share of the largest score; its root, as one edge has most of them."""
    return _THINNEST + (_THICKEST - _THINNEST) * math.sqrt(share)


def _rows(axis: Axes, layout: Layout, layers: Sequence[str], words: Sequence[str]) -> None:
    """Tokens below, a bar for each block, the output at the last token."""
    last = len(words) - 1
    for number, layer in enumerate(layers):
        axis.add_patch(
            FancyBboxPatch(
                (-0.4, 1 + number - _HALF), last + 0.8, 2 * _HALF, facecolor="0.93",
                edgecolor="0.6", linewidth=0.5, boxstyle="round,pad=0,rounding_size=0.1",
                alpha=0.85, zorder=1.5,
            )
        )  # fmt: skip
        axis.annotate("", (last - 0.2, 1 + number), xytext=(0, 1 + number),
                      arrowprops=dict(arrowstyle="->", color="0.7", linewidth=0.6),
                      zorder=1.6)  # fmt: skip
        axis.text(-0.7, 1 + number, f"block {number}\n{layer}", ha="right", va="center",
                  fontsize=6)  # fmt: skip
    axis.text(-0.7, 0, "tokens", ha="right", va="center", fontsize=6)
    axis.text(last, layout.output + 0.05, "output", ha="center", va="bottom", fontsize=6)
    axis.plot(range(last + 1), np.zeros(last + 1), "o", color="0.6", markersize=1.5, zorder=3)
    axis.set(xlim=(-0.6, last + 0.6), ylim=(-0.05, layout.output + 0.2))
    axis.set_xticks(range(last + 1), words, rotation=90, fontsize=6)
    axis.set_yticks([])
    axis.tick_params(length=0, pad=1)
    for side in axis.spines.values():
        side.set_visible(False)


def _stability(axis: Axes, seeds: DataFrame) -> None:
    """Jaccard indices of the circuits of two seeds, of halves of the pairs on the diagonal."""
    found = [torch.as_tensor(np.asarray(circuit)) for circuit in seeds["circuit_gates"]]
    cells = np.array([[jaccard(a, b) for b in found] for a in found])
    np.fill_diagonal(cells, seeds["split_jaccard"])
    axis.imshow(cells, cmap="Blues", vmin=0, vmax=1.3)
    for (i, j), value in np.ndenumerate(cells):
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=6)
    for which in (axis.set_xticks, axis.set_yticks):
        which(range(len(seeds)), seeds["seed"], fontsize=6)
    axis.tick_params(length=0, pad=1)
    axis.set_xlabel(f"seed (by chance {chance(seeds):.2f})", fontsize=6)
    axis.set_ylabel("seed", fontsize=6)


def chance(seeds: DataFrame) -> float:
    """About the Jaccard index of as large a random set of the edges with another one.

    With a share p of the edges in each, p / (2 - p).
    """
    share = float((seeds["kept_gates"] / seeds["edges"]).mean())
    return share / (2 - share)


def _legend(axis: Axes, layout: Layout) -> None:
    axis.axis("off")
    names = dict.fromkeys(name.partition(".")[0] if name[0] in "qkv" else name
                          for name in layout.branches[:-1])  # fmt: skip
    keys = [Line2D([], [], color=COLORS[name], linewidth=2, label=name.replace(".", " "))
            for name in names]  # fmt: skip
    keys.append(Line2D([], [], color=COLORS["input"], linewidth=2, label="output"))
    keys.append(Line2D([], [], color="0.25", linewidth=2, alpha=0.25, label="removed by ACDC"))
    for percent in (1, 10, 100):
        label = f"{percent} % of the largest score"
        keys.append(Line2D([], [], color="0.25", linewidth=_width(percent / 100), label=label))
    axis.legend(handles=keys, loc="center", ncols=3, **SMALL)
