"""Tiny random checkpoints of every layout, and naive forward passes to compare with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

Tensors = dict[str, np.ndarray]


def save(folder: Path, tensors: Tensors, name: str = "model.safetensors", dtype=np.float32) -> Path:
    """Tensors to a safetensors file in `folder`; returns its path."""
    plain = {key: np.ascontiguousarray(x, dtype=dtype) for key, x in tensors.items()}
    save_file(plain, folder / name)
    return folder / name


def single_block(seed: int = 0, *, s_A: float = -0.05, classes: int | None = None) -> Tensors:
    """The single-block model: d = 4 channels, N = 3 states, 5 tokens."""
    rng = np.random.default_rng(seed)
    d, N, V = 4, 3, 5
    A = s_A - rng.uniform(0, 3, (d, N))
    A[1, 2] = s_A
    stem, readout = ("SSM.ssm.", "SSM.w") if classes is None else ("ssm.", "W")
    return {
        "embedding.weight": rng.normal(size=(V, d)),
        readout: rng.normal(size=d if classes is None else (classes, d)),
        f"{stem}A": A,
        f"{stem}W_B": rng.normal(size=(N, d)),
        f"{stem}W_C": rng.normal(size=(N, d)),
        f"{stem}q_delta": rng.normal(size=d),
        f"{stem}p_delta": rng.normal(size=1),
    }


def run_single_block(tensors: Tensors, tokens: np.ndarray) -> np.ndarray:
    """Outputs z_t of one sequence, entry by entry as in the definition."""
    t = {name.removeprefix("SSM.").removeprefix("ssm."): x for name, x in tensors.items()}
    w = np.atleast_2d(t.get("w", t.get("W")))
    d, N = t["A"].shape
    state, outputs = np.zeros((d, N)), []
    for u in t["embedding.weight"][tokens]:
        step = np.log(1 + np.exp(t["p_delta"][0] + t["q_delta"] @ u))
        for j in range(d):
            for n in range(N):
                write = step * u[j] * (t["W_B"][n] @ u)
                state[j, n] = np.exp(step * t["A"][j, n]) * state[j, n] + write
        outputs.append(w @ (state @ (t["W_C"] @ u)))
    return np.array(outputs)


D_MODEL, WIDTH, STATES, RANK, HEADS, TAPS, VOCAB = 4, 8, 3, 2, 4, 4, 7


def mamba(seed: int = 0, *, layers: int = 2, embedding: str = "embedding") -> Tensors:
    """Mamba, in the names of state-spaces or (embedding="embeddings") of Hugging Face."""
    rng = np.random.default_rng(seed)
    tensors = {
        f"backbone.{embedding}.weight": rng.normal(size=(VOCAB, D_MODEL)),
        "backbone.norm_f.weight": rng.normal(size=D_MODEL),
    }
    for i in range(layers):
        mixer = {
            "in_proj.weight": rng.normal(size=(2 * WIDTH, D_MODEL)),
            "conv1d.weight": rng.normal(size=(WIDTH, 1, TAPS)),
            "conv1d.bias": rng.normal(size=WIDTH),
            "x_proj.weight": rng.normal(size=(RANK + 2 * STATES, WIDTH)),
            "dt_proj.weight": 0.1 * rng.normal(size=(WIDTH, RANK)),
            "dt_proj.bias": rng.normal(size=WIDTH) - 2,
            "A_log": np.log(rng.uniform(0.1, 4, (WIDTH, STATES))),
            "D": rng.normal(size=WIDTH),
            "out_proj.weight": rng.normal(size=(D_MODEL, WIDTH)),
        }
        tensors |= {f"backbone.layers.{i}.mixer.{name}": x for name, x in mixer.items()}
        tensors[f"backbone.layers.{i}.norm.weight"] = rng.normal(size=D_MODEL)
    return tensors


def mamba2(seed: int = 0, *, layers: int = 2, inner_norm: bool = True) -> Tensors:
    """Mamba-2 with one group, in the names of state-spaces."""
    rng = np.random.default_rng(seed)
    tensors = {"backbone.embedding.weight": rng.normal(size=(VOCAB, D_MODEL))}
    conv = WIDTH + 2 * STATES
    for i in range(layers):
        mixer = {
            "in_proj.weight": rng.normal(size=(WIDTH + conv + HEADS, D_MODEL)),
            "conv1d.weight": rng.normal(size=(conv, 1, TAPS)),
            "conv1d.bias": rng.normal(size=conv),
            "dt_bias": rng.normal(size=HEADS) - 2,
            "A_log": np.log(rng.uniform(0.1, 4, HEADS)),
            "D": rng.normal(size=HEADS),
            "out_proj.weight": rng.normal(size=(D_MODEL, WIDTH)),
        }
        if inner_norm:
            mixer["norm.weight"] = rng.normal(size=WIDTH)
        tensors |= {f"backbone.layers.{i}.mixer.{name}": x for name, x in mixer.items()}
        tensors[f"backbone.layers.{i}.norm.weight"] = rng.normal(size=D_MODEL)
    return tensors


def _silu(x):
    return x / (1 + np.exp(-x))


def _rms(x):
    return x / np.sqrt(np.mean(x**2) + 1e-5)


def _convolved(history, weight, bias):
    """The causal convolution at the last time of `history`."""
    out = bias.copy()
    for tap in range(TAPS):
        if tap < len(history):
            out = out + weight[:, 0, TAPS - 1 - tap] * history[-1 - tap]
    return _silu(out)


def run_mamba_layer(t: Tensors, i: int, residual: np.ndarray, *, second: bool) -> dict:
    """One layer of Mamba or Mamba-2 on one sequence, a channel and a state at a time."""
    m = {k.split("mixer.")[1]: x for k, x in t.items() if f"layers.{i}.mixer." in k}
    norm = t[f"backbone.layers.{i}.norm.weight"]
    state = np.zeros((WIDTH, STATES))
    seen = {"u": [], "steps": [], "z": [], "layer": []}
    history = []
    for r in residual:
        projected = m["in_proj.weight"] @ (_rms(r) * norm)
        if second:
            gate, dt = projected[:WIDTH], projected[-HEADS:]
            history.append(projected[WIDTH:-HEADS])
            xBC = _convolved(history, m["conv1d.weight"], m["conv1d.bias"])
            u, B, C = np.split(xBC, [WIDTH, WIDTH + STATES])
            dt = np.repeat(np.log(1 + np.exp(dt + m["dt_bias"])), WIDTH // HEADS)
            A = -np.exp(np.repeat(m["A_log"], WIDTH // HEADS))[:, None] * np.ones((1, STATES))
            D = np.repeat(m["D"], WIDTH // HEADS)
        else:
            gate = projected[WIDTH:]
            history.append(projected[:WIDTH])
            u = _convolved(history, m["conv1d.weight"], m["conv1d.bias"])
            low, B, C = np.split(m["x_proj.weight"] @ u, [RANK, RANK + STATES])
            dt = np.log(1 + np.exp(m["dt_proj.weight"] @ low + m["dt_proj.bias"]))
            A, D = -np.exp(m["A_log"]), m["D"]
        for j in range(WIDTH):
            for n in range(STATES):
                state[j, n] = np.exp(dt[j] * A[j, n]) * state[j, n] + dt[j] * u[j] * B[n]
        y = state @ C
        gated = (y + D * u) * _silu(gate)
        if "norm.weight" in m:
            gated = _rms(gated) * m["norm.weight"]
        for name, value in zip(
            seen, (u, dt, m["out_proj.weight"] @ y, m["out_proj.weight"] @ gated), strict=True
        ):
            seen[name].append(value)
    return {name: np.array(values) for name, values in seen.items()}
