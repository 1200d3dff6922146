"""The bounds of a trained model, term by term: `python -m experiments audit FILE`.

For every selective SSM in a checkpoint: the quantities the theory needs, the range of its output,
and the bounds on its generalization gap, twice. *At the trained norms* the class depends on the
sample, so that its numbers are no theorem. *Stratified* they are one: the class is chosen from a
countable family fixed in advance, and the choice is paid for (`bounds.stratification`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro


@dataclass(frozen=True)
class Options:
    """The bounds of a trained model, term by term."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """A .safetensors, .pt, .pth or .bin checkpoint, or a folder that holds one."""
    data: Path | None = None
    """Sequences to run the model on: token ids or inputs in a .npy, .npz or .csv file."""
    length: int | None = None
    """Sequence length T; by default that of the longest sequence of the data, else 1000."""
    samples: int = 1000
    """Number m of independent training sequences."""
    delta: float = 0.05
    """The bounds hold with probability 1 - delta."""
    margin: float = 1.0
    """Margin of the ramp loss, which bounds the classification error."""
    train_error: float | None = None
    """Training error of the model quantised to `bits`: adds the Occam bound of that model."""
    bits: int = 8
    """Bits of a weight in the Occam bound, chosen before seeing the data."""
    explain: bool = False
    """Print every term of every bound with its formula."""
    json: Path | None = None
    """Write the whole report there as well."""


def main(argv: Sequence[str]) -> int:
    """Audit one checkpoint; 0, or 2 with one line on stderr where it cannot be audited."""
    options = tyro.cli(
        Options, args=list(argv), prog="python -m experiments audit", description=__doc__
    )
    from experiments.audit_report import audit_checkpoint
    from experiments.audit_text import show
    from experiments.checkpoint import CheckpointError

    try:
        report = audit_checkpoint(
            options.file,
            data=options.data,
            length=options.length,
            samples=options.samples,
            delta=options.delta,
            margin=options.margin,
            train_error=options.train_error,
            bits=options.bits,
        )
        if options.json is not None:
            text = json.dumps(report.as_dict(), indent=1, allow_nan=False)
            options.json.write_text(text + "\n", encoding="utf-8")
    except (CheckpointError, OSError, MemoryError) as error:
        return _refuse(str(error) or "not enough memory")
    except ValueError as error:  # a malformed option, named by the check it fails
        return _refuse(str(error))
    show(report, explain=options.explain)
    return 0


def _refuse(message: str) -> int:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    return 2
