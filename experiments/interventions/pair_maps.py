"""Where in a model it matters that a prompt is another one: maps over blocks and positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.interventions.pair_runs import pair_runs
from experiments.interventions.runs import ROWS, Stack
from experiments.models.backbone import SequenceModel
from experiments.models.short_convolution import ShortConvolution
from experiments.tasks.prompt_pairs import PromptPairs


def resample_map(
    model: SequenceModel, pairs: PromptPairs, *, rows: int = ROWS
) -> Float[Tensor, "blocks length pairs"]:
    """The effect of what one block reads at one position being that of the corrupted run.

    Other blocks read the stream as it is (Ensign and Garriga-Alonso 2024, arXiv:2407.14008).
    Effects are those of `PairRuns.effects`; pairs of several templates have other tokens at the
    same position, unless they are `aligned`.
    """
    stacks = [
        _each_position(f"blocks.{block}.layer_input", block, pairs)
        for block in range(len(model.blocks))
    ]
    return torch.stack(pair_runs(model, pairs, stacks, rows=rows).effects())


def tap_map(
    model: SequenceModel,
    pairs: PromptPairs,
    *,
    blocks: Sequence[int] | None = None,
    rows: int = ROWS,
) -> Float[Tensor, "blocks taps length pairs"]:
    """The effect of one tap of a short convolution being that of the corrupted run.

    Of the convolution of a block at position t, tap k alone reads the corrupted run, at t - k; the
    other taps and the bias are left (Ensign and Garriga-Alonso 2024). NaN for taps that a block
    does not have. All blocks by default; ValueError where none has such a convolution.
    """
    blocks = range(len(model.blocks)) if blocks is None else blocks
    widths = [taps(model, block) for block in blocks]
    if not any(widths):
        raise ValueError(f"blocks must have one with a short convolution, got {list(blocks)}")
    cells = [(i, k) for i, width in enumerate(widths) for k in range(width)]
    stacks = [
        _each_position(f"blocks.{blocks[i]}.mixer.conv1d.tap.{k}", blocks[i], pairs)
        for i, k in cells
    ]
    effects = torch.full(
        (len(blocks), max(widths), pairs.length, len(pairs)), torch.nan, dtype=torch.float64
    )
    for cell, effect in zip(
        cells, pair_runs(model, pairs, stacks, rows=rows).effects(), strict=True
    ):
        effects[cell] = effect
    return effects


def taps(model: SequenceModel, block: int) -> int:
    """The width of the convolution that the mixer of a block starts with; 0 if it has none."""
    if not 0 <= block < len(model.blocks):
        raise ValueError(f"blocks must be from 0 to {len(model.blocks) - 1}, got {block}")
    convolution = getattr(model.blocks[block].mixer, "conv1d", None)
    return convolution.weight.shape[2] if isinstance(convolution, ShortConvolution) else 0


def _each_position(site: str, block: int, pairs: PromptPairs) -> Stack:
    """One copy for each position, at which the site is patched."""
    mask = torch.eye(pairs.length, dtype=torch.bool)[:, None].expand(-1, len(pairs), -1)
    return Stack(block=block, copies=pairs.length, masks={site: mask}, source=(site,))
