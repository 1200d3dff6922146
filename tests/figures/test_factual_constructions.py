"""Figures of the factual constructions, from few sizes and draws."""

from __future__ import annotations

from functools import cache

import pandas
import pytest
from PIL import Image

from experiments.studies import load
from figures.gallery import GALLERY
from figures.style import paper, save

TINY = {
    "factual-constructions": {"S": (6,), "R": (4,), "size": (0.5, 1.0), "seed": (0, 1)},
    "fact-editing": {"S": (6,), "R": (3,), "size": (1.0, 2.0), "seed": (0, 1)},
}


@cache
def table(study: str, **axes: tuple[int, ...]) -> pandas.DataFrame:
    trials = load(study).at("quick", **(TINY[study] | axes)).trials()
    return pandas.DataFrame(
        [{**t.config, **load(study).measure(t.rng, **t.config)} for t in trials]
    )


def draw(name: str, rows: pandas.DataFrame, folder) -> None:
    with paper():
        png, _ = save(GALLERY[name].draw(rows), folder, name, {})
    with Image.open(png) as image:
        assert image.width > 1000


@pytest.mark.parametrize("name", TINY)
def test_drawn_from_few_sizes_and_draws(name, tmp_path):
    draw(name, table(name), tmp_path)


def test_drawn_from_single_draws_several_tasks_and_one_construction(tmp_path):
    several = table("factual-constructions", D=(4, 5), seed=(0,))
    draw("factual-constructions", several, tmp_path)
    alone = several[several["construction"] != "quadratic-mlp"]
    draw("factual-constructions", alone, tmp_path)
    edits = table("fact-editing")
    draw("fact-editing", edits[edits["origin"] == "relu-mlp"], tmp_path)
