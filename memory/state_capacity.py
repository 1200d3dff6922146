r"""How many facts a recurrent state holds: predictions for random keys, and what chosen ones allow.

A state of $n \times p$ numbers is written in one pass with keys in $R^n$ and answers in $R^p$, and
answers with the best of M outputs. Random: keys and outputs are independent and uniform on the unit
spheres. Derivations: docs/proofs.md, M5 (the cross-talk) and the docstrings here.
"""

from __future__ import annotations

from collections.abc import Callable

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from memory.crosstalk import Crosstalk
from memory.retrieval import retrieval_error


def additive_error(
    *, N: int, M: int, key_dimension: int, value_dimension: int, heads: int = 1
) -> float:
    r"""Error of $S = \sum_i v_i k_i^\top$ over N random facts: linear attention, a gate that holds.

    `memory.retrieval.retrieval_error` for N different ones of M outputs, $\lambda = (N-1)/n$ and
    $\kappa^2 = 1/(n H)$: each of H heads holds its part of the answers, p/H numbers, under keys of
    its own in $R^n$. The size of the state, n p, does not depend on H, but the overlaps of keys
    average. Within 15 % of drawn states with one head from n = 4 on, 25 % too large at n = 2;
    within a third with more. For the delta rule no formula is good at such sizes:
    `memory.crosstalk.delta_rule`, of first order in 1/n, predicts less than half of the
    errors at n = 8.
    """
    checks.count(N=N, M=M, key_dimension=key_dimension, heads=heads)
    talk = Crosstalk((N - 1) / key_dimension, 1 / (key_dimension * heads))
    return retrieval_error(talk, N=N, M=M, d=value_dimension)


def additive_squared_error(*, N: int, key_dimension: int) -> float:
    r"""Mean square of what is wrong with a vector read from $S = \sum_i v_i k_i^\top$, over that of
    a value, with the best factor: $(N - 1)/(N - 1 + n)$.

    Unit keys and values are independent and uniform. S k_q is v_q and N - 1 values times overlaps
    of variance 1/n; for the cross-talk $t = (N-1)/n$ the factor $1/(1 + t)$ leaves $t/(1 + t)$.
    Without it the error is t, that of linear attention. Source: seqtheory, recurrent states.
    """
    checks.count(N=N, key_dimension=key_dimension)
    return (N - 1) / (N - 1 + key_dimension)


def crossing(accuracy_of: Callable[[int], float], *, limit: int, accuracy: float) -> float:
    """Number of facts at which the accuracy falls below `accuracy`, between whole numbers.

    On the straight lines through (0, 1) and the accuracies at 1, 2, ..., `limit`; `limit` where
    even that many are held. What a measured capacity is compared with, read off in the same way.
    """
    checks.count(limit=limit)
    checks.probability(accuracy=accuracy)
    before = 1.0
    for N in range(1, limit + 1):
        after = accuracy_of(N)
        if after < accuracy:
            return N - 1 + (before - accuracy) / (before - after)
        before = after
    return float(limit)


def chosen_state_facts(*, K: int, M: int, key_dimension: int, value_dimension: int) -> Bound:
    r"""Facts that an additive state holds with embeddings chosen for K keys and M outputs.

    All of them, min(K, M) with different answers, in either of two cases. $p \ge M - 1$ and
    $n \ge 2$: outputs at the vertices of a regular simplex and different unit keys, for
    $(u_y - u_x) \cdot S k_x$ is then $(1 + 1/(M-1))(k_y \cdot k_x - 1) < 0$, also for y without a
    key, whose $k_y$ is 0. $n \ge K$ (and $p \ge 2$): orthonormal keys recall their outputs exactly.
    Otherwise 1, which a state of any size holds. A guarantee: random embeddings say nothing
    about what training can reach. Source: seqtheory, recurrent states.
    """
    checks.count(K=K, M=M, key_dimension=key_dimension, value_dimension=value_dimension)
    for name, value in (("M", M), ("value_dimension", value_dimension)):
        if value < 2:
            raise ValueError(f"{name} must be at least 2, got {value}")
    n, p = key_dimension, value_dimension
    derive = Derivation(dict(K=K, M=M, n=n, p=p))
    simplex = derive(
        "simplex", int(p >= M - 1 and n >= 2),
        "Piecewise((Piecewise((1, n >= 2), (0, True)), p >= M - 1), (0, True))",
        "the outputs can be a simplex, and keys differ",
    )  # fmt: skip
    orthonormal = derive(
        "orthonormal", int(n >= K), "Piecewise((1, n >= K), (0, True))",
        "the keys can be orthonormal",
    )  # fmt: skip
    derive(
        "facts", min(K, M) if simplex + orthonormal else 1,
        "Piecewise((Min(K, M), simplex + orthonormal > 0), (1, True))",
        "number of facts with different answers",
    )  # fmt: skip
    return derive.bound(
        "embeddings exist with which an additive state holds every choice of so many facts",
        Source("seqtheory", "recurrent states"),
        "different answers to different keys; exact arithmetic",
    )
