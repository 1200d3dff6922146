r"""Which architecture pays what for sequence length: a table whose growth laws can be measured.

Rows that carry a capacity function are bounds of `bounds.architectures`, with every norm budget
equal; their `T_law` must come out of `growth_law`. The others are published bounds as we know them.
Compare only rows of the same mode: in norm mode the constants multiply the bound, in parameter mode
they are inside a logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np

from bounds import checks
from bounds.architectures import (
    linear_attention,
    linear_time_invariant,
    recurrent_network,
    selective_ssm,
    softmax_attention,
)
from bounds.result import Bound, Source
from bounds.ssm import SelectiveSSMClass

LENGTHS = tuple(10**k for k in range(4, 9))
Mode = Literal["norm", "parameter"]
_HONARPISHEH = "honarpisheh2025generalization"


class GrowthLaw(NamedTuple):
    r"""Fit of a capacity to $C \propto T^{exponent} e^{rate\,T}$ over a range of lengths."""

    exponent: float
    rate: float
    name: str
    """One of "1", "polylog T", "exp(T)", or the power of `T` to the nearest half."""


@dataclass(frozen=True)
class Row:
    """One bound: what it concerns, how it grows, how certain we are of it.

    "derived" is proved in docs/proofs.md, "published" stated in the cited paper in this form,
    "recalled" known to us second-hand.
    """

    architecture: str
    case: str
    mode: Mode
    T_law: str
    d_law: str
    source: Source
    certainty: Literal["derived", "published", "recalled"]
    assumptions: tuple[str, ...] = ()
    capacity: Callable[[int], Bound] | None = None


def growth_law(capacity: Callable[[int], Bound], lengths: Sequence[int] = LENGTHS) -> GrowthLaw:
    """The law by which a capacity grows with the sequence length, by least squares on its log."""
    if len(lengths) < 3:
        raise ValueError(f"lengths must have at least three entries, got {lengths!r}")
    T = np.asarray(lengths, dtype=float)
    checks.count(lengths=T)
    last = [capacity(int(length)).terms[-1] for length in lengths]
    log_C = np.array([term.stored if term.log else math.log(term.stored) for term in last])
    columns = np.stack([np.ones_like(T), np.log(T), T / T.max()], axis=1)
    _, exponent, growth = np.linalg.lstsq(columns, log_C, rcond=None)[0]
    if abs(log_C[-1] - log_C[0]) < 1e-6:
        name = "1"
    elif growth > 1:
        name = "exp(T)"
    elif exponent < 0.1:
        name = "polylog T"
    else:
        halves = round(2 * exponent)
        power = f"{halves // 2}" if halves % 2 == 0 else f"({halves}/2)"
        name = {1: "sqrt(T)", 2: "T"}.get(halves, f"T^{power}")
    return GrowthLaw(float(exponent), float(growth / T.max()), name)


def comparison_table(*, d: int = 16, N: int = 4, M: float = 4.0) -> tuple[Row, ...]:
    r"""All rows, for width `d`, state size `N`, spectral norms 1 and sums of absolute entries `M`.

    `M` does not bound the state matrix of a decaying SSM, where $M_A \ge Nd|s_A|$ in any case.
    """
    checks.count(d=d, N=N)
    checks.positive(M=M)
    return (*_derived(d, N, M), *_PUBLISHED)


def _derived(d: int, N: int, M: float) -> tuple[Row, ...]:
    attention = partial(linear_attention, d=d, N=N, M_w=M, M_B=M, M_C=M)
    softmax = partial(softmax_attention, d=d, d_v=d, M_w=M, M_V=M, M_Q=M)
    network = partial(recurrent_network, n=d, d=d, M_w=M, M_B=M)

    def recurrent(B_A: float, **more) -> Callable[..., Bound]:
        return partial(network, B_A=B_A, M_A=M * B_A, **more)

    def ssm(s_A: float, mode: str = "norm") -> Callable[..., Bound]:
        members = SelectiveSSMClass(
            d=d, N=N, s_A=s_A, a_lo=-1, p_lo=-1, p_hi=0,
            M_w=M, M_B=M, M_C=M, M_q=M, M_A=None if s_A < 0 else M,
        )  # fmt: skip
        return partial(selective_ssm, members, mode=mode)

    lti = linear_time_invariant
    notes = partial(Source, "seqtheory")
    logs, section = "ln d at fixed M", notes("other architectures")
    decay = "d, through M_A >= N d |s_A|"
    rows: list[tuple[str, str, Mode, str, str, Callable[..., Bound]]] = [
        ("linear attention", "sum", "norm", "T", logs, attention),
        ("linear attention", "mean", "norm", "1", logs, partial(attention, averaged=True)),
        ("linear attention", "sum", "parameter", "polylog T", "sqrt(d)",
         partial(attention, mode="parameter")),
        ("softmax attention", "", "norm", "1", logs, softmax),
        ("softmax attention", "", "parameter", "1", "d", partial(softmax, mode="parameter")),
        ("RNN", "||A|| < 1", "norm", "1", logs, recurrent(0.5)),
        ("RNN", "||A|| = 1", "norm", "T^2", logs, recurrent(1.0)),
        ("RNN", "||A|| = 1, bounded activation", "norm", "T", "sqrt(d)",
         recurrent(1.0, activation_bound=1.0)),
        ("RNN", "||A|| > 1", "norm", "exp(T)", logs, recurrent(1.1)),
        ("RNN", "||A|| < 1", "parameter", "1", "d", recurrent(0.5, mode="parameter")),
        ("RNN", "||A|| > 1", "parameter", "sqrt(T)", "d", recurrent(1.1, mode="parameter")),
        ("LTI SSM", "stable, bounded energy", "norm", "1", "none", partial(lti, rho=0.9)),
        ("LTI SSM", "stable, bounded amplitude", "norm", "1", "none",
         partial(lti, rho=0.9, inputs="amplitude")),
        ("selective SSM", "s_A < 0", "norm", "1", decay, ssm(-0.5)),
        ("selective SSM", "s_A = 0", "norm", "T^2", logs, ssm(0.0)),
        ("selective SSM", "s_A > 0", "norm", "exp(T)", logs, ssm(0.05)),
        ("selective SSM", "s_A < 0", "parameter", "1", "sqrt(d)", ssm(-0.5, "parameter")),
        ("selective SSM", "s_A = 0", "parameter", "polylog T", "sqrt(d)", ssm(0.0, "parameter")),
        ("selective SSM", "s_A > 0", "parameter", "sqrt(T)", "sqrt(d)", ssm(0.05, "parameter")),
    ]  # fmt: skip
    return tuple(
        Row(architecture, case, mode, T_law, d_law, section, "derived", _assumed(architecture),
            lambda T, capacity=capacity: capacity(T=T))
        for architecture, case, mode, T_law, d_law, capacity in rows
    )  # fmt: skip


def _assumed(architecture: str) -> tuple[str, ...]:
    return {
        "RNN": ("1-Lipschitz activation that vanishes at 0",),
        "LTI SSM": ("one channel; value is sqrt(m) times the Rademacher complexity",),
        "selective SSM": ("diagonal state matrix, one step sequence",),
    }.get(architecture, ())


_PUBLISHED = (
    Row("selective SSM", "s_A < 0", "norm", "1", "sqrt(d)",
        Source(_HONARPISHEH, "Theorem 3.3, Table 1"), "published",
        ("saturates only after 1/(|s_A| D_min) steps",)),
    Row("selective SSM", "s_A >= 0", "norm", "T rho^T", "sqrt(d)",
        Source(_HONARPISHEH, "Theorem 3.3, Table 1"), "published",
        ("rho must be taken at the largest step for s_A > 0 (erratum E1)",)),
    Row("linear attention", "sum", "norm", "T", "ln d",
        Source(_HONARPISHEH, "Proposition 3.4"), "published"),
    Row("softmax attention", "one layer", "norm", "1", "ln d",
        Source("trauger2024sequence", "single-layer bound"), "recalled"),
    Row("softmax attention", "one head", "norm", "sqrt(ln T)", "ln d",
        Source("edelman2022inductive", "capacity of a head"), "recalled"),
    Row("RNN", "beta < 1", "parameter", "1", "d",
        Source("chen2020generalization", "main theorem"), "recalled", ("bounded activation",)),
    Row("RNN", "beta = 1", "parameter", "T", "d",
        Source("chen2020generalization", "main theorem"), "recalled",
        ("bounded activation; for T below sqrt(d), beyond that sqrt(ln T) with d^(3/2)",)),
    Row("RNN", "beta > 1", "parameter", "sqrt(T)", "d^(3/2)",
        Source("chen2020generalization", "main theorem"), "recalled",
        ("bounded activation; Table 1 of Honarpisheh et al. has T for sqrt(T)",)),
    Row("RNN", "spectral norms", "norm", "T^2 max(1, ||W||^T)", "d",
        Source("zhang2018stabilizing", "generalization theorem"), "recalled"),
    Row("RNN", "beta < 1", "norm", "1", "none",
        Source("tu2020understanding", "Rademacher bound"), "recalled"),
    Row("RNN", "beta = 1", "norm", "T^2", "none",
        Source("tu2020understanding", "Rademacher bound"), "recalled"),
    Row("LTI SSM", "deep, stable", "norm", "1", "none",
        Source("racz2025length", "main theorem"), "recalled", ("bounded input energy",)),
    Row("LTI SSM", "one layer, stable", "norm", "ln^(3/2) T", "none",
        Source("liu2024generalization", "main theorem"), "recalled",
        ("squared loss; inputs with given mean and covariance, Hoelder sub-Gaussian",)),
)  # fmt: skip
