"""Blocks that a model can do without, and those it cannot, found one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from bounds import checks
from experiments.interventions.ablations import cross_talk, mixing_blocks, zero_ablation
from experiments.interventions.pair_runs import Scores
from experiments.interventions.runs import ROWS
from experiments.models.backbone import SequenceModel
from experiments.tasks.prompt_pairs import PromptPairs


@dataclass(frozen=True, kw_only=True)
class GreedyOrder:
    """Blocks in the order in which they were chosen."""

    order: tuple[int, ...]
    accuracy: tuple[float, ...]
    """Mean candidate accuracy before the first choice, and after each."""


def greedy_removal(
    model: SequenceModel, pairs: PromptPairs, *, stop: float = 0.91, rows: int = ROWS
) -> GreedyOrder:
    """Remove one block after the other, the one that leaves the highest candidate accuracy.

    It goes on as long as that is at least `stop`. Among equals, the highest relative probability
    decides, then the first block.
    """
    checks.fraction(stop=stop)
    steps = _greedily(
        range(len(model.blocks)), lambda sets: zero_ablation(model, pairs, sets, rows=rows)
    )
    (start,) = zero_ablation(model, pairs, [()], rows=rows).candidate_accuracy.mean(dim=1).tolist()
    kept = list(takewhile(lambda step: step[1] >= stop, steps))
    return GreedyOrder(
        order=tuple(block for block, _ in kept),
        accuracy=(start, *(accuracy for _, accuracy in kept)),
    )


def greedy_cross_talk(
    model: SequenceModel, pairs: PromptPairs, *, target: float = 0.9, rows: int = ROWS
) -> GreedyOrder:
    """Blocks whose `cross_talk` is enough for a candidate accuracy above the target.

    All that mix tokens are patched at the start. One after the other is let go, the one that raises
    the accuracy most, until it is above the target or none is left.
    """
    checks.fraction(target=target)
    blocks = set(mixing_blocks(model))
    steps = _greedily(
        sorted(blocks),
        lambda sets: cross_talk(model, pairs, [blocks.difference(x) for x in sets], rows=rows),
    )
    found = cross_talk(model, pairs, [blocks], rows=rows)
    order: list[int] = []
    accuracies = found.candidate_accuracy.mean(dim=1).tolist()
    while accuracies[-1] <= target and len(order) < len(blocks):
        block, accuracy = next(steps)
        order.append(block)
        accuracies.append(accuracy)
    return GreedyOrder(order=tuple(order), accuracy=tuple(accuracies))


def _greedily(
    blocks: Sequence[int], measured: Callable[[list[list[int]]], Scores]
) -> Iterator[tuple[int, float]]:
    """Each block chosen beside those before it, and the accuracy that it leaves."""
    chosen: list[int] = []
    left = list(blocks)
    while left:
        scores = measured([[*chosen, block] for block in left])
        accuracy, probability = (
            x.mean(dim=1).tolist() for x in (scores.candidate_accuracy, scores.relative_probability)
        )
        best = max(range(len(left)), key=lambda i: (accuracy[i], probability[i]))
        chosen.append(left.pop(best))
        yield chosen[-1], accuracy[best]
