"""Records: round trips, atomic writes, torn and foreign files."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.store import Record, ResultStore
from experiments.study import Trial
from experiments.sweep import sweep
from tests.experiments.toy import Toy

TRIAL = Trial("toy", 1, {"size": 1, "dims": (1, 2)})


def record(metrics: dict[str, Any], **changes: Any) -> Record:
    fields: dict[str, Any] = {
        "trial": TRIAL,
        "status": "ok",
        "metrics": metrics,
        "error": None,
        "seconds": 0.5,
        "provenance": {"commit": None},
        "finished": "2024-01-01T00:00:00+00:00",
    }
    return Record(**{**fields, **changes})


def test_round_trip(tmp_path: Path):
    store = ResultStore(tmp_path)
    metrics = {
        "count": np.int64(3),
        "loss": 0.1,
        "vacuous": float("inf"),
        "broken": float("nan"),
        "solved": np.True_,
        "note": "ä|b",
        "curve": np.arange(6, dtype=np.float32).reshape(2, 3),
        "labels": np.array(["a", "bc"]),
    }
    store.put(record(metrics))
    found = store.get(TRIAL)
    assert TRIAL in store
    assert found is not None
    assert found.trial == TRIAL
    assert found.trial.config == TRIAL.config
    assert list(found.metrics) == list(metrics)
    assert (found.metrics["count"], found.metrics["solved"]) == (3, True)
    assert found.metrics["vacuous"] == float("inf")
    assert np.isnan(found.metrics["broken"])
    for name in ("curve", "labels"):
        np.testing.assert_array_equal(found.metrics[name], metrics[name])
        assert found.metrics[name].dtype == metrics[name].dtype
    text = (tmp_path / "toy" / f"{TRIAL.key}.json").read_text()
    json.loads(text, parse_constant=pytest.fail)  # strict JSON: no NaN or Infinity


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"thing": object()}, "'thing' is a object"),
        ({"list": [1, 2]}, "'list' is a list"),
        ({"nothing": None}, "'nothing' is a NoneType"),
        ({"pickled": np.array([object()])}, "'pickled' is a ndarray"),
        ({"size": 2}, "'size' has the name of an axis"),
    ],
)
def test_metric_that_cannot_be_stored_is_named(
    tmp_path: Path, metrics: dict[str, Any], message: str
):
    store = ResultStore(tmp_path)
    with pytest.raises(ValueError, match=message):
        store.put(record(metrics))
    assert not list(tmp_path.rglob("*.*"))


def test_failed_trial_has_a_record_and_is_not_finished(tmp_path: Path):
    store = ResultStore(tmp_path)
    store.put(record({}, status="failed", error="Traceback"))
    found = store.get(TRIAL)
    assert found is not None
    assert found.error == "Traceback"
    assert TRIAL not in store
    assert store.rows("toy").empty


@pytest.mark.parametrize("replaces", [False, True])
def test_interrupted_write_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool
):
    store = ResultStore(tmp_path)
    if replaces:
        store.put(record({"value": 1}))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        store.put(record({"value": 2, "curve": np.ones(3)}))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def whole_record(tmp_path: Path) -> tuple[ResultStore, Path]:
    store = ResultStore(tmp_path)
    store.put(record({"curve": np.ones(50), "value": 1}))
    return store, tmp_path / "toy" / f"{TRIAL.key}.json"


def assert_unreadable(store: ResultStore, caplog: pytest.LogCaptureFixture, path: Path):
    with caplog.at_level(logging.WARNING):
        assert TRIAL not in store
    assert str(path) in caplog.text
    assert store.rows("toy").empty


@pytest.mark.parametrize("kept", [0, 1, 20, -3])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_torn_file_counts_as_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kept: int, suffix: str
):
    store, path = whole_record(tmp_path)
    torn = path.with_suffix(suffix)
    torn.write_bytes(torn.read_bytes()[:kept])
    assert_unreadable(store, caplog, path)


@pytest.mark.parametrize(
    "text", ["null", "[]", "3", "{}", '{"schema": 99}', '{"schema": 1, "config": []}', "\udcff"]
)
def test_foreign_file_counts_as_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
):
    store, path = whole_record(tmp_path)
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert_unreadable(store, caplog, path)


def test_record_under_another_key_counts_as_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    store, path = whole_record(tmp_path)
    path.write_text(path.read_text().replace('"size": 1', '"size": 2'))
    assert_unreadable(store, caplog, path)


def test_missing_arrays_count_as_not_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    store, path = whole_record(tmp_path)
    path.with_suffix(".npz").unlink()
    assert_unreadable(store, caplog, path)


def test_rows_of_a_study_are_its_own_in_grid_order(tmp_path: Path):
    store = ResultStore(tmp_path)
    sweep(Toy(sizes=(1, 2, 4), seeds=2), store, workers=0)
    rows = store.rows(Toy(sizes=(4, 1), seeds=1))
    assert rows["size"].tolist() == [4, 1]
    assert list(rows.columns[:5]) == ["size", "seed", "delay", "deed", "folder"]
    assert rows["path"].dtype == object
    assert rows["path"][0].shape == (200,)
    assert len(store.rows("toy")) == 6
    assert store.rows("unheard-of").empty


def test_rows_by_name_are_of_the_newest_version(tmp_path: Path):
    store = ResultStore(tmp_path)
    store.put(record({"value": 1}))
    store.put(record({"value": 2}, trial=Trial("toy", 2, TRIAL.config)))
    assert store.rows("toy")["value"].tolist() == [2]


def test_only_old_temporary_files_are_discarded(tmp_path: Path):
    folder = tmp_path / "toy"
    folder.mkdir()
    old, new = folder / "a.json.1.tmp", folder / "a.json.2.tmp"
    old.touch()
    new.touch()
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    ResultStore(tmp_path).discard_stale("toy")
    assert not old.exists()
    assert new.exists()
