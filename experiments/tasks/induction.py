"""Induction: after the second A comes what came after the first.

clean         BOS x A B x x C D x A      -> B
another B     BOS x A E x x C D x A      -> E
another A     BOS x C B x x A D x A      -> D

Olsson et al. 2022 (arXiv:2209.11895); all tokens are random and, but for the second A, different.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.associative_recall import draw_distinct
from experiments.tasks.pair_formats import check_choice
from experiments.tasks.prompt_pairs import OUT, PromptPairs, generator

FORMATS = ("another B", "another A")
BOS = 1
_FIRST = 2


@dataclass(frozen=True, kw_only=True)
class Induction:
    """Random tokens, the last of which has been there before; the answer is the one behind it.

    Roles: "key" and "value" for A and B, "other_key" and "other_value" for C and D, and out; which
    two come first, and where, is uniform. Format 0 of the pairs has another B, which is nowhere
    else in either prompt; format 1 exchanges the first A with C, so that D is the answer.
    Candidates: B, D, and in format 0 the other B. `meta` has the "distance" from key to out.
    """

    vocab_size: int = 64
    """Tokens, of which 0 is for padding (never drawn) and 1 begins a prompt."""
    length: int = 16
    """Tokens of a prompt."""
    formats: tuple[int, ...] = (0, 1)

    def __post_init__(self) -> None:
        checks.count(vocab_size=self.vocab_size, length=self.length)
        checks.ordered(least_length=6, length=self.length)
        checks.ordered(needed_for_length=self.length + 1, vocab_size=self.vocab_size)
        check_choice("formats", self.formats, len(FORMATS))

    def pairs(self, count: int, *, seed: int) -> PromptPairs:
        """Independent pairs; another seed, other ones."""
        rng = generator(self, count=count, seed=seed, kind="pairs")
        clean, fresh, key, other = self._prompts(rng, count)
        which = np.array(self.formats)[rng.integers(len(self.formats), size=count)]
        row = np.arange(count)
        answer, other_answer = clean[row, key + 1], clean[row, other + 1]
        changed, exchanged = clean.copy(), clean.copy()
        changed[row, key + 1] = fresh
        exchanged[row, key], exchanged[row, other] = clean[row, other], clean[row, key]
        first = which == 0
        at = {"key": key, "value": key + 1, "other_key": other, "other_value": other + 1}
        at[OUT] = np.full(count, self.length - 1)
        candidates = [answer, other_answer, np.where(first, fresh, -1)]
        return PromptPairs(
            clean=torch.from_numpy(clean),
            corrupted=torch.from_numpy(np.where(first[:, None], changed, exchanged)),
            answer=torch.from_numpy(answer),
            corrupted_answer=torch.from_numpy(np.where(first, fresh, other_answer)),
            candidates=torch.from_numpy(np.stack(candidates, axis=1)),
            roles={name: torch.from_numpy(places) for name, places in at.items()},
            meta={
                "format": torch.from_numpy(which),
                "template": torch.zeros(count, dtype=torch.int64),
                "distance": torch.from_numpy(self.length - 1 - key),
            },
            vocab_size=self.vocab_size,
        )

    def sequences(
        self, count: int, *, seed: int
    ) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"]]:
        """Prompts followed by their answers, and the positions of the last tokens before them."""
        rng = generator(self, count=count, seed=seed, kind="sequences")
        prompts, _, key, _ = self._prompts(rng, count)
        answers = np.take_along_axis(prompts, key[:, None] + 1, axis=1)
        tokens = np.concatenate([prompts, answers], axis=1)
        return torch.from_numpy(tokens), torch.full((count,), self.length - 1)

    def _prompts(
        self, rng: np.random.Generator, count: int
    ) -> tuple[
        Int[ndarray, "{count} {self.length}"],
        Int[ndarray, " {count}"],
        Int[ndarray, " {count}"],
        Int[ndarray, " {count}"],
    ]:
        """Prompts, tokens that are not in them, and the positions of A and of C."""
        n = self.length - 2
        drawn = _FIRST + draw_distinct(rng, count, n + 1, among=self.vocab_size - _FIRST)
        # Two blocks of two tokens among n - 4 single ones: choose the places of the blocks among
        # n - 2 things, then make room for the second token of the earlier block.
        blocks = draw_distinct(rng, count, 2, among=n - 2)
        places = 1 + blocks + (blocks > blocks[:, ::-1])
        key, other = places.T
        begin = np.full((count, 1), BOS)
        query = np.take_along_axis(drawn, key[:, None] - 1, axis=1)
        return np.concatenate([begin, drawn[:, :n], query], axis=1), drawn[:, n], key, other
