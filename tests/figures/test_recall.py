"""Figures of associative recall, from made-up models of every kind, few and many of them."""

from __future__ import annotations

import inspect

import numpy as np
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.collections import PatchCollection, QuadMesh
from matplotlib.colors import to_rgba

from experiments import recall as trained
from experiments.models.mixers import MIXERS
from experiments.studies import associative_recall, load
from figures import recall
from figures.gallery import GALLERY
from figures.style import SEQUENCE_MODELS, family, paper

FIGURES = [name for name, plate in GALLERY.items() if plate.draw.__module__ == recall.__name__]
BINDS = {"attention": "value", "based": "value", "mamba": "query", "delta-net": "query"}
STEPS = np.array([0, 100, 200])


def table(solved=True, **axes) -> pandas.DataFrame:
    """Models of the families in `BINDS` recall where `solved`, and restore all at one position."""
    kind = load("associative-recall")
    return kind.table(
        pandas.DataFrame(
            [t.config | model(t.config, solved) for t in kind.at("quick", **axes).trials()]
        )
    )


def model(config, solved) -> dict:
    place = BINDS.get(family(config["architecture"]))
    recalls = solved and place is not None
    at = {f"at_{x}": float(x == place) if recalls else np.nan for x in recall.POSITIONS}
    grid = np.full((config["layers"], len(recall.COMPONENTS), len(recall.POSITIONS)), np.nan)
    found = {
        "accuracy": 0.99 - 0.01 * config["seed"] if recalls else 0.25,
        "validation_accuracy": 0.9, "chance": 0.25, "status": "finished", "grid_ratio": grid,
        "curve_steps": STEPS, "curve_accuracy": np.array([0.0, 0.3, 0.9]),
    }  # fmt: skip
    if recalls:
        grid[:, :3] = 0.0
        grid[-1, 1:3, list(recall.POSITIONS).index(place)] = 1.0 + config["seed"]
    if config["layers"] > 1:
        found |= at
        found |= {f"curve_{x}": np.array([np.nan, y / 2, y]) for x, y in at.items()}
    if family(config["architecture"]) != "attention":
        found |= {"sufficient": 0.8 if recalls else np.nan, "necessary": 0.6 if recalls else np.nan}
    return found


def drawn(name: str, rows: pandas.DataFrame):
    with paper():
        return GALLERY[name].draw(rows)


EVERY = tuple(trained.ARCHITECTURES)
CASES = [
    dict(architecture=("attention",), seed=(0,)),
    dict(architecture=("mamba", "hyena"), layers=(1,)),
    dict(architecture=("hyena", "mamba-conv-0"), d=(16, 64), seed=(0,)),
    dict(solved=False, architecture=("attention", "mamba"), seed=(0, 1)),
    dict(architecture=EVERY, layers=(1, 2), d=(16, 64), seed=(0,)),
]


@pytest.mark.parametrize("axes", CASES, ids=["one", "shallow", "unsolved", "none", "all"])
@pytest.mark.parametrize("name", FIGURES)
def test_drawn_from_few_and_many_models(name, axes, tmp_path):
    with paper():
        GALLERY[name].draw(table(**axes)).savefig(tmp_path / "figure.png", dpi=50)


def test_every_architecture_belongs_to_a_family():
    families = {name: family(name) for name in trained.ARCHITECTURES}
    assert set(families.values()) == set(SEQUENCE_MODELS)
    assert families["based-conv-2"] == "based"
    assert families["base-conv"] == "base-conv"
    assert len(set(SEQUENCE_MODELS.values())) == len(SEQUENCE_MODELS)
    for unknown in ("transformer", "mambas", "base"):
        with pytest.raises(ValueError, match=f"architecture '{unknown}' is a variant of none of"):
            family(unknown)


def test_architectures_of_a_figure_look_different():
    rows = table(architecture=EVERY, seed=(0,))
    looks = recall._looks(rows)
    assert set(looks) == set(EVERY)
    assert len({(look["color"], look["marker"]) for look in looks.values()}) == len(EVERY)


def test_attributions_are_named_as_the_study_orders_them():
    assert tuple(recall.POSITIONS) == trained.POSITIONS
    assert tuple(recall.COMPONENTS) == trained._components()
    assert sorted(recall._DRAWN_ORDER) == list(range(len(recall.COMPONENTS)))
    assert recall.SOLVED == associative_recall.SOLVED


def test_widths_of_convolutions_are_those_of_the_models():
    assert recall.DEFAULT_WIDTHS["based"] == str(
        trained.ARCHITECTURES["based"].options["base-conv"]["d_conv"]
    )
    for name in ("mamba", "delta-net"):
        default = inspect.signature(MIXERS[name]).parameters["d_conv"].default
        assert recall.DEFAULT_WIDTHS[name] == str(default)
    places = {name: recall._width(name) for name in EVERY}
    varied = {name for name in EVERY if "-conv-" in name} | set(recall.DEFAULT_WIDTHS)
    assert {name for name, place in places.items() if not np.isnan(place)} == varied
    assert (places["mamba-conv-0"], places["based-conv-long"]) == (0, 5)


def test_accuracies_are_means_between_the_rates_of_guessing():
    rows = table(architecture=("attention", "mamba", "h3"), num_keys=(20,))
    (axis,) = drawn("recall-accuracy", rows).axes
    means = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(means, [0.98, 0.25, 0.98])
    guides = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() in (":", "--")]
    assert guides == [0.25, 0.05]


def test_the_accuracy_of_several_widths_is_a_line():
    rows = table(architecture=("based", "hyena"), d=(16, 32, 64), layers=(1, 2))
    figure = drawn("recall-accuracy", rows)
    assert [axis.get_title() for axis in figure.axes] == ["1 layer", "2 layers"]
    lines = [line for line in figure.axes[1].lines if len(line.get_xdata()) == 3]
    np.testing.assert_allclose([line.get_ydata() for line in lines], [[0.98] * 3, [0.25] * 3])


def meshes(figure):
    return [c for axis in figure.axes[:-1] for c in axis.collections if isinstance(c, QuadMesh)]


def hatched(axis):
    """The corners of cells without a ratio."""
    (cells,) = (c for c in axis.collections if isinstance(c, PatchCollection))
    assert cells.get_hatch() == "////"
    return [tuple(path.get_extents().min) for path in cells.get_paths()]


def test_attributions_are_means_over_seeds_hatched_without_a_ratio():
    rows = table(architecture=("attention", "hyena", "mamba"))
    figure = drawn("recall-attribution", rows)
    lines = 2 * (3 + 1)  # three components have a ratio, below the name of each layer
    attention, hyena, mamba = (mesh.get_array() for mesh in meshes(figure))
    for found, position in ((attention, 1), (mamba, 5)):
        expected = np.full((lines, 7), np.nan)
        expected[1:4], expected[5:8] = 0, 0
        expected[6:8, position] = 2  # the mean of 1, 2 and 3
        np.testing.assert_array_equal(found.filled(np.nan), expected)
    assert hyena.mask.all()
    assert [len(hatched(axis)) for axis in figure.axes[:3]] == [0, 6 * 7, 0]
    assert all(mesh.get_clim() == (0, 1) for mesh in meshes(figure))
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[1:4] == ["block input", "mixer input", "mixer output"]


def test_what_is_inside_a_mixer_is_between_its_input_and_its_output():
    rows = table(architecture=("based",), seed=(0,))
    grid = rows.loc[0, "grid_ratio"]
    grid[0, list(recall.COMPONENTS).index("mixer.conv")] = [0, 1, 0, 0, 0, 0, np.nan]
    figure = drawn("recall-attribution", rows)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[1:5] == ["block input", "mixer input", "convolution", "mixer output"]
    (mesh,) = meshes(figure)
    np.testing.assert_array_equal(mesh.get_array()[3, :6], grid[0, 6, :6])
    (place,) = hatched(figure.axes[0])
    assert place == (6, 3)


# A subnormal share of a larger total is rounded to 0, and does not come back.
NORMAL = st.floats(-3, 3, allow_subnormal=False)
ATTRIBUTIONS = arrays(float, st.tuples(st.integers(1, 5), st.just(3)), elements=NORMAL)


@given(ATTRIBUTIONS)
def test_shares_are_of_what_is_restored_unless_that_is_little(values):
    shares = recall._shares(pandas.DataFrame(values, columns=["at_query", "at_key", "at_value"]))
    total = np.maximum(values, 0).sum(axis=1)
    np.testing.assert_array_equal(np.isnan(shares).all(axis=1), total < 0.5)
    told = shares[total >= 0.5]
    assert np.all(told >= 0)
    np.testing.assert_allclose(told.sum(axis=1), 1)
    ratios = shares * total[:, None]
    expected = np.maximum(values, 0)[total >= 0.5]
    np.testing.assert_allclose(ratios[total >= 0.5], expected, atol=1e-300)


def test_shares_of_models_of_one_layer_are_unknown():
    assert np.isnan(recall._shares(pandas.DataFrame({"architecture": ["mamba"]}))).all()


CORNERS = [corner[:2] for corner in recall._CORNERS.values()]
PLACES = st.lists(st.sampled_from([*CORNERS, (0.5, 0.0), (0.5, 0.4), (0.51, 0.4)]), max_size=30)


@given(PLACES)
def test_markers_do_not_hide_each_other_and_stay_near_their_places(places):
    places = np.reshape(places, (-1, 2))
    settled = recall._apart(places, 0.026)
    gaps = np.linalg.norm(settled[:, None] - settled, axis=-1) + np.eye(len(places))
    assert np.all(gaps >= 0.026)
    moved = np.linalg.norm(settled - places, axis=1)
    assert np.all(moved < 0.026 * np.sqrt(3 * len(places)))
    x, y = settled.T
    assert np.all(y > -1e-6)
    assert np.all(y < np.sqrt(3) * np.minimum(x, 1 - x) + 1e-6)
    np.testing.assert_array_equal(settled[:1], places[:1])


def test_models_stand_at_the_corner_of_their_mechanism():
    rows = table(architecture=("attention", "delta-net", "mamba", "hyena"), seed=(0,))
    rows.loc[rows["architecture"] == "mamba", ["at_key", "at_query", "accuracy"]] = [0.5, 0.5, 0.8]
    figure = drawn("recall-mechanism", rows)
    markers = {
        to_rgba(line.get_color()): line for line in figure.axes[0].lines if line.get_marker() == "o"
    }
    expected = {"attention": (0.5, 0.75**0.5), "delta-net": (0, 0), "mamba": (0.5, 0)}
    assert set(markers) == {to_rgba(SEQUENCE_MODELS[name]) for name in expected}
    for name, place in expected.items():
        line = markers[to_rgba(SEQUENCE_MODELS[name])]
        np.testing.assert_allclose(np.ravel(line.get_data()), place, atol=1e-12)
        assert (line.get_markerfacecolor() == "white") == (name == "mamba")
    assert figure.legends[0].get_title().get_text() == "3 models shown, 1 not"


def test_dynamics_have_a_line_for_every_seed():
    rows = table(architecture=("attention", "based", "mamba"), seed=(0, 1), layers=(1, 2))
    figure = drawn("recall-dynamics", rows)
    for axis, name in zip(figure.axes, ("attention", "based", "mamba"), strict=True):
        runs = rows[(rows["architecture"] == name) & (rows["layers"] == 2)]
        for curve, (_, color) in recall._CURVES.items():
            lines = [line for line in axis.lines if line.get_color() == color]
            assert len(lines) == 2
            for line, values in zip(lines, runs[f"curve_{curve}"], strict=True):
                np.testing.assert_array_equal(line.get_xdata(), STEPS)
                np.testing.assert_array_equal(line.get_ydata(), values)


def test_convolutions_are_shown_at_their_widths():
    names = ("mamba", "mamba-conv-0", "mamba-conv-3", "based-conv-long", "attention", "hyena")
    left, right = drawn("recall-convolution", table(architecture=names)).axes
    blue = to_rgba(SEQUENCE_MODELS["mamba"])

    def shown(axis, marker):
        return sorted(
            (line.get_xdata()[0], round(line.get_ydata()[0], 6))
            for line in axis.lines
            if to_rgba(line.get_color()) == blue and line.get_marker() == marker
        )

    assert shown(left, "o") == [(0, 0.98), (3, 0.98), (4, 0.98)]
    assert shown(right, "o") == [(0, 0.8), (3, 0.8), (4, 0.8)]
    assert shown(right, "s") == [(0, 0.6), (3, 0.6), (4, 0.6)]


def test_convolutions_of_models_that_do_not_recall_are_not_judged():
    rows = table(architecture=("mamba", "based"))
    rows["accuracy"] = np.where(rows["architecture"] == "mamba", 0.89, 0.95)
    right = drawn("recall-convolution", rows).axes[1]
    colors = {to_rgba(line.get_color()) for line in right.lines}
    assert colors == {to_rgba(SEQUENCE_MODELS["based"])}


def test_figures_of_one_size_show_the_widest_models_of_two_layers():
    rows = table(architecture=("mamba",), d=(16, 32), layers=(1, 2, 3), seed=(0,))
    chosen = recall._of_one_size(rows)
    assert chosen[["layers", "d"]].to_numpy().tolist() == [[2, 32]]
    shallow = recall._of_one_size(rows[rows["layers"] != 2])
    assert shallow[["layers", "d"]].to_numpy().tolist() == [[3, 32]]


def test_published_accuracies_are_drawn_beside_those_of_the_same_task_only():
    sizes = dict(architecture=("attention", "mamba-conv-2"), d=(32, 128), layers=(1, 2))
    same = drawn("recall-accuracy", table(**sizes, num_pairs=(16,), num_keys=(4096,)))
    other = drawn("recall-accuracy", table(**sizes))

    def hollow(figure):
        return [
            [(int(line.get_xdata()[0]), round(line.get_ydata()[0], 6)) for line in axis.lines
             if line.get_markerfacecolor() == "none" and line.get_linestyle() == "None"]
            for axis in figure.axes
        ]  # fmt: skip

    assert hollow(same) == [
        [(32, 0.0656), (128, 0.0844)],
        [(32, 1.0), (128, 1.0), (32, 0.1875), (128, 0.3906)],
    ]
    assert not any(hollow(other))
