"""What is patched: sets of cells, which are sites at positions."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool
from torch import Tensor

from experiments.interventions.corruptions import Pair
from experiments.models.backbone import SequenceModel
from experiments.models.sites import SiteError


@dataclass(frozen=True, kw_only=True)
class Cell:
    """The activation of a site at the tokens of these names, or at all others.

    A site of single times, `blocks.0.mixer.h.{t}`, is patched at the times of these tokens.
    """

    site: str
    positions: frozenset[str]
    others: bool = False

    def where(self, pair: Pair) -> Bool[Tensor, "documents length"]:
        """The tokens of each document; none in documents that lack one of the names."""
        named = torch.zeros_like(pair.clean.tokens, dtype=torch.bool)
        complete = torch.ones(len(pair), 1, dtype=torch.bool)
        for name in self.positions:
            here = pair.where(name)
            named |= here
            complete &= here.any(dim=1, keepdim=True)
        return complete & (~named if self.others else named)


Patch = frozenset[Cell]
"""Cells that are patched together; unions of patches are patches."""


def patch(*sites: str, at: Iterable[str] | None = None, but: Iterable[str] | None = None) -> Patch:
    """These sites at the tokens of these names, at all tokens but these, or everywhere.

    Raises ValueError where both `at` and `but` are given, or `at` is empty.
    """
    if isinstance(at, str) or isinstance(but, str):
        raise ValueError(f"at and but are collections of names, got {at!r} and {but!r}")
    if at is not None and but is not None:
        raise ValueError("only one of at and but can be given")
    names = frozenset(() if at is None else at)
    if at is not None and not names:
        raise ValueError("at is empty")
    if at is None:
        names = frozenset(but or ())
    return frozenset(Cell(site=site, positions=names, others=at is None) for site in sites)


def canonical(model: SequenceModel, patch: Patch) -> Patch:
    """The same patch, each tensor of the residual stream under the last of its names.

    What a block writes to the stream is what the next one reads: fewer blocks are to be run, and
    patches that do the same are equal. Raises SiteError for sites that the model does not have,
    or that have no positions.
    """
    return frozenset(replace(cell, site=_canonical(model, cell.site)) for cell in patch)


def first_block(model: SequenceModel, patch: Patch) -> int:
    """The block before which a canonical patch changes nothing."""
    last = len(model.blocks)
    return min((_block(cell.site, last) for cell in patch), default=0)


def has_site(model: SequenceModel, site: str) -> bool:
    """Whether the model has a site of this name."""
    return _listed(site) in model.sites()


def _listed(site: str) -> str:
    """The name under which `sites` has it: that of `tap.2` is `tap.{k}`."""
    stem, _, index = site.rpartition(".")
    return f"{stem}.{{k}}" if index.isdecimal() else site


def _canonical(model: SequenceModel, site: str) -> str:
    shapes = model.sites()
    stem, _, index = site.rpartition(".")
    shape = shapes.get(_listed(site))
    if shape is None:
        close = difflib.get_close_matches(site, shapes, n=3)
        hint = f"; close: {', '.join(close)}" if close else ""
        raise SiteError(f"no site {site!r} in this model{hint}")
    positional = shape[:2] == ("batch", "length") and index != "{k}"
    if site == "logits" or not (positional or index == "{t}"):
        raise SiteError(f"{site!r} cannot be patched at positions: its shape is {shape}")
    if site == "embedded":
        return "blocks.0.resid_pre"
    if stem.startswith("blocks.") and index == "resid_post":
        after = int(stem.removeprefix("blocks.")) + 1
        return f"blocks.{after}.resid_pre" if after < len(model.blocks) else "resid_final"
    return site


def _block(site: str, last: int) -> int:
    return int(site.split(".")[1]) if site.startswith("blocks.") else last
