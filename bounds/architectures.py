r"""Capacities of attention, recurrent and state-space models in one framework: like for like.

A norm-based capacity `C` is such that $\ln N(\mathcal F,\epsilon,\sup) \le C^2/\epsilon^2$; a
parameter-counting one is $\sqrt{\ln N(\mathcal F,\epsilon,\sup)}$ at one radius. Gaps are $C/\sqrt
m$ up to factors that do not depend on the model, but the two kinds must not be compared with each
other: in the first the constants multiply, in the second they are inside a logarithm. All models
end in a scalar readout `w` of the last position; inputs satisfy $\|u_t\|_2 \le B_u$. `B_*` bound
spectral norms, `M_*` sums of absolute entries (omitted: what `B_*` implies).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bounds import checks
from bounds.capacity import (
    Block,
    add_capacity,
    add_counts,
    entropy_formula,
    entropy_of_radius,
    parameter_blocks,
)
from bounds.covering import log_maurey_coefficient
from bounds.derivation import Derivation
from bounds.lipschitz import add_lipschitz, assumptions
from bounds.result import Bound, Source
from bounds.ssm import SelectiveSSMClass
from bounds.stability import Real, log_S1, log_S2

MODES = ("norm", "parameter")


@dataclass(frozen=True)
class Weight:
    """Budgets of one weight matrix, normalised so that B <= M <= sqrt(rank rows columns) B."""

    name: str
    rows: int
    columns: int
    B: float
    M: float | None
    size: str
    """Number of entries, as a formula."""

    def __post_init__(self) -> None:
        checks.positive(**{f"B_{self.name}": self.B})
        if self.M is not None:
            checks.positive(**{f"M_{self.name}": self.M})
        M = np.inf if self.M is None else self.M
        B = min(self.B, M)
        largest = np.sqrt(self.entries * min(self.rows, self.columns)) * B
        object.__setattr__(self, "B", float(B))
        object.__setattr__(self, "M", float(min(M, largest)))

    @property
    def entries(self) -> int:
        return self.rows * self.columns

    @property
    def block(self) -> Block:
        """What the covers of this matrix need."""
        M, B, n = f"M_{self.name}", f"B_{self.name}", self.size
        sparse = log_maurey_coefficient(self.M, self.entries)
        formula = f"{M}**2*log(2*{n} + 1)"
        return Block(self.name, sparse, formula, self.entries, n, 2 * self.B, f"2*{B}")


def linear_attention(
    *,
    T: Real,
    d: int,
    N: int,
    B_u: float = 1.0,
    B_w: float = 1.0,
    B_B: float = 1.0,
    B_C: float = 1.0,
    M_w: float | None = None,
    M_B: float | None = None,
    M_C: float | None = None,
    averaged: bool = False,
    mode: str = "norm",
    radius: float = 1.0,
) -> Bound:
    r"""Linear attention, $z = w^\top \sum_t u_t \langle W_Bu_t, W_Cu_T\rangle$: linear in `T`.

    `averaged` divides the sum by `T`, which removes it from the capacity.
    """
    checks.count(d=d, N=N)
    weights = (
        Weight("w", 1, d, B_w, M_w, "d"),
        Weight("B", N, d, B_B, M_B, "N*d"),
        Weight("C", N, d, B_C, M_C, "N*d"),
    )
    derive = _start(weights, mode, T=T, d=d, N=N, B_u=B_u, radius=radius)
    length, steps = (0.0, "1") if averaged else (np.log(T), "T")
    reach = derive("reach", length + 3 * np.log(B_u), f"{steps}*B_u**3", "sum over keys", log=True)
    w, B, C = (np.log(weight.B) for weight in weights)
    log_L = dict(
        w=derive("L_w", reach + B + C, "B_B*B_C*reach", "Lipschitz constant in w", log=True),
        B=derive("L_B", reach + w + C, "B_w*B_C*reach", "Lipschitz constant in W_B", log=True),
        C=derive("L_C", reach + w + B, "B_w*B_B*reach", "Lipschitz constant in W_C", log=True),
    )
    return _finish(derive, weights, log_L, mode, radius, "other architectures")


def softmax_attention(
    *,
    T: Real,
    d: int,
    d_v: int,
    B_u: float = 1.0,
    B_w: float = 1.0,
    B_V: float = 1.0,
    B_Q: float = 1.0,
    M_w: float | None = None,
    M_V: float | None = None,
    M_Q: float | None = None,
    mode: str = "norm",
    radius: float = 1.0,
) -> Bound:
    r"""Softmax attention, $z = w^\top W_V\sum_t p_tu_t$, $p = \mathrm{softmax}(u_t^\top Qu_T)_t$.

    Free of `T`: a softmax moves by at most $\max_t |\delta a_t|$ in $\ell_1$. (Its Jacobian maps
    the sup norm to $\ell_1$ with norm $\max 4P(1-P) \le 1$.)
    """
    checks.count(d=d, d_v=d_v)
    weights = (
        Weight("w", 1, d_v, B_w, M_w, "d_v"),
        Weight("V", d_v, d, B_V, M_V, "d_v*d"),
        Weight("Q", d, d, B_Q, M_Q, "d**2"),
    )
    derive = _start(weights, mode, T=T, d=d, d_v=d_v, B_u=B_u, radius=radius)
    w, V, _ = (np.log(weight.B) for weight in weights)
    u = np.log(B_u)
    log_L = dict(
        w=derive("L_w", V + u, "B_V*B_u", "Lipschitz constant in w", log=True),
        V=derive("L_V", w + u, "B_w*B_u", "Lipschitz constant in W_V", log=True),
        Q=derive("L_Q", w + V + 3 * u, "B_w*B_V*B_u**3", "Lipschitz constant in Q", log=True),
    )
    return _finish(derive, weights, log_L, mode, radius, "other architectures")


def recurrent_network(
    *,
    T: Real,
    n: int,
    d: int,
    B_A: float,
    B_u: float = 1.0,
    B_w: float = 1.0,
    B_B: float = 1.0,
    M_w: float | None = None,
    M_B: float | None = None,
    M_A: float | None = None,
    activation_bound: float | None = None,
    mode: str = "norm",
    radius: float = 1.0,
) -> Bound:
    r"""Recurrent network with `n` units, $h_t = \phi(Ah_{t-1} + Bu_t)$, $z = w^\top h_T$.

    $\phi$ is 1-Lipschitz with $\phi(0) = 0$ and, if given, $|\phi| \le$ `activation_bound`. Free of
    `T` for $B_A < 1$, polynomial at 1, exponential beyond (in parameter mode $\sqrt T$).
    """
    checks.count(n=n, d=d)
    weights = (
        Weight("w", 1, n, B_w, M_w, "n"),
        Weight("B", n, d, B_B, M_B, "n*d"),
        Weight("A", n, n, B_A, M_A, "n**2"),
    )
    bounded = activation_bound is not None
    if bounded:
        checks.positive(activation_bound=activation_bound)
    more = dict(activation_bound=activation_bound) if bounded else {}
    derive = _start(weights, mode, T=T, n=n, d=d, B_u=B_u, radius=radius, **more)
    w, B, A = (np.log(weight.B) for weight in weights)
    S_1 = derive("S_1", log_S1(A, T), "S1(log(B_A), T)", "sum of B_A^t", log=True)
    weighted = derive("S_2", log_S2(A, T), "S2(log(B_A), T)", "sum of t B_A^t", log=True)
    drive = B + np.log(B_u)
    state, formula = drive + S_1, "B_B*B_u*S_1"
    memory, memory_formula = drive + weighted - A, "B_B*B_u*S_2/B_A"
    if bounded:
        cap = 0.5 * np.log(n) + np.log(activation_bound)
        state, formula = np.minimum(state, cap), f"Min({formula}, sqrt(n)*activation_bound)"
        memory = np.minimum(memory, cap + S_1)
        memory_formula = f"Min({memory_formula}, sqrt(n)*activation_bound*S_1)"
    derive("state", state, formula, "norm of the hidden state", log=True)
    derive("memory", memory, memory_formula, "sum of B_A^{T-1-t} ||h_t||", log=True)
    L_B = w + np.log(B_u) + S_1
    log_L = dict(
        w=derive("L_w", state, "state", "Lipschitz constant in w", log=True),
        B=derive("L_B", L_B, "B_w*B_u*S_1", "Lipschitz constant in B", log=True),
        A=derive("L_A", w + memory, "B_w*memory", "Lipschitz constant in A", log=True),
    )
    return _finish(derive, weights, log_L, mode, radius, "other architectures")


def linear_time_invariant(
    *, T: Real, rho: float, gain: float = 1.0, B_u: float = 1.0, inputs: str = "energy"
) -> Bound:
    r"""Linear time-invariant models by their impulse response, $|h_t| \le$ `gain` $\rho^t$.

    The value is $\sqrt m$ times a bound on the Rademacher complexity, without a cover.
    `inputs="energy"`: $\sum_t\|u_t\|^2 \le B_u^2$, value $\|h\|_2B_u$. `inputs="amplitude"`:
    $|u_t| \le B_u$, value $\|h\|_1B_u$ (Jensen, one input position at a time).
    """
    checks.count(T=T)
    checks.positive(rho=rho, gain=gain, B_u=B_u)
    checks.one_of(("energy", "amplitude"), inputs=inputs)
    derive = Derivation(dict(T=T, rho=rho, gain=gain, B_u=B_u))
    if inputs == "energy":
        h, formula = 0.5 * log_S1(2 * np.log(rho), T), "sqrt(S1(2*log(rho), T))"
    else:
        h, formula = log_S1(np.log(rho), T), "S1(log(rho), T)"
    h = np.log(gain) + h
    derive("h", h, f"gain*{formula}", "norm of the impulse response", log=True)
    derive("C", h + np.log(B_u), "h*B_u", "sqrt(m) times the Rademacher complexity", log=True)
    return derive.bound("Rad(F) <= C/sqrt(m)", Source("seqtheory", "other architectures"))


def selective_ssm(
    ssm: SelectiveSSMClass, *, T: Real, mode: str = "norm", radius: float = 1.0
) -> Bound:
    """Selective state-space models: the capacity of `bounds.capacity` in the form of this table."""
    checks.count(T=T)
    checks.positive(radius=radius)
    checks.one_of(MODES, mode=mode)
    derive = Derivation(ssm.inputs(T=T, radius=radius))
    log_L = add_lipschitz(derive, ssm, T).constants
    blocks = parameter_blocks(ssm)
    return _capacity(derive, blocks, log_L, mode, radius, "theorem D4", *assumptions(ssm))


def _start(weights: tuple[Weight, ...], mode: str, **inputs: Real) -> Derivation:
    checks.one_of(MODES, mode=mode)
    checks.count(T=inputs["T"])
    checks.positive(B_u=inputs["B_u"], radius=inputs["radius"])
    budgets = {f"B_{weight.name}": weight.B for weight in weights}
    budgets |= {f"M_{weight.name}": weight.M for weight in weights}
    return Derivation({**inputs, **budgets})


def _finish(
    derive: Derivation,
    weights: tuple[Weight, ...],
    log_L: dict[str, Real],
    mode: str,
    radius: float,
    place: str,
) -> Bound:
    blocks = tuple(weight.block for weight in weights)
    return _capacity(derive, blocks, log_L, mode, radius, place)


def _capacity(
    derive: Derivation,
    blocks: tuple[Block, ...],
    log_L: dict[str, Real],
    mode: str,
    radius: float,
    place: str,
    *assumed: str,
) -> Bound:
    if mode == "norm":
        add_capacity(derive, blocks, log_L)
        statement = "ln N(F, radius, sup) <= (C_F/radius)^2 for every radius"
    else:
        add_counts(derive, blocks)
        log_N = entropy_of_radius(blocks, log_L)(np.log(radius))
        derive("ln_N", log_N, entropy_formula(blocks, "radius"), "log covering number")
        derive("C_N", np.sqrt(log_N), "sqrt(ln_N)", "capacity at this radius")
        statement = "ln N(F, radius, sup) <= C_N^2 at this radius"
    return derive.bound(statement, Source("seqtheory", place), *assumed)
