r"""The selective SSMs inside a checkpoint, recognised by the names and shapes of its tensors.

    single block   embedding.weight, [SSM.]ssm.{A, W_B, W_C, q_delta, p_delta}, SSM.w or W
    Mamba          layers.{i}.norm.weight, layers.{i}.mixer.{in_proj, conv1d, x_proj, dt_proj,
                   A_log, D, out_proj}
    Mamba-2        the same without x_proj and dt_proj, with dt_bias and (usually) an inner norm

Each becomes a `Core`: the quantities a `SelectiveSSMClass` takes, at the trained weights, and a
function that runs it on data. Names may carry a prefix (`backbone.`, `module.`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.checkpoint import Checkpoint, CheckpointError
from experiments.replay import Watch, scan, softplus

Norms = Mapping[str, Mapping[str, float]]
"""Norms of each matrix by their names, for example `norms["W_B"]["Frobenius"]`."""
SMALLEST = 1e-100
"""Stands in for a norm that is exactly zero: budgets are positive."""


@dataclass(frozen=True)
class Core:
    """One selective SSM: what a bound needs of it, read off its weights.

    `structure` and `budgets` are fields of `SelectiveSSMClass`, `budgets` at the trained weights;
    those named in `frozen` depend on tensors outside the core only. `step_logits` is the range of
    the steps' pre-activations over `step_scope`. `run` takes a batch (tokens or inputs; for a
    layer, its residual stream), feeds a `Watch` and returns the next layer's residual stream.
    """

    name: str
    kind: str
    structure: Mapping[str, Any]
    budgets: Mapping[str, float]
    step_logits: tuple[float, float]
    step_scope: str
    norms: Norms
    n_parameters: int
    decays_by_construction: bool
    run: Callable[[ndarray, Watch], ndarray]
    layered: bool = True
    """Whether what `run` returns is the input of the next core."""
    frozen: tuple[str, ...] = ()
    beta: Mapping[str, float] = field(default_factory=dict)
    """Scales of the grids that budgets are rounded to, where not 1; of frozen tensors only."""
    skip: float | None = None
    """Bound on the readout of the D skip, where there is one."""
    output_cap: float | None = None
    """Bound on the layer's output from its inner norm, whatever the core does."""
    gate: float = 1.0
    """Bound on every entry of the gate."""
    output_offset: float = 0.0
    """Norm of the bias added to the output."""
    assumptions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def recognise(checkpoint: Checkpoint) -> tuple[Core, ...]:
    """Every selective SSM in the checkpoint; CheckpointError where there is none."""
    from experiments.mamba_layouts import mamba_layers

    singles = [name for name in checkpoint if re.search(r"(^|\.)ssm\.A$", name)]
    cores = tuple(_single_block(checkpoint, name.removesuffix("A")) for name in singles)
    cores += mamba_layers(checkpoint)
    if not cores:
        some = ", ".join(list(checkpoint)[:3]) or "none at all"
        raise CheckpointError(f"{checkpoint.path}: no selective SSM among its tensors ({some})")
    return cores


def _single_block(checkpoint: Checkpoint, stem: str) -> Core:
    A = checkpoint.shaped(f"{stem}A", None, None)
    d, N = A.shape
    W_B = checkpoint.shaped(f"{stem}W_B", N, d)
    W_C = checkpoint.shaped(f"{stem}W_C", N, d)
    q = checkpoint.shaped(f"{stem}q_delta", d)
    p = float(checkpoint.shaped(f"{stem}p_delta", 1)[0])
    outer = stem.removesuffix("ssm.")
    root = outer.removesuffix("SSM.")
    readouts = [name for name in (f"{outer}w", f"{outer}W", f"{root}W") if name in checkpoint]
    if not readouts:
        raise CheckpointError(f"{checkpoint.path}: the tensor {outer}w (or {root}W) is missing")
    if readouts[0].endswith("w"):
        w = checkpoint.shaped(readouts[0], d)[None]
    else:
        w = checkpoint.shaped(readouts[0], None, d)
    E = checkpoint.shaped(f"{root}embedding.weight", None, d)
    logits = p + E @ q

    def run(batch: ndarray, watch: Watch) -> ndarray:
        u = embed(batch, E, checkpoint)
        B, C, v = u @ W_B.T, u @ W_C.T, (p + u @ q)[:, :, None]
        z = scan(u, softplus(v), A, B, C) @ w.T
        watch.see(u=u, B=B, C=C, logits=v, z=z)
        return z

    norms = {"W_B": matrix_norms(W_B), "W_C": matrix_norms(W_C), "w": matrix_norms(w)}
    budgets = dict(
        s_A=float(A.max()), a_lo=float(A.min()), p_lo=p, p_hi=p,
        B_u=up(np.sqrt(np.square(E).sum(1)).max()), M_A=up(np.abs(A).sum()),
        M_E=up(np.abs(E).sum()), B_q=up(np.linalg.norm(q)), M_q=up(np.abs(q).sum()),
        **as_budgets("w", norms["w"]), **as_budgets("B", norms["W_B"]),
        **as_budgets("C", norms["W_C"]),
    )  # fmt: skip
    slowest, fastest = int(logits.argmin()), int(logits.argmax())
    return Core(
        name=outer.rstrip(".") or "block",
        kind="selective SSM block",
        structure=dict(d=d, N=N, outputs=len(w), vocab=len(E)),
        budgets=budgets,
        step_logits=(float(logits.min()), float(logits.max())),
        step_scope="every token of the vocabulary",
        norms={
            **norms, "q": vector_norms(q), "embedding rows": {"largest 2-norm": budgets["B_u"]},
            **({"w": vector_norms(w[0])} if len(w) == 1 else {}),
        },
        n_parameters=sum(x.size for x in (A, W_B, W_C, q, w, E)) + 1,
        decays_by_construction=False,
        run=run,
        layered=False,
        notes=(f"smallest step at token {slowest}, largest at token {fastest}",),
    )  # fmt: skip


def embed(batch: ndarray, E: Float[ndarray, "V d"], checkpoint: Checkpoint) -> ndarray:
    """Rows of the embedding for tokens; inputs as they are. CheckpointError if they do not fit."""
    if batch.dtype.kind in "iu":
        if batch.min() < 0 or batch.max() >= len(E):
            raise CheckpointError(
                f"the data holds token {batch.max() if batch.min() >= 0 else batch.min()}; "
                f"{checkpoint.path} knows tokens 0 to {len(E) - 1}"
            )
        return E[batch]
    if batch.shape[-1] != E.shape[1]:
        raise CheckpointError(
            f"the data has inputs of length {batch.shape[-1]}, {checkpoint.path} of {E.shape[1]}"
        )
    return batch.astype(np.float64)


def up(x: float | np.floating) -> float:
    """A sum or norm rounded upwards past its own rounding error; never zero."""
    return max(float(x) * (1 + 1e-12), SMALLEST)


def induced_norm(X: Float[ndarray, "rows columns"]) -> float:
    r"""$\|X\|_2$ rounded upwards, by at most about 1e-10 relative.

    From the smaller Gram matrix, whose rounding error is at most $n\,\epsilon\,\|X\|_F^2$.
    """
    scale = float(np.abs(X).max())
    if scale == 0:
        return SMALLEST
    X = X / scale
    gram = X @ X.T if X.shape[0] <= X.shape[1] else X.T @ X
    frobenius_squared = float(np.trace(gram))
    error = 2 * max(X.shape) * np.finfo(float).eps * frobenius_squared
    largest = float(np.linalg.eigvalsh(gram)[-1])
    return up(scale * min(np.sqrt(largest + error), np.sqrt(frobenius_squared)))


def as_budgets(name: str, norms: Mapping[str, float]) -> dict[str, float]:
    """Budgets `B_`, `M_` and, for W_B and W_C, `F_` from `matrix_norms`."""
    budgets = {f"B_{name}": norms["induced 2-norm"], f"M_{name}": norms["entrywise 1-norm"]}
    if name in ("B", "C"):
        budgets[f"F_{name}"] = norms["Frobenius"]
    return budgets


def matrix_norms(X: Float[ndarray, "rows columns"]) -> dict[str, float]:
    """Norms by name, as shown to the reader."""
    return {
        "induced 2-norm": induced_norm(X),
        "Frobenius": up(np.linalg.norm(X)),
        "entrywise 1-norm": up(np.abs(X).sum()),
    }


def vector_norms(x: Float[ndarray, " n"]) -> dict[str, float]:
    """Norms by name, as shown to the reader."""
    return {"2-norm": up(np.linalg.norm(x)), "1-norm": up(np.abs(x).sum())}
