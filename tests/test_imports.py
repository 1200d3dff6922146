"""What importing `bounds` may cost, and which package may import which."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("torch", "matplotlib", "pandas", "rich", "tyro")
MODULES = sorted(path.stem for path in (ROOT / "bounds").glob("*.py") if path.stem != "__init__")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, timeout=120
    )


def loaded(modules: list[str], packages: tuple[str, ...]) -> str:
    """Which of `packages` a fresh interpreter has loaded after importing `modules`."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module('bounds.' + name)\n"
        f"print(*[name for name in {packages!r} if name in sys.modules])"
    )
    done = run("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_bounds_import_without_heavy_packages():
    assert loaded(MODULES, HEAVY) == ""


def test_numbers_need_no_computer_algebra():
    """Computing and auditing a bound takes NumPy and mpmath alone."""
    assert loaded(["generalization", "audit", "matrices"], ("sympy", "scipy.linalg", "flint")) == ""


@pytest.mark.parametrize("module", MODULES)
def test_each_module_imports_on_its_own(module):
    """No import cycle hides behind another import."""
    assert importlib.util.find_spec(f"bounds.{module}") is not None
    done = run("-c", f"import bounds.{module}")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(
    not all((ROOT / name / "__init__.py").exists() for name in ("experiments", "figures")),
    reason="the contracts speak of experiments and figures",
)
def test_imports_go_one_way():
    done = run(
        "-c", "from importlinter.cli import lint_imports_command as main; main(['--no-cache'])"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout
