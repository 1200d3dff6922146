"""The classification, on models whose mechanism is known."""

import numpy as np
import pytest
from scipy.stats import binom

from experiments.interventions import mechanism as module
from experiments.interventions.mechanism import answers_right, mechanism
from tests.experiments.interventions.made import MECHANISMS, network, pairs, written


@pytest.mark.parametrize("label", MECHANISMS)
def test_known_mechanisms(label):
    found = mechanism(written(*MECHANISMS[label]), pairs(documents=40), chance=0.2, resamples=50)
    assert (found.label, found.confidence, found.accuracy) == (label, 1.0, 1.0)
    ratios = {position: summary.ratio for position, summary in found.attributions.items()}
    assert ratios == pytest.approx(
        {position: float(name == label) for position, name in module.LABELS.items()}, abs=1e-9
    )
    counted = {position: summary.documents for position, summary in found.attributions.items()}
    assert counted["next_key"] == (pairs(documents=40).clean.positions["next_key"] >= 0).sum()


def test_models_at_chance_are_unsolved():
    found = mechanism(network("mamba", "attention"), pairs(documents=40), chance=0.2, resamples=50)
    assert found.label == "unsolved"
    solved = written(*MECHANISMS["induction"])
    # at most c + 2 sqrt(c (1 - c) / n): 0.9 + 2 * 0.0474 = 0.995 for 40 documents, 0.9 + 0.1 for 36
    assert mechanism(solved, pairs(documents=40), chance=0.9, resamples=5).label == "induction"
    assert mechanism(solved, pairs(documents=36), chance=0.9, resamples=5).label == "unsolved"


def test_the_rule():
    """Columns are resamples, rows value, query and key."""
    nan = np.nan
    ratios = np.array(
        [
            [1.0, 0.50, 0.49, 0.6, nan, -1.0, 0.5, 0.9],
            [0.0, 0.25, 0.00, 0.4, nan, 0.70, nan, 0.0],
            [-2.0, 0.1, 0.00, 0.0, nan, 0.00, 0.2, 0.0],
        ]
    )
    solved = np.array([True] * 7 + [False])
    found = module._labels(["value", "query", "key"], ratios, solved)
    assert found == ["induction", "induction", "mixed", "mixed", "unsolved",
                     "direct retrieval early", "induction", "unsolved"]  # fmt: skip


def test_confidence_is_the_share_of_resamples(monkeypatch):
    """Half of the documents are answered from elsewhere: the label depends on the sample."""
    model, pair = written(*MECHANISMS["induction"]), pairs(documents=20)
    plain = module.interchange

    def interchange(*args, **kwargs):
        value, query, *others = plain(*args, **kwargs)
        lost = np.arange(20) < 7
        value.patched[lost], query.patched[lost] = value.corrupted[lost], value.clean[lost]
        return [value, query, *others]

    monkeypatch.setattr(module, "interchange", interchange)
    found = mechanism(model, pair, chance=0.2, resamples=2000)
    # induction while at most a third of the resampled documents are lost, k <= 6 of 20
    assert found.label == "mixed"
    assert found.confidence == pytest.approx(
        1 - binom.cdf(6, 20, 7 / 20) - binom.sf(13, 20, 7 / 20), abs=0.04
    )


def test_accuracy_in_several_passes():
    model, pair = network("mamba", "attention"), pairs(documents=30)
    right = answers_right(model, pair.clean)
    assert np.array_equal(right, answers_right(model, pair.clean, rows=7))
    logits = model(pair.clean.tokens)[range(30), pair.clean.positions["query"]]
    assert right.tolist() == (logits.argmax(-1) == pair.clean.answer).tolist()
    assert answers_right(written(*MECHANISMS["induction"]), pair.clean).all()


def test_what_cannot_be_classified_is_refused():
    with pytest.raises(ValueError, match="layers: the model has one"):
        mechanism(network("mamba", "mlp"), pairs(), chance=0.2)
    with pytest.raises(ValueError, match="not of kind 'value'"):
        mechanism(network("mamba", "mamba"), pairs("value"), chance=0.2)
    with pytest.raises(ValueError, match="chance"):
        mechanism(network("mamba", "mamba"), pairs(), chance=1.0)
