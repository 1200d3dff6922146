"""Where numbers come from: commit, versions and machine, as recorded beside every result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from experiments import device

_PROJECT = Path(__file__).resolve().parent.parent
_PACKAGES = ("seqtheory", "numpy", "scipy", "pandas", "torch")


def collect() -> dict[str, Any]:
    """Provenance of a result computed now, by this code, on this machine.

    Versions come from package metadata, so that nothing is imported for the sake of its number.
    """
    commit = _commit()
    return {
        "commit": commit,
        "dirty": None if commit is None else bool(_git("status", "--porcelain")),
        "python": platform.python_version(),
        "versions": _versions(),
        "host": platform.node(),
        "platform": platform.platform(),
        "cpus": available_cpus(),
        "device": device.chosen(),
    }


def available_cpus() -> int:
    """The CPUs this process may use, which on shared machines are fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str | None:
    """The checked-out commit; None where the project folder is not the top of a checkout.

    An installed copy may lie inside somebody else's checkout, whose commit says nothing about us.
    """
    if Path(_git("rev-parse", "--show-toplevel") or "/").resolve() != _PROJECT:
        return None
    return _git("rev-parse", "--verify", "HEAD")


def _git(*arguments: str) -> str | None:
    command = ["git", "-C", str(_PROJECT), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return run.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
