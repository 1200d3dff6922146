r"""Covering numbers of selective SSMs: what each parameter block costs (theorem D4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from bounds import checks
from bounds.covering import log_maurey_coefficient
from bounds.derivation import Derivation
from bounds.lipschitz import add_lipschitz, assumptions
from bounds.result import Bound, Source
from bounds.ssm import SelectiveSSMClass
from bounds.stability import Real


@dataclass(frozen=True)
class Block:
    """One parameter block: what its covers need, as numbers and as formulas."""

    name: str
    log_sparse: Real  # ln of the Maurey coefficient alpha: ln N <= alpha / radius^2
    sparse_formula: str
    count: Real  # number of parameters the volumetric cover pays for
    count_formula: str
    diameter: Real  # 2R of a ball, or the side of a box
    diameter_formula: str
    box: bool = False


def parameter_blocks(ssm: SelectiveSSMClass) -> tuple[Block, ...]:
    """The parameter blocks w, B, C, A, q, p (and the embedding E) of a class."""
    n_w, n_B = np.multiply(ssm.outputs, ssm.d), np.multiply(ssm.N, ssm.d)
    n_q, n_p = np.multiply(ssm.n_steps, ssm.d), ssm.n_steps
    half = np.subtract(ssm.p_hi, ssm.p_lo) / 2

    def ball(name: str, M: Real, n: Real, n_formula: str, diameter: Real, formula: str) -> Block:
        sparse = f"M_{name}**2*log(2*{n_formula} + 1)"
        return Block(name, log_maurey_coefficient(M, n), sparse, n, n_formula, diameter, formula)

    if ssm.state_matrix == "diagonal":
        n_formula = "d*N" if ssm.heads is None else "n_steps"
        width = np.subtract(ssm.s_A, ssm.a_lo)
        A = replace(ball("A", ssm.M_A, ssm.n_A, n_formula, width, "(s_A - a_lo)"), box=True)
    else:
        A = ball("A", ssm.M_A, ssm.n_A, "d*N**2", 2 * ssm.B_A, "2*B_A")
    if ssm.state_matrix == "transient":
        # Matrices with bounded transients do not form a convex set: centres cannot be projected
        # onto it, and moving each to a member of the class doubles the radius.
        A = replace(A, log_sparse=np.log(4) + A.log_sparse, sparse_formula=f"4*{A.sparse_formula}")
    q = ball("q", ssm.M_q, n_q, "n_steps*d", 2 * ssm.B_q, "2*B_q")
    if ssm.step_rank is not None:
        # Matrices of rank r within Frobenius radius R: (9R/radius)^{r(rows + columns + 1)}
        # (Candes and Plan 2011, Lemma 3.1).
        q = replace(
            q,
            count=ssm.step_rank * (np.add(ssm.n_steps, ssm.d) + 1),
            count_formula="rank*(n_steps + d + 1)",
            diameter=9 * np.sqrt(ssm.n_steps) * ssm.B_q,
            diameter_formula="9*sqrt(n_steps)*B_q",
        )
    with np.errstate(divide="ignore"):
        sparse_p = np.log(n_p) + 2 * np.log(half) + np.log(np.log(3.0))
    formula_p = "n_steps*((p_hi - p_lo)/2)**2*log(3)"
    blocks = (
        ball("w", ssm.M_w, n_w, "outputs*d", 2 * ssm.B_w, "2*B_w"),
        ball("B", ssm.M_B, n_B, "N*d", 2 * ssm.B_B, "2*B_B"),
        ball("C", ssm.M_C, n_B, "N*d", 2 * ssm.B_C, "2*B_C"),
        A,
        q,
        Block("p", sparse_p, formula_p, n_p, "n_steps", 2 * half, "(p_hi - p_lo)", box=True),
    )
    if ssm.vocab:
        n_E = np.multiply(ssm.vocab, ssm.d)
        blocks += (ball("E", ssm.M_E, n_E, "V*d", 2 * ssm.B_u, "2*B_u"),)
    return blocks


def covering_number(ssm: SelectiveSSMClass, *, T: Real, radius: float, cover: str) -> Bound:
    r"""$\ln N(\mathcal F, \epsilon, \sup)$ in the supremum metric over all admissible inputs.

    `cover="maurey"`: $C_F^2/\epsilon^2$ with $C_F = \gamma^{3/2}$, $\gamma = \sum_i \alpha_i^{1/3}
    L_i^{2/3}$, $\alpha_i = M_i^2\ln(2n_i+1)$. `cover="volumetric"`: the parameter count times a
    logarithm, $\sum_i n_i \ln(1+2R_i/\epsilon_i)$ with $\epsilon_i = \epsilon n_i/(L_i n_{tot})$.
    `radius` is in units of the output.
    """
    checks.count(T=T)
    checks.positive(radius=radius)
    checks.one_of(("maurey", "volumetric"), cover=cover)
    derive = Derivation(ssm.inputs(T=T, radius=radius))
    log_L = add_lipschitz(derive, ssm, T).constants
    blocks = parameter_blocks(ssm)
    if cover == "maurey":
        log_C = add_capacity(derive, blocks, log_L)
        log_N = 2 * (log_C - np.log(radius))
        derive("ln_N", log_N, "C_F**2/radius**2", "log covering number", log=True)
    else:
        add_counts(derive, blocks)
        log_N = entropy_of_radius(blocks, log_L)(np.log(radius))
        derive("ln_N", log_N, entropy_formula(blocks, "radius"), "log covering number")
    return derive.bound(
        "ln N(F, radius, sup) <= ln_N", Source("seqtheory", "theorem D4"), *assumptions(ssm)
    )


def add_capacity(derive: Derivation, blocks: tuple[Block, ...], log_L: dict[str, Real]) -> Real:
    parts, formulas = [], []
    for block in blocks:
        part = block.log_sparse / 3 + 2 / 3 * log_L[_lipschitz_name(block)]
        formula = f"({block.sparse_formula})**(1/3)*L_{_lipschitz_name(block)}**(2/3)"
        derive(f"gamma_{block.name}", part, formula, f"share of {block.name} in gamma", log=True)
        parts.append(part)
        formulas.append(f"gamma_{block.name}")
    log_gamma = parts[0]
    for part in parts[1:]:
        log_gamma = np.logaddexp(log_gamma, part)
    derive("gamma", log_gamma, " + ".join(formulas), "sum over parameter blocks", log=True)
    return derive(
        "C_F", 1.5 * log_gamma, "gamma**(3/2)", "capacity: ln N <= (C_F/radius)^2", log=True
    )


def add_counts(derive: Derivation, blocks: tuple[Block, ...]) -> None:
    for block in blocks:
        derive(f"n_{block.name}", block.count, block.count_formula, f"parameters in {block.name}")


def _lipschitz_name(block: Block) -> str:
    return "u" if block.name == "E" else block.name


def entropy_of_radius(blocks: tuple[Block, ...], log_L: dict[str, Real]) -> Callable[[Real], Real]:
    """Volumetric log covering number as a function of the logarithm of the radius.

    The radius is shared out among the blocks in proportion to their parameter counts.
    """
    total = sum(block.count for block in blocks)
    with np.errstate(divide="ignore"):
        log_ratios = [
            np.log(block.diameter)
            + np.log(total / block.count)
            + log_L[_lipschitz_name(block)]
            - (np.log(2) if block.box else 0.0)
            for block in blocks
        ]

    def log_cover(log_radius: Real) -> Real:
        log_N: Real = 0.0
        for block, log_ratio in zip(blocks, log_ratios, strict=True):
            t = log_ratio - log_radius
            # Beyond 36 neither the 1 in 1 + e^t nor a ceiling shows in double precision.
            ratio = np.exp(np.minimum(t, 36.0))
            cost = np.log(np.maximum(np.ceil(ratio), 1.0)) if block.box else np.log1p(ratio)
            log_N = log_N + block.count * np.maximum(cost, t)
        return log_N

    return log_cover


def entropy_formula(blocks: tuple[Block, ...], radius: str) -> str:
    total = "(" + " + ".join(f"n_{block.name}" for block in blocks) + ")"
    parts = []
    for block in blocks:
        n = f"n_{block.name}"
        ratio = f"{block.diameter_formula}*L_{_lipschitz_name(block)}*{total}/({n}*{radius})"
        if block.box:
            parts.append(f"{n}*log(Max(1, ceiling({ratio}/2)))")
        else:
            parts.append(f"{n}*log1p({ratio})")
    return " + ".join(parts)
