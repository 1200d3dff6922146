"""Cells and patches: where they are, and how they are named."""

import pytest
import torch

from experiments.interventions.patches import canonical, first_block, has_site, patch
from experiments.models.sites import SiteError
from tests.experiments.interventions.made import network, pairs


def where(some_patch, pair):
    (cell,) = some_patch
    return cell.where(pair)


def test_where_the_cells_are():
    pair = pairs(documents=20)
    positions = pair.clean.positions
    key = torch.zeros(20, 11, dtype=torch.bool)
    key[range(20), positions["key"]] = True
    assert torch.equal(where(patch("embedded", at=["key"]), pair), key)
    assert torch.equal(where(patch("embedded", at=["changed"]), pair), key)
    assert torch.equal(where(patch("embedded", but=["key"]), pair), ~key)
    assert where(patch("embedded"), pair).all()
    both = where(patch("embedded", at=["key", "query"]), pair)
    assert torch.equal(both, key | (torch.arange(11) == 8))


def test_documents_that_lack_a_position_have_no_cells():
    pair = pairs(documents=20)
    last = pair.clean.positions["next_key"] < 0
    assert 0 < last.sum() < 20
    for cells in (patch("embedded", at=["key", "next_key"]), patch("embedded", but=["next_key"])):
        assert torch.equal(where(cells, pair).any(dim=1), ~last)


def test_one_tensor_has_one_name():
    model = network("mamba", "mlp")
    for name, same in (
        ("embedded", "blocks.0.resid_pre"),
        ("blocks.0.resid_post", "blocks.1.resid_pre"),
        ("blocks.1.resid_post", "resid_final"),
        ("blocks.0.out", "blocks.0.out"),
        ("blocks.0.mixer.conv1d.tap.2", "blocks.0.mixer.conv1d.tap.2"),
    ):
        assert canonical(model, patch(name)) == patch(same)
    firsts = {"resid_final": 2, "final_norm": 2, "blocks.1.out": 1, "blocks.0.mixer.h.{t}": 0}
    for site, block in firsts.items():
        assert first_block(model, patch(site)) == block
    assert first_block(model, patch("blocks.1.out", "blocks.0.out")) == 0
    assert first_block(model, frozenset()) == 0


def test_sites_that_cannot_be_patched_at_positions():
    model = network("attention", "mamba")
    assert has_site(model, "blocks.1.mixer.conv1d.tap.2")
    assert not has_site(model, "blocks.0.mixer.conv1d.tap.2")
    for site in ("blocks.0.mixer.convs", "blocks.0.mixer.conv1d.tap.2", "blocks.7.out"):
        with pytest.raises(SiteError, match="no site"):
            canonical(model, patch(site))
    with pytest.raises(SiteError, match=r"close: .*blocks.1.mixer.delta"):
        canonical(model, patch("blocks.1.mixer.deltas"))
    for site in ("blocks.0.mixer.pattern", "blocks.1.mixer.conv1d.tap.{k}", "logits"):
        with pytest.raises(SiteError, match="cannot be patched at positions"):
            canonical(model, patch(site))


def test_malformed_patches_are_refused():
    with pytest.raises(ValueError, match="collections of names, got 'key'"):
        patch("embedded", at="key")
    with pytest.raises(ValueError, match="only one of at and but"):
        patch("embedded", at=["key"], but=["value"])
    with pytest.raises(ValueError, match="at is empty"):
        patch("embedded", at=[])
