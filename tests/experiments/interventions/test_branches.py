"""Branches: copies of the stream that single parts of a block read."""

from contextlib import contextmanager

import pytest
import torch

from experiments.interventions.branches import branches, read_by
from experiments.models.mixers import MIXERS
from tests.experiments.interventions.made import network
from tests.experiments.interventions.made_edges import made_model

CLOSE = dict(rtol=0, atol=1e-12)
SPLIT = ("mamba", "mamba2", "attention")
FINER = [(mixer, resolution) for mixer in SPLIT for resolution in ("branch", "tap")]


def streams(rows=2, length=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(2, rows, length, 16, generator=rng).double()


@contextmanager
def projecting(projection, value):
    """The projection gives this, whatever it is given."""
    handle = projection.register_forward_hook(lambda module, inputs, output: value)
    yield
    handle.remove()


@torch.no_grad()
def reading(block, branch, stream, other, resolution):
    copies = dict.fromkeys(branches(block, resolution), stream)
    (wanted,) = (each for each in copies if each.name == branch)
    return read_by(block, stream, copies | {wanted: other})


@pytest.mark.parametrize(("mixer", "resolution"), [*((name, "layer") for name in MIXERS), *FINER])
@torch.no_grad()
def test_equal_copies_are_the_block_and_other_ones_its_run_on_them(mixer, resolution):
    block = made_model(mixer).blocks[0]
    stream, other = streams()
    found = branches(block, resolution)
    same = read_by(block, stream, dict.fromkeys(found, stream))
    torch.testing.assert_close(same, block(stream) - stream, **CLOSE)
    moved = read_by(block, stream, dict.fromkeys(found, other))
    torch.testing.assert_close(moved, block(other) - other, **CLOSE)
    assert (moved - same).abs().max() > 1e-3
    torch.testing.assert_close(read_by(block, stream, {}), same, **CLOSE)


@pytest.mark.parametrize(("mixer", "resolution"), FINER)
def test_every_branch_matters_and_is_read_on_its_own(mixer, resolution):
    block = made_model(mixer).blocks[0]
    stream, other = streams()
    outs = [
        reading(block, branch.name, stream, other, resolution)
        for branch in branches(block, resolution)
    ]
    outs.append(block(stream) - stream)
    for i, out in enumerate(outs):
        for earlier in outs[:i]:
            assert (out - earlier).abs().max() > 1e-6


def test_names():
    def names(mixer, resolution, **options):
        block = made_model(mixer, options={mixer: options}).blocks[0]
        return " ".join(branch.name for branch in branches(block, resolution))

    for mixer in MIXERS:
        assert names(mixer, "layer") == "input"
        if mixer not in SPLIT:
            assert names(mixer, "branch") == names(mixer, "tap") == "input"
    taps = "tap.0 tap.1 tap.2 tap.3 gate"
    assert names("mamba", "branch") == "conv gate"
    assert names("mamba", "tap") == taps
    assert names("mamba", "tap", d_conv=2) == "tap.0 tap.1 gate"
    assert names("mamba", "tap", d_conv=0) == "conv gate"
    assert names("mamba2", "branch") == "conv gate step"
    assert names("mamba2", "tap") == f"{taps} step"
    assert names("attention", "branch", heads=2) == "q k v"
    assert names("attention", "tap", heads=2) == "q.0 q.1 k.0 k.1 v.0 v.1"


@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_a_head_reads_its_rows_of_the_projection(bias):
    model = made_model("attention", options={"attention": {"heads": 2, "bias": bias}})
    (block,), (stream, other) = model.blocks, streams()
    projection = block.mixer.qkv_proj
    live, told = projection(block.norm(stream)), projection(block.norm(other))
    for i, name in enumerate("qkv"):
        for head in range(2):
            rows = slice(16 * i + 8 * head, 16 * i + 8 * (head + 1))
            edited = live.clone()
            edited[..., rows] = told[..., rows]
            with projecting(projection, edited):
                expected = block(stream) - stream
            found = reading(block, f"{name}.{head}", stream, other, "tap")
            torch.testing.assert_close(found, expected, **CLOSE)


@torch.no_grad()
def test_the_step_of_mamba2_reads_the_last_rows_of_the_projection():
    (block,), (stream, other) = made_model("mamba2").blocks, streams()
    projection, heads = block.mixer.in_proj, len(block.mixer.D)
    edited = projection(block.norm(stream))
    edited[..., -heads:] = projection(block.norm(other))[..., -heads:]
    with projecting(projection, edited):
        expected = block(stream) - stream
    torch.testing.assert_close(reading(block, "step", stream, other, "tap"), expected, **CLOSE)


@torch.no_grad()
def test_tap_k_reads_k_positions_back():
    (block,), (stream, _) = made_model("mamba").blocks, streams()
    other = stream.clone()
    other[:, 1] += 1
    for k in range(4):
        found = reading(block, f"tap.{k}", stream, other, "tap")
        changed = (found - (block(stream) - stream)).abs().amax(dim=(0, 2)) > 1e-12
        assert changed.tolist() == [t >= 1 + k for t in range(6)]
    gated = reading(block, "gate", stream, other, "tap") - (block(stream) - stream)
    assert (gated.abs().amax(dim=(0, 2)) > 1e-12).tolist() == [t == 1 for t in range(6)]


def test_sequences_shorter_than_the_convolution():
    (block,), (stream, other) = made_model("mamba").blocks, streams(length=2)
    with torch.no_grad():
        still = block(stream) - stream
    assert (reading(block, "tap.1", stream, other, "tap") - still).abs().max() > 1e-6
    torch.testing.assert_close(reading(block, "tap.3", stream, other, "tap"), still, **CLOSE)


@pytest.mark.parametrize("mixer", SPLIT)
@torch.no_grad()
def test_weights_are_those_of_now(mixer):
    (block,), (stream, other) = made_model(mixer).blocks, streams()
    found = branches(block, "tap")
    block.float()
    for parameter in block.parameters():
        parameter.mul_(2)
    stream, other = stream.float(), other.float()
    moved = read_by(block, stream, dict.fromkeys(found, other))
    torch.testing.assert_close(moved, block(other) - other, rtol=1e-4, atol=1e-4)


def test_unknown_resolution():
    block = network("mamba").blocks[0]
    with pytest.raises(ValueError, match="resolution must be one of 'layer', 'branch', 'tap', got"):
        branches(block, "head")
