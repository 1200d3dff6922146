"""Two runs of the documents of a pair, and patched copies of one of them, stacked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Copies of the base run that are patched at the same sites, each where its masks are true.

    What a site gets there is, of `values` of the activations in the source and in the base run,
    the entry of that name.
    """

    block: int
    """The first block that is run again."""
    copies: int
    masks: Mapping[str, Bool[Tensor, "copies documents length"]]
    """By site; `h.{t}` is patched at the times of the mask."""
    source: tuple[str, ...]
    """Sites of which `values` needs the activations in the source run."""
    base: tuple[str, ...] = ()
    values: Callable[[Activations, Activations], Activations] = field(
        default=lambda source, base: source
    )


@torch.no_grad()
def measure(
    model: SequenceModel, pair: Pair, stacks: Sequence[Stack], *, direction: str, rows: int = ROWS
) -> list[list[Effect]]:
    """The effect of each copy in each stack; no forward pass has more than so many sequences.

    The source run is the clean one in the direction "denoise", the corrupted one in "noise".
    """
    checks.one_of(DIRECTIONS, direction=direction)
    checks.count(rows=rows)
    streams = [stream_site(model, stack.block) for stack in stacks]
    source_sites = {name for stack in stacks for name in stack.source}
    base_sites = {name for stack in stacks for name in stack.base} | set(streams)
    device = next(model.parameters()).device
    unpatched = torch.empty(2, len(pair), dtype=torch.float64)
    patched = [torch.empty(stack.copies, len(pair), dtype=torch.float64) for stack in stacks]
    for part in _parts(pair, rows, direction, device):
        with model.record(*source_sites) as source:
            unpatched[0, part.rows] = part.answered(model(part.source, part.query))
        with model.record(*base_sites) as base:
            unpatched[1, part.rows] = part.answered(model(part.base, part.query))
        for stack, stream, results in zip(stacks, streams, patched, strict=True):
            values, size = stack.values(source, base), max(1, rows // len(part.query))
            masks = {site: mask[:, part.rows].to(device) for site, mask in stack.masks.items()}
            for first in range(0, stack.copies, size):
                some = slice(first, first + size)
                results[some, part.rows] = _run_patched(
                    model,
                    part,
                    base[stream].expand(len(results[some]), -1, -1, -1),
                    block=stack.block,
                    values=values,
                    masks={site: mask[some] for site, mask in masks.items()},
                )
    clean, corrupted = unpatched.numpy() if direction == "denoise" else unpatched.flip(0).numpy()
    return [
        [
            Effect(
                clean=clean,
                corrupted=corrupted,
                patched=results[copy].numpy(),
                measured=_measured(stack, copy, len(pair)).numpy(),
                direction=direction,
            )
            for copy in range(stack.copies)
        ]
        for stack, results in zip(stacks, patched, strict=True)
    ]


def names(site: str, mask: Bool[Tensor, "*copies documents length"]) -> list[str]:
    """The site, or, for one of single times, its names at the times of the mask."""
    return [name for name, _ in _by_name(site, mask)]


def stream_site(model: SequenceModel, block: int) -> str:
    """The residual stream before a block, or, with as many as there are, behind all of them."""
    return f"blocks.{block}.resid_pre" if block < len(model.blocks) else "resid_final"


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Some of the documents of a pair, few enough for one forward pass."""

    rows: slice
    source: Int[Tensor, "documents length"]
    base: Int[Tensor, "documents length"]
    query: Int[Tensor, "documents 1"]
    answer: Int[Tensor, "documents 1"]

    def answered(self, logits: Float[Tensor, "rows 1 vocabulary"]) -> Float[Tensor, " rows"]:
        """Log-probabilities of the right answers, of one or more copies of the documents."""
        answer = self.answer.repeat(len(logits) // len(self.answer), 1)
        return logits[:, 0].double().log_softmax(-1).gather(1, answer).squeeze(1)


def _parts(pair: Pair, rows: int, direction: str, device: torch.device) -> Iterator[_Part]:
    source, base = pair.clean.tokens, pair.corrupted.tokens
    if direction == "noise":
        source, base = base, source
    for start in range(0, len(pair), rows):
        part = slice(start, start + rows)
        yield _Part(
            rows=part,
            source=source[part].to(device),
            base=base[part].to(device),
            query=pair.clean.positions["query"][part, None].to(device),
            answer=pair.clean.answer[part, None].to(device),
        )


def _run_patched(
    model: SequenceModel,
    part: _Part,
    streams: Float[Tensor, "copies documents length d_model"],
    *,
    block: int,
    values: Activations,
    masks: Mapping[str, Bool[Tensor, "copies documents length"]],
) -> Float[Tensor, "copies documents"]:
    copies, documents = streams.shape[:2]
    edits = {}
    for site, mask in masks.items():
        for name, where in _by_name(site, mask):
            copy, *cell = where.nonzero(as_tuple=True)
            rows = copy * documents + cell[0]
            edits[name] = partial(_replaced, at=(rows, *cell[1:]), by=values[name][tuple(cell)])
    with model.patch(edits):
        logits = model.resume(streams.flatten(0, 1), block=block, at=part.query.repeat(copies, 1))
    return part.answered(logits).unflatten(0, (copies, documents))


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
