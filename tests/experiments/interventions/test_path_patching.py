"""Paths between blocks, on models where every path is known and as sums that must come out."""

import numpy as np
import pytest
import torch

from experiments.interventions.interchange import interchange
from experiments.interventions.patches import patch
from experiments.interventions.path_patching import EMBEDDING, LOGITS, Path, path_effects
from tests.experiments.interventions.made import MECHANISMS, network, nothing, pairs, written

CLOSE = dict(rtol=0, atol=1e-9)


def path(*senders, to, at=None):
    return Path(senders=frozenset(senders), receiver=to, at=None if at is None else frozenset(at))


def ratios(model, paths, kind="key"):
    return [effect.summary(resamples=5).ratio for effect in path_effects(model, pairs(kind), paths)]


def test_paths_of_induction():
    """The first layer tells the second what it noted at the value; the second tells the answer."""
    model = written(*MECHANISMS["induction"])
    paths = {
        path(0, to=1): 1,
        path(0, to=1, at=["value"]): 1,
        path(0, to=1, at=["key"]): 0,
        path(EMBEDDING, to=1): 0,
        path(0, to=LOGITS): 0,
        path(1, to=LOGITS, at=["query"]): 1,
        path(1, to=LOGITS, at=["value"]): 0,
        path(EMBEDDING, to=LOGITS): 0,
    }
    assert ratios(model, list(paths)) == pytest.approx(list(paths.values()), abs=1e-9)


def test_paths_of_direct_retrieval():
    early, late = (written(*MECHANISMS[f"direct retrieval {when}"]) for when in ("early", "late"))
    paths = [path(0, to=LOGITS), path(0, to=1), path(EMBEDDING, to=1, at=["key"]),
             path(EMBEDDING, to=0), path(1, to=LOGITS)]  # fmt: skip
    assert ratios(early, paths) == pytest.approx([1, 0, 0, 1, 0], abs=1e-9)
    assert ratios(late, paths) == pytest.approx([0, 0, 1, 0, 1], abs=1e-9)


def test_a_path_leaves_out_what_goes_through_blocks_between():
    """Notes, then nothing, then the answer from the notes: the middle takes no part."""
    bind, look_up = MECHANISMS["induction"]
    assert ratios(
        written(bind, nothing, look_up), [path(0, to=2), path(0, to=1), path(1, to=2)]
    ) == pytest.approx([1, 0, 0], abs=1e-9)
    # Whereas a model of three random blocks has both ways, which the interchange takes together.
    model, pair = network("attention", "mlp", "attention"), pairs()
    (direct,) = path_effects(model, pair, [path(0, to=2)])
    (total,) = interchange(model, pair, [patch("blocks.0.out")])
    assert np.abs(direct.patched - total.patched).max() > 1e-3


@pytest.mark.parametrize("direction", ["denoise", "noise"])
@pytest.mark.parametrize("layers", [("mamba", "mlp", "attention"), ("delta-net", "hyena", "mlp")])
def test_all_senders_together_hand_over_the_stream_of_the_source(layers, direction):
    model, pair = network(*layers), pairs("swap-values")
    for receiver, site in ((1, "blocks.1.layer_input"), (2, "blocks.2.layer_input"),
                           (LOGITS, "resid_final")):  # fmt: skip
        senders = range(3 if receiver == LOGITS else receiver)
        for at in (None, ["value"], ["next_key"]):
            (told,) = path_effects(
                model, pair, [path(EMBEDDING, *senders, to=receiver, at=at)], direction=direction
            )
            (read,) = interchange(model, pair, [patch(site, at=at)], direction=direction)
            np.testing.assert_allclose(told.patched, read.patched, **CLOSE)
            assert np.array_equal(told.measured, read.measured)


@torch.no_grad()
def test_one_path_by_hand():
    model, pair = network("mamba", "attention", "mamba"), pairs()
    sites = ["blocks.0.out", "blocks.2.layer_input"]
    with model.record(*sites) as clean:
        model(pair.clean.tokens)
    with model.record(*sites) as corrupted:
        model(pair.corrupted.tokens)
    key = pair.where("key")[..., None]
    told = corrupted[sites[1]] + key * (clean[sites[0]] - corrupted[sites[0]])
    with model.patch({sites[1]: told}):
        logits = model(pair.corrupted.tokens)
    rows = torch.arange(len(pair))
    logits = logits[rows, pair.clean.positions["query"]].log_softmax(-1)
    expected = logits[rows, pair.clean.answer]
    (effect,) = path_effects(model, pair, [path(0, to=2, at=["key"])], rows=5)
    np.testing.assert_allclose(effect.patched, expected, **CLOSE)
    wrong = clean[sites[1]]  # what comes through block 1, too
    assert (told - wrong)[key.squeeze(-1)].abs().max() > 1e-3


def test_paths_that_lead_nowhere_are_refused():
    model, pair = network("mamba", "mamba"), pairs()
    for made, message in (
        (path(1, to=1), "senders must be 'embedding' or blocks before the receiver 1, got 1"),
        (path("mlp", to=1), "senders must be"),
        (path(0, to=2), "receiver must be a block from 0 to 1 or 'logits', got 2"),
        (path(0, to="out"), "receiver must be a block"),
        (path(0, to=1, at=[]), "at is empty"),
    ):
        with pytest.raises(ValueError, match=message):
            path_effects(model, pair, [made])
