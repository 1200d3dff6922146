"""Progress is shown on terminals and nowhere else."""

from __future__ import annotations

import pytest

from experiments.progress import bar


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_a_bar_is_for_terminals(monkeypatch: pytest.MonkeyPatch, capfd, terminal, shown):
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", "200")
    with bar("work", 5, shown=shown, details="at {task.fields[place]}", place="home") as show:
        show(2)
        show(3, place="sea")
    out, found = capfd.readouterr()
    assert out == ""
    for text in ("work", "3/5", "at sea", "left"):
        assert (text in found) == (terminal and shown)
