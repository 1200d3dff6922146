"""Studies of toys and of their edges: claims on made-up rows, and measures of a small toy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas
import pytest
from scipy.stats import spearmanr

from experiments import toys
from experiments.claims import asserted
from experiments.interventions.edge_attribution import METHODS
from experiments.studies.edge_attribution import (
    PUBLISHED_BATCH,
    EdgeAttributionStudy,
)
from experiments.studies.toy_edges import drawn
from experiments.studies.toys import Toys
from experiments.toys import TASKS, TOYS

SHAPE = (3, 11, 20)
"""Of scores of two Mamba blocks at taps and positions."""
EDGES = np.zeros(SHAPE, dtype=bool)
EDGES[0], EDGES[1, 5:], EDGES[2, 10:] = True, True, True
FOUND = {
    "pearson_eap": 0.98, "spearman_eap": 0.93, "spearman_eap_less": 0.88,
    "pearson_gates": 0.997, "spearman_gates": 0.97, "gap_gates_midpoints": 0.014,
    "gap_gates_published": 0.08, "largest_of_single_step": 1e-8, "share_of_published_scale": 0.031,
    "step_doubling_gates": 1e-4,
}  # fmt: skip
"""As of trained toys."""


def made_up(
    seeds: int = 3, *, of_hybrids: float = 0.8, **changes: float | bool
) -> pandas.DataFrame:
    """Rows of toys that have learned their task, with agreement about as it is."""
    study = EdgeAttributionStudy(toys=("toy-2x64", "toy-hybrid"), seeds=seeds)
    rows = []
    for trial in study.trials():
        seed = trial.config["seed"]
        rng = np.random.default_rng(seed)
        effects = np.where(EDGES, -(rng.random(SHAPE) ** 8), 0)
        row: dict = {"accuracy": 1.0, "learned": True, "edges": int(EDGES.sum())}
        row |= {name: value * (1 + 0.002 * seed) for name, value in FOUND.items()} | changes
        if trial.config["toy"] == "toy-hybrid":
            row["pearson_eap"] = of_hybrids
        row["effects"] = effects
        for method in ("eap", "inputs", "gates", "published"):
            row[f"scores_{method}"] = effects / -effects.sum()
            for kind in ("pearson", "spearman"):
                row.setdefault(f"{kind}_{method}", 0.95)
                row[f"{kind}_{method}_low"] = row[f"{kind}_{method}"] - 0.02
                row[f"{kind}_{method}_high"] = row[f"{kind}_{method}"] + 0.01
        rows.append(trial.config | row)
    return pandas.DataFrame(rows)


def verdicts(rows: pandas.DataFrame) -> dict[str, str]:
    table = EdgeAttributionStudy.table(rows)
    return {c.name: asserted(c.check(table), c) for c in EdgeAttributionStudy.claims}


def test_claims_come_out_as_expected_where_measurements_do():
    assert set(verdicts(made_up()).values()) == {"as expected"}


OPPOSITE = {
    "attribution-patching-agrees-with-patching": {"pearson_eap": 0.8},
    "attribution-patching-agrees-in-any-toy": {"of_hybrids": 0.95},
    "integrated-gates-agree-with-patching": {"pearson_gates": 0.9},
    "integrated-gates-rank-no-worse": {"spearman_gates": 0.8},
    "integrated-gates-add-up": {"gap_gates_midpoints": 0.08},
    "published-points-add-up": {"gap_gates_published": 0.01},
    "published-single-step-attributes": {"largest_of_single_step": 0.3},
    "published-scores-are-of-the-size-of-effects": {"share_of_published_scale": 0.93},
    "ten-points-are-enough": {"step_doubling_gates": 0.02},
}


@pytest.mark.parametrize("name", OPPOSITE)
def test_the_opposite_contradicts_this_claim_alone(name: str):
    found = verdicts(made_up(**OPPOSITE[name]))
    assert {claim for claim, standing in found.items() if standing == "contradicts"} == {name}


def test_every_claim_has_an_opposite_and_every_wrong_one_a_correction():
    claims = {claim.name: claim for claim in EdgeAttributionStudy.claims}
    assert set(OPPOSITE) == set(claims)
    for claim in claims.values():
        assert (claim.expected == "refuted") == (claim.corrected_by in claims)


def test_toys_that_have_not_learned_their_task_decide_nothing():
    wrong = {name: value for changes in OPPOSITE.values() for name, value in changes.items()}
    rows = made_up(**wrong, learned=False)
    assert set(verdicts(rows).values()) == {"undecided"}
    both = pandas.concat([made_up(), rows.assign(seed=rows["seed"] + 3)], ignore_index=True)
    assert set(verdicts(both).values()) == {"as expected"}


@pytest.mark.parametrize(
    ("accuracies", "max_steps", "standing"),
    [
        ((1.0, 1.0, 0.99), None, "as expected"),
        ((0.5, 0.45, 0.55), None, "contradicts"),
        ((1.0, 1.0, 0.44), None, "undecided"),
        ((0.05, 0.05, 0.05), 3, "undecided"),
    ],
)
def test_toys_learn_their_task_or_do_not(
    accuracies: tuple[float, ...], max_steps: int | None, standing: str
):
    trials = Toys(max_steps=max_steps, seeds=3).trials()
    rows = pandas.DataFrame([
        trial.config | {"accuracy": accuracy}
        for trial, accuracy in zip(trials, accuracies, strict=True)
    ])  # fmt: skip
    (claim,) = Toys.claims
    assert asserted(claim.check(Toys.table(rows)), claim) == standing


@pytest.mark.parametrize("study", [Toys, EdgeAttributionStudy])
def test_presets_name_toys_and_tasks_that_there_are(study: type):
    for name in study.presets:
        for trial in study.at(name).trials():
            assert trial.config["toy"] in TOYS
            assert trial.config["task"] in TASKS


def test_pairs_whose_positions_are_told_apart_are_aligned():
    aligned, any_ = (drawn("ioi", 12, seed=27, positional=x) for x in (True, False))
    assert len(aligned) == len(any_) == 12
    assert all(len(set(at.tolist())) == 1 for at in aligned.roles.values())
    assert len(set(any_.out.tolist())) > 1


@cache
def measured() -> dict:
    """Of a toy that has hardly been trained."""
    study = EdgeAttributionStudy(resolutions=("layer",), pairs=7, max_steps=2, seeds=2)
    trial = study.trials()[1]
    return dict(EdgeAttributionStudy.measure(trial.rng, **trial.config))


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Toys of these tests are kept where no other ones are."""
    with pytest.MonkeyPatch.context() as patch:
        place: Path = tmp_path_factory.mktemp("cache")
        patch.setattr(toys, "cache_folder", lambda: place)
        yield


def test_metrics_are_those_of_the_scores_beside_them():
    found = measured()
    effects = found["effects"]
    assert effects.shape == (3, 3, 20)
    assert found["edges"] == 6 * 20
    for method in METHODS:
        scores = found[f"scores_{method}"]
        assert scores.shape == effects.shape
        # Edges that could have an effect but have none count too, and are not known here.
        at = (scores != 0) | (effects != 0)
        x, y = scores[at], effects[at]
        assert found[f"pearson_{method}"] == pytest.approx(np.corrcoef(x, y)[0, 1], abs=0.05)
        assert found[f"spearman_{method}"] == pytest.approx(spearmanr(x, y).statistic, abs=0.2)
        low, high = found[f"pearson_{method}_low"], found[f"pearson_{method}_high"]
        assert -1 <= low <= high <= 1


def test_gates_add_up_and_the_published_ways_do_not():
    """The end at which all is patched counts for one of five points, and is 0."""
    found = measured()
    total = found["scores_gates"].sum() - found["gap_gates"]
    assert found["gap_gates"] == pytest.approx(0, abs=2e-3)
    assert found["gap_gates_midpoints"] < 0.03 < found["gap_gates_published"]
    assert found["largest_of_single_step"] < 1e-3 * np.abs(found["scores_gates"]).max()
    assert found["share_of_published_scale"] == pytest.approx(
        abs(found["scores_published"].sum()) / PUBLISHED_BATCH / abs(total), rel=1e-6
    )
    assert abs(found["scores_eap"].sum() - total) > 0.1


@pytest.mark.parametrize(
    ("toy", "task", "resolution", "positional"),
    [
        ("toy-2x64", "ioi", "layer", False),
        ("toy-mamba2", "two-name-ioi", "branch", False),
        ("toy-hybrid", "induction", "layer", False),
        ("toy-hybrid", "ioi", "tap", True),
    ],
)
def test_corners_of_the_larger_presets_can_be_measured(toy, task, resolution, positional):
    """From a graph of six edges on."""
    study = EdgeAttributionStudy(
        toys=(toy,), tasks=(task,), resolutions=(resolution,), positional=(positional,), pairs=4,
        max_steps=1, seeds=1,
    )  # fmt: skip
    (trial,) = study.trials()
    found = EdgeAttributionStudy.measure(trial.rng, **trial.config)
    assert found["gap_gates"] == pytest.approx(0, abs=0.05)  # effects are 1 or -1 a pair
    assert 0 <= found["top_overlap_gates"] <= 1
    assert found["pearson_gates_low"] <= found["pearson_gates_high"]


def test_unlearned_toys_are_said_to_be():
    assert not measured()["learned"]
