"""Interchange interventions: laws on every mixer, and models whose mechanism is known."""

import math
from functools import partial

import numpy as np
import pytest
import torch

from experiments.interventions.attribution import POSITIONS, attribution_grid
from experiments.interventions.corruptions import CORRUPTIONS, Pair
from experiments.interventions.interchange import interchange
from experiments.interventions.layers import COMPONENTS
from experiments.interventions.patches import patch
from experiments.interventions.self_tests import InterventionError, self_tests
from experiments.models.mixers import MIXERS
from experiments.models.sites import SiteError
from tests.experiments.interventions.made import (
    MECHANISMS,
    SHARP,
    V,
    network,
    pairs,
    written,
)  # fmt: skip

CLOSE = dict(rtol=0, atol=1e-9)
DIRECTIONS = ("denoise", "noise")
every_mixer = pytest.mark.parametrize("mixer", MIXERS)


def answered(model, pair, tokens):
    rows = torch.arange(len(tokens))
    logits = model(tokens)[rows, pair.clean.positions["query"]]
    return logits.log_softmax(-1)[rows, pair.clean.answer]


@torch.no_grad()
def one_at_a_time(model, pair, sites, position, direction="denoise"):
    """Log-probabilities in whole runs that are patched at one of the sites, by site."""
    source, base = pair.clean.tokens, pair.corrupted.tokens
    if direction == "noise":
        source, base = base, source
    at = pair.clean.positions[position].tolist()
    with model.record(*(site.replace("{t}", "*") for site in sites)) as seen:
        model(source)

    def edit(activation, name):
        activation = activation.clone()
        for i, t in enumerate(at):
            if name in sites and t >= 0:
                activation[i, t] = seen[name][i, t]
            elif name.endswith(f".{t}"):
                activation[i] = seen[name][i]
        return activation

    patched = {}
    for site in sites:
        names = {site.replace("{t}", str(t)) for t in at if t >= 0}
        with model.patch({name: partial(edit, name=name) for name in names}):
            patched[site] = answered(model, pair, base).numpy()
    return patched


def positional(model):
    """All sites that can be patched at positions; of a convolution, its tap of the present."""
    return [
        site.replace("{k}", "0")
        for site, shape in model.sites().items()
        if site != "logits" and (shape[:2] == ("batch", "length") or site.endswith("{t}"))
    ]


@every_mixer
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_every_mixer_passes_the_self_tests(mixer, direction):
    model, pair = network(mixer, "attention"), pairs(documents=5)
    effects = interchange(model, pair, [frozenset()], direction=direction)[0]
    assert np.abs(effects.clean - effects.corrupted).max() > 1e-4  # or nothing would be tested
    self_tests(model, pair, direction=direction, rows=12).check(1e-9)


@every_mixer
def test_every_site_of_every_mixer_as_one_at_a_time(mixer):
    """And each matters at the key."""
    model, pair = network(mixer, "attention"), pairs(documents=3)
    sites = [site for site in positional(model) if site.startswith("blocks.0.")]
    effects = interchange(model, pair, [patch(site, at=["key"]) for site in sites])
    expected = one_at_a_time(model, pair, sites, "key")
    for site, effect in zip(sites, effects, strict=True):
        np.testing.assert_allclose(effect.patched, expected[site], **CLOSE, err_msg=site)
        assert np.abs(effect.patched - effect.corrupted).max() > 1e-9, site


@pytest.mark.parametrize("mixer", ["mamba", "delta-net"])
def test_noise_where_some_documents_lack_the_position(mixer):
    model, pair = network("attention", "mlp", mixer), pairs(documents=4, kind="swap-values")
    sites = [site for site in positional(model) if not site.startswith("blocks.1.")]
    patches = [patch(site, at=["next_key"]) for site in sites]
    effects = interchange(model, pair, patches, direction="noise")
    expected = one_at_a_time(model, pair, sites, "next_key", "noise")
    there = (pair.clean.positions["next_key"] >= 0).tolist()
    assert not all(there)
    for site, effect in zip(sites, effects, strict=True):
        np.testing.assert_allclose(effect.patched, expected[site], **CLOSE, err_msg=site)
        assert effect.measured.tolist() == there


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_corruption_passes_the_self_tests(kind):
    self_tests(network("attention", "mlp", "mamba"), pairs(kind), rows=7).check(1e-9)


def test_edits_at_wrong_positions_fail_the_self_tests(monkeypatch):
    model, pair, where = network("mamba", "attention"), pairs(), Pair.where
    monkeypatch.setattr(Pair, "where", lambda self, name: where(self, name).roll(-1, dims=1))
    found = self_tests(model, pair)
    assert min(found.changed, found.unchanged, found.control) > 1e-3
    with pytest.raises(InterventionError, match=r"off by more than 0.001: changed .*control"):
        found.check(1e-3)


def test_rows_in_one_pass_and_the_company_of_patches_change_nothing():
    model, pair = network("mamba", "mlp", "attention"), pairs(documents=7)
    patches = [
        patch("blocks.0.mixer.h.{t}", "blocks.2.mixer.q", at=["key"]),
        patch("blocks.0.mixer.h.{t}", "blocks.2.mixer.q", at=["value", "query"]),
        patch("blocks.0.out", but=["value"]) | patch("blocks.1.normed", at=["key"]),
        patch("blocks.0.mixer.conv", at=["next_key"]),
        frozenset(),
    ]
    together = interchange(model, pair, patches)
    for rows in (1, 3, 15):
        for some, all_at_once in zip(
            interchange(model, pair, patches, rows=rows), together, strict=True
        ):
            np.testing.assert_allclose(some.patched, all_at_once.patched, **CLOSE)
            np.testing.assert_allclose(some.clean, all_at_once.clean, **CLOSE)
            assert np.array_equal(some.measured, all_at_once.measured)
    for one, effect in zip(patches, together, strict=True):
        np.testing.assert_allclose(
            interchange(model, pair, [one])[0].patched, effect.patched, **CLOSE
        )


def test_a_set_of_cells_is_patched_together():
    """In one block, the key and the value; they do not add up."""
    model, pair = network("attention", "attention"), pairs("swap-keys")
    site = "blocks.1.resid_pre"
    key, value, both = interchange(
        model, pair, [patch(site, at=[x]) for x in ("key", "value")]
        + [patch(site, at=["key"]) | patch(site, at=["value"])],
    )  # fmt: skip
    with torch.no_grad(), model.record(site) as seen:
        model(pair.clean.tokens)
    mask = pair.where("key") | pair.where("value")

    def edit(activation):
        return torch.where(mask[..., None], seen[site], activation)

    with torch.no_grad(), model.patch({site: edit}):
        expected = answered(model, pair, pair.corrupted.tokens).numpy()
    np.testing.assert_allclose(both.patched, expected, **CLOSE)
    assert np.abs(both.patched - key.patched - value.patched + key.corrupted).max() > 1e-4


def test_all_but_one_position_and_documents_that_lack_one():
    model, pair = network("mamba", "attention"), pairs(documents=20)
    all_but, everywhere = interchange(
        model, pair, [patch("blocks.1.resid_pre", but=["next_key"]), patch("blocks.1.resid_pre")]
    )
    lacking = pair.clean.positions["next_key"].numpy() < 0
    np.testing.assert_allclose(everywhere.patched, everywhere.clean, **CLOSE)
    np.testing.assert_allclose(all_but.patched[lacking], all_but.corrupted[lacking], **CLOSE)
    assert np.array_equal(all_but.measured, ~lacking)
    assert all_but.summary().documents == (~lacking).sum()


def test_runs_are_made_once_and_go_on_from_the_first_patched_block():
    model, pair, passed = network("attention", "mlp", "mamba"), pairs(documents=6), []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: passed.append(number))
    sites = ["blocks.2.resid_pre", "blocks.1.resid_post", "blocks.2.resid_post"]
    patches = [patch(site, at=[position]) for site in sites for position in ("key", "value")]
    interchange(model, pair, patches)
    assert sorted(passed) == [0, 0, 1, 1, 2, 2, 2]


def test_sites_that_do_not_exist_are_refused():
    with pytest.raises(SiteError, match=r"no site 'blocks.0.mixer.conv'"):
        interchange(network("attention"), pairs(), [patch("blocks.0.mixer.conv")])
    with pytest.raises(ValueError, match="rows"):
        interchange(network("attention"), pairs(), [frozenset()], rows=0)
    with pytest.raises(ValueError, match="direction"):
        interchange(network("attention"), pairs(), [frozenset()], direction="restore")


RESTORED = {
    "induction": {(0, "block_input", "key"), (0, "mixer_input", "key"),
                  (0, "mixer_output", "value"), (0, "block_output", "value"),
                  (1, "block_input", "value"), (1, "mixer_input", "value"),
                  (1, "mixer_output", "query"), (1, "block_output", "query")},
    "direct retrieval early": {(0, "block_input", "key"), (0, "mixer_input", "key"),
                               (0, "mixer_output", "query"), (0, "block_output", "query"),
                               (1, "block_input", "query"), (1, "block_output", "query")},
}  # fmt: skip


@pytest.mark.parametrize("name", RESTORED)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_grids_of_models_with_a_known_mechanism(name, direction):
    """The answer comes back, whole, on its way through the model and nowhere else.

    p(clean) = e^s / (e^s + V - 1) with s the logit of the answer; p(corrupted) = 1 / V.
    """
    pair = pairs(documents=30)
    grid = attribution_grid(written(*MECHANISMS[name]), pair, direction=direction)
    assert grid.clean.to_numpy() == pytest.approx(1 / (1 + (V - 1) * math.exp(-SHARP)))
    assert grid.corrupted.to_numpy() == pytest.approx(1 / V)
    assert len(grid) == 2 * 4 * len(POSITIONS)
    for row in grid.itertuples():
        expected = float((row.layer, row.component, row.position) in RESTORED[name])
        assert (row.ratio, row.low, row.high) == pytest.approx((expected,) * 3, abs=1e-9)
        assert (row.mean_of_ratios, row.log_ratio) == pytest.approx((expected,) * 2, abs=1e-9)


def test_grids_count_layers_as_papers_do():
    model, pair = network("mamba", "mlp", "attention"), pairs()
    grid = attribution_grid(model, pair, resamples=10)
    assert len(grid) == (6 + 4) * len(POSITIONS)
    assert set(grid[grid.layer == 0].component) == set(COMPONENTS)
    first, second = grid[grid.component == "block_output"], grid[grid.component == "block_input"]
    for position in POSITIONS:
        after = first[(first.layer == 0) & (first.position == position)]
        before = second[(second.layer == 1) & (second.position == position)]
        assert after.patched.item() == before.patched.item()
    inner = attribution_grid(model, pair, ["mixer.h.{t}", "mixer.k"], ["key"], resamples=10)
    assert list(zip(inner.layer, inner.component, strict=True)) == [
        (0, "mixer.h.{t}"),
        (1, "mixer.k"),
    ]
    with pytest.raises(SiteError, match=r"no layer of this model has 'mixer.beta'"):
        attribution_grid(model, pair, ["mixer.beta"])
