"""The pre-norm residual backbone that every mixer is used in: `SequenceModel`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bounds import checks
from experiments.models.mixers import MIXERS
from experiments.models.sites import Site, SitedModel

_NORMS = {"rms": nn.RMSNorm, "layer": nn.LayerNorm}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A sequence model: what comes in, one mixer per residual block, what goes out.

    Hybrids are lists: a Transformer of two layers is `("attention", "mlp") * 2`, MambaFormer
    `("mamba", "attention", "mamba")`. ValueError names what does not fit.
    """

    layers: tuple[str, ...]
    """The mixer of each residual block, by its name in `MIXERS`."""
    d_model: int
    vocab_size: int | None = None
    """Number of tokens; None for continuous inputs."""
    d_input: int | None = None
    """Size of continuous inputs; None for tokens."""
    d_output: int | None = None
    """Size of the outputs; None for logits of all tokens, the embedding being their matrix."""
    mixers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Keyword arguments of the mixers, by name: `{"mamba": {"d_state": 8}}`."""
    norm: str = "rms"
    """"rms" or "layer"."""
    norm_eps: float = 1e-5
    positions: str = "none"
    """What is added to the embedding of position t: "none", "learned" or "sinusoidal"."""
    max_length: int = 1024
    """Length of the table of learned positions, and of the filters that need one."""
    embedding_std: float | None = None
    """Standard deviation of the embedding, and of learned positions, at the start; 1/sqrt(d_model)
    by default."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        checks.count(d_model=self.d_model, max_length=self.max_length)
        checks.positive(norm_eps=self.norm_eps)
        for name in self.layers:
            if name not in MIXERS:
                raise ValueError(f"layers: no mixer {name!r}; there are {', '.join(MIXERS)}")
        if not self.layers:
            raise ValueError("layers is empty")
        if (self.vocab_size is None) == (self.d_input is None):
            raise ValueError("exactly one of vocab_size and d_input is given")
        if self.vocab_size is None and self.d_output is None:
            raise ValueError("d_output is needed where the inputs are no tokens")
        for name, value in (("vocab_size", self.vocab_size), ("d_input", self.d_input),
                            ("d_output", self.d_output)):  # fmt: skip
            if value is not None:
                checks.count(**{name: value})
        checks.one_of(tuple(_NORMS), norm=self.norm)
        checks.one_of(("none", "learned", "sinusoidal"), positions=self.positions)
        for name, options in self.mixers.items():
            if name not in self.layers:
                raise ValueError(f"mixers: {name!r} is not among the layers {self.layers}")
            allowed = set(inspect.signature(MIXERS[name]).parameters) - {"d_model"}
            for option in options:
                if option not in allowed:
                    known = ", ".join(sorted(allowed)) or "none"
                    raise ValueError(f"mixers: {name} has no option {option!r}; it has {known}")


class Block(nn.Module):
    """r + mixer(norm(r)), with a copy of r that only this block reads.

    Sites: `resid_pre`, the residual stream (an edit stays in it); `layer_input`, the copy that the
    mixer alone sees; `normed`; `out`, what is added to the stream; `resid_post`.
    """

    def __init__(self, mixer: nn.Module, norm: nn.Module, d_model: int) -> None:
        super().__init__()
        self.norm, self.mixer = norm, mixer
        self.resid_pre, self.layer_input, self.normed, self.out, self.resid_post = (
            Site("batch", "length", d_model) for _ in range(5)
        )

    def forward(
        self, r: Float[Tensor, "batch length d_model"]
    ) -> Float[Tensor, "batch length d_model"]:
        """The residual stream after the block."""
        r = self.resid_pre(r)
        out = self.out(self.mixer(self.normed(self.norm(self.layer_input(r)))))
        return self.resid_post(r + out)


class SequenceModel(SitedModel):
    """Embedding (or a linear map of continuous inputs), residual blocks, norm, head.

    Equal configurations and seeds give equal weights; torch's global generator is left alone. Sites
    beside those of the blocks: `embedded`, `resid_final`, `final_norm`, `logits`.
    """

    def __init__(self, config: ModelConfig, *, seed: int) -> None:
        super().__init__()
        self.config = config
        d = config.d_model
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            std = d**-0.5 if config.embedding_std is None else config.embedding_std
            if config.vocab_size is not None:
                self.embedding = nn.Embedding(config.vocab_size, d)
                nn.init.normal_(self.embedding.weight, std=std)
            elif config.d_input is not None:
                self.embedding = nn.Linear(config.d_input, d)
            if config.positions == "learned":
                self.positions = nn.Parameter(torch.randn(config.max_length, d) * std)
            self.blocks = nn.ModuleList(
                Block(self._mixer(name), self._norm(), d) for name in config.layers
            )
            self.norm_f = self._norm()
            tied = config.d_output is None
            self.head = None if tied else nn.Linear(d, config.d_output)  # pyright: ignore
        self.embedded, self.resid_final, self.final_norm = (
            Site("batch", "length", d) for _ in range(3)
        )
        self.logits = Site("batch", "length", config.d_output or config.vocab_size or 0)

    def _norm(self) -> nn.Module:
        return _NORMS[self.config.norm](self.config.d_model, eps=self.config.norm_eps)

    def _mixer(self, name: str) -> nn.Module:
        options = dict(self.config.mixers.get(name, {}))
        if "max_length" in inspect.signature(MIXERS[name]).parameters:
            options.setdefault("max_length", self.config.max_length)
        return MIXERS[name](self.config.d_model, **options)

    def forward(
        self,
        inputs: Int[Tensor, "batch length"] | Float[Tensor, "batch length d_input"],
        at: Int[Tensor, "batch count"] | None = None,
    ) -> Float[Tensor, "batch positions d_output"]:
        """Logits at every position, or only `at` these, which saves the head's work elsewhere."""
        return self.resume(self.embed(inputs), block=0, at=at)

    def embed(
        self, inputs: Int[Tensor, "batch length"] | Float[Tensor, "batch length d_input"]
    ) -> Float[Tensor, "batch length d_model"]:
        """The first residual stream: embeddings, and positions where there are any."""
        r = self.embedding(inputs)
        if self.config.positions != "none":
            r = r + self._position_table(r)
        return self.embedded(r)

    def resume(
        self,
        r: Float[Tensor, "batch length d_model"],
        *,
        block: int,
        at: Int[Tensor, "batch count"] | None = None,
    ) -> Float[Tensor, "batch positions d_output"]:
        """The forward pass from the residual stream before this block on.

        With as many blocks as there are, only the last norm and the head are left.
        """
        if not 0 <= block <= len(self.blocks):
            raise ValueError(f"block must be from 0 to {len(self.blocks)}, got {block}")
        for module in islice(self.blocks, block, None):
            r = module(r)
        r = self.final_norm(self.norm_f(self.resid_final(r)))
        if at is not None:
            r = torch.take_along_dim(r, at[..., None], dim=1)
        head = self.embedding.weight if self.head is None else self.head.weight
        bias = None if self.head is None else self.head.bias
        return self.logits(nn.functional.linear(r, head, bias))

    def _position_table(self, r: Tensor) -> Tensor:
        length, d = r.shape[1:]
        if self.config.positions == "learned":
            if length > len(self.positions):
                raise ValueError(
                    f"the sequence has length {length}, the table of positions "
                    f"max_length = {len(self.positions)}"
                )
            return self.positions[:length]
        times = torch.arange(length, device=r.device, dtype=torch.float64)
        rates = torch.exp(-math.log(10_000) * torch.arange(0, d, 2, device=r.device) / d)
        angles = torch.outer(times, rates)
        return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :d].to(r.dtype)
