"""Batches of the recall studies by the step: many questions, documents of all sizes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Int
from torch import Tensor

from experiments.batches import Batch
from experiments.tasks.associative_recall import AssociativeRecall
from experiments.tasks.multi_query_recall import MultiQueryRecall
from experiments.tasks.recall import Documents
from experiments.tasks.tree_recall import TreeRecall

_POOL = 200
"""Batches that are sorted by length together."""


def questions(
    documents: Documents, count: int
) -> tuple[
    Int[Tensor, "documents length"],
    Int[Tensor, "documents count"],
    Int[Tensor, "documents count"],
]:
    """Tokens, positions of up to `count` questions, and their answers (`IGNORED` where fewer)."""
    at = documents.asked.long().argsort(dim=1, descending=True, stable=True)[:, :count]
    return documents.tokens, at, documents.targets.gather(1, at)


@dataclass(frozen=True, kw_only=True)
class ShortAndLong:
    """Batches of documents with 1 to `num_pairs` pairs, all of them asked for, by the step."""

    task: AssociativeRecall | MultiQueryRecall
    batch_size: int
    seed: int

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng((self.seed, step))
        n = int(rng.integers(1, self.task.num_pairs + 1))
        seed = int(rng.integers(2**62))
        return questions(self.task.with_pairs(n).sample(self.batch_size, seed=seed), n)


@dataclass(frozen=True, kw_only=True)
class AlikeInLength:
    """Batches of new documents of nearly equal lengths, which need little padding, by the step."""

    task: TreeRecall
    questions: int
    """About each document, at most."""
    batch_size: int
    seed: int

    def __call__(self, step: int) -> Batch:
        pool, number = divmod(step, _POOL)
        task = replace(self.task, queries=self.questions)
        documents, batches = _sorted(task, self.batch_size, self.seed, pool)
        batch = documents[batches[number]]
        used = int((batch.meta["length"] + 2 + batch.meta["questions"]).max())
        tokens, at, answers = questions(batch, self.questions)
        return tokens[:, :used], at.clamp(max=used - 1), answers


@lru_cache(1)
def _sorted(
    task: TreeRecall, batch_size: int, seed: int, pool: int
) -> tuple[Documents, Int[Tensor, "batches batch_size"]]:
    """The documents of a pool, and those of each batch; the batches are in random order."""
    rng = np.random.default_rng((seed, pool))
    documents = task.sample(_POOL * batch_size, seed=int(rng.integers(2**62)))
    by_length = documents.meta["length"].argsort(stable=True).unflatten(0, (_POOL, batch_size))
    return documents, by_length[rng.permutation(_POOL)]
