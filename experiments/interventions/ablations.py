"""What a model can do without: blocks, cross-talk between tokens, a decay or a gate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from bounds import checks
from experiments.interventions.pair_runs import Scores, pair_runs
from experiments.interventions.patches import canonical, first_block, patch
from experiments.interventions.runs import ROWS, Stack, names, stream_site
from experiments.models.backbone import SequenceModel
from experiments.tasks.prompt_pairs import PromptPairs

Blocks = Collection[int]
GATED = {
    "base-conv": "conv",
    "gated-delta-net": "y",
    "gla": "y",
    "h3": "ssm_out",
    "long-base-conv": "conv",
    "mamba": "ssm_out",
    "mamba2": "ssm_out",
    "retnet": "y",
    "s4": "y",
    "s4-mamba": "ssm_out",
    "s4d": "y",
}
"""The site behind which a mixer sees no other tokens, where something of its own token comes in
behind that, such as a gate. The outputs of the other mixers have been mixed as a whole."""


def zero_ablation(
    model: SequenceModel,
    pairs: PromptPairs,
    sets: Sequence[Blocks] | None = None,
    *,
    rows: int = ROWS,
) -> Scores:
    """Clean runs in which the blocks of a set add nothing to the stream; (sets, pairs).

    By default each block alone.
    """
    if sets is None:
        sets = [{block} for block in range(len(model.blocks))]
    sites = {block: f"blocks.{block}.out" for block in _union(model, sets)}
    first = min(sites, default=len(model.blocks))
    stream = stream_site(model, first)
    stack = Stack(
        block=first,
        copies=len(sets),
        masks=_masks(sites, sets, pairs),
        source=(),
        values=lambda _, base: dict.fromkeys(sites.values(), torch.zeros_like(base[stream])),
    )
    return pair_runs(model, pairs, [stack], rows=rows).patched[0]


def cross_talk(
    model: SequenceModel, pairs: PromptPairs, sets: Sequence[Blocks], *, rows: int = ROWS
) -> Scores:
    """Clean runs in which the blocks of a set hear only corrupted tokens; (sets, pairs).

    What such a block has mixed, at its site in `GATED` or else its output, is that of the corrupted
    run at all positions; what a token does to itself by a gate stays live. In Mamba it is the same
    to replace `conv` (Ensign and Garriga-Alonso 2024, arXiv:2407.14008); in Mamba-2, whose steps
    come from elsewhere, it is not. What both prompts say, and what other blocks have mixed, still
    comes through. ValueError for a block that mixes no tokens.
    """
    blocks, mixing = _union(model, sets), mixing_blocks(model)
    for block in blocks:
        if block not in mixing:
            raise ValueError(f"sets must be of blocks that mix tokens, {mixing}, got {block}")
    sites = {block: _mixed(model, block) for block in blocks}
    stack = Stack(
        block=min(sites, default=len(model.blocks)),
        copies=len(sets),
        masks=_masks(sites, sets, pairs),
        source=tuple(sites.values()),
    )
    return pair_runs(model, pairs, [stack], rows=rows).patched[0]


def mixing_blocks(model: SequenceModel) -> tuple[int, ...]:
    """The blocks that mix tokens: all but MLPs."""
    return tuple(block for block, name in enumerate(model.config.layers) if name != "mlp")


def knock_out(
    model: SequenceModel,
    pairs: PromptPairs,
    *,
    site: str,
    at: Bool[Tensor, "pairs length"],
    value: float = 0.0,
    rows: int = ROWS,
) -> Scores:
    """Clean runs in which a site has one value at these positions; (pairs).

    Of Mamba, `blocks.0.mixer.A_bar.{t}` at 0 cuts the sequence before t and at 1 forgets nothing at
    t; `blocks.0.mixer.skip` at 0 closes the gate.
    """
    checks.numeric(value=value)
    if at.shape != pairs.clean.shape:
        shape = tuple(pairs.clean.shape)
        raise ValueError(f"at must have the shape {shape} of the prompts, got {tuple(at.shape)}")
    cells = canonical(model, patch(site))
    (site,) = (cell.site for cell in cells)
    recorded = tuple(names(site, at))
    stack = Stack(
        block=first_block(model, cells),
        copies=1,
        masks={site: at[None]},
        source=(),
        base=recorded,
        values=lambda _, base: {name: torch.full_like(base[name], value) for name in recorded},
    )
    (found,) = pair_runs(model, pairs, [stack], rows=rows).patched
    return Scores(**{name: x[0] for name, x in vars(found).items()})


def _mixed(model: SequenceModel, block: int) -> str:
    site = GATED.get(model.config.layers[block])
    return f"blocks.{block}.out" if site is None else f"blocks.{block}.mixer.{site}"


def _union(model: SequenceModel, sets: Sequence[Blocks]) -> list[int]:
    if not sets:
        raise ValueError("sets is empty")
    blocks = sorted({block for some in sets for block in some})
    for block in blocks:
        if not 0 <= block < len(model.blocks):
            raise ValueError(
                f"sets must be of blocks from 0 to {len(model.blocks) - 1}, got {block}"
            )
    return blocks


def _masks(
    sites: dict[int, str], sets: Sequence[Blocks], pairs: PromptPairs
) -> dict[str, Bool[Tensor, "sets pairs length"]]:
    """Everywhere in the copies whose set has the block of the site."""
    return {
        site: torch.tensor([block in some for some in sets])[:, None, None].expand(
            -1, *pairs.clean.shape
        )
        for block, site in sites.items()
    }
