r"""Attributions of edges by gradients: estimates of what patching each edge alone would do.

All of them are

    score_ij = mean over points of <o_i^corrupted - o_i, dNLD / du^j>,

per pair and position; they differ in o_i and in the points at which the gradient is taken:

    method      o_i      gradients                                             passes
    eap         clean    of the clean run (Syed et al. 2023)                   1
    corrupted   clean    of the corrupted run                                  1
    both        clean    mean of these two                                     2
    inputs      clean    along embeddings from corrupted to clean              points
                         (EAP-IG, Hanna et al. 2024)
    gates       live     along all gates a, u^j = r^j + a sum_i (o_i^corrupted points
                         - o_i): integrated gradients of one gate an edge, so
                         that all scores add up to the effect of all edges
                         (Ensign and Garriga-Alonso 2024)

Negative is an edge that matters: patching it lowers the normalised logit difference. Gradients are
of the sum over pairs, so that no score depends on how many pairs there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bounds import checks
from experiments.interventions.edge_graph import EdgeGraph, Run, frozen
from experiments.interventions.edge_runs import EdgeRuns

METHODS = ("eap", "corrupted", "both", "inputs", "gates")
INTEGRATED = ("inputs", "gates")
"""Methods that integrate along a path, and so depend on its points."""
POINTS = 20


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """Scores of all edges; those of entries that are no edges are 0."""

    method: str
    scores: Float[Tensor, "sources destinations positions pairs"]
    points: tuple[float, ...]
    """Where gradients were taken on the way to the corrupted run; none but of `INTEGRATED`."""
    effect_of_all: float
    """Mean effect of patching all edges, -1 where the model prefers every clean answer."""

    @property
    def mean(self) -> Float[Tensor, "sources destinations positions"]:
        """Over pairs."""
        return self.scores.mean(dim=-1)

    @property
    def completeness_gap(self) -> float:
        """How far the mean scores add up to something else than the effect of all edges.

        0 for "gates" up to the error of the integration; no other method promises it.
        """
        return float(self.mean.sum()) - self.effect_of_all


def midpoints(points: int) -> tuple[float, ...]:
    """For k < m, (k + 1/2) / m."""
    checks.count(points=points)
    return tuple((k + 0.5) / points for k in range(points))


def published_points(points: int) -> tuple[float, ...]:
    """For k < m, k / (m - 1): both ends among them; a single one is 1.

    At 1 the run is the corrupted one, and a plain mean counts that end as much as the others: with
    "gates" its score is exactly 0 and the sum too small (published code).
    """
    checks.count(points=points)
    return (1.0,) if points == 1 else tuple(k / (points - 1) for k in range(points))


def attribute(
    runs: EdgeRuns,
    method: str,
    *,
    positional: bool = True,
    points: Sequence[float] = midpoints(POINTS),
) -> Attribution:
    """The scores of all edges, at single positions or summed over them.

    `points` matter to the `INTEGRATED` methods only: of the way from the clean run, 0, to the
    corrupted one, 1. ValueError for an unknown method or points that are not on this way.
    """
    checks.one_of(METHODS, method=method)
    if not points or not all(0 <= point <= 1 for point in points):
        raise ValueError(f"points must be from 0 to 1, and at least one, got {tuple(points)!r}")
    graph = runs.graph
    shape = (*graph.edges.shape, runs.pairs.length if positional else 1, len(runs.pairs))
    scores = torch.zeros(shape, dtype=torch.float64)
    with frozen(graph.model):
        for rows in torch.arange(len(runs.pairs)).split(runs.rows):
            scores[..., rows] = _scores(runs, method, rows, points, positional).cpu()
    nld = runs.nld(torch.stack([runs.corrupted.logits, runs.clean.logits])).double().mean(1)
    return Attribution(
        method=method,
        points=tuple(points) if method in INTEGRATED else (),
        scores=scores * graph.edges[:, :, None, None],
        effect_of_all=float(nld[0] - nld[1]),
    )


def step_doubling_error(runs: EdgeRuns, fine: Attribution) -> float:
    """Largest change of a mean score from half as many midpoints.

    ValueError for a method that does not integrate, or by other points than an even number of
    midpoints.
    """
    checks.one_of(INTEGRATED, method=fine.method)
    half, odd = divmod(len(fine.points), 2)
    if odd or fine.points != midpoints(2 * half):
        raise ValueError(f"points must be an even number of midpoints, got {fine.points}")
    positional = fine.scores.shape[2] > 1
    coarse = attribute(runs, fine.method, positional=positional, points=midpoints(half))
    return float((fine.mean - coarse.mean).abs().max())


def _scores(
    runs: EdgeRuns, method: str, rows: Tensor, points: Sequence[float], positional: bool
) -> Float[Tensor, "sources destinations positions rows"]:
    clean, corrupted = runs.clean.stream[0, rows], runs.corrupted.stream[0, rows]
    difference = runs.differences[:, rows]
    if method == "gates":
        stream, written = runs.corrupted.stream[:, rows], runs.corrupted.written[:, rows]
        found = []
        for point in points:
            run, gradient = _gradient(runs, clean, rows, toward=(stream, point))
            found.append(_product(written - run.written.detach(), gradient, positional))
        return torch.stack(found).mean(dim=0)
    starts = {
        "eap": [clean],
        "corrupted": [corrupted],
        "both": [clean, corrupted],
        "inputs": [torch.lerp(clean, corrupted, point) for point in points],
    }[method]
    gradients = [_gradient(runs, start, rows)[1] for start in starts]
    return _product(difference, torch.stack(gradients).mean(dim=0), positional)


def _product(
    difference: Float[Tensor, "sources rows length d_model"],
    gradient: Float[Tensor, "destinations rows length d_model"],
    positional: bool,
) -> Float[Tensor, "sources destinations positions rows"]:
    if positional:
        return torch.einsum("sbld,cbld->sclb", difference, gradient).double()
    return torch.einsum("sbld,cbld->scb", difference, gradient)[:, :, None].double()


def _gradient(
    runs: EdgeRuns,
    embedded: Float[Tensor, "rows length d_model"],
    rows: Tensor,
    toward: tuple[Tensor, float] | None = None,
) -> tuple[Run, Float[Tensor, "destinations rows length d_model"]]:
    """A run and the gradients of its normalised logit differences by what each reader sees.

    `toward` are streams, and by how much of the way every reader is moved to them: what all gates
    of an edge graph at that value do, as the sources add up to the stream.
    """
    graph: EdgeGraph = runs.graph
    readers = [len(branches) for branches in (*graph.branches, (None,))]
    leaves = [
        torch.zeros(count, *embedded.shape, dtype=embedded.dtype, device=embedded.device)
        .requires_grad_()
        for count in readers
    ]  # fmt: skip

    def moved(block: int, stream: Tensor, written: list[Tensor]) -> Tensor:
        if toward is None:
            return leaves[block]
        streams, point = toward
        return leaves[block] + point * (streams[block] - stream)

    run = graph.walk(embedded, runs.pairs.out[rows], moved)
    nld = runs.nld(run.logits, rows).sum()
    return run, torch.cat(torch.autograd.grad(nld, leaves))
