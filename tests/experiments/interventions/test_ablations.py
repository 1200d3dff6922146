"""Ablations: laws on every mixer, and the same by whole runs."""

from dataclasses import replace

import pytest
import torch

from experiments.interventions.ablations import (
    cross_talk,
    knock_out,
    mixing_blocks,
    zero_ablation,
)
from experiments.interventions.logit_difference import logit_difference
from experiments.interventions.pair_runs import pair_runs
from experiments.models.mixers import MIXERS
from experiments.models.sites import SiteError
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import by_hand, made_pairs, put, recorded

CLOSE = dict(rtol=0, atol=1e-9)
MIXING = [name for name in MIXERS if name != "mlp"]
WHOLE = ("attention", "delta-net", "hyena", "linear-attention", "rwkv", "taylor-attention")
"""Mixers all of whose output has been mixed; the others have a gate beside, or their own input."""
HYBRID = ("mamba", "attention", "mlp", "mamba2")


def nowhere(pairs):
    return torch.zeros_like(pairs.clean, dtype=torch.bool)


def before_the_end(pairs):
    """The same pairs, with other clean tokens up to, and without, the last one."""
    earlier = torch.arange(pairs.length) < pairs.out[:, None]
    other = torch.where(pairs.clean == 1, 2, 1)
    return replace(pairs, clean=torch.where(earlier, other, pairs.clean))


def moved(model, pairs, site):
    """By how much earlier clean tokens move the logits where this site is corrupted."""
    edit = {site: recorded(model, pairs.corrupted, site)[site]} if site else {}
    before, after = (by_hand(model, x, edit) for x in (pairs, before_the_end(pairs)))
    return float((before - after).abs().max())


def test_zeroed_blocks_as_in_whole_runs():
    model, pairs = network(*HYBRID), made_pairs()
    sets = [{0}, {1}, {2}, {3}, {1, 3}, {0, 1, 2, 3}, ()]
    found = zero_ablation(model, pairs, sets).logit_difference
    for some, row in zip(sets, found, strict=True):
        logits = by_hand(model, pairs, {f"blocks.{b}.out": torch.zeros_like for b in some})
        torch.testing.assert_close(row, logit_difference(logits, pairs), **CLOSE)
    torch.testing.assert_close(found[-1], pair_runs(model, pairs).clean.logit_difference)
    alone = zero_ablation(model, pairs, rows=4)
    torch.testing.assert_close(alone.logit_difference, found[:4], **CLOSE)
    assert alone.relative_probability.shape == alone.candidate_accuracy.shape == (4, len(pairs))
    assert (found[:-1] - found[-1]).abs().amax(dim=1).min() > 1e-3


@torch.no_grad()
def test_without_blocks_the_head_reads_the_embedding():
    model, pairs = network(*HYBRID), made_pairs()
    last = pairs.clean.gather(1, pairs.out[:, None]).squeeze(1)
    logits = model.head(model.norm_f(model.embedding(last)))
    (found,) = zero_ablation(model, pairs, [range(4)]).logit_difference
    torch.testing.assert_close(found, logit_difference(logits, pairs), **CLOSE)


@pytest.mark.parametrize("mixer", MIXING)
def test_no_live_token_is_heard_by_others(mixer):
    model, pairs = network(mixer), made_pairs()
    found, other = (
        cross_talk(model, x, [{0}]).logit_difference for x in (pairs, before_the_end(pairs))
    )
    torch.testing.assert_close(found, other, **CLOSE)
    assert moved(model, pairs, None) > 1e-3  # but for the patch
    # What a token does to itself is live, where there is a gate.
    edit = {"blocks.0.out": recorded(model, pairs.corrupted, "blocks.0.out")["blocks.0.out"]}
    last = torch.arange(pairs.length) == pairs.out[:, None]
    another = replace(pairs, clean=pairs.clean.where(~last, 1 + pairs.clean % 3))
    live = cross_talk(model, another, [{0}]).logit_difference[0]
    silent = logit_difference(by_hand(model, another, edit), another)
    assert ((live - silent).abs().max() > 1e-6) == (mixer not in WHOLE)


def test_in_mamba_it_is_the_convolution_and_in_mamba2_it_is_not():
    pairs, site = made_pairs(), "blocks.0.mixer.conv"
    for mixer, same in (("mamba", True), ("mamba2", False)):
        model = network(mixer)
        edit = {site: recorded(model, pairs.corrupted, site)[site]}
        expected = logit_difference(by_hand(model, pairs, edit), pairs)
        (found,) = cross_talk(model, pairs, [{0}]).logit_difference
        assert ((found - expected).abs().max() < 1e-9) == same
        assert (moved(model, pairs, site) < 1e-9) == same  # the steps are live


def test_sets_of_a_hybrid_as_in_whole_runs():
    model, pairs = network(*HYBRID), made_pairs()
    assert mixing_blocks(model) == (0, 1, 3)
    sites = {0: "blocks.0.mixer.conv", 1: "blocks.1.mixer.z", 3: "blocks.3.mixer.ssm_out"}
    values = recorded(model, pairs.corrupted, *sites.values())
    sets = [{0}, {1}, {3}, {0, 3}, {0, 1, 3}, set()]
    found = cross_talk(model, pairs, sets, rows=8).logit_difference
    for some, row in zip(sets, found, strict=True):
        logits = by_hand(model, pairs, {sites[b]: values[sites[b]] for b in some})
        torch.testing.assert_close(row, logit_difference(logits, pairs), **CLOSE)


def test_knocked_out_sites_as_in_whole_runs():
    model, pairs = network("attention", "mamba", "mamba2"), made_pairs()
    at = nowhere(pairs).scatter(1, pairs.roles["changed"][:, None], True)
    for site in ("blocks.1.mixer.A_bar", "blocks.2.mixer.A_bar"):
        for value in (0.0, 1.0):
            edits = {
                f"{site}.{t}": put(torch.tensor(value).double(), at[:, t])
                for t in range(pairs.length)
            }
            expected = logit_difference(by_hand(model, pairs, edits), pairs)
            found = knock_out(model, pairs, site=f"{site}.{{t}}", at=at, value=value)
            torch.testing.assert_close(found.logit_difference, expected, **CLOSE)
            assert found.logit_difference.shape == (len(pairs),)
    clean = pair_runs(model, pairs).clean.logit_difference
    for site in ("blocks.1.mixer.A_bar.{t}", "blocks.1.mixer.skip"):
        found = knock_out(model, pairs, site=site, at=nowhere(pairs)).logit_difference
        torch.testing.assert_close(found, clean, **CLOSE)


def test_without_a_decay_everything_before_is_forgotten():
    model = network("mamba", mixers={"mamba": {"d_conv": 1}})
    pairs, site = made_pairs(), "blocks.0.mixer.A_bar.{t}"
    last = torch.arange(pairs.length) == pairs.out[:, None]
    for value, forgotten in ((0.0, True), (1.0, False)):
        found, other = (
            knock_out(model, x, site=site, at=last, value=value).logit_difference
            for x in (pairs, before_the_end(pairs))
        )
        assert ((found - other).abs().max() < 1e-9) == forgotten


@pytest.mark.parametrize("mixer", ["mamba", "mamba2"])
def test_a_closed_gate_lets_nothing_out(mixer):
    model, pairs = network(mixer, "attention"), made_pairs()
    at = nowhere(pairs)
    at[:, 2:4] = True
    gate, out, other = (
        knock_out(model, pairs, site=f"blocks.0.{site}", at=where).logit_difference
        for site, where in (("mixer.skip", at), ("out", at), ("out", at.roll(1, dims=1)))
    )
    torch.testing.assert_close(gate, out, **CLOSE)
    assert (gate - other).abs().max() > 1e-4


def test_what_does_not_exist_is_refused():
    model, pairs = network(*HYBRID), made_pairs()
    for ablation in (zero_ablation, cross_talk):
        for block in (-1, 4):
            with pytest.raises(
                ValueError, match=f"sets must be of blocks from 0 to 3, got {block}"
            ):
                ablation(model, pairs, [{0}, {block}])
        with pytest.raises(ValueError, match="sets is empty"):
            ablation(model, pairs, [])
    with pytest.raises(ValueError, match=r"that mix tokens, \(0, 1, 3\), got 2"):
        cross_talk(model, pairs, [{0, 2}])
    at = nowhere(pairs)
    with pytest.raises(SiteError, match=r"no site 'blocks.1.mixer.A_bar.\{t\}'"):
        knock_out(model, pairs, site="blocks.1.mixer.A_bar.{t}", at=at)
    with pytest.raises(ValueError, match="value"):
        knock_out(model, pairs, site="blocks.0.mixer.skip", at=at, value=float("nan"))
    with pytest.raises(ValueError, match=r"at must have the shape \(5, 7\)"):
        knock_out(model, pairs, site="blocks.0.mixer.skip", at=at[:, :3])
