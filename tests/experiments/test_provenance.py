"""Provenance without imports, and without a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy
import pytest

from experiments import provenance


def test_facts():
    facts = provenance.collect()
    assert facts["versions"]["numpy"] == numpy.__version__
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["cpus"] >= 1
    json.dumps(facts, allow_nan=False)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    run = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        check=True,
        capture_output=True,
        text=True,
    )
    return run.stdout.strip()


def test_commit_of_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "_PROJECT", tmp_path.resolve())
    assert provenance.collect()["commit"] is None
    git(tmp_path, "init")
    assert provenance.collect()["commit"] is None
    git(tmp_path, "commit", "--allow-empty", "-m", "first")
    facts = provenance.collect()
    assert (facts["commit"], facts["dirty"]) == (git(tmp_path, "rev-parse", "HEAD"), False)
    (tmp_path / "new.py").touch()
    assert provenance.collect()["dirty"] is True


def test_checkout_that_merely_contains_us_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    git(tmp_path, "init")
    git(tmp_path, "commit", "--allow-empty", "-m", "theirs")
    inside = tmp_path / "site-packages"
    inside.mkdir()
    monkeypatch.setattr(provenance, "_PROJECT", inside.resolve())
    assert provenance.collect()["commit"] is None
