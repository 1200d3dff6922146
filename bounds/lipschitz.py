r"""Output range and Lipschitz constants of a selective state-space model (theorems D1, D2, D2').

Every function takes a `SelectiveSSMClass` and a sequence length `T`; the private ones extend a
`Derivation` and work on grids, the public ones return a `Bound`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bounds import checks
from bounds.derivation import Derivation
from bounds.result import Bound, Source
from bounds.ssm import SelectiveSSMClass
from bounds.stability import (
    Real,
    log_G1,
    log_G2,
    log_H,
    log_mean_index,
    log_softplus,
    softplus,
)

SOURCE = Source("seqtheory", "theorem D2")
_G1 = "D*S1(s_A*D, T)"
_G2 = (
    "Piecewise((D**2*S2(s_A*D, T), s_A >= 0),"
    " (Min(c(-s_A*D)*J(s_A, T*D), D**2*S2(s_A*D_min, T)), True))"
)
_H = (
    "Piecewise((Min(D/E + T*D/E + s_A*G2, Max(Abs(a_lo), s_A)*G2), s_A >= 0),"
    " (Min(D/E + I(s_A, T*D), Max(Abs(a_lo), -s_A)*G2), True))"
)


@dataclass(frozen=True)
class LogLipschitz:
    """Logarithms of the Lipschitz constants, relative to the output range.

    Constants and range share a factor that overflows for growing models; their ratios do not.
    """

    log_range: Real
    ratio: dict[str, Real]
    """ln(L_i / b) for the blocks w, B, C, A, q, p and the input u."""

    @property
    def constants(self) -> dict[str, Real]:
        """Logarithm of each constant, ln L_i."""
        return {block: self.log_range + ratio for block, ratio in self.ratio.items()}


def output_range(ssm: SelectiveSSMClass, *, T: Real) -> Bound:
    r"""Largest output, $|z| \le b = \Pi\,G_1(s_A, T)$ with $\Pi = B_w B_C B_B B_u^3$.

    Attained by rank-one weights along one input direction with constant steps, for every sign of
    `s_A`, when all channels share their step. The state obeys $\|x_T\|_2 \le B_B B_u^2 G_1$
    (term `state`). With one step sequence for each channel or head a decaying model can do more
    than any single sequence: the sum then carries the factor $\sqrt{n_{steps}}$, at most $TD$.
    """
    checks.count(T=T)
    derive = Derivation(ssm.inputs(T=T))
    add_range(derive, ssm, T)
    return derive.bound("|z| <= b for every model and every admissible sequence", SOURCE)


def lipschitz_constants(ssm: SelectiveSSMClass, *, T: Real) -> Bound:
    r"""Lipschitz constants of the output in each parameter block, and `L_u` in the input.

    $|z-z'| \le L_w\|\delta w\|_2 + L_B\|\delta W_B\|_2 + L_C\|\delta W_C\|_2 + L_A \max|\delta a| +
    L_q\|\delta q\|_2 + L_p|\delta p|$ over the class; for a general state matrix $\|\delta A\|_2$
    replaces $\max|\delta a|$. If $\|\delta u_t\|_2 \le \epsilon$ for all `t`, $|\delta z| \le L_u
    \epsilon$. The value is the sum $L$ of the parameter constants: the Lipschitz constant in the
    largest block perturbation.
    """
    checks.count(T=T)
    derive = Derivation(ssm.inputs(T=T))
    lipschitz = add_lipschitz(derive, ssm, T)
    names = ["w", "B", "C", "A", "q", "p"]
    total = lipschitz.log_range + np.logaddexp.reduce([lipschitz.ratio[name] for name in names])
    formula = " + ".join(f"L_{name}" for name in names)
    derive("L", total, formula, "Lipschitz constant in the largest block perturbation", log=True)
    return derive.bound(
        "|z - z'| <= sum_i L_i ||theta_i - theta_i'|| over the class", SOURCE, *assumptions(ssm)
    )


def assumptions(ssm: SelectiveSSMClass) -> tuple[str, ...]:
    """What a bound over this class takes for granted beyond its budgets."""
    return {
        "diagonal": (),
        "log_norm": ("the logarithmic norm of every state matrix is at most s_A",),
        "transient": ("||exp(tau A)||_2 <= K_A exp(s_A tau) for every state matrix and tau >= 0",),
    }[ssm.state_matrix]


def characteristic_length(ssm: SelectiveSSMClass) -> Real:
    r"""Steps after which a decaying model forgets, $1/(|s_A| D)$; infinite for $s_A \ge 0$.

    The bounds saturate within a few multiples of it. The published bound saturates only at
    `published_characteristic_length`, which is longer by the ratio of the extreme step sizes.
    """
    return _inverse_rate(ssm, softplus(ssm.largest_step_logit))


def published_characteristic_length(ssm: SelectiveSSMClass) -> Real:
    r"""$1/(|s_A| D_{\min})$, the length scale of Honarpisheh et al. (2025), Theorem 3.3."""
    return _inverse_rate(ssm, softplus(ssm.smallest_step_logit))


def _inverse_rate(ssm: SelectiveSSMClass, step_size: Real) -> Real:
    with np.errstate(divide="ignore"):
        return 1 / (np.maximum(-np.asarray(ssm.s_A), 0.0) * step_size)


def add_range(derive: Derivation, ssm: SelectiveSSMClass, T: Real) -> dict[str, Real]:
    """Extend `derive` by the step range, the sum over steps, and the output range `b`."""
    D, D_min = _add_steps(derive, ssm)
    log_Pi = np.log(ssm.B_w) + np.log(ssm.B_C) + np.log(ssm.B_B) + 3 * np.log(ssm.B_u)
    derive("Pi", log_Pi, "B_w*B_C*B_B*B_u**3", "product of the weight and input norms", log=True)
    G1 = one_G1 = log_G1(ssm.s_A, D, T)
    derive("G1", G1, _G1, "effective memory of one step sequence (time)", log=True)
    if np.any(np.greater(ssm.n_steps, 1)):
        G1 = _over_sequences(ssm, G1, np.log(T) + np.log(D))
        derive("G1_all", G1, _all_sequences("G1", "T*D"), "the same, over all sequences", log=True)
    if ssm.state_matrix == "transient":
        G1 = G1 + np.log(ssm.transient_constant)
        derive("G1_K", G1, f"K_A*{_name(ssm, 'G1')}", "with transient growth", log=True)
    state = np.log(ssm.B_B) + 2 * np.log(ssm.B_u) + G1
    derive("state", state, f"B_B*B_u**2*{_last(ssm)}", "norm of the state", log=True)
    b = log_Pi + G1
    derive("b", b, f"Pi*{_last(ssm)}", "output range", log=True)
    return {"D": D, "D_min": D_min, "one_G1": one_G1, "G1": G1, "b": b}


def add_lipschitz(derive: Derivation, ssm: SelectiveSSMClass, T: Real) -> LogLipschitz:
    """Extend `derive` by all Lipschitz constants."""
    ranges = add_range(derive, ssm, T)
    b = ranges["b"]
    G2_ratio, H_ratio = _add_sensitivities(derive, ssm, T, ranges)
    G2, H = _name(ssm, "G2"), _name(ssm, "H") if ssm.state_matrix == "diagonal" else "H"
    ratio: dict[str, Real] = {}

    def add(block: str, log_ratio: Real, formula: str, meaning: str) -> None:
        ratio[block] = log_ratio
        derive(f"L_{block}", b + log_ratio, formula, f"Lipschitz constant in {meaning}", log=True)

    last_G1 = _last(ssm)
    add("w", -np.log(ssm.B_w), f"B_C*B_B*B_u**3*{last_G1}", "the readout w")
    add("B", -np.log(ssm.B_B), f"B_w*B_C*B_u**3*{last_G1}", "W_B")
    add("C", -np.log(ssm.B_C), f"B_w*B_B*B_u**3*{last_G1}", "W_C")
    square = "K_A**2*" if ssm.state_matrix == "transient" else ""
    add("A", G2_ratio, f"{square}Pi*{G2}", "the state matrix A")
    step = np.logaddexp(0.0, H_ratio)
    add("p", step, f"Pi*({last_G1} + {H})", "the step bias p")
    add("q", np.log(ssm.B_u) + step, "B_u*L_p", "the step projection q")
    with np.errstate(divide="ignore"):
        through_steps = np.log(ssm.B_q) + step
    direct = np.log(3) - np.log(ssm.B_u)
    add("u", np.logaddexp(direct, through_steps), f"3*Pi*{last_G1}/B_u + B_q*L_p", "the input")
    return LogLipschitz(b, ratio)


def _add_sensitivities(
    derive: Derivation, ssm: SelectiveSSMClass, T: Real, ranges: dict[str, Real]
) -> tuple[Real, Real]:
    r"""Add the sums G2 and H; returns $\ln(L_A/b)$ and $\ln(H/G_1)$.

    For $s_A > 0$ the sums are of order $e^{s_A T D}$ and their logarithms of order $T$, so that
    subtracting these would lose the digits that covering numbers depend on.
    """
    s_A, D, D_min = ssm.s_A, ranges["D"], ranges["D_min"]
    one_G1, G1, K = ranges["one_G1"], ranges["G1"], np.log(ssm.transient_constant)
    G2 = log_G2(s_A, D, D_min, T)
    derive("G2", G2, _G2, "time-weighted memory of one step sequence (time^2)", log=True)
    growing = np.log(D) + log_mean_index(np.maximum(s_A, 0) * D, T)
    if ssm.state_matrix == "diagonal":
        H = log_H(s_A, D, D_min, ssm.a_lo, T)
        derive("H", H, _H, "sensitivity of one sequence's decay to its steps (time)", log=True)
        with np.errstate(divide="ignore"):
            flat = np.log(D / np.e) + np.log1p(T) - one_G1
            envelope = np.logaddexp(flat, np.log(np.maximum(s_A, 0)) + growing)
            extreme = np.log(np.maximum(np.abs(ssm.a_lo), np.abs(s_A))) + growing
        growing_H = np.minimum(envelope, extreme)
    if np.any(np.greater(ssm.n_steps, 1)):
        with np.errstate(divide="ignore"):
            G2_flat = 2 * np.log(D) + np.log(T) + np.log(np.subtract(T, 1)) - np.log(2)
        G2 = _over_sequences(ssm, G2, G2_flat)
        formula = _all_sequences("G2", "D**2*T*(T - 1)/2")
        derive("G2_all", G2, formula, "G2 over all sequences", log=True)
        if ssm.state_matrix == "diagonal":
            H = _over_sequences(ssm, H, np.log(T) + np.log(D) - 1)
            derive("H_all", H, _all_sequences("H", "T*D/E"), "H over all sequences", log=True)
    stable = np.less(s_A, 0)
    # Pi G2 K^2 over Pi G1 K; G1 has its factor K already.
    G2_ratio = np.where(stable, G2 - G1 + 2 * K, growing + K)
    if ssm.state_matrix == "diagonal":
        return G2_ratio[()], np.where(stable, H - G1, growing_H)[()]
    with np.errstate(divide="ignore"):
        log_B_A = np.log(ssm.B_A)
    factor = "K_A*" if ssm.state_matrix == "transient" else ""
    formula = f"{factor}B_A*{_name(ssm, 'G2')}"
    derive("H", log_B_A + K + G2, formula, "sensitivity of the decay to the steps", log=True)
    return G2_ratio[()], log_B_A + np.where(stable, G2 + K - G1, growing)[()]


def _add_steps(derive: Derivation, ssm: SelectiveSSMClass) -> tuple[Real, Real]:
    largest, smallest = "p_hi + B_q*B_u", "p_lo - B_q*B_u"
    if ssm.step_logits is not None:
        largest, smallest = f"Min({largest}, v_hi)", f"Max({smallest}, v_lo)"
    D = softplus(ssm.largest_step_logit)
    derive("D", D, f"softplus({largest})", "largest step size (time)")
    log_D_min = log_softplus(ssm.smallest_step_logit)
    derive("D_min", log_D_min, f"softplus({smallest})", "smallest step size (time)", log=True)
    return D, softplus(ssm.smallest_step_logit)


def _over_sequences(ssm: SelectiveSSMClass, log_sum: Real, log_flat: Real) -> Real:
    """Sum over k of the largest among several step sequences, from the sum of one of them.

    Growing sums are dominated term by term by the constant sequence. Decaying ones are not: group
    the readout by sequence, ||w||_1 over groups <= sqrt(n_steps) ||w||_2; or bound term by term at
    s = 0 (`log_flat`).
    """
    spread = np.minimum(log_sum + 0.5 * np.log(ssm.n_steps), log_flat)
    return np.where(np.less(ssm.s_A, 0), spread, log_sum)[()]


def _all_sequences(name: str, flat: str) -> str:
    return f"Piecewise(({name}, s_A >= 0), (Min(sqrt(n_steps)*{name}, {flat}), True))"


def _name(ssm: SelectiveSSMClass, name: str) -> str:
    return f"{name}_all" if np.any(np.greater(ssm.n_steps, 1)) else name


def _last(ssm: SelectiveSSMClass) -> str:
    return "G1_K" if ssm.state_matrix == "transient" else _name(ssm, "G1")
