"""What every memory satisfies, as functions that raise AssertionError where one does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state

from memory.associative import AssociativeMemory
from memory.facts import Facts

Build = Callable[[], AssociativeMemory]
"""An empty memory, the same at every call."""


def margins(memory: AssociativeMemory, facts: Facts) -> Tensor:
    """Score of the right output less the best other one, all scores at once."""
    scores = memory(facts.keys) @ facts.outputs.mT
    right = torch.nn.functional.one_hot(facts.association, facts.M).bool()
    return scores[right] - scores.masked_fill(right, -torch.inf).amax(dim=1)


def error(memory: AssociativeMemory, facts: Facts) -> float:
    return (margins(memory, facts) <= 0).double().mean().item()


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    """Equal up to `tolerance` of the largest entry."""
    scale = expected.abs().max().item() or 1.0
    assert torch.allclose(found, expected, rtol=0, atol=tolerance * scale), (
        found - expected
    ).abs().max() / scale


def states_its_parameters(memory: AssociativeMemory) -> None:
    assert memory.stated_parameters == memory.counted_parameters
    assert 0 <= memory.learned_parameters <= memory.counted_parameters
    assert memory.bits > 0


def forgets(build: Build, facts: Facts, others: Facts) -> None:
    """Storing replaces everything, and is the same every time."""
    once = build().store(facts)(facts.keys)
    assert torch.equal(build().store(others).store(facts)(facts.keys), once)


def reads_keys_one_by_one(memory: AssociativeMemory, facts: Facts) -> None:
    """Leading dimensions of the keys, and their order, do not matter."""
    together = memory(facts.keys)
    close(memory(facts.keys.flip(0)).flip(0), together)
    close(memory(facts.keys[:, None, :])[:, 0], together)


def follows_relabelled_outputs(build: Build, facts: Facts, order: Tensor) -> None:
    """Names of the outputs do not matter."""
    relabelled = replace(
        facts, outputs=facts.outputs[order], association=order.argsort()[facts.association]
    )
    close(build().store(relabelled)(facts.keys), build().store(facts)(facts.keys))


def ignores_order(build: Build, facts: Facts, order: Tensor) -> None:
    """Facts are a set."""
    shuffled = replace(facts, keys=facts.keys[order], association=facts.association[order])
    close(build().store(shuffled)(facts.keys), build().store(facts)(facts.keys), 1e-6)


def scales_with_outputs(build: Build, facts: Facts, factor: float) -> None:
    """Longer outputs change no prediction."""
    scaled = replace(facts, outputs=factor * facts.outputs)
    plain, longer = build().store(facts)(facts.keys), build().store(scaled)(facts.keys)
    ratio = (plain * longer).sum() / (plain * plain).sum()
    assert ratio > 0
    close(longer, ratio * plain, 1e-6)


def turns_with_outputs(build: Build, facts: Facts, rotation: Tensor) -> None:
    """Rotated outputs are answered by the rotated answers."""
    rotated = replace(facts, outputs=facts.outputs @ rotation)
    close(build().store(rotated)(facts.keys), build().store(facts)(facts.keys) @ rotation, 1e-6)


def turns_with_keys(build: Build, facts: Facts, rotation: Tensor) -> None:
    """Rotated keys are answered as the keys were."""
    rotated = replace(facts, keys=facts.keys @ rotation)
    close(build().store(rotated)(rotated.keys), build().store(facts)(facts.keys), 1e-6)


def stacks(memories: list[AssociativeMemory], keys: Tensor) -> None:
    """Stacked weights answer as the memories one by one, for keys (B, N, d)."""
    parameters, buffers = stack_module_state(memories)
    together = functional_call(memories[0], (parameters, buffers), (keys,))
    for answer, memory, own in zip(together, memories, keys, strict=True):
        close(answer, memory(own))


def refuses_other_dimensions(memory: AssociativeMemory, facts: Facts) -> None:
    """Facts of other dimensions are named in the error."""
    wrong = {
        "d ": replace(facts, keys=torch.cat([facts.keys, facts.keys[:, :1]], dim=1)),
        "d_out ": replace(facts, outputs=torch.cat([facts.outputs, facts.outputs[:, :1]], dim=1)),
    }
    for name, other in wrong.items():
        with pytest.raises(ValueError, match=f"^{name}of the facts"):
            memory.store(other)
