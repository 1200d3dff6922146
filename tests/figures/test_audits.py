"""The table of audits says what its rows do."""

from __future__ import annotations

from tests.figures.classified import TABLES, classifiers, drawn


def test_audits_are_a_table_of_what_holds():
    length, certified = TABLES["audits-of-trained-models"]()
    (axis,) = drawn("audits-of-trained-models", length, certified).axes
    cells = {}
    for text in axis.texts:
        cells.setdefault(round(text.get_position()[1], 3), []).append(text)
    table = [[text.get_text() for text in line] for line in cells.values()]
    unstable = [line for line in table if r"$s_A \geq 0$" in line]
    assert unstable == [
        ["$s_A$ trained from $-0.1$", T, "1000", r"$s_A \geq 0$", "1", "0.020", "0.210", growth,
         "300", "300", "0.0", "–", "0.33", "0.030"]
        for T, growth in (("50", "0.2"), ("100", "0.4"))
    ]  # fmt: skip
    mamba = [line for line in table if line[0] == "Mamba"]
    assert [line[1] for line in mamba] == ["50", "100"]
    assert mamba[0][3:12] == ["$s_A < 0$", "3", *["–"] * 7]
    bold = {text.get_text() for text in axis.texts if text.get_weight() == "bold"}
    assert "−0.3" in bold  # log10 of the parameter-counting bound from 4000 samples
    assert "5.0" not in bold


def test_no_cell_is_a_zero_below_zero():
    rows = classifiers(frozen=(True,), T=(50,)).assign(log10_parameter=-0.04, ramp_gap=-1e-4)
    (axis,) = drawn("audits-of-trained-models", rows, rows).axes
    cells = [text.get_text() for text in axis.texts]
    assert cells.count("0.0") == 2
    assert not any(cell.startswith(("-0.0", "−0.0")) for cell in cells)
