r"""One Mamba or Mamba-2 layer of a checkpoint: its tensors, and bounds on its streams."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from experiments.checkpoint import Checkpoint, CheckpointError
from experiments.layouts import embed, induced_norm, up

_KNOWN = r"(in_proj|conv1d|x_proj|dt_proj|out_proj|norm)\.(weight|bias)|A_log|D|dt_bias"


@dataclass(frozen=True)
class Stream:
    """Rows of in_proj through the convolution and silu: bounds on what comes out."""

    W: Float[ndarray, "rows d_model"]
    bias: Float[ndarray, " rows"]
    taps: Float[ndarray, "rows K"]
    tap_bias: Float[ndarray, " rows"]

    @property
    def gain(self) -> float:
        """Largest amplification by the convolution, the norm before the block included."""
        return float(np.abs(self.taps).max(0).sum() * np.sqrt(self.W.shape[1]))

    def offset(self, order: int) -> float:
        """Norm of what the biases add before silu."""
        through_taps = np.abs(self.taps).max(0).sum() * np.linalg.norm(self.bias, order)
        return float(through_taps + np.linalg.norm(self.tap_bias, order))

    @property
    def largest(self) -> float:
        """Bound on the 2-norm of the stream at any one time."""
        return up(self.gain * induced_norm(self.W) + self.offset(2))


@dataclass(frozen=True)
class Layer:
    """The tensors of the layer whose names begin with `stem`, read on access."""

    checkpoint: Checkpoint
    stem: str
    alone: bool
    """Whether the model is selective SSMs only, so that data can run through it."""

    def refuse_unknown(self) -> None:
        """CheckpointError for a tensor of the mixer that Mamba does not have."""
        mixer = f"{self.stem}mixer."
        for name in self.checkpoint:
            if name.startswith(mixer) and not re.fullmatch(_KNOWN, name.removeprefix(mixer)):
                raise self.error(f"{name} is not part of a Mamba layer")

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.checkpoint.path}: {message}")

    def has(self, name: str) -> bool:
        return f"{self.stem}{name}" in self.checkpoint

    def get(self, name: str, *shape: int | None) -> ndarray:
        return self.checkpoint.shaped(f"{self.stem}{name}", *shape)

    def vector(self, name: str, length: int) -> Float[ndarray, " n"]:
        """An optional vector: zero if the checkpoint has none."""
        return self.get(name, length) if self.has(name) else np.zeros(length)

    @property
    def eps(self) -> float:
        config = self.checkpoint.config
        return float(config.get("layer_norm_epsilon", config.get("norm_epsilon", 1e-5)))

    def decay(self, *shape: int | None) -> ndarray:
        """A = -exp(A_log)."""
        A_log = self.get("mixer.A_log", *shape)
        if np.abs(A_log).max() > 700:
            raise self.error(f"exp({self.stem}mixer.A_log) leaves the range of double precision")
        return -np.exp(A_log)

    def input_map(self, rows: int) -> tuple[Float[ndarray, "r d_model"], Float[ndarray, " r"]]:
        """in_proj and its bias, with the gain and bias of the norm before it folded in."""
        gain = self.get("norm.weight", None)
        W = self.get("mixer.in_proj.weight", rows, len(gain))
        bias = self.vector("mixer.in_proj.bias", rows) + W @ self.vector("norm.bias", len(gain))
        return W * gain, bias

    def taps(self, rows: int) -> tuple[Float[ndarray, "r K"], Float[ndarray, " r"]]:
        """Weights and bias of the causal convolution."""
        weight = self.get("mixer.conv1d.weight", rows, 1, None)[:, 0]
        return weight, self.vector("mixer.conv1d.bias", rows)

    def residual(self, batch: ndarray) -> ndarray:
        """Tokens through the embedding; inputs are the residual stream already."""
        if not self.alone:
            raise self.error("data cannot run through layers other than Mamba's")
        if batch.dtype.kind not in "iu":
            d_model = len(self.get("norm.weight", None))
            if batch.shape[-1] != d_model:
                raise self.error(f"the data has inputs of length {batch.shape[-1]}, not {d_model}")
            return batch.astype(np.float64)
        root = re.sub(r"layers\.\d+\.$", "", self.stem)
        for name in (f"{root}embedding.weight", f"{root}embeddings.weight"):
            if name in self.checkpoint:
                E = self.checkpoint.shaped(name, None, len(self.get("norm.weight", None)))
                return embed(batch, E, self.checkpoint)
        raise self.error(f"the tensor {root}embedding.weight is missing")

    def projected(
        self, r: Float[ndarray, "*batch d_model"], rows: int
    ) -> Float[ndarray, "*batch r"]:
        """The residual stream through the norm and in_proj."""
        if self.has("norm.bias"):
            r = r - r.mean(-1, keepdims=True)
        r = r / np.sqrt(np.square(r).mean(-1, keepdims=True) + self.eps)
        W, bias = self.input_map(rows)
        return r @ W.T + bias

    @property
    def n_parameters(self) -> int:
        stored = self.checkpoint.stored.items()
        return sum(int(np.prod(t.shape)) for name, t in stored if name.startswith(self.stem))
