"""Every figure by name: the studies whose rows it shows, its caption, and how it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from figures import (
    audits,
    circuit_graph,
    circuits,
    factual_constructions,
    factual_recall,
    in_context,
    ioi_maps,
    memory,
    multi_query_recall,
    outer_product,
    recall,
    selective_ssm,
    sequential_learning,
    trained_gaps,
    trainings,
    tree_recall,
)


@dataclass(frozen=True)
class Plate:
    """A figure of the gallery: drawn from the tables of its studies, one each in their order."""

    studies: tuple[str, ...]
    caption: str
    draw: Callable[..., Figure]


GALLERY: dict[str, Plate] = {
    "bound-against-length": Plate(
        ("length-dependence",),
        "Bounds of the reference class against the sequence length, below, at and above the "
        "stability threshold. Top: Rademacher complexity with matching lower bound and the "
        "published bound (stable case only). Bottom: the three bounds on the generalization gap; "
        "only the parameter-counting one survives instability.",
        selective_ssm.bound_against_length,
    ),
    "length-scale": Plate(
        ("length-scale",),
        "Length from which on the capacity is constant, over stabilities and step ranges. Ours is "
        "set by the largest step, the published one by the smallest.",
        selective_ssm.length_scale,
    ),
    "stability-map": Plate(
        ("stability-map",),
        "Capacity and gap bound over spectral abscissa and step size. White: the stability "
        "threshold, and where the largest step makes the model forget within 10, 100 and 1000 "
        "steps.",
        selective_ssm.stability_map,
    ),
    "capacity-terms": Plate(
        ("length-dependence",),
        "What the capacity is paid for: shares of the parameter blocks in γ.",
        selective_ssm.capacity_terms,
    ),
    "gap-against-samples": Plate(
        ("sample-size",),
        "The three gap bounds against the sample size; each is valid, and so is their minimum.",
        selective_ssm.gap_against_samples,
    ),
    "rademacher-sandwich": Plate(
        ("rademacher-sandwich",),
        "Rademacher complexity, by exact average over all sign vectors of the supremum over many "
        "models (points), between its upper and lower bound (lines).",
        selective_ssm.rademacher_sandwich,
    ),
    "rademacher-large-samples": Plate(
        ("rademacher-large-samples",),
        "Rademacher complexity of large random samples of the one-channel class, below the bounds "
        "where these are smaller than the trivial one; the distance is what a wrong constant could "
        "hide in.",
        selective_ssm.rademacher_large_samples,
    ),
    "architectures": Plate(
        ("architectures",),
        "Capacity against the sequence length with all norm budgets equal; the law of each row, "
        "checked against its capacity function, is in the legend. The two modes must not be "
        "compared with each other.",
        selective_ssm.architectures,
    ),
    "errata": Plate(
        ("published-errata",),
        "Statements of the source paper that are wrong as printed, on random instances drawn where "
        "they fail, beside their corrections.",
        selective_ssm.errata,
    ),
    "gap-holds": Plate(
        ("gap-holds",),
        "Largest generalization gap over thousands of models on noisy majority, exact because all "
        "inputs can be enumerated, below the bound.",
        selective_ssm.gap_holds,
    ),
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
    "unstable-start": Plate(
        ("unstable-start", "initial-loss"),
        "Training from unstable starts: loss (top) and spectral abscissa (bottom) before each "
        "epoch and after the last. Right: growth of the initial loss with the length, one point "
        "per model, which is set by the largest step and not, as published, by the smallest.",
        trainings.unstable_start,
    ),
    "start-sweep": Plate(
        ("start-sweep",),
        "What training makes of the spectral abscissa, of the exponent with which the state grows "
        "over a sequence, and of the loss, from stable and unstable starts.",
        trainings.start_sweep,
    ),
    "trained-gap-against-length": Plate(
        ("gap-against-length",),
        "Trained classifiers of majority over the sequence length. Top: accuracy, beside that of "
        "the rule that is best on noisy inputs. Middle: the gap on new samples of the training "
        "distribution, and to the clean test sample, most of which is the shift of distribution. "
        "Bottom: bounds on the gap of the ramp loss, as exponents of ten (logarithmic above 10), "
        "and the measured gap; gaps that are not positive are drawn at the lower end. The class of "
        "a bound is chosen from a countable family, in which positive abscissas are powers of two.",
        trained_gaps.trained_gap_against_length,
    ),
    "trained-gap-against-stability": Plate(
        ("gap-against-stability",),
        "Gaps of classifiers trained with a given spectral abscissa and step size, which the "
        "bounds depend on by orders of magnitude and the gap hardly does.",
        trained_gaps.trained_gap_against_stability,
    ),
    "certified-gap": Plate(
        ("certified-gap",),
        "Certified bounds of trained models over the number of samples. Left: error of the "
        "quantised model, below its Occam bound. Right: bounds on the gap of the ramp loss, "
        "of which only those below 1 say anything.",
        trained_gaps.certified_gap,
    ),
    "gap-on-tasks": Plate(
        ("gap-on-tasks",),
        "Errors of trained classifiers beside that of the majority class. Right: step sizes, and "
        "the share of tokens that is padding.",
        trained_gaps.gap_on_tasks,
    ),
    "audits-of-trained-models": Plate(
        ("gap-against-length", "certified-gap"),
        "What holds for the trained models: stability, steps, growth of the state, and every bound "
        "beside the measured gap of the ramp loss. Where s_A ≥ 0, the theorem for stable models "
        "does not apply.",
        audits.audits_of_trained_models,
    ),
    "recall-accuracy": Plate(
        ("associative-recall",),
        "Associations that trained models recall: mean over seeds with 95 %, bars the seeds. "
        "Beside it the rates of guessing any value, and any value of the document. Hollow, for the "
        "published task: the published accuracies.",
        recall.recall_accuracy,
    ),
    "recall-attribution": Plate(
        ("associative-recall",),
        "Share of the probability of the answer that comes back when one activation of the run on "
        "the clean document is put into the run on the one with another key: by layer, component "
        "and position, mean over the seeds that have a ratio, in the widest models of two layers, "
        "with their accuracy. Blank: no such component; hatched: the corruption takes too little "
        "from the answer for a ratio. Nothing can come back at the answer, a control.",
        recall.recall_attribution,
    ),
    "recall-mechanism": Plate(
        ("associative-recall",),
        "Mechanisms of trained models, one marker each: what the input of the second layer "
        "restores at the query, the key and the value, those below 0 taken as 0, as shares of "
        "their sum. Models at one place are drawn side by side. Not shown: models without a ratio, "
        "or that restore less than half at the three together.",
        recall.recall_mechanism,
    ),
    "recall-dynamics": Plate(
        ("associative-recall",),
        "Accuracy while training, and what the input of the second layer restores at the value, "
        "the query and the key, from where there is a ratio; a line for every seed of the widest "
        "models of two layers.",
        recall.recall_dynamics,
    ),
    "recall-convolution": Plate(
        ("associative-recall",),
        "Short convolutions of other widths, none (0) or with long filters. Left: accuracy. Right, "
        "of models that recall 90 %: what the output of convolutions at the tokens behind the key "
        "restores in the corrupted run, and destroys in the clean one when it is corrupted.",
        recall.recall_convolution,
    ),
    "multi-query-recall": Plate(
        ("multi-query-recall",),
        "Trained models on multi-query recall (markers: mean and 95 % over seeds) and what an "
        "additive state with random keys and answers recalls (lines). Left: accuracy over the "
        "number of pairs, by the size of the keys. Right: pairs recalled to 90 % over the numbers "
        "kept; attention keeps all keys and values.",
        multi_query_recall.multi_query_recall,
    ),
    "tree-recall": Plate(
        ("tree-recall",),
        "Recall of parents in the sentences of random grammars. Top: accuracy (mean and 95 % over "
        "grammars and seeds), and that of rules that recall nothing (lines; of all questions, not "
        "of those about combinations held out). Bottom: share of the probability of the answer "
        "that the input of the second layer restores, by position; faint: models that beat no "
        "shortcut by a tenth.",
        tree_recall.tree_recall,
    ),
    "in-context-baselines": Plate(
        ("in-context-baselines",),
        "Mean errors of estimators that read prompts without learning, over the examples they have "
        "seen, in units of that of guessing 0 (parities: share wrong). Dotted: the errors that are "
        "derived, where they are.",
        in_context.in_context_baselines,
    ),
    "in-context-errors": Plate(
        ("in-context-learning",),
        "Errors of trained models over the examples they have seen, in units of that of guessing "
        "0, with 95 % bands over seeds (thin: each of two). Dashed: an estimator that reads "
        "prompts without learning (least squares, ridge or lasso; of clean examples or of the "
        "steps shown; neighbours for networks, trees on signs, the Bayes rule of parities, the "
        "nearest key).",
        in_context.in_context_errors,
    ),
    "in-context-verdicts": Plate(
        ("in-context-learning",),
        "Which model solves which task, by a rule: the gap to the best model in units of the error "
        "of guessing 0, or, of parities, the share of seeds that reach 99 % of the Bayes accuracy. "
        "Stripes at the left of cells: the published verdict. Hatched: not decided: no model has "
        "learned the task, there are fewer than five seeds, or the bootstrap interval over seeds "
        "reaches into another verdict.",
        in_context.in_context_verdicts,
    ),
    "parity-jumps": Plate(
        ("in-context-learning",),
        "Accuracy on sparse parities along the trainings, a line each, and the share of trainings "
        "that have reached 99 % of the Bayes accuracy.",
        in_context.parity_jumps,
    ),
    "in-context-flops": Plate(
        ("in-context-learning",),
        "The smallest validation error (mean over seeds) that trainings of a model reached, over "
        "the operations spent in its blocks (forward and backward), at any size that was trained.",
        in_context.flops_frontier,
    ),
    "retrieval-by-pairs": Plate(
        ("in-context-learning",),
        "Error of vector retrieval by the number of pairs, beside what an additive state with "
        "random keys of the size of Mamba's (16 numbers; the vectors have 8) errs, and the mean of "
        "all values.",
        in_context.retrieval_by_pairs,
    ),
    "ioi-resample": Plate(
        ("ioi-maps",),
        "Where it matters that a token is another one: share of the logit difference that is lost "
        "when one block reads one token of the corrupted prompt, by block, token and format of the "
        "pair. Boxes: the name that differs. Means over the seeds that have learned the task.",
        ioi_maps.ioi_resample,
    ),
    "ioi-taps": Plate(
        ("ioi-maps",),
        "How far the convolution of the bottleneck looks back: share of the logit difference that "
        "is lost when one of its taps reads the corrupted prompt. Boxes: tap k at k tokens behind "
        "the name that differs, where it reads this name. In mamba-370m, tap 1 of layer 39 has an "
        "effect of 0.95; here the taps depend on the seed.",
        ioi_maps.ioi_taps,
    ),
    "ioi-ablations": Plate(
        ("ioi-maps",),
        "Left: answers that are right if the tokens that a block mixes are those of the corrupted "
        "prompt, for all blocks but one, for all, and for none; hatched: a block that mixes none. "
        "Right: probability of the answer among the names without a block, and with all. Bars: "
        "means; dots: seeds.",
        ioi_maps.ioi_ablations,
    ),
    "ioi-cosines": Plate(
        ("ioi-maps",),
        "Top: cosines of what each token writes into the state of the bottleneck and of the state "
        "at every token, means over prompts. Bottom: cosines of the mean codes of a name in two "
        "slots, without the mean of the slot.",
        ioi_maps.ioi_cosines,
    ),
    "ioi-swaps": Plate(
        ("ioi-maps",),
        "Names swapped by their mean codes in the input of the bottleneck's state, at all tokens "
        "that its convolution carries them to: share of prompts with the answer of the swap, by "
        "the slot that is edited and the slot of the mean. In mamba-370m, at one token behind the "
        "name.",
        ioi_maps.ioi_swaps,
    ),
    "ioi-writes": Plate(
        ("ioi-maps",),
        "What each token writes into the state of the bottleneck, as read at the last token: "
        "toward the name of each slot, beside names that the prompt has not, and toward the answer "
        "beside that of the corrupted prompt. Boxes: tokens that the convolution carries the name "
        "to, whose sums are at the right: for first mentions, against second ones.",
        ioi_maps.ioi_writes,
    ),
    "toys": Plate(
        ("toys",),
        "Accuracy of small models on new prompts while they train, a line for every seed; dotted: "
        "that of mamba-370m on indirect object identification.",
        circuits.toys,
    ),
    "edge-agreement": Plate(
        ("edge-attribution",),
        "Scores of edges at single positions against the effects of patching each of them alone, "
        "means over pairs; grey: equal; linear within 0.01, logarithmic beyond. Correlations and "
        "their bootstrap intervals over pairs are means over the seeds that have learned the task. "
        "Below: what the scores of all edges add up to, beside the effect of patching all of them.",
        circuits.edge_agreement,
    ),
    "faithfulness": Plate(
        ("circuits",),
        "Circuits of the edges that a method ranks first, all others patched, on other pairs than "
        "the ranking is of: logit difference kept, and pairs answered. Thin: seeds; thick: their "
        "mean. Marks: the smallest circuits that answer 85 % of the first pairs (integrated "
        "gates), as many random edges, and all edges but the circuit. Vertical: share of the edges "
        "between the blocks of mamba-370m in its published circuit, without positions.",
        circuits.faithfulness,
    ),
    "circuit": Plate(
        ("circuits", "edge-attribution"),
        "The circuit of one model: edges from what is written at a token to the blocks that read "
        "it, by branch; tap k carries a token k positions on. Widths: roots of the scores by "
        "integrated gates; faint: edges that automatic circuit discovery removes. Blocks carry "
        "what they have read onward in their states. Below: Jaccard indices of the circuits of "
        "any two seeds, and, on the diagonal, of two halves of the pairs.",
        circuit_graph.circuit,
    ),
}
