"""Interchange interventions: activations of one run of a pair put into the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.interventions.corruptions import Pair
from experiments.interventions.effects import Effect
from experiments.interventions.patches import Patch, canonical, first_block
from experiments.interventions.runs import ROWS, Stack, measure, names
from experiments.models.backbone import SequenceModel


def interchange(
    model: SequenceModel,
    pair: Pair,
    patches: Sequence[Patch],
    *,
    direction: str = "denoise",
    rows: int = ROWS,
) -> list[Effect]:
    """The effect of each patch alone.

    "denoise" puts activations of the clean documents into the runs of the corrupted ones, "noise"
    the other way round. Both runs are made once; patches of the same sites are stacked along the
    batch, at most `rows` sequences at a time, and only the blocks from the first patched one on
    are run again. Documents that lack a position of a patch are not measured in it.
    """
    wanted = [canonical(model, patch) for patch in patches]
    effects: dict[Patch, Effect] = {}
    by_sites: dict[frozenset[str], list[Patch]] = {}
    for patch in dict.fromkeys(wanted):
        by_sites.setdefault(frozenset(cell.site for cell in patch), []).append(patch)
    groups = list(by_sites.values())
    stacks = [_stack(model, pair, group) for group in groups]
    measured = measure(model, pair, stacks, direction=direction, rows=rows)
    for group, found in zip(groups, measured, strict=True):
        effects.update(zip(group, found, strict=True))
    return [effects[patch] for patch in wanted]


def _stack(model: SequenceModel, pair: Pair, patches: Sequence[Patch]) -> Stack:
    masks = {
        site: torch.stack([_mask(patch, site, pair) for patch in patches])
        for site in sorted({cell.site for cell in patches[0]})
    }
    source = tuple(name for site, mask in masks.items() for name in names(site, mask))
    block = first_block(model, patches[0])
    return Stack(block=block, copies=len(patches), masks=masks, source=source)


def _mask(patch: Patch, site: str, pair: Pair) -> Bool[Tensor, "documents length"]:
    """The tokens of all cells at this site, of the documents that have those of every cell."""
    where = [(cell.site, cell.where(pair)) for cell in patch]
    complete = torch.stack([mask.any(dim=1) for _, mask in where]).all(dim=0)
    here = torch.stack([mask for other, mask in where if other == site]).any(dim=0)
    return here & complete[:, None]
