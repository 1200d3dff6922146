"""The command line: run a study, verify every claim, list what there is."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg, subcommand

if TYPE_CHECKING:
    import pandas

    from experiments.claims import Claim
    from experiments.executors import Workers
    from experiments.report import Finding
    from experiments.store import ResultStore
    from experiments.study import Study

_PROGRAM = "python -m experiments"
_FIGURES = "figures.gallery"
"""What draws the report's figures; named, not imported, as figures build on experiments."""


class RefusedError(Exception):
    """A request that cannot be carried out, in one line for the user."""


@dataclass(frozen=True)
class Run:
    """Run what is missing of one study, and check its claims.

    The study's axes can be overridden: `run STUDY --help` lists them.
    """

    study: Annotated[Positional[str], arg(metavar="STUDY")]
    """Name of the study; `list` shows them."""
    preset: str = "quick"
    """Size of the study: quick, small, medium or paper."""
    workers: int | None = None
    """Worker processes; by default one for each CPU, 0 runs in this process."""
    device: str = "cpu"
    """Device of the studies that use torch: cpu or cuda; use few workers on a GPU."""
    results: Path = Path("results")
    """Folder of the records."""


@dataclass(frozen=True)
class Verify:
    """Check every claim of every study, and write the report.

    Exits with 1 where a verdict contradicts what is expected of its claim, or a trial failed.
    """

    preset: str = "quick"
    """Size of the studies: quick, small, medium or paper."""
    workers: int | None = None
    """Worker processes; by default one for each CPU, 0 runs in this process."""
    device: str = "cpu"
    """Device of the studies that use torch: cpu or cuda; use few workers on a GPU."""
    results: Path = Path("results")
    """Folder of the records."""
    report: Path = Path("report")
    """Folder of the report and its figures."""


@dataclass(frozen=True)
class List:
    """List the studies, their presets, and how much of each is already in the store."""

    results: Path = Path("results")
    """Folder of the records."""


@dataclass(frozen=True)
class Claims:
    """Print every claim with its source, as the Markdown of docs/claims.md."""


@dataclass(frozen=True)
class Audit:
    """The bounds of a trained model, term by term; `audit --help` for its options."""


@dataclass(frozen=True)
class Bench:
    """Performance, relative to the reference implementations; `bench --help` for its options."""


_Command = (
    Annotated[Run, subcommand("run")]
    | Annotated[Verify, subcommand("verify")]
    | Annotated[List, subcommand("list")]
    | Annotated[Claims, subcommand("claims")]
    | Annotated[Audit, subcommand("audit")]
    | Annotated[Bench, subcommand("bench")]
)


def main(arguments: Sequence[str]) -> int:
    """Carry out one command line; returns the exit status."""
    try:
        return _dispatch(list(arguments))
    except RefusedError as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; what has finished is kept, the same command continues", file=sys.stderr)
        return 130


def _dispatch(arguments: list[str]) -> int:
    name, rest = arguments[:1], arguments[1:]
    if name in (["audit"], ["bench"]):
        return import_module(f"experiments.{name[0]}").main(rest)
    if name == ["run"] and rest not in ([], ["-h"], ["--help"]):
        # In two steps, because which axes there are depends on the study and the preset.
        options, axes = tyro.cli(
            Run, args=rest, prog=f"{_PROGRAM} run", return_unknown_args=True, add_help=False
        )
        return run(options, axes)
    match tyro.cli(_Command, args=arguments, prog=_PROGRAM, description=__doc__):  # pyright: ignore
        case Verify() as options:
            return verify(options)
        case List() as options:
            return show_list(options)
        case Claims():
            return show_claims()
    raise AssertionError("every other command was dispatched above")


def run(options: Run, axes: Sequence[str]) -> int:
    """One study: sweep, then its verdicts."""
    from rich.console import Console

    from experiments.report import verdict_table
    from experiments.store import ResultStore
    from experiments.studies import load

    prog = f"{_PROGRAM} run {options.study} --preset {options.preset}"
    with _refusals():
        kind = load(options.study)
        description = (
            f"{inspect.getdoc(kind)}\n\nThe options below are its axes, with their values at the "
            f"{options.preset} preset; `{_PROGRAM} run --help` shows the others."
        )
        study = tyro.cli(
            kind, default=kind.at(options.preset), args=axes, prog=prog, description=description
        )
        study.trials()
    with _workers(options) as workers:
        findings, failed = _examine(study, ResultStore(options.results), workers)
    Console().print(verdict_table(findings))
    return _status(findings, failed)


def verify(options: Verify) -> int:
    """Every study at a preset: sweep, verdicts, figures, report."""
    from rich.console import Console

    from experiments import provenance
    from experiments.report import Finding, beside_corrections, verdict_table, write_report
    from experiments.store import ResultStore
    from experiments.studies import STUDIES, load

    store = ResultStore(options.results)
    offered = {preset for name in STUDIES for preset in load(name).presets}
    if options.preset not in offered:
        known = ", ".join(sorted(offered))
        raise RefusedError(f"no study has a preset {options.preset!r}; there are: {known}")
    findings: list[Finding] = []
    failures: dict[str, int] = {}
    with _workers(options) as workers:
        for name in STUDIES:
            kind = load(name)
            if options.preset in kind.presets:
                found, failures[name] = _examine(kind.at(options.preset), store, workers)
                findings += found
            else:
                findings += [Finding(kind, claim) for claim in beside_corrections(kind.claims)]
        Console().print(verdict_table(findings))
        with workers.pool() as executor:
            drawn = import_module(_FIGURES).draw_all(
                store, options.report / "figures", options.preset, executor=executor
            )
    paths = write_report(
        options.report,
        preset=options.preset,
        findings=findings,
        failures=failures,
        figures=[(figure.caption, figure.png) for figure in drawn],
        provenance=provenance.collect(),
    )
    for path in paths:
        print(path)
    return _status(findings, sum(failures.values()))


def show_list(options: List) -> int:
    """The studies and their presets."""
    from rich.console import Console
    from rich.table import Table

    from experiments.store import ResultStore
    from experiments.studies import STUDIES, load

    store = ResultStore(options.results)
    table = Table("study", "claims", "preset", "expected time", "cached trials")
    for name in STUDIES:
        kind = load(name)
        for preset, size in kind.presets.items():
            trials = kind.at(preset).trials()
            cached = f"{sum(trial in store for trial in trials)}/{len(trials)}"
            table.add_row(name, str(len(kind.claims)), preset, size.expected_time, cached)
    Console().print(table)
    return 0


def show_claims() -> int:
    """The claims page, on standard output."""
    from experiments.report import claims_page
    from experiments.studies import STUDIES, load

    print(claims_page(load(name) for name in STUDIES), end="")
    return 0


@contextmanager
def _refusals() -> Iterator[None]:
    """ValueErrors about what the user asked for, as refusals."""
    try:
        yield
    except ValueError as error:
        raise RefusedError(str(error)) from error


def _workers(options: Run | Verify) -> Workers:
    """Workers as asked for, by default one for each CPU, on the device asked for."""
    from experiments import device, provenance
    from experiments.executors import Workers

    count = options.workers
    if count is not None and count < 0:
        raise RefusedError(f"--workers is 0 or more, not {count}")
    if options.device not in ("cpu", "cuda"):
        raise RefusedError(f"--device is cpu or cuda, not {options.device!r}")
    if options.device == "cuda" and not import_module("torch").cuda.is_available():
        raise RefusedError("--device cuda: this torch sees no CUDA device")
    os.environ[device.VARIABLE] = options.device
    return Workers(provenance.available_cpus() if count is None else count)


def _examine(study: Study, store: ResultStore, workers: Workers) -> tuple[list[Finding], int]:
    """Run what is missing and check the claims; the findings and the number of failed trials."""
    from experiments.report import beside_corrections
    from experiments.sweep import sweep

    summary = sweep(study, store, workers)
    print(f"{study.name}: {summary}", file=sys.stderr)
    failures = store.failures(study)
    if failures:
        last_line = (failures[0].error or "").strip().splitlines()[-1]
        print(f"  first failure, {failures[0].trial.key}: {last_line}", file=sys.stderr)
    rows = store.rows(study)
    table = rows if rows.empty else study.table(rows)
    claims = beside_corrections(study.claims)
    return [_finding(type(study), claim, table) for claim in claims], len(failures)


def _finding(study: type[Study], claim: Claim, rows: pandas.DataFrame) -> Finding:
    from experiments.report import Finding

    if rows.empty:
        return Finding(study, claim, error="every trial failed")
    try:
        return Finding(study, claim, claim.check(rows))
    except ValueError as error:
        # One unusable table must not cost the other verdicts; it fails the run all the same.
        return Finding(study, claim, error=str(error))


def _status(findings: Sequence[Finding], failed: int) -> int:
    wrong = any(finding.standing in ("contradicts", "unusable") for finding in findings)
    return 1 if wrong or failed else 0
