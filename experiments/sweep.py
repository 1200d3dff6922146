"""Run what is missing of a study: `sweep`."""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from experiments import provenance, scratch
from experiments.executors import Workers, executor
from experiments.progress import bar
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
    study: Study,
    store: ResultStore,
    workers: int | Workers | None = None,
    progress: bool = True,
) -> SweepSummary:
    """Run the study's trials that the store lacks, in `workers` processes (0: in this one).

    By default there are as many workers as CPUs this process may use; several sweeps can share
    `Workers`. A worker takes one of the
    study's `batches` at a time, and writes each trial's record at the trial's end: killing the
    sweep loses the running trials and nothing else, and calling it again continues. A trial that
    raises, or whose worker dies, becomes a failed record and is tried again by the next sweep; the
    others of its batch are measured without it. KeyboardInterrupt stops the workers at once and is
    raised again.
    """
    if workers is None:
        workers = provenance.available_cpus()
    if isinstance(workers, int) and workers < 0:
        raise ValueError(f"workers must be 0 or more, got {workers}")
    started = time.monotonic()
    store.discard_stale(study.name)
    trials = study.trials()
    missing = []
    for trial in trials:
        if trial in store:
            scratch.discard(_scratch(store, trial))
        else:
            missing.append(trial)
    outcomes: list[bool] = []
    if missing:
        origin = provenance.collect()
        task = partial(run_batch, type(study), store, origin)
        waiting = deque(type(study).batches(missing))
        shared = isinstance(workers, Workers)
        with (
            nullcontext(workers) if shared else Workers(min(workers, len(waiting))) as crew,
            bar(study.name, len(missing), shown=progress) as show,
        ):

            def finished(succeeded: Sequence[bool]) -> None:
                outcomes.extend(succeeded)
                show(len(outcomes))

            while waiting:
                suspects = _run(waiting, task, crew, finished)
                if suspects:
                    _require_workers(task)
                for batch in suspects:
                    if len(batch) > 1:
                        waiting.extend((trial,) for trial in batch)
                    # Whichever trial killed the pool kills a worker of its own as well.
                    else:
                        with Workers(1) as alone:
                            died = _run(deque([batch]), task, alone, finished)
                        if died:
                            store.put(_record(batch[0], origin, 0.0, {}, _DIED))
                            finished([False])
    return SweepSummary(
        ran=sum(outcomes),
        cached=len(trials) - len(missing),
        failed=len(outcomes) - sum(outcomes),
        seconds=time.monotonic() - started,
    )


def run_batch(
    study: type[Study], store: ResultStore, origin: Mapping[str, Any], batch: Sequence[Trial]
) -> list[bool]:
    """Measure trials together and write their records; whether each succeeded.

    Where that raises, those without a record are measured one by one. The seconds of a record are
    those since the one before it. Trainings keep their checkpoints in the folder of the first
    trial, so that the same batch, or that trial alone, finds them again.
    """
    left = dict.fromkeys(trial for trial in batch if trial not in store)
    # The others were finished by another sweep in the meantime.
    succeeded = [True] * (len(batch) - len(left))
    if not left:
        return succeeded
    origin = {**origin, "threads": os.environ.get("OMP_NUM_THREADS", "default")}
    folder = _scratch(store, next(iter(left)))
    started = time.monotonic()
    try:
        with scratch.kept_in(folder):
            for trial, metrics in study.measure_together(tuple(left)):
                store.put(_record(trial, origin, time.monotonic() - started, metrics, None))
                del left[trial]
                succeeded.append(True)
                started = time.monotonic()
        if left:
            raise RuntimeError(f"measure_together of {study.name!r} left out {len(left)} trials")
    except Exception:
        if len(batch) == 1:
            error = traceback.format_exc()
            store.put(_record(batch[0], origin, time.monotonic() - started, {}, error))
            return [False]
        for trial in left:
            succeeded += run_batch(study, store, origin, (trial,))
    else:
        scratch.discard(folder)
    return succeeded


def _run(
    waiting: deque[Sequence[Trial]],
    task: Callable[[Sequence[Trial]], list[bool]],
    workers: Workers,
    finished: Callable[[list[bool]], None],
) -> list[Sequence[Trial]]:
    """Run the waiting batches until none is left or the pool breaks.

    Returns the batches that were in flight when it broke. No more than twice as many batches are
    submitted as there are workers, so that these are few and a large grid costs no memory.
    """
    running: dict[Future[list[bool]], Sequence[Trial]] = {}
    try:
        with workers.pool() as pool:
            while waiting or running:
                while waiting and len(running) < max(1, 2 * workers.count):
                    future = pool.submit(task, waiting[0])
                    running[future] = waiting.popleft()
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    finished(future.result())
                    del running[future]
    except BrokenExecutor:
        return list(running.values())
    return []


def _require_workers(task: Callable[..., object]) -> None:
    """RuntimeError where no worker can even load the task: then no trial is to blame."""
    try:
        with executor(1) as pool:
            pool.submit(repr, task).result()
    except BrokenExecutor as error:
        raise RuntimeError(
            "worker processes cannot start, their own error is above; a script that sweeps has to "
            "do so under `if __name__ == '__main__':`, or with workers=0"
        ) from error


def _scratch(store: ResultStore, trial: Trial) -> Path:
    return store.root / ".training" / trial.key


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
