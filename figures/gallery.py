"""The figures on disk: drawn from what is in the store, or why they are not."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pandas import DataFrame

from experiments import provenance
from experiments.executors import Serial
from experiments.store import ResultStore
from experiments.studies import load
from figures.panels import NothingToDrawError
from figures.plates import GALLERY
from figures.style import paper, save

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Drawn:
    """A figure on disk."""

    name: str
    caption: str
    png: Path
    pdf: Path


def draw_all(
    store: ResultStore,
    folder: Path,
    preset: str = "quick",
    names: Iterable[str] = GALLERY,
    executor: Executor | None = None,
) -> list[Drawn]:
    """Draw the named figures all of whose studies have rows in the store; log the others."""
    executor = executor or Serial()
    origin = provenance.collect()
    tasks = [executor.submit(_draw, store, folder, preset, name, origin) for name in names]
    drawn = []
    for task in tasks:
        result = task.result()
        if isinstance(result, Drawn):
            drawn.append(result)
        else:
            _log.warning("%s", result)
    return drawn


def _draw(
    store: ResultStore, folder: Path, preset: str, name: str, origin: Mapping[str, Any]
) -> Drawn | str:
    """The figure on disk, or why it was not drawn."""
    plate = GALLERY[name]
    tables = []
    for study in plate.studies:
        table = _table(store, study, preset)
        if isinstance(table, str):
            return f"figure {name} not drawn: {table}"
        tables.append(table)
    with paper():
        try:
            figure = plate.draw(*tables)
        except NothingToDrawError as reason:
            return f"figure {name} not drawn: {reason} in {', '.join(plate.studies)} at {preset}"
        png, pdf = save(figure, folder, name, origin)
    return Drawn(name, plate.caption, png, pdf)


def _table(store: ResultStore, study: str, preset: str) -> DataFrame | str:
    """What a figure sees of a study at a preset, or why there is nothing to see."""
    kind = load(study)
    rows = store.rows(kind.at(preset)) if preset in kind.presets else None
    if rows is None or rows.empty:
        return f"no rows of {study} at {preset}"
    try:
        return kind.table(rows)
    except ValueError as problem:  # rows that do not make up a single capacity
        return f"rows of {study} at {preset}: {problem}"
