"""The factual-recall task: name a subject and a relation among noise, answer with the fact.

    tokens   n7 s3 n1 n1 r2 n4 EOS      answer a*(s3, r2), one of the D answers of relation r2

Source: nichani2024facts, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from bounds import checks

Answers = Literal["random", "structured"]

LARGEST_POPULATION = 2**20
"""Prompts that are enumerated at most."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompt `i` names `subject[i]` and `relation[i]` at these positions; `answer[i]` is true."""

    tokens: Int[Tensor, "prompts length"]
    subject: Int[Tensor, " prompts"]
    relation: Int[Tensor, " prompts"]
    subject_position: Int[Tensor, " prompts"]
    relation_position: Int[Tensor, " prompts"]
    answer: Int[Tensor, " prompts"]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False)
class FactualRecall:
    r"""Facts $a^*(s, r)$ of S subjects and R relations, and the prompts that ask for them.

    Tokens are the subjects 0 to S-1, the relations after them, `noise` noise tokens and, last, EOS.
    Answers have numbers of their own; those of relation r are the D from rD on. A prompt has the
    subject and the relation at two places of the first `length` - 1, uniformly drawn, noise
    tokens, uniformly drawn, at the others, and EOS at the end. Subjects and relations are drawn
    independently with the given probabilities.
    """

    answers: Int[Tensor, "S R"]
    D: int
    noise: int
    length: int
    subject_probabilities: Float[Tensor, " S"]
    relation_probabilities: Float[Tensor, " R"]

    def __post_init__(self) -> None:
        if self.answers.ndim != 2 or self.answers.numel() == 0:
            shape = tuple(self.answers.shape)
            raise ValueError(f"answers must be an S x R matrix, not empty, got {shape}")
        if self.answers.dtype != torch.int64:
            raise ValueError(f"answers must be of type int64, got {self.answers.dtype}")
        checks.count(D=self.D)
        block = torch.arange(self.R, device=self.answers.device)
        if not torch.equal(
            self.answers.div(self.D, rounding_mode="floor"), block.expand(self.S, -1)
        ):
            raise ValueError(f"answers of relation r must be from r*D to r*D + D - 1, D={self.D}")
        if self.A < 2:
            raise ValueError(f"there must be at least 2 answers to choose from, got R*D={self.A}")
        checks.nonnegative(noise=self.noise)
        checks.count(length=self.length)
        if self.length < 3 or (self.noise == 0 and self.length > 3):
            raise ValueError(
                "length must be 3 for a subject, a relation and EOS, or more if there are noise "
                f"tokens, got {self.length} with noise={self.noise}"
            )
        for name, p, count in (
            ("subject", self.subject_probabilities, self.S),
            ("relation", self.relation_probabilities, self.R),
        ):
            if p.shape != (count,) or not (p > 0).all() or abs(float(p.double().sum()) - 1) > 1e-6:
                raise ValueError(f"{name}_probabilities must be {count} positive numbers of sum 1")

    @property
    def S(self) -> int:
        """Number of subjects."""
        return self.answers.shape[0]

    @property
    def R(self) -> int:
        """Number of relations."""
        return self.answers.shape[1]

    @property
    def A(self) -> int:
        """Number of answers."""
        return self.R * self.D

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return self.S + self.R + self.noise + 1

    @property
    def eos(self) -> int:
        """The last token, which ends every prompt."""
        return self.vocabulary - 1

    def sample(self, prompts: int, generator: torch.Generator) -> Prompts:
        """Independent prompts, drawn on the device of the facts, which is the generator's."""
        checks.count(prompts=prompts)
        subject, relation = (
            torch.multinomial(p, prompts, replacement=True, generator=generator)
            for p in (self.subject_probabilities, self.relation_probabilities)
        )
        return self.ask(subject, relation, generator)

    def every_fact(self, generator: torch.Generator, fillings: int = 1) -> Prompts:
        """One prompt for each fact, all relations of the first subject first; so many times."""
        checks.count(fillings=fillings)
        pairs = torch.arange(self.S * self.R, device=self.answers.device).repeat(fillings)
        return self.ask(pairs // self.R, pairs % self.R, generator)

    def ask(
        self,
        subject: Int[Tensor, " prompts"],
        relation: Int[Tensor, " prompts"],
        generator: torch.Generator,
    ) -> Prompts:
        """A prompt for each pair, with random places and noise."""
        n, device = len(subject), self.answers.device
        at = dict(device=device, generator=generator)
        i = torch.randint(self.length - 1, (n,), **at)
        j = torch.randint(self.length - 2, (n,), **at)
        j = j + (j >= i)  # uniform among the places that are left
        if self.noise:
            noise = torch.randint(self.noise, (n, self.length), **at) + self.S + self.R
        else:
            noise = torch.empty(n, self.length, dtype=torch.int64, device=device)
        return self._prompts(subject, relation, i, j, noise)

    def population(self) -> tuple[Prompts, Float[Tensor, " prompts"]]:
        """All prompts with their probabilities (float64, sum 1); ValueError if they are too many.

        There are $S R (T-1)(T-2) n^{T-3}$ for length T and n noise tokens.
        """
        free = self.length - 3
        fillings = self.noise**free
        count = self.S * self.R * (self.length - 1) * (self.length - 2) * fillings
        if count > LARGEST_POPULATION:
            raise ValueError(
                f"the population must have at most {LARGEST_POPULATION} prompts, it has {count}; "
                "reduce S, R, noise or length, or use sample"
            )
        device = self.answers.device
        pairs = [(i, j) for i in range(self.length - 1) for j in range(self.length - 1) if i != j]
        index = torch.arange(count, device=device)
        filling, index = index % fillings, index // fillings
        place, index = index % len(pairs), index // len(pairs)
        relation, subject = index % self.R, index // self.R
        i, j = torch.tensor(pairs, device=device)[place].unbind(1)
        noise = torch.empty(count, self.length, dtype=torch.int64, device=device)
        position = torch.arange(self.length - 1, device=device)
        taken = (position == i[:, None]) | (position == j[:, None])
        if free:
            rank = (~taken).cumsum(1) - 1  # which of the free places a place is
            digit = filling[:, None] // self.noise ** rank.clamp(min=0) % self.noise
            noise[:, :-1] = digit + self.S + self.R
        p = self.subject_probabilities.double()[subject]
        p = p * self.relation_probabilities.double()[relation]
        prompts = self._prompts(subject, relation, i, j, noise)
        return prompts, p / (len(pairs) * fillings)

    def _prompts(
        self,
        subject: Int[Tensor, " prompts"],
        relation: Int[Tensor, " prompts"],
        i: Int[Tensor, " prompts"],
        j: Int[Tensor, " prompts"],
        noise: Int[Tensor, "prompts length"],
    ) -> Prompts:
        tokens = noise
        tokens[:, -1] = self.eos
        tokens.scatter_(1, i[:, None], subject[:, None])
        tokens.scatter_(1, j[:, None], relation[:, None] + self.S)
        return Prompts(tokens, subject, relation, i, j, self.answers[subject, relation])


def draw_task(
    *,
    S: int,
    R: int,
    D: int,
    noise: int | None = None,
    length: int = 32,
    seed: int = 0,
    answers: Answers = "random",
    subject_exponent: float = 0.0,
    relation_exponent: float = 0.0,
    device: torch.device | str = "cpu",
) -> FactualRecall:
    r"""Random facts, with S + R noise tokens by default, the same on every device.

    An answer is uniform among the D of its relation ("random"), or the j-th of them with
    $j = \lfloor s D / S \rfloor$ ("structured"). Subject s has a probability proportional to
    $(s+1)^{-\alpha}$ with the exponent $\alpha$, and relations likewise; 0 is uniform.
    """
    checks.count(S=S, R=R, D=D)
    checks.nonnegative(
        seed=seed, subject_exponent=subject_exponent, relation_exponent=relation_exponent
    )
    checks.one_of(get_args(Answers), answers=answers)
    if answers == "random":
        index = np.random.default_rng([seed, S, R, D]).integers(D, size=(S, R))
    else:
        index = np.broadcast_to(np.arange(S)[:, None] * D // S, (S, R))
    table = torch.from_numpy(index + D * np.arange(R)).to(device)
    return FactualRecall(
        answers=table,
        D=D,
        noise=S + R if noise is None else noise,
        length=length,
        subject_probabilities=_power_law(S, subject_exponent).to(device),
        relation_probabilities=_power_law(R, relation_exponent).to(device),
    )


def token_counts(
    tokens: Int[Tensor, "*prompts T"], vocabulary: int, dtype: torch.dtype
) -> Float[Tensor, "*prompts vocabulary"]:
    """How often every token occurs in each prompt."""
    counts = torch.zeros(*tokens.shape[:-1], vocabulary, dtype=dtype, device=tokens.device)
    return counts.scatter_add_(-1, tokens, counts.new_ones(()).expand(tokens.shape))


def _power_law(count: int, exponent: float) -> Float[Tensor, " count"]:
    weights = torch.arange(1, count + 1, dtype=torch.float64) ** -exponent
    return weights / weights.sum()
