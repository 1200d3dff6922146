"""Trainings do not notice their company, do what PyTorch's optimizer does, and reach capacity."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from experiments import ensemble
from experiments.bench_memory import sweep_members, train_one_by_one
from experiments.ensemble import LINEAR, MLP, Member, Outcome, Training, together, train
from experiments.stack import Stack
from memory.facts import Facts, draw
from memory.linear import LinearMemory, LowRankMemory, ProjectionMemory
from memory.mlp import MLPMemory
from memory.recall import errors


def linear(d: int, N: int, seed: int = 0, M: int | None = None, **training) -> Member:
    facts = draw(N=N, M=M, d=d, seed=seed)
    settings = dataclasses.replace(LINEAR, **training)
    return Member(LinearMemory(d, d).initialize(seed), facts, settings)


def mlp(d: int, N: int, seed: int = 0, bias: bool = True, **training) -> Member:
    memory = MLPMemory(d, d, 2 * d, bias=bias).initialize(seed)
    return Member(memory, draw(N=N, d=d, seed=seed), dataclasses.replace(MLP, **training))


def mixed() -> list[Member]:
    """Ten sizes in four padded ones, stored and hopeless, of four architectures, one diverging."""
    members = []
    for d, N, M, seed in ((4, 7, None, 0), (4, 12, 20, 1), (4, 16, 3, 2), (8, 17, None, 0)):
        for rate in (3.0, 30.0):
            members.append(linear(d, N, seed, M, learning_rate=rate, steps=30))
    members.append(linear(8, 30, 3, learning_rate=1e38, steps=30))
    members.append(linear(8, 31, 4, steps=30))
    for seed in range(3):
        members += [mlp(6, 20 + 10 * seed, seed, bias, steps=40) for bias in (True, False)]
        facts = draw(N=10, d=6, seed=seed)
        settings = dataclasses.replace(MLP, steps=40)
        members.append(Member(LowRankMemory(6, 6, 3).initialize(seed), facts, settings))
        projected = ProjectionMemory(6, 6, 4, seed=seed).store(facts)
        members.append(Member(projected, facts, settings))
    return members


def weights(member: Member) -> list[Tensor]:
    return [p.detach().clone() for p in member.memory.parameters()]


def results(members: Sequence[Member], **options) -> list[tuple[Outcome, list[Tensor]]]:
    outcomes = dict(train(members, **options))
    return [(outcomes[index], weights(member)) for index, member in enumerate(members)]


@pytest.fixture(scope="module")
def alone() -> list[tuple[Outcome, list[Tensor]]]:
    return [results([member])[0] for member in mixed()]


def assert_same_bits(
    one: tuple[Outcome, list[Tensor]], other: tuple[Outcome, list[Tensor]]
) -> None:
    assert repr(one[0]) == repr(other[0])  # NaN equals NaN here
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(one[1], other[1], strict=True))


@pytest.mark.parametrize(
    ("scores", "threads"), [(1, 2), (2000, 1), (ensemble.SCORES, 1), (ensemble.SCORES, 2)]
)
def test_company_does_not_change_a_bit(
    alone: list[tuple[Outcome, list[Tensor]]], scores: int, threads: int
):
    """Alone, against batches of all sizes and orders, with others that leave early or diverge."""
    assert len({outcome.steps for outcome, _ in alone}) > 5, "no variety of early stops"
    assert any(outcome.diverged for outcome, _ in alone)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        order = random.Random(scores + threads).sample(range(len(alone)), len(alone))
        members = mixed()
        found = results([members[index] for index in order], scores=scores)
    finally:
        torch.set_num_threads(before)
    for index, result in zip(order, found, strict=True):
        assert_same_bits(alone[index], result)


def test_members_do_share_batches(monkeypatch: pytest.MonkeyPatch):
    """The test above would pass if each were trained by itself."""
    sizes = []
    run = ensemble._Batch.run

    def spy(batch: ensemble._Batch):
        sizes.append(len(batch.keys))
        return run(batch)

    monkeypatch.setattr(ensemble._Batch, "run", spy)
    members = [linear(8, N, seed) for N in (17, 20, 32) for seed in range(3)]
    list(train(members))
    assert sizes == [9]
    list(train([*members, linear(8, 33), linear(8, 20, M=40), linear(8, 20, steps=7)]))
    assert sizes[1:] == [9, 1, 1, 1]


def test_influence_of_the_company_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    """Negative control: gradients that differ by a millionth with the size of the batch."""
    update = Stack.update

    def influenced(stack: Stack, gradients: Sequence[Tensor], step: int, scale: float) -> None:
        update(stack, [g * (1 + 1e-6 * len(stack.position)) for g in gradients], step, scale)

    monkeypatch.setattr(Stack, "update", influenced)
    expected = results([linear(8, 22)])[0]
    found = results([linear(8, 22), linear(8, 22, seed=1)])[0]
    with pytest.raises(AssertionError):
        assert_same_bits(expected, found)


@pytest.mark.parametrize("make", [linear, mlp])
@pytest.mark.parametrize("N", [10, 29])
def test_same_steps_as_pytorch(make, N: int):
    """Against autograd of cross_entropy and torch.optim.Adam in double precision: to rounding."""

    def double() -> Member:
        member = make(6, N, steps=25, learning_rate=0.05, target=1.0)
        facts = Facts(
            member.facts.keys.double(), member.facts.outputs.double(), member.facts.association
        )
        return Member(member.memory.double(), facts, member.training)

    ours, theirs = double(), double()
    ((_, outcome),) = train([ours])
    (expected,) = train_one_by_one([theirs])
    assert outcome.steps == expected.steps
    assert outcome.accuracy == expected.accuracy
    assert outcome.loss == pytest.approx(expected.loss, rel=1e-9)
    assert outcome.margin == pytest.approx(expected.margin, rel=1e-7)
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_benchmark_trains_the_same_members():
    for outcome, other in zip(
        dict(sorted(train(sweep_members(12)))).values(),
        train_one_by_one(sweep_members(12)),
        strict=True,
    ):
        assert abs(outcome.accuracy - other.accuracy) < 0.1
        assert outcome.stored == other.stored


def test_linear_capacity():
    """N delta(N) = d^2 at N = 62 for d = 16: all stored well below, none well above."""
    members = [linear(16, N, seed) for N in (50, 74) for seed in range(4)]
    outcomes = [outcome for _, outcome in sorted(train(members), key=lambda found: found[0])]
    assert all(outcome.stored and outcome.stored_99 for outcome in outcomes[:4])
    assert not any(outcome.stored for outcome in outcomes[4:])
    assert max(outcome.accuracy for outcome in outcomes[4:]) < 0.95
    for member, outcome in zip(members, outcomes, strict=True):
        assert round(outcome.accuracy * member.facts.N) == member.facts.N - errors(
            member.memory, member.facts
        )


def test_mlp_stores_more_than_a_linear_memory_of_its_keys():
    """2 m d = 256 parameters hold 62 facts of dimension 8, where a d x d matrix holds 22."""
    found = dict(train([mlp(8, 62, seed, bias=False) for seed in range(2)]))
    assert all(outcome.stored for outcome in found.values())


def test_stops_at_the_first_check_that_succeeds():
    full, part = (linear(16, 60, target=target, check_every=1) for target in (1.0, 0.5))
    outcomes = dict(train([full, part]))
    assert outcomes[1].steps < outcomes[0].steps < full.training.steps
    assert 0.5 <= outcomes[1].accuracy < 1
    assert not outcomes[1].stored
    assert outcomes[0].stored
    sparse = dict(train([linear(16, 60, check_every=5)]))[0]
    assert sparse.steps % 5 == 0
    assert sparse.steps >= outcomes[0].steps


def test_initial_weights_may_do():
    facts = draw(N=5, d=8, seed=1)
    member = Member(LinearMemory(8, 8, "pseudo-inverse").store(facts), facts, LINEAR)
    ((_, outcome),) = train([member])
    assert (outcome.steps, outcome.accuracy) == (0, 1.0)
    assert errors(member.memory, facts) == 0


def test_a_tie_is_a_failure():
    """Two keys whose outputs are equal: argmax would be right for the first of them."""
    facts = draw(N=6, d=8, seed=1)
    facts.outputs[1] = facts.outputs[0]
    member = Member(LinearMemory(8, 8).initialize(0), facts, LINEAR)
    ((_, outcome),) = train([member])
    assert outcome.accuracy == outcome.best_accuracy == 4 / 6
    assert outcome.margin == 0


def test_huge_scores_are_no_divergence():
    """-log(softmax) is infinite here; the learning rate is that of the published code."""
    ((_, outcome),) = train([linear(8, 40, learning_rate=1000.0, steps=20)])
    assert not outcome.diverged
    assert math.isfinite(outcome.loss)
    assert outcome.loss > 100


def test_divergence_is_an_outcome():
    fine, lost = linear(8, 18), linear(8, 18, learning_rate=1e38)
    outcomes = dict(train([fine, lost]))
    assert outcomes[0].stored
    assert outcomes[1].diverged
    assert outcomes[1].accuracy == 0
    assert math.isnan(outcomes[1].loss)
    assert math.isnan(outcomes[1].margin)
    assert outcomes[1].steps < lost.training.steps


def test_best_accuracy_is_not_below_the_final_one():
    members = [linear(8, 40, seed, steps=24) for seed in range(6)]
    outcomes = [outcome for _, outcome in train(members)]
    assert all(outcome.best_accuracy >= outcome.accuracy for outcome in outcomes)
    assert any(outcome.best_accuracy > outcome.accuracy for outcome in outcomes)
    assert set(outcomes[0].metrics()) >= {"accuracy", "stored", "stored_99", "steps", "loss"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    """Sums in another order: the same success, and nearly the same number of steps."""
    expected = results(mixed())
    for (ours, _), (theirs, _) in zip(expected, results(mixed(), device="cuda"), strict=True):
        assert ours.diverged == theirs.diverged
        assert abs(ours.best_accuracy - theirs.best_accuracy) <= 0.15


def test_settings_and_sizes_that_cannot_be():
    with pytest.raises(ValueError, match="target must be above 0 and at most 1"):
        Training(learning_rate=1.0, steps=1, target=1.5)
    with pytest.raises(ValueError, match="steps"):
        Training(learning_rate=1.0, steps=0)
    with pytest.raises(ValueError, match="learning_rate"):
        Training(learning_rate=-1.0, steps=1)
    with pytest.raises(ValueError, match="d of the facts must be 8"):
        Member(LinearMemory(8, 8), draw(N=5, d=4), LINEAR)


def test_batches_hold_what_they_may():
    batches = together([5, 1, 9, 2, 2, 1], cost=float, limit=6)
    assert batches == [[9], [5], [2, 2, 1, 1]]
    assert sorted(cost for batch in batches for cost in batch) == [1, 1, 2, 2, 5, 9]
    assert together([], cost=float, limit=1) == []
