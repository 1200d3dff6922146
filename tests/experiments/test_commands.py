"""The command line: what it prints, its exit statuses, and what it does not import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from experiments import commands
from experiments.commands import main
from experiments.store import ResultStore
from experiments.studies import STUDIES
from tests.experiments.toy import Toy


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The toy and the rare study are all there is, in an empty folder."""
    for name in list(STUDIES):
        monkeypatch.delitem(STUDIES, name)
    monkeypatch.setitem(STUDIES, "toy", "tests.experiments.toy:Toy")
    monkeypatch.setitem(STUDIES, "rare", "tests.experiments.toy:Rare")
    monkeypatch.setattr(commands, "_FIGURES", "tests.experiments.toy")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


def status_of(line: str) -> int:
    """The exit status of a command line, also where the parser exits by itself."""
    try:
        return main(line.split())
    except SystemExit as stopped:
        return int(stopped.code or 0)


def test_help_is_light():
    script = (
        "import sys\n"
        "from experiments.commands import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as stopped:\n"
        "    assert stopped.code == 0\n"
        "heavy = {'torch', 'matplotlib', 'pandas', 'scipy', 'sympy'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or None)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=Path(commands.__file__).parent.parent,
    )
    assert (run.returncode, run.stderr) == (0, "")
    for command in ("run", "verify", "list", "claims", "audit", "bench"):
        assert command in run.stdout


def test_runs_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "experiments", "run", "no-such-study"],
        capture_output=True,
        text=True,
        cwd=Path(commands.__file__).parent.parent,
    )
    assert run.returncode == 2
    assert run.stderr.startswith("error: unknown study 'no-such-study'; the studies are: ")
    assert run.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run tyo", "error: unknown study 'tyo'; the studies are: toy, rare\n"),
        ("run rare", "error: study 'rare' has no preset 'quick'; its presets: paper\n"),
        ("run toy --workers -1", "error: --workers is 0 or more, not -1\n"),
        ("run toy --seeds 0 --workers 0", "error: axis 'seed' is empty\n"),
    ],
)
def test_refusals_are_one_line(capsys: pytest.CaptureFixture[str], line: str, message: str):
    assert status_of(line) == 2
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("line", ["", "run", "run toy --sizzes 3", "run toy --seeds x", "dance"])
def test_wrong_options_exit_with_2(capsys: pytest.CaptureFixture[str], line: str):
    assert status_of(line) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_run_with_overridden_axes(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    line = "run toy --sizes 1 2 8 --workers 0 --results kept --seeds 2"
    assert status_of(line) == 0
    assert len(ResultStore(tmp_path / "kept").rows(Toy(sizes=(1, 2, 8), seeds=2))) == 6
    output = capsys.readouterr()
    assert "toy: 6 ran, 0 cached, 0 failed" in output.err
    assert "refuted (expected: refuted)" in output.out
    assert status_of(line) == 0
    assert "toy: 0 ran, 6 cached, 0 failed" in capsys.readouterr().err


def test_help_of_a_study_lists_its_axes(capsys: pytest.CaptureFixture[str]):
    assert status_of("run toy --help") == 0
    output = capsys.readouterr().out
    assert "--sizes" in output
    assert "Sizes to double." in output


def test_verify_writes_the_report(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert status_of("verify --workers 0") == 0
    output = capsys.readouterr().out
    assert "report/report.md" in output
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "A &lt;toy&gt; figure, quick" in page
    assert "python -m experiments run rare --preset paper" in page


def test_contradiction_and_unusable_rows_exit_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(STUDIES, "wrong", "tests.experiments.toy:Wrong")
    assert status_of("run wrong --workers 0") == 1
    output = capsys.readouterr().out
    assert "refuted (expected: supported)" in output
    assert "needs column 'valeu'" in output
    assert status_of("verify --workers 0") == 1


def test_failed_trial_exits_with_1(capsys: pytest.CaptureFixture[str]):
    assert status_of("run toy --workers 0 --deeds obey raise --sizes 1 2 4") == 1
    assert "ArithmeticError: no luck with size 1" in capsys.readouterr().err


def test_nothing_finished_exits_with_1(capsys: pytest.CaptureFixture[str]):
    assert status_of("run toy --workers 0 --deeds raise") == 1
    assert "every trial failed" in capsys.readouterr().out


def test_ctrl_c_exits_with_130(capsys: pytest.CaptureFixture[str]):
    assert status_of("run toy --workers 0 --deeds obey interrupt") == 130
    assert "what has finished is kept" in capsys.readouterr().err
    assert len(list(Path("results/toy").glob("*.json"))) == 1


def test_list_shows_presets_and_what_is_cached(capsys: pytest.CaptureFixture[str]):
    status_of("run toy --workers 0")
    capsys.readouterr()
    assert status_of("list") == 0
    output = capsys.readouterr().out
    for fact in ("quick", "1 s", "9/9", "6/8", "rare", "a day"):
        assert fact in output


def test_claims_are_printed(capsys: pytest.CaptureFixture[str]):
    assert status_of("claims") == 0
    assert "the value is at most 2.5 sizes" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["audit", "bench"])
def test_audit_and_bench_get_their_own_arguments(monkeypatch: pytest.MonkeyPatch, name: str):
    seen: list[list[str]] = []

    class Module:
        @staticmethod
        def main(argv: list[str]) -> int:
            seen.append(argv)
            return 5

    monkeypatch.setitem(sys.modules, f"experiments.{name}", Module)
    assert status_of(f"{name} model.safetensors --help") == 5
    assert seen == [["model.safetensors", "--help"]]
