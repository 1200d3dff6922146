"""Figures: every one is drawn from a store, as PNG and PDF with its provenance; gaps are said."""

import re
import subprocess
import sys

import pytest
from PIL import Image

from experiments.store import ResultStore
from experiments.studies import load
from experiments.sweep import sweep
from figures.gallery import GALLERY, draw_all
from tests.experiments.test_studies import SMALL


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with the studies of the cheapest figures."""
    root = ResultStore(tmp_path_factory.mktemp("results"))
    for name in ("sample-size", "length-scale"):
        sweep(load(name).at("quick"), root, workers=0, progress=False)
    return root


def test_every_figure_shows_a_known_study():
    for plate in GALLERY.values():
        assert plate.study in SMALL
        assert plate.caption.endswith(".")


def test_draws_png_and_pdf_with_provenance(store, tmp_path):
    drawn = draw_all(store, tmp_path, names=["gap-against-samples", "length-scale"])
    assert [figure.name for figure in drawn] == ["gap-against-samples", "length-scale"]
    for figure in drawn:
        with Image.open(figure.png) as image:
            assert image.width > 1000
            assert "python" in image.text["Description"]
        assert re.search(rb"/Subject \(.*python", figure.pdf.read_bytes())


def test_a_figure_without_rows_is_left_out_and_said(store, tmp_path, caplog):
    assert draw_all(store, tmp_path, names=["stability-map"]) == []
    assert "stability-map not drawn: no rows" in caplog.text


def run_figures(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "figures", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_refuses_an_unknown_figure_in_one_line():
    result = run_figures("no-such-figure")
    assert result.returncode == 2
    assert result.stderr.startswith("error: no figure 'no-such-figure'; there are: bound-against")
    assert result.stderr.count("\n") == 1


def test_command_says_what_to_run_first(tmp_path):
    result = run_figures("length-scale", "--results", str(tmp_path), "--out", str(tmp_path))
    assert result.returncode == 1
    assert "python -m experiments verify --preset quick" in result.stderr
