"""Trainings on prompts do not notice their company, learn a small task, and count honestly."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from experiments import prompted
from experiments.prompted import Member, Outcome, Training, train
from experiments.stack import Stack
from memory.factual_recall import draw_task
from memory.factual_transformer import FactualTransformer

SHORT = Training(steps=16, batch_size=32, check_every=4)


def member(
    seed: int = 0,
    *,
    S: int = 4,
    R: int = 4,
    D: int = 2,
    length: int = 6,
    width: int = 16,
    prompts_seed: int | None = None,
    initialized: bool = True,
    **training,
) -> Member:
    task = draw_task(S=S, R=R, D=D, length=length, seed=seed)
    model = FactualTransformer(task.vocabulary, task.A, 8, 4, 2, width, seed=seed)
    if initialized:
        model.initialize(seed)
    own = seed if prompts_seed is None else prompts_seed
    return Member(model, task, dataclasses.replace(SHORT, **training), own)


def mixed() -> list[Member]:
    """Of four forms; early ends at a low target, failures, divergence."""
    members = [member(seed, learning_rate=0.03, target=0.3) for seed in range(6)]
    members += [
        member(seed, width=0, learning_rate=0.03, target=0.3, check_every=1) for seed in range(4)
    ]
    members += [member(seed, S=9, R=3, D=3, batch_size=20) for seed in range(3)]
    members += [member(seed, length=length) for seed in range(2) for length in (4, 9)]
    members.insert(2, member(7, learning_rate=1e38, target=0.3))
    return members


def weights(one: Member) -> list[Tensor]:
    return [p.detach().clone() for p in one.model.parameters()]


def results(members: Sequence[Member], **options) -> list[tuple[Outcome, list[Tensor]]]:
    outcomes = dict(train(members, **options))
    return [(outcomes[index], weights(one)) for index, one in enumerate(members)]


def outcome_of(one: Member) -> Outcome:
    ((_, outcome),) = train([one])
    return outcome


@pytest.fixture(scope="module")
def alone() -> list[tuple[Outcome, list[Tensor]]]:
    return [results([one])[0] for one in mixed()]


def assert_same_bits(
    one: tuple[Outcome, list[Tensor]], other: tuple[Outcome, list[Tensor]]
) -> None:
    assert repr(one[0]) == repr(other[0])  # NaN equals NaN here
    assert all(torch.equal(a, b) or a.isnan().any() for a, b in zip(one[1], other[1], strict=True))


@pytest.mark.parametrize(
    ("prompts", "threads"), [(1, 1), (96, 1), (prompted.PROMPTS, 1), (prompted.PROMPTS, 2)]
)
def test_company_does_not_change_a_bit(
    alone: list[tuple[Outcome, list[Tensor]]], prompts: int, threads: int
):
    """Alone, against batches of all sizes and orders, with others that leave early or diverge."""
    assert len({outcome.steps for outcome, _ in alone}) > 3, "no variety of early stops"
    assert sum(outcome.diverged for outcome, _ in alone) == 1
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        count = len(alone) // threads  # two threads that share a core are slow
        order = random.Random(prompts + threads).sample(range(len(alone)), count)
        members = mixed()
        found = results([members[index] for index in order], prompts=prompts)
    finally:
        torch.set_num_threads(before)
    for index, result in zip(order, found, strict=True):
        assert_same_bits(alone[index], result)


def test_influence_of_the_company_would_be_noticed(monkeypatch: pytest.MonkeyPatch):
    """Negative control: gradients that differ by a millionth with the size of the batch."""
    update = Stack.update

    def influenced(stack: Stack, gradients: Sequence[Tensor], step: int, scale: float) -> None:
        update(stack, [g * (1 + 1e-6 * len(stack.position)) for g in gradients], step, scale)

    monkeypatch.setattr(Stack, "update", influenced)
    expected, found = results([member()])[0], results([member(), member(1)])[0]
    with pytest.raises(AssertionError):
        assert_same_bits(expected, found)


def test_members_do_share_batches(monkeypatch: pytest.MonkeyPatch):
    """The test above would pass if each were trained by itself."""
    sizes = []
    run = prompted._Batch.run

    def spy(batch: prompted._Batch):
        sizes.append(len(batch.tasks))
        return run(batch)

    monkeypatch.setattr(prompted._Batch, "run", spy)
    members = [member(seed, steps=2, learning_rate=10.0**-seed) for seed in range(5)]
    list(train(members))
    assert sizes == [5]
    list(train(members, prompts=2 * SHORT.batch_size))
    assert sizes[1:] == [2, 2, 1]
    others = [{"length": 7}, {"width": 8}, {"S": 2, "R": 2, "D": 4}, {"steps": 3}, {"fillings": 2}]
    list(train([*members, *(member(**({"steps": 2} | other)) for other in others)]))
    assert sizes[4:] == [5, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("width", [0, 16])
def test_same_steps_as_pytorch(width: int):
    """Against Autograd of cross_entropy and torch.optim.Adam in double precision: to rounding."""
    ours, theirs = (member(3, width=width, learning_rate=0.02) for _ in range(2))
    for one in (ours, theirs):
        one.model.double()
    outcome = outcome_of(ours)
    settings, task = theirs.training, theirs.task
    adam = torch.optim.Adam(theirs.model.parameters(), betas=(0.9, 0.999), eps=1e-8)
    drawn = prompted._Batch([theirs], None)
    for step in range(settings.steps):
        rate = 0.02 * (1 + math.cos(math.pi * step / settings.steps)) / 2
        adam.param_groups[0]["lr"] = rate
        adam.zero_grad()
        tokens, answers = drawn._next()
        torch.nn.functional.cross_entropy(theirs.model(tokens[0]), answers[0]).backward()
        adam.step()
    for a, b in zip(weights(ours), weights(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)
    tokens, answers = drawn.tokens[0], drawn.answers[0]
    logits = theirs.model(tokens)
    expected = torch.nn.functional.cross_entropy(logits, answers).item()
    assert outcome.loss == pytest.approx(expected, rel=1e-9)
    best = logits.argmax(1)
    right = best == answers
    assert outcome.accuracy == right.double().mean().item()
    assert outcome.facts == right.view(4, task.S * task.R).all(0).double().mean().item()
    assert outcome.right_relation == (best // 2 == answers // 2).double().mean().item()
    assert 0 < outcome.accuracy < outcome.right_relation


def test_batches_are_fresh_and_the_checks_are_not():
    batch = prompted._Batch([member(0), member(1)], None)
    again = prompted._Batch([member(0, fillings=2), member(1, fillings=2)], None)
    steps = [batch._next()[0] for _ in range(2 * prompted._AHEAD + 1)]
    for i, tokens in enumerate(steps):
        assert tokens.shape == (2, 32, 6)
        assert not torch.equal(tokens[0], tokens[1])
        assert not any(torch.equal(tokens, other) for other in steps[:i])
        # How many prompts the checks ask does not change those of training.
        assert torch.equal(again._next()[0], tokens)
    task = member().task
    asked = {(t[t < 4].item(), t[(t >= 4) & (t < 8)].item() - 4) for t in batch.tokens[0]}
    assert len(asked) == task.S * task.R
    assert batch.tokens.shape == (2, 4 * 16, 6)
    for b, facts in enumerate(batch.tasks):
        pairs = torch.arange(16).repeat(4)
        assert torch.equal(batch.answers[b], facts.answers[pairs // 4, pairs % 4])
    assert not torch.equal(batch.answers[0], batch.answers[1])


def test_prompts_drawn_ahead_stay_with_their_member():
    batch, rest = (prompted._Batch([member(s) for s in seeds], None) for seeds in ((0, 1, 2), (2,)))
    for step in range(prompted._AHEAD + 2):
        if step == 3:
            batch._keep(torch.tensor([False, False, True]))
        for all_of_them, own in zip(batch._next(), rest._next(), strict=True):
            assert torch.equal(all_of_them[-1], own[0])


def test_seeds_matter_and_the_same_make_the_same():
    one, again, other = results([member(0), member(0), member(0, prompts_seed=5)])
    assert_same_bits(one, again)
    with pytest.raises(AssertionError):
        assert_same_bits(one, other)
    assert one[0].loss != other[0].loss


@pytest.mark.parametrize("width", [0, 16])
def test_a_small_task_is_learned(width: int):
    members = [
        member(seed, width=width, learning_rate=0.02, steps=800, batch_size=128, check_every=50)
        for seed in range(2)
    ]
    for one, outcome in zip(members, dict(sorted(train(members))).values(), strict=True):
        assert outcome.accuracy == outcome.best_accuracy == outcome.facts == 1
        assert outcome.right_relation == 1
        assert outcome.steps < one.training.steps
        assert outcome.loss < 0.5
        # The weights are those of the outcome, on prompts that were not seen.
        fresh = one.task.sample(500, torch.Generator().manual_seed(99))
        found = one.model(fresh.tokens).argmax(1)
        assert (found == fresh.answer).double().mean() > 0.95


def test_an_untrained_model_is_near_chance():
    members = [member(seed, R=8, learning_rate=1e-12, steps=1) for seed in range(24)]
    outcomes = [outcome for _, outcome in train(members)]
    share = sum(outcome.accuracy for outcome in outcomes) / len(outcomes)
    relation = sum(outcome.right_relation for outcome in outcomes) / len(outcomes)
    assert 0.5 / 16 < share < 2 / 16
    assert 0.5 / 8 < relation < 2 / 8
    assert all(outcome.steps == 1 and not outcome.diverged for outcome in outcomes)


def test_shares_are_in_order():
    outcomes = [
        outcome
        for _, outcome in train([member(seed, steps=40, learning_rate=0.03) for seed in range(8)])
    ]
    for outcome in outcomes:
        assert outcome.facts <= outcome.accuracy <= outcome.right_relation
        assert outcome.accuracy <= outcome.best_accuracy
    assert any(o.facts < o.accuracy < o.right_relation for o in outcomes)
    assert any(o.accuracy < o.best_accuracy for o in outcomes)
    assert set(outcomes[0].metrics()) >= {"accuracy", "facts", "right_relation", "steps", "loss"}


def test_ties_are_failures():
    """All weights zero: all gradients are, and argmax would name the first answer."""
    outcome = outcome_of(member(initialized=False, width=0))
    assert outcome.accuracy == outcome.best_accuracy == outcome.facts == 0
    assert outcome.right_relation == 0
    assert outcome.loss == pytest.approx(math.log(8))
    assert not outcome.diverged


def test_training_ends_at_the_first_check_at_the_target():
    settings = dict(learning_rate=0.02, steps=400, batch_size=128)
    full, half, sparse = (
        outcome_of(member(**settings, target=target, check_every=every))
        for target, every in ((1.0, 1), (0.5, 1), (0.5, 7))
    )
    assert 0 < half.steps < full.steps < 400
    assert 0.5 <= half.accuracy < 1 == full.accuracy
    assert sparse.steps % 7 == 0
    assert sparse.steps >= half.steps
    start = member()
    start.model.load_state_dict(taught().model.state_dict())
    assert outcome_of(start).steps == 0


def taught() -> Member:
    one = member(learning_rate=0.02, steps=400, batch_size=128)
    assert outcome_of(one).accuracy == 1
    return one


def test_divergence_is_an_outcome():
    fine = results([member()])[0]
    found = results([member(), member(1, learning_rate=1e38)])
    assert_same_bits(fine, found[0])
    assert math.isfinite(found[0][0].loss)
    lost = found[1][0]
    assert lost.diverged
    assert lost.accuracy == lost.facts == lost.right_relation == 0
    assert math.isnan(lost.loss)
    assert lost.steps == SHORT.check_every


def test_no_member_is_no_training():
    assert list(train([])) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("facts", ["cpu", "cuda"])
def test_on_a_gpu(facts: str):
    settings = dict(learning_rate=0.02, steps=800, batch_size=128)
    one = member(**settings)
    task = draw_task(S=4, R=4, D=2, length=6, device=facts)
    placed = Member(one.model, task, one.training, 0)
    ((_, outcome),) = train([placed], device="cuda")
    assert outcome.accuracy == 1
    assert one.model.query.device.type == "cpu"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"steps": 0}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"check_every": 0}, "check_every"),
        ({"fillings": -1}, "fillings"),
        ({"target": 0.0}, "target must be above 0 and at most 1, got 0.0"),
        ({"target": math.nan}, "target must be above 0"),
    ],
)
def test_settings_that_cannot_be(wrong, named):
    with pytest.raises(ValueError, match=named):
        Training(**wrong)


def test_members_that_cannot_be():
    one = member()
    with pytest.raises(ValueError, match="seed must be a finite number >= 0"):
        Member(one.model, one.task, one.training, -1)
    for task in (draw_task(S=5, R=4, D=2), draw_task(S=4, R=4, D=3)):
        with pytest.raises(ValueError, match="those of the task, got 17 and 8"):
            Member(one.model, task, one.training, 0)
    with pytest.raises(ValueError, match="prompts must be a whole number"):
        list(train([one], prompts=0))
