r"""What of a block reads the residual stream, each part from a copy of its own: `branches`.

    resolution   Mamba                    Mamba-2                      attention         others
    layer        input                    input                        input             input
    branch       conv, gate               conv, gate, step             q, k, v           input
    tap          tap.0 .. tap.K-1, gate   tap.0 .. tap.K-1, gate,      q.0, k.0, v.0,    input
                                          step                         q.1, ...

Without edits all copies are equal and the block is what it was. A branch's copy u goes through the
block's norm and through the rows of the input projection that belong to this branch; what these
write is put in at the sites of the mixer. Source: Ensign and Garriga-Alonso (2024), appendix, where
taps are told apart by replacing activations; as copies they are ends of edges, with gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from bounds import checks
from experiments.models.backbone import Block
from experiments.models.mixers.attention import Attention
from experiments.models.mixers.mamba import Mamba
from experiments.models.mixers.mamba2 import Mamba2
from experiments.models.short_convolution import ShortConvolution
from experiments.models.sites import Site

RESOLUTIONS = ("layer", "branch", "tap")


@dataclass(frozen=True)
class Branch:
    """A reader of the residual stream: what its own copy makes of one site, or of a part of it."""

    name: str
    site: Site
    edit: Callable[[Tensor, Tensor, int | None], Tensor | None]
    """(the normed copy, the live activation, the index) -> its replacement."""


def branches(block: Block, resolution: str) -> tuple[Branch, ...]:
    """The branches of a block; those of mixers that have no finer ones are one "input"."""
    checks.one_of(RESOLUTIONS, resolution=resolution)
    mixer = block.mixer
    if resolution == "layer" or not isinstance(mixer, Mamba | Mamba2 | Attention):
        return (Branch("input", block.normed, lambda u, live, at: u),)
    if isinstance(mixer, Attention):
        return tuple(_attention(mixer, heads=resolution == "tap"))
    return tuple(_state_space(mixer, taps=resolution == "tap"))


def read_by(
    block: Block,
    stream: Float[Tensor, "rows length d_model"],
    copies: Mapping[Branch, Float[Tensor, "rows length d_model"]],
) -> Float[Tensor, "rows length d_model"]:
    """What the block adds to the stream, where these branches read copies of it instead."""
    with ExitStack() as stack:
        for branch, copy in copies.items():
            visit = partial(branch.edit, block.norm(copy))
            stack.enter_context(branch.site.visited(visit))
        return block.out(block.mixer(block.normed(block.norm(block.layer_input(stream)))))


def _state_space(mixer: Mamba | Mamba2, *, taps: bool) -> Iterator[Branch]:
    E, project = mixer.out_proj.in_features, mixer.in_proj
    if isinstance(mixer, Mamba):
        conv, gate = slice(0, E), slice(E, None)
    else:
        heads = len(mixer.dt_bias)
        gate, conv, step = slice(0, E), slice(E, -heads), slice(-heads, None)
    if taps and isinstance(mixer.conv1d, ShortConvolution):
        for k in range(mixer.conv1d.weight.shape[2]):
            edit = partial(_tap, project, conv, mixer.conv1d, k)
            yield Branch(f"tap.{k}", mixer.conv1d.tap, edit)
    else:
        yield Branch("conv", mixer.conv_input, partial(_projected, project, conv))
    yield Branch("gate", mixer.skip, partial(_projected, project, gate))
    if isinstance(mixer, Mamba2):
        yield Branch("step", mixer.delta_raw, partial(_step, project, step, mixer.dt_bias))


def _attention(mixer: Attention, *, heads: bool) -> Iterator[Branch]:
    d, project = mixer.qkv_proj.in_features, mixer.qkv_proj
    size = d // mixer.heads
    for i, name in enumerate("qkv"):
        site = getattr(mixer, name)
        if not heads:
            yield Branch(name, site, partial(_projected, project, slice(i * d, (i + 1) * d)))
            continue
        for h in range(mixer.heads):
            start = i * d + h * size
            edit = partial(_head, project, slice(start, start + size), h)
            yield Branch(f"{name}.{h}", site, edit)


def _by(project: nn.Linear, rows: slice, u: Tensor) -> Tensor:
    """Some outputs of a projection; its weights are looked up now, as models are moved."""
    bias = None if project.bias is None else project.bias[rows]
    return linear(u, project.weight[rows], bias)


def _projected(project: nn.Linear, rows: slice, u: Tensor, live: Tensor, at: int | None) -> Tensor:
    return _by(project, rows, u).view(live.shape)


def _step(
    project: nn.Linear, rows: slice, bias: nn.Parameter, u: Tensor, live: Tensor, at: int | None
) -> Tensor:
    return _by(project, rows, u) + bias


def _head(
    project: nn.Linear, rows: slice, head: int, u: Tensor, live: Tensor, at: int | None
) -> Tensor:
    edited = live.clone()
    edited[..., head, :] = _by(project, rows, u)
    return edited


def _tap(
    project: nn.Linear,
    rows: slice,
    conv1d: ShortConvolution,
    k: int,
    u: Tensor,
    live: Tensor,
    at: int | None,
) -> Tensor | None:
    if at != k:
        return None
    shifted = pad(_by(project, rows, u), (0, 0, k, 0))[:, : live.shape[1]]
    return conv1d.weight[:, 0, -1 - k] * shifted
