r"""Selective SSMs run in NumPy on given sequences, watching what the theorems bound."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from numpy import ndarray

from experiments.checkpoint import CheckpointError

_LARGEST_FILE = 2**30
Sequences = list[ndarray]
"""Token ids `(T,)` or inputs `(T, d)`, one array for each sequence."""


@dataclass
class Watch:
    """Extremes seen at a core while sequences ran through it."""

    B_u: float = 0.0
    """Largest $\\|u_t\\|_2$."""
    B: float = 0.0
    """Largest $\\|B_t\\|_2$."""
    C: float = 0.0
    """Largest $\\|C_t\\|_2$."""
    logit_lo: float = np.inf
    logit_hi: float = -np.inf
    """Range of the pre-activations of the step sizes."""
    z: float = 0.0
    """Largest $\\|z_t\\|_2$ over all times; infinite where the recurrence overflowed."""

    def see(self, *, u: ndarray, B: ndarray, C: ndarray, logits: ndarray, z: ndarray) -> None:
        """Take in one batch; the last axis of each array is that of the vectors."""
        self.B_u = max(self.B_u, largest_norm(u))
        self.B = max(self.B, largest_norm(B))
        self.C = max(self.C, largest_norm(C))
        self.logit_lo = min(self.logit_lo, float(logits.min()))
        self.logit_hi = max(self.logit_hi, float(logits.max()))
        z_now = largest_norm(z)
        self.z = max(self.z, z_now if np.isfinite(z_now) else np.inf)


def largest_norm(vectors: Float[ndarray, "... n"]) -> float:
    """Largest Euclidean norm along the last axis."""
    return float(np.sqrt(np.square(vectors).sum(-1)).max())


def softplus(v: Float[ndarray, ...]) -> Float[ndarray, ...]:
    """Step size ln(1 + e^v)."""
    return np.logaddexp(0.0, v)


def silu(x: Float[ndarray, ...]) -> Float[ndarray, ...]:
    """The gate x / (1 + e^{-x})."""
    return x / (1 + np.exp(-np.maximum(x, -700.0)))


def scan(
    u: Float[ndarray, "batch T d"],
    steps: Float[ndarray, "batch T steps"],
    A: Float[ndarray, "d n"],
    B: Float[ndarray, "batch T N"],
    C: Float[ndarray, "batch T N"],
) -> Float[ndarray, "batch T d"]:
    r"""$x_t = e^{\Delta_t A} x_{t-1} + \Delta_t u_t B_t^T$, $y_t = x_t C_t$, from $x_0 = 0$.

    `A` has N columns or one; there are d step sequences or one.
    """
    state = np.zeros((len(u), u.shape[2], B.shape[2]))
    y = np.empty_like(u)
    for t in range(u.shape[1]):
        write = (steps[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        state = np.exp(steps[:, t, :, None] * A) * state + write
        y[:, t] = (state @ C[:, t, :, None])[:, :, 0]
    return y


def causal_convolution(
    x: Float[ndarray, "batch T d"], taps: Float[ndarray, "d K"], bias: Float[ndarray, " d"]
) -> Float[ndarray, "batch T d"]:
    """Depthwise, zero before the start; the last tap is that of the current time."""
    T, K = x.shape[1], taps.shape[1]
    out = np.broadcast_to(bias, x.shape).copy()
    for back in range(min(K, T)):
        out[:, back:] += taps[:, K - 1 - back] * x[:, : T - back]
    return out


def read_sequences(path: Path) -> Sequences:
    """Sequences from .npy, .npz (one array, or one named `tokens` or `inputs`) or .csv.

    Arrays: whole numbers `(T,)` or `(m, T)` are tokens, reals `(T, d)` or `(m, T, d)` inputs. A
    .csv of whole numbers has one sequence of tokens a line, of any lengths; one of reals is a
    single sequence of inputs, a time step a line. Pickled arrays are refused.
    """
    try:
        if path.suffix == ".csv":
            return _read_csv(path)
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        elif path.suffix == ".npz":
            array = _read_npz(path)
        else:
            raise CheckpointError(f"{path}: data should be a .npy, .npz or .csv file")
    except CheckpointError:
        raise
    except (OSError, ValueError, EOFError, MemoryError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read as data ({error})") from error
    return _split(path, array)


def _read_npz(path: Path) -> ndarray:
    with zipfile.ZipFile(path) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > _LARGEST_FILE:
            raise CheckpointError(f"{path}: unpacks to more than {_LARGEST_FILE} bytes")
    with np.load(path, allow_pickle=False) as arrays:
        named = [name for name in arrays.files if name in ("tokens", "inputs")] or arrays.files
        if len(named) != 1:
            raise CheckpointError(f"{path}: name the array of sequences `tokens` or `inputs`")
        array = arrays[named[0]]
    if not isinstance(array, ndarray):  # an entry without the header of an array is bytes
        raise CheckpointError(f"{path}: {named[0]} is not an array")
    return array


def _read_csv(path: Path) -> Sequences:
    rows = [line.split(",") for line in path.read_text().splitlines() if line.strip()]
    try:
        tokens = [np.array([int(cell) for cell in row]) for row in rows]
    except ValueError:
        return _split(path, np.array([[float(cell) for cell in row] for row in rows]))
    return _check(path, tokens)


def _split(path: Path, array: Num[ndarray, ...]) -> Sequences:
    if array.dtype.kind not in "iuf":
        raise CheckpointError(f"{path}: holds {array.dtype}, not numbers")
    one = 1 if array.dtype.kind in "iu" else 2
    if array.ndim not in (one, one + 1):
        raise CheckpointError(f"{path}: tokens are (T,) or (m, T), inputs (T, d) or (m, T, d)")
    sequences = [array] if array.ndim == one else list(array)
    return _check(path, sequences)


def _check(path: Path, sequences: Sequences) -> Sequences:
    if not sequences or any(sequence.size == 0 for sequence in sequences):
        raise CheckpointError(f"{path}: there is an empty sequence, or none at all")
    if not all(np.all(np.isfinite(sequence)) for sequence in sequences):
        raise CheckpointError(f"{path}: there are NaN or infinite inputs")
    return sequences


def batches(sequences: Sequences, *, largest: int) -> list[ndarray]:
    """Sequences of equal length stacked, at most `largest` time steps in a batch (one at least)."""
    by_length: dict[int, Sequences] = {}
    for sequence in sequences:
        by_length.setdefault(len(sequence), []).append(sequence)
    stacked = []
    for T, group in by_length.items():
        size = max(1, largest // T)
        stacked += [np.stack(group[i : i + size]) for i in range(0, len(group), size)]
    return stacked
