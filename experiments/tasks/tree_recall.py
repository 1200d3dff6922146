"""Associative treecall: a sentence of a random grammar, then tokens whose relatives are asked for.

    BOS b a c d e f EOS d e EOS 0 0     "what is the parent of d": e, the target at the second d

As in Arora et al. 2025 (arXiv:2505.15105). How far a token is from its parent varies, so no fixed
distance gives the answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy import ndarray
from torch import Tensor

from bounds import checks
from experiments.tasks.recall import IGNORED, Documents, HeldOut, generator, rightmost
from experiments.tasks.sequences import stream
from experiments.tasks.tree_grammar import TreeGrammar, Trees

BOS, DIVIDER = 1, 2
FIRST_TERMINAL = 3
SHORTEST = 3
"""Tokens of the shortest sentence."""
_AT_ONCE = 10_000
_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Of the different sentences, that belong to each split."""


@dataclass(frozen=True, kw_only=True)
class TreeRecall:
    """Treecall on the sentences of `grammar` that have 3 to `max_length` tokens.

    Tokens: 0 pads, 1 begins a document, 2 divides and ends, then the terminals. Only the last
    occurrence of a token in the sentence is asked about, so questions are unambiguous. A question
    is drawn answer first: uniform among the possible answers (by place), then among the tokens
    that have it; further ones from what is left, with the same weights. Sentences about which
    nothing can be asked are drawn again. Short sentences are frequent: so that no document of one
    split is known from another, each sentence belongs to one of them.

    `key` names the place of the queried token in the sentence, `value` that of its answer. `meta`:
    `parent`, the position of each token's parent or -1; `length`, the tokens of the sentence;
    `questions`; the `distance` from `key` to `value`.
    """

    grammar: TreeGrammar = field(default_factory=TreeGrammar)
    relation: str = "parent"
    """What is asked for, the "parent" or the rightmost "sibling". That may be the token itself,
    and, like the question, is the last occurrence of its token."""
    queries: int = 1
    """Most questions in a document, about different tokens, as many as there are. With one its
    answer is written behind it, otherwise none is."""
    held_out: float = 0.0
    """Share of the combinations of token and answer that only the test split asks about."""
    max_length: int = 64

    def __post_init__(self) -> None:
        checks.one_of(("parent", "sibling"), relation=self.relation)
        checks.count(queries=self.queries)
        if self.max_length < SHORTEST:
            raise ValueError(f"max_length must be at least {SHORTEST}, got {self.max_length}")
        _ = self.combinations

    @property
    def vocab_size(self) -> int:
        """Number of tokens."""
        return FIRST_TERMINAL + self.grammar.num_terminals

    @property
    def combinations(self) -> HeldOut:
        """Which combinations of a token and its answer, counted from 0, are held out."""
        terminals = self.grammar.num_terminals
        return HeldOut(num_keys=terminals, num_values=terminals, share=self.held_out)

    def sample(self, documents: int, *, seed: int, split: str = "train") -> Documents:
        """Documents padded to one length, which is the same for all samples.

        Raises ValueError if hardly any sentence of the grammar will do.
        """
        rng = generator(self, documents=documents, seed=seed, split=split)
        found, drawn, parts = 0, 0, []
        while found < documents:
            count = min(round((documents - found) / _SHARES[split]), _AT_ONCE) + 128
            trees = self.grammar.sample(rng, count, longest=self.max_length)
            answers = self._answers(trees, split)
            some = (answers >= 0).any(axis=1) & (trees.lengths >= SHORTEST)
            some &= _of_split(trees.tokens, split)
            arrays = trees.tokens, trees.parent, trees.lengths, answers
            parts.append([array[some] for array in arrays])
            found, drawn = found + int(some.sum()), drawn + count
            if drawn > 20_000 and found < drawn / 10_000:
                raise ValueError(
                    f"max_length must leave more sentences: {found} of {drawn} have at most "
                    f"{self.max_length} tokens and a question, in {self}"
                )
        arrays = zip(*parts, strict=True)
        tokens, parent, lengths, answers = (np.concatenate(a)[:documents] for a in arrays)
        return self._documents(Trees(tokens, parent, lengths), *self._questions(rng, answers))

    def like(self, name: str) -> Int[Tensor, " tokens"]:
        """The tokens that can stand at the positions of this name."""
        terminals = torch.arange(FIRST_TERMINAL, self.vocab_size)
        tokens = {"bos": torch.tensor([BOS]), "divider": torch.tensor([DIVIDER])}
        tokens |= dict.fromkeys(("key", "value", "query", "answer"), terminals)
        checks.one_of(tuple(tokens), name=name)
        return tokens[name]

    def solve(self, documents: Documents) -> Int[Tensor, " documents"]:
        """The relative of the queried token's last occurrence; -1 if it has none."""
        tokens, parent = documents.tokens, documents.meta["parent"]
        places = torch.arange(tokens.shape[1])
        sentence = (places > 0) & (places <= documents.meta["length"][:, None])
        query = tokens.gather(1, documents.positions["query"][:, None])
        key = rightmost((tokens == query) & sentence).clamp(min=0)[:, None]
        above = parent.gather(1, key)  # -1 at position 0
        at = above if self.relation == "parent" else rightmost(parent == above)[:, None]
        return torch.where(above < 0, -1, tokens.gather(1, at.clamp(min=0))).squeeze(1)

    def _answers(self, trees: Trees, split: str) -> Int[ndarray, "trees longest"]:
        """Position of the answer about each position, -1 where none may be asked for."""
        tree, at = np.nonzero(trees.parent >= 0)
        answer = trees.parent[tree, at]
        last = _last_occurrences(trees)
        allowed = last[tree, at]
        if self.relation == "sibling":
            rightmost_child = np.full_like(trees.parent, -1)
            rightmost_child[tree, answer] = at  # of several assignments the last one stays
            answer = rightmost_child[tree, answer]
            allowed &= last[tree, answer]
        asked, right = trees.tokens[tree, at], trees.tokens[tree, answer]
        allowed &= self.combinations.allowed(asked, right, split)
        answers = np.full_like(trees.parent, -1)
        answers[tree[allowed], at[allowed]] = answer[allowed]
        return answers

    def _questions(
        self, rng: np.random.Generator, answers: Int[ndarray, "documents longest"]
    ) -> tuple[Int[ndarray, "documents queries"], Int[ndarray, "documents queries"]]:
        """Positions of the queried tokens and of their answers, -1 where there are no more."""
        document, at = np.nonzero(answers >= 0)
        families = document * answers.shape[1] + answers[document, at]
        # The smallest of exponential times over the weights 1 / (size of the family).
        times = np.full(answers.shape, np.inf)
        times[document, at] = rng.exponential(size=len(at)) * np.bincount(families)[families]
        queried = np.argsort(times, axis=1)[:, : self.queries]
        answers = np.take_along_axis(answers, queried, axis=1)
        return np.where(answers < 0, -1, queried), answers

    def _documents(
        self,
        trees: Trees,
        queried: Int[ndarray, "documents queries"],
        answers: Int[ndarray, "documents queries"],
    ) -> Documents:
        sentences = np.where(trees.tokens < 0, 0, trees.tokens + FIRST_TERMINAL)
        n, longest = sentences.shape
        document, number = np.nonzero(queried >= 0)
        questions, right = (
            np.take_along_axis(sentences, np.maximum(at, 0), axis=1)[document, number]
            for at in (queried, answers)
        )
        written = 3 if self.queries == 1 else queried.shape[1]
        tokens = np.zeros((n, 1 + longest + 1 + written), dtype=np.int64)
        parent, targets = np.full_like(tokens, -1), np.full_like(tokens, IGNORED)
        rows, divider = np.arange(n), trees.lengths + 1
        tokens[:, 0] = BOS
        tokens[:, 1 : longest + 1] = sentences
        tokens[rows, divider] = DIVIDER
        asked = document, (divider + 1)[document] + number
        tokens[asked], targets[asked] = questions, right
        if self.queries == 1:
            tokens[rows, divider + 2], tokens[rows, divider + 3] = right, DIVIDER
        parent[:, 1 : longest + 1] = np.where(trees.parent < 0, -1, trees.parent + 1)
        key, value = queried[:, 0] + 1, answers[:, 0] + 1
        positions = {
            "bos": np.zeros_like(key),
            "key": key,
            "value": value,
            "divider": divider,
            "query": divider + 1,
            "answer": divider + 2 if self.queries == 1 else np.full_like(key, -1),
        }
        meta = {
            "parent": parent,
            "length": trees.lengths,
            "questions": (queried >= 0).sum(axis=1),
            "distance": abs(value - key),
        }
        return Documents(
            tokens=torch.from_numpy(tokens),
            targets=torch.from_numpy(targets),
            positions={name: torch.from_numpy(at) for name, at in positions.items()},
            meta={name: torch.from_numpy(values) for name, values in meta.items()},
            vocab_size=self.vocab_size,
        )


def _of_split(tokens: Int[ndarray, "trees longest"], split: str) -> Bool[ndarray, " trees"]:
    """Whether these sentences, padded with -1, belong to the split; their hash decides."""
    factors = stream("sentences of a split").integers(2**63, size=tokens.shape[1], dtype=np.uint64)
    mixed = ((tokens + 1).astype(np.uint64) * factors).sum(axis=1) >> np.uint64(40)
    part = mixed % np.uint64(10)  # 0 is the test, 1 the validation
    return part > 1 if split == "train" else part == (split == "validation")


def _last_occurrences(trees: Trees) -> Bool[ndarray, "trees longest"]:
    """Where the last occurrence of a token in its tree is."""
    order = np.argsort(trees.tokens, axis=1, kind="stable")
    tokens = np.take_along_axis(trees.tokens, order, axis=1)
    ends = np.ones_like(tokens, dtype=bool)
    ends[:, :-1] = tokens[:, 1:] != tokens[:, :-1]
    last = np.empty_like(ends)
    np.put_along_axis(last, order, ends, axis=1)
    return last & (trees.tokens >= 0)
