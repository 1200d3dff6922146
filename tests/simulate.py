r"""A selective state-space model run step by step, and members of a class to run: an oracle.

    step        Delta_{t,j} = softplus(p_h + <q_h, u_t>),  h the step sequence of channel j
    recurrence  X_t[j] = e^{Delta_{t,j} A_j} X_{t-1}[j] + Delta_{t,j} u_t[j] W_B u_t
    output      z = W (X_T W_C u_T)

Plain NumPy that shares nothing with the code under test. Every array may carry leading batch axes,
one model and one input sequence for each index.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy import ndarray

from bounds.ssm import SelectiveSSMClass


@dataclass(frozen=True)
class Model:
    """Weights; leading axes are batch axes."""

    w: ndarray  # (..., outputs, d)
    B: ndarray  # (..., N, d)
    C: ndarray  # (..., N, d)
    A: ndarray  # (..., d, N) diagonal, or (..., d, N, N)
    q: ndarray  # (..., n_steps, d)
    p: ndarray  # (..., n_steps)

    @property
    def general(self) -> bool:
        return self.A.ndim > self.B.ndim


def step_sizes(model: Model, u: ndarray) -> ndarray:
    """Step of every channel at every time: (..., T, d) from inputs (..., T, d)."""
    logits = np.einsum("...td,...hd->...th", u, model.q) + model.p[..., None, :]
    return np.repeat(np.logaddexp(0, logits), u.shape[-1] // model.q.shape[-2], axis=-1)


def exponential(A: ndarray) -> ndarray:
    """Matrix exponentials of a stack: halve, Taylor series, square."""
    halvings = max(0, 2 + int(np.ceil(np.log2(max(np.abs(A).sum(-1).max(), 1e-300)))))
    A = A / 2**halvings
    term = total = np.broadcast_to(np.eye(A.shape[-1]), A.shape)
    for k in range(1, 15):
        term = term @ A / k
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total


def final_state(model: Model, u: ndarray) -> ndarray:
    """State after the last input: (..., d, N)."""
    steps = step_sizes(model, u)
    drive = np.einsum("...nd,...td->...tn", model.B, u)
    batch = np.broadcast_shapes(u.shape[:-2], model.B.shape[:-2])
    X = np.zeros((*batch, u.shape[-1], model.B.shape[-2]))
    for t in range(u.shape[-2]):
        step = steps[..., t, :, None]
        if model.general:
            X = np.einsum("...jnk,...jk->...jn", exponential(step[..., None] * model.A), X)
        else:
            X = np.exp(step * model.A) * X
        X = X + step * u[..., t, :, None] * drive[..., t, None, :]
    return X


def outputs(model: Model, u: ndarray) -> ndarray:
    """Outputs after the last input: (..., outputs)."""
    read = np.einsum("...nd,...d->...n", model.C, u[..., -1, :])
    return np.einsum("...od,...dn,...n->...o", model.w, final_state(model, u), read)


def unrolled(model: Model, u: ndarray) -> ndarray:
    """Outputs of one diagonal model on one sequence, from elapsed times instead of a recurrence."""
    steps = step_sizes(model, u)
    total = 0.0
    for k in range(len(u)):
        decay = np.exp(steps[k + 1 :].sum(0)[:, None] * model.A)
        total += model.w @ (
            (steps[k] * u[k])[:, None] * decay * (model.B @ u[k]) @ (model.C @ u[-1])
        )
    return np.asarray(total)


def distances(one: Model, other: Model) -> dict[str, ndarray]:
    """Distance of each parameter block in the norm of its Lipschitz constant."""
    delta = {field.name: getattr(one, field.name) - getattr(other, field.name)
             for field in fields(one)}  # fmt: skip
    spectral = {name: np.linalg.norm(delta[name], 2, axis=(-2, -1)) for name in ("w", "B", "C")}
    if one.general:
        spectral["A"] = np.linalg.norm(delta["A"], 2, axis=(-2, -1)).max(-1)
    else:
        spectral["A"] = np.abs(delta["A"]).max((-2, -1))
    spectral["q"] = np.linalg.norm(delta["q"], axis=-1).max(-1)
    spectral["p"] = np.abs(delta["p"]).max(-1)
    return spectral


def between(one: Model, other: Model, share: float) -> Model:
    """A point on the segment from `one` to `other`."""
    return replace(
        one,
        **{
            field.name: (1 - share) * getattr(one, field.name) + share * getattr(other, field.name)
            for field in fields(one)
        },
    )


def members(ssm: SelectiveSSMClass, rng: np.random.Generator, size: int) -> Model:
    """Models of a diagonal or log-norm class: half of them random, half with extreme weights."""
    d, N, h = int(ssm.d), int(ssm.N), int(ssm.n_steps)
    extreme = rng.random(size) < 0.5

    def weights(rows: int, B: float, M: float, F: float = np.inf) -> ndarray:
        W = rng.normal(size=(size, rows, d))
        rank_one = np.zeros((size, rows, d))
        rank_one[:, 0, 0] = rng.choice((-1, 1), size)
        W = np.where(extreme[:, None, None], rank_one + 1e-3 * rng.random() * W, W)
        shrink = np.minimum(B / np.linalg.norm(W, 2, axis=(-2, -1)), M / np.abs(W).sum((-2, -1)))
        shrink = np.minimum(shrink, F / np.linalg.norm(W, axis=(-2, -1)))
        return W * (shrink * np.where(rng.random(size) < 0.7, 1, rng.random(size)))[:, None, None]

    q = rng.normal(size=(size, h, d)) + 3 * extreme[:, None, None] * np.eye(1, d)
    q *= ssm.B_q / np.linalg.norm(q, axis=-1, keepdims=True)
    q *= np.minimum(1, ssm.M_q / np.maximum(np.abs(q).sum((-2, -1)), 1e-300))[:, None, None]
    p = rng.uniform(ssm.p_lo, ssm.p_hi, size=(size, h))
    p = np.where(extreme[:, None] & (rng.random((size, h)) < 0.7), ssm.p_hi, p)
    return Model(
        w=weights(ssm.outputs, ssm.B_w, ssm.M_w),
        B=weights(N, ssm.B_B, ssm.M_B, ssm.F_B),
        C=weights(N, ssm.B_C, ssm.M_C, ssm.F_C),
        A=_state_matrices(ssm, rng, extreme),
        q=q,
        p=p,
    )


def _state_matrices(ssm: SelectiveSSMClass, rng: np.random.Generator, extreme: ndarray) -> ndarray:
    size, d, N = len(extreme), int(ssm.d), int(ssm.N)
    if ssm.state_matrix == "log_norm":
        G = rng.normal(size=(size, d, N, N))
        G = np.where(rng.random((size, 1, 1, 1)) < 0.5, np.triu(G, 1), G)
        mu = np.linalg.eigvalsh((G + np.swapaxes(G, -1, -2)) / 2).max(-1)[..., None, None]
        G = G - mu * np.eye(N)
        largest = np.maximum(np.linalg.norm(G, 2, axis=(-2, -1)), 1e-12)[..., None, None]
        return ssm.s_A * np.eye(N) + (ssm.B_A - abs(ssm.s_A)) / largest * G
    shape = (size, d, N) if ssm.heads is None else (size, int(ssm.heads), 1)
    a = rng.uniform(ssm.a_lo, ssm.s_A, size=shape)
    a = np.where(extreme[:, None, None] & (rng.random(shape) < 0.8), ssm.s_A, a)
    nearest = np.clip(0.0, ssm.a_lo, ssm.s_A)  # towards it every sum of absolute entries shrinks
    room = ssm.M_A - np.prod(shape[1:]) * abs(nearest)
    spread = np.maximum(np.abs(a - nearest).sum((-2, -1), keepdims=True), 1e-300)
    a = nearest + (a - nearest) * np.clip(room / spread, 0, 1)
    return np.broadcast_to(np.repeat(a, d // a.shape[1], axis=1), (size, d, N))


def sequences(ssm: SelectiveSSMClass, rng: np.random.Generator, size: int, T: int) -> ndarray:
    """Admissible inputs: random directions, mostly of full norm, or all along the first axis."""
    u = rng.normal(size=(size, T, int(ssm.d)))
    aligned = np.zeros_like(u)
    aligned[..., 0] = rng.choice((-1, 1), size=(size, 1))
    u = np.where(rng.random((size, 1, 1)) < 0.5, u, aligned + 1e-3 * rng.random() * u)
    u *= ssm.B_u / np.linalg.norm(u, axis=-1, keepdims=True)
    return u * np.where(rng.random((size, T, 1)) < 0.8, 1, rng.random((size, T, 1)))


def extremal(ssm: SelectiveSSMClass, T: int) -> tuple[Model, ndarray]:
    """The rank-one model, and the constant sequence, that attain the output range."""
    d, N, h = int(ssm.d), int(ssm.N), int(ssm.n_steps)

    def corner(rows: int, value: float) -> ndarray:
        return value * np.eye(rows, 1) @ np.eye(1, d)

    A = np.full((d, N), np.clip(0.0, ssm.a_lo, ssm.s_A))
    A[: d // (1 if ssm.heads is None else h), :] = ssm.s_A
    model = Model(
        w=corner(ssm.outputs, ssm.B_w),
        B=corner(N, ssm.B_B),
        C=corner(N, ssm.B_C),
        A=A,
        q=corner(h, ssm.B_q),
        p=np.full(h, ssm.p_hi),
    )
    return model, np.tile(ssm.B_u * np.eye(1, d), (T, 1))
