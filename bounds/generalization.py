r"""Rademacher complexity and generalization gaps of selective SSMs (theorems D5 to D7).

All gap bounds are one-sided, uniform over the class, and hold with probability $1-\delta$ over `m`
independent samples. None depends on the sample, so their minimum holds at the same confidence.
They differ in where the Lipschitz constants enter:

    norm-based   gap ~ C_F / sqrt(m)         no dimension beyond a logarithm
    hybrid       gap ~ b sqrt(n ln C / m)    readout, projections by norm; decay, step by count
    parameter    gap ~ sqrt(n ln C / m)      all constants inside the logarithm
"""

from __future__ import annotations

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
from bounds.concentration import hoeffding_slack, log_xi
from bounds.covering import best_log_radius, log_chained, log_dudley
from bounds.derivation import Derivation
from bounds.lipschitz import LogLipschitz, add_lipschitz, assumptions
from bounds.losses import Loss
from bounds.result import Bound, Source
from bounds.ssm import SelectiveSSMClass
from bounds.stability import Real, log_G1, softplus

_SEARCH_DEPTH = 12 * np.log(10.0)
"""Covering radii are searched over twelve decades below the size of what they cover."""


def rademacher_upper(ssm: SelectiveSSMClass, *, m: Real, T: Real) -> Bound:
    r"""Upper bound on the Rademacher complexity of the (unclipped) outputs.

    The minimum of the range `b`, the chained and the textbook entropy integral of the norm-based
    cover, and the hybrid bound. Defined for a scalar output; ValueError for several.
    """
    checks.count(m=m, T=T)
    if ssm.outputs != 1:
        raise ValueError(f"outputs must be 1 for a Rademacher complexity, got {ssm.outputs}")
    derive = Derivation(ssm.inputs(T=T, m=m))
    blocks = parameter_blocks(ssm)
    lipschitz = add_lipschitz(derive, ssm, T)
    log_b, log_L = lipschitz.log_range, lipschitz.constants
    log_C = add_capacity(derive, blocks, log_L)
    raw = _add_entropy_integral(derive, log_C, "C_F", log_b, "b", m, "raw")
    add_counts(derive, blocks)
    best = np.minimum(raw, _add_hybrid(derive, ssm, blocks, lipschitz, m))
    derive("R", best, "Min(R_raw, R_hybrid)", "Rademacher complexity, upper bound", log=True)
    return derive.bound("Rad(F) <= R", Source("seqtheory", "theorems D5, D7b"), *assumptions(ssm))


def rademacher_lower(ssm: SelectiveSSMClass, *, m: Real, T: Real) -> Bound:
    r"""Matching lower bound: some admissible sample has $\mathrm{Rad} \ge \Pi\,G_1\,\xi_m$.

    All samples equal the sequence that attains the range; $\xi_m = E|\sum\sigma_i|/m$ exactly.
    Holds for every sign of `s_A`. Raises ValueError where the extremal model is not in the class:
    `step_logits` given, or $a_{lo} > 0$.
    """
    checks.count(m=m, T=T)
    if ssm.outputs != 1:
        raise ValueError(f"outputs must be 1 for a Rademacher complexity, got {ssm.outputs}")
    if ssm.step_logits is not None:
        raise ValueError("step_logits must be None for the lower bound: its model uses every step")
    if np.any(np.greater(ssm.a_lo, 0)):
        raise ValueError(f"a_lo must be at most 0 for the lower bound, got {ssm.a_lo!r}")
    derive = Derivation(ssm.inputs(T=T, m=m))
    add_lower(derive, ssm, m, T)
    return derive.bound(
        "there is a sample on which Rad(F) >= R_lower", Source("seqtheory", "theorem D6")
    )


def generalization_gap(
    ssm: SelectiveSSMClass,
    *,
    m: Real,
    T: Real,
    delta: float,
    loss: Loss,
    union_cost: float = 0.0,
) -> Bound:
    r"""Smallest of the norm-based, hybrid and parameter-counting bounds on the gap.

    $E\ell - \hat E\ell \le$ `gap` for every model of the class at once, with probability at least
    $1-\delta$ over `m` independent samples; clipped at the range of the loss, where it is vacuous.
    Terms `gap_norm`, `gap_hybrid` (scalar outputs) and `gap_parameter` are the three bounds.
    `union_cost` is added to $\ln(1/\delta)$: the price of a class chosen after seeing the data
    (see `bounds.stratification`). Raises ValueError naming a malformed argument.
    """
    derive = Derivation(gap_inputs(ssm, m, T, delta, loss, union_cost))
    add_gap(derive, ssm, m=m, T=T, delta=delta, loss=loss, union_cost=union_cost)
    return derive.bound(
        "with probability 1 - delta, E loss - mean loss <= gap for every model of the class",
        Source("seqtheory", "theorems D5 to D7"),
        *assumptions(ssm),
    )


def gap_inputs(
    ssm: SelectiveSSMClass, m: Real, T: Real, delta: Real, loss: Loss, union_cost: float
) -> dict[str, Real]:
    """Validated inputs of a gap bound, by name."""
    if not isinstance(ssm, SelectiveSSMClass):
        raise ValueError(f"ssm must be a SelectiveSSMClass, got {ssm!r}")
    if not isinstance(loss, Loss):
        raise ValueError(f"loss must be a Loss, such as ramp(), got {loss!r}")
    checks.count(m=m, T=T)
    checks.probability(delta=delta)
    checks.nonnegative(union_cost=union_cost)
    more = ssm.inputs(m=m, T=T, delta=delta, c_l=loss.range, l_l=loss.lipschitz)
    return {**more, "union_cost": union_cost}


def add_gap(
    derive: Derivation,
    ssm: SelectiveSSMClass,
    *,
    m: Real,
    T: Real,
    delta: Real,
    loss: Loss,
    union_cost: float,
) -> None:
    """Extend `derive` by the three gap bounds and their minimum."""
    c_l, l_l = loss.range, loss.lipschitz
    blocks = parameter_blocks(ssm)
    lipschitz = add_lipschitz(derive, ssm, T)
    log_b, log_L = lipschitz.log_range, lipschitz.constants
    log_C = add_capacity(derive, blocks, log_L)
    price = derive(
        "price", union_cost - np.log(delta), "union_cost - log(delta)",
        "nats paid for confidence and for adapting the class",
    )  # fmt: skip
    slack = hoeffding_slack(loss_range=c_l, m=m, log_inverse_delta=price)
    derive("slack", slack, "c_l*sqrt(price/(2*m))", "deviation of the supremum from its mean")

    def add_rademacher_gap(name: str, log_rademacher: Real, formula: str, meaning: str) -> Real:
        with np.errstate(over="ignore"):
            gap = np.minimum(c_l, 2 * np.exp(log_rademacher) + slack)
        return derive(f"gap_{name}", gap, f"Min(c_l, 2*{formula} + slack)", meaning)

    log_centre = np.log(c_l / 2)
    derive("r0", log_centre, "c_l/2", "distance of every loss from its mid-range", log=True)
    derive("K_loss", np.log(l_l) + log_C, "l_l*C_F", "capacity of the loss class", log=True)
    norm = _add_entropy_integral(derive, np.log(l_l) + log_C, "K_loss", log_centre, "r0", m, "loss")
    formula = "R_loss"
    if ssm.outputs == 1:
        raw = _add_entropy_integral(derive, log_C, "C_F", log_b, "b", m, "raw")
        norm = np.minimum(norm, np.log(l_l) + raw)
        formula = "Min(R_loss, l_l*R_raw)"
    gaps = [add_rademacher_gap("norm", norm, formula, "norm-based bound on the gap")]
    add_counts(derive, blocks)
    if ssm.outputs == 1:
        hybrid = np.log(l_l) + _add_hybrid(derive, ssm, blocks, lipschitz, m)
        gaps.append(add_rademacher_gap("hybrid", hybrid, "l_l*R_hybrid", "hybrid bound on the gap"))
    gaps.append(_add_parameter_gap(derive, blocks, log_L, m, loss, price))
    names = ["gap_norm", *(["gap_hybrid"] if ssm.outputs == 1 else []), "gap_parameter"]
    derive("gap", np.minimum.reduce(gaps), f"Min({', '.join(names)})", "smallest of the bounds")


def _add_entropy_integral(
    derive: Derivation, log_K: Real, K: str, log_r0: Real, r0: str, m: Real, tag: str
) -> Real:
    """Minimum of the chained and textbook integrals and the trivial bound r0."""
    chained, ratio, depth = log_chained(log_K, log_r0, m)
    textbook = log_dudley(log_K, log_r0, m)
    derive(f"lam_{tag}", ratio, "", "ratio between successive covering scales")
    derive(f"J_{tag}", depth, "", "number of covering scales")
    derive(
        f"chained_{tag}", chained,
        f"{r0}*lam_{tag}**J_{tag} + sqrt(2)*(1 + 1/lam_{tag})"
        f"*(1 + (J_{tag} - 1)*sqrt(1 + lam_{tag}**2))*{K}/sqrt(m)",
        "chained entropy integral", log=True,
    )  # fmt: skip
    derive(
        f"textbook_{tag}", textbook,
        f"Piecewise((12*{K}/sqrt(m)*(1 + log({r0}*sqrt(m)/(3*{K}))), 3*{K} <= {r0}*sqrt(m)),"
        f" ({r0}, True))",
        "textbook entropy integral", log=True,
    )  # fmt: skip
    smallest = np.minimum(np.minimum(chained, textbook), log_r0)
    return derive(
        f"R_{tag}", smallest, f"Min({r0}, chained_{tag}, textbook_{tag})",
        "Rademacher complexity from the norm-based cover", log=True,
    )  # fmt: skip


def _add_hybrid(
    derive: Derivation,
    ssm: SelectiveSSMClass,
    blocks: tuple[Block, ...],
    lipschitz: LogLipschitz,
    m: Real,
) -> Real:
    r"""Rad <= radius + sqrt(N) b F / sqrt(m) + b sqrt(2 ln N_{A,q,p} / m), in units of b."""
    nonlinear = tuple(block for block in blocks if block.name in ("A", "q", "p", "E"))
    B, C = ssm.F_B / ssm.B_B, ssm.F_C / ssm.B_C
    # The rows of W_B and W_C are paired by a diagonal state matrix, and only by such a one.
    spread = np.minimum(B, C) if ssm.state_matrix == "diagonal" else B * C
    ratio = "Min(F_B/B_B, F_C/B_C)" if ssm.state_matrix == "diagonal" else "F_B*F_C/(B_B*B_C)"
    linear = np.sqrt(np.asarray(ssm.N, dtype=float)) * spread / np.sqrt(m)
    log_cover = entropy_of_radius(nonlinear, lipschitz.ratio)

    def objective(log_fraction: Real) -> Real:
        log_N = log_cover(log_fraction)
        return np.exp(log_fraction) + np.sqrt(2 * log_N / m)

    log_fraction = best_log_radius(objective, -_SEARCH_DEPTH, 0.0)
    derive("fraction_hybrid", log_fraction, "", "covering radius, as a fraction of b", log=True)
    log_radius = lipschitz.log_range + log_fraction
    derive("radius_hybrid", log_radius, "fraction_hybrid*b", "covering radius", log=True)
    formula = entropy_formula(nonlinear, "radius_hybrid")
    log_N = log_cover(log_fraction)
    derive("ln_N_hybrid", log_N, formula, "log covering number of decay and steps")
    total = lipschitz.log_range + np.log(objective(log_fraction) + linear)
    return derive(
        "R_hybrid", total,
        f"radius_hybrid + b*sqrt(N)*{ratio}/sqrt(m) + b*sqrt(2*ln_N_hybrid/m)",
        "Rademacher complexity, hybrid bound", log=True,
    )  # fmt: skip


def _add_parameter_gap(
    derive: Derivation,
    blocks: tuple[Block, ...],
    log_L: dict[str, Real],
    m: Real,
    loss: Loss,
    price: Real,
) -> Real:
    """Union bound over a cover: 2 l radius + c sqrt((ln N + price) / (2m))."""
    log_cover = entropy_of_radius(blocks, log_L)

    def objective(log_radius: Real) -> Real:
        deviation = loss.range * np.sqrt(
            (log_cover(log_radius) + price) / (2 * np.asarray(m, dtype=float))
        )
        return 2 * loss.lipschitz * np.exp(log_radius) + deviation

    largest = np.log(loss.range / (2 * loss.lipschitz))
    log_radius = best_log_radius(objective, largest - _SEARCH_DEPTH, largest)
    derive("radius", log_radius, "", "covering radius", log=True)
    log_N = log_cover(log_radius)
    derive("ln_N", log_N, entropy_formula(blocks, "radius"), "log covering number")
    gap = np.minimum(loss.range, objective(log_radius))
    formula = "Min(c_l, 2*l_l*radius + c_l*sqrt((ln_N + price)/(2*m)))"
    return derive("gap_parameter", gap, formula, "parameter-counting bound on the gap")


def add_lower(derive: Derivation, ssm: SelectiveSSMClass, m: Real, T: Real) -> Real:
    """Extend `derive` by the matching lower bound on the Rademacher complexity."""
    D = softplus(ssm.largest_step_logit)
    derive("D_lower", D, "softplus(p_hi + B_q*B_u)", "constant step of the extremal model")
    log_Pi = np.log(ssm.B_w) + np.log(ssm.B_C) + np.log(ssm.B_B) + 3 * np.log(ssm.B_u)
    reach = log_Pi + log_G1(ssm.s_A, D, T)
    formula = "B_w*B_C*B_B*B_u**3*D_lower*S1(s_A*D_lower, T)"
    derive("b_lower", reach, formula, "output of the extremal model", log=True)
    constant = derive("xi_m", log_xi(m), "xi(m)", "E|sum of m signs|/m", log=True)
    value = reach + constant
    return derive("R_lower", value, "b_lower*xi_m", "Rademacher complexity, lower bound", log=True)
