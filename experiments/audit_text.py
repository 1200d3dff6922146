"""An audit in words: one row for each block, then its details, then the verdicts."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Hashable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bounds.result import Bound
from bounds.stability import softplus
from experiments.audit_report import AuditReport, BlockAudit, unclipped

_PLAIN_WIDTH = 120
"""Columns where the output is not a terminal."""


def show(report: AuditReport, *, explain: bool) -> None:
    """Print the report on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    console.print(
        Text(
            f"{report.path.name}: {report.n_parameters} parameters; T = {report.T}, "
            f"m = {report.m}, delta = {report.delta:g}"
        )
    )
    console.print(_table(report))
    for row in report.rows:
        console.print(Text("\n".join(["", *_details(row)])), soft_wrap=True)
        if explain:
            for title, bound in (
                ("range of the output", row.output_range),
                ("gap at the trained norms (not a theorem)", row.gap_trained),
                ("gap, stratified", row.gap_stratified),
            ):
                console.print(
                    Text(f"\n{row.core.name}, {title}\n{bound.explain()}"), soft_wrap=True
                )
    if explain and report.occam is not None:
        console.print(Text(f"\nOccam bound\n{report.occam.explain()}"), soft_wrap=True)
    console.print(Text("\n".join(["", *verdicts(report)])), soft_wrap=True)
    sys.stdout.flush()


def _table(report: AuditReport) -> Table:
    table = Table(
        "block", "s_A", "steps", "forgets after\nours (published)", "range b",
        "norm", "hybrid", "count", "stratified",
        title="at the trained norms, last column stratified; * vacuous: not below the loss's range",
        title_justify="left",
    )  # fmt: skip
    for row in report.rows:
        low, high = row.step_range
        ours, published = row.characteristic_lengths
        trained = unclipped(row.gap_trained, row.loss)
        gaps = [trained.get(name) for name in ("norm", "hybrid", "parameter")]
        cells = [
            f"{row.core.name}\n{row.core.kind}",
            f"{row.core.budgets['s_A']:.4g}",
            f"{low:.2g}\nto {high:.2g}",
            f"{ours:.3g}\n({published:.3g})",
            _power(row.output_range.term("b").stored / math.log(10)),
            *("-" if gap is None else _gap(gap, row, "*") for gap in gaps),
            _gap(_smallest(row), row, "*"),
        ]
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _details(row: BlockAudit) -> list[str]:
    core = row.core
    low, high = row.step_range
    s_A = f"s_A = {core.budgets['s_A']:.6g}, smallest entry {core.budgets['a_lo']:.6g} (1/time)"
    always = "negative by construction" if core.decays_by_construction else "free to have any sign"
    sizes = ", ".join(f"{name}={size}" for name, size in core.structure.items())
    lines = [
        f"{core.name} ({core.kind}; {sizes}; {core.n_parameters} parameters)",
        f"  decay      {s_A}; {always}",
        f"  steps      {low:.6g} to {high:.6g} over {core.step_scope}",
        f"  input      largest 2-norm B_u = {core.budgets['B_u']:.6g}",
    ]
    for name, norms in core.norms.items():
        lines.append(f"  norms      {name}: {', '.join(f'{k} {v:.6g}' for k, v in norms.items())}")
    lines.append(f"  theorem    {row.theorem}")
    lines.append(f"  range      |z| <= b = {row.output_range.term('b')}")
    if core.skip is not None:
        cap = "" if core.output_cap is None else f"; inner norm caps it at {core.output_cap:.6g}"
        lines.append(
            f"  layer      D skip adds at most {core.skip:.6g}, gate multiplies by at most "
            f"{core.gate:.6g}: whole layer <= {_power(row.log10_layer_range)}{cap}"
        )
    for title, bound in (("trained", row.gap_trained), ("stratified", row.gap_stratified)):
        gaps = unclipped(bound, row.loss)
        listed = ", ".join(f"{name} {_gap(gap, row)}" for name, gap in gaps.items())
        paid = f"; {row.stratum.union_cost:.1f} nats for choosing the class afterwards"
        note = "at the trained norms: not a theorem" if title == "trained" else f"theorem{paid}"
        lines.append(f"  gap        {listed}  ({note})")
    if row.replay is not None:
        watch, seen = row.replay.watch, row.replay.range_on_data
        b = row.output_range.term("b")
        held = "holds" if row.replay.holds(row.output_range) else "VIOLATED"
        if row.replay.overflowed:
            held = "could not be checked: the recurrence overflowed"
        outside = "" if row.replay.inside else "; the data leaves the class, so b does not apply"
        lines.append(
            f"  data       {row.replay.sequences} of {row.replay.available} sequences: "
            f"max |z| = {watch.z:.6g}, b = {b}, "
            f"b from the norms seen = {seen.term('b')}: D2 {held}{outside}"
        )
        slow, fast = softplus(watch.logit_lo), softplus(watch.logit_hi)
        lines.append(f"  data       steps {slow:.6g} to {fast:.6g}, largest input {watch.B_u:.6g}")
    lines += [f"  note       {note}" for note in core.notes]
    lines += [f"  assumes    {assumption}" for assumption in core.assumptions]
    return lines


def verdicts(report: AuditReport) -> list[str]:
    """The findings in plain words, a line each."""
    lines = []
    for theorem, rows in _grouped(report.rows, lambda row: row.theorem):
        lines.append(f"{_names(rows)}: {theorem}.")
    for vacuous, rows in _grouped(report.rows, lambda row: not _useful(row, row.gap_stratified)):
        if vacuous:
            smallest = min(_smallest(row) for row in rows)
            lines.append(
                f"{_names(rows)}: every theorem is vacuous at m = {report.m}; the smallest bound "
                f"is {_power(smallest)}, the loss at most {rows[0].loss.range:g}."
            )
            continue
        for row in rows:
            lines.append(
                f"{row.core.name}: the gap{_alone(row)} is at most {float(row.gap_stratified):.4g} "
                f"with probability {1 - report.delta:g} "
                f"({_words(_useful(row, row.gap_stratified))}), if the sample is independent and "
                f"identically distributed{_condition(row)}."
            )
    for row in report.rows:
        name, useful = row.core.name, _useful(row, row.gap_trained)
        if useful and not _useful(row, row.gap_stratified):
            lines.append(
                f"{name}: at the trained norms the {_words(useful)} bound would be "
                f"{float(row.gap_trained):.4g}, but that is not a theorem."
            )
        if row.replay is not None and not row.replay.holds(row.output_range):
            lines.append(f"{name}: THE OUTPUT LEFT ITS RANGE ON THE DATA. Please report this.")
    if report.occam is not None:
        bits, error = int(report.occam.inputs["bits"]), report.occam.inputs["train_error"]
        risk = float(report.occam)
        lines.append(
            f"whole model: if its training error is {error:g} after quantisation to {bits} bits, "
            f"its risk is at most {risk:.4g}{' (vacuous)' if risk > 0.999 else ''} (Occam)."
        )
    return lines


def _grouped(
    rows: tuple[BlockAudit, ...], key: Callable[[BlockAudit], Hashable]
) -> list[tuple[Any, list[BlockAudit]]]:
    groups: dict[Hashable, list[BlockAudit]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())


def _names(rows: list[BlockAudit]) -> str:
    first, last = rows[0].core.name, rows[-1].core.name
    return first if len(rows) == 1 else f"{first} to {last} ({len(rows)} of them)"


def _useful(row: BlockAudit, gap: Bound) -> list[str]:
    limit = math.log10(row.loss.range)
    return [name for name, value in unclipped(gap, row.loss).items() if value < limit]


def _smallest(row: BlockAudit) -> float:
    return min(unclipped(row.gap_stratified, row.loss).values())


def _alone(row: BlockAudit) -> str:
    return " of this core, read out on its own," if row.core.frozen else ""


def _condition(row: BlockAudit) -> str:
    return " and the frozen weights do not depend on it" if row.core.frozen else ""


def _words(names: list[str]) -> str:
    return " and ".join(
        {"norm": "norm-based", "parameter": "parameter-counting"}.get(n, n) for n in names
    )


def _gap(log10: float, row: BlockAudit, mark: str = " (vacuous)") -> str:
    vacuous = log10 >= math.log10(row.loss.range)
    return f"{_power(log10)}{mark if vacuous else ''}"


def _power(log10: float) -> str:
    return f"{10**log10:.4g}" if abs(log10) < 4 else f"10^{log10:.1f}"
