r"""What each token writes into the state of a Mamba block, and what a later token reads of it.

The state is the sum of all writes, each decayed since: with $P_{ij} = \prod_{i<s\le j} \bar A_s$,

    h_j = sum_(i<=j) P_ij write_i          y_T = sum_(i<=T) (P_iT write_i) C_T
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from bounds import checks
from experiments.models.backbone import SequenceModel
from experiments.models.mixers.mamba import Mamba
from experiments.models.mixers.mamba2 import Mamba2
from experiments.tasks.prompt_pairs import PromptPairs

ROWS = 64
"""Prompts in one forward pass: a site of the state has channels x states numbers for each token."""
COMPARED = ("write-state", "write-write", "state-state", "decayed")


@torch.no_grad()
def cosine_map(
    model: SequenceModel,
    tokens: Int[Tensor, "prompts length"],
    block: int,
    *,
    of: str = "write-state",
    rows: int = ROWS,
) -> Float[Tensor, "prompts length length"]:
    r"""Cosines of the writes (or states) at time i and the states (or writes) at time j.

    "write-state" compares $write_i$ with $h_j$ at all times, "decayed" what is left of it,
    $P_{ij} write_i$, and is 0 where i > j. The cosine with a vector of zeros is 0 (Ensign and
    Garriga-Alonso 2024, arXiv:2407.14008, figure 6). Raises ValueError for a block that is neither
    "mamba" nor "mamba2".
    """
    checks.one_of(COMPARED, of=of)
    checks.count(rows=rows)
    _mixer(model, block)
    return torch.cat([_cosines(model, part, block, of) for part in tokens.split(rows)])


@dataclass(frozen=True, kw_only=True)
class WriteAttribution:
    """What a block adds to the stream at one position, along one direction, split exactly."""

    writes: Float[Tensor, "prompts length"]
    """By the token that wrote it into the state; 0 behind the position."""
    skip: Float[Tensor, " prompts"]
    """By the D skip."""
    error: float
    """Largest difference between the sum of the parts and the output of the block, over all
    prompts and channels of the stream."""


@torch.no_grad()
def write_attribution(
    model: SequenceModel,
    tokens: Int[Tensor, "prompts length"],
    block: int,
    at: Int[Tensor, " prompts"],
    directions: Float[Tensor, "prompts d_model"],
    *,
    rows: int = ROWS,
) -> WriteAttribution:
    r"""The output of the block at time T = `at`, split over the tokens that wrote what is read.

    Part i is $W_{out} (((P_{iT} write_i) C_T) \odot silu(g_T))$, that of the skip
    $W_{out} ((D \odot s_T) \odot silu(g_T))$. Steps, B, C, gates and the scales of Mamba-2's inner
    norm and of the last norm are those of this run, so that all parts are linear in the writes.
    Parts are projected on directions of what the head reads, such as `answer_directions`. Raises
    ValueError for a block that is neither "mamba" nor "mamba2".
    """
    checks.count(rows=rows)
    _mixer(model, block)
    if at.min() < 0 or at.max() >= tokens.shape[1]:
        raise ValueError(f"at must be from 0 to {tokens.shape[1] - 1}, got {at.tolist()}")
    parts, errors = [], []
    for part in torch.arange(len(tokens)).split(rows):
        projected, error = _split(model, tokens[part], block, at[part], directions[part])
        parts.append(projected)
        errors.append(error)
    projected = torch.cat(parts)
    return WriteAttribution(writes=projected[:, :-1], skip=projected[:, -1], error=max(errors))


def answer_directions(model: SequenceModel, pairs: PromptPairs) -> Float[Tensor, "pairs d_model"]:
    """Row of the head for the answer to the clean prompt minus that for the corrupted one's."""
    head = (model.embedding if model.head is None else model.head).weight.detach()
    return head[pairs.answer.to(head.device)] - head[pairs.corrupted_answer.to(head.device)]


def _mixer(model: SequenceModel, block: int) -> Mamba | Mamba2:
    if not 0 <= block < len(model.blocks):
        raise ValueError(f"block must be from 0 to {len(model.blocks) - 1}, got {block}")
    mixer = model.blocks[block].mixer
    if not isinstance(mixer, Mamba | Mamba2):
        name = model.config.layers[block]
        raise ValueError(f"block must be that of a mamba or mamba2, got {block}, a {name!r}")
    return mixer


def _recorded(model: SequenceModel, tokens: Tensor, block: int, *names: str) -> dict[str, Tensor]:
    """These sites of the mixer, those of single times stacked behind the prompts."""
    stem = f"blocks.{block}.mixer."
    tokens = tokens.to(next(model.parameters()).device)
    with model.record("resid_final", f"blocks.{block}.out", *(stem + name for name in names)) as at:
        model(tokens, torch.zeros_like(tokens[:, :1]))  # the logits are not needed
    for name in names:
        if name.endswith(".*"):
            stack = [at.pop(f"{stem}{name[:-1]}{t}") for t in range(tokens.shape[1])]
            at[stem + name] = torch.stack(stack, dim=1)
    return {name.removeprefix(stem): value for name, value in at.items()}


def _decays(A_bar: Tensor, write: Tensor) -> Tensor:
    """With the axes of the write: Mamba-2 has one decay for all of a head."""
    return A_bar.reshape(*A_bar.shape, *[1] * (write.ndim - A_bar.ndim))


def _cosines(model: SequenceModel, tokens: Tensor, block: int, of: str) -> Tensor:
    needed = {
        "write-write": ("write.*",),
        "state-state": ("h.*",),
        "write-state": ("write.*", "h.*"),
    }
    found = _recorded(model, tokens, block, *needed.get(of, ("A_bar.*", "write.*", "h.*")))
    if of != "decayed":
        first, last = (found[name].flatten(2) for name in (needed[of][0], needed[of][-1]))
        return (_unit(first) @ _unit(last).mT).double().cpu()
    left, states = found["write.*"], _unit(found["h.*"].flatten(2))
    decays = _decays(found["A_bar.*"], left)
    cosines = states.new_zeros(*tokens.shape, tokens.shape[1])
    for j in range(tokens.shape[1]):
        left[:, :j] *= decays[:, j, None]
        written = _unit(left[:, : j + 1].flatten(2))
        cosines[:, : j + 1, j] = (written @ states[:, j, :, None]).squeeze(-1)
    return cosines.double().cpu()


def _unit(vectors: Tensor) -> Tensor:
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(norms == 0, 1, norms)


def _split(
    model: SequenceModel, tokens: Tensor, block: int, at: Tensor, directions: Tensor
) -> tuple[Tensor, float]:
    """Projected parts of the tokens, then that of the skip; and the error of their sum."""
    mixer = _mixer(model, block)
    sites = ("A_bar.*", "write.*", "C", "y", "ssm_out", "skip", "gated")
    found = _recorded(model, tokens, block, *sites)
    ends = at.to(found["C"].device)
    C, y, ssm_out, skip, gated, out, stream = (
        found[name][torch.arange(len(tokens)), ends]
        for name in ("C", "y", "ssm_out", "skip", "gated", f"blocks.{block}.out", "resid_final")
    )
    writes = found["write.*"]
    if isinstance(mixer, Mamba2):
        C = C.repeat_interleave(writes.shape[2] // mixer.groups, dim=1)[:, :, None]
    else:
        C = C[:, None]
    decays = _decays(found["A_bar.*"], writes)
    decay, reads = torch.ones_like(decays[:, 0]), []
    for i in reversed(range(tokens.shape[1])):
        read = ((decay * writes[:, i]) * C).sum(-1).flatten(1)
        reads.append(torch.where(i <= ends[:, None], read, 0))
        decay = torch.where((i <= ends).view(-1, *[1] * (decay.ndim - 1)), decay * decays[:, i], 1)
    gate = silu(skip)
    if isinstance(mixer, Mamba2):
        gate = gate * _scale(gated.unflatten(-1, (mixer.groups, -1)), mixer.norm.eps).flatten(1)
        gate = gate * mixer.norm.weight
    parts = torch.stack([*reversed(reads), ssm_out - y], dim=1) * gate[:, None]
    outs = mixer.out_proj(parts)
    error = float((outs.sum(dim=1) - out).abs().max())
    directions = _before_norm(model.norm_f, stream, directions.to(stream))
    return (outs @ directions[..., None]).squeeze(-1).double().cpu(), error


def _scale(x: Tensor, eps: float | None) -> Tensor:
    """By what RMSNorm multiplies the numbers of the last axis, but for its weights."""
    return torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + (eps or 0.0)).expand_as(x)


def _before_norm(norm: nn.Module, stream: Tensor, directions: Tensor) -> Tensor:
    """Directions of the stream that, at the scale of this run, are these behind the norm."""
    assert isinstance(norm, nn.LayerNorm | nn.RMSNorm)
    directions = directions * norm.weight
    if isinstance(norm, nn.RMSNorm):
        return directions * _scale(stream, norm.eps)
    directions = directions * _scale(stream - stream.mean(dim=-1, keepdim=True), norm.eps)
    return directions - directions.mean(dim=-1, keepdim=True)
