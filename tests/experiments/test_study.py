"""Trials, their keys and generators, grids and presets."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.studies import STUDIES, load
from experiments.study import Study, Trial
from tests.experiments.toy import Toy

SCALARS = st.one_of(
    st.integers(), st.booleans(), st.text(), st.none(), st.floats(allow_nan=False, allow_infinity=0)
)


def test_key_is_stable():
    """Golden values: a changed key orphans every record ever written."""
    trial = Trial("toy", 1, {"d": 32, "rate": 0.1, "dims": (1, 2), "name": "a", "flag": True})
    assert trial.key == "43e757c85798af8d"
    assert trial.rng.integers(1 << 32) == 2281351783


def test_key_depends_on_study_version_and_config():
    trials = [
        Trial("toy", 1, {"d": 1}),
        Trial("toy", 2, {"d": 1}),
        Trial("toy2", 1, {"d": 1}),
        Trial("toy", 1, {"d": 2}),
        Trial("toy", 1, {"e": 1}),
        Trial("toy", 1, {"d": 1.0}),
    ]
    assert len({trial.key for trial in trials}) == len(set(trials)) == len(trials)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), SCALARS | st.tuples(SCALARS, SCALARS), max_size=4))
def test_key_ignores_the_order_of_axes(config: dict[str, Any]):
    trial = Trial("toy", 1, config)
    mirrored = Trial("toy", 1, dict(reversed(config.items())))
    assert trial == mirrored
    assert trial.key == mirrored.key


def test_numpy_scalars_are_the_python_scalars_they_equal():
    ours = Trial("toy", 1, {"d": 3, "x": 0.5, "flag": True, "name": "a", "dims": (1, 2)})
    theirs = Trial(
        "toy",
        1,
        {
            "d": np.int32(3),
            "x": np.float32(0.5),
            "flag": np.True_,
            "name": np.str_("a"),
            "dims": (np.int64(1), 2),
        },
    )
    assert ours == theirs


def test_generator_starts_anew_and_differs_between_trials():
    one, other = Toy().trials()[:2]
    assert one.rng.random() == one.rng.random() != other.rng.random()


def test_grid_order_is_that_of_the_axes_last_fastest():
    points = [(t.config["size"], t.config["seed"]) for t in Toy(sizes=(4, 1), seeds=2).trials()]
    assert points == [(4, 0), (4, 1), (1, 0), (1, 1)]


@dataclass(frozen=True)
class OneAxis(Study):
    values: Any = (1,)

    name = "one-axis"
    title = "One axis"
    version = 1
    claims = ()
    presets = {}

    def grid(self):
        return {"x": self.values}

    @staticmethod
    def measure(rng: np.random.Generator, *, x: Any) -> dict[str, float]:
        return {}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((), "'x' is empty"),
        ((1, 2, 1), "'x' repeats"),
        ("abc", "'x' must list its values"),
        (5, "'x' must list its values"),
        (([1],), "'x': .* is a list"),
        (({1: 2},), "'x': .* is a dict"),
        ((1j,), "'x': .* is a complex"),
        (((1, object()),), "'x': .* is a object"),
        ((float("nan"),), "'x': nan is not finite"),
    ],
)
def test_axis_that_cannot_be_is_named(values: Any, message: str):
    with pytest.raises(ValueError, match=message):
        OneAxis(values).trials()


def test_axis_may_be_an_array_or_a_range():
    assert OneAxis(np.arange(3)).trials() == OneAxis(range(3)).trials()


def test_preset_overrides_fields_and_is_overridden():
    assert Toy.at("small") == Toy(sizes=(1, 2, 4, 8), seeds=2)
    assert Toy.at("small", seeds=5).seeds == 5


def test_unknown_preset_and_axis_list_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'paper'; its presets: quick, small"):
        Toy.at("paper")
    with pytest.raises(ValueError, match="no axis 'dims'; its axes: sizes, seeds"):
        Toy.at("quick", dims=(1,))


def test_unknown_study_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(STUDIES, "toy", "tests.experiments.toy:Toy")
    with pytest.raises(ValueError, match=r"unknown study 'tyo'; .*toy"):
        load("tyo")


@pytest.mark.parametrize("name", ["toy", *STUDIES])
def test_declarations_are_consistent(name: str):
    """What every study declares: its names, presets that can be built, claims that fit together."""
    study = Toy if name == "toy" else load(name)
    assert study.name == name == name.lower().replace("_", "-").replace(" ", "-")
    # No instance: nothing a result depends on can be missing from the trial's key.
    assert isinstance(inspect.getattr_static(study, "measure"), staticmethod | classmethod)
    assert set(study.presets) <= {"quick", "small", "medium", "paper"}
    for preset in study.presets:
        assert study.at(preset).trials()
    names = [claim.name for claim in study.claims]
    assert len(set(names)) == len(names)
    assert {claim.corrected_by for claim in study.claims} <= {None, *names}
