r"""Bits a memory needs whatever its construction, and facts that a given number of bits can hold.

All quantities are in bits (logarithms to base 2). What decoder and encoder share, such as random
embeddings, does not count; what was fitted to the facts does. Proofs: docs/proofs.md, M6.
"""

from __future__ import annotations

import math
from typing import Literal

from scipy.special import gammaln

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from memory.bisection import largest

BITS_PER_PARAMETER = 2.0
"""What language models are found to store per parameter, also in int8 (empirical)."""
BITS_PER_PARAMETER_SOURCE = Source("allenzhu2024knowledge", "abstract (empirical)")

Assignment = Literal["any", "injective"]
_SOURCE = Source("seqtheory", "theorem M6")
_LN2 = math.log(2)
_ROUNDING = 1 + 1e-12  # so that whole numbers that fit exactly are not lost to rounding


def bits_needed(
    *, N: int, M: int, assignment: Assignment = "any", error: float = 0.0, delta: float = 0.0
) -> Bound:
    r"""Bits without which no memory holds the facts of every (or a random) map from `N` keys.

    "any": maps into `M` outputs, $N (\log_2 M - h_2(\epsilon) - \epsilon \log_2(M-1))$ for a share
    `error` $\epsilon \le 1 - 1/M$ of wrong answers; "injective": distinct outputs (permutations for
    $M = N$), $\log_2\big(M! / (\binom Nk (M-N+k)!)\big)$ with $k = \lfloor \epsilon N \rfloor$
    wrong answers. With `delta` > 0 only for a share $1-\delta$ of all maps: add $\log_2(1-\delta)$.
    Source: seqtheory, theorem M6.
    """
    _check(N=N, M=M, assignment=assignment, error=error)
    checks.nonnegative(delta=delta)
    if delta >= 1:
        raise ValueError(f"delta must be below 1, got {delta}")
    derive = Derivation(dict(N=N, M=M, error=error, delta=delta))
    information = _add_information(derive, N=N, M=M, assignment=assignment, error=error)
    derive(
        "bits", max(0.0, information + math.log1p(-delta) / _LN2),
        "Max(0, information + log2(1 - delta))", "bits needed, at least",
    )  # fmt: skip
    return derive.bound("the memory needs at least this many bits", _SOURCE, *_ASSUMPTIONS)


def bits_per_parameter(
    *, N: int, M: int, parameters: int, assignment: Assignment = "any", error: float = 0.0
) -> Bound:
    r"""Bits a memory is known to hold per parameter, from the facts it recalls.

    `bits_needed` for its facts and its share of wrong answers, over `parameters`. To compare with
    `BITS_PER_PARAMETER`. Source: seqtheory, theorem M6.
    """
    _check(N=N, M=M, assignment=assignment, error=error)
    checks.count(parameters=parameters)
    derive = Derivation(dict(N=N, M=M, error=error, parameters=parameters))
    information = _add_information(derive, N=N, M=M, assignment=assignment, error=error)
    derive("density", information / parameters, "information/parameters", "bits per parameter")
    return derive.bound(
        "a memory that holds the facts stores at least this many bits per parameter",
        _SOURCE,
        *_ASSUMPTIONS,
    )


def factual_recall_bits(
    *, S: int, R: int, D: int, error: float = 0.0, partition: bool = False
) -> Bound:
    r"""Bits without which no memory answers the S R questions of factual recall for all facts.

    The answer is one of the D of its relation: $S R (\log_2 D - h_2(\epsilon) - \epsilon
    \log_2(D-1))$ for a share `error` $\epsilon \le 1 - 1/D$ of wrong answers, also of answers to
    other relations. The blocks of answers are known to the decoder; with `partition` the memory is
    to hold them as well, which adds $\log_2((RD)!/(D!)^R)$ (then without errors).
    Source: seqtheory, theorem M6.
    """
    checks.count(S=S, R=R, D=D)
    if D > 1 or error:
        _check(N=S * R, M=D, assignment="any", error=error)
    if partition and error:
        raise ValueError(f"error must be 0 where the partition is to be stored, got {error}")
    derive = Derivation(dict(S=S, R=R, D=D, error=error))
    each = derive(
        "each", _per_fact(D, error), _per_fact_formula(error).replace("M", "D"), "bits per fact"
    )
    bits = derive("facts", S * R * each, "S*R*each", "bits of the facts")
    blocks = 0.0
    if partition:
        blocks = derive(
            "blocks", float(gammaln(R * D + 1) - R * gammaln(D + 1)) / _LN2,
            "(loggamma(R*D + 1) - R*loggamma(D + 1))/log(2)", "bits of the blocks of answers",
        )  # fmt: skip
    derive(
        "bits", bits + blocks, "facts + blocks" if partition else "facts", "bits needed, at least"
    )
    return derive.bound("the memory needs at least this many bits", _SOURCE, *_ASSUMPTIONS)


def facts_limit(*, bits: float, M: int | None = None, error: float = 0.0) -> Bound:
    r"""Most facts that `bits` bits can hold.

    With `M` outputs, any map: $\lfloor \text{bits} / (\log_2 M - h_2(\epsilon) -
    \epsilon\log_2(M-1)) \rfloor$. `M=None`: as many outputs as facts, all different (permutations);
    then `N` is searched and recorded as chosen, and the last term equals it only because the
    audited information of `N` facts fits. Source: seqtheory, theorem M6.
    """
    checks.positive(bits=bits)
    statement = "no memory of this many bits holds more facts of every map"
    if M is not None:
        _check(N=1, M=M, assignment="any", error=error)
        derive = Derivation(dict(bits=bits, M=M, error=error))
        each = derive("each", _per_fact(M, error), _per_fact_formula(error), "bits per fact")
        if each <= 0:
            raise ValueError(f"facts carry no information at M={M}, error={error}")
        derive(
            "facts",
            math.floor(bits / each * _ROUNDING),
            "-ceiling(-bits/each*(1 + 1e-12))",
            "number of facts",
        )
        return derive.bound(statement, _SOURCE, *_ASSUMPTIONS)
    checks.fraction(error=error)
    if error == 1:
        raise ValueError("error must be below 1: wrong answers carry no information")
    N = _largest_permutation(bits, error)
    derive = Derivation(dict(bits=bits, error=error))
    derive("N", N, "", "number of facts, the largest that fits")
    information = _add_information(derive, N=N, M=None, assignment="injective", error=error)
    derive(
        "facts", N if information <= bits * _ROUNDING else 0,
        "Piecewise((N, information <= bits*(1 + 1e-12)), (0, True))", "number of facts",
    )  # fmt: skip
    return derive.bound(statement, _SOURCE, *_ASSUMPTIONS)


_ASSUMPTIONS = ("what does not depend on the facts is shared with the decoder and free",)


def _check(*, N: int, M: int, assignment: str, error: float) -> None:
    checks.count(N=N, M=M)
    checks.one_of(("any", "injective"), assignment=assignment)
    checks.fraction(error=error)
    if assignment == "injective":
        checks.ordered(N=N, M=M)
    elif error > 1 - 1 / M:
        raise ValueError(f"error must be at most 1 - 1/M, that of guessing, got {error}")


def _add_information(
    derive: Derivation, *, N: int, M: int | None, assignment: Assignment, error: float
) -> float:
    if assignment == "any":
        assert M is not None
        derive("each", _per_fact(M, error), _per_fact_formula(error), "bits per fact")
        information, formula = N * _per_fact(M, error), "N*each"
    else:
        k, outputs = _wrong(N, error), "N" if M is None else "M"
        derive("k", k, "Min(N, -ceiling(-error*N*(1 + 1e-12)))", "wrong answers allowed")
        information = _injective(N, N if M is None else M, k)
        formula = (
            f"(loggamma({outputs} + 1) - loggamma({outputs} - N + k + 1) - loggamma(N + 1)"
            " + loggamma(k + 1) + loggamma(N - k + 1))/log(2)"
        )
    derive("information", information, formula, "bits of the facts")
    return information


def _wrong(N: int, error: float) -> int:
    return min(N, math.floor(error * N * _ROUNDING))


def _injective(N: int, M: int, k: int) -> float:
    """Logarithm to base 2 of M!/(binom(N, k) (M - N + k)!)."""
    choices = _log_falling(N, k) - float(gammaln(k + 1))
    return (_log_falling(M, N - k) - choices) / _LN2


def _log_falling(M: int, n: int) -> float:
    """ln(M!/(M-n)!), without the cancellation of log-gammas for M much larger than n."""
    rest = M - n
    if rest < 30:
        return float(gammaln(M + 1) - gammaln(rest + 1))
    # Stirling: (x + 1/2) ln x - x + 1/(12 x) - 1/(360 x^3) + 1/(1260 x^5), at M and at M - n.
    series = [(1 / 12 - (1 / 360 - 1 / (1260 * x * x)) / (x * x)) / x for x in (M, rest)]
    return n * (math.log(M) - 1) + (rest + 0.5) * math.log1p(n / rest) + series[0] - series[1]


def _per_fact(M: int, error: float) -> float:
    if error == 0:
        return math.log2(M)
    entropy = -(error * math.log(error) + (1 - error) * math.log1p(-error)) / _LN2
    return math.log2(M) - entropy - error * math.log2(M - 1)


def _per_fact_formula(error: float) -> str:
    if error == 0:
        return "log2(M)"
    return "log2(M) + error*log2(error) + (1 - error)*log2(1 - error) - error*log2(M - 1)"


def _largest_permutation(bits: float, error: float) -> int:
    """Largest N whose permutations fit: with k wrong answers they carry log2 (N - k)! bits."""
    N = largest(
        lambda N: _injective(N, N, _wrong(N, error)) <= bits * _ROUNDING,
        low=1,
        limit=checks.LARGEST_COUNT,
    )
    if N == checks.LARGEST_COUNT:
        raise ValueError(f"bits must leave N below 2**53, got {bits}")
    return N
