"""Associative recall: pairs of a key and its value, then keys whose values are asked for.

    one question    BOS k3 v7 k1 v2 k5 v4 EOS k1 v2 EOS     target v2 at the second k1
    three           BOS k3 v7 k1 v2 k5 v4 EOS k1 k5 k3      targets v2 v4 v7, written nowhere

One question as in Arora et al. 2025 (arXiv:2505.15105), who count tokens where we count pairs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.recall import IGNORED, Documents, HeldOut, generator, rightmost

BOS, DIVIDER = 1, 2
FIRST_KEY = 3


@dataclass(frozen=True, kw_only=True)
class AssociativeRecall:
    """Associative recall with `num_pairs` pairs in every document.

    Tokens: 0 for padding (never drawn), 1 begins a document, 2 divides and ends, then the keys,
    then the values. Values are drawn without replacement, and so are keys but for the repeats; the
    queried pairs are uniform among those that count. `key` names the place of the queried token in
    the document, `value` that of its answer, `next_key` and `next_value` are two tokens further.
    `meta`: `num_pairs`; of the first queried pair its number `pair`, the number of pairs after it,
    `distance`, and whether it `overwrites` an earlier pair.
    """

    num_pairs: int = 8
    num_keys: int = 64
    num_values: int = 64
    queries: int = 1
    """Questions in a document, about different pairs. With one its answer is written behind it."""
    distance: int | None = None
    """Pairs between the queried pair and the divider; None for any."""
    repeats: int = 0
    """Pairs whose key comes again later with another value, which is the one that counts."""
    query: str = "key"
    """What is given: with "value" the question is which key stands before it."""
    held_out: float = 0.0
    """Share of the combinations of key and value that only the test split asks about; they may
    stand in any document."""

    def __post_init__(self) -> None:
        checks.count(num_pairs=self.num_pairs, num_keys=self.num_keys, num_values=self.num_values)
        checks.count(queries=self.queries)
        checks.nonnegative(repeats=self.repeats)
        checks.one_of(("key", "value"), query=self.query)
        checks.ordered(num_pairs=self.num_pairs, num_values=self.num_values)
        if 2 * self.repeats > self.num_pairs:
            raise ValueError(
                f"repeats must be at most half of num_pairs={self.num_pairs}, got {self.repeats}"
            )
        if self._counting > self.num_keys:
            raise ValueError(
                f"num_keys must be at least num_pairs - repeats = {self._counting}, "
                f"got {self.num_keys}"
            )
        if self.queries > self._counting:
            raise ValueError(
                f"queries must be at most num_pairs - repeats = {self._counting}, "
                f"got {self.queries}"
            )
        if self.distance is not None:
            checks.nonnegative(distance=self.distance)
            if self.distance >= self.num_pairs:
                raise ValueError(f"distance must be below num_pairs, got {self.distance}")
            if self.queries > 1 or self.repeats > 0:
                raise ValueError("distance must be None with several queries and with repeats")
        width = self.combinations.width
        if width and self.queries > min(width, self.num_values - width):
            raise ValueError(
                f"held_out must leave each key at least queries={self.queries} values of both "
                f"kinds, got {self.held_out}: {width} of {self.num_values}"
            )

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return FIRST_KEY + self.num_keys + self.num_values

    @property
    def combinations(self) -> HeldOut:
        """Which combinations of key and value, each counted from 0, are held out."""
        return HeldOut(num_keys=self.num_keys, num_values=self.num_values, share=self.held_out)

    @property
    def _counting(self) -> int:
        return self.num_pairs - self.repeats

    def with_pairs(self, n: int) -> AssociativeRecall:
        """The same task with so many pairs, all of them asked for."""
        return replace(self, num_pairs=n, queries=n)

    def sample(self, documents: int, *, seed: int, split: str = "train") -> Documents:
        """Documents of one length."""
        rng = generator(self, documents=documents, seed=seed, split=split)
        slots, keys = self._keys(rng, documents)
        values = self._values(rng, keys, split) + FIRST_KEY + self.num_keys
        keys += FIRST_KEY
        asked, answers = (keys, values) if self.query == "key" else (values, keys)
        asked, answers = asked[:, : self.queries], answers[:, : self.queries]
        divider = 2 * self.num_pairs + 1
        written = [asked] if self.queries > 1 else [asked, answers, np.full_like(asked, DIVIDER)]
        tokens = np.empty((documents, divider + 1), dtype=np.int64)
        tokens[:, [0, divider]] = BOS, DIVIDER
        np.put_along_axis(tokens, 2 * slots + 1, keys, axis=1)
        np.put_along_axis(tokens, 2 * slots + 2, values, axis=1)
        tokens = np.concatenate([tokens, *written], axis=1)
        targets = np.full_like(tokens, IGNORED)
        targets[:, divider + 1 : divider + 1 + self.queries] = answers
        pair = torch.from_numpy(slots[:, 0].copy())
        return Documents(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            positions=self._positions(pair, divider),
            meta={
                "num_pairs": torch.full_like(pair, self.num_pairs),
                "pair": pair,
                "distance": self.num_pairs - 1 - pair,
                "overwrites": torch.from_numpy((keys[:, 1:] == keys[:, :1]).sum(axis=1)),
            },
            vocab_size=self.vocab_size,
        )

    def like(self, name: str) -> Int[Tensor, " tokens"]:
        """The tokens that can stand at the positions of this name."""
        keys = torch.arange(self.num_keys) + FIRST_KEY
        values = torch.arange(self.num_values) + FIRST_KEY + self.num_keys
        given, answer = (keys, values) if self.query == "key" else (values, keys)
        tokens = {"bos": torch.tensor([BOS]), "divider": torch.tensor([DIVIDER])}
        tokens |= dict.fromkeys(("key", "next_key", "query"), given)
        tokens |= dict.fromkeys(("value", "next_value", "answer"), answer)
        checks.one_of(tuple(tokens), name=name)
        return tokens[name]

    def solve(self, documents: Documents) -> Int[Tensor, " documents"]:
        """The other token of the last pair with the queried one; -1 if there is none."""
        pairs = documents.tokens[:, 1 : int(documents.positions["divider"][0])]
        keys, values = pairs[:, 0::2], pairs[:, 1::2]
        given, answers = (keys, values) if self.query == "key" else (values, keys)
        query = documents.tokens.gather(1, documents.positions["query"][:, None])
        pair = rightmost(given == query)
        found = answers.gather(1, pair.clamp(min=0)[:, None]).squeeze(1)
        return torch.where(pair < 0, -1, found)

    def _keys(
        self, rng: np.random.Generator, documents: int
    ) -> tuple[Int[ndarray, "documents num_pairs"], Int[ndarray, "documents num_pairs"]]:
        """Place and key of every pair: the queried ones, the others that count, the rest."""
        n, counting = self.num_pairs, self._counting
        slots = draw_distinct(rng, documents, n, among=n)
        if self.distance is not None:
            first = n - 1 - self.distance
            slots = np.where(slots == first, slots[:, :1], slots)
            slots[:, 0] = first
        keys = draw_distinct(rng, documents, counting, among=self.num_keys)
        # Some of the pairs that count share their keys with the rest, and stand behind them.
        sharing = draw_distinct(rng, documents, self.repeats, among=counting)
        some, rest = np.take_along_axis(slots, sharing, axis=1), slots[:, counting:]
        np.put_along_axis(slots, sharing, np.maximum(some, rest), axis=1)
        slots[:, counting:] = np.minimum(some, rest)
        return slots, np.concatenate([keys, np.take_along_axis(keys, sharing, axis=1)], axis=1)

    def _values(
        self, rng: np.random.Generator, keys: Int[ndarray, "documents num_pairs"], split: str
    ) -> Int[ndarray, "documents num_pairs"]:
        documents, others = len(keys), self.num_pairs - self.queries
        start, size = self.combinations.window(keys[:, : self.queries], split)
        queried = draw_in_windows(rng, start, size, ring=self.num_values)
        places = draw_distinct(rng, documents, others, among=self.num_values - self.queries)
        for taken in np.sort(queried, axis=1).T:
            places += places >= taken[:, None]
        return self.combinations.ring[np.concatenate([queried, places], axis=1)]

    def _positions(
        self, pair: Int[Tensor, " documents"], divider: int
    ) -> dict[str, Int[Tensor, " documents"]]:
        key, value = 2 * pair + 1, 2 * pair + 2
        if self.query == "value":
            key, value = value, key
        last = pair == self.num_pairs - 1
        return {
            "bos": torch.zeros_like(pair),
            "key": key,
            "value": value,
            "next_key": (key + 2).masked_fill(last, -1),
            "next_value": (value + 2).masked_fill(last, -1),
            "divider": torch.full_like(pair, divider),
            "query": torch.full_like(pair, divider + 1),
            "answer": torch.full_like(pair, divider + 2 if self.queries == 1 else -1),
        }


def draw_distinct(
    rng: np.random.Generator, documents: int, n: int, *, among: int
) -> Int[ndarray, "{documents} {n}"]:
    """In every row `n` different numbers below `among`, all ordered choices equally likely.

    Floyd's algorithm (Bentley and Floyd 1987), which touches only the numbers drawn.
    """
    drawn = np.empty((n, documents), dtype=np.int64)
    for j, last in enumerate(range(among - n, among)):
        number = rng.integers(last + 1, size=documents)
        drawn[j] = np.where((drawn[:j] == number).any(axis=0), last, number)
    return rng.permuted(drawn.T, axis=1)


def draw_in_windows(
    rng: np.random.Generator,
    start: Int[ndarray, "documents n"],
    size: Int[ndarray, "documents n"],
    *,
    ring: int,
) -> Int[ndarray, "documents n"]:
    """In every row different places on a ring, column j among the `size` ones from `start` on.

    Each is uniform among those of its places that the columns before it left; no column has fewer
    places than there are columns.
    """
    drawn = np.empty_like(start)
    for j in range(drawn.shape[1]):
        taken = np.sort((drawn[:, :j] - start[:, j : j + 1]) % ring, axis=1)
        place = rng.integers(size[:, j] - (taken < size[:, j : j + 1]).sum(axis=1))
        # Free place number p is place p + i if i of the taken ones stand before it.
        place += (taken - np.arange(j) <= place[:, None]).sum(axis=1)
        drawn[:, j] = (start[:, j] + place) % ring
    return drawn
