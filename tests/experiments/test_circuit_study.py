"""The study of circuits: claims on made-up rows, its table, and what is measured of a small toy."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pandas
import pytest

from experiments import toys
from experiments.claims import asserted
from experiments.studies import circuits
from experiments.studies.circuits import SCORES, CircuitStudy
from experiments.toys import TASKS, TOYS
from tests.experiments.test_edge_attribution_study import EDGES, SHAPE

FOUND = {
    "share_gates": 0.09, "held_out_accuracy_gates": 0.87, "random_accuracy": 0.01,
    "complement_accuracy": 0.01, "shortfall_eap": 0.08, "shortfall_inputs": 0.001,
    "largest_drop_of_acdc": 0.006, "split_jaccard": 0.75,
}  # fmt: skip
"""As of trained toys."""
SIZES = np.array([0, 4, 7, 14, 22, 29, 40, 54, 72, 108, 162, 234, 360])


def made_up(seeds: int = 3, kept: int = 30, **changes: float | bool) -> pandas.DataFrame:
    """Rows of toys that have learned their task, with circuits about as they are.

    The first half of the edges of a circuit is that of every seed.
    """
    rows = []
    for trial in CircuitStudy(seeds=seeds).trials():
        seed = trial.config["seed"]
        circuit = np.zeros(SHAPE, dtype=bool)
        cells = np.argwhere(EDGES)
        own = np.random.default_rng(seed).permutation(np.arange(kept, len(cells)))
        for cell in (*cells[: kept // 2], *cells[own[: kept - kept // 2]]):
            circuit[tuple(cell)] = True
        refined = circuit.copy()
        refined[tuple(cells[0])] = False
        row = {name: value * (1 + 0.01 * seed) for name, value in FOUND.items()}
        row |= {
            "accuracy": 1.0, "learned": True, "edges": int(EDGES.sum()), "sizes": SIZES,
            "nld_random": (SIZES / 360) ** 3, "nld_complement": 0.01 * (SIZES < 5),
            "circuit_gates": circuit, "circuit_acdc": refined, "kept_gates": kept,
        }  # fmt: skip
        for method in SCORES:
            row[f"nld_{method}"] = np.minimum(1, SIZES / 40) * (1 - 0.01 * seed)
            row[f"accuracy_{method}"] = np.minimum(1, SIZES / 50) * (1 - 0.01 * seed)
        rows.append(trial.config | row | changes)
    return pandas.DataFrame(rows)


def verdicts(rows: pandas.DataFrame) -> dict[str, str]:
    table = CircuitStudy.table(rows)
    return {c.name: asserted(c.check(table), c) for c in CircuitStudy.claims}


def test_claims_come_out_as_expected_where_measurements_do():
    assert set(verdicts(made_up()).values()) == {"as expected"}


OPPOSITE = {
    "a-small-share-of-edges-is-enough": {"share_gates": 0.5},
    "circuits-hold-on-other-pairs": {"held_out_accuracy_gates": 0.5},
    "random-edges-are-not-enough": {"random_accuracy": 0.85},
    "without-the-circuit-nothing-is-left": {"complement_accuracy": 0.85},
    "attribution-patching-makes-faithful-circuits": {"shortfall_eap": 0.0},
    "integration-makes-faithful-circuits": {"shortfall_inputs": 0.2},
}


@pytest.mark.parametrize("name", OPPOSITE)
def test_the_opposite_contradicts_this_claim_alone(name: str):
    found = verdicts(made_up(**OPPOSITE[name]))
    assert {claim for claim, standing in found.items() if standing == "contradicts"} == {name}


def test_every_claim_has_an_opposite_and_every_wrong_one_a_correction():
    claims = {claim.name: claim for claim in CircuitStudy.claims}
    assert set(OPPOSITE) == set(claims)
    for claim in claims.values():
        assert (claim.expected == "refuted") == (claim.corrected_by in claims)


def test_claims_about_single_positions_are_about_no_others():
    rows = made_up(share_gates=0.5, shortfall_inputs=0.2, positional=False)
    found = verdicts(rows)
    assert found["a-small-share-of-edges-is-enough"] == "undecided"
    assert found["integration-makes-faithful-circuits"] == "undecided"
    assert found["circuits-hold-on-other-pairs"] == "as expected"


def test_toys_that_have_not_learned_their_task_decide_nothing():
    wrong = {name: value for changes in OPPOSITE.values() for name, value in changes.items()}
    assert set(verdicts(made_up(**wrong, learned=False)).values()) == {"undecided"}


def test_circuits_are_compared_with_those_of_other_learned_seeds_of_the_same_toy():
    """Two circuits of 4 edges that share 2: 2 of 6."""
    circuits = np.zeros((4, *SHAPE), dtype=bool)
    for seed, edges in enumerate(([0, 1, 2, 3], [0, 1, 4, 5], [9], [7])):
        circuits[seed, 0, 0, edges] = True
    rows = made_up(4).assign(learned=[True, True, False, True], circuit_gates=list(circuits))
    rows.loc[3, "toy"] = "toy-4x64"
    found = CircuitStudy.table(rows)["seed_jaccard"].to_numpy()
    np.testing.assert_allclose(found, [2 / 6, 2 / 6, np.nan, np.nan])
    assert "seed_jaccard" not in rows


def test_presets_name_toys_and_tasks_that_there_are():
    for name in CircuitStudy.presets:
        for trial in CircuitStudy.at(name).trials():
            assert trial.config["toy"] in TOYS
            assert trial.config["task"] in TASKS


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    """Toys of these tests are kept where no other ones are."""
    with pytest.MonkeyPatch.context() as patch:
        place: Path = tmp_path_factory.mktemp("cache")
        patch.setattr(toys, "cache_folder", lambda: place)
        yield


@cache
def measured() -> dict:
    """Of a toy that has hardly been trained."""
    study = CircuitStudy(resolutions=("layer",), pairs=6, max_steps=2, seeds=1)
    (trial,) = study.trials()
    return dict(CircuitStudy.measure(trial.rng, **trial.config))


def test_curves_begin_at_the_corrupted_run_and_end_at_the_clean_one():
    found = measured()
    sizes, edges = found["sizes"], found["edges"]
    assert edges == 6 * 20
    assert sizes[0] == 0
    assert sizes[-1] == edges
    assert (np.diff(sizes) > 0).all()
    for curve in (*(f"nld_{method}" for method in SCORES), "nld_random"):
        assert found[curve].shape == sizes.shape
        assert found[curve][0] == pytest.approx(0, abs=1e-3)
        np.testing.assert_allclose(found[curve][-1], found["nld_exact"][-1], atol=1e-6)
    # The complement of no edges is all of them.
    assert found["nld_complement"][0] == pytest.approx(found["nld_exact"][-1], abs=1e-6)
    assert found["nld_complement"][-1] == pytest.approx(0, abs=1e-3)


def test_sizes_are_those_of_the_circuits_beside_them():
    found = measured()
    for method in SCORES:
        circuit = found[f"circuit_{method}"]
        assert circuit.shape == (3, 3, 20)
        assert found[f"kept_{method}"] == circuit.sum() <= found[f"size_{method}"]
        assert found[f"share_{method}"] == found[f"size_{method}"] / found["edges"]
    assert not (found["circuit_acdc"] & ~found["circuit_gates"]).any()
    assert found["size_acdc"] == found["circuit_acdc"].sum()
    assert found["largest_drop_of_acdc"] <= 0.01


@pytest.mark.parametrize(
    ("toy", "task", "resolution", "positional"),
    [
        ("toy-2x64", "ioi", "layer", False),
        ("toy-mamba2", "two-name-ioi", "branch", False),
        ("toy-hybrid", "induction", "layer", False),
        ("toy-hybrid", "ioi", "branch", True),
    ],
)
def test_corners_of_the_larger_presets_can_be_measured(toy, task, resolution, positional):
    """From a graph of six edges on; the target is as if nothing were learned."""
    study = CircuitStudy(
        toys=(toy,), tasks=(task,), resolutions=(resolution,), positional=(positional,), pairs=4,
        max_steps=1, seeds=1,
    )  # fmt: skip
    (trial,) = study.trials()
    found = CircuitStudy.measure(trial.rng, **trial.config)
    assert not found["learned"]
    if toy != "toy-hybrid" or positional:  # of which at least one pair is answered rightly
        assert found["sizes"][-1] == found["edges"]
        assert found["nld_exact"][-1] == pytest.approx(found["nld_gates"][-1], abs=1e-6)


def test_edges_are_ranked_by_size_and_by_gates_with_their_signs(monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = circuits.ranked

    def watched(graph, scores, **options):
        seen.append(options.get("by", "signed"))
        return real(graph, scores, **options)

    monkeypatch.setattr(circuits, "ranked", watched)
    measured.__wrapped__()
    assert seen == ["absolute", "absolute", "absolute", "signed", "signed", "signed"]


def test_a_toy_that_answers_as_many_corrupted_pairs_has_an_empty_circuit():
    found = measured()
    assert not found["learned"]
    assert found["size_gates"] == found["size_acdc"] == 0
    assert found["split_jaccard"] == 1
