"""Documents and copies of them in which one thing is changed: `corrupt`.

clean        BOS k3 v7 k1 v2 EOS k1        asks for v2
key          BOS k3 v7 k5 v2 EOS k1        value        BOS k3 v7 k1 v9 EOS k1
query        BOS k3 v7 k1 v2 EOS k3        distractor   BOS k5 v7 k1 v2 EOS k1
swap-keys    BOS k1 v7 k3 v2 EOS k1        swap-values  BOS k3 v2 k1 v7 EOS k1
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.recall import Documents, RecallTask
from experiments.tasks.sequences import stream

CORRUPTIONS = ("key", "value", "query", "swap-keys", "swap-values", "distractor")
CHANGED = "changed"
"""Names the positions at which the two documents of a pair differ."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Clean documents, and the same ones corrupted; the right answers are those of the clean.

    Raises ValueError where they differ in anything but the tokens.
    """

    clean: Documents
    corrupted: Documents
    kind: str
    """One of `CORRUPTIONS`."""
    derivable: float
    """Share of the corrupted documents that still give the right answer."""

    def __post_init__(self) -> None:
        checks.one_of(CORRUPTIONS, kind=self.kind)
        checks.fraction(derivable=self.derivable)
        clean, corrupted = self.clean, self.corrupted
        if (
            clean.tokens.shape != corrupted.tokens.shape
            or not clean.targets.equal(corrupted.targets)
            or clean.positions.keys() != corrupted.positions.keys()
            or any(not at.equal(corrupted.positions[name]) for name, at in clean.positions.items())
        ):
            raise ValueError("corrupted must be the clean documents in all but their tokens")

    def __len__(self) -> int:
        return len(self.clean)

    def where(self, name: str) -> Bool[Tensor, "documents length"]:
        """The tokens of this name, or those that are "changed"; ValueError if there are none."""
        tokens = self.clean.tokens
        if name == CHANGED:
            return tokens != self.corrupted.tokens
        positions = self.clean.positions
        checks.one_of((CHANGED, *positions), position=name)
        there, mask = positions[name] >= 0, torch.zeros_like(tokens, dtype=torch.bool)
        mask[there, positions[name][there]] = True
        return mask


def corrupt(documents: Documents, kind: str, task: RecallTask, *, seed: int) -> Pair:
    """Change each document once, in the way of this kind.

    "key", "value" and "distractor" (the key of a pair that is not asked for: a control) put in a
    token of the same class that the document does not have; "query" asks for another key of the
    document; the swaps exchange the key, or the value, with that of another pair. Where tokens do
    not tell keys from values, other pairs cannot be found, and the last four raise ValueError; so
    does every document that has nothing to change or no other token to put in.
    """
    checks.one_of(CORRUPTIONS, kind=kind)
    rng = stream("corruption", kind, seed)
    other_rng = stream("corruption", kind, seed, "other pair")
    tokens = documents.tokens.numpy().copy()
    if kind in ("key", "value"):
        at = _positions(documents, kind)
        _put(tokens, at, _fresh(rng, tokens, task.like(kind).numpy()))
    else:
        role = "value" if kind == "swap-values" else "key"
        own, other = _positions(documents, role), _other(other_rng, documents, role, task)
        if kind == "distractor":
            _put(tokens, other, _fresh(rng, tokens, task.like(role).numpy()))
        elif kind == "query":
            _put(tokens, _positions(documents, "query"), _take(tokens, other))
        else:
            mine, theirs = _take(tokens, own), _take(tokens, other)
            _put(tokens, own, theirs)
            _put(tokens, other, mine)
    corrupted = replace(documents, tokens=torch.from_numpy(tokens))
    derivable = (task.solve(corrupted) == documents.answer).double().mean().item()
    return Pair(clean=documents, corrupted=corrupted, kind=kind, derivable=derivable)


def _positions(documents: Documents, name: str) -> Int[ndarray, " documents"]:
    checks.one_of(tuple(documents.positions), position=name)
    at = documents.positions[name].numpy()
    if (at < 0).any():
        raise ValueError(f"document {int(np.argmax(at < 0))} has no {name} to change")
    return at


def _take(tokens: Int[ndarray, "documents length"], at: Int[ndarray, " documents"]) -> ndarray:
    return np.take_along_axis(tokens, at[:, None], axis=1)[:, 0]


def _put(tokens: Int[ndarray, "documents length"], at: ndarray, new: ndarray) -> None:
    np.put_along_axis(tokens, at[:, None], new[:, None], axis=1)


def _fresh(
    rng: np.random.Generator, tokens: Int[ndarray, "documents length"], allowed: ndarray
) -> Int[ndarray, " documents"]:
    """For each document one of the allowed tokens that it does not have anywhere."""
    drawn = []
    for i, row in enumerate(tokens):
        unused = np.setdiff1d(allowed, row)
        if not len(unused):
            raise ValueError(f"document {i} has every token of the class: none is left to put in")
        drawn.append(rng.choice(unused))
    return np.array(drawn)


def _other(
    rng: np.random.Generator, documents: Documents, role: str, task: RecallTask
) -> Int[ndarray, " documents"]:
    """For each document the position of the key, or value, of a pair that is not asked for."""
    keys, values = (task.like(name).numpy() for name in ("key", "value"))
    if np.intersect1d(keys, values).size:
        raise ValueError(f"tokens of this task do not tell keys from values: no other {role}")
    tokens, end = documents.tokens.numpy(), _positions(documents, "query")
    candidates = np.isin(tokens, keys if role == "key" else values)
    candidates &= np.arange(tokens.shape[1]) < end[:, None]
    candidates &= tokens != _take(tokens, _positions(documents, role))[:, None]
    drawn = []
    for i, row in enumerate(candidates):
        if not row.any():
            raise ValueError(f"document {i} has no other {role}")
        drawn.append(rng.choice(np.flatnonzero(row)))
    return np.array(drawn)
