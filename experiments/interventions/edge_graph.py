r"""The edges of a model: from what is written to the residual stream to each reader of it.

    embed ─▶ 0 ─▶ 1 ─▶ output        sources: embed, 0, 1 (or 1.head.0, 1.head.1, ...)
      └──────┴────▶ ...              destinations: 0.tap.0, 0.gate, 1.input, ..., output

An edge i -> j is patched by handing reader j alone, in place of what source i writes in this run,
what it writes in the run of the corrupted prompt. With gates g, of which those of patched edges are
1 and the others 0,

    u^j = r^j + sum_i g_ij (o_i^corrupted - o_i),

o_i being what i writes in this very pass: then all edges patched give the corrupted run, and none
the clean one. (With o_i of the clean run, which the gates leave behind, the former is not true.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.interventions.branches import Branch, branches, read_by
from experiments.models.backbone import SequenceModel
from experiments.models.mixers.attention import Attention

EMBED, OUTPUT = "embed", "output"
Moved = Callable[[int, Tensor, list[Tensor]], Tensor | None]
"""`moved(block, stream, written)`, (readers, rows, length, d_model), is added to what the readers
in a block see, or, at last, the output; None leaves them the stream. `written` is what the sources
before have written in this very run."""
_Stream = Float[Tensor, "rows length d_model"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of some prompts: the stream before each block and behind all, and who wrote it."""

    stream: Float[Tensor, "depth prompts length d_model"]
    written: Float[Tensor, "sources prompts length d_model"]
    """What each source adds to the stream; that of "embed" is the first stream."""
    logits: Float[Tensor, "prompts vocabulary"]
    """At the last token of each prompt."""


class EdgeGraph:
    """Sources, destinations and edges of a model at one of the `RESOLUTIONS`.

    At the finest one the sources of attention are its heads. Arrays over edges have the dimensions
    sources and destinations, in these orders; `edges` says which of their entries are edges.
    """

    def __init__(self, model: SequenceModel, *, resolution: str = "layer") -> None:
        self.model, self.resolution = model, resolution
        self.branches: tuple[tuple[Branch, ...], ...] = tuple(
            branches(block, resolution) for block in model.blocks
        )
        sources, source_block = [EMBED], [-1]
        destinations, destination_block = [], []
        feeds = []
        for number, (block, readers) in enumerate(zip(model.blocks, self.branches, strict=True)):
            written = [str(number)]
            if self._by_heads(number):
                written = [f"{number}.head.{h}" for h in range(block.mixer.heads)]
            for branch in readers:
                whole = branch.name == "input"
                destinations.append(str(number) if whole else f"{number}.{branch.name}")
                destination_block.append(number)
                last = branch.name.rpartition(".")[2]
                feeds.append(
                    [name for name in written if len(written) == 1 or name.endswith(f".{last}")]
                )
            sources += written
            source_block += [number] * len(written)
        self.sources: tuple[str, ...] = tuple(sources)
        self.destinations: tuple[str, ...] = (*destinations, OUTPUT)
        self.source_block = torch.tensor(source_block)
        self.destination_block = torch.tensor([*destination_block, len(model.blocks)])
        self.edges: Bool[Tensor, "sources destinations"] = (
            self.source_block[:, None] < self.destination_block
        )
        self.feeds: Bool[Tensor, "destinations sources"] = torch.tensor(
            [[name in fed for name in self.sources] for fed in [*feeds, []]]
        )
        """Which sources read a destination."""

    def __len__(self) -> int:
        """Number of edges, not counting positions."""
        return int(self.edges.sum())

    def columns(self, block: int) -> slice:
        """The destinations in a block; with as many blocks as there are, the output."""
        where = (self.destination_block == block).nonzero().flatten()
        return slice(int(where[0]), int(where[-1]) + 1)

    def before(self, block: int) -> int:
        """How many sources come before a block."""
        return int((self.source_block < block).sum())

    @torch.no_grad()
    def run(self, tokens: Int[Tensor, "rows length"], ends: Int[Tensor, " rows"]) -> Run:
        """The run of these prompts, unpatched, read at the positions `ends`."""
        device = next(self.model.parameters()).device
        return self.walk(self.model.embed(tokens.to(device)), ends, _unmoved)

    def walk(self, embedded: _Stream, ends: Int[Tensor, " rows"], moved: Moved) -> Run:
        """A run from the embeddings on in which readers see the stream plus what is `moved`."""
        r, streams, written = embedded, [embedded], [embedded]
        for number in range(len(self.model.blocks)):
            shift = moved(number, r, written)
            out, parts = self.block(number, r, {} if shift is None else dict(enumerate(shift)))
            written += parts
            r = r + out
            streams.append(r)
        shift = moved(len(self.model.blocks), r, written)
        end = r if shift is None else r + shift[0]
        at = ends[:, None].to(r.device)
        logits = self.model.resume(end, block=len(self.model.blocks), at=at)[:, 0]
        return Run(stream=torch.stack(streams), written=torch.stack(written), logits=logits)

    def block(
        self,
        number: int,
        stream: _Stream,
        shifts: Mapping[int, _Stream],
    ) -> tuple[_Stream, list[_Stream]]:
        """What a block adds to the stream, in all and by source; these readers are shifted."""
        block = self.model.blocks[number]
        copies = {self.branches[number][i]: stream + shift for i, shift in shifts.items()}
        if not self._by_heads(number):
            out = read_by(block, stream, copies)
            return out, [out]
        heads: list[Tensor] = []
        with block.mixer.z.visited(lambda z, at: heads.append(z)):
            out = read_by(block, stream, copies)
        weights = block.mixer.out_proj.weight.unflatten(1, (block.mixer.heads, -1))
        return out, list(torch.einsum("blhd,mhd->hblm", heads[0], weights))

    def _by_heads(self, number: int) -> bool:
        return self.resolution == "tap" and isinstance(self.model.blocks[number].mixer, Attention)


@contextmanager
def frozen(model: SequenceModel) -> Iterator[None]:
    """No parameter has a gradient: only activations need theirs."""
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _unmoved(block: int, stream: Tensor, written: list[Tensor]) -> None:
    return None
