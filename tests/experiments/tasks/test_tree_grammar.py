"""Random grammars: their rules, and the law of their trees against node-by-node expansion."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from experiments.tasks.tree_grammar import TreeGrammar

GRAMMARS = st.builds(
    TreeGrammar,
    seed=st.integers(0, 99),
    num_terminals=st.integers(1, 30),
    num_nonterminals=st.integers(1, 15),
    max_depth=st.integers(1, 6),
    max_rhs=st.integers(2, 6),
    max_rules=st.integers(1, 4),
    terminal_weight=st.sampled_from((None, 0.5, 5.0)),
    head=st.sampled_from(("right", "left")),
)


def expanded(grammar, rng, X):
    """A phrase as (head, children in order): one node after the other, as the law is stated."""
    rules, S = grammar.rules, grammar.num_terminals
    of_rule = np.diff(rules.of_rule, prepend=0.0)
    mine = np.flatnonzero((rules.of_rule > X) & (rules.of_rule <= X + 1))
    rule = rng.choice(mine, p=of_rule[mine])
    head = rng.choice(S, p=np.diff(rules.of_head[X], prepend=X))
    body = [int(symbol) for symbol in rules.bodies[rule] if symbol >= 0]
    return int(head), [s if s < S else expanded(grammar, rng, s - S) for s in body]


def written(phrase, side):
    """Its tokens, and the index of each token's parent, -1 for its head."""
    head, children = phrase
    tokens, parents, roots = [], [], []
    for child in children:
        below, above = ([child], [-1]) if isinstance(child, int) else written(child, side)
        roots.append(len(tokens) + above.index(-1))
        parents += [p + len(tokens) if p >= 0 else -1 for p in above]
        tokens += below
    if side == "left":
        tokens, parents = [head, *tokens], [-1, *(p + 1 if p >= 0 else -1 for p in parents)]
        at, roots = 0, [root + 1 for root in roots]
    else:
        tokens, parents, at = [*tokens, head], [*parents, -1], len(tokens)
    for root in roots:
        parents[root] = at
    return tokens, parents


def rows(trees):
    """Tokens and parents of every tree, without padding."""
    parts = zip(trees.tokens.tolist(), trees.parent.tolist(), trees.lengths, strict=True)
    return [(tokens[:length], parent[:length]) for tokens, parent, length in parts]


def test_a_tree_by_hand():
    """The example of the module."""
    phrase = (5, [(0, [1]), 2, (4, [3])])
    assert written(phrase, "right") == ([1, 0, 2, 3, 4, 5], [1, 5, 5, 4, 5, -1])
    assert written(phrase, "left") == ([5, 0, 1, 2, 4, 3], [-1, 0, 1, 0, 0, 4])


@given(GRAMMARS)
def test_rules_are_as_stated(grammar):
    rules, S, N = grammar.rules, grammar.num_terminals, grammar.num_nonterminals
    sizes = (rules.bodies >= 0).sum(axis=1)
    assert sizes.min() >= 1
    assert rules.bodies.shape[1] == grammar.max_rhs - 1
    assert (np.sort(rules.bodies >= 0, axis=1)[:, ::-1] == (rules.bodies >= 0)).all()
    assert rules.bodies.max() < S + N
    owner = np.searchsorted(np.arange(1, N + 1), rules.of_rule)
    counts = np.bincount(owner, minlength=N)
    assert counts.min() >= 1
    assert counts.max() <= grammar.max_rules
    # Nothing is below itself, and nothing is deeper than there are ranks.
    uses = np.zeros((N, N))
    rule, slot = np.nonzero(rules.bodies >= S)
    uses[owner[rule], rules.bodies[rule, slot] - S] = 1
    assert not np.linalg.matrix_power(uses, grammar.max_depth).any()
    assert np.allclose(rules.of_head[:, -1], np.arange(1, N + 1))
    assert (np.diff(rules.of_head, axis=1) >= 0).all()


def test_laws_of_the_rules():
    many = TreeGrammar(num_nonterminals=2000, max_depth=1)
    sizes = (many.rules.bodies >= 0).sum(axis=1)
    assert chisquare(np.bincount(sizes)[1:]).pvalue > 0.01
    assert chisquare(np.bincount(many.rules.bodies[many.rules.bodies >= 0])).pvalue > 0.01
    rules = np.bincount(np.ceil(many.rules.of_rule).astype(int))[1:]
    assert chisquare(np.bincount(rules)[1:]).pvalue > 0.01


@settings(max_examples=50)
@given(GRAMMARS, st.integers(0, 99), st.integers(2, 30))
def test_trees_are_projective_with_heads_on_their_side(grammar, seed, longest):
    trees = grammar.sample(np.random.default_rng(seed), 10, longest=longest)
    assert trees.tokens.shape == trees.parent.shape == (len(trees.lengths), longest)
    beyond = np.arange(longest) >= trees.lengths[:, None]
    assert np.array_equal(trees.tokens < 0, beyond)
    assert trees.tokens.max(initial=0) < grammar.num_terminals
    for tokens, parent in rows(trees):
        assert 2 <= len(tokens) <= longest
        assert [i for i, p in enumerate(parent) if p == -1] == [
            len(tokens) - 1 if grammar.head == "right" else 0
        ]
        for i, p in enumerate(parent):
            assert p < len(tokens)
            assert p == -1 or (p > i if grammar.head == "right" else p < i)
            # Between a token and its parent are only tokens below that parent.
            for between in range(min(i, p) + 1, max(i, p)) if p >= 0 else ():
                above = between
                while above not in (-1, p):
                    above = parent[above]
                assert above == p


def test_trees_follow_the_law_of_node_by_node_expansion():
    """Among short trees of a small grammar, with those that are too long left out."""
    grammar = TreeGrammar(num_terminals=2, num_nonterminals=6, max_depth=4, max_rhs=4, max_rules=4)
    rng = np.random.default_rng(1)
    for side in ("right", "left"):
        of_side = replace(grammar, head=side)
        fast = rows(of_side.sample(rng, 3000, longest=6))
        starts = rng.integers(grammar.num_nonterminals, size=3000)
        slow = [written(expanded(of_side, rng, X), side) for X in starts]
        slow = [row for row in slow if len(row[0]) <= 6]
        assert abs(len(fast) - len(slow)) < 4 * (2 * 3000 / 4) ** 0.5
        first, second = (Counter(str(row) for row in sample) for sample in (fast, slow))
        names = [name for name in first | second if first[name] + second[name] >= 20]
        assert len(names) > 12
        table = [[counts[name] for name in names] for counts in (first, second)]
        assert chi2_contingency(table).pvalue > 0.01


def test_too_long_trees_are_left_out_and_nothing_else():
    """Leaving them early must not change which trees there are."""
    grammar = TreeGrammar(seed=1)
    short = grammar.sample(np.random.default_rng(0), 6000, longest=12).lengths
    every = grammar.sample(np.random.default_rng(1), 6000, longest=1024).lengths
    assert len(every) == 6000
    table = [np.bincount(sample[sample <= 12], minlength=13)[2:] for sample in (short, every)]
    assert chi2_contingency(table).pvalue > 0.01
    assert len(short) / 6000 == pytest.approx((every <= 12).mean(), abs=0.04)


def test_sides_and_terminals_do_not_change_the_shapes():
    few = TreeGrammar(terminal_weight=20.0)
    many = replace(few, num_terminals=500)
    assert np.array_equal(few.rules.of_rule, many.rules.of_rule)
    inner = [(g.rules.bodies - g.num_terminals).clip(-1) for g in (few, many)]
    assert np.array_equal(*inner)
    assert not np.array_equal(inner[0], (TreeGrammar(seed=1).rules.bodies - 20).clip(-1))
    right, left = (
        replace(few, head=side).sample(np.random.default_rng(0), 50, longest=64)
        for side in ("right", "left")
    )
    assert np.array_equal(right.lengths, left.lengths)
    for (tokens, parent), (mirrored, above) in zip(rows(right), rows(left), strict=True):
        edges = [
            Counter((t, row[p]) for t, p in zip(row, places, strict=True) if p >= 0)
            for row, places in ((tokens, parent), (mirrored, above))
        ]
        assert edges[0] == edges[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be"),
        ({"num_terminals": 0}, "num_terminals must be a whole number"),
        ({"num_nonterminals": 0}, "num_nonterminals must be a whole number"),
        ({"max_depth": 0}, "max_depth must be a whole number"),
        ({"max_rhs": 1}, "max_rhs must be at least 2"),
        ({"max_rules": 0}, "max_rules must be a whole number"),
        ({"terminal_weight": 0.0}, "terminal_weight must be"),
        ({"head": "top"}, "head must be one of 'right', 'left', got 'top'"),
    ],
)
def test_bad_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        TreeGrammar(**change)
