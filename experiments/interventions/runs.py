"""Two runs of the same prompts, and patched copies of one of them, stacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks
from experiments.interventions.corruptions import Pair
from experiments.interventions.effects import DIRECTIONS, Effect
from experiments.models.backbone import SequenceModel

ROWS = 512
"""Sequences in one forward pass, at most."""
Activations = Mapping[str, Tensor]
Read = Callable[[Float[Tensor, "copies prompts vocabulary"], slice], Float[Tensor, "..."]]
"""What is wanted of the logits at the ends of these prompts, (copies, prompts, ...)."""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Copies of the base run that are patched at the same sites, each where its masks are true.

    What a site gets there is, of `values` of the activations in the source and in the base run,
    the entry of that name.
    """

    block: int
    """The first block that is run again."""
    copies: int
    masks: Mapping[str, Bool[Tensor, "copies prompts length"]]
    """By site; `h.{t}` is patched at the times of the mask."""
    source: tuple[str, ...]
    """Sites of which `values` needs the activations in the source run."""
    base: tuple[str, ...] = ()
    values: Callable[[Activations, Activations], Activations] = field(
        default=lambda source, base: source
    )


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What was read off the two runs, and off the copies of each stack."""

    source: Float[Tensor, "prompts ..."]
    base: Float[Tensor, "prompts ..."]
    patched: list[Float[Tensor, "_ prompts ..."]]


def measure(
    model: SequenceModel, pair: Pair, stacks: Sequence[Stack], *, direction: str, rows: int = ROWS
) -> list[list[Effect]]:
    """The effect of each copy in each stack; no forward pass has more than so many sequences.

    The source run is the clean one in the direction "denoise", the corrupted one in "noise".
    """
    checks.one_of(DIRECTIONS, direction=direction)
    source, base = pair.clean.tokens, pair.corrupted.tokens
    if direction == "noise":
        source, base = base, source
    found = readings(
        model,
        source,
        base,
        pair.clean.positions["query"],
        stacks,
        partial(_answered, answer=pair.clean.answer),
        rows=rows,
    )
    unpatched = found.source.numpy(), found.base.numpy()
    clean, corrupted = unpatched if direction == "denoise" else unpatched[::-1]
    return [
        [
            Effect(
                clean=clean,
                corrupted=corrupted,
                patched=patched[copy].numpy(),
                measured=_measured(stack, copy, len(pair)).numpy(),
                direction=direction,
            )
            for copy in range(stack.copies)
        ]
        for stack, patched in zip(stacks, found.patched, strict=True)
    ]


@torch.no_grad()
def readings(
    model: SequenceModel,
    source: Int[Tensor, "prompts length"],
    base: Int[Tensor, "prompts length"],
    at: Int[Tensor, " prompts"],
    stacks: Sequence[Stack],
    read: Read,
    *,
    rows: int = ROWS,
) -> Readings:
    """Both runs of the prompts, once, and every stack, read at the position `at` of each prompt.

    No forward pass has more than so many sequences; of a stack, only the blocks from its first
    patched one on are run. Results are of type float64, on the CPU.
    """
    checks.count(rows=rows)
    streams = [stream_site(model, stack.block) for stack in stacks]
    source_sites = {name for stack in stacks for name in stack.source}
    base_sites = {name for stack in stacks for name in stack.base} | set(streams)
    device = next(model.parameters()).device
    parts: list[list[Tensor]] = []
    for start in range(0, len(base), rows):
        part = slice(start, start + rows)
        ends = at[part, None].to(device)

        def run(tokens: Tensor, part: slice = part, ends: Tensor = ends) -> Tensor:
            return read(model(tokens[part].to(device), ends)[None, :, 0], part)[0]

        with model.record(*source_sites) as sources:
            found = [run(source)]
        with model.record(*base_sites) as bases:
            found.append(run(base))
        for stack, stream in zip(stacks, streams, strict=True):
            values, size = stack.values(sources, bases), max(1, rows // len(ends))
            masks = {site: mask[:, part].to(device) for site, mask in stack.masks.items()}
            copies = []
            for first in range(0, stack.copies, size):
                some = slice(first, min(first + size, stack.copies))
                logits = _run_patched(
                    model,
                    bases[stream].expand(some.stop - some.start, -1, -1, -1),
                    ends,
                    block=stack.block,
                    values=values,
                    masks={site: mask[some] for site, mask in masks.items()},
                )
                copies.append(read(logits, part))
            found.append(torch.cat(copies))
        parts.append([x.double().cpu() for x in found])
    sources_read, bases_read, *patched = zip(*parts, strict=True)
    return Readings(
        source=torch.cat(sources_read),
        base=torch.cat(bases_read),
        patched=[torch.cat(each, dim=1) for each in patched],
    )


def names(site: str, mask: Bool[Tensor, "*copies documents length"]) -> list[str]:
    """The site, or, for one of single times, its names at the times of the mask."""
    return [name for name, _ in _by_name(site, mask)]


def stream_site(model: SequenceModel, block: int) -> str:
    """The residual stream before a block, or, with as many as there are, behind all of them."""
    return f"blocks.{block}.resid_pre" if block < len(model.blocks) else "resid_final"


def _run_patched(
    model: SequenceModel,
    streams: Float[Tensor, "copies prompts length d_model"],
    ends: Int[Tensor, "prompts 1"],
    *,
    block: int,
    values: Activations,
    masks: Mapping[str, Bool[Tensor, "copies prompts length"]],
) -> Float[Tensor, "copies prompts vocabulary"]:
    copies, prompts = streams.shape[:2]
    edits = {}
    for site, mask in masks.items():
        for name, where in _by_name(site, mask):
            copy, *cell = where.nonzero(as_tuple=True)
            rows = copy * prompts + cell[0]
            edits[name] = partial(_replaced, at=(rows, *cell[1:]), by=values[name][tuple(cell)])
    with model.patch(edits):
        logits = model.resume(streams.flatten(0, 1), block=block, at=ends.repeat(copies, 1))
    return logits[:, 0].unflatten(0, (copies, prompts))


def _answered(
    logits: Float[Tensor, "copies prompts vocabulary"],
    part: slice,
    *,
    answer: Int[Tensor, " documents"],
) -> Float[Tensor, "copies prompts"]:
    """Log-probabilities of the right answers."""
    answers = answer[part, None].to(logits.device).expand(len(logits), -1, -1)
    return logits.double().log_softmax(-1).gather(2, answers).squeeze(2)


def _by_name(site: str, mask: Tensor) -> list[tuple[str, Tensor]]:
    if not site.endswith(".{t}"):
        return [(site, mask)]
    times = mask.flatten(0, -2).any(dim=0).nonzero().flatten().tolist()
    return [(f"{site.removesuffix('{t}')}{t}", mask[..., t]) for t in times]


def _replaced(activation: Tensor, *, at: tuple[Tensor, ...], by: Tensor) -> Tensor:
    activation = activation.clone()
    activation[at] = by
    return activation


def _measured(stack: Stack, copy: int, documents: int) -> Bool[Tensor, " documents"]:
    """The documents that are patched at every site, as at none they lack a position."""
    measured = torch.ones(documents, dtype=torch.bool)
    for mask in stack.masks.values():
        measured &= mask[copy].any(dim=1)
    return measured
