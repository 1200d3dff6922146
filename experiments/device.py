"""The device trials compute on: chosen for a whole run, inherited by its workers."""

from __future__ import annotations

import os

VARIABLE = "SEQTHEORY_DEVICE"


def chosen() -> str:
    """A torch device, "cpu" unless the run was started with another."""
    return os.environ.get(VARIABLE, "cpu")
