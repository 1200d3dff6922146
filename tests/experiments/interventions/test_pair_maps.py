"""Maps over blocks, taps and positions, cell by cell and as sums that must come out."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions.logit_difference import logit_difference
from experiments.interventions.pair_maps import resample_map, tap_map, taps
from experiments.interventions.pair_runs import pair_runs
from experiments.interventions.runs import Stack
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_pairs import by_hand, made_pairs, preferred, put, recorded

CLOSE = dict(rtol=0, atol=1e-9)
MODELS = [("mamba", "attention", "mlp"), ("mamba2", "delta-net"), ("hyena", "mlp", "mamba")]
every_model = pytest.mark.parametrize("layers", MODELS)


def one_at_a_time(model, pairs, site):
    """The effects at each position, from whole runs."""
    value = recorded(model, pairs.corrupted, site)[site]
    clean, corrupted = (
        logit_difference(by_hand(model, pairs, {}, tokens), pairs)
        for tokens in (pairs.clean, pairs.corrupted)
    )
    patched = torch.stack(
        [
            logit_difference(by_hand(model, pairs, {site: put(value, at[None])}), pairs)
            for at in torch.eye(pairs.length, dtype=torch.bool)
        ]
    )
    return 1 - (patched - corrupted) / (clean - corrupted)


@every_model
def test_every_cell_of_the_resample_map_as_in_whole_runs(layers):
    model = network(*layers)
    pairs = preferred(model, made_pairs(count=4, length=6))
    found = resample_map(model, pairs, rows=7)
    assert found.shape == (len(layers), 6, 4)
    assert found.dtype == torch.float64
    for block in range(len(layers)):
        expected = one_at_a_time(model, pairs, f"blocks.{block}.layer_input")
        torch.testing.assert_close(found[block], expected, **CLOSE)
    assert found.abs().amax(dim=(1, 2)).min() > 1e-3


@every_model
def test_every_cell_of_the_tap_map_as_in_whole_runs(layers):
    model = network(*layers)
    pairs = preferred(model, made_pairs(count=3, length=6))
    found = tap_map(model, pairs)
    assert found.shape == (len(layers), max(taps(model, b) for b in range(len(layers))), 6, 3)
    wrong = torch.zeros(2)
    for block in range(len(layers)):
        width = taps(model, block)
        assert found[block, width:].isnan().all()
        for k in range(width):
            expected = one_at_a_time(model, pairs, f"blocks.{block}.mixer.conv1d.tap.{k}")
            torch.testing.assert_close(found[block, k], expected, **CLOSE)
            for i, off in enumerate((found[block, k].roll(1, 0), found[block, k - 1])):
                wrong[i] = max(wrong[i], (off - expected).abs().max())
    assert wrong.min() > 1e-3  # one position, or one tap, further on


def test_a_tap_reads_the_token_so_many_positions_back():
    """In the first block only the changed token differs: tap k matters k positions behind it."""
    model = network("mamba")
    pairs = preferred(model, made_pairs())
    found = tap_map(model, pairs)[0]
    changed, out = pairs.roles["changed"], pairs.out
    for k in range(4):
        for pair in range(len(pairs)):
            there = int(changed[pair]) + k
            others = torch.arange(pairs.length) != there
            assert found[k, others, pair].abs().max() < 1e-10
            if there <= out[pair]:
                assert found[k, there, pair].abs() > 1e-8


@settings(max_examples=4)
@given(seed=st.integers(0, 1000), layers=st.sampled_from(MODELS))
def test_nothing_where_both_runs_agree_and_behind_the_end(seed, layers):
    model = network(*layers, seed=seed)
    pairs = preferred(model, made_pairs(seed=seed))
    t = torch.arange(pairs.length)[:, None]
    idle = (t < pairs.roles["changed"]) | (t > pairs.out)
    found = resample_map(model, pairs)
    assert found[:, idle].abs().max() < 1e-8
    assert tap_map(model, pairs)[:, :, idle].nan_to_num().abs().max() < 1e-8
    first = found[0]
    assert first[pairs.changed.mT].abs().min() > 1e-8
    assert first[~pairs.changed.mT].abs().max() < 1e-8


@pytest.mark.parametrize("layers", [("mamba", "mamba"), ("attention", "mamba2")])
def test_all_taps_everywhere_are_the_convolution(layers):
    model = network(*layers)
    pairs = preferred(model, made_pairs())
    everywhere = torch.ones(1, *pairs.clean.shape, dtype=torch.bool)
    sites = [f"blocks.1.mixer.conv1d.tap.{k}" for k in range(4)]
    stack = partial(Stack, block=1, copies=1)
    some, whole, part = pair_runs(
        model,
        pairs,
        [
            stack(masks=dict.fromkeys(names, everywhere), source=tuple(names))
            for names in (sites, ["blocks.1.mixer.conv"], sites[:3])
        ],
    ).effects()
    torch.testing.assert_close(some, whole, **CLOSE)
    assert (part - whole).abs().max() > 1e-4


def test_widths_differ_and_blocks_are_chosen():
    model = network("mamba", "mamba2", "attention", mixers={"mamba": {"d_conv": 2}})
    pairs = made_pairs(count=3, length=5)
    found = tap_map(model, pairs)
    assert found.shape == (3, 4, 5, 3)
    assert found.isnan().all(dim=-1).all(dim=-1).tolist() == [
        [False, False, True, True],
        [False] * 4,
        [True] * 4,
    ]
    chosen = tap_map(model, pairs, blocks=[2, 0])
    torch.testing.assert_close(chosen, found[[2, 0], :2], equal_nan=True, **CLOSE)


def test_blocks_that_do_not_exist_or_have_no_convolution_are_refused():
    model, pairs = network("mamba", "attention"), made_pairs()
    for block in (-1, 2):
        with pytest.raises(ValueError, match=f"blocks must be from 0 to 1, got {block}"):
            tap_map(model, pairs, blocks=[0, block])
    with pytest.raises(ValueError, match=r"with a short convolution, got \[1\]"):
        tap_map(model, pairs, blocks=[1])
    without = network("mamba", mixers={"mamba": {"d_conv": 0}})
    with pytest.raises(ValueError, match=r"with a short convolution, got \[0\]"):
        tap_map(without, pairs)
