"""Results on disk: one JSON record per trial, arrays beside it, each written atomically."""

from __future__ import annotations

import json
import logging
import math
import time
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import numpy as np

from experiments.atomic import replacing
from experiments.study import Study, Trial

if TYPE_CHECKING:
    import pandas

_SCHEMA = 1
_STALE_SECONDS = 24 * 3600
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    zipfile.BadZipFile,
)
"""What reading a torn or foreign file can raise."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Record:
    """What became of one trial. A failed trial has an `error` (its traceback) and no metrics."""

    trial: Trial
    status: Literal["ok", "failed"]
    metrics: Mapping[str, Any]
    error: str | None
    seconds: float
    provenance: Mapping[str, Any]
    finished: str
    """End of the trial, UTC, ISO 8601."""


@dataclass(frozen=True)
class ResultStore:
    """A folder `root` with the records `<study>/<key>.json` and their arrays `<study>/<key>.npz`.

    Every file appears whole or not at all, and the arrays before the record that refers to them, so
    a record that can be read is complete however its writer ended. Several processes may write to
    one store: they write the same numbers under the same key.
    """

    root: Path

    def __contains__(self, trial: Trial) -> bool:
        record = self.get(trial)
        return record is not None and record.status == "ok"

    def get(self, trial: Trial) -> Record | None:
        """The record of a trial; None where there is none, or none that can be read."""
        path = self._path(trial, "json")
        return _read(path) if path.exists() else None

    def put(self, record: Record) -> None:
        """Write a record; ValueError names a metric that cannot be stored."""
        metrics, arrays = _encode(record.metrics, record.trial)
        content = {
            "schema": _SCHEMA,
            "study": record.trial.study,
            "version": record.trial.version,
            "key": record.trial.key,
            "config": record.trial.config,
            "status": record.status,
            "metrics": metrics,
            "error": record.error,
            "seconds": record.seconds,
            "provenance": record.provenance,
            "finished": record.finished,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        path = self._path(record.trial, "json")
        path.parent.mkdir(parents=True, exist_ok=True)
        if arrays:
            with replacing(path.with_suffix(".npz")) as file:
                _save_arrays(file, arrays)
        with replacing(path) as file:
            file.write(text.encode())

    def rows(self, study: Study | str) -> pandas.DataFrame:
        """Config and metrics of the finished trials, one row each; arrays as an object column.

        For a study, its own trials in the order of its grid; for a name, everything the store holds
        of the newest version there is of it.
        """
        import pandas

        if isinstance(study, Study):
            found = [self.get(trial) for trial in study.trials()]
        else:
            found = list(self._records(study))
        finished = [record for record in found if record is not None and record.status == "ok"]
        newest = max((record.trial.version for record in finished), default=0)
        return pandas.DataFrame(
            [
                {**record.trial.config, **record.metrics}
                for record in finished
                if record.trial.version == newest
            ]
        )

    def failures(self, study: Study) -> list[Record]:
        """The records of the study's failed trials, in the order of its grid."""
        found = (self.get(trial) for trial in study.trials())
        return [record for record in found if record is not None and record.status == "failed"]

    def discard_stale(self, study: str) -> None:
        """Remove the temporary files of writers that were killed a day ago or earlier."""
        for path in (self.root / study).glob("*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue  # another sweep removed it first

    def _records(self, study: str) -> Iterator[Record]:
        for path in sorted((self.root / study).glob("*.json")):
            record = _read(path)
            if record is not None:
                yield record

    def _path(self, trial: Trial, suffix: str) -> Path:
        return self.root / trial.study / f"{trial.key}.{suffix}"


def _save_arrays(file: IO[bytes], arrays: Mapping[str, Any]) -> None:
    np.savez(file, **arrays)


def _read(path: Path) -> Record | None:
    """The record at `path`; None, with a warning, where the file is not a whole record of ours."""
    try:
        content = json.loads(path.read_bytes())
        if content["schema"] != _SCHEMA:
            raise ValueError(f"schema {content['schema']}")
        config = {name: _tuples(value) for name, value in content["config"].items()}
        trial = Trial(content["study"], content["version"], config)
        if (trial.key, trial.study) != (path.stem, path.parent.name):
            raise ValueError("its content is that of another trial")
        return Record(
            trial=trial,
            status=content["status"],
            metrics=_decode(content["metrics"], path.with_suffix(".npz")),
            error=content["error"],
            seconds=content["seconds"],
            provenance=content["provenance"],
            finished=content["finished"],
        )
    except _UNREADABLE as error:
        _log.warning("%s is not a readable record (%s); its trial counts as not run", path, error)
        return None


def _encode(
    metrics: Mapping[str, Any], trial: Trial
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Metrics as strict JSON, and the arrays that go beside it.

    JSON has no infinities, which are legitimate results (a vacuous bound): they become
    {"float": "inf"}, and arrays {"array": dtype and shape}.
    """
    plain: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for name, value in metrics.items():
        if name in trial.config:
            raise ValueError(f"metric {name!r} has the name of an axis")
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufcU":
            arrays[name] = value
            plain[name] = {"array": f"{value.dtype}{list(value.shape)}"}
        elif isinstance(value, float) and not math.isfinite(value):
            plain[name] = {"float": str(value)}
        elif isinstance(value, bool | int | float | str):
            plain[name] = value
        else:
            kind = type(value).__name__
            raise ValueError(f"metric {name!r} is a {kind}, not a number, text or array of them")
    return plain, arrays


def _decode(metrics: Mapping[str, Any], beside: Path) -> dict[str, Any]:
    decoded = {
        name: float(value["float"]) if isinstance(value, dict) and "float" in value else value
        for name, value in metrics.items()
    }
    names = [name for name, value in decoded.items() if isinstance(value, dict)]
    if names:
        with beside.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            decoded.update({name: arrays[name] for name in names})
    return decoded


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
