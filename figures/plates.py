"""Every figure by name: the studies whose rows it shows, its caption, and how it is drawn."""

from __future__ import annotations

from figures import (
    audits,
    in_context,
    multi_query_recall,
    recall,
    selective_ssm,
    trained_gaps,
    trainings,
    tree_recall,
)
from figures.circuit_plates import CIRCUIT_PLATES
from figures.memory_plates import MEMORY_PLATES
from figures.plate import Plate

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
    **MEMORY_PLATES,
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
    **CIRCUIT_PLATES,
}
