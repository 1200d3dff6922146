"""Performance, as ratios against a plain implementation measured in the same run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from numpy import ndarray

    from bounds.ssm import SelectiveSSMClass

LENGTHS = (100, 1000, 10_000, 100_000)
"""Sequence lengths at which closed forms are compared with plain sums over time steps."""
_BLOCK = 2**16
"""Terms that a plain sum holds at once."""


@dataclass(frozen=True)
class Measurement:
    """One measured quantity: the median of the repeats."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True)
class Options:
    """Measure the speed of a part of the library, next to a plain implementation of it."""

    benchmark: Annotated[Positional[str], arg(metavar="BENCHMARK")]
    """What to measure: bounds, memory, scan, models, interventions, in-context, edges."""
    points: int = 20_000
    """Points of a grid of the bounds."""
    repeats: int = 5
    """Repeats, of which the median counts; the ways compared take turns."""
    json: Path | None = None
    """File for the results, to be read by a program."""


def main(argv: Sequence[str]) -> int:
    """Run one benchmark; returns the exit status."""
    options = tyro.cli(Options, args=list(argv), prog="python -m experiments bench")
    benchmark = BENCHMARKS.get(options.benchmark)
    if benchmark is None:
        known = ", ".join(BENCHMARKS)
        print(f"error: no benchmark {options.benchmark!r}; there are {known}", file=sys.stderr)
        return 2
    for name in ("points", "repeats"):
        if getattr(options, name) < 1:
            print(f"error: --{name} is 1 or more, not {getattr(options, name)}", file=sys.stderr)
            return 2
    measurements = benchmark(options)
    _print_table(options.benchmark, measurements)
    if options.json is not None:
        from experiments import provenance

        report = {
            "benchmark": options.benchmark,
            "points": options.points,
            "repeats": options.repeats,
            "measurements": [asdict(measurement) for measurement in measurements],
            "provenance": provenance.collect(),
        }
        options.json.write_text(json.dumps(report, indent=2, default=str) + "\n")
    return 0


def measure_bounds(points: int, repeats: int) -> list[Measurement]:
    """All terms of the gap bounds over a grid, and one `Bound` with its two checks.

    The plain way adds up the step sums over t = 0..T-1, as many points at a time as fit the cache,
    and computes everything else the same way. Its time for all terms is the time of the grid, less
    that of the step sums in closed form, plus that of the plain sums. Times are processor times of
    one core.
    """
    from bounds.generalization import generalization_gap
    from bounds.losses import ramp

    rng = np.random.default_rng(0)
    measured = []
    for name, (ssm, m, T) in {
        "scattered points": scattered_points(rng, points),
        "product grid": product_grid(points),
    }.items():
        ways = {"grid": lambda ssm=ssm, m=m, T=T: all_terms(ssm, m, T)}
        seconds = median_times(ways, repeats)["grid"]
        size = all_terms(ssm, m, T)["gap"].size
        measured.append(Measurement(f"all terms, {name}", size / seconds, "points/s"))

    for T in LENGTHS:
        few = min(points, max(1, 10_000_000 // T))
        ssm, m, _ = scattered_points(rng, few)
        some = scattered_points(rng, points)[0]
        ways: dict[str, Callable[[], Any]] = {
            "grid": lambda some=some, T=T: all_terms(some, 1000, T),
            "closed": lambda some=some, T=T: step_sums(some, T),
            "plain": lambda ssm=ssm, T=T: plain_step_sums(ssm, T),
        }
        seconds = median_times(ways, repeats)
        grid, closed = seconds["grid"] / points, seconds["closed"] / points
        plain = seconds["plain"] / few
        measured += [
            Measurement(f"step sums, T={T}, against plain sums", plain / closed, "times as fast"),
            Measurement(
                f"all terms, T={T}, against plain sums",
                (grid - closed + plain) / grid,
                "times as fast",
            ),
        ]

    ssm = type(ssm)(d=16, N=4, s_A=-0.1, a_lo=-2.0, p_lo=-1.0, p_hi=0.0)
    bound = generalization_gap(ssm, m=10_000, T=1000, delta=0.05, loss=ramp())
    ways = {
        "one Bound": lambda: generalization_gap(ssm, m=10_000, T=1000, delta=0.05, loss=ramp()),
        "its audit at 50 digits": bound.audit,
        "its certificate": bound.certify,
    }
    for name, seconds in median_times(ways, repeats).items():
        measured.append(Measurement(name, 1000 * seconds, "ms"))
    return measured


def _bounds(options: Options) -> list[Measurement]:
    return measure_bounds(options.points, options.repeats)


def _memory(options: Options) -> list[Measurement]:
    from experiments.bench_memory import measure_memory

    return measure_memory(options.repeats)


def _scan(options: Options) -> list[Measurement]:
    from experiments.bench_scan import measure_scan

    return measure_scan(options.repeats)


def _models(options: Options) -> list[Measurement]:
    from experiments.bench_models import measure_models

    return measure_models(options.repeats)


def _interventions(options: Options) -> list[Measurement]:
    from experiments.bench_interventions import measure_interventions

    return measure_interventions(options.repeats)


def _in_context(options: Options) -> list[Measurement]:
    from experiments.bench_in_context import measure_in_context
    from experiments.bench_in_context_trees import measure_trees

    return [*measure_in_context(options.repeats), *measure_trees(options.repeats)]


def _edges(options: Options) -> list[Measurement]:
    from experiments.bench_edges import measure_edges

    return measure_edges(options.repeats)


BENCHMARKS: dict[str, Callable[[Options], list[Measurement]]] = {
    "bounds": _bounds,
    "memory": _memory,
    "scan": _scan,
    "models": _models,
    "interventions": _interventions,
    "in-context": _in_context,
    "edges": _edges,
}


def scattered_points(
    rng: np.random.Generator, points: int
) -> tuple[SelectiveSSMClass, ndarray, ndarray]:
    """Points that differ in every argument, with no decay that saves work."""
    from bounds.ssm import SelectiveSSMClass

    ssm = SelectiveSSMClass(
        d=16,
        N=4,
        s_A=rng.uniform(-0.5, 0, points),
        a_lo=-2.0,
        p_lo=rng.uniform(-2, -1, points),
        p_hi=rng.uniform(-1, 1, points),
        B_q=rng.uniform(0.1, 1, points),
        B_w=rng.uniform(0.5, 2, points),
        B_B=rng.uniform(0.5, 2, points),
    )
    m = np.round(10 ** rng.uniform(2, 7, points))
    return ssm, m, np.round(10 ** rng.uniform(0, 6, points))


def product_grid(points: int) -> tuple[SelectiveSSMClass, ndarray, ndarray]:
    """About as many points on five axes: decay, step size, length, readout norm, samples."""
    from bounds.ssm import SelectiveSSMClass

    side = max(1, round(points**0.2))
    s_A, p_hi, T, B_w, m = np.ix_(
        np.linspace(-0.5, 0.05, side),
        np.linspace(-1, 1, side),
        np.round(np.geomspace(1, 1e6, side)),
        np.geomspace(0.5, 2, side),
        np.round(np.geomspace(100, 1e7, side)),
    )
    return SelectiveSSMClass(d=16, N=4, s_A=s_A, a_lo=-2.0, p_lo=-1.0, p_hi=p_hi, B_w=B_w), m, T


def all_terms(ssm: SelectiveSSMClass, m: ndarray | int, T: ndarray | int) -> dict[str, ndarray]:
    """Every term at every point."""
    from bounds.curve import curve
    from bounds.losses import ramp

    return curve(ssm, m=m, T=T, delta=0.05, loss=ramp())


def step_sums(ssm: SelectiveSSMClass, T: int) -> tuple[ndarray, ndarray, ndarray]:
    """S1 and S2 of the largest step, and S2 of the smallest, in closed form."""
    from bounds.stability import S1, S2, softplus

    largest = ssm.s_A * softplus(ssm.largest_step_logit)
    smallest = ssm.s_A * softplus(ssm.smallest_step_logit)
    sums = S1(largest, T), S2(largest, T), S2(smallest, T)
    return np.asarray(sums[0]), np.asarray(sums[1]), np.asarray(sums[2])


def plain_step_sums(ssm: SelectiveSSMClass, T: int) -> tuple[ndarray, ndarray, ndarray]:
    """The same, added up."""
    from bounds.stability import softplus

    largest = np.asarray(ssm.s_A * softplus(ssm.largest_step_logit))
    smallest = np.asarray(ssm.s_A * softplus(ssm.smallest_step_logit))
    t = np.arange(T, dtype=float)
    rows = max(1, _BLOCK // T)
    sums = np.empty((3, len(largest)))
    for start in range(0, len(largest), rows):
        here = slice(start, start + rows)
        powers = np.exp(np.multiply.outer(largest[here], t))
        sums[0, here] = powers.sum(-1)
        sums[1, here] = np.einsum("it,t->i", powers, t)
        powers = np.exp(np.multiply.outer(smallest[here], t))
        sums[2, here] = np.einsum("it,t->i", powers, t)
    return sums[0], sums[1], sums[2]


def median_times(
    ways: dict[str, Callable[[], Any]],
    repeats: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, float]:
    """Median seconds of each way; one warm-up, then all take turns."""
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = clock()
            way()
            taken[name].append(clock() - start)
    return {name: max(median(times), 1e-9) for name, times in taken.items()}


def _print_table(title: str, measurements: Sequence[Measurement]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("measured", "value", "", title=title)
    table.columns[1].justify = "right"
    for measurement in measurements:
        value = measurement.value
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        table.add_row(measurement.name, text, measurement.unit)
    Console().print(table)
