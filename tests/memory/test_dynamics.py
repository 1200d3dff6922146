"""Sequential learning: invariants, exact times, agreement with autograd, reduced ODE, detectors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from memory import stages
from memory.dynamics import Population, Weights, assess, descent, flow
from memory.factual_recall import draw_task
from memory.plateau import crossing, plateau
from memory.sampled_dynamics import stochastic_descent
from tests.laws import as_users_call

PAPER = dict(S=16, R=4, D=8)
few = settings(max_examples=15)


def task_of(answers="structured", seed=0, subjects=0.0, relations=0.0, **sizes):
    return draw_task(
        **(PAPER | sizes), answers=answers, seed=seed, subject_exponent=subjects,
        relation_exponent=relations,
    )  # fmt: skip


def random_weights(population, seed):
    """Weights of the size they have while all tokens learn."""
    rng = np.random.default_rng(seed)
    flat = rng.standard_normal(population.rows * (1 + population.A))
    return Weights.unflatten(0.7 * flat, population.rows)


def reduced_descent(*, choices, answers, probability, step_size, start, steps):
    """Gradient descent on attention w and the gap b of values of one token, loss at each step."""
    w, b, losses = start, 0.0, []
    for _ in range(steps + 1):
        missing = (choices - 1) / (math.exp(w * b) + choices - 1)
        losses.append(-math.log1p(-missing))
        rate = step_size * probability * missing
        # One value above, c - 1 below: dV is w g on both, and the gap moves by c / (c - 1) of it.
        w, b = w + rate * b, b + rate * w * choices**2 / (answers * (choices - 1))
    return np.array(losses)


# --- agrees ---


@few
@given(
    st.sampled_from([(2, 2, 2), (3, 2, 3), (2, 3, 2)]), st.sampled_from([(0, 3), (2, 4), (3, 5)]),
    st.sampled_from(["random", "structured"]), st.integers(0, 1000),
    st.floats(0, 2), st.floats(0, 2),
)  # fmt: skip
def test_velocity_is_minus_the_gradient_on_all_prompts(sizes, noise, answers, seed, first, second):
    """Autograd over every prompt, with weights of its own for every noise token."""
    S, R, D = sizes
    task = draw_task(
        S=S, R=R, D=D, noise=noise[0], length=noise[1], seed=seed, answers=answers,
        subject_exponent=first, relation_exponent=second,
    )  # fmt: skip
    population = Population(task)
    weights = random_weights(population, seed)
    rows = [*range(S + R), *[S + R] * task.noise, S + R + 1]
    w = torch.tensor(weights.w[rows], requires_grad=True)
    V = torch.tensor(weights.V[rows], requires_grad=True)
    prompts, probabilities = task.population()
    logits = (w[prompts.tokens][..., None] * V[prompts.tokens]).sum(1)
    losses = torch.nn.functional.cross_entropy(logits, prompts.answer, reduction="none")
    loss = (probabilities * losses).sum()
    loss.backward()
    velocity = population.velocity(weights)
    seen = slice(None) if task.noise else [*range(S + R), S + R + 1]
    expected = -torch.cat([w.grad[:, None], V.grad], 1).numpy()
    found = np.column_stack([velocity.w, velocity.V])[rows]
    np.testing.assert_allclose(found, expected[seen] if task.noise else expected, atol=1e-13)
    assert population.loss(weights) == pytest.approx(loss.item(), abs=1e-13)
    whole = assess(population, population.logits(weights))
    assert float(whole["total"]) == pytest.approx(loss.item(), abs=1e-13)


def test_reference_losses_of_the_published_setting():
    steps = [0, 1500, 1700, 2000, 3000, 4000, 4500, 5000, 8192]
    course = descent(task_of(noise=20), steps)
    expected = [3.4657, 3.4019, 2.7157, 2.1425, 2.0874, 1.9273, 0.6271, 0.0960, 0.0085]
    np.testing.assert_allclose(course.total, expected, atol=6e-5)


def test_descent_agrees_with_the_reduced_one():
    steps = np.arange(0, 501, 10)
    course = descent(task_of(), steps, step_size=1.0)
    for token, choices, probability in (("relation", 4, 1 / 4), ("subject", 8, 1 / 16)):
        reduced = reduced_descent(
            choices=choices, answers=32, probability=probability, step_size=1.0, start=1e-5,
            steps=500,
        )  # fmt: skip
        np.testing.assert_allclose(getattr(course, token), reduced[steps], atol=1e-6)
    assert crossing(course.steps, course.relation) < 200  # it is not flat that they agree on


@pytest.mark.parametrize("sizes", [(16, 4, 8), (4, 8, 4), (12, 3, 2)])
def test_flow_agrees_with_the_exact_losses(sizes):
    S, R, D = sizes
    exact = {
        token: stages.exact_half_loss_time(S=S, R=R, D=D, token=token)
        for token in ("relation", "subject")
    }
    steps = np.unique([0.0, *(share * at for at in exact.values() for share in (0.5, 1, 1.3))])
    course = flow(task_of(S=S, R=R, D=D), steps, step_size=1.0)
    for token, half in exact.items():
        losses = getattr(course, token)
        at_half = losses[np.flatnonzero(steps == half)[0]]
        assert at_half == pytest.approx(losses[0] / 2, rel=1e-5)
        reduced = stages.balanced_losses(steps, S=S, R=R, D=D, token=token)
        np.testing.assert_allclose(losses, reduced, atol=2e-5)


@few
@given(
    st.integers(2, 40), st.integers(2, 40), st.integers(2, 40),
    st.sampled_from(["relation", "subject"]), st.floats(1e-8, 1e-3), st.floats(0.01, 1),
)  # fmt: skip
def test_half_loss_time_is_a_quadrature_between_its_bounds(S, R, D, token, start, probability):
    arguments = dict(S=S, R=R, D=D, token=token, start=start, probability=probability)
    bound = stages.half_loss_time(**arguments)
    assert bound.audit().agrees
    choices = R if token == "relation" else D
    gap, epsilon = bound["gap"], bound["epsilon"]
    saturation, _ = quad(lambda x: math.expm1(x) / math.hypot(x, epsilon), 0, gap, epsabs=1e-12)
    time = (math.asinh(gap / epsilon) + saturation / choices) / (2 * bound["rate"])
    assert stages.exact_half_loss_time(**arguments) == pytest.approx(time, rel=1e-5)
    assert bound["earliest"] * (1 - 1e-9) <= time <= float(bound) * (1 + 1e-9)


def test_published_setting_in_steps():
    """Without the saturation of the softmax, 1659 and 4333 steps: too early."""
    for token, steps in (("relation", (1677.2, 1683.6, 1691.9)),
                         ("subject", (4361.8, 4375.3, 4393.6))):  # fmt: skip
        bound = stages.half_loss_time(**PAPER, token=token, step_size=0.1)
        exact = stages.exact_half_loss_time(**PAPER, token=token, step_size=0.1)
        found = (bound["earliest"], exact, float(bound))
        assert found == pytest.approx(steps, abs=0.1)
        naive = bound["growth"] / (0.2 * bound["rate"])
        assert naive == pytest.approx({"relation": 1659, "subject": 4333}[token], abs=1)
        assert naive < bound["earliest"]
    assert float(stages.rate_ratio(**PAPER)) == pytest.approx(16 * 3**0.5 / (4 * 7**0.5))


def test_half_losses_of_the_published_setting():
    course = descent(task_of(), range(0, 5001, 10))
    assert crossing(course.steps, course.relation) == pytest.approx(1690, abs=2)
    assert crossing(course.steps, course.subject) == pytest.approx(4382, abs=2)


@few
@given(st.integers(0, 100), st.floats(0, 1.5), st.sampled_from(["random", "structured"]))
def test_growth_rates_are_those_of_the_flow(seed, exponent, answers):
    task = task_of(answers, seed, exponent, exponent / 2, S=6, R=3, D=2)
    population, rates = Population(task), stages.growth_rates(task)
    g = population.directions(population.equal(1e-9))
    expected = [*rates.subjects, *rates.relations, rates.noise, rates.eos]
    np.testing.assert_allclose(np.linalg.norm(g, axis=1), expected, atol=1e-12)
    if answers == "structured":
        p = population.subject_probabilities
        np.testing.assert_allclose(rates.subjects[0] / rates.subjects, p[0] / p)


def test_sgd_follows_descent_and_its_runs_are_independent():
    tasks = [task_of("random", seed) for seed in range(2)]
    steps = range(0, 1401, 20)
    together = stochastic_descent(tasks, steps, seeds=[5, 6], step_size=0.4)
    (alone,) = stochastic_descent(tasks[1:], steps, seeds=[6], step_size=0.4)
    np.testing.assert_allclose(together[1].total, alone.total, rtol=1e-4)
    exact = descent(tasks[0], steps, step_size=0.4)
    for name in ("relation", "subject"):
        found, expected = (crossing(c.steps, getattr(c, name)) for c in (together[0], exact))
        assert found == pytest.approx(expected, rel=0.04)
    assert not np.array_equal(together[0].total, together[1].total)


# --- holds ---


@few
@given(
    st.sampled_from([(4, 2, 2), (6, 3, 2), (4, 4, 4)]), st.sampled_from(["random", "structured"]),
    st.integers(0, 100), st.floats(0, 1),
)  # fmt: skip
def test_flow_conserves_its_invariants(sizes, answers, seed, exponent):
    S, R, D = sizes
    population = Population(task_of(answers, seed, exponent, S=S, R=R, D=D))
    weights = random_weights(population, seed)
    velocity = population.velocity(weights)
    change = 2 * (weights.w * velocity.w - (weights.V * velocity.V).sum(1))
    np.testing.assert_allclose(change, 0, atol=1e-13)


@few
@given(st.sampled_from([(4, 2, 2), (6, 3, 2), (4, 4, 4)]), st.integers(0, 2**20))
def test_losses_are_parts_of_the_total(sizes, seed):
    S, R, D = sizes
    population = Population(task_of("random", seed, S=S, R=R, D=D))
    seen = assess(population, population.logits(random_weights(population, seed)))
    assert float(seen["relation"] + seen["subject"]) == pytest.approx(float(seen["total"]))
    assert 0 <= float(seen["correct"]) <= 1 - float(seen["hallucinated"]) + 1e-12
    assert float(seen["marginal"]) >= 0


def test_index_loss_is_the_subject_loss_of_structured_facts():
    course = flow(task_of(), np.linspace(0, 6000, 40))
    np.testing.assert_allclose(course.index, course.subject, atol=1e-9)
    np.testing.assert_allclose(course.background, 1, atol=1e-9)


@settings(max_examples=6)
@given(st.sampled_from([(8, 3, 2), (16, 4, 2), (12, 3, 2), (16, 3, 4)]))
def test_relations_are_known_while_subjects_are_not(sizes):
    """P24: rates that differ by a factor of 3 and more leave time in between."""
    S, R, D = sizes
    assert float(stages.rate_ratio(S=S, R=R, D=D)) > 3
    last = float(stages.half_loss_time(S=S, R=R, D=D, token="subject"))
    course = flow(task_of(S=S, R=R, D=D), np.linspace(0, 1.5 * last, 200), step_size=1.0)
    assert ((course.relation < 0.1) & (course.subject > 0.9 * math.log(D))).any()
    assert course.accuracy[-1] == pytest.approx(1)


def test_unbalanced_answers_teach_the_background_first():
    course = flow(task_of("random"), np.arange(0, 8193, 64))
    frequencies = crossing(course.steps, course.marginal)
    assert frequencies < 0.6 * crossing(course.steps, course.relation)
    assert course.background[-1] > 1e4
    found = plateau(course.steps, course.total)
    guesses = stages.guesses(task_of("random"), "relation")
    assert found is not None
    assert found.height == pytest.approx(guesses.entropy, rel=0.01)
    assert found.height < 0.9 * math.log(8)
    middle = np.argmin(np.abs(course.steps - math.sqrt(found.start * found.end)))
    assert course.correct[middle] == pytest.approx(guesses.drawn, rel=0.05)


def test_guesses_of_uniform_facts():
    guesses = stages.guesses(task_of(), "relation")
    assert guesses.entropy == pytest.approx(math.log(8))
    assert guesses.drawn == guesses.best == pytest.approx(1 / 8)
    guesses = stages.guesses(task_of("random", 3), "subject")  # another answer in each relation
    assert guesses.entropy == pytest.approx(math.log(4))
    assert guesses.drawn == guesses.best == pytest.approx(1 / 4)


# --- detectors ---

TIMES = np.linspace(0, 1000, 500)


def two_drops(first, second, height=2.0):
    drops = [1 / (1 + np.exp((TIMES - at) / (at / 25))) for at in (first, second)]
    return height * drops[1] + (3 - height) * drops[0] + 1e-3


def test_plateau_between_two_drops():
    found = plateau(TIMES, two_drops(150, 600))
    assert found is not None
    assert found.height == pytest.approx(2, rel=0.01)
    assert 150 < found.start < 200
    assert 450 < found.end < 600
    assert found.duration == found.end / found.start


@pytest.mark.parametrize(
    "loss",
    [
        two_drops(400, 440),  # too close
        3 / (1 + np.exp((TIMES - 400) / 20)) + 1e-3,  # a single drop
        3 / (1 + TIMES),  # a power law never rests
        2 + 1 / (1 + np.exp((TIMES - 150) / 8)),  # rests for ever
        np.full(500, 3.0),  # has not begun
    ],
)
def test_no_plateau(loss):
    assert plateau(TIMES, loss) is None


def test_plateau_of_a_noisy_curve():
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(500))
    found = plateau(TIMES, two_drops(150, 600) * noise)
    assert found is not None
    assert found.height == pytest.approx(2, rel=0.02)
    assert found.duration > 2


def test_crossings_are_interpolated():
    steps = np.array([0.0, 10.0, 20.0])
    assert crossing(steps, np.array([4.0, 3.0, 1.0])) == pytest.approx(15)
    assert crossing(steps, np.array([4.0, 3.0, 2.5])) == math.inf
    assert crossing(steps, np.array([4.0, 3.0, 2.5]), 1.0) == 0


# --- refuses ---


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: flow(task_of(), []), "steps"),
        (lambda: flow(task_of(), [0, 5, 5]), "steps"),
        (lambda: flow(task_of(), [-1, 5]), "steps"),
        (lambda: flow(task_of(), [0]), "steps"),
        (lambda: flow(task_of(), [0, 1], step_size=0.0), "step_size"),
        (lambda: flow(task_of(), [0, 1], start=0.0), "start"),
        (lambda: descent(task_of(), [0, 1], step_size=-1.0), "step_size"),
        (lambda: descent(task_of(), [0, 1.5]), "steps"),
        (lambda: stochastic_descent([task_of()], [0, 1.5], seeds=[0]), "steps"),
        (lambda: stochastic_descent([task_of()], [0, 1], seeds=[0, 1]), "seed"),
        (lambda: stochastic_descent([task_of()], [0, 1], seeds=[0], batch=0), "batch"),
        (lambda: stochastic_descent([task_of(), task_of(S=8)], [0, 1], seeds=[0, 1]), "same"),
        (lambda: stages.half_loss_time(S=4, R=1, D=2, token="relation"), "R must"),
        (lambda: stages.half_loss_time(S=4, R=2, D=1, token="subject"), "D must"),
        (lambda: stages.half_loss_time(**PAPER, token="noise"), "token"),
        (lambda: stages.half_loss_time(**PAPER, token="subject", start=0.1), "start"),
        (lambda: stages.half_loss_time(**PAPER, token="subject", probability=1.5), "probability"),
        (lambda: stages.rate_ratio(S=4, R=4, D=1), "D must"),
        (lambda: stages.guesses(task_of(), "noise"), "given"),
        (lambda: plateau(TIMES, np.ones(3)), "steps and loss"),
        (lambda: plateau(TIMES[::-1], np.ones(500)), "steps"),
        (lambda: plateau(TIMES, np.zeros(500)), "loss"),
        (lambda: plateau(TIMES, np.ones(500), slope=0.0), "slope"),
        (lambda: crossing(TIMES, np.full(500, np.nan)), "loss"),
        (lambda: stages.balanced_losses(np.array([1e30]), **PAPER, token="subject"), "steps"),
    ],
)
def test_refused_arguments_are_named(call, named):
    with as_users_call(), pytest.raises(ValueError, match=named):
        call()
