"""Sweeps: caching, failures, dying workers, Ctrl-C, two at once, and SIGKILL at random moments."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from experiments import provenance
from experiments.executors import ProcessPool
from experiments.store import ResultStore
from experiments.sweep import sweep
from tests.experiments.toy import Together, Toy

_PATIENCE = 60
"""Seconds after which a condition that must come true is given up."""


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def start(study: Toy, root: Path, workers: int) -> subprocess.Popen[bytes]:
    """A sweep in a process, and a process group, of its own."""
    script = (
        # What starts the tests in the background has interrupts ignored, in its children too.
        "import signal\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from pathlib import Path\n"
        "from experiments.store import ResultStore\n"
        "from experiments.sweep import sweep\n"
        "from tests.experiments.toy import Together, Toy\n"
        f"sweep({study!r}, ResultStore(Path({str(root)!r})), workers={workers})\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        start_new_session=True,
        stderr=subprocess.PIPE,
        env=_environment(),
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=_PATIENCE)
    return process.returncode, errors.decode()


def contents(root: Path) -> dict[Path, bytes]:
    """Every record and array file; temporary files are not results."""
    return {path: path.read_bytes() for path in root.rglob("*") if path.suffix in (".json", ".npz")}


def session_members(session: int) -> set[int]:
    members = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            members.add(int(status.parent.name))
    return members


def assert_same_as_undisturbed(study: Toy, root: Path, undisturbed: Path) -> None:
    stores = ResultStore(root), ResultStore(undisturbed)
    sweep(study, stores[1], workers=0)
    tables = [store.rows(study) for store in stores]
    pandas.testing.assert_frame_equal(*tables)
    names = [sorted(path.name for path in contents(store.root)) for store in stores]
    assert names[0] == names[1]
    assert len(names[0]) == 2 * len(study.trials())


@pytest.mark.parametrize("workers", [0, 2])
def test_runs_what_is_missing(tmp_path: Path, workers: int):
    store = ResultStore(tmp_path)
    first = sweep(Toy(sizes=(1,)), store, workers, progress=False)
    assert (first.ran, first.cached, first.failed) == (3, 0, 0)
    second = sweep(Toy(sizes=(1, 2)), store, workers, progress=False)
    assert (second.ran, second.cached, second.failed) == (3, 3, 0)
    before = contents(tmp_path)
    third = sweep(Toy(sizes=(1, 2)), store, workers, progress=False)
    assert (third.ran, third.cached, third.failed) == (0, 6, 0)
    assert contents(tmp_path) == before


def test_results_do_not_depend_on_the_executor(tmp_path: Path):
    sweep(Toy(), ResultStore(tmp_path / "pool"), workers=2)
    assert_same_as_undisturbed(Toy(), tmp_path / "pool", tmp_path / "serial")


def test_record_tells_where_it_comes_from(tmp_path: Path):
    store = ResultStore(tmp_path)
    sweep(Toy(sizes=(1,), seeds=1), store, workers=1)
    record = store.get(Toy().trials()[0])
    assert record is not None
    expected = provenance.collect()
    assert {name: record.provenance[name] for name in expected} == expected
    assert record.provenance["threads"] == os.environ.get("OMP_NUM_THREADS", "1")
    assert record.seconds >= 0
    assert record.finished.endswith("+00:00")


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("raise", "ArithmeticError: no luck with size 1"),
        ("return-object", "ValueError: metric 'value' is a object"),
    ],
)
def test_failure_is_recorded_with_its_traceback(
    tmp_path: Path, deed: str, message: str, workers: int
):
    study = Toy(sizes=(1,), seeds=1, deeds=("obey", deed))
    store = ResultStore(tmp_path)
    summary = sweep(study, store, workers)
    assert (summary.ran, summary.failed) == (1, 1)
    (failure,) = store.failures(study)
    assert failure.trial.config["deed"] == deed
    assert message in (failure.error or "")
    assert "Traceback" in (failure.error or "")
    assert store.rows(study)["deed"].tolist() == ["obey"]


def test_failed_trial_is_tried_again(tmp_path: Path):
    study = Toy(sizes=(1,), seeds=2, deeds=("need-mark",), folder=str(tmp_path))
    store = ResultStore(tmp_path / "results")
    assert sweep(study, store, workers=0).failed == 2
    (tmp_path / "mark").touch()
    summary = sweep(study, store, workers=0)
    assert (summary.ran, summary.cached, summary.failed) == (2, 0, 0)
    assert not store.failures(study)


def test_dying_worker_costs_its_own_trial_only(tmp_path: Path):
    study = Toy(sizes=(1, 2, 4), seeds=2, deeds=("die",))
    store = ResultStore(tmp_path)
    summary = sweep(study, store, workers=2)
    assert (summary.ran, summary.failed) == (5, 1)
    (failure,) = store.failures(study)
    assert (failure.trial.config["size"], failure.trial.config["seed"]) == (2, 0)
    assert "worker process died" in (failure.error or "")


def test_workers_that_cannot_start_are_no_fault_of_the_trials(tmp_path: Path):
    """The classic mistake: a script without a main guard."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from experiments.store import ResultStore\n"
        "from experiments.sweep import sweep\n"
        "from tests.experiments.toy import Toy\n"
        f"sweep(Toy(), ResultStore(Path({str(tmp_path)!r})), workers=1)\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, env=_environment()
    )
    assert run.returncode == 1
    assert "worker processes cannot start" in run.stderr.splitlines()[-1]
    assert not contents(tmp_path)


def test_negative_number_of_workers(tmp_path: Path):
    with pytest.raises(ValueError, match="workers must be 0 or more"):
        sweep(Toy(), ResultStore(tmp_path), workers=-1)


def test_interrupt_in_this_process_keeps_what_is_done(tmp_path: Path):
    study = Toy(sizes=(1,), seeds=1, deeds=("obey", "interrupt"))
    with pytest.raises(KeyboardInterrupt):
        sweep(study, ResultStore(tmp_path), workers=0)
    assert len(contents(tmp_path)) == 2


def test_leaving_a_pool_by_an_exception_does_not_wait(tmp_path: Path):
    """The worker would sleep for an hour."""

    def interrupted() -> None:
        with ProcessPool(1) as pool:
            started = pool.submit(time.sleep, 3600)
            pool.submit(time.sleep, 3600)
            wait_until(started.running)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_ctrl_c_stops_the_workers_and_keeps_what_is_done(tmp_path: Path):
    process = start(Toy(sizes=tuple(range(1, 200)), seeds=1, delay=0.05), tmp_path, workers=2)
    wait_until(lambda: len(contents(tmp_path)) >= 4)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = finish(process)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    wait_until(lambda: not session_members(process.pid))
    assert 4 <= len(contents(tmp_path)) < 2 * 199


def test_two_sweeps_on_one_store(tmp_path: Path):
    study = Toy(sizes=tuple(range(1, 11)), seeds=2, delay=0.02)
    sweeps = [start(study, tmp_path / "shared", workers=1) for _ in range(2)]
    assert [finish(process) for process in sweeps] == [(0, ""), (0, "")]
    assert_same_as_undisturbed(study, tmp_path / "shared", tmp_path / "alone")


def kill(study: Toy, root: Path, *, files: int, delay: float, whole_group: bool) -> None:
    """Run a sweep until the store has so many files and a little longer; SIGKILL it."""
    process = start(study, root, workers=2)
    wait_until(lambda: len(contents(root)) >= files)
    time.sleep(delay)
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=_PATIENCE)  # a surviving worker would keep the pipe open
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not session_members(process.pid))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_sigkill_at_random_moments_loses_nothing_finished(tmp_path: Path):
    """Twelve times a sweep is killed, mostly its parent alone, and resumed."""
    study = Toy(sizes=tuple(range(1, 51)), seeds=2, delay=0.02)
    root = tmp_path / "killed"
    moments = random.Random(20240611)
    survived: dict[Path, bytes] = {}
    for attempt in range(12):
        files = len(survived) + moments.randrange(10)
        kill(study, root, files=files, delay=moments.uniform(0, 0.05), whole_group=attempt % 4 == 3)
        found = contents(root)
        assert survived.items() <= found.items(), "a finished record was changed or lost"
        for path in found:
            if path.suffix == ".json":
                assert json.loads(path.read_bytes())["key"] == path.stem
                assert path.with_suffix(".npz") in found
        # Arrays whose record was not written yet belong to no finished trial.
        survived = {
            path: data for path, data in found.items() if path.with_suffix(".json") in found
        }
    assert 0 < len(survived) < 2 * len(study.trials()), "the kills hit no running sweep"
    assert finish(start(study, root, workers=2)) == (0, "")
    assert survived.items() <= contents(root).items()
    assert_same_as_undisturbed(study, root, tmp_path / "undisturbed")


def batch_sizes(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "batches").read_text().split()]


@pytest.mark.parametrize("workers", [0, 2])
def test_measuring_together_gives_the_same_records(tmp_path: Path, workers: int):
    study = Together(sizes=(1, 2, 4, 8, 16), seeds=2, folder=str(tmp_path))
    store = ResultStore(tmp_path / "results")
    summary = sweep(study, store, workers)
    assert (summary.ran, summary.cached, summary.failed) == (10, 0, 0)
    assert sorted(batch_sizes(tmp_path)) == [2, 4, 4]
    for trial in study.trials():
        record = store.get(trial)
        assert record is not None
        expected = Together.measure(trial.rng, **trial.config)
        assert record.metrics["value"] == expected["value"]
        assert (record.metrics["path"] == expected["path"]).all()


def test_only_missing_trials_are_measured_together(tmp_path: Path):
    store = ResultStore(tmp_path / "results")
    few = Together(sizes=(1, 2), seeds=3, folder=str(tmp_path))
    sweep(few, store, workers=0)
    (tmp_path / "batches").unlink()
    summary = sweep(Together(sizes=(1, 2, 4), seeds=3, folder=str(tmp_path)), store, workers=0)
    assert (summary.ran, summary.cached) == (3, 6)
    assert batch_sizes(tmp_path) == [3]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("raise", "ArithmeticError: no luck"),
        ("return-object", "ValueError: metric 'value' is a object"),
        ("leave-out", "RuntimeError: measure_together of 'together' left out 1 trials"),
    ],
)
def test_failure_in_a_batch_is_that_of_its_trial(
    tmp_path: Path, deed: str, message: str, workers: int
):
    study = Together(sizes=(1, 2), seeds=1, deeds=("obey", deed))
    store = ResultStore(tmp_path)
    summary = sweep(study, store, workers)
    assert (summary.ran, summary.failed) == (2, 2)
    failures = store.failures(study)
    assert [failure.trial.config["deed"] for failure in failures] == [deed, deed]
    assert all(message in (failure.error or "") for failure in failures)
    assert store.rows(study)["deed"].tolist() == ["obey", "obey"]


def test_dying_worker_costs_one_trial_of_its_batch(tmp_path: Path):
    study = Together(sizes=(1, 2, 4), seeds=2, deeds=("die",))
    store = ResultStore(tmp_path)
    summary = sweep(study, store, workers=1)
    assert (summary.ran, summary.failed) == (5, 1)
    (failure,) = store.failures(study)
    assert (failure.trial.config["size"], failure.trial.config["seed"]) == (2, 0)
    assert "worker process died" in (failure.error or "")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads Linux's /proc")
def test_sigkill_in_the_middle_of_a_batch_keeps_its_finished_trials(tmp_path: Path):
    study = Together(sizes=(1, 2, 4, 8), seeds=1, delay=0.3)
    root = tmp_path / "killed"
    kill(study, root, files=4, delay=0, whole_group=False)
    survived = {path: data for path, data in contents(root).items() if path.suffix == ".json"}
    assert 2 <= len(survived) < 4, "the kill hit no running batch"
    summary = sweep(study, ResultStore(root), workers=0)
    assert (summary.ran, summary.cached) == (4 - len(survived), len(survived))
    assert survived.items() <= contents(root).items()
