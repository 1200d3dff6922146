"""Whether attributions of edges by gradients are what patching the edges would give."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from bounds.result import Source
from experiments import scratch
from experiments.claims import Claim
from experiments.interventions.agreement import agreement
from experiments.interventions.edge_attribution import (
    INTEGRATED,
    METHODS,
    Attribution,
    attribute,
    midpoints,
    published_points,
    step_doubling_error,
)
from experiments.interventions.edge_graph import EdgeGraph
from experiments.interventions.edge_patching import exact
from experiments.interventions.edge_runs import EdgeRuns
from experiments.studies.toy_edges import LEARNED, OVER, PAIRS_SEED, ToyEdges, drawn
from experiments.study import Preset
from experiments.toys import TASKS, TOYS, trained

if TYPE_CHECKING:
    import pandas

PUBLISHED_POINTS, PUBLISHED_BATCH = 5, 30
"""Points of the published integration, and pairs in a batch of it."""
_RANKS = 0.05
"""By how much a rank correlation may be lower and still be no worse."""
_PUBLISHED = Source(key="ensign2024investigating", place="appendix on edge attribution, code")


@dataclass(frozen=True)
class EdgeAttributionStudy(ToyEdges):
    """Every edge of trained toys patched alone, beside all estimates of what that would do."""

    name = "edge-attribution"
    title = "Attributions of edges against patching them"
    version = 2
    presets = {
        "quick": Preset(expected_time="15 s", axes=dict(seeds=3)),
        "small": Preset(
            expected_time="8 min",
            axes=dict(
                toys=("toy-2x64", "toy-mamba2", "toy-hybrid"),
                resolutions=("layer", "branch", "tap"),
                positional=(False, True),
            ),
        ),
        "medium": Preset(
            expected_time="3 h",
            axes=dict(
                toys=tuple(TOYS),
                tasks=tuple(TASKS),
                resolutions=("layer", "branch", "tap"),
                positional=(False, True),
                pairs=400,
            ),
        ),
    }
    claims = (
        Claim(
            name="attribution-patching-agrees-with-patching",
            statement="scores of edges of toys of Mamba by attribution patching, from one gradient "
            "of the clean run, correlate with the effects of patching them by at least 0.9 "
            "(Pearson)",
            source=Source(key="syed2023attribution", place="section 4"),
            relation=">=",
            measured="pearson_eap",
            predicted=0.9,
            where={"learned": True, "mamba": True},
            over=OVER,
            tolerance=0.0,
        ),
        Claim(
            name="attribution-patching-agrees-in-any-toy",
            statement="so do those of edges of Mamba-2 and of hybrids with attention",
            source=Source(key="syed2023attribution", place="section 4"),
            relation=">=",
            measured="pearson_eap",
            predicted=0.9,
            where={"learned": True, "mamba": False},
            over=OVER,
            tolerance=0.0,
            expected="refuted",
            corrected_by="integrated-gates-agree-with-patching",
        ),
        Claim(
            name="integrated-gates-agree-with-patching",
            statement="integrated gradients of the gates of edges correlate with the effects of "
            "patching them by at least 0.97 (Pearson)",
            source=Source(key="ensign2024investigating", place="section 6"),
            relation=">=",
            measured="pearson_gates",
            predicted=0.97,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
        ),
        Claim(
            name="integrated-gates-rank-no-worse",
            statement="the ranks of edges by integrated gates agree with those by patching as well "
            "as ranks by attribution patching (Spearman, up to 0.05)",
            source=Source(key="hanna2024faith", place="section 4"),
            relation=">=",
            measured="spearman_gates",
            predicted="spearman_eap_less",
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
        ),
        Claim(
            name="integrated-gates-add-up",
            statement="integrated gradients of all gates, at 5 midpoints, add up to the effect of "
            "patching all edges within 0.03",
            source=Source(key="seqtheory", place="completeness of integrated gradients"),
            relation="<=",
            measured="gap_gates_midpoints",
            predicted=0.03,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
        ),
        Claim(
            name="published-points-add-up",
            statement="the mean over 5 points with both ends, as published, adds up to the effect "
            "of patching all edges within 0.03",
            source=_PUBLISHED,
            relation="<=",
            measured="gap_gates_published",
            predicted=0.03,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
            expected="refuted",
            corrected_by="integrated-gates-add-up",
        ),
        Claim(
            name="published-single-step-attributes",
            statement="a single step at full patch, as published for no integration, gives some "
            "edge a score of at least 0.01",
            source=_PUBLISHED,
            relation=">=",
            measured="largest_of_single_step",
            predicted=0.01,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
            expected="refuted",
            corrected_by="attribution-patching-agrees-with-patching",
        ),
        Claim(
            name="published-scores-are-of-the-size-of-effects",
            statement="scores divided by 30, as the gradient of a mean over batches of 30 pairs "
            "makes them (published), add up to at least half the effect of patching all edges",
            source=_PUBLISHED,
            relation=">=",
            measured="share_of_published_scale",
            predicted=0.5,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
            expected="refuted",
            corrected_by="integrated-gates-add-up",
        ),
        Claim(
            name="ten-points-are-enough",
            statement="doubling 10 points of the integration changes no mean score by 0.01",
            source=Source(key="seqtheory", place="step doubling"),
            relation="<=",
            measured="step_doubling_gates",
            predicted=0.01,
            where={"learned": True},
            over=OVER,
            tolerance=0.0,
        ),
    )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Marks toys of Mamba blocks only, of which the published statements are."""
        return rows.assign(mamba=[{*TOYS[toy].layers} == {"mamba"} for toy in rows["toy"]])

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        toy: str,
        task: str,
        resolution: str,
        positional: bool,
        pairs: int,
        max_steps: int | None,
        seed: int,
    ) -> dict[str, Any]:
        """Agreement of every method with exact patching, and what is left to complete."""
        found = trained(
            toy, TASKS[task], seed=seed, max_steps=max_steps, checkpoint=scratch.checkpoint("toy")
        )
        graph = EdgeGraph(found.model, resolution=resolution)
        runs = EdgeRuns(graph, drawn(task, pairs, seed=PAIRS_SEED, positional=positional))
        effects = exact(runs, positional=positional)
        metrics: dict[str, Any] = {
            "accuracy": found.accuracy,
            "learned": found.accuracy >= LEARNED,
            "edges": len(graph) * (runs.pairs.length if positional else 1),
            "effects": effects.mean(dim=-1).numpy(),
        }
        for method in METHODS:
            attribution, error = attribute(runs, method, positional=positional), None
            if method in INTEGRATED:
                error = step_doubling_error(runs, attribution)
                metrics[f"step_doubling_{method}"] = error
            metrics |= _agreement(runs, attribution, effects, method, error)

        def gates(points: tuple[float, ...]) -> Attribution:
            return attribute(runs, "gates", positional=positional, points=points)

        few, published = midpoints(PUBLISHED_POINTS), published_points(PUBLISHED_POINTS)
        together = gates(published)
        total = abs(together.effect_of_all)
        return {
            **metrics,
            **_agreement(runs, together, effects, "published", None),
            "spearman_eap_less": metrics["spearman_eap"] - _RANKS,
            "gap_gates_midpoints": abs(gates(few).completeness_gap),
            "gap_gates_published": abs(together.completeness_gap),
            "largest_of_single_step": float(gates(published_points(1)).mean.abs().max()),
            "share_of_published_scale": (
                abs(float(together.mean.sum())) / PUBLISHED_BATCH / total if total else math.nan
            ),
        }


def _agreement(
    runs: EdgeRuns,
    attribution: Attribution,
    effects: Float[Tensor, "sources destinations positions pairs"],
    name: str,
    integration_error: float | None,
) -> dict[str, Any]:
    """Correlations with intervals over pairs, and the scores for the figure."""
    found = agreement(runs, attribution, effects, integration_error=integration_error)
    metrics: dict[str, Any] = {
        f"top_overlap_{name}": found.top_overlap,
        "top": found.k,
        f"same_sign_{name}": found.same_sign,
        f"gap_{name}": found.completeness_gap,
        f"scores_{name}": attribution.mean.numpy(),
    }
    for kind in ("pearson", "spearman"):
        correlation = getattr(found, kind)
        metrics[f"{kind}_{name}"] = correlation.value
        metrics[f"{kind}_{name}_low"] = correlation.low
        metrics[f"{kind}_{name}_high"] = correlation.high
    return metrics
