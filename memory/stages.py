r"""When linear attention learns relations and subjects, and what it knows in between: predictions.

From equal weights $w_0$, token v grows like $e^{|g(v)| t}$ with $|g(v)|$ at uniform probabilities.
For balanced facts, $a^*(s, r) = rD + j(s)$, the flow of `memory.dynamics` is solvable. Softmax
factorises: the probability $q$ of the relation's block, and of the subject's index in it, each
depend on one logit gap $B = w b$ between c choices (R, or D), with $q = e^B / (e^B + c - 1)$ and

    dw/dt = p b (1 - q),    db/dt = w (1 - q) k^2 p,    k^2 = c^2 / (A (c - 1)),    A = R D,

where p is the probability of the token. $k^2 w^2 - b^2$ is conserved. In the time
$d\tau = (1 - q)\,dt$ this is linear: $B = \epsilon \sinh(2 k p \tau)$ with $\epsilon = k w_0^2/2$;
back in t, with $|g| = p \sqrt{(c-1)/A}$,

    t(B) = [asinh(B/eps) + integral from 0 to B of (e^x - 1)/sqrt(x^2 + eps^2) dx / c] / (2 |g|).

The paper's theorem is asymptotic; these times are exact. Source: nichani2024facts, section 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import expi

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from memory.dynamics import START, Population
from memory.factual_recall import FactualRecall

_SOURCE = Source("seqtheory", "sequential learning, balanced facts; nichani2024facts, section 5")
_LARGEST_START = 1e-2

Token = Literal["relation", "subject"]


def half_loss_time(
    *,
    S: int,
    R: int,
    D: int,
    token: Token,
    probability: float | None = None,
    step_size: float = 1.0,
    start: float = START,
) -> Bound:
    r"""Latest number of steps until the loss of a relation, or of a subject's index, has halved.

    At half loss $B = \ln(1 + \sqrt c)$. Of $t(B)$ above, $(e^x - 1)/x$ is between 1 and $e^x$: the
    term `earliest` is a lower bound, and the two differ by less than $1/(2 |g| \sqrt c)$.
    `probability` is that of the token, by default 1/R or 1/S. A step is `step_size` units of time.
    """
    derive, choices, rate, gap, epsilon = _balanced(
        S=S, R=R, D=D, token=token, probability=probability, step_size=step_size, start=start
    )
    growth = derive(
        "growth", math.asinh(gap / epsilon), "log(gap/epsilon + sqrt((gap/epsilon)**2 + 1))",
        "e-foldings of the gap from the start to half loss",
    )  # fmt: skip
    reach = math.hypot(gap, epsilon) - epsilon
    derive(
        "earliest", (growth + reach / choices) / (2 * step_size * rate),
        "(growth + (sqrt(gap**2 + epsilon**2) - epsilon)/choices)/(2*step_size*rate)",
        "steps until half loss, at least",
    )  # fmt: skip
    derive(
        "latest", (growth + choices**-0.5) / (2 * step_size * rate),
        "(growth + 1/sqrt(choices))/(2*step_size*rate)", "steps until half loss, at most",
    )  # fmt: skip
    return derive.bound(
        f"under gradient flow the loss of a {token} has halved after `latest` steps, and not "
        "before `earliest`",
        _SOURCE,
        "facts are balanced: the index of the answer depends on the subject alone, equally often",
        "all weights are equal at the start",
    )


def exact_half_loss_time(
    *,
    S: int,
    R: int,
    D: int,
    token: Token,
    probability: float | None = None,
    step_size: float = 1.0,
    start: float = START,
) -> float:
    r"""The number of steps itself, $[\mathrm{asinh}(B/\epsilon) + (Ei(B) - \gamma - \ln B)/c] /
    (2 |g|)$, up to a relative error of $\epsilon$."""
    _, choices, rate, gap, epsilon = _balanced(
        S=S, R=R, D=D, token=token, probability=probability, step_size=step_size, start=start
    )
    saturation = float(expi(gap)) - np.euler_gamma - math.log(gap)
    return (math.asinh(gap / epsilon) + saturation / choices) / (2 * step_size * rate)


def balanced_losses(
    steps: Float[ndarray, " times"],
    *,
    S: int,
    R: int,
    D: int,
    token: Token,
    step_size: float = 1.0,
    start: float = START,
) -> Float[ndarray, " times"]:
    """The loss of balanced facts at these numbers of steps: t(B), inverted by interpolation."""
    _, choices, rate, _, epsilon = _balanced(
        S=S, R=R, D=D, token=token, probability=None, step_size=step_size, start=start
    )
    gap = np.concatenate([[0.0], np.geomspace(epsilon * 1e-3, 40 + math.log(choices), 40_000)])
    with np.errstate(divide="ignore", invalid="ignore"):
        saturation = np.where(gap > 1e-8, expi(gap) - np.euler_gamma - np.log(gap), gap)
    taken = (np.arcsinh(gap / epsilon) + saturation / choices) / (2 * step_size * rate)
    if steps.max() > taken[-1]:
        raise ValueError(f"steps must be at most {taken[-1]:g}, got {steps.max():g}")
    gap = np.interp(steps, taken, gap)
    return np.log1p((choices - 1) * np.exp(-gap))


def rate_ratio(*, S: int, R: int, D: int) -> Bound:
    r"""How much faster relations grow than subjects: they come first where it exceeds 1.

    $|g_r|/|g_s| = S \sqrt{R-1} / (R \sqrt{D-1})$ for facts and prompts that are uniform; infinite
    for D = 1, where there is nothing to learn about subjects.
    """
    checks.count(S=S, R=R, D=D)
    derive = Derivation(dict(S=S, R=R, D=D))
    if D == 1:
        raise ValueError("D must be at least 2: with D=1 the relation alone gives the answer")
    derive(
        "ratio", S * math.sqrt(R - 1) / (R * math.sqrt(D - 1)), "S*sqrt(R - 1)/(R*sqrt(D - 1))",
        "growth rate of a relation over that of a subject",
    )  # fmt: skip
    return derive.bound(
        "relations grow `ratio` times as fast as subjects", _SOURCE, "facts are balanced"
    )


def _balanced(
    *,
    S: int,
    R: int,
    D: int,
    token: Token,
    probability: float | None,
    step_size: float,
    start: float,
) -> tuple[Derivation, int, float, float, float]:
    """The derivation up to epsilon, with c, |g|, B at half loss, and epsilon."""
    checks.count(S=S, R=R, D=D)
    checks.one_of(get_args(Token), token=token)
    checks.positive(step_size=step_size, start=start)
    choices, count = (R, R) if token == "relation" else (D, S)
    if choices < 2:
        raise ValueError(f"{'R' if token == 'relation' else 'D'} must be at least 2, got 1")
    if start > _LARGEST_START:
        raise ValueError(f"start must be at most {_LARGEST_START}, got {start}")
    if probability is None:
        probability = 1 / count
    checks.fraction(probability=probability)
    checks.positive(probability=probability)
    derive = Derivation(
        dict(R=R, D=D, choices=choices, probability=probability, step_size=step_size, start=start)
    )
    rate = derive(
        "rate", probability * math.sqrt((choices - 1) / (R * D)),
        "probability*sqrt((choices - 1)/(R*D))", "growth rate |g| of the token",
    )  # fmt: skip
    k = derive(
        "k", choices / math.sqrt(R * D * (choices - 1)), "choices/sqrt(R*D*(choices - 1))",
        "gap of the values over attention, b/w, once both have grown",
    )  # fmt: skip
    epsilon = derive("epsilon", k * start**2 / 2, "k*start**2/2", "scale of the gap at the start")
    gap = derive("gap", math.log1p(math.sqrt(choices)), "log(1 + sqrt(choices))", "at half loss")
    return derive, choices, float(rate), float(gap), float(epsilon)


@dataclass(frozen=True)
class GrowthRates:
    """|g| of tokens at uniform probabilities, exact for any facts and prompts."""

    subjects: Float[ndarray, " S"]
    relations: Float[ndarray, " R"]
    noise: float
    eos: float


def growth_rates(task: FactualRecall) -> GrowthRates:
    """Rates of every token; noise and EOS have some where answers are not equally frequent."""
    population = Population(task)
    uniform = np.full(population.truth.shape, 1 / population.A)
    residual = population.truth - population.joint[..., None] * uniform
    marginal = np.linalg.norm(residual.sum((0, 1)))
    return GrowthRates(
        subjects=np.linalg.norm(residual.sum(1), axis=1),
        relations=np.linalg.norm(residual.sum(0), axis=1),
        noise=population.noise_share * float(marginal),
        eos=float(marginal),
    )


@dataclass(frozen=True)
class Guesses:
    """What knowing one of the two tokens is worth, and no more.

    `entropy` is the loss that is left. Answers `drawn` from what is known, and the `best` guess,
    are right with these probabilities.
    """

    entropy: float
    drawn: float
    best: float


def guesses(task: FactualRecall, given: Token) -> Guesses:
    """For a model that knows P(answer | relation), or P(answer | subject), exactly."""
    checks.one_of(get_args(Token), given=given)
    population = Population(task)
    joint = population.truth.sum(0 if given == "relation" else 1)
    token = joint.sum(1, keepdims=True)
    conditional = joint / token
    logs = np.log(np.where(conditional > 0, conditional, 1.0))
    return Guesses(
        entropy=-float((joint * logs).sum()),
        drawn=float((joint * conditional).sum()),
        best=float((token[:, 0] * conditional.max(1)).sum()),
    )
