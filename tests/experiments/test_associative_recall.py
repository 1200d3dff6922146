"""The study of associative recall: its claims on tables with known answers, and its tables."""

import math

import numpy as np
import pandas
import pytest

from experiments.studies.associative_recall import AssociativeRecallStudy

IN_TWO_STEPS = ("attention", "based")
RECURRENT = ("mamba", "delta-net", "hyena", "h3")
VARIANTS = (
    "attention-without-positions", "based-conv-1", "based-conv-2", "mamba-conv-0", "mamba-conv-2"
)  # fmt: skip
CLAIMS = {claim.name: claim for claim in AssociativeRecallStudy.claims}


def record(architecture, seed, **changes):
    """A training as the papers describe it."""
    two_steps = architecture in IN_TWO_STEPS
    found = {
        "architecture": architecture, "layers": 2, "d": 32, "mlp": False, "num_pairs": 4,
        "num_keys": 8, "rate_factor": 1.0, "max_steps": 1200, "batch_size": 32, "patched": 128,
        "seed": seed, "accuracy": 0.96 + 0.01 * seed, "validation_accuracy": 0.96,
        "status": "target reached", "at_value": 0.98 + 0.01 * seed if two_steps else 0.01 * seed,
        "at_behind_key": 0.99 if two_steps else 0.01 * seed,
        "sufficient": math.nan if architecture == "attention" else 0.98 + 0.01 * seed,
        "necessary": math.nan if architecture == "attention" else 0.97 + 0.01 * seed,
        "self_test": 1e-6 * (1 + seed), "inexact": 0, "patched_runs": 640, "chance": 0.25,
    }  # fmt: skip
    if architecture in ("mamba-conv-0", "based-conv-1"):
        found |= {"accuracy": 0.25 + 0.01 * seed, "status": "finished"}
    return found | changes


def family(architecture):
    return "recurrent" if architecture in RECURRENT else architecture


def table(changed=None, **changes):
    """All architectures, three seeds; `changes` to those that are `changed`.

    "one layer of mamba" is the name of that.
    """
    rows = []
    for architecture in (*IN_TWO_STEPS, *RECURRENT, *VARIANTS):
        change = changes if changed in (architecture, family(architecture)) else {}
        rows += [record(architecture, seed, **change) for seed in range(3)]
    for architecture, accuracy in (("attention", 0.25), ("mamba", 0.96)):
        change = changes if changed == f"one layer of {architecture}" else {}
        single = {"layers": 1, "at_value": math.nan, "at_behind_key": math.nan} | change
        rows += [
            record(architecture, seed, **{"accuracy": accuracy + 0.01 * seed} | single)
            for seed in range(3)
        ]
    return AssociativeRecallStudy.table(pandas.DataFrame(rows))


def outcome(name, rows):
    return CLAIMS[name].check(rows).outcome


@pytest.mark.parametrize("name", [name for name in CLAIMS if name != "convolution-is-not-enough"])
def test_what_the_papers_say_is_supported(name):
    refuted = name == "attention-needs-positions"
    assert outcome(name, table()) == ("refuted" if refuted else "supported")


@pytest.mark.parametrize("architecture", ["hyena", "h3"])
def test_a_convolution_that_is_enough_is_seen(architecture):
    rows = table()
    assert outcome("convolution-is-not-enough", rows) == "inconclusive"  # these have few pairs
    many = rows.assign(many_pairs=True)
    assert outcome("convolution-is-not-enough", many) == "refuted"  # and all recall
    poor = rows[~rows["architecture"].isin(["hyena", "h3"])]
    poor = [*poor.to_dict("records")]
    poor += [record(architecture, seed, accuracy=0.25 + 0.01 * seed, num_pairs=16)
             for seed in range(3)]  # fmt: skip
    found = AssociativeRecallStudy.table(pandas.DataFrame(poor))
    assert outcome("convolution-is-not-enough", found) == "supported"


@pytest.mark.parametrize(
    ("name", "changed", "changes"),
    [
        *((f"{a}-solves-recall", a, {"accuracy": 0.5}) for a in IN_TWO_STEPS),
        *((f"{a}-stores-at-the-value", a, {"at_value": 0.1}) for a in IN_TWO_STEPS),
        *((f"{a}-stores-behind-the-key", a, {"at_behind_key": 0.1}) for a in IN_TWO_STEPS),
        *((f"{a}-stores-elsewhere", a, {"at_value": 0.9}) for a in RECURRENT),
        ("equal-accuracy-unequal-mechanism", "recurrent", {"at_behind_key": 0.9}),
        ("mamba-needs-its-convolution", "mamba-conv-0", {"accuracy": 0.95}),
        ("based-needs-its-convolution", "based-conv-1", {"accuracy": 0.95}),
        ("convolution-of-two-suffices-in-based", "based-conv-2", {"accuracy": 0.5}),
        ("one-layer-of-attention-fails", "one layer of attention", {"accuracy": 0.95}),
        ("one-layer-of-mamba-suffices", "one layer of mamba", {"accuracy": 0.5}),
        (
            "convolution-of-two-suffices",
            "mamba-conv-2",
            {"accuracy": 0.3, "max_steps": 50_016, "status": "finished"},
        ),
        ("convolution-binds-in-mamba", "mamba", {"sufficient": 0.2}),
        ("convolution-carries-the-binding-alone", "mamba", {"necessary": 0.2}),
        ("interventions-are-exact", "mamba", {"inexact": 1}),
    ],
)
def test_the_opposite_is_refuted(name, changed, changes):
    rows = table(changed, **changes)
    jitter = 1e-3 * rows["seed"].to_numpy()  # intervals need a spread
    for column in changes:
        if rows[column].dtype == float:
            rows[column] += jitter
    assert outcome(name, rows) == "refuted"


def test_attention_that_needs_positions_is_seen():
    rows = [record("attention-without-positions", seed, accuracy=0.1 + 0.01 * seed)
            for seed in range(3)]  # fmt: skip
    found = AssociativeRecallStudy.table(pandas.DataFrame(rows))
    assert outcome("attention-needs-positions", found) == "supported"


def test_one_good_training_suffices_for_a_width():
    rows = [record("mamba-conv-2", seed, validation_accuracy=v, accuracy=v)
            for seed, v in enumerate((0.3, 0.97, 0.5))]  # fmt: skip
    found = AssociativeRecallStudy.table(pandas.DataFrame(rows))
    assert found["best_training"].tolist() == [False, True, False]
    assert outcome("convolution-of-two-suffices", found) == "supported"


def test_poor_models_are_explained_where_they_beat_chance():
    rows = table("hyena", accuracy=0.4)
    assert outcome("hyena-stores-elsewhere", rows) == "supported"
    assert outcome("hyena-stores-elsewhere", table("hyena", accuracy=0.3)) == "inconclusive"


def test_a_width_that_was_not_learned_yet_is_no_evidence():
    rows = table("mamba-conv-2", accuracy=0.3, status="finished")
    assert outcome("convolution-of-two-suffices", rows) == "inconclusive"


def test_mechanisms_of_models_that_do_not_recall_do_not_count():
    rows = table("mamba", accuracy=0.5, at_value=0.9)
    assert outcome("mamba-stores-elsewhere", rows) == "inconclusive"
    rows = table("attention", accuracy=0.5)
    assert outcome("equal-accuracy-unequal-mechanism", rows) == "inconclusive"


def test_without_a_denominator_nothing_is_explained():
    assert not table("hyena", at_value=math.nan)["explained"].all()


def test_the_best_learning_rate_counts_by_validation_accuracy():
    rows = [record("mamba", seed, rate_factor=0.3, validation_accuracy=0.9, accuracy=0.1)
            for seed in range(3)]  # fmt: skip
    rows += [record("mamba", seed, validation_accuracy=0.8, accuracy=0.99) for seed in range(3)]
    rows += [record("mamba", seed, d=64, validation_accuracy=0.1) for seed in range(3)]
    found = AssociativeRecallStudy.table(pandas.DataFrame(rows))
    assert found[found["d"] == 32]["rate_factor"].eq(0.3).all()
    assert len(found) == 6


def test_comparisons_are_with_attention_of_the_same_seed():
    rows = [record("attention", seed, at_behind_key=0.5 + 0.1 * seed) for seed in range(3)]
    rows += [record("mamba", seed, at_behind_key=0.1) for seed in range(3)]
    found = AssociativeRecallStudy.table(pandas.DataFrame(rows))
    less = found[found["architecture"] == "mamba"].sort_values("seed")["less_behind_key"]
    np.testing.assert_allclose(less, [0.4, 0.5, 0.6])
    rows += [record("delta-net", seed, at_behind_key=0.3) for seed in range(3)]
    found = AssociativeRecallStudy.table(pandas.DataFrame(rows))
    less = found[found["compared"]].sort_values("seed")["less_behind_key"]
    np.testing.assert_allclose(less, [0.3, 0.4, 0.5])  # one row a seed, the mean of both
