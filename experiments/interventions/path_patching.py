"""Path patching: what one block tells another directly, everything else being left as it is.

blocks.0.out ─▶ blocks.2.layer_input     block 1 sees the base run, and so do all tokens but
                                         those named; from block 2 on the run goes its way
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from experiments.interventions.corruptions import Pair
from experiments.interventions.effects import Effect
from experiments.interventions.patches import patch
from experiments.interventions.runs import ROWS, Activations, Stack, measure, stream_site
from experiments.models.backbone import SequenceModel

EMBEDDING, LOGITS = "embedding", "logits"


@dataclass(frozen=True, kw_only=True)
class Path:
    """From senders to a receiver, at the tokens of some names, or everywhere.

    Senders and receivers are blocks (by number, MLPs are blocks of their own), or the embedding as
    a sender and the logits as a receiver.
    """

    senders: frozenset[int | str]
    receiver: int | str
    at: frozenset[str] | None = None


def path_effects(
    model: SequenceModel,
    pair: Pair,
    paths: Sequence[Path],
    *,
    direction: str = "denoise",
    rows: int = ROWS,
) -> list[Effect]:
    r"""The effect of each path alone.

    With $o_i$ what sender i adds to the residual stream, the receiver j reads
    $r_j + \sum_i (o_i^{source} - o_i^{base})$ at these tokens, $r_j$ being the stream of the base
    run before it; the stream itself keeps $r_j$. All senders before a receiver together hand it the
    stream of the source run (Wang et al. 2023, for blocks). ValueError for a sender that does not
    stand before the receiver.
    """
    stacks = [_stack(model, pair, path) for path in paths]
    measured = measure(model, pair, stacks, direction=direction, rows=rows)
    return [effect for (effect,) in measured]


def _stack(model: SequenceModel, pair: Pair, path: Path) -> Stack:
    count = len(model.blocks)
    allowed = (*range(count), LOGITS)
    if path.receiver not in allowed:
        raise ValueError(
            f"receiver must be a block from 0 to {count - 1} or {LOGITS!r}, got {path.receiver!r}"
        )
    receiver = allowed.index(path.receiver)
    sites = []
    for sender in path.senders:
        if sender not in (EMBEDDING, *range(receiver)):
            raise ValueError(
                f"senders must be {EMBEDDING!r} or blocks before the receiver {path.receiver!r}, "
                f"got {sender!r}"
            )
        sites.append("embedded" if sender == EMBEDDING else f"blocks.{sender}.out")
    stream = stream_site(model, receiver)
    reads = stream if receiver == count else f"blocks.{receiver}.layer_input"
    (cell,) = patch(reads, at=path.at)
    return Stack(
        block=receiver,
        copies=1,
        masks={reads: cell.where(pair)[None]},
        source=tuple(sites),
        base=(*sites, stream),
        values=partial(_read, senders=sites, stream=stream, receiver=reads),
    )


def _read(
    source: Activations, base: Activations, *, senders: Sequence[str], stream: str, receiver: str
) -> Activations:
    told = sum(source[sender] - base[sender] for sender in senders)
    return {receiver: base[stream] + told}
