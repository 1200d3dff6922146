"""Figures of trained classifiers, drawn from made-up tables: what all of them have in common."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image

from figures.classifiers import kinds
from figures.style import paper, save
from tests.figures.classified import ABSENT, MAMBA, OURS, TABLES, classifiers, drawn


def test_every_plate_is_among_them():
    assert OURS.keys() == TABLES.keys()


@pytest.mark.parametrize("name", TABLES)
def test_plates_are_saved_at_paper_width(name, tmp_path):
    with paper():
        png, pdf = save(OURS[name].draw(*TABLES[name]()), tmp_path, name, {})
    with Image.open(png) as image:
        assert image.width > 1000
    assert pdf.stat().st_size > 1000


@pytest.mark.parametrize("name", TABLES)
def test_plates_are_drawn_from_one_row(name):
    drawn(name, *(table.iloc[:1].reset_index(drop=True) for table in TABLES[name]()))


@pytest.mark.parametrize("name", [name for name in TABLES if "start" not in name])
@pytest.mark.parametrize("absent", [ABSENT, ["log10_hybrid"], MAMBA])
@pytest.mark.parametrize("how", ["NaN", "no column"])
def test_plates_are_drawn_without_bounds(name, absent, how):
    tables = TABLES[name]()
    if how == "NaN":
        drawn(name, *(table.assign(**dict.fromkeys(absent, np.nan)) for table in tables))
    else:
        drawn(name, *(table.drop(columns=absent) for table in tables))


@pytest.mark.parametrize("name", [name for name in TABLES if "start" not in name])
def test_no_text_lies_on_another(name):
    figure = drawn(name, *TABLES[name]())
    renderer = figure.canvas.get_renderer()
    texts = [text for axis in figure.axes for text in (axis.title, *axis.texts)]
    boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
    for one, other in itertools.combinations(boxes, 2):
        assert not one.shrunk(0.9, 0.7).overlaps(other.shrunk(0.9, 0.7))


def test_start_and_freezing_are_nothing_to_mamba():
    rows = classifiers(model=("single", "mamba"), s_A=(-0.1, 0.0))
    found = dict(kinds(rows))
    assert len(found) == 5
    assert len(found["Mamba"]) == 6
