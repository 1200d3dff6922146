"""Progress of long work on terminals: `bar`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def bar(
    title: str, total: int, *, shown: bool, details: str = "", **fields: Any
) -> Iterator[Callable[..., object]]:
    """A progress bar with the expected end, on terminals; logs and pipes get nothing.

    What it yields takes how much is done, and new values of the `fields` that `details` name.
    """
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
        MofNCompleteColumn(),
        BarColumn(),
        *([TextColumn(details)] if details else []),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not (shown and console.is_terminal)) as drawn:
        task = drawn.add_task(title, total=total, **fields)
        yield lambda done, **values: drawn.update(task, completed=done, **values)
