"""What tokens write into the state, and what is read of it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.interventions import state_writes
from experiments.interventions.logit_difference import logit_difference
from experiments.interventions.state_writes import (
    COMPARED,
    answer_directions,
    cosine_map,
    write_attribution,
)
from tests.experiments.interventions.made_codes import named_pairs, network, recorded

MIXERS = ("mamba", "mamba2")
STEM = "blocks.1.mixer."


def by_hand(of, write, h, A_bar):
    """Loops over prompts and times; decays have the axes of the writes."""
    prompts, length = write.shape[:2]
    cosines = torch.zeros(prompts, length, length, dtype=torch.float64)
    for b in range(prompts):
        for i in range(length):
            for j in range(length):
                if of == "decayed":
                    first = write[b, i] * A_bar[b, i + 1 : j + 1].prod(0) * (i <= j)
                else:
                    first = (h if of == "state-state" else write)[b, i]
                last = (write if of == "write-write" else h)[b, j]
                if first.any() and last.any():
                    norms = first.square().sum().sqrt() * last.square().sum().sqrt()
                    cosines[b, i, j] = (first * last).sum() / norms
    return cosines


def states(model, tokens):
    found = recorded(model, tokens, *(f"{STEM}{site}.*" for site in ("write", "h", "A_bar")))
    write, h, A_bar = (
        torch.stack([found[f"{STEM}{site}.{t}"] for t in range(tokens.shape[1])], dim=1)
        for site in ("write", "h", "A_bar")
    )
    A_bar = A_bar if A_bar.ndim == write.ndim else A_bar[..., None, None].expand_as(write)
    return write, h, A_bar


@pytest.mark.parametrize("of", COMPARED)
@pytest.mark.parametrize("mixer", MIXERS)
def test_cosine_maps_are_those_of_loops(mixer, of):
    model, tokens = network(mixer, mixer), named_pairs(3).clean
    found = cosine_map(model, tokens, 1, of=of, rows=2)
    torch.testing.assert_close(found, by_hand(of, *states(model, tokens)))
    if of == "decayed":  # the last write is not decayed at all, and earlier ones are
        diagonal = cosine_map(model, tokens, 1).diagonal(dim1=1, dim2=2)
        torch.testing.assert_close(found.diagonal(dim1=1, dim2=2), diagonal)
        assert not torch.allclose(found, cosine_map(model, tokens, 1).triu(), atol=1e-3)


def test_cosines_with_nothing_written_are_0():
    model, tokens = network("mamba"), named_pairs(2).clean
    with torch.no_grad():
        model.blocks[0].mixer.conv1d.weight.zero_()
        model.blocks[0].mixer.conv1d.bias.zero_()
    for of in COMPARED:
        assert not cosine_map(model, tokens, 0, of=of).any()


@pytest.mark.parametrize("mixer", MIXERS)
@settings(max_examples=5)
@given(seed=st.integers(0, 100))
def test_parts_add_up_to_the_output_of_the_block(mixer, seed):
    model, pairs = network("mamba", mixer, seed=seed), named_pairs(4, seed=seed)
    at = torch.randint(0, 12, (4,), generator=torch.Generator().manual_seed(seed))
    found = write_attribution(model, pairs.clean, 1, at, answer_directions(model, pairs), rows=3)
    assert found.error < 1e-10
    assert not found.writes[torch.arange(14) > at[:, None]].any()
    seen = recorded(model, pairs.clean, "blocks.1.out", "resid_final", "final_norm")
    stream, out = (seen[name][range(4), at] for name in ("resid_final", "blocks.1.out"))
    scale = (seen["final_norm"][range(4), at]) / stream
    expected = (out * scale * answer_directions(model, pairs)).sum(1)
    torch.testing.assert_close(found.writes.sum(1) + found.skip, expected)


@pytest.mark.parametrize("mixer", MIXERS)
def test_parts_of_single_precision_add_up(mixer):
    model, pairs = network(mixer, mixer, dtype=torch.float32), named_pairs(6)
    found = write_attribution(model, pairs.clean, 1, pairs.out, answer_directions(model, pairs))
    assert 0 < found.error < 1e-4


@pytest.mark.parametrize("norm", ["rms", "layer"])
def test_parts_of_all_blocks_and_the_embedding_are_the_logit_difference(norm):
    model, pairs = network("mamba", "mamba2", norm=norm), named_pairs(6)
    if norm == "layer":
        with torch.no_grad():
            model.norm_f.bias.zero_()
    directions, rows = answer_directions(model, pairs), torch.arange(6)
    total = torch.zeros(6, dtype=torch.float64)
    for block in range(2):
        found = write_attribution(model, pairs.clean, block, pairs.out, directions)
        total += found.writes.sum(1) + found.skip
    seen = recorded(model, pairs.clean, "embedded", "resid_final", "logits")
    stream, embedded = seen["resid_final"][rows, pairs.out], seen["embedded"][rows, pairs.out]
    if norm == "layer":
        stream = stream - stream.mean(1, keepdim=True)
        embedded = embedded - embedded.mean(1, keepdim=True)
    scale = model.norm_f.weight / (stream.square().mean(1, keepdim=True) + 1e-5).sqrt()
    total += (embedded * scale * directions).sum(1)
    expected = logit_difference(seen["logits"][rows, pairs.out], pairs)
    torch.testing.assert_close(total, expected.double())


@pytest.mark.parametrize("mixer", MIXERS)
def test_a_part_is_what_the_output_loses_without_that_write(mixer):
    """Oracle: the state runs on without the write, Mamba-2's inner norm is left out."""
    model, pairs = network("mamba", mixer), named_pairs(5)
    if mixer == "mamba2":
        model.blocks[1].mixer.norm = Scaled(pairs, model)
    directions, rows = answer_directions(model, pairs), torch.arange(5)
    original = network("mamba", mixer)
    found = write_attribution(original, pairs.clean, 1, pairs.out, directions)
    full = recorded(model, pairs.clean, "blocks.1.out")["blocks.1.out"][rows, pairs.out]
    seen = recorded(original, pairs.clean, "resid_final", "final_norm")
    scale = (seen["final_norm"] / seen["resid_final"])[rows, pairs.out]
    for time in (0, 4, 11):
        with model.patch({f"{STEM}write.{time}": torch.zeros_like}):
            out = recorded(model, pairs.clean, "blocks.1.out")["blocks.1.out"][rows, pairs.out]
        lost = ((full - out) * scale * directions).sum(1)
        torch.testing.assert_close(found.writes[:, time], lost)


class Scaled(torch.nn.Module):
    """Mamba-2's inner norm, its scale being that of the run of these pairs."""

    def __init__(self, pairs, model):
        super().__init__()
        seen = recorded(model, pairs.clean, f"{STEM}gated", f"{STEM}inner_norm")
        self.scale = seen[f"{STEM}inner_norm"] / seen[f"{STEM}gated"]

    def forward(self, x):
        return x * self.scale


@pytest.mark.parametrize("mixer", MIXERS)
def test_parts_without_decay_do_not_add_up(monkeypatch, mixer):
    monkeypatch.setattr(state_writes, "_decays", lambda A_bar, write: torch.ones_like(write))
    model, pairs = network(mixer, mixer), named_pairs(4)
    found = write_attribution(model, pairs.clean, 1, pairs.out, answer_directions(model, pairs))
    assert found.error > 1e-2


def test_directions_are_rows_of_the_head():
    tied, pairs = network("mamba"), named_pairs(4)
    torch.testing.assert_close(
        answer_directions(tied, pairs),
        tied.embedding.weight[pairs.answer] - tied.embedding.weight[pairs.corrupted_answer],
    )
    free = network("mamba", d_output=20)
    difference = free.head.weight[pairs.answer] - free.head.weight[pairs.corrupted_answer]
    torch.testing.assert_close(answer_directions(free, pairs), difference)


def test_bad_arguments_are_named():
    model, pairs = network("mamba", "attention"), named_pairs(2)
    directions = answer_directions(model, pairs)
    with pytest.raises(ValueError, match="block must be from 0 to 1, got 2"):
        cosine_map(model, pairs.clean, 2)
    with pytest.raises(ValueError, match=r"block must be that of a mamba .*, a 'attention'"):
        write_attribution(model, pairs.clean, 1, pairs.out, directions)
    with pytest.raises(ValueError, match="of must be one of"):
        cosine_map(model, pairs.clean, 0, of="read")
    with pytest.raises(ValueError, match="at must be from 0 to 13"):
        write_attribution(model, pairs.clean, 0, pairs.out + 1, directions)
