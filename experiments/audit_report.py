"""What an audit finds: the bounds of every selective SSM in a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bounds.compression import occam_bound
from bounds.generalization import generalization_gap
from bounds.lipschitz import (
    characteristic_length,
    output_range,
    published_characteristic_length,
)
from bounds.losses import Loss, multiclass_margin, ramp
from bounds.result import Bound
from bounds.ssm import SelectiveSSMClass
from bounds.stability import softplus
from bounds.stratification import Stratum, stratify
from experiments.checkpoint import CheckpointError, open_checkpoint
from experiments.layouts import Core, recognise, up
from experiments.replay import Sequences, Watch, batches, read_sequences

_LARGEST_REPLAY = 2e11
"""Multiplications spent on running data through a model, about a minute."""
_BATCH_ENTRIES = 2e6
_DEFAULT_LENGTH = 1000


@dataclass(frozen=True)
class Replay:
    """A core run on data, beside what theorem D2 promises for it."""

    sequences: int
    """Sequences run, counted from the first; `available` of them were given."""
    available: int
    watch: Watch
    range_on_data: Bound
    """Output range from the largest norms and steps seen on these sequences."""
    inside: bool
    """Whether all inputs and steps lie in the class at the trained norms."""

    @property
    def overflowed(self) -> bool:
        """Whether the recurrence left double precision, so that nothing can be said."""
        return not math.isfinite(self.watch.z)

    def holds(self, b: Bound) -> bool:
        """Whether no output left the range: that of the data and, inside the class, `b`."""
        if self.overflowed:
            return True
        log_z = math.log(self.watch.z) if self.watch.z > 0 else -math.inf
        ranges = [self.range_on_data, *([b] if self.inside else [])]
        return all(log_z <= r.term("b").stored + 1e-9 for r in ranges)


@dataclass(frozen=True)
class BlockAudit:
    """One selective SSM: its bounds at the trained norms and stratified."""

    core: Core
    given: SelectiveSSMClass
    """The class at the trained norms and step range, the embedding taken as given."""
    stratum: Stratum
    output_range: Bound
    gap_trained: Bound
    gap_stratified: Bound
    loss: Loss
    replay: Replay | None

    @property
    def step_range(self) -> tuple[float, float]:
        """Smallest and largest step size over `core.step_scope`."""
        low, high = self.core.step_logits
        return float(softplus(low)), float(softplus(high))

    @property
    def characteristic_lengths(self) -> tuple[float, float]:
        """Steps after which the model forgets: ours, 1/(|s_A| D), and 1/(|s_A| D_min)."""
        with np.errstate(over="ignore"):
            ours = characteristic_length(self.given)
            return float(ours), float(published_characteristic_length(self.given))

    @property
    def theorem(self) -> str:
        """Which case of the theory the sign of s_A selects."""
        s_A = self.core.budgets["s_A"]
        if s_A < 0:
            return "s_A < 0: every bound stays finite as T grows"
        if s_A == 0:
            return "s_A = 0: the range grows like T, the norm-based bound like T^2"
        return (
            "s_A > 0: range and norm-based bound grow like T e^(s_A T D), "
            "the parameter-counting bound like sqrt(T)"
        )

    @property
    def log10_layer_range(self) -> float:
        """log10 of the largest norm of the whole layer's output, skip and gate included."""
        log_b = self.output_range.term("b").stored
        if self.core.skip is not None:
            log_b = np.logaddexp(log_b, math.log(self.core.skip))
        log_b += math.log(self.core.gate)
        if self.core.output_cap is not None:
            log_b = min(log_b, math.log(self.core.output_cap))
        if self.core.output_offset > 0:
            log_b = np.logaddexp(log_b, math.log(self.core.output_offset))
        return float(log_b) / math.log(10)

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON: numbers that are not finite are null."""
        core, (low, high) = self.core, self.step_range
        ours, published = self.characteristic_lengths
        replay = self.replay
        return _jsonable({
            "name": core.name, "kind": core.kind, "theorem": self.theorem,
            "s_A": core.budgets["s_A"], "a_lo": core.budgets["a_lo"],
            "decays_by_construction": core.decays_by_construction,
            "step_min": low, "step_max": high, "step_scope": core.step_scope,
            "characteristic_length": ours, "published_characteristic_length": published,
            "norms": core.norms, "B_u": core.budgets["B_u"], "n_parameters": core.n_parameters,
            "structure": core.structure, "notes": core.notes, "assumptions": core.assumptions,
            "loss": asdict(self.loss),
            "log10_range": self.output_range.term("b").stored / math.log(10),
            "skip_range": core.skip, "gate": core.gate, "output_cap": core.output_cap,
            "log10_layer_range": self.log10_layer_range,
            "range": _bound_dict(self.output_range),
            "at_the_trained_norms": {
                "theorem": False, "log10_gaps": unclipped(self.gap_trained, self.loss),
                **_bound_dict(self.gap_trained),
            },
            "stratified": {
                "theorem": True, "log10_gaps": unclipped(self.gap_stratified, self.loss),
                "union_cost": self.stratum.union_cost,
                "budgets": [asdict(budget) for budget in self.stratum.budgets],
                **_bound_dict(self.gap_stratified),
            },
            "replay": None if replay is None else {
                "sequences": replay.sequences, "available": replay.available,
                **asdict(replay.watch), "inside": replay.inside,
                "overflowed": replay.overflowed,
                "holds": replay.holds(self.output_range),
                "log10_range_on_data": replay.range_on_data.term("b").stored / math.log(10),
            },
        })  # fmt: skip


@dataclass(frozen=True)
class AuditReport:
    """An audited checkpoint: one row for each selective SSM."""

    path: Path
    n_parameters: int
    T: int
    m: int
    delta: float
    rows: tuple[BlockAudit, ...]
    occam: Bound | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        return {
            "schema": 1, "checkpoint": self.path.name, "n_parameters": self.n_parameters,
            "T": self.T, "m": self.m, "delta": self.delta,
            "rows": [row.as_dict() for row in self.rows],
            "occam": None if self.occam is None else _jsonable(_bound_dict(self.occam)),
        }  # fmt: skip


def audit_checkpoint(
    path: Path | str,
    *,
    data: Path | None = None,
    length: int | None = None,
    samples: int = 1000,
    delta: float = 0.05,
    margin: float = 1.0,
    train_error: float | None = None,
    bits: int = 8,
) -> AuditReport:
    """Audit every selective SSM in a checkpoint; the arguments are those of the command.

    Longer sequences of `data` are cut to `length`. Raises CheckpointError where a file cannot be
    used, ValueError naming a malformed argument.
    """
    checkpoint = open_checkpoint(Path(path))
    with np.errstate(all="ignore"):  # what overflows is refused as a budget that is not finite
        cores = recognise(checkpoint)
    sequences = [] if data is None else [s[:length] for s in read_sequences(data)]
    if length is None:
        length = max((len(sequence) for sequence in sequences), default=_DEFAULT_LENGTH)
    # Bounds first: they are quick, and refuse malformed arguments before any data is run.
    rows = [_audit_core(core, length, samples, delta, margin) for core in cores]
    if sequences:
        rows = _replay(rows, sequences)
    occam = None
    if train_error is not None:
        occam = occam_bound(
            train_error=train_error, m=samples, delta=delta, bits=bits,
            n_parameters=checkpoint.n_parameters, n_tensors=len(checkpoint),
        )  # fmt: skip
    return AuditReport(
        Path(path), checkpoint.n_parameters, length, samples, delta, tuple(rows), occam
    )


def _audit_core(core: Core, T: int, m: int, delta: float, margin: float) -> BlockAudit:
    loss = ramp(margin) if core.structure["outputs"] == 1 else multiclass_margin(margin)
    frozen = {name: core.budgets[name] for name in core.frozen}
    observed = {name: value for name, value in core.budgets.items() if name not in frozen}
    fields: dict[str, Any] = {**core.structure, **core.budgets}
    try:
        # The steps over the actual vocabulary hold for this embedding only: with a learned one
        # they would not leave the class convex, and covers need that.
        given = SelectiveSSMClass(
            **{**fields, "vocab": 0, "M_E": None}, step_logits=core.step_logits
        )
        trained = SelectiveSSMClass(**fields) if fields.get("vocab") else given
        stratum = stratify(observed, beta=core.beta, **core.structure, **frozen)
    except ValueError as error:
        raise CheckpointError(f"{core.name}: no class contains it ({error})") from error
    return BlockAudit(
        core=core,
        given=given,
        stratum=stratum,
        output_range=output_range(given, T=T),
        gap_trained=generalization_gap(trained, m=m, T=T, delta=delta, loss=loss),
        gap_stratified=generalization_gap(
            stratum.ssm, m=m, T=T, delta=delta, loss=loss, union_cost=stratum.union_cost
        ),
        loss=loss,
        replay=None,
    )


def _replay(rows: list[BlockAudit], sequences: Sequences) -> list[BlockAudit]:
    """Run the data through the cores, layer by layer; at most `_LARGEST_REPLAY` multiplications."""
    cost = 0.0
    used: Sequences = []
    for sequence in sequences:
        cost += len(sequence) * sum(_cost(row.core) for row in rows)
        if used and cost > _LARGEST_REPLAY:
            break
        used.append(sequence)
    watches = [Watch() for _ in rows]
    widest = max(row.core.structure["d"] for row in rows)
    with np.errstate(all="ignore"):  # a growing recurrence may overflow; Watch says so
        for batch in batches(used, largest=int(_BATCH_ENTRIES / widest)):
            stream = batch
            for row, watch in zip(rows, watches, strict=True):
                stream = row.core.run(stream, watch)
                if not row.core.layered:
                    stream = batch
    return [
        BlockAudit(**{**vars(row), "replay": _beside(row, watch, used, len(sequences))})
        for row, watch in zip(rows, watches, strict=True)
    ]


def _cost(core: Core) -> float:
    weights = core.n_parameters - core.structure.get("vocab", 0) * core.structure["d"]
    return 2.0 * weights + 12.0 * core.structure["d"] * core.structure["N"]


def _beside(row: BlockAudit, watch: Watch, used: Sequences, available: int) -> Replay:
    T = max(len(sequence) for sequence in used)
    B_u, budgets = up(watch.B_u), row.core.budgets
    seen = SelectiveSSMClass(
        **{**row.core.structure, "vocab": 0, "step_rank": None},
        s_A=budgets["s_A"], a_lo=budgets["a_lo"], p_lo=watch.logit_lo, p_hi=watch.logit_hi,
        B_q=0.0, B_u=B_u, B_B=up(watch.B / B_u), B_C=up(watch.C / B_u), B_w=budgets["B_w"],
    )  # fmt: skip
    low, high = row.core.step_logits
    inside = (
        watch.B_u <= budgets["B_u"]
        and low - 1e-9 <= watch.logit_lo
        and watch.logit_hi <= high + 1e-9
    )
    return Replay(len(used), available, watch, output_range(seen, T=T), inside)


def unclipped(gap: Bound, loss: Loss) -> dict[str, float]:
    """log10 of each bound on the gap before it is clipped at the range of the loss."""
    names = {term.name for term in gap}
    entropies = [gap.term("chained_loss").stored]
    if "chained_raw" in names:
        entropies.append(gap.term("chained_raw").stored + math.log(loss.lipschitz))
    log_slack = math.log(gap["slack"])
    log_gaps = {"norm": np.logaddexp(math.log(2) + min(entropies), log_slack)}
    if "R_hybrid" in names:
        log_R = gap.term("R_hybrid").stored + math.log(loss.lipschitz)
        log_gaps["hybrid"] = np.logaddexp(math.log(2) + log_R, log_slack)
    deviation = math.sqrt((gap["ln_N"] + gap["price"]) / (2 * gap.inputs["m"]))
    radius = math.log(2 * loss.lipschitz) + gap.term("radius").stored
    log_gaps["parameter"] = np.logaddexp(radius, math.log(loss.range * deviation))
    return {name: float(value) / math.log(10) for name, value in log_gaps.items()}


def _bound_dict(bound: Bound) -> dict[str, Any]:
    return {
        "value": float(bound),
        "statement": bound.statement,
        "source": str(bound.source),
        "assumptions": bound.assumptions,
        "inputs": bound.inputs,
        "terms": [asdict(term) for term in bound],
    }


def _jsonable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
