"""How names are represented where a block reads them: means by slot, and swaps of them.

Friends C , A and B went to the office . A and B gave a drink to      offset 1: the token behind
        n1  n2    n3                     n4    n5                     each name
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks
from experiments.interventions.patches import has_site
from experiments.interventions.runs import ROWS, stream_site
from experiments.models.backbone import SequenceModel
from experiments.tasks.prompt_pairs import PromptPairs

SITES = ("ssm_input", "write")
"""Where names are swapped: in the input of the state-space model, of which Mamba (not Mamba-2) also
computes the steps, B and C; or only in what is added to the state."""
FIRST_MENTIONS = ("n1", "n2", "n3")
SLOTS = (*FIRST_MENTIONS, "n4", "n5")


@dataclass(frozen=True, kw_only=True)
class NameMeans:
    """Means at a site of a block, at offsets behind the slots of names, by slot and name."""

    block: int
    site: str
    """One of `SITES`."""
    offsets: tuple[int, ...]
    slots: tuple[str, ...]
    """Roles at which names stand."""
    names: Int[Tensor, " names"]
    """Tokens, in increasing order."""
    mean: Float[Tensor, "slots names offsets *channels"]
    """0 where there is none."""
    count: Int[Tensor, "slots names"]
    """Prompts that have this name in this slot."""

    def known(
        self, tokens: Int[Tensor, " pairs"]
    ) -> tuple[Int[Tensor, " pairs"], Bool[Tensor, "slots pairs"]]:
        """Where each token stands among the names, and which slots have a mean of it."""
        at = torch.searchsorted(self.names, tokens.contiguous()).clamp(max=len(self.names) - 1)
        return at, (self.count[:, at] > 0) & (self.names[at] == tokens)

    def cosines(self) -> Float[Tensor, "slots slots"]:
        """Cosine between the means of a name in two slots, each without the mean of its slot.

        Averaged over the names that both slots have; NaN where there are none.
        """
        seen = (self.count > 0).double()
        mean = self.mean.flatten(2)
        slot_mean = torch.einsum("sw,swc->sc", seen, mean) / seen.sum(1)[:, None]
        codes = (mean - slot_mean[:, None]) * seen[..., None]
        norms = codes.norm(dim=-1, keepdim=True)
        codes = codes / torch.where(norms == 0, 1, norms)
        return torch.einsum("swc,vwc->sv", codes, codes) / (seen @ seen.mT)


@torch.no_grad()
def name_means(
    model: SequenceModel,
    pairs: PromptPairs,
    block: int,
    offsets: Sequence[int],
    *,
    site: str = "ssm_input",
    slots: Sequence[str] = SLOTS,
    rows: int = ROWS,
) -> NameMeans:
    """Means over the clean prompts; of the corrupted ones too with `pairs.doubled()`.

    Raises ValueError for a block without such a site, for roles that the pairs do not have, and for
    offsets that lead past the end of a prompt.
    """
    checks.count(rows=rows)
    slots, offsets = tuple(slots), tuple(offsets)
    named, device = _sites(model, block, site, pairs.length), next(model.parameters()).device
    places = torch.stack([_places(pairs, slot, offsets) for slot in slots], dim=1)
    here = torch.stack([pairs.roles[slot] for slot in slots], dim=1)
    tokens = pairs.clean.gather(1, here.clamp(min=0))
    names = tokens[here >= 0].unique()
    which = torch.searchsorted(names, tokens)
    count = torch.zeros(len(slots), len(names), dtype=torch.int64)
    total = None
    for part in torch.arange(len(pairs)).split(rows):
        with model.record(*named) as found:
            model(pairs.clean[part].to(device), pairs.out[part, None].to(device))
        row, slot = (here[part] >= 0).nonzero(as_tuple=True)
        values = _together(found, named).double().cpu()[row[:, None], places[part][row, slot]]
        at = slot, which[part][row, slot]
        if total is None:
            total = values.new_zeros(*count.shape, *values.shape[1:])
        total.index_put_(at, values, accumulate=True)
        count.index_put_(at, torch.ones_like(row), accumulate=True)
    seen = count.clamp(min=1).reshape(*count.shape, *(1,) * (total.ndim - 2))
    return NameMeans(
        block=block, site=site, offsets=offsets, slots=slots, names=names, mean=total / seen,
        count=count,
    )  # fmt: skip


@torch.no_grad()
def swap_margins(
    model: SequenceModel,
    pairs: PromptPairs,
    means: NameMeans,
    slot: str,
    *,
    how: str = "replace",
    first: Sequence[str] = FIRST_MENTIONS,
    rows: int = ROWS,
) -> Float[Tensor, "slots pairs"]:
    """Logit of the name that swaps in this slot should make the answer, minus the old answer's.

    In the clean prompts the old name of the slot gives way to a new one, at all offsets together,
    by means of each of the slots in turn: "replace" puts in the mean of the new name,
    "add-subtract" adds it and subtracts that of the old one. In a slot of `first` mentions the old
    name is the answer and the new one the corrupted answer, which should be answered then; in any
    other the new name is the answer, and the old one should be answered. NaN where a pair cannot be
    swapped: a first mention that is not the answer, or whose new name is in the prompt already;
    names without a mean (Ensign and Garriga-Alonso 2024, arXiv:2407.14008, figure 8).
    """
    checks.one_of(("replace", "add-subtract"), how=how)
    checks.one_of(means.slots, slot=slot)
    checks.count(rows=rows)
    places = _places(pairs, slot, means.offsets)
    in_slot = pairs.clean.gather(1, pairs.roles[slot].clamp(min=0)[:, None])[:, 0]
    if slot in first:
        old, new = pairs.answer, pairs.corrupted_answer
        target, fits = new, (in_slot == old) & (pairs.clean != new[:, None]).all(dim=1)
    else:
        old, new = in_slot, pairs.answer
        target, fits = old, old != new
    (old, old_known), (new, new_known) = means.known(old), means.known(new)
    fits = fits & (pairs.roles[slot] >= 0) & new_known  # (slots, pairs)
    if how == "add-subtract":
        fits &= old_known
    named = _sites(model, means.block, means.site, pairs.length)
    stream = stream_site(model, means.block)
    slots, device = len(means.slots), next(model.parameters()).device
    margins = torch.full(fits.shape, torch.nan, dtype=torch.float64)
    for part in fits.any(dim=0).nonzero()[:, 0].split(max(1, rows // slots)):
        if not len(part):  # the only part, where no pair fits
            break
        row, ends = torch.arange(len(part)), pairs.out[part, None].to(device)
        with model.record(*named, stream) as clean:
            model(pairs.clean[part].to(device), ends)
        live = _together(clean, named)
        cells, codes = (row[:, None], places[part]), means.mean[:, new[part]]
        if how == "add-subtract":
            codes = codes - means.mean[:, old[part]] + live[cells].cpu()
        edited = live.expand(slots, *live.shape).clone()
        edited[:, *cells] = codes.to(edited)
        with model.patch(_apart(edited.flatten(0, 1), named)):
            logits = model.resume(
                clean[stream].repeat(slots, 1, 1), block=means.block, at=ends.repeat(slots, 1)
            )
        logits = logits[:, 0].unflatten(0, (slots, -1)).double().cpu()
        margins[:, part] = logits[:, row, target[part]] - logits[:, row, pairs.answer[part]]
    return margins.masked_fill(~fits, torch.nan)


def swap_successes(
    model: SequenceModel,
    pairs: PromptPairs,
    means: NameMeans,
    *,
    how: str = "replace",
    first: Sequence[str] = FIRST_MENTIONS,
    rows: int = ROWS,
) -> Float[Tensor, "slots slots pairs"]:
    """Whether `swap_margins` are positive: by the slot edited, then the slot the mean is of.

    1 or 0, NaN where a pair cannot be swapped; the mean over pairs is the published matrix.
    """
    margins = torch.stack([
        swap_margins(model, pairs, means, edited, how=how, first=first, rows=rows)
        for edited in means.slots
    ])  # fmt: skip
    return (margins > 0).double().masked_fill(margins.isnan(), torch.nan)


def _sites(model: SequenceModel, block: int, site: str, length: int) -> tuple[str, ...]:
    """The name of the site, or its names at all times."""
    checks.one_of(SITES, site=site)
    name = f"blocks.{block}.mixer.{site}"
    if has_site(model, name):
        return (name,)
    if not has_site(model, f"{name}.{{t}}"):
        raise ValueError(f"block must be one whose mixer has a site {site!r}, got {block}")
    return tuple(f"{name}.{t}" for t in range(length))


def _together(
    found: Mapping[str, Tensor], named: tuple[str, ...]
) -> Float[Tensor, "rows length *channels"]:
    """What was recorded at a site, or at all its times."""
    if len(named) == 1:
        return found[named[0]]
    return torch.stack([found[name] for name in named], dim=1)


def _apart(
    values: Float[Tensor, "rows length *channels"], named: tuple[str, ...]
) -> dict[str, Tensor]:
    """The inverse of `_together`."""
    return (
        {named[0]: values} if len(named) == 1 else dict(zip(named, values.unbind(1), strict=True))
    )


def _places(pairs: PromptPairs, slot: str, offsets: tuple[int, ...]) -> Tensor:
    """Positions at the offsets, (pairs, offsets); 0 in pairs that lack the slot."""
    checks.one_of(tuple(pairs.roles), slot=slot)
    if not offsets or min(offsets) < 0 or len(set(offsets)) < len(offsets):
        raise ValueError(f"offsets must be different numbers from 0 up, got {offsets}")
    at = pairs.roles[slot][:, None]
    places = torch.where(at >= 0, at + torch.tensor(offsets), 0)
    if (places > pairs.out[:, None]).any():
        raise ValueError(f"offsets must not lead from {slot!r} past the prompt, got {offsets}")
    return places
