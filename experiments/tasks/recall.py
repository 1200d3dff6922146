"""Documents and the questions about them: what recall tasks hand to training and interventions.

tokens   BOS k3 v7 k1 v2 EOS k1 v2 EOS      targets   - - - - - - v2 - -
positions: key 3, value 4, divider 5, query 6, answer 7      (of the first question)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.sequences import stream

IGNORED = -100
"""The target where nothing is asked."""
Split = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Document `i` is `tokens[i]`; at its questions `targets[i]` has the answers.

    `positions` name tokens of the first question of each document: "key", "value", "divider",
    "query", "answer" (the slot after the query, which a causal model cannot use), "next_key", ...;
    -1 where a document has no such token. `meta` has further facts about each document, first
    dimension documents. Everything is of type int64.
    """

    tokens: Int[Tensor, "documents length"]
    targets: Int[Tensor, "documents length"]
    positions: Mapping[str, Int[Tensor, " documents"]]
    meta: Mapping[str, Int[Tensor, "documents ..."]]
    vocab_size: int

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2 or self.tokens.numel() == 0:
            shape = tuple(self.tokens.shape)
            raise ValueError(f"tokens must be a documents x length matrix, not empty, got {shape}")
        if self.targets.shape != self.tokens.shape:
            shape = tuple(self.targets.shape)
            raise ValueError(f"targets must have the shape of the tokens, got {shape}")
        if "query" not in self.positions:
            raise ValueError(f"positions must name the query, got {', '.join(self.positions)}")
        n, length = self.tokens.shape
        every = {f"positions[{name!r}]": values for name, values in self.positions.items()}
        every |= {f"meta[{name!r}]": values for name, values in self.meta.items()}
        every |= {"tokens": self.tokens, "targets": self.targets}
        for name, values in every.items():
            if values.dtype != torch.int64:
                raise ValueError(f"{name} must be of type int64, got {values.dtype}")
            if values.shape[:1] != (n,):
                raise ValueError(f"{name} must have one entry for each of {n} documents")
        for name, position in self.positions.items():
            if position.shape != (n,):
                raise ValueError(f"positions[{name!r}] must have one number for each document")
            if position.min() < -1 or position.max() >= length:
                raise ValueError(f"positions[{name!r}] must be from -1 to {length - 1}")
        asked = self.targets[self.targets != IGNORED]
        for name, values in (("tokens", self.tokens), ("targets", asked)):
            if len(values) and (values.min() < 0 or values.max() >= self.vocab_size):
                raise ValueError(f"{name} must be from 0 to {self.vocab_size - 1}")
        if self.positions["query"].min() < 0 or (self.answer == IGNORED).any():
            raise ValueError("targets must have the answer at every position named query")

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> Documents:
        """These of the documents, by number or where true."""
        return replace(
            self,
            tokens=self.tokens[rows],
            targets=self.targets[rows],
            positions={name: at[rows] for name, at in self.positions.items()},
            meta={name: values[rows] for name, values in self.meta.items()},
        )

    @property
    def answer(self) -> Int[Tensor, " documents"]:
        """The answers to the first questions."""
        return self.targets.gather(1, self.positions["query"][:, None]).squeeze(1)

    @property
    def asked(self) -> Bool[Tensor, "documents length"]:
        """Where a question is."""
        return self.targets != IGNORED


@runtime_checkable
class RecallTask(Protocol):
    """A distribution of documents."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        ...

    def sample(self, documents: int, *, seed: int, split: Split = "train") -> Documents:
        """Documents of this split; another seed or split, independent ones."""
        ...

    def like(self, name: str) -> Int[Tensor, " tokens"]:
        """The tokens that can stand at the positions of this name ("key", "value", "query")."""
        ...

    def solve(self, documents: Documents) -> Int[Tensor, " documents"]:
        """What the documents, perhaps corrupted, answer to their first questions; -1 for nothing.

        It reads the tokens (and the structure in `meta`), not the targets.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """The combinations of a key and its value that only the test split asks about.

    The values stand on a ring in random order. Held out for a key are the `width` values from a
    start on, and the starts are spread evenly: every key, and up to rounding every value, is held
    out in the same share of its combinations, so all tokens are trained in both roles. The
    combinations depend on nothing but these three numbers.
    """

    num_keys: int
    num_values: int
    share: float
    """From 0 (no combination; the splits differ in nothing but their draws) to below 1."""

    def __post_init__(self) -> None:
        checks.count(num_keys=self.num_keys, num_values=self.num_values)
        checks.fraction(held_out=self.share)
        if self.share > 0 and not 0 < self.width < self.num_values:
            raise ValueError(
                f"held_out must leave every key with values of both kinds, got {self.share!r}, "
                f"{self.width} of {self.num_values} values"
            )

    @property
    def width(self) -> int:
        """Number of values held out for each key."""
        return round(self.share * self.num_values)

    def allowed(
        self, keys: Int[ndarray, "*combinations"], values: Int[ndarray, "*combinations"], split: str
    ) -> Bool[ndarray, "*combinations"]:
        """Whether this split may ask about these combinations."""
        start, size = self.window(keys, split)
        places = np.argsort(self.ring)[values]
        return (places - start) % self.num_values < size

    def window(
        self, keys: Int[ndarray, "*combinations"], split: str
    ) -> tuple[Int[ndarray, "*combinations"], Int[ndarray, "*combinations"]]:
        """First place and number of places on the ring of the values allowed with these keys."""
        if self.width == 0:
            return np.zeros_like(keys), np.full_like(keys, self.num_values)
        if split == "test":
            return self._starts[keys], np.full_like(keys, self.width)
        return self._starts[keys] + self.width, np.full_like(keys, self.num_values - self.width)

    @cached_property
    def ring(self) -> Int[ndarray, " num_values"]:
        """The values in their order on the ring."""
        return stream("held out", "values", self.num_values).permutation(self.num_values)

    @cached_property
    def _starts(self) -> Int[ndarray, " num_keys"]:
        order = stream("held out", "keys", self.num_keys).permutation(self.num_keys)
        return order * self.num_values // self.num_keys


def generator(task: object, *, documents: int, seed: int, split: str) -> np.random.Generator:
    """The generator for these documents of a task; its `repr` tells tasks apart."""
    checks.count(documents=documents)
    checks.nonnegative(seed=seed)
    checks.one_of(get_args(Split), split=split)
    return stream(repr(task), split, seed)


def rightmost(where: Bool[Tensor, "documents length"]) -> Int[Tensor, " documents"]:
    """The last position that is true, -1 where none is."""
    places = torch.arange(where.shape[1]).expand_as(where)
    return places.masked_fill(~where, -1).amax(dim=1)
