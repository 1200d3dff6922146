"""The figures of memories: of what is stored, of factual recall, and of how it is learned."""

from __future__ import annotations

from figures import (
    factual_constructions,
    factual_recall,
    memory,
    outer_product,
    sequential_learning,
)
from figures.plate import Plate

MEMORY_PLATES: dict[str, Plate] = {
    "linear-memory-capacity": Plate(
        ("linear-memory", "trained-linear-memory"),
        "Facts that a d × d matrix recalls (markers: mean and 95 % over draws; lines: predicted). "
        "Left: N ln N grows as d², and training stores several times as much as outer products. "
        "Right: the constant of that law, which approaches its limits (dotted) so slowly that "
        "predictions at finite width are needed. Below: fitted exponents of N ln N in d².",
        memory.linear_memory_capacity,
    ),
    "mlp-memory-capacity": Plate(
        ("mlp-kernel-memory", "mlp-readout-memory", "trained-mlp-memory"),
        "Facts of which two-layer networks recall 99 %, against the parameters m d of a layer. "
        "Left: a new output for every fact; to hold as many as a trained network, a least-squares "
        "readout needs about ten and the provable kernel constructions tens of times as many "
        "parameters. Right: 32 outputs, where a readout gains nothing from d > 31. Solid: "
        "predicted; dashed: every weight of both layers worth as much as one of a trained matrix. "
        "Intervals of trained networks include the step between loads.",
        memory.mlp_memory_capacity,
    ),
    "attention-memory-capacity": Plate(
        ("attention-memory",),
        "Facts of which attention heads recall 99 %, against the parameters of their outputs. "
        "Heads that gate go on beyond H d_h = d, small ones nearly as predicted for generic "
        "features. Heads that attend uniformly, of either size, end at the capacity of one matrix.",
        memory.attention_memory_capacity,
    ),
    "factual-constructions": Plate(
        ("factual-constructions",),
        "Facts recalled by transformers with hand-set weights (points) and the share predicted "
        "(lines). Left: attention alone, up to the dimension that a union bound finds sufficient. "
        "Middle: with an MLP, predicted from the kernel of its features, which know no answers; "
        "dotted: from their number alone. Right: of sufficient size, whole and with the "
        "contribution of either memory replaced by its mean.",
        factual_constructions.factual_constructions,
    ),
    "fact-editing": Plate(
        ("fact-editing",),
        "Rank-one edits of single facts of the constructions and of trained transformers "
        "(squares), with the second moment of the features and as plain outer products. Left: "
        "share of the other facts that one edit damages. Right: edits one after the other before "
        "less than 99 % of all facts, as edited, are recalled; at 1 every fact was edited once.",
        factual_constructions.fact_editing,
    ),
    "factual-recall-capacity": Plate(
        ("factual-recall",),
        "Facts of which trained one-layer transformers recall 99 % (mean and 95 % over draws), for "
        "three ways in which subjects, relations and answers grow. Left: against the parameters, "
        "with the published guide line (dashed) and what 2 and all 32 bits of each parameter could "
        "hold (dotted; green: answers of which there are as many as subjects). Right: bits of the "
        "facts per parameter. Of models of several shapes, a column for every way and a colour and "
        "marker for every shape. Slopes: exponents of facts in parameters.",
        factual_recall.factual_recall_capacity,
    ),
    "factual-trade-off": Plate(
        ("factual-trade-off",),
        "Accuracy of trained transformers over the parameters of attention and of the MLP, whole "
        "and with either path to the answers replaced by its mean. Black: 99 %; dotted: equal "
        "totals; orange: the published slope, four attention parameters for one of the MLP. Bottom "
        "left: attention parameters that an MLP parameter replaces in a cell (95 % over draws; "
        "dotted: 1 and 4; hollow: heads with fewer dimensions than the model; triangles: beyond "
        "the axis), where attention alone comes to recall more than the cell.",
        factual_recall.factual_trade_off,
    ),
    "retrieval-error": Plate(
        ("retrieval-error",),
        "Share of wrong answers of outer-product memories. Left: measured at several widths, with "
        "the predictions at these widths and in the limit of infinite width. Right: the load at "
        "which the limit has the measured error, against the actual one; curves approach the "
        "diagonal as d grows.",
        outer_product.retrieval_error,
    ),
    "guarantee-against-capacity": Plate(
        ("storage-guarantee",),
        "Facts that theorems with explicit constants guarantee with probability 0.9, before keys "
        "are drawn (a priori) or from the kernel of given keys (certified; readout of 4d ReLU "
        "features), below the measured capacity, with the factor between the two.",
        memory.guarantee_against_capacity,
    ),
    "memory-quantization": Plate(
        ("memory-quantization",),
        "Outer-product memories with fewer bits per weight (markers; lines: predicted from the "
        "distortion of the quantiser). Left: share of the facts that is kept. Right: bits of facts "
        "per stored bit, best at one bit per weight, still an order of magnitude below the "
        "information limit.",
        outer_product.memory_quantization,
    ),
    "memory-families": Plate(
        ("memory-families", "trained-linear-memory", "trained-mlp-memory"),
        "Kinds of memories compared; markers of the left panel are named in the right one. Left: "
        "facts recalled (99 %; trained matrix: all) against learned parameters, below what 2 and "
        "all 32 bits of each parameter allow. Right: bits per learned parameter at the largest "
        "size, smaller sizes faint; hollow: compressed outer products. Only trained memories come "
        "near the 2 bits of language models. The parameters of a Hopfield memory grow with its "
        "facts, of which it is given as many as the search allows.",
        memory.memory_families,
    ),
    "sequential-learning": Plate(
        ("sequential-learning",),
        "Linear attention learns relations first, then subjects. Top: losses of balanced facts "
        "under gradient flow and SGD, and of random facts under SGD, which rests at the entropy "
        "H(a | r) of the answer given the relation, below ln D; dashed: predicted steps until a "
        "loss has halved. Bottom: answers drawn from the model; on the plateau they are of the "
        "right relation, but those of other subjects.",
        sequential_learning.sequential_learning,
    ),
    "power-law-prompts": Plate(
        ("sequential-learning",),
        "Prompts that name subjects or relations with power-law frequencies (exponent 1), under "
        "gradient flow. Frequent subjects are learned along with the relations and rare ones one "
        "by one, which smears the plateau. Right: each subject is learned in a time inverse to its "
        "probability, earlier where its answers are the most frequent ones of their relations.",
        sequential_learning.power_law_prompts,
    ),
}
