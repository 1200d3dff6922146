"""Figures of in-context learning show what the table says."""

from __future__ import annotations

import warnings

import numpy as np
import pandas
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from experiments.in_context_verdicts import FAILED, SOLVED
from experiments.studies.in_context_learning import InContextLearning
from figures import in_context
from figures.in_context import MODELS, VERDICTS
from figures.panels import NothingToDrawError
from figures.style import paper, save
from memory.state_capacity import additive_squared_error
from tests.experiments.test_in_context_learning import FINAL, made_up

DRAWN = (
    in_context.in_context_errors,
    in_context.in_context_verdicts,
    in_context.parity_jumps,
    in_context.flops_frontier,
    in_context.retrieval_by_pairs,
)


def table(**changes):
    return InContextLearning.table(made_up(**changes).assign(step_flops=1e6))


def drawn(draw, rows) -> Figure:
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        return draw(rows)


@pytest.mark.parametrize("draw", DRAWN)
def test_every_figure_is_drawn_from_many_and_from_single_trainings(draw, tmp_path):
    rows = table()
    for some in (rows, rows[(rows["seed"] == 0) & rows["model"].isin(["mamba", "hybrid"])]):
        with paper():
            png, _ = save(drawn(draw, some), tmp_path, "figure", {})
        with Image.open(png) as image:
            assert image.width > 700


def test_curves_are_means_over_seeds():
    first, *_ = drawn(in_context.in_context_errors, table()).axes
    assert first.get_title() == next(iter(FINAL))
    mamba = next(line for line in first.lines if to_hex(line.get_color()) == "#0072b2")
    reference = np.maximum(0, 1 - np.arange(11) / 5)
    np.testing.assert_allclose(mamba.get_ydata(), reference + 0.05 * 1.02)


def test_cells_have_the_colour_of_their_verdict():
    (axis,) = drawn(in_context.in_context_verdicts, table()).axes
    cells = {
        (round(patch.get_x() + 0.47), round(patch.get_y() + 0.44)): to_hex(patch.get_facecolor())
        for patch in axis.patches
        if patch.get_width() > 0.9 and patch.get_fill()
    }
    settings, models = list(FINAL), list(MODELS)
    for model, setting, verdict in (
        ("mamba", "retrieval-8", FAILED), ("transformer", "parity-6", FAILED),
        ("mambaformer", "retrieval-8", SOLVED), ("mambaformer", "parity-6", SOLVED),
    ):  # fmt: skip
        found = cells[models.index(model), settings.index(setting)]
        assert found == VERDICTS[verdict].lower()


def test_jumps_are_counted_where_trainings_first_reach_the_bayes_rule():
    _, right = drawn(in_context.parity_jumps, table()).axes
    by_color = {to_hex(line.get_color()): line for line in right.lines}
    mamba, transformer = (by_color[MODELS[m][1].lower()] for m in ("mamba", "transformer"))
    np.testing.assert_allclose(mamba.get_xdata(), [0, 200, 200, 200, 300])
    np.testing.assert_allclose(mamba.get_ydata(), [0, 1 / 3, 2 / 3, 1, 1])
    np.testing.assert_allclose(transformer.get_ydata(), [0, 0])


def test_frontiers_never_rise():
    for axis in drawn(in_context.flops_frontier, table()).axes:
        for line in axis.lines:
            assert (np.diff(line.get_ydata()) <= 0).all()


def test_retrieval_is_beside_the_predicted_state():
    (axis,) = drawn(in_context.retrieval_by_pairs, table()).axes
    state = next(line for line in axis.lines if line.get_linestyle() == "--")
    np.testing.assert_allclose(
        state.get_ydata(),
        [additive_squared_error(N=int(n), key_dimension=16) for n in state.get_xdata()],
    )


def test_what_is_not_there_is_said():
    rows = table()
    for draw, kind in (
        (in_context.parity_jumps, "sparse parity"), (in_context.retrieval_by_pairs, "retrieval"),
    ):  # fmt: skip
        with pytest.raises(NothingToDrawError, match=kind):
            draw(rows[rows["kind"] == "linear"])


def test_baselines_are_drawn_beside_what_is_derived():
    fixed = dict(setting="linear-5", prompts=10)
    derived = np.maximum(0, 1 - np.arange(11) / 5)
    rows = pandas.DataFrame([
        fixed | dict(estimator=name, seed=seed, errors=derived + 0.1 * seed, **more)
        for name, more in (("least-squares", {"derived_errors": derived}), ("averaging", {}))
        for seed in range(2)
    ])  # fmt: skip
    (axis,) = drawn(in_context.in_context_baselines, rows).axes
    dotted = [line for line in axis.lines if line.get_linestyle() == ":"]
    np.testing.assert_allclose(dotted[0].get_ydata(), derived)
    assert len(dotted) == 1
    means = [line.get_ydata() for line in axis.lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(means, [derived + 0.05] * 2)
