"""Prompts and copies of them whose answer is another one: `PromptPairs`.

clean      BOS F riends C , A and B went to the office . A and B gave a drink to      -> C
corrupted  BOS F riends D , A and B went to the office . A and B gave a drink to      -> D
roles      n1 3, n2 5, n3 7, n4 13, n5 15, out 19
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from bounds import checks
from experiments.tasks.sequences import stream

OUT = "out"
"""The role of the last token of a prompt, at which the answer is predicted."""


@dataclass(frozen=True, kw_only=True)
class PromptPairs:
    """Pair i asks `clean[i]` for `answer[i]` and `corrupted[i]` for `corrupted_answer[i]`.

    Shorter prompts are padded on the right, behind their `out`, where both prompts of a pair are
    equal. Everything is of type int64. ValueError names what does not fit; it is raised too for
    prompts of unequal length and for a pair whose two answers are the same.
    """

    clean: Int[Tensor, "pairs length"]
    corrupted: Int[Tensor, "pairs length"]
    answer: Int[Tensor, " pairs"]
    corrupted_answer: Int[Tensor, " pairs"]
    candidates: Int[Tensor, "pairs candidates"]
    """Tokens that could be meant (the names of both prompts), -1 where a pair has fewer."""
    roles: Mapping[str, Int[Tensor, " pairs"]]
    """Positions by what stands there, the same in both prompts; -1 where a pair has no such token.
    "out" is the last token of the prompt."""
    meta: Mapping[str, Int[Tensor, " pairs"]]
    """Further facts: "format" and "template" of each pair."""
    vocab_size: int

    def __post_init__(self) -> None:
        if self.clean.ndim != 2 or self.clean.numel() == 0:
            shape = tuple(self.clean.shape)
            raise ValueError(f"clean must be a pairs x length matrix, not empty, got {shape}")
        if self.corrupted.shape != self.clean.shape:
            raise ValueError(
                "both prompts of a pair must be of equal length, got clean "
                f"{tuple(self.clean.shape)} and corrupted {tuple(self.corrupted.shape)}"
            )
        n, length = self.clean.shape
        named = {f"roles[{name!r}]": at for name, at in self.roles.items()}
        named |= {f"meta[{name!r}]": values for name, values in self.meta.items()}
        named |= {"answer": self.answer, "corrupted_answer": self.corrupted_answer}
        for name, values in named.items():
            if values.shape != (n,):
                raise ValueError(f"{name} must have one number for each of {n} pairs")
        tokens = {"clean": self.clean, "corrupted": self.corrupted, "candidates": self.candidates}
        for name, values in {**named, **tokens}.items():
            if values.dtype != torch.int64:
                raise ValueError(f"{name} must be of type int64, got {values.dtype}")
        for name, at in self.roles.items():
            if at.min() < -1 or at.max() >= length:
                raise ValueError(f"roles[{name!r}] must be from -1 to {length - 1}")
        if OUT not in self.roles or self.roles[OUT].min() < 0:
            raise ValueError(f"roles must name the last token {OUT!r} of every prompt")
        if self.candidates.ndim != 2 or len(self.candidates) != n:
            raise ValueError(f"candidates must have one row for each of {n} pairs")
        for name in ("clean", "corrupted", "answer", "corrupted_answer", "candidates"):
            values, least = getattr(self, name), -1 if name == "candidates" else 0
            if values.min() < least or values.max() >= self.vocab_size:
                raise ValueError(f"{name} must be from {least} to {self.vocab_size - 1}")
        behind = torch.arange(length) > self.roles[OUT][:, None]
        for name, wrong in (
            ("both prompts of a pair must be of equal length", (self.changed & behind).any(1)),
            ("the prompts of a pair must differ", ~self.changed.any(1)),
            ("the answers of a pair must differ", self.answer == self.corrupted_answer),
            ("candidates must have the answer", ~_among(self.answer, self.candidates)),
            (
                "candidates must have the corrupted answer",
                ~_among(self.corrupted_answer, self.candidates),
            ),
        ):
            if wrong.any():
                raise ValueError(f"{name}, but not those of pair {int(wrong.nonzero()[0])}")

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: Tensor | slice) -> PromptPairs:
        """These of the pairs, by number or where true."""
        return replace(
            self,
            clean=self.clean[rows],
            corrupted=self.corrupted[rows],
            answer=self.answer[rows],
            corrupted_answer=self.corrupted_answer[rows],
            candidates=self.candidates[rows],
            roles={name: at[rows] for name, at in self.roles.items()},
            meta={name: values[rows] for name, values in self.meta.items()},
        )

    @property
    def length(self) -> int:
        """Tokens of a prompt, with those that pad it."""
        return self.clean.shape[1]

    @property
    def out(self) -> Int[Tensor, " pairs"]:
        """The position of the last token of each prompt."""
        return self.roles[OUT]

    @property
    def changed(self) -> Bool[Tensor, "pairs length"]:
        """Where the two prompts of a pair differ."""
        return self.clean != self.corrupted

    def swapped(self) -> PromptPairs:
        """The same pairs with clean and corrupted exchanged."""
        return replace(
            self,
            clean=self.corrupted,
            corrupted=self.clean,
            answer=self.corrupted_answer,
            corrupted_answer=self.answer,
        )

    def doubled(self) -> PromptPairs:
        """All pairs, then all of them swapped: twice as many, symmetric in clean and corrupted."""
        return joined(self, self.swapped())

    def aligned(self) -> PromptPairs:
        """The largest group of pairs that have every role at the same position.

        What indexes positions needs it; the other templates are left out, and what nobody of the
        group reads is cut off behind it.
        """
        places = torch.stack(list(self.roles.values()), dim=1)
        _, group, sizes = places.unique(dim=0, return_inverse=True, return_counts=True)
        pairs = self[group == sizes.argmax()]
        end = int(pairs.out.max()) + 1
        return replace(pairs, clean=pairs.clean[:, :end], corrupted=pairs.corrupted[:, :end])


@runtime_checkable
class PairTask(Protocol):
    """A distribution of pairs, and of prompts with their answers to train on."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    def pairs(self, count: int, *, seed: int) -> PromptPairs:
        """Independent pairs; another seed, other ones."""
        ...

    def sequences(
        self, count: int, *, seed: int
    ) -> tuple[Int[Tensor, "sequences length"], Int[Tensor, " sequences"]]:
        """Prompts followed by their answers, padded on the right, and the positions of the last
        tokens before the answers. Behind the answers stands `PADDING`."""
        ...


PADDING = 0
"""The token behind sequences that are shorter than others; never predicted."""


def generator(task: object, *, count: int, seed: int, kind: str) -> np.random.Generator:
    """The generator for so many "pairs" or "sequences" of a task; its `repr` tells tasks apart."""
    checks.count(count=count)
    checks.nonnegative(seed=seed)
    checks.one_of(("pairs", "sequences"), kind=kind)
    return stream(repr(task), kind, seed)


def aligned_pairs(task: PairTask, count: int, *, seed: int) -> PromptPairs:
    """The first so many of the pairs of a task that are `aligned`, of the most common template.

    ValueError where even of eight times as many not enough are.
    """
    checks.count(count=count)
    # Of few pairs another group might be the largest for another seed.
    drawn = [factor * max(count, 50) for factor in (2, 4, 8)]
    for number in drawn:
        pairs = task.pairs(number, seed=seed).aligned()
        if len(pairs) >= count:
            return pairs[:count]
    raise ValueError(
        f"of {drawn[-1]} pairs of {task!r} only {len(pairs)} have every role at the same position, "
        f"{count} are needed"
    )


def joined(first: PromptPairs, second: PromptPairs) -> PromptPairs:
    """The pairs of both, of one length and with the same roles."""
    return replace(
        first,
        **{
            name: torch.cat([getattr(first, name), getattr(second, name)])
            for name in ("clean", "corrupted", "answer", "corrupted_answer", "candidates")
        },
        roles={name: torch.cat([at, second.roles[name]]) for name, at in first.roles.items()},
        meta={name: torch.cat([x, second.meta[name]]) for name, x in first.meta.items()},
    )


def _among(token: Tensor, tokens: Tensor) -> Tensor:
    return (tokens == token[:, None]).any(1)
