"""Run what is missing of a study: `sweep`."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from experiments import provenance
from experiments.executors import executor
from experiments.store import Record, ResultStore
from experiments.study import Study, Trial

_DIED = (
    "The worker process died without an exception: killed from outside (as the system does when "
    "memory runs out) or crashed in compiled code; and again when the trial was run alone."
)


@dataclass(frozen=True)
class SweepSummary:
    """How many trials a sweep ran to the end, found in the store, and saw fail."""

    ran: int
    cached: int
    failed: int
    seconds: float

    def __str__(self) -> str:
        counts = f"{self.ran} ran, {self.cached} cached, {self.failed} failed"
        return f"{counts} in {self.seconds:.1f} s"


def sweep(
    study: Study, store: ResultStore, workers: int | None = None, progress: bool = True
) -> SweepSummary:
    """Run the study's trials that the store lacks, in `workers` processes (0: in this one).

    By default there are as many workers as CPUs this process may use. Each trial's record is
    written by the process that ran it, at its end: killing the sweep loses the running trials and
    nothing else, and calling it again continues. A trial that raises, or whose worker dies, becomes
    a failed record and is tried again by the next sweep. KeyboardInterrupt stops the workers at
    once and is raised again.
    """
    if workers is None:
        workers = provenance.available_cpus()
    if workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    started = time.monotonic()
    store.discard_stale(study.name)
    trials = study.trials()
    missing = [trial for trial in trials if trial not in store]
    outcomes: list[bool] = []
    if missing:
        origin = provenance.collect()
        task = partial(run_trial, type(study), store, origin)
        with _bar(study.name, len(missing), shown=progress) as advance:

            def finished(succeeded: bool) -> None:
                outcomes.append(succeeded)
                advance()

            waiting = deque(missing)
            while waiting:
                suspects = _run(waiting, task, min(workers, len(waiting)), finished)
                if suspects:
                    _require_workers(task)
                for trial in suspects:
                    # Whichever trial killed the pool kills a worker of its own as well.
                    if _run(deque([trial]), task, 1, finished):
                        store.put(_record(trial, origin, 0.0, {}, _DIED))
                        finished(False)
    return SweepSummary(
        ran=sum(outcomes),
        cached=len(trials) - len(missing),
        failed=len(outcomes) - sum(outcomes),
        seconds=time.monotonic() - started,
    )


def run_trial(
    study: type[Study], store: ResultStore, origin: Mapping[str, Any], trial: Trial
) -> bool:
    """Measure one trial and write its record; whether it succeeded."""
    if trial in store:  # finished by another sweep in the meantime
        return True
    origin = {**origin, "threads": os.environ.get("OMP_NUM_THREADS", "default")}
    started = time.monotonic()
    try:
        metrics = study.measure(trial.rng, **trial.config)
        store.put(_record(trial, origin, time.monotonic() - started, metrics, None))
    except Exception:
        error = traceback.format_exc()
        store.put(_record(trial, origin, time.monotonic() - started, {}, error))
        return False
    return True


def _run(
    waiting: deque[Trial],
    task: Callable[[Trial], bool],
    workers: int,
    finished: Callable[[bool], None],
) -> list[Trial]:
    """Run the waiting trials until none is left or the pool breaks.

    Returns the trials that were in flight when it broke. No more than twice as many trials are
    submitted as there are workers, so that these are few and a large grid costs no memory.
    """
    running: dict[Future[bool], Trial] = {}
    try:
        with executor(workers) as pool:
            while waiting or running:
                while waiting and len(running) < max(1, 2 * workers):
                    future = pool.submit(task, waiting[0])
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    finished(future.result())
                    del running[future]
    except BrokenExecutor:
        return list(running.values())
    return []


def _require_workers(task: Callable[[Trial], bool]) -> None:
    """RuntimeError where no worker can even load the task: then no trial is to blame."""
    try:
        with executor(1) as pool:
            pool.submit(repr, task).result()
    except BrokenExecutor as error:
        raise RuntimeError(
            "worker processes cannot start, their own error is above; a script that sweeps has to "
            "do so under `if __name__ == '__main__':`, or with workers=0"
        ) from error


def _record(
    trial: Trial,
    origin: Mapping[str, Any],
    seconds: float,
    metrics: Mapping[str, Any],
    error: str | None,
) -> Record:
    return Record(
        trial=trial,
        status="ok" if error is None else "failed",
        metrics=metrics,
        error=error,
        seconds=seconds,
        provenance=origin,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


@contextmanager
def _bar(title: str, total: int, *, shown: bool) -> Iterator[Callable[[], object]]:
    """A progress bar with the expected end, on terminals; logs and pipes get nothing."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)
