"""A stack is its modules, each with PyTorch's Adam, whoever leaves."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from experiments.stack import Stack, cosine, form
from memory.attention import AttentionMemory
from memory.factual_transformer import FactualTransformer
from memory.mlp import MLPMemory

BETAS, EPSILON, STEPS = (0.8, 0.95), 1e-6, 6
RATES = (0.3, 0.01, 2.0)


def modules(count: int = 3) -> list[MLPMemory]:
    return [MLPMemory(5, 4, 3).initialize(seed).double() for seed in range(count)]


def stack(members: Sequence[nn.Module], rates: Sequence[float] = RATES) -> Stack:
    return Stack(members, learning_rates=rates, betas=BETAS, epsilon=EPSILON, device=None)


def loss(output: Tensor) -> Tensor:
    """A sum of one for each module; the first gradients of module i are not those of another."""
    return (output.sin() * output.exp()).sum()


def keys() -> Tensor:
    return torch.randn(3, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def weights(module: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def by_pytorch(steps: int = STEPS) -> list[nn.Module]:
    members = modules()
    for module, key, rate in zip(members, keys(), RATES, strict=True):
        adam = torch.optim.Adam(module.parameters(), lr=rate, betas=BETAS, eps=EPSILON)
        for step in range(steps):
            adam.param_groups[0]["lr"] = rate * cosine(step, STEPS)
            adam.zero_grad()
            loss(module(key)).backward()
            adam.step()
    return members


def by_stack(leaving: Sequence[int] = (), steps: int = STEPS) -> list[nn.Module]:
    """After each of the first steps, one of these modules leaves."""
    members = modules()
    together, x = stack(members), keys()
    for step in range(steps):
        gradients = torch.autograd.grad(loss(together.module(x)), together.parameters)
        together.update(gradients, step, cosine(step, STEPS))
        if step < len(leaving):
            out = together.position == leaving[step]
            assert together.write_back(out.nonzero().squeeze(1)) == [leaving[step]]
            together.keep(~out)
            x = x[~out]
            if not len(x):
                return members
    rest = together.write_back(torch.arange(len(together.position)))
    assert sorted([*rest, *leaving]) == [0, 1, 2]
    return members


def test_adam_is_that_of_pytorch():
    for ours, theirs, start in zip(by_stack(), by_pytorch(), modules(), strict=True):
        for a, b, c in zip(weights(ours), weights(theirs), weights(start), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
            assert (a - c).abs().max() > 1e-3, "nothing was learned"


@pytest.mark.parametrize(
    "leaving", [order for n in (1, 2, 3) for order in itertools.permutations(range(3), n)]
)
def test_leaving_does_not_change_the_others(leaving):
    found, stayed = by_stack(leaving), by_stack()
    for index, module in enumerate(found):
        steps = leaving.index(index) + 1 if index in leaving else STEPS
        expected = by_stack(steps=steps)[index] if index in leaving else stayed[index]
        assert all(map(torch.equal, weights(module), weights(expected)))


def test_only_the_rows_asked_for_are_written_back():
    members = modules()
    before = [weights(module) for module in members]
    together = stack(members)
    for parameter in together.parameters:
        parameter.data += 1
    assert all(map(torch.equal, weights(members[0]), before[0]))
    assert together.write_back(torch.tensor([2, 0])) == [2, 0]
    for index, change in enumerate((1.0, 0.0, 1.0)):
        for now, then in zip(weights(members[index]), before[index], strict=True):
            assert torch.equal(now, then + change)


def test_buffers_are_stacked_and_not_trained():
    members = [FactualTransformer(7, 4, 3, 1, 2, seed=seed).initialize(seed) for seed in range(2)]
    together = stack(members, RATES[:2])
    assert len(together.parameters) == 4
    for row, module in zip(together.module.embedding, members, strict=True):
        assert torch.equal(row, module.embedding)


def transformer(vocabulary: int = 7, **options) -> FactualTransformer:
    return FactualTransformer(vocabulary, 4, 3, 2, 2, **({"width": 5} | options))


def test_form_joins_what_may_share_a_stack():
    assert form(transformer()) == form(transformer(seed=3).initialize(5))
    assert form(transformer()) == form(transformer(embedding="sphere"))
    module = MLPMemory(5, 4, 3)
    assert form(module) == form(copy.deepcopy(module).initialize(1))


@pytest.mark.parametrize(
    "options",
    [
        {"vocabulary": 8},
        {"width": 0},
        {"bias": False},
        {"activation": "quadratic"},
        {"train_embeddings": True},
        {"dtype": torch.float64},
        {"device": "meta"},
    ],
)
def test_form_separates(options):
    if options.get("device") == "meta":
        other = transformer().to("meta")
    else:
        other = transformer(**options)
    assert form(transformer()) != form(other)


def test_form_separates_attributes_and_classes():
    one, other = (AttentionMemory(4, 4, 1, 2, inverse_temperature=beta) for beta in (1.0, 2.0))
    assert form(one) != form(other)
    assert form(nn.Sequential(nn.ReLU())) != form(nn.Sequential(nn.Tanh()))
    assert form(nn.Sequential(nn.ELU(1.0))) != form(nn.Sequential(nn.ELU(2.0)))
