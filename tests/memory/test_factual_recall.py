"""The task draws the prompts it says: places, noise, answers, probabilities."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from memory.factual_recall import FactualRecall, Prompts, draw_task
from tests.laws import as_users_call


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def tasks(draw) -> FactualRecall:
    noise = draw(st.integers(0, 6))
    return draw_task(
        S=draw(st.integers(1, 9)),
        R=draw(st.integers(1, 6)),
        D=draw(st.integers(2, 5)),
        noise=noise,
        length=draw(st.integers(3, 9)) if noise else 3,
        seed=draw(st.integers(0, 99)),
        answers=draw(st.sampled_from(["random", "structured"])),
        subject_exponent=draw(st.sampled_from([0.0, 1.0])),
        relation_exponent=draw(st.sampled_from([0.0, 0.5])),
    )


def is_well_formed(task: FactualRecall, prompts: Prompts) -> None:
    tokens, rows = prompts.tokens, torch.arange(len(prompts))
    assert tokens.shape == (len(prompts), task.length)
    assert (tokens[:, -1] == task.eos).all()
    assert (tokens[:, :-1] != task.eos).all()
    subjects = tokens < task.S
    relations = (tokens >= task.S) & (tokens < task.S + task.R)
    assert (subjects.sum(dim=1) == 1).all()
    assert (relations.sum(dim=1) == 1).all()
    assert (tokens[rows, prompts.subject_position] == prompts.subject).all()
    assert (tokens[rows, prompts.relation_position] == prompts.relation + task.S).all()
    assert (prompts.answer == task.answers[prompts.subject, prompts.relation]).all()
    assert (prompts.answer // task.D == prompts.relation).all()


@settings(max_examples=60)
@given(tasks(), st.integers(0, 99))
def test_prompts_are_well_formed(task, seed):
    assert task.vocabulary == task.S + task.R + task.noise + 1
    assert task.A == task.R * task.D
    drawn = task.sample(50, generator(seed))
    is_well_formed(task, drawn)
    facts = task.every_fact(generator(seed))
    is_well_formed(task, facts)
    pairs = list(zip(facts.subject.tolist(), facts.relation.tolist(), strict=True))
    assert pairs == list(itertools.product(range(task.S), range(task.R)))


@settings(max_examples=20)
@given(tasks(), st.integers(0, 99))
def test_a_seed_makes_the_same_prompts(task, seed):
    first, again = (task.sample(20, generator(seed)) for _ in range(2))
    assert torch.equal(first.tokens, again.tokens)
    assert torch.equal(first.answer, again.answer)


def test_a_seed_makes_the_same_facts():
    sizes = dict(S=20, R=5, D=4)
    assert torch.equal(draw_task(**sizes).answers, draw_task(**sizes).answers)
    assert not torch.equal(draw_task(**sizes).answers, draw_task(**sizes, seed=1).answers)
    structured = draw_task(**sizes, answers="structured").answers
    assert structured[:, 2].tolist() == [8 + s // 5 for s in range(20)]


@pytest.mark.parametrize("exponent", [0.0, 1.0])
def test_the_population_is_what_is_sampled(exponent):
    task = draw_task(
        S=3, R=2, D=2, noise=2, length=5, subject_exponent=exponent, relation_exponent=exponent
    )
    prompts, probabilities = task.population()
    is_well_formed(task, prompts)
    assert len(prompts) == 6 * 4 * 3 * 4
    assert float(probabilities.sum()) == pytest.approx(1)
    rows = [tuple(row) for row in prompts.tokens.tolist()]
    assert len(set(rows)) == len(rows)
    count = 200_000
    found = dict.fromkeys(rows, 0)
    for row in task.sample(count, generator()).tokens.tolist():
        found[tuple(row)] += 1
    expected = count * probabilities
    observed = torch.tensor([found[row] for row in rows], dtype=torch.float64)
    chi = float(((observed - expected).square() / expected).sum())
    freedom = len(rows) - 1
    assert abs(chi - freedom) < 4 * (2 * freedom) ** 0.5
    # Control: the probabilities of other exponents do not pass.
    other = draw_task(S=3, R=2, D=2, noise=2, length=5, subject_exponent=exponent + 0.2)
    wrong = count * other.population()[1]
    assert float(((observed - wrong).square() / wrong).sum()) > 2 * freedom


def test_places_are_uniform_pairs():
    task = draw_task(S=2, R=2, D=2, noise=3, length=6)
    drawn = task.sample(40_000, generator())
    pairs = drawn.subject_position * 5 + drawn.relation_position
    counts = torch.bincount(pairs, minlength=25).view(5, 5)
    assert (counts.diagonal() == 0).all()
    off = counts[~torch.eye(5, dtype=torch.bool)].double()
    assert (off - 2000).abs().max() < 5 * 2000**0.5


def test_power_laws():
    task = draw_task(S=4, R=3, D=2, subject_exponent=2.0, relation_exponent=1.0)
    weights = torch.tensor([1, 1 / 4, 1 / 9, 1 / 16], dtype=torch.float64)
    assert torch.allclose(task.subject_probabilities, weights / weights.sum())
    assert torch.allclose(
        task.relation_probabilities, torch.tensor([6, 3, 2], dtype=torch.float64) / 11
    )
    uniform = draw_task(S=4, R=3, D=2)
    assert (uniform.subject_probabilities == 0.25).all()


def test_random_answers_are_uniform_in_their_blocks():
    task = draw_task(S=4000, R=3, D=4)
    for r in range(3):
        counts = torch.bincount(task.answers[:, r], minlength=12)
        assert counts[4 * r : 4 * r + 4].sum() == 4000
        assert (counts[4 * r : 4 * r + 4] - 1000).abs().max() < 5 * 1000**0.5


def test_the_smallest_prompt_has_no_noise():
    task = draw_task(S=2, R=2, D=1, noise=0, length=3)
    prompts, probabilities = task.population()
    assert len(prompts) == 8
    assert (probabilities == 1 / 8).all()
    is_well_formed(task, prompts)


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"S": 0}, "S must be a whole number"),
        ({"D": 1, "R": 1}, "at least 2 answers to choose from, got R\\*D=1"),
        ({"noise": -1}, "noise must be a finite number >= 0"),
        ({"length": 2}, "length must be 3 for a subject, a relation and EOS"),
        ({"noise": 0, "length": 4}, "length must be 3 for a subject, a relation and EOS"),
        ({"answers": "other"}, "answers must be one of 'random', 'structured', got 'other'"),
        ({"subject_exponent": -1.0}, "subject_exponent must be a finite number >= 0"),
        ({"seed": -1}, "seed must be a finite number >= 0"),
    ],
)
def test_bad_sizes_are_named(sizes, named):
    with as_users_call(), pytest.raises(ValueError, match=named):
        draw_task(**(dict(S=3, R=2, D=2) | sizes))


def test_bad_tables_are_named():
    half = torch.full((2,), 0.5)
    good = dict(D=2, noise=1, length=4, subject_probabilities=half, relation_probabilities=half)
    table = torch.tensor([[0, 2], [1, 3]])
    assert FactualRecall(answers=table, **good).A == 4
    for wrong, named in (
        ({"answers": table.flip(1)}, "answers of relation r must be from"),
        ({"answers": table.float()}, "answers must be of type int64"),
        ({"answers": table[0]}, "answers must be an S x R matrix"),
        ({"subject_probabilities": half * 0.9}, "subject_probabilities must be 2 positive"),
        ({"relation_probabilities": torch.tensor([1.0, 0.0])}, "relation_probabilities must be 2"),
    ):
        with as_users_call(), pytest.raises(ValueError, match=named):
            FactualRecall(**({"answers": table} | good | wrong))


def test_populations_that_are_too_large_are_refused():
    with pytest.raises(ValueError, match="the population must have at most 1048576 prompts"):
        draw_task(S=8, R=8, D=2).population()
    with pytest.raises(ValueError, match="prompts must be a whole number"):
        draw_task(S=8, R=8, D=2).sample(0, generator())
