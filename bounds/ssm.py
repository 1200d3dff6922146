r"""Selective state-space models: the hypothesis class and its budgets.

    step        Delta_t = softplus(p + <q, u_t>)
    recurrence  x_t = exp(Delta_t A) x_{t-1} + Delta_t (W_B u_t) u_t,   y_t = (W_C u_t)^T x_t
    output      z = <w, y_T>                              (d channels, N states per channel)

Budgets as in Honarpisheh et al. (2025), Assumptions 3.1 to 3.4, normalised first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bounds import checks
from bounds.stability import Real

STEPS = ("shared", "per_channel", "per_head")
STATE_MATRICES = ("diagonal", "log_norm", "transient")
_BUDGETS = ("d", "N", "s_A", "a_lo", "p_lo", "p_hi", "B_u", "B_w", "B_B", "B_C", "B_q")
_NORMS = ("M_w", "M_B", "M_C", "M_q", "M_A", "F_B", "F_C")


@dataclass(frozen=True, kw_only=True, eq=False)
class SelectiveSSMClass:
    r"""All selective SSMs within stated budgets; after construction the budgets are normalised.

    Inputs satisfy $\|u_t\|_2 \le B_u$. `B_*` bound spectral norms (of vectors: Euclidean), `M_*`
    sums of absolute entries, `F_*` Frobenius norms; an omitted `M_*` or `F_*` follows from the
    others. Normalisation: $B \le F \le M$ and $F \le \sqrt{\mathrm{rank}}\,B$, $M \le \sqrt n\,F$.

    The state matrix has spectral abscissa at most `s_A` (1/time) and, when diagonal, entries in
    `[a_lo, s_A]` with absolute sum at most `M_A`. `state_matrix="log_norm"` takes `s_A` as bound on
    the logarithmic norm of a general matrix with $\|A\|_2 \le$ `B_A`; `"transient"` assumes
    $\|e^{\tau A}\| \le K e^{s_A \tau}$ with `K = transient_constant`.

    Step sizes: pre-activations lie in $[p_{lo} - B_q B_u,\ p_{hi} + B_q B_u]$, restricted to
    `step_logits` where that is part of the class. `steps` says how many step sequences there are:
    one (`"shared"`, the model of the paper), one for each channel (Mamba; `step_rank` is the rank
    of its projection; `B_q` bounds every row) or one for each of `heads` heads with a scalar decay
    each (Mamba-2). `outputs` is the number of rows of the readout; `vocab` > 0 adds a learned
    embedding table of that many rows of norm at most `B_u`.

    Any numeric field may be an array; they broadcast, and the class stands for a grid of classes
    (see `bounds.curve`). Raises ValueError naming the field, its value and what is allowed,
    also where no model satisfies the budgets together.
    """

    d: Real
    N: Real
    s_A: Real
    a_lo: Real
    p_lo: Real
    p_hi: Real
    B_u: Real = 1.0
    B_w: Real = 1.0
    B_B: Real = 1.0
    B_C: Real = 1.0
    B_q: Real = 1.0
    M_w: Real | None = None
    M_B: Real | None = None
    M_C: Real | None = None
    M_q: Real | None = None
    M_A: Real | None = None
    M_E: Real | None = None
    F_B: Real | None = None
    F_C: Real | None = None
    step_logits: tuple[Real, Real] | None = None
    steps: str = "shared"
    heads: int | None = None
    step_rank: int | None = None
    state_matrix: str = "diagonal"
    B_A: Real | None = None
    transient_constant: Real = 1.0
    outputs: int = 1
    vocab: int = 0

    def __post_init__(self) -> None:
        checks.count(d=self.d, N=self.N, outputs=self.outputs)
        checks.positive(B_u=self.B_u, B_w=self.B_w, B_B=self.B_B, B_C=self.B_C)
        checks.nonnegative(B_q=self.B_q)
        checks.ordered(a_lo=self.a_lo, s_A=self.s_A)
        checks.ordered(p_lo=self.p_lo, p_hi=self.p_hi)
        for name in ("M_w", "M_B", "M_C", "F_B", "F_C", "M_E"):
            if getattr(self, name) is not None:
                checks.positive(**{name: getattr(self, name)})
        for name in ("M_q", "M_A", "B_A"):
            if getattr(self, name) is not None:
                checks.nonnegative(**{name: getattr(self, name)})
        if np.ndim(self.vocab) or np.ndim(self.outputs):
            raise ValueError(
                f"vocab and outputs must be single whole numbers, not arrays, got "
                f"vocab={self.vocab!r} and outputs={self.outputs!r}"
            )
        if self.vocab != 0 or isinstance(self.vocab, bool):
            checks.count(vocab=self.vocab)
        self._check_structure()
        self._normalise_budgets()
        self._normalise_state_matrix()
        with np.errstate(over="ignore"):
            largest = self.largest_step_logit
        if np.any(np.less(largest, -700)) or np.any(np.greater(largest, 1e150)):
            raise ValueError(
                f"the largest step logit p_hi + B_q*B_u must lie in [-700, 1e150], got {largest!r}"
            )
        if np.any(np.greater(self.smallest_step_logit, largest)):
            raise ValueError(
                "step_logits must overlap the range of p -+ B_q*B_u, got "
                f"step_logits={self.step_logits!r} with p_lo={self.p_lo!r} and p_hi={self.p_hi!r}"
            )

    def _check_structure(self) -> None:
        checks.one_of(STEPS, steps=self.steps)
        checks.one_of(STATE_MATRICES, state_matrix=self.state_matrix)
        if (self.heads is not None) != (self.steps == "per_head"):
            raise ValueError(
                f"heads must be given exactly for steps='per_head', got heads={self.heads!r} "
                f"with steps={self.steps!r}"
            )
        if self.heads is not None:
            checks.count(heads=self.heads)
            if np.any(np.mod(self.d, self.heads)):
                raise ValueError(f"heads must divide d, got heads={self.heads} and d={self.d}")
        if self.step_rank is not None:
            checks.count(step_rank=self.step_rank)
            if self.steps != "per_channel":
                raise ValueError(
                    f"step_rank must be left out unless steps='per_channel', got {self.step_rank}"
                )
        if self.step_logits is not None:
            if not isinstance(self.step_logits, tuple) or len(self.step_logits) != 2:
                raise ValueError(
                    f"step_logits must be a pair of numbers (lowest, highest), got "
                    f"{self.step_logits!r}"
                )
            lowest, highest = self.step_logits
            checks.ordered(lowest_step_logit=lowest, highest_step_logit=highest)
            if self.vocab:
                raise ValueError(
                    "step_logits must be left out when vocab > 0: over embeddings and projections "
                    "together, models with bounded steps do not form a convex class"
                )
        if (self.B_A is not None) != (self.state_matrix != "diagonal"):
            raise ValueError(
                "B_A must be given exactly for a state matrix that is not diagonal, got "
                f"B_A={self.B_A!r} with state_matrix={self.state_matrix!r}"
            )
        checks.positive(transient_constant=self.transient_constant)
        if np.any(np.less(self.transient_constant, 1)):
            raise ValueError(
                f"transient_constant must be a number >= 1, got {self.transient_constant!r}"
            )
        if self.state_matrix != "transient" and np.any(np.not_equal(self.transient_constant, 1)):
            raise ValueError("transient_constant must be left out unless state_matrix='transient'")

    def _normalise_budgets(self) -> None:
        d, N = np.asarray(self.d, dtype=float), np.asarray(self.N, dtype=float)
        shapes = {
            "w": (np.float64(self.outputs), d),
            "B": (N, d),
            "C": (N, d),
            "q": (np.float64(self.n_steps), d),
        }
        for name, (rows, columns) in shapes.items():
            B = getattr(self, f"B_{name}")
            M = _or_infinite(getattr(self, f"M_{name}"))
            F = _or_infinite(getattr(self, f"F_{name}", None))
            # B_q bounds each of the rows, the other B's a spectral norm.
            stretch = rows if name == "q" else np.minimum(rows, columns)
            B = np.minimum(np.minimum(B, F), M)
            F = np.minimum(np.minimum(F, M), np.sqrt(stretch) * B)
            M = np.minimum(M, np.sqrt(rows * columns) * F)
            self._set(**{f"B_{name}": B, f"M_{name}": M})
            if name in ("B", "C"):
                self._set(**{f"F_{name}": F})
        if self.vocab:
            B_u = np.minimum(self.B_u, _or_infinite(self.M_E))
            largest = np.sqrt(self.vocab * d) * np.sqrt(self.vocab) * B_u
            self._set(B_u=B_u, M_E=np.minimum(_or_infinite(self.M_E), largest))
        elif self.M_E is not None:
            raise ValueError(f"M_E must be left out unless vocab > 0, got {self.M_E!r}")

    def _normalise_state_matrix(self) -> None:
        if self.state_matrix == "diagonal":
            entry = np.maximum(np.abs(self.a_lo), np.abs(self.s_A))
            M_A = np.minimum(_or_infinite(self.M_A), self.n_A * entry)
            cap, least = M_A, np.maximum(np.maximum(-np.asarray(self.s_A), self.a_lo), 0.0)
            decays = self.n_A
        else:
            largest = np.sqrt(np.multiply(self.n_A, np.multiply(self.d, self.N))) * self.B_A
            M_A = np.minimum(_or_infinite(self.M_A), largest)
            cap, least = np.minimum(M_A, self.B_A), np.maximum(-np.asarray(self.s_A), 0.0)
            decays = np.multiply(self.d, self.N)  # the trace alone sums to so many times s_A
            if np.any(least > _or_infinite(self.B_A)):
                raise ValueError(
                    f"B_A must be at least -s_A = {least!r}, got {self.B_A!r}: no state matrix "
                    "satisfies both"
                )
        if np.any(M_A < decays * least * (1 - 1e-12)):
            raise ValueError(
                f"M_A must be at least the number of decays times their distance from 0 = "
                f"{decays * least!r}, got {self.M_A!r}: no state matrix satisfies both"
            )
        self._set(
            M_A=M_A, s_A=np.where(np.greater(self.s_A, 0), np.minimum(self.s_A, cap), self.s_A)[()]
        )

    def _set(self, **values: Real) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value if np.ndim(value) else float(value))

    @property
    def n_steps(self) -> Real:
        """Number of step sequences."""
        if self.steps == "shared":
            return 1
        return self.d if self.steps == "per_channel" else self.heads  # type: ignore[return-value]

    @property
    def n_A(self) -> Real:
        """Number of free entries of the state matrix."""
        if self.state_matrix != "diagonal":
            return np.multiply(self.d, np.square(self.N))
        return np.multiply(self.d, self.N) if self.heads is None else self.heads

    @property
    def largest_step_logit(self) -> Real:
        """Largest pre-activation of a step size."""
        largest = np.add(self.p_hi, np.multiply(self.B_q, self.B_u))
        return largest if self.step_logits is None else np.minimum(largest, self.step_logits[1])

    @property
    def smallest_step_logit(self) -> Real:
        """Smallest pre-activation of a step size."""
        smallest = np.subtract(self.p_lo, np.multiply(self.B_q, self.B_u))
        return smallest if self.step_logits is None else np.maximum(smallest, self.step_logits[0])

    def inputs(self, **more: Real) -> Mapping[str, Real]:
        """The normalised budgets by name, with whatever else a theorem takes."""
        names = (*_BUDGETS, *_NORMS)
        named = {name: getattr(self, name) for name in names}
        if self.step_logits is not None:
            named |= dict(zip(("v_lo", "v_hi"), self.step_logits, strict=True))
        if self.state_matrix != "diagonal":
            named |= dict(B_A=self.B_A, K_A=self.transient_constant)
        if self.step_rank is not None:
            named["rank"] = self.step_rank
        if self.vocab:
            named |= dict(V=self.vocab, M_E=self.M_E)
        return {**named, "outputs": self.outputs, "n_steps": self.n_steps, **more}


def _or_infinite(budget: Real | None) -> Real:
    return np.inf if budget is None else budget
