"""Figures: every one is drawn from a store, as PNG and PDF with its provenance; gaps are said."""

import re
import subprocess
import sys
from functools import cache

import numpy as np
import pandas
import pytest
from PIL import Image

from experiments.store import ResultStore
from experiments.studies import load
from experiments.sweep import sweep
from figures import memory, outer_product
from figures.gallery import GALLERY, draw_all
from figures.style import MEMORIES, paper, save
from memory.families import FAMILIES
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
        offered = {name for name in plate.studies if "quick" in load(name).presets}
        assert offered <= set(SMALL)
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


TINY = {
    "linear-memory": {"d": (16, 24), "seed": (0, 1)},
    "trained-linear-memory": {"d": (8, 11), "seed": (0,)},
    "retrieval-error": {"d": (16, 24), "M": (256,), "keys": (100,), "seed": (0, 1)},
    "storage-guarantee": {"d": (24,), "seed": (0, 1)},
    "mlp-kernel-memory": {"d": (40,), "ratio": (8,), "seed": (0, 1)},
    "mlp-readout-memory": {"d": (12,), "ratio": (2, 4), "seed": (0, 1)},
    "trained-mlp-memory": {"d": (8, 11), "ratio": (1, 2), "seed": (0, 1)},
    "attention-memory": {"d": (16,), "ratio": (1.0, 2.0), "seed": (0, 1)},
    "memory-quantization": {"d": (32, 48), "bits": (1, 2, 32), "seed": (0, 1)},
    "memory-families": {"d": (32,), "seed": (0,)},
}
OF_MEMORIES = [name for name, plate in GALLERY.items() if set(plate.studies) <= set(TINY)]


@cache
def table(study: str) -> pandas.DataFrame:
    """What figures see of a tiny grid; trainings are made up, which stored the smaller loads."""
    kind = load(study)

    def metrics(trial):
        if not study.startswith("trained"):
            return kind.measure(trial.rng, **trial.config)
        at = trial.config["load"]
        N = kind.number_of_facts(**trial.config)
        return {"N": N, "stored": at < 1, "stored_99": at < 1.1}

    trials = kind.at("quick", **TINY[study]).trials()
    return kind.table(pandas.DataFrame([{**t.config, **metrics(t)} for t in trials]))


@pytest.mark.parametrize("name", OF_MEMORIES)
def test_figures_of_memories_are_drawn_from_few_sizes_and_draws(name, tmp_path):
    plate = GALLERY[name]
    with paper():
        png, _ = save(plate.draw(*map(table, plate.studies)), tmp_path, name, {})
    with Image.open(png) as image:
        assert image.width > 1000


def test_every_figure_of_the_memory_studies_is_among_them():
    modules = {memory.__name__, outer_product.__name__}
    drawn = {plate.draw for plate in GALLERY.values() if plate.draw.__module__ in modules}
    assert drawn == {GALLERY[name].draw for name in OF_MEMORIES}


def test_every_family_has_a_colour():
    assert set(FAMILIES) < set(MEMORIES)


def test_bits_per_parameter_are_those_of_the_studies():
    trained = table("trained-mlp-memory")
    families = memory._families(
        table("memory-families"), table("trained-linear-memory"), trained
    ).set_index("family")
    growing = trained[trained["growing"]]
    np.testing.assert_allclose(families.loc["trained-mlp", "density"], growing["density"])
    np.testing.assert_array_less(families["density_low"], families["density_high"] * (1 + 1e-9))


def test_a_figure_of_several_studies_needs_all_of_them(tmp_path, caplog):
    few = ResultStore(tmp_path / "results")
    tiny = load("mlp-kernel-memory").at("quick", d=(48,), ratio=(8,), seed=(0,))
    sweep(tiny, few, workers=0, progress=False)
    assert draw_all(few, tmp_path, names=["mlp-memory-capacity"]) == []
    assert "mlp-memory-capacity not drawn: no rows of mlp-readout-memory at quick" in caplog.text


def test_rows_without_a_capacity_are_said(tmp_path, caplog):
    few = ResultStore(tmp_path / "results")
    kind = load("trained-linear-memory")
    smallest = kind.at("quick").load[:1]
    sweep(kind.at("quick", d=(8,), seed=(0,), load=smallest), few, workers=0, progress=False)
    linear = load("linear-memory").at("quick", d=(32,), seed=(0,), accuracy=(1.0,))
    sweep(linear, few, workers=0, progress=False)
    assert draw_all(few, tmp_path, names=["linear-memory-capacity"]) == []
    assert "even the largest load is stored" in caplog.text


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
