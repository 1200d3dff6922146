"""Multi-query associative recall (MQAR): pairs, then every key once, scattered over filler.

    k3 v7 k1 v2 | k1 0 0 0 k3 0 0 0     targets v2 at the second k1, v7 at the second k3

Arora et al. 2024, "Zoology" (arXiv:2312.04927): answers are not written behind their keys.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bounds import checks
from experiments.tasks.associative_recall import draw_distinct
from experiments.tasks.recall import IGNORED, Documents, generator, rightmost


@dataclass(frozen=True, kw_only=True)
class MultiQueryRecall:
    r"""MQAR with `num_pairs` pairs in documents of `length` tokens.

    Tokens: 0 for filler, keys below `vocab_size` // 2, values from there on; both are drawn
    without replacement. Behind the pairs the document is cut into slots of two tokens, numbered
    from 1, and the keys are asked at the first token of a slot each, drawn without replacement
    with weights $g^{a-1}$ for slot g, a the `power`. `meta` about the first question: the number
    of its `pair`, and the `distance` in tokens from the key to the question. There is no divider.
    """

    vocab_size: int = 8192
    length: int = 64
    num_pairs: int = 4
    power: float = 0.01
    """Small: most questions come soon after the pairs; 1: uniformly."""
    passes: int = 1
    """How often the pairs are written, one list after the other."""
    random_non_queries: bool = False
    """Fill with random tokens, keys and values among them, which ask and say nothing."""

    def __post_init__(self) -> None:
        checks.count(vocab_size=self.vocab_size, length=self.length)
        checks.count(num_pairs=self.num_pairs, passes=self.passes)
        checks.positive(power=self.power)
        if self.vocab_size // 2 - 1 < self.num_pairs:
            raise ValueError(
                f"vocab_size must be at least {2 * self.num_pairs + 2}, for num_pairs="
                f"{self.num_pairs} keys, values and the filler, got {self.vocab_size}"
            )
        if self.length < self._context + 2 * self.num_pairs:
            raise ValueError(
                f"length must be at least {self._context + 2 * self.num_pairs}, the pairs and two "
                f"tokens for each question, got {self.length}"
            )

    @property
    def _context(self) -> int:
        return 2 * self.num_pairs * self.passes

    def with_pairs(self, n: int) -> MultiQueryRecall:
        """The same task with so many pairs, in documents that are as short as they can be."""
        return replace(self, num_pairs=n, length=2 * n * (self.passes + 1))

    def sample(self, documents: int, *, seed: int, split: str = "train") -> Documents:
        """Documents with `num_pairs` questions each; the splits differ in nothing but the draws."""
        rng = generator(self, documents=documents, seed=seed, split=split)
        n, first_value = self.num_pairs, self.vocab_size // 2
        keys = 1 + draw_distinct(rng, documents, n, among=first_value - 1)
        values = first_value + draw_distinct(rng, documents, n, among=self.vocab_size - first_value)
        pairs = np.stack([keys, values], axis=-1).reshape(documents, 2 * n)
        # The n smallest of exponential times over weights, in order, are n successive draws.
        weights = np.arange(1, (self.length - self._context) // 2 + 1) ** (self.power - 1)
        times = rng.exponential(size=(documents, len(weights))) / weights
        questions = self._context + 2 * np.argsort(times, axis=1)[:, :n]
        tokens = np.zeros((documents, self.length), dtype=np.int64)
        if self.random_non_queries:
            tokens = rng.integers(self.vocab_size, size=tokens.shape)
        tokens[:, : self._context] = np.tile(pairs, self.passes)
        np.put_along_axis(tokens, questions, keys, axis=1)
        targets = np.full_like(tokens, IGNORED)
        np.put_along_axis(targets, questions, values, axis=1)
        pair, query = questions.argmin(axis=1), questions.min(axis=1)
        key = self._context - 2 * n + 2 * pair
        positions = {
            "key": key,
            "value": key + 1,
            "next_key": np.where(pair == n - 1, -1, key + 2),
            "next_value": np.where(pair == n - 1, -1, key + 3),
            "divider": np.full_like(key, -1),
            "query": query,
            "answer": np.full_like(key, -1),
        }
        return Documents(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            positions={name: torch.from_numpy(at) for name, at in positions.items()},
            meta={"pair": torch.from_numpy(pair), "distance": torch.from_numpy(query - key)},
            vocab_size=self.vocab_size,
        )

    def like(self, name: str) -> Int[Tensor, " tokens"]:
        """The tokens that can stand at the positions of this name."""
        first_value = self.vocab_size // 2
        keys, values = torch.arange(1, first_value), torch.arange(first_value, self.vocab_size)
        tokens: dict[str, Tensor] = dict.fromkeys(("key", "next_key", "query"), keys)
        tokens |= dict.fromkeys(("value", "next_value", "answer"), values)
        checks.one_of(tuple(tokens), name=name)
        return tokens[name]

    def solve(self, documents: Documents) -> Int[Tensor, " documents"]:
        """The value behind the queried key where the pairs have it last; -1 if they do not."""
        keys = documents.tokens[:, : self._context : 2]
        values = documents.tokens[:, 1 : self._context : 2]
        query = documents.tokens.gather(1, documents.positions["query"][:, None])
        pair = rightmost(keys == query)
        found = values.gather(1, pair.clamp(min=0)[:, None]).squeeze(1)
        return torch.where(pair < 0, -1, found)
