"""The studies, by name. One file per study; `load` imports only the one that is asked for."""

from __future__ import annotations

from importlib import import_module

from experiments.study import Study

STUDIES: dict[str, str] = {
    "output-range": "experiments.studies.output_range:OutputRange",
    "lipschitz-constants": "experiments.studies.lipschitz_constants:LipschitzConstants",
    "rademacher-sandwich": "experiments.studies.rademacher_sandwich:RademacherSandwich",
    "rademacher-large-samples": (
        "experiments.studies.rademacher_large_samples:RademacherLargeSamples"
    ),
    "length-dependence": "experiments.studies.length_dependence:LengthDependence",
    "length-scale": "experiments.studies.length_scale:LengthScale",
    "stability-map": "experiments.studies.stability_map:StabilityMap",
    "sample-size": "experiments.studies.sample_size:SampleSize",
    "gap-holds": "experiments.studies.gap_holds:GapHolds",
    "architectures": "experiments.studies.architectures:Architectures",
    "published-errata": "experiments.studies.published_errata:PublishedErrata",
    "audited-numbers": "experiments.studies.audited_numbers:AuditedNumbers",
    "linear-memory": "experiments.studies.linear_memory:LinearMemoryCapacity",
    "trained-linear-memory": "experiments.studies.trained_linear_memory:TrainedLinearMemory",
    "retrieval-error": "experiments.studies.retrieval_error:RetrievalError",
    "storage-guarantee": "experiments.studies.storage_guarantee:StorageGuarantee",
    "mlp-kernel-memory": "experiments.studies.mlp_memory:MLPKernelCapacity",
    "mlp-readout-memory": "experiments.studies.mlp_memory:MLPReadoutCapacity",
    "trained-mlp-memory": "experiments.studies.trained_mlp_memory:TrainedMLPMemory",
    "attention-memory": "experiments.studies.attention_memory:AttentionMemoryCapacity",
    "memory-quantization": "experiments.studies.memory_quantization:MemoryQuantization",
    "memory-families": "experiments.studies.memory_families:MemoryFamilies",
    "initial-loss": "experiments.studies.initial_loss:InitialLoss",
    "unstable-start": "experiments.studies.unstable_start:UnstableStart",
    "start-sweep": "experiments.studies.start_sweep:StartSweep",
    "gap-against-length": "experiments.studies.gap_against_length:GapAgainstLength",
    "gap-against-stability": "experiments.studies.gap_against_stability:GapAgainstStability",
    "gap-on-tasks": "experiments.studies.gap_on_tasks:GapOnTasks",
    "certified-gap": "experiments.studies.certified_gap:CertifiedGap",
    "factual-recall": "experiments.studies.factual_recall:FactualRecallCapacity",
    "factual-trade-off": "experiments.studies.factual_trade_off:FactualTradeOff",
    "sequential-learning": "experiments.studies.sequential_learning:SequentialLearning",
    "factual-constructions": "experiments.studies.factual_constructions:FactualConstructions",
    "fact-editing": "experiments.studies.fact_editing:FactEditing",
    "associative-recall": "experiments.studies.associative_recall:AssociativeRecallStudy",
    "multi-query-recall": "experiments.studies.multi_query_recall:MultiQueryRecallStudy",
    "tree-recall": "experiments.studies.tree_recall:TreeRecallStudy",
    "in-context-baselines": "experiments.studies.in_context_baselines:InContextBaselines",
    "in-context-learning": "experiments.studies.in_context_learning:InContextLearning",
    "toys": "experiments.studies.toys:Toys",
    "ioi-maps": "experiments.studies.ioi_maps:IOIMaps",
    "edge-attribution": "experiments.studies.edge_attribution:EdgeAttributionStudy",
    "circuits": "experiments.studies.circuits:CircuitStudy",
    "ioi-checkpoint": "experiments.studies.ioi_checkpoint:IOICheckpoint",
}
"""Name of a study -> "module:Class". Text rather than classes, so that running a numpy study (and
starting each of its workers) does not import the frameworks the other studies need."""


def load(name: str) -> type[Study]:
    """The study class called `name`; ValueError lists the names there are."""
    if name not in STUDIES:
        known = ", ".join(STUDIES) or "none yet"
        raise ValueError(f"unknown study {name!r}; the studies are: {known}")
    module, _, attribute = STUDIES[name].partition(":")
    return getattr(import_module(module), attribute)
