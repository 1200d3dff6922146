r"""How often the constructions of `memory.factual_constructions` fail, and the sizes they need.

Embeddings of answers are independent and uniform on the unit sphere of dimension d; attention is
exact (its leak is a condition of the construction). Derivations: docs/proofs.md, M3 and M5.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from memory.bisection import largest
from memory.crosstalk import least_squares
from memory.quadrature import coordinate_tail, coordinate_tail_rule, gamma_rule
from memory.retrieval import retrieval_error

_WEIGHT_NODES, _COORDINATE_NODES = 5, 24
"""Of the quadrature over weights and coordinates of a given kernel; good to 1e-3."""

Units = Literal["relu", "quadratic"]

_ASSUMPTIONS = (
    "embeddings of the answers independent and uniform on the unit sphere of dimension d",
    "attention is exact",
)


def attention_only_error(*, R: int, D: int, d: int, refine: int = 1) -> float:
    r"""Share of the facts that `attention_only` gets wrong, in the mean over embeddings.

    The output is $2 u_{a^*} + \sum_{R+D-2} u_a$. With cross-talk of squared length
    $r^2 = n G$ in a uniform direction, coordinate $t_0$ along $u_{a^*}$, and $t$ a coordinate of a
    uniform unit vector, one of the R + D - 2 other answers of the subject or of the relation
    ($n = R + D - 3$ without itself) wins if $|\text{rest} + u_{a^*}|\,t > 1 + r t_0$, one of the
    others ($n = R + D - 2$) if $|\text{rest} + 2 u_{a^*}|\,t > 2 + r t_0$. G is Gamma of mean 1
    with the variance $2 (1 - 1/n)/d$ of $r^2/n$. Source: seqtheory, M5.
    """
    checks.count(R=R, D=D, d=d, refine=refine)
    _check_answers(R, D)
    if d < 3:
        raise ValueError(f"d must be at least 3, got {d}")
    near, far = R + D - 2, R * D - D - R + 1
    t0, t0_weights = coordinate_tail_rule(d, 80 * refine)
    variance = 2 / d * (1 - 1 / near) if near > 1 else 0.0
    if variance > 0:
        length, length_weights = gamma_rule(1 / variance, 8 * refine)
    else:
        length, length_weights = np.ones(1), np.ones(1)
    tail = coordinate_tail(d)
    log_correct = np.zeros((len(length), len(t0)))
    for competitors, n, signal in ((near, near - 1, 1), (far, near, 2)):
        if competitors:
            r = np.sqrt(n * length)[:, None]
            whole = np.sqrt(signal**2 + 2 * signal * r * t0 + r * r)
            wins = tail((signal + r * t0) / np.maximum(whole, 1e-300))
            log_correct += competitors * np.log1p(-np.minimum(wins, 1 - 1e-16))
    return float(np.einsum("g,t,gt->", length_weights, t0_weights, -np.expm1(log_correct)))


def attention_only_failure(*, S: int, R: int, D: int, d: int) -> Bound:
    r"""Probability that `attention_only` gets any of its S R facts wrong, at most.

    The union over all facts and competitors of `memory.capacity.kernel_pair_failure`: gap 1 and
    energy R + D - 3 for the R + D - 2 other answers of the subject or relation, gap 2 and energy
    R + D - 2 for the rest. Source: seqtheory, theorem M3.
    """
    checks.count(S=S, R=R, D=D, d=d)
    _check_answers(R, D)
    derive = Derivation(dict(S=S, R=R, D=D, d=d))
    _add_failure(derive, S=S, R=R, D=D, d=d)
    return derive.bound(
        "some fact is answered wrongly with probability at most failure",
        Source("seqtheory", "theorem M3"),
        *_ASSUMPTIONS,
    )


def attention_only_dimension(*, S: int, R: int, D: int, delta: float) -> Bound:
    r"""Dimension from which on `attention_only` recalls all facts with probability $1 - \delta$.

    The smallest `d` with `attention_only_failure` at most `delta`, $4 (R+D) \ln(S R (R+D)/\delta)$
    to leading order; the leading order is among the terms. It is searched and recorded as chosen,
    and the last term equals it only because the audited failure is small enough.
    Source: seqtheory, theorem M3.
    """
    checks.count(S=S, R=R, D=D)
    checks.probability(delta=delta)
    _check_answers(R, D)
    ln_delta = math.log(delta)
    below = largest(
        lambda d: _log_failure(S=S, R=R, D=D, d=d) > ln_delta, low=0, limit=checks.LARGEST_COUNT
    )
    derive = Derivation(dict(S=S, R=R, D=D, delta=delta))
    derive(
        "leading", 4 * (R + D) * (math.log(S * R * (R + D)) - ln_delta),
        "4*(R + D)*log(S*R*(R + D)/delta)", "leading order of the dimension",
    )  # fmt: skip
    d = below + 1
    derive("d", d, "", "dimension, the smallest that is enough")
    ln_failure = _add_failure(derive, S=S, R=R, D=D, d=d)
    derive(
        "dimension", d if ln_failure <= ln_delta else math.inf,
        "Piecewise((d, failure <= delta), (oo, True))", "dimension that is enough",
    )  # fmt: skip
    return derive.bound(
        "from this dimension on all facts are recalled with probability 1 - delta",
        Source("seqtheory", "theorem M3"),
        *_ASSUMPTIONS,
    )


def independent_features(*, S: int, R: int, d: int, width: int, activation: Units) -> Bound:
    r"""Most independent features of the S R facts in the hidden layer of `attention_with_mlp`.

    ReLU units: all of them, up to one per fact. For some draws of few facts it is fewer: units may
    be off, or on, for all facts alike (seqtheory, measured: 17 of 60 draws with S = R = 4, none of
    20 with S = 16, R = 8). Quadratic units attain it almost surely: a pair makes one product
    $(p \cdot c_s)(q \cdot b_r)$ of codes in half the dimensions each, a matrix of S x R entries
    whose row and column space are those of the codes, so at most min(S, d//2) min(R, d - d//2).
    Facts are fitted exactly if the draw has S R of them. Source: seqtheory, factual recall.
    """
    checks.count(S=S, R=R, d=d, width=width)
    checks.one_of(get_args(Units), activation=activation)
    if d < 2:
        raise ValueError(f"d must be at least 2, one half for each code, got {d}")
    derive = Derivation(dict(S=S, R=R, d=d, width=width))
    if activation == "relu":
        features, formula = min(width, S * R), "Min(width, S*R)"
    else:
        if width % 2:
            raise ValueError(f"width must be even for quadratic units, got {width}")
        rank = min(S, d // 2) * min(R, d - d // 2)
        derive(
            "rank", rank, "Min(S, -ceiling(-d/2 + 1/2))*Min(R, ceiling(d/2))",
            "independent products of codes",
        )  # fmt: skip
        features, formula = min(width // 2, rank), "Min(width/2, rank)"
    derive("features", features, formula, "independent features")
    return derive.bound(
        "the hidden layer has at most this many independent features of the facts",
        Source("seqtheory", "factual recall"),
        "generic hidden weights and codes",
    )


def attention_with_mlp_error(
    *, S: int, R: int, D: int, d: int, width: int, activation: Units
) -> float:
    r"""Share of the facts that `attention_with_mlp` gets wrong, in the mean over random weights.

    `memory.retrieval.retrieval_error` of a least-squares readout of the independent features, for
    S R random facts about R D answers; 0 where there is a feature for every fact.
    """
    N, M = S * R, R * D
    _check_answers(R, D)
    features = int(float(independent_features(S=S, R=R, d=d, width=width, activation=activation)))
    if features >= N:
        return 0.0
    crosstalk = least_squares(N=N, features=features)
    return retrieval_error(crosstalk, N=N, M=M, d=d, association="random")


def readout_error(
    K: Float[ndarray, "facts asked"],
    relation: Int[ndarray, " facts"],
    *,
    R: int,
    D: int,
    d: int,
    asked: Int[ndarray, " asked"] | None = None,
) -> float:
    r"""Share of wrong answers of a memory with known kernel, facts drawn at random in their blocks.

    The output for fact x is $\sum_{x'} K_{x'x} u_{f(x')}$, its answers uniform among the D of the
    relation of $x'$. An answer of relation $\rho$ has the weight $w = \sum_{x': f(x') = a} K_{x'x}$
    of mean $m_\rho/D$ and variance $v_\rho (1 - 1/D)/D$, m and v the sums of K and of its squares
    over the other facts of $\rho$; the true one $K_{xx}$ more. Weights are taken as Gaussian. A
    competitor whose weight is smaller by $\delta$ wins if $|\text{rest} + \delta u_{f(x)}|\,t >
    \delta + r t_0$ as in `attention_only_error`, $r^2$ being the expected sum of all others'
    squared weights. With `asked`, K has columns for these facts only, and the share is of them.
    Source: seqtheory, M5.
    """
    checks.numeric(K=K)
    checks.count(R=R, D=D, d=d)
    _check_answers(R, D)
    if d < 3:
        raise ValueError(f"d must be at least 3, got {d}")
    asked = np.arange(len(relation)) if asked is None else asked
    if K.shape != (len(relation), len(asked)):
        raise ValueError(
            f"K must have a row for each of {len(relation)} facts and a column for each of the "
            f"{len(asked)} asked, got shape {K.shape}"
        )
    at = np.arange(len(asked))
    own, others = K[asked, at], K.copy()
    others[asked, at] = 0
    block = np.equal.outer(np.arange(R), relation).astype(float)
    mean = (block @ others).T / D  # (asked, R)
    variance = (block @ others**2).T * (1 - 1 / D) / D
    spread = np.sqrt(variance)
    x, hermite = np.polynomial.hermite_e.hermegauss(_WEIGHT_NODES)
    hermite = hermite / hermite.sum()
    t0, t0_weights = coordinate_tail_rule(d, _COORDINATE_NODES)
    tail = coordinate_tail(d)
    r = np.sqrt(D * (variance + mean**2).sum(axis=1))[:, None, None]
    home = relation[asked]
    true = (own + mean[at, home])[:, None] + spread[at, home][:, None] * x
    log_correct = np.zeros((len(asked), len(x), len(t0)))
    for rho in range(R):
        wins = np.zeros_like(log_correct)
        for node, weight in zip(x, hermite, strict=True):
            delta = (true - (mean[:, rho] + node * spread[:, rho])[:, None])[..., None]
            whole = np.sqrt(np.maximum(delta**2 + 2 * delta * r * t0 + r * r, 1e-300))
            wins += weight * tail((delta + r * t0) / whole)
        competitors = np.where(home == rho, D - 1, D)[:, None, None]
        log_correct += competitors * np.log1p(-np.minimum(wins, 1 - 1e-16))
    wrong = np.einsum("h,t,xht->x", hermite, t0_weights, -np.expm1(log_correct))
    return float(wrong.mean())


def _check_answers(R: int, D: int) -> None:
    if R * D < 2:
        raise ValueError(f"there must be at least 2 answers to choose from, got R*D={R * D}")


def _add_failure(derive: Derivation, *, S: int, R: int, D: int, d: int) -> float:
    """Terms of the bound up to `failure`, whose logarithm is returned."""
    energy = derive("energy", max(1, R + D - 2), "Max(1, R + D - 2)", "energy of the cross-talk")
    near = derive(
        "c_near", min(d, d / (4 * max(1, R + D - 3))), "Min(d, d/(4*Max(1, R + D - 3)))",
        "exponent of a competitor with a score of 1",
    )  # fmt: skip
    far = derive(
        "c_far", min(d, d / energy), "Min(d, d/energy)",
        "exponent of a competitor with a score of 0",
    )  # fmt: skip
    logs = [
        math.log(S * R * count) - float(c - c * c / (2 * d))
        for count, c in ((R + D - 2, near), ((R - 1) * (D - 1), far))
        if count
    ]
    ln_failure = min(0.0, float(np.logaddexp.reduce(logs)))
    derive(
        "failure", ln_failure,
        "Min(1, S*R*((R + D - 2)*exp(-c_near + c_near**2/(2*d))"
        " + (R - 1)*(D - 1)*exp(-c_far + c_far**2/(2*d))))",
        "some fact is wrong, at most", log=True,
    )  # fmt: skip
    return ln_failure


def _log_failure(*, S: int, R: int, D: int, d: int) -> float:
    return _add_failure(Derivation({}), S=S, R=R, D=D, d=d)
