"""What was published about the edges of mamba-370m, and how close a measurement has to come."""

from __future__ import annotations

import numpy as np

from experiments.ioi_checkpoint import published
from experiments.ioi_checkpoint.comparison import Comparison

_CIRCUIT = ("into 39", "into the output", "from the embedding", "from block 0")

EDGE_COMPARISONS = (
    Comparison(
        name="a-fifth-of-the-edges-suffices",
        metric="circuit_share",
        statement="at most a fifth of the edges is needed for an accuracy above 0.85",
        place="edge attribution and circuit discovery",
        published=published.CIRCUIT_SHARE,
        relation="<=", bound=0.2,
    ),
    Comparison(
        name="half-of-the-edges-faithful",
        metric="half_nld",
        statement="with the first half of the edges the normalised logit difference is 0.969 "
        "(± 0.05)",
        place="released notebooks",
        published=published.HALF_NLD,
        relation="~", bound=0.05,
    ),
    Comparison(
        name="half-of-the-edges-accurate",
        metric="half_accuracy",
        statement="and the accuracy 0.938 (± 0.05)",
        place="released notebooks",
        published=published.HALF_ACCURACY,
        relation="~", bound=0.05,
    ),
    Comparison(
        name="circuit-is-the-published-one",
        metric="circuit_overlap",
        statement="the circuit has the published edges around block 39, the output, the embedding "
        "and block 0 (Jaccard indices of at least 0.5)",
        place="edge attribution",
        published=dict.fromkeys(_CIRCUIT, 1.0),
        relation=">=", bound=0.5,
    ),
    Comparison(
        name="scores-as-printed",
        metric="scores",
        statement="the scores of the first edges are those printed (± 0.01)",
        place="figure 11",
        published=published.PRINTED_SCORES,
        relation="~", bound=0.01,
        expected="refuted", corrected_by="scores-by-pair",
    ),
    Comparison(
        name="scores-by-pair",
        metric="score_ratios",
        statement="they are those printed, times the size of the batches whose mean was "
        "differentiated (± 50 %)",
        place="figure 11",
        published=dict.fromkeys(published.PRINTED_SCORES, 1.0),
        relation="~", bound=0.5,
    ),
    Comparison(
        name="scores-add-up",
        metric="completeness_gap",
        statement="integrated at midpoints, all scores of a pair add up to the effect of all "
        "edges (± 0.1)",
        place="edge attribution and circuit discovery",
        published=0.0,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="scores-agree-with-patching",
        source="syed2023attribution",
        metric="eap_pearson",
        statement="scores of attribution patching correlate with the effects of patching 50 edges "
        "of all strengths and the ten of the largest scores (Pearson, at least 0.9)",
        place="section 4",
        published=1.0,
        relation=">=", bound=0.9,
    ),
    Comparison(
        name="integrated-scores-agree-with-patching",
        source="seqtheory",
        metric="gates_pearson",
        statement="integrated scores do so, too",
        place="attributions against patching",
        published=1.0,
        relation=">=", bound=0.9,
    ),
    Comparison(
        name="integrated-scores-rank-edges",
        source="seqtheory",
        metric="gates_spearman",
        statement="and their ranks with those of the effects (Spearman, at least 0.8)",
        place="attributions against patching",
        published=1.0,
        relation=">=", bound=0.8,
    ),
    Comparison(
        name="drops-without-edges",
        metric="drops",
        statement="while the circuit is refined, the normalised logit difference falls without "
        "each of five groups of edges as published (± 0.2)",
        place="circuit discovery, released results",
        published={
            names: drop if drop > 0.3 else np.nan for names, drop in published.DROPS.items()
        },
        relation="~", bound=0.2,
    ),
    Comparison(
        name="order-of-drops",
        metric="order_of_drops",
        statement="the falls without these and 15 smaller groups rank as published (Spearman, at "
        "least 0.7)",
        place="circuit discovery, released results",
        published=1.0,
        relation=">=", bound=0.7,
    ),
    Comparison(
        name="refined-circuit-is-small",
        metric="kept_share",
        statement="at most 30 % of the edges between and inside blocks are left",
        place="edge attribution and circuit discovery",
        published=published.KEPT_SHARE,
        relation="<=", bound=0.3,
    ),
    Comparison(
        name="refined-circuit-is-faithful",
        metric="refined_nld",
        statement="on other pairs its normalised logit difference is 0.84 (± 0.1)",
        place="edge attribution and circuit discovery",
        published=published.KEPT_NLD,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="refined-circuit-is-accurate",
        metric="refined_accuracy",
        statement="and its accuracy 0.88 (± 0.1)",
        place="edge attribution and circuit discovery",
        published=published.KEPT_ACCURACY,
        relation="~", bound=0.1,
    ),
    Comparison(
        name="taps-kept-in-39",
        metric="centre_taps_kept",
        statement="taps 1 and 2 of block 39 are kept, taps 0 and 3 are not",
        place="circuit discovery, released results",
        published=published.TAPS_KEPT,
        relation="~", bound=0.5,
    ),
    Comparison(
        name="no-fourth-tap-is-kept",
        metric="far_taps_kept",
        statement="no block needs its farthest tap",
        place="circuit discovery, released results",
        published=0.0,
        relation="<=", bound=0.0,
    ),
    Comparison(
        name="blocks-that-look-back",
        metric="tap_overlap",
        statement="the blocks of which tap 1 is kept, and those of which tap 2 is, are those "
        "published (Jaccard indices of at least 0.5)",
        place="circuit discovery, released results",
        published=dict.fromkeys(published.BLOCKS_KEPT, 1.0),
        relation=">=", bound=0.5,
    ),
    Comparison(
        name="early-blocks-mix-no-tokens",
        metric="early_taps_kept",
        statement="blocks 1 to 7 need none of their taps",
        place="circuit discovery, released results",
        published=0.0,
        relation="<=", bound=0.0,
    ),
    Comparison(
        name="refined-edges-of-39",
        metric="refined_overlap",
        statement="the edges into and out of block 39 are those published (Jaccard indices of at "
        "least 0.5)",
        place="circuit discovery, released results",
        published={"into 39": 1.0, "from 39": 1.0},
        relation=">=", bound=0.5,
    ),
    Comparison(
        name="positional-circuit-is-the-published-one",
        metric="positional_overlap",
        statement="edges at single tokens into and out of block 39, and from the embedding and "
        "block 0, are those published (Jaccard indices of at least 0.5)",
        place="positional edge attribution",
        published=dict.fromkeys(("into 39", "from 39", *_CIRCUIT[2:]), 1.0),
        relation=">=", bound=0.5,
    ),
    Comparison(
        name="remaining-edges-between-blocks",
        metric="rest_leads",
        statement="each group of edges that is left without the embedding and blocks 0 and 39 is "
        "kept more often, by at least 0.2, than other edges between blocks at the same tokens",
        place="figures 17 to 19",
        published=dict.fromkeys(published.REST, 1.0),
        relation=">=", bound=0.2,
    ),
)  # fmt: skip
