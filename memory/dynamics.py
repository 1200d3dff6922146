r"""Gradient flow of linear attention on factual recall, exactly.

One head without softmax reads one-hot tokens: $\ell_a(z) = \sum_t w(z_t) V(z_t, a)$ are the logits
of the answers, $w(v)$ the attention of the last token to $v$. With $n_v$ the number of times that
$v$ occurs and $g(v, a) = E[n_v (1\{a = a^*\} - p_a)]$, the flow on the cross-entropy is
$\dot V(v, a) = w(v)\,g(v, a)$, $\dot w(v) = \sum_a V(v, a)\,g(v, a)$.

No token is left out. Noise tokens are exchangeable, so from a common start they stay equal, and
the T - 3 of them in a prompt add the same logits whichever they are. The population is then that of
the S R facts, with one row for the subjects and relations each, one for all noise tokens and one
for EOS: with $G_a = P(a) - E\,p_a$, $g = G$ for EOS and $g = G\,(T-3)/n$ for each of n noise
tokens. Where answers are balanced, $G = 0$ as long as the softmax keeps the symmetry, and both
stay at their start; where they are not (random facts, power laws), both learn the marginal $P(a)$.

Source: nichani2024facts, section 5 (linear attention, orthogonal embeddings).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.integrate import solve_ivp

from bounds import checks
from memory.factual_recall import FactualRecall

START = 1e-5
"""All weights at the start, as in nichani2024facts."""
_RELATIVE, _ABSOLUTE = 1e-9, 1e-6
"""Tolerances of the flow; the absolute one relative to the start, from which weights grow."""


@dataclass(frozen=True)
class Weights:
    """Attention and values of the subjects, the relations, any one noise token, and EOS."""

    w: Float[ndarray, " rows"]
    V: Float[ndarray, "rows A"]

    @property
    def invariants(self) -> Float[ndarray, " rows"]:
        r"""$w(v)^2 - \sum_a V(v, a)^2$, which the flow conserves."""
        return self.w**2 - (self.V**2).sum(1)

    @property
    def flat(self) -> Float[ndarray, " numbers"]:
        return np.concatenate([self.w, self.V.ravel()])

    @staticmethod
    def unflatten(flat: Float[ndarray, " numbers"], rows: int) -> Weights:
        return Weights(flat[:rows], flat[rows:].reshape(rows, -1))


class Population:
    """The exact distribution of prompts of a task, as the flow sees it."""

    def __init__(self, task: FactualRecall) -> None:
        self.task = task
        self.S, self.R, self.A = task.S, task.R, task.A
        self.rows = self.S + self.R + 2
        self.answers: Int[ndarray, "S R"] = task.answers.cpu().numpy()
        self.subject_probabilities = task.subject_probabilities.cpu().double().numpy()
        self.relation_probabilities = task.relation_probabilities.cpu().double().numpy()
        self.joint = np.outer(self.subject_probabilities, self.relation_probabilities)
        self.truth = np.zeros((self.S, self.R, self.A))
        np.put_along_axis(self.truth, self.answers[..., None], self.joint[..., None], axis=2)
        self.noise_tokens = task.length - 3
        """Noise tokens in a prompt."""
        self.noise_share = self.noise_tokens / task.noise if task.noise else 0.0
        """How often one of the noise tokens occurs in a prompt, on average."""

    def equal(self, start: float = START) -> Weights:
        """All weights equal, as they are at the start."""
        checks.positive(start=start)
        return Weights(np.full(self.rows, start), np.full((self.rows, self.A), start))

    def logits(self, weights: Weights) -> Float[ndarray, "S R A"]:
        """Of the prompts of each fact; they do not depend on which noise tokens these have."""
        rows = weights.w[:, None] * weights.V
        subjects, relations, noise, eos = np.split(rows, [self.S, -2, -1])
        return subjects[:, None] + relations + self.noise_tokens * noise + eos

    def directions(self, weights: Weights) -> Float[ndarray, "rows A"]:
        """g(v, a); that of one noise token."""
        residual = self.truth - self.joint[..., None] * np.exp(log_softmax(self.logits(weights)))
        relations = residual.sum(0)
        marginal = relations.sum(0)
        return np.vstack([residual.sum(1), relations, self.noise_share * marginal, marginal])

    def velocity(self, weights: Weights) -> Weights:
        """Minus the gradient of the loss, for each noise token that of its own weights."""
        g = self.directions(weights)
        return Weights((weights.V * g).sum(1), weights.w[:, None] * g)

    def loss(self, weights: Weights) -> float:
        """Cross-entropy."""
        return -float((self.truth * log_softmax(self.logits(weights))).sum())


def log_softmax(logits: Float[ndarray, "... A"]) -> Float[ndarray, "... A"]:
    """Over the last axis; half the time of SciPy's on small arrays."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@dataclass(frozen=True)
class Course:
    """What has been learned at each of some steps, on average over the prompts.

    `relation` is -ln of the probability that the answer is one of the relation's, `subject` the
    rest of the loss, -ln of the probability of the true answer among these; `index` is -ln of the
    probability of all answers with the same number within their relations as the true one. For
    structured facts `index` is what nichani2024facts plots for subjects, and equals `subject` in
    the flow. An answer is drawn from the model: `correct` and `hallucinated` are the probabilities
    that it is true, and that it is false but one of the relation's. `accuracy` is the share of
    prompts at which the true answer alone has the largest logit. `background` is the largest
    weight, relative to the start, of the tokens that say nothing, noise and EOS.
    """

    steps: Float[ndarray, " times"]
    total: Float[ndarray, " times"]
    relation: Float[ndarray, " times"]
    subject: Float[ndarray, " times"]
    index: Float[ndarray, " times"]
    correct: Float[ndarray, " times"]
    hallucinated: Float[ndarray, " times"]
    accuracy: Float[ndarray, " times"]
    of_subject: Float[ndarray, "times S"]
    """`subject` of the prompts of each subject."""
    marginal: Float[ndarray, " times"]
    """Divergence of the mean probabilities of answers from their true ones, in nats."""
    background: Float[ndarray, " times"]


def assess(population: Population, logits: Float[ndarray, "*draws S R A"]) -> dict[str, ndarray]:
    """The entries of a course at one step but `steps` and `background`, draws averaged."""
    S, R, A = logits.shape[-3:]
    log_p = log_softmax(logits.reshape(-1, S, R, A))
    p, joint = np.exp(log_p), population.joint
    at = np.broadcast_to(population.answers[None, ..., None], (len(p), S, R, 1))
    true = np.take_along_axis(log_p, at, axis=3)[..., 0]
    parts = p.reshape(len(p), S, R, R, -1)
    block = np.log(np.einsum("...rrj->...r", parts))
    index = np.log(np.take_along_axis(parts.sum(3), at % (A // R), axis=3)[..., 0])
    others = log_p.copy()
    np.put_along_axis(others, at, -np.inf, axis=3)

    def mean(values: Float[ndarray, "draws S R"]) -> Float[ndarray, ""]:
        return np.asarray((values.mean(0) * joint).sum())

    answered = (p.mean(0) * joint[..., None]).sum((0, 1))
    frequency = population.truth.sum((0, 1))
    occurring = frequency > 0
    ratio = np.log(frequency[occurring] / answered[occurring])
    return {
        "total": mean(-true),
        "relation": mean(-block),
        "subject": mean(block - true),
        "index": mean(-index),
        "correct": mean(np.exp(true)),
        "hallucinated": mean(np.exp(block) - np.exp(true)),
        "accuracy": mean((true > others.max(3)).astype(float)),
        "of_subject": (block - true).mean(0) @ population.relation_probabilities,
        "marginal": np.asarray((frequency[occurring] * ratio).sum()),
    }


def flow(
    task: FactualRecall,
    steps: Sequence[float] | ndarray,
    *,
    step_size: float = 0.1,
    start: float = START,
) -> Course:
    """The exact gradient flow, where `steps` steps of this size would be: at time steps * size.

    Eighth-order Runge-Kutta with relative errors of 1e-9, also of weights as small as at the start.
    """
    population = Population(task)
    checks.positive(step_size=step_size)
    times = step_size * checked_steps(steps)

    def velocity(_: float, flat: Float[ndarray, " numbers"]) -> Float[ndarray, " numbers"]:
        return population.velocity(Weights.unflatten(flat, population.rows)).flat

    begin = population.equal(start)
    solution = solve_ivp(
        velocity, (0.0, float(times[-1])), begin.flat, method="DOP853", t_eval=times,
        rtol=_RELATIVE, atol=_ABSOLUTE * start,
    )  # fmt: skip
    if not solution.success:
        raise RuntimeError(f"the flow was not solved: {solution.message}")
    states = [Weights.unflatten(flat, population.rows) for flat in solution.y.T]
    return _course(population, times / step_size, states, start)


def descent(
    task: FactualRecall,
    steps: Sequence[int] | Int[ndarray, " times"],
    *,
    step_size: float = 0.1,
    start: float = START,
) -> Course:
    """Gradient descent on the exact population, seen after each of these numbers of steps."""
    population = Population(task)
    checks.positive(step_size=step_size)
    numbers = checked_steps(steps, whole=True)
    weights, states, done = population.equal(start), [], 0
    for number in numbers:
        while done < number:
            change = population.velocity(weights)
            weights = Weights(weights.w + step_size * change.w, weights.V + step_size * change.V)
            done += 1
        states.append(weights)
    return _course(population, numbers, states, start)


def checked_steps(
    steps: Sequence[float] | ndarray, *, whole: bool = False
) -> Float[ndarray, " times"]:
    """Numbers of steps as an array; ValueError unless they increase from at least 0."""
    array = np.asarray(steps, dtype=float)
    if array.ndim != 1 or array.size == 0 or array[0] < 0 or not (np.diff(array) > 0).all():
        raise ValueError(f"steps must increase strictly and start at 0 or later, got {steps!r}")
    if array[-1] == 0:
        raise ValueError("steps must end after 0")
    if whole and (array != np.floor(array)).any():
        raise ValueError(f"steps must be whole numbers, got {steps!r}")
    return array


def course(steps: ndarray, entries: Sequence[dict[str, ndarray]], background: ndarray) -> Course:
    """The entries of `assess` at these steps, as one course."""
    stacked = {name: np.stack([entry[name] for entry in entries]) for name in entries[0]}
    return Course(steps=steps, background=background, **stacked)


def _course(
    population: Population, steps: ndarray, states: Sequence[Weights], start: float
) -> Course:
    entries = [assess(population, population.logits(state)) for state in states]
    background = np.array([np.abs(state.w[-2:]).max() / start for state in states])
    return course(steps, entries, background)
