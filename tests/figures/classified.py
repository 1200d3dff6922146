"""Made-up tables of trained classifiers, figures drawn from them, and what these show."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from figures import audits, trained_gaps, trainings
from figures.gallery import GALLERY
from figures.style import paper

OURS = {
    name: plate
    for name, plate in GALLERY.items()
    if plate.draw.__module__ in {each.__name__ for each in (audits, trained_gaps, trainings)}
}
BOUNDS = ("norm", "hybrid", "parameter", "published")
ABSENT = [f"log10_{name}" for name in BOUNDS]
MAMBA = [*ABSENT, "final_s_A", "mean_step", "growth"]


def starts(*, s_A=(0.1,), T=(100, 300), seed=(0, 1), task=("majority", "listops")):
    """Runs of which the last diverged in its third epoch and the first learned nothing."""
    rows = []
    for name, start, length, each in itertools.product(task, s_A, T, seed):
        losses = np.array([1e3 * length, 5.0, 0.1 * (each + 1)])
        abscissas = np.array([start, start / 2, 0.01 * (each + 1)])
        rows.append(
            {
                "precision": "float64" if each else "float32", "task": name, "s_A": start,
                "T": length, "seed": each, "status": "finished", "losses": losses,
                "spectral_abscissas": abscissas, "guessing": 0.69, "succeeded": True,
                "initial_loss": losses[0], "initial_s_A": start, "initial_growth": 10 * start,
                "final_loss": losses[-1], "final_s_A": abscissas[-1], "final_growth": 1.0 + each,
            }
        )  # fmt: skip
    rows[0]["succeeded"] = False
    rows[-1] |= {"status": "diverged", "succeeded": False}
    return pandas.DataFrame(rows)


def rates(number=4):
    rate = 0.1 * np.arange(1, number + 1)
    return pandas.DataFrame(
        {"s_A": 0.1, "seed": range(number), "rate": 0.9 * rate, "share": 0.9,
         "largest_step_rate": rate, "share_of_smallest": 9.0}
    )  # fmt: skip


def classifiers(
    *, model=("single",), task=("majority",), s_A=(-0.1,), frozen=(True, False), step_logit=(None,),
    T=(50, 100), m=(1000,), seed=(0, 1, 2),
):  # fmt: skip
    """Trained models: where s_A is not frozen, those of odd seeds are unstable."""
    axes = dict(model=model, task=task, s_A=s_A, frozen=frozen, step_logit=step_logit, T=T, m=m,
                seed=seed)  # fmt: skip
    rows = pandas.DataFrame(itertools.product(*axes.values()), columns=list(axes))
    jitter = 0.01 * rows["seed"]
    final = rows["s_A"].where(rows["frozen"] | (rows["seed"] % 2 == 0), 0.02)
    rows = rows.assign(
        status="finished", train_error=0.03 + jitter, fresh_error=0.04 + jitter,
        test_error=0.12 + jitter, gap=0.01 + jitter, reported_gap=0.09, ramp_gap=0.02 + jitter,
        guessing_error=0.5, pad_share=0.08, pad_step=0.001, quantised_train_error=0.03 + jitter,
        quantised_fresh_error=0.05 + jitter, occam_risk=10 / rows["m"] ** 0.5 + jitter,
        bayes_error=0.05, bayes_clean_error=0.12, final_s_A=final, mean_step=0.2 + jitter,
        growth=final * rows["T"] * 0.2, log10_norm=5 + jitter, log10_hybrid=3 + jitter,
        log10_parameter=1.5 - np.log10(rows["m"]) / 2 + jitter, log10_published=6 + jitter,
    )  # fmt: skip
    rows.loc[final >= 0, ["log10_published"]] = np.nan
    rows.loc[final >= 0, ["log10_norm", "log10_hybrid"]] = 300.0
    single = rows["model"] == "single"
    rows.loc[~single, [*MAMBA, "pad_step"]] = np.nan
    rows.loc[rows["task"] == "listops", ["bayes_error", "bayes_clean_error"]] = np.nan
    return rows


TABLES = {
    "unstable-start": lambda: (starts(), rates()),
    "start-sweep": lambda: (starts(s_A=(-0.1, 0.0, 0.1), T=(150,), task=("majority",)),),
    "trained-gap-against-length": lambda: (classifiers(),),
    "trained-gap-against-stability": lambda: (
        classifiers(s_A=(-1.0, 0.0, 0.03), frozen=(True,), step_logit=(-4.0, 0.0), T=(100,)),
    ),
    "certified-gap": lambda: (classifiers(frozen=(True,), T=(50,), m=(250, 1000, 4000)),),
    "gap-on-tasks": lambda: (
        classifiers(model=("single", "mamba"), task=("listops", "reviews"), frozen=(False,)),
    ),
    "audits-of-trained-models": lambda: (
        classifiers(model=("single", "mamba")), classifiers(frozen=(True,), m=(250, 4000)),
    ),
}  # fmt: skip


def drawn(name, *tables) -> Figure:
    """The figure, laid out and without a warning."""
    with paper(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = OURS[name].draw(*tables)
        figure.canvas.draw()
    return figure


def lines_of(axis, color, *, style="-"):
    """X and y of the lines of a colour and style with more than one point."""
    return [
        np.array(line.get_data(), float)
        for line in axis.lines
        if line.get_linestyle() == style
        and to_rgba(line.get_color()) == to_rgba(color)
        and len(line.get_xdata()) > 1
    ]


def markers_of(axis, color, marker):
    """X and y of all points that a marker shows."""
    return np.concatenate([
        np.array(line.get_data(), float).T
        for line in axis.lines
        if line.get_marker() == marker and to_rgba(line.get_color()) == to_rgba(color)
    ])  # fmt: skip
