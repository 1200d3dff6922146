r"""Members of a `SelectiveSSMClass`, drawn at random or extremal, and their outputs.

A batch of models is one `Members` of arrays with a leading axis; model `i` reads sequence `i`.
Draws favour the edge of the class, where inequalities are tight: norms at their budgets, equal
decays, steps at their ends. NumPy, float64.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from bounds.ssm import SelectiveSSMClass

Sequences = Float[ndarray, "models T d"]


@dataclass(frozen=True)
class Members:
    """Parameters of a batch of selective SSMs; `q` and `p` have one row for each step sequence."""

    w: Float[ndarray, "models d"]
    B: Float[ndarray, "models N d"]
    C: Float[ndarray, "models N d"]
    A: Float[ndarray, "models d N"]
    q: Float[ndarray, "models steps d"]
    p: Float[ndarray, "models steps"]

    def step_sizes(self, u: Sequences) -> Float[ndarray, "models T steps"]:
        r"""$\Delta_t = \mathrm{softplus}(p + \langle q, u_t\rangle)$."""
        return np.logaddexp(0.0, self.p[:, None] + np.einsum("msd,mtd->mts", self.q, u))

    def states(self, u: Sequences) -> Float[ndarray, "models d N"]:
        """State after the last input, by the recurrence."""
        models, T, d = u.shape
        step_sizes = np.repeat(self.step_sizes(u), d // self.q.shape[1], axis=2)
        inputs = np.einsum("mnd,mtd->mtn", self.B, u)
        x = np.zeros((models, d, self.A.shape[2]))
        for t in range(T):
            step = step_sizes[:, t, :, None]
            x = np.exp(step * self.A) * x + step * u[:, t, :, None] * inputs[:, t, None, :]
        return x

    def outputs(self, u: Sequences) -> Float[ndarray, " models"]:
        r"""$z = \langle w, y_T \rangle$ with $y_T = (W_C u_T)^\top x_T$."""
        read = np.einsum("mnd,md->mn", self.C, u[:, -1])
        return np.einsum("md,mdn,mn->m", self.w, self.states(u), read)

    def toward(self, other: Members, block: str, weight: float) -> Members:
        """These models with one block moved a fraction of the way to that of `other`.

        The class is convex, so they remain in it.
        """
        mixed = (1 - weight) * getattr(self, block) + weight * getattr(other, block)
        return replace(self, **{block: mixed})

    def distance(self, other: Members) -> dict[str, Float[ndarray, " models"]]:
        """Per block, the norm in which the Lipschitz constants are stated."""
        gap = {f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)}
        return {
            "w": np.linalg.norm(gap["w"], axis=1),
            "B": np.linalg.norm(gap["B"], 2, axis=(1, 2)),
            "C": np.linalg.norm(gap["C"], 2, axis=(1, 2)),
            "A": np.abs(gap["A"]).max(axis=(1, 2)),
            "q": np.linalg.norm(gap["q"], axis=2).max(axis=1),
            "p": np.abs(gap["p"]).max(axis=1),
        }


def random_members(rng: np.random.Generator, ssm: SelectiveSSMClass, models: int) -> Members:
    """Models within all budgets of the class: spectral, Frobenius, entrywise and of the decay."""
    d, N, steps = int(ssm.d), int(ssm.N), int(ssm.n_steps)
    M_q = ssm.M_q if ssm.M_q is not None else np.inf
    q = _directions(rng, (models, steps, d))
    longest = np.linalg.norm(q, axis=2).max(axis=1)
    q *= _shrink(rng, models, (ssm.B_q / longest, M_q / np.abs(q).sum((1, 2))))[:, None, None]
    w = _directions(rng, (models, 1, d))
    w *= _shrink(rng, models, (ssm.B_w / np.linalg.norm(w, axis=(1, 2)), _l1(w, ssm.M_w)))[
        :, None, None
    ]
    return Members(
        w=w[:, 0],
        B=_projection(rng, (models, N, d), ssm.B_B, ssm.F_B, ssm.M_B),
        C=_projection(rng, (models, N, d), ssm.B_C, ssm.F_C, ssm.M_C),
        A=_decays(rng, ssm, models),
        q=q,
        p=_toward_ends(rng, (models, steps), ssm.p_lo, ssm.p_hi),
    )


def extremal_members(ssm: SelectiveSSMClass) -> tuple[Members, Float[ndarray, "1 d"]]:
    """The model that attains the output range, and the input it needs at every time step.

    Everything is rank one along the first input direction, and every step is the largest.
    """
    d, N, steps = int(ssm.d), int(ssm.N), int(ssm.n_steps)
    model = Members(
        w=np.zeros((1, d)),
        B=np.zeros((1, N, d)),
        C=np.zeros((1, N, d)),
        A=np.full((1, d, N), min(0.0, ssm.s_A)),
        q=np.zeros((1, steps, d)),
        p=np.full((1, steps), float(ssm.p_hi)),
    )
    model.w[0, 0], model.B[0, 0, 0], model.C[0, 0, 0] = ssm.B_w, ssm.B_B, ssm.B_C
    model.A[0, 0, 0] = ssm.s_A
    model.q[0, :, 0] = ssm.B_q
    u = np.zeros((1, d))
    u[0, 0] = ssm.B_u
    return model, u


def random_sequences(
    rng: np.random.Generator, ssm: SelectiveSSMClass, models: int, T: int
) -> Sequences:
    """Inputs within the unit of `B_u`: a third dense, a third one repeated, a third one-hot."""
    d = int(ssm.d)
    u = rng.standard_normal((models, T, d))
    third = models // 3
    u[:third] = u[:third, :1]
    hot = rng.integers(d, size=(third, T))
    u[third : 2 * third] = np.eye(d)[hot] * rng.choice([-1.0, 1.0], size=(third, T, 1))
    u *= ssm.B_u / np.linalg.norm(u, axis=2, keepdims=True)
    u[-third:] *= rng.uniform(0, 1, size=(third, T, 1)) ** 0.1 if third else 1.0
    return u


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> ndarray:
    """Gaussian, sparse or rank-one arrays, a third each."""
    models = shape[0]
    x = rng.standard_normal(shape)
    third = models // 3
    keep = rng.uniform(size=(third, *shape[1:])) < 0.3
    keep[:, 0, 0] = True
    x[:third] *= keep
    x[third : 2 * third] = x[third : 2 * third, :, :1] * x[third : 2 * third, :1, :]
    return x


def _shrink(rng: np.random.Generator, models: int, limits: tuple[ndarray, ...]) -> ndarray:
    """Factor that meets every limit; mostly exactly, sometimes well inside."""
    radius = np.where(rng.uniform(size=models) < 0.7, 1.0, rng.uniform(size=models))
    return radius * np.minimum.reduce(limits)


def _l1(x: ndarray, budget: float | None) -> ndarray:
    total = np.abs(x).sum(axis=(1, 2))
    return (np.inf if budget is None else budget) / total


def _projection(
    rng: np.random.Generator, shape: tuple[int, int, int], B: float, F: float, M: float
) -> ndarray:
    x = _directions(rng, shape)
    spectral = B / np.linalg.norm(x, 2, axis=(1, 2))
    frobenius = F / np.linalg.norm(x, axis=(1, 2))
    return x * _shrink(rng, shape[0], (spectral, frobenius, _l1(x, M)))[:, None, None]


def _decays(rng: np.random.Generator, ssm: SelectiveSSMClass, models: int) -> ndarray:
    d, N = int(ssm.d), int(ssm.N)
    heads = d if ssm.heads is None else int(ssm.heads)
    a = _toward_ends(rng, (models, heads, N if ssm.heads is None else 1), ssm.a_lo, ssm.s_A)
    # Move toward the admissible point of least absolute sum until the budget M_A is met.
    nearest = min(max(0.0, ssm.a_lo), ssm.s_A)
    least = abs(nearest) * a[0].size
    excess = np.abs(a).sum(axis=(1, 2)) - least
    weight = np.minimum(1.0, (ssm.M_A - least) / np.maximum(excess, 1e-300))
    a = nearest + np.maximum(weight, 0.0)[:, None, None] * (a - nearest)
    return np.broadcast_to(np.repeat(a, d // heads, axis=1), (models, d, N)).copy()


def _toward_ends(
    rng: np.random.Generator, shape: tuple[int, ...], low: float, high: float
) -> ndarray:
    """Uniform between the ends, or at one of them."""
    kind = rng.integers(3, size=(shape[0], *(1,) * (len(shape) - 1)))
    x = rng.uniform(low, high, size=shape)
    return np.where(
        kind == 0, high, np.where(kind == 1, np.where(x > (low + high) / 2, high, low), x)
    )


def reference_class(**changes: object) -> SelectiveSSMClass:
    """The small class the studies share, with single fields changed: 57 parameters, unit norms."""
    fields = {
        "d": 4, "N": 4, "s_A": -0.5, "a_lo": -2.0, "p_lo": -1.0, "p_hi": 0.0,
        "M_w": 2.0, "M_B": 4.0, "M_C": 4.0, "M_q": 2.0,
    }  # fmt: skip
    return SelectiveSSMClass(**{**fields, **changes})
