r"""Mamba and Mamba-2 layers of a checkpoint as selective SSM cores.

The core of a layer is the recurrence with its input maps, decay, steps and readout. The norm before
the block leaves $\|r_t\|_2 \le \sqrt{d_{model}}$ up to its gain, which is folded into `in_proj`;
with taps $c_\tau$ of the causal convolution and $|\mathrm{silu}(x)| \le |x|$ the core's input obeys

    ||u_t||_2 <= sum_tau max_j |c_{j,tau}| (||W_x||_2 sqrt(d_model) + ||bias||_2) + ||conv bias||_2

(docs/proofs.md, D2). In Mamba-2, $B_t$, $C_t$ and the steps read the block's input, not $u_t$.
They are written as maps of $u_t$ with norms rescaled by the ratio of the input bounds; the slope of
silu, at most 1.1, multiplies the first two, so that the rescaled matrices bound changes as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.checkpoint import Checkpoint, CheckpointError
from experiments.layouts import Core, as_budgets, induced_norm, matrix_norms, up
from experiments.mamba_parts import Layer, Stream
from experiments.replay import Watch, causal_convolution, scan, silu, softplus

SILU_SLOPE = 1.1
"""Above the largest slope of silu, 1.0998."""
_ASSUMPTIONS = (
    "core only: the input and output maps, step projection and bias, A and out_proj are counted; "
    "embedding, earlier layers, norms, convolution, gate, D skip and the rest of in_proj are not, "
    "and the theorem needs them fixed before the sample was drawn",
    "the audited output is z = out_proj y_T at the last time, before the D skip and the gate",
)
_REWRITTEN = (
    "B_t, C_t and the steps read the block's input: as maps of u their norms are rescaled by the "
    "input bounds, with convolution, slope of silu (1.1) and norm gain in them"
)


def mamba_layers(checkpoint: Checkpoint) -> tuple[Core, ...]:
    """A core for each layer that has `mixer.A_log`, in order."""
    found = [re.fullmatch(r"(.*layers\.(\d+)\.)mixer\.A_log", name) for name in checkpoint]
    stems = {match[1]: int(match[2]) for match in found if match}
    if not stems:
        return ()
    of_cores = r"(.*layers\.\d+\.)mixer\.(x_proj|dt_proj|dt_bias|conv1d|D)\b"
    for name in checkpoint:
        if (match := re.match(of_cores, name)) and match[1] not in stems:
            raise CheckpointError(f"{checkpoint.path}: {match[1]}mixer.A_log is missing")
    kind = checkpoint.config.get("model_type", "mamba")
    if kind not in ("mamba", "mamba2"):
        raise CheckpointError(f"{checkpoint.path}: the architecture {kind!r} is not covered")
    layered = [m for name in checkpoint if (m := re.match(r"(.*layers\.\d+\.)(\w+)", name))]
    alone = all(m[1] in stems and m[2] in ("norm", "mixer") for m in layered)
    cores = []
    for stem, index in sorted(stems.items(), key=lambda item: item[1]):
        layer = Layer(checkpoint, stem, alone)
        layer.refuse_unknown()
        build = _mamba if layer.has("mixer.x_proj.weight") else _mamba2
        cores.append(build(layer, f"layer {index}"))
    return tuple(cores)


def _mamba(layer: Layer, name: str) -> Core:
    A = layer.decay(None, None)
    d, N = A.shape
    rank = layer.get("mixer.dt_proj.weight", d, None).shape[1]
    W_step, W_B, W_C = _input_matrices(layer, d, N, rank)
    p = layer.get("mixer.dt_proj.bias", d)
    W, bias = layer.input_map(2 * d)
    B_u = Stream(W[:d], bias[:d], *layer.taps(d)).largest
    w = layer.get("mixer.out_proj.weight", W.shape[1], d)
    row = np.linalg.norm(W_step, axis=1)
    norms = {"W_B": matrix_norms(W_B), "W_C": matrix_norms(W_C), "out_proj": matrix_norms(w)}
    return Core(
        name=name,
        kind="Mamba",
        structure=dict(d=d, N=N, outputs=len(w), steps="per_channel", step_rank=rank),
        budgets=dict(
            s_A=float(A.max()), a_lo=float(A.min()), p_lo=float(p.min()), p_hi=float(p.max()),
            B_u=B_u, M_A=up(np.abs(A).sum()), B_q=up(row.max()), M_q=up(np.abs(W_step).sum()),
            **as_budgets("w", norms["out_proj"]), **as_budgets("B", norms["W_B"]),
            **as_budgets("C", norms["W_C"]),
        ),
        frozen=("B_u",),
        beta=_beta(B_u),
        step_logits=(float((p - row * B_u).min()), float((p + row * B_u).max())),
        step_scope="every input within the norm bound",
        norms={**norms, "W_Delta": _row_norms(W_step)},
        n_parameters=layer.n_parameters,
        decays_by_construction=True,
        run=partial(_run_mamba, layer),
        skip=up(norms["out_proj"]["induced 2-norm"] * np.abs(layer.get("mixer.D", d)).max() * B_u),
        gate=_largest_gate(W[d:], bias[d:]),
        output_offset=up(np.linalg.norm(layer.vector("mixer.out_proj.bias", len(w)))),
        assumptions=_ASSUMPTIONS,
    )  # fmt: skip


def _input_matrices(layer: Layer, d: int, N: int, rank: int) -> tuple[ndarray, ndarray, ndarray]:
    """The step projection, W_B and W_C, all acting on the core's input."""
    x_proj = layer.get("mixer.x_proj.weight", rank + 2 * N, d)
    W_step = layer.get("mixer.dt_proj.weight", d, rank) @ x_proj[:rank]
    return W_step, x_proj[rank : rank + N], x_proj[rank + N :]


def _run_mamba(layer: Layer, batch: ndarray, watch: Watch) -> Float[ndarray, "batch T d_model"]:
    A = layer.decay(None, None)
    d, N = A.shape
    W_step, W_B, W_C = _input_matrices(
        layer, d, N, layer.get("mixer.dt_proj.weight", d, None).shape[1]
    )
    r = layer.residual(batch)
    xz = layer.projected(r, 2 * d)
    u = silu(causal_convolution(xz[..., :d], *layer.taps(d)))
    B, C = u @ W_B.T, u @ W_C.T
    logits = u @ W_step.T + layer.get("mixer.dt_proj.bias", d)
    y = scan(u, softplus(logits), A, B, C)
    w = layer.get("mixer.out_proj.weight", r.shape[-1], d)
    watch.see(u=u, B=B, C=C, logits=logits, z=y @ w.T)
    gated = (y + layer.get("mixer.D", d) * u) * silu(xz[..., d:])
    return r + gated @ w.T + layer.vector("mixer.out_proj.bias", len(w))


def _mamba2(layer: Layer, name: str) -> Core:
    A = layer.decay(None)
    heads = len(A)
    d_model, d, N = _mamba2_sizes(layer, heads)
    W, bias = layer.input_map(2 * d + 2 * N + heads)
    taps, tap_bias = layer.taps(d + 2 * N)

    def stream(start: int, length: int) -> Stream:
        rows, part = slice(d + start, d + start + length), slice(start, start + length)
        return Stream(W[rows], bias[rows], taps[part], tap_bias[part])

    B_u = stream(0, d).largest
    B, C = stream(d, N), stream(d + N, N)
    W_step, p = W[-heads:], bias[-heads:] + layer.get("mixer.dt_bias", heads)
    row = np.linalg.norm(W_step, axis=1) * np.sqrt(d_model)
    w = layer.get("mixer.out_proj.weight", d_model, d)
    inner = layer.get("mixer.norm.weight", d) if layer.has("mixer.norm.weight") else None
    skip = np.abs(layer.get("mixer.D", None)).max()
    norms = {"W_B": matrix_norms(B.W), "W_C": matrix_norms(C.W), "out_proj": matrix_norms(w)}
    return Core(
        name=name,
        kind="Mamba-2",
        structure=dict(d=d, N=N, outputs=d_model, steps="per_head", heads=heads),
        budgets=dict(
            s_A=float(A.max()), a_lo=float(A.min()), p_lo=float(p.min()), p_hi=float(p.max()),
            B_u=B_u, M_A=up(np.abs(A).sum()), B_q=up(row.max() / B_u),
            M_q=up(np.abs(W_step).sum() * np.sqrt(d_model) / B_u),
            **as_budgets("w", norms["out_proj"]),
            **_as_map_of_u("B", norms["W_B"], B, B_u), **_as_map_of_u("C", norms["W_C"], C, B_u),
        ),
        frozen=("B_u",),
        beta=_beta(B_u, *(f"{kind}_{name}" for kind in "BMF" for name in "BC")),
        step_logits=(float((p - row).min()), float((p + row).max())),
        step_scope="every input within the norm bound",
        norms={
            "W_B (rows of in_proj x norm gain)": norms["W_B"],
            "W_C (rows of in_proj x norm gain)": norms["W_C"],
            "W_Delta (rows of in_proj x norm gain)": _row_norms(W_step),
            "out_proj": norms["out_proj"],
        },
        n_parameters=layer.n_parameters,
        decays_by_construction=True,
        run=partial(_run_mamba2, layer),
        skip=up(norms["out_proj"]["induced 2-norm"] * skip * B_u),
        gate=_largest_gate(W[:d], bias[:d]),
        output_cap=None if inner is None else up(induced_norm(w * inner) * np.sqrt(d)),
        output_offset=up(np.linalg.norm(layer.vector("mixer.out_proj.bias", d_model))),
        assumptions=(*_ASSUMPTIONS, _REWRITTEN),
    )  # fmt: skip


def _mamba2_sizes(layer: Layer, heads: int) -> tuple[int, int, int]:
    """d_model, channels, and states of all groups together."""
    d_model, d = layer.get("mixer.out_proj.weight", None, None).shape
    both = len(layer.get("mixer.conv1d.weight", None, 1, None)) - d
    skips = len(layer.get("mixer.D", None))
    if both < 2 or both % 2 or d % heads or skips not in (heads, d):
        raise layer.error(f"the shapes of {layer.stem}mixer do not fit together")
    if d < d_model:  # W_B and W_C have d_model columns; the class counts d
        raise layer.error(f"{layer.stem}mixer narrows its input, which is not covered")
    return d_model, d, both // 2


def _as_map_of_u(
    name: str, norms: Mapping[str, float], stream: Stream, B_u: float
) -> dict[str, float]:
    """Budgets of W_B or W_C as if it acted on u: output and changes stay bounded by them."""
    scale = SILU_SLOPE * stream.gain / B_u
    budgets = {key: scale * norm for key, norm in as_budgets(name, norms).items()}
    extra = {"B": stream.offset(2), "F": stream.offset(2), "M": stream.offset(1)}
    return {key: up(norm + extra[key[0]] / B_u) for key, norm in budgets.items()}


def _row_norms(W: Float[ndarray, "rows columns"]) -> dict[str, float]:
    """Norms of a step projection; its induced norm enters nowhere."""
    return {
        "largest row 2-norm": up(np.linalg.norm(W, axis=1).max()),
        "Frobenius": up(np.linalg.norm(W)),
        "entrywise 1-norm": up(np.abs(W).sum()),
    }


def _beta(B_u: float, *more: str) -> dict[str, float]:
    """Grids of what acts on u, whose norm is B_u, so that 1 is the scale of the result."""
    return dict.fromkeys(("B_q", "M_q", *more), 1 / B_u)


def _largest_gate(W: Float[ndarray, "rows d_model"], bias: Float[ndarray, " rows"]) -> float:
    """Bound on |silu| of every entry of the gate."""
    return up((np.linalg.norm(W, axis=1) * np.sqrt(W.shape[1]) + np.abs(bias)).max())


def _run_mamba2(layer: Layer, batch: ndarray, watch: Watch) -> Float[ndarray, "batch T d_model"]:
    config = layer.checkpoint.config
    if config.get("n_groups", config.get("ssm_cfg", {}).get("ngroups", 1)) != 1:
        raise layer.error("data can run through Mamba-2 with one group of B and C only")
    A = layer.decay(None)
    heads = len(A)
    d_model, d, N = _mamba2_sizes(layer, heads)
    r = layer.residual(batch)
    rows = layer.projected(r, 2 * d + 2 * N + heads)
    xBC = silu(causal_convolution(rows[..., d:-heads], *layer.taps(d + 2 * N)))
    u, B, C = xBC[..., :d], xBC[..., d:-N], xBC[..., -N:]
    logits = rows[..., -heads:] + layer.get("mixer.dt_bias", heads)
    steps, decay = (np.repeat(x, d // heads, -1) for x in (softplus(logits), A))
    y = scan(u, steps, decay[:, None], B, C)
    w = layer.get("mixer.out_proj.weight", d_model, d)
    watch.see(u=u, B=B, C=C, logits=logits, z=y @ w.T)
    D = layer.get("mixer.D", None)
    gated = (y + np.repeat(D, d // len(D)) * u) * silu(rows[..., :d])
    if layer.has("mixer.norm.weight"):
        size = np.sqrt(np.square(gated).mean(-1, keepdims=True) + layer.eps)
        gated = gated / size * layer.get("mixer.norm.weight", d)
    return r + gated @ w.T + layer.vector("mixer.out_proj.bias", d_model)
