"""Random grammars whose sentences are trees of tokens: every phrase has a head.

    rules     X -> Y c Y x    Y -> b y    Y -> d y       x, y: heads, drawn at every use
    sentence  b a c d e f     parents (positions)  1 5 5 4 5 -

The sentence is a phrase X with the head f; its children are the heads a and e of the two phrases Y,
and c. With the heads in front it is `f a b c e d`.

As in Arora et al. 2025 (arXiv:2505.15105), section on associative treecall.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from bounds import checks
from experiments.tasks.sequences import stream


@dataclass(frozen=True)
class Trees:
    """Tree i has the tokens `tokens[i, :lengths[i]]`; the rest of the row is -1."""

    tokens: Int[ndarray, "trees longest"]
    parent: Int[ndarray, "trees longest"]
    """Position of the parent; -1 for the root."""
    lengths: Int[ndarray, " trees"]


@dataclass(frozen=True)
class Rules:
    """The rules of a grammar. Symbols below `num_terminals` are terminals."""

    bodies: Int[ndarray, "rules slots"]
    """Symbols of the right-hand sides without their heads; -1 beyond their ends."""
    of_rule: Float[ndarray, " rules"]
    """X + P(this or an earlier rule of X), increasing; the rules of a nonterminal are adjacent."""
    of_head: Float[ndarray, "nonterminals terminals"]
    """X + P(this or a smaller terminal is the head of X)."""


@dataclass(frozen=True, kw_only=True)
class TreeGrammar:
    """A context-free grammar without recursion, drawn from `seed`.

    Every nonterminal has a rank, uniform in 1..`max_depth`, uniformly 1 to `max_rules` rules with
    probabilities from a flat Dirichlet law, and a distribution of heads from another. A rule has
    uniformly 1 to `max_rhs` - 1 symbols and a head, drawn anew whenever it is used. Symbols are
    nonterminals of larger rank with weight 1 each, and a terminal, uniform, with the weight
    `terminal_weight`. With equal seeds and weights the shapes do not depend on `num_terminals`.
    """

    seed: int = 0
    num_terminals: int = 20
    num_nonterminals: int = 40
    max_depth: int = 10
    max_rhs: int = 5
    """Symbols of a right-hand side, its head among them: 2 to `max_rhs`."""
    max_rules: int = 5
    terminal_weight: float | None = None
    """None: `num_terminals`, as if every terminal were a candidate of its own."""
    head: str = "right"
    """The side of the phrase on which its head stands, "right" or "left"."""

    def __post_init__(self) -> None:
        checks.nonnegative(seed=self.seed)
        checks.count(num_terminals=self.num_terminals, num_nonterminals=self.num_nonterminals)
        checks.count(max_depth=self.max_depth, max_rules=self.max_rules)
        if self.max_rhs < 2:
            raise ValueError(f"max_rhs must be at least 2, a symbol and a head, got {self.max_rhs}")
        if self.terminal_weight is not None:
            checks.positive(terminal_weight=self.terminal_weight)
        checks.one_of(("right", "left"), head=self.head)

    @cached_property
    def rules(self) -> Rules:
        """Everything that was drawn."""
        N, S = self.num_nonterminals, self.num_terminals
        # Terminals and heads have a stream of their own, so that there are equal shapes.
        shapes = stream("tree grammar", "shapes", self.seed)
        tokens = stream("tree grammar", "tokens", self.seed)
        rank = shapes.integers(1, self.max_depth + 1, size=N)
        weight = S if self.terminal_weight is None else self.terminal_weight
        bodies, of_rule = [], []
        for X in range(N):
            above = np.flatnonzero(rank > rank[X])
            chances = shapes.dirichlet(np.ones(shapes.integers(1, self.max_rules + 1)))
            of_rule.append(X + _cumulative(chances))
            for _ in chances:
                size = shapes.integers(1, self.max_rhs)
                chosen = shapes.random(size) * (len(above) + weight)
                body = np.full(self.max_rhs - 1, -1)
                terminals = tokens.integers(S, size=size)
                inner = chosen < len(above)
                body[:size] = terminals
                body[:size][inner] = S + above[chosen[inner].astype(int)]
                bodies.append(body)
        heads = _cumulative(tokens.dirichlet(np.ones(S), size=N))
        return Rules(np.stack(bodies), np.concatenate(of_rule), heads + np.arange(N)[:, None])

    def sample(self, rng: np.random.Generator, trees: int, *, longest: int) -> Trees:
        """So many trees, without those of more than `longest` tokens. The start is uniform."""
        levels, lengths = self._expand(rng, trees, longest)
        fits = lengths <= longest
        sizes = [np.empty(0, dtype=np.int64)]
        for level in reversed(levels):
            children = np.ones_like(level.node)
            children[level.inner] = sizes[-1]
            sizes.append(1 + np.bincount(level.node, children, len(level.tree)).astype(np.int64))
        tokens = np.full((trees, longest), -1)
        parent = np.full((trees, longest), -1)
        right = self.head == "right"
        start, above = np.zeros(trees, dtype=np.int64), np.full(trees, -1)
        for level, size, below in zip(levels, sizes[:0:-1], sizes[-2::-1], strict=True):
            at = start + (size - 1) * right
            keep = fits[level.tree]
            tokens[level.tree[keep], at[keep]] = level.head[keep]
            parent[level.tree[keep], at[keep]] = above[keep]
            children = np.ones_like(level.node)
            children[level.inner] = below
            before = np.cumsum(children) - children
            first = np.searchsorted(level.node, np.arange(len(level.tree)))
            start = (start + (not right) - before[first])[level.node] + before
            above = at[level.node]
            keep = fits[level.tree[level.node]] & ~level.inner
            where = level.tree[level.node[keep]], start[keep]
            tokens[where], parent[where] = level.symbol[keep], above[keep]
            start, above = start[level.inner], above[level.inner]
        return Trees(tokens[fits], parent[fits], lengths[fits])

    def _expand(
        self, rng: np.random.Generator, trees: int, longest: int
    ) -> tuple[list[_Level], Int[ndarray, " {trees}"]]:
        """All trees level by level, and their lengths, or more than `longest` if they are longer.

        Those are left as soon as it is certain: a nonterminal has two tokens at least.
        """
        rules, S = self.rules, self.num_terminals
        flat_heads = rules.of_head.ravel()
        tree, nonterminal = np.arange(trees), rng.integers(self.num_nonterminals, size=trees)
        lengths, levels = np.full(trees, 2), []
        while len(tree):
            rule = np.searchsorted(rules.of_rule, nonterminal + rng.random(len(tree)), "right")
            head = np.searchsorted(flat_heads, nonterminal + rng.random(len(tree)), "right")
            body = rules.bodies[rule]
            node, slot = np.nonzero(body >= 0)
            symbol = body[node, slot]
            gained = np.bincount(node, 1 + (symbol >= S), len(tree)).astype(np.int64) - 1
            lengths += np.bincount(tree, gained, trees).astype(np.int64)
            inner = (symbol >= S) & (lengths <= longest)[tree[node]]
            levels.append(_Level(tree, head - S * nonterminal, node, symbol, inner))
            tree, nonterminal = tree[node[inner]], symbol[inner] - S
        return levels, lengths


@dataclass(frozen=True)
class _Level:
    """The phrases of one depth, and their children in order."""

    tree: Int[ndarray, " phrases"]
    head: Int[ndarray, " phrases"]
    node: Int[ndarray, " children"]
    """The phrase that has the child."""
    symbol: Int[ndarray, " children"]
    inner: Bool[ndarray, " children"]
    """Which children are the phrases of the next depth."""


def _cumulative(chances: Float[ndarray, "*laws n"]) -> Float[ndarray, "*laws n"]:
    total = np.cumsum(chances, axis=-1)
    total[..., -1] = 1.0
    return total
