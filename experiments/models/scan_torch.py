"""The selective scan with nothing but PyTorch: a step loop with a backward pass of its own.

Only one multiply-add runs step by step. Everything else is done for a chunk of steps at once, and
for few enough batch rows that the chunk stays in the processor's cache. The forward pass keeps the
state before every chunk; the backward pass recomputes the chunk from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK = 16
"""Steps between the states that are kept for the backward pass."""
_STATES = 2**16
"""Entries of the state that a chunk is computed for at once, if one batch row has no more."""


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """The outputs and the last state; arguments as `scan.selective_scan` passes them on."""
    if delta_bias is not None:
        delta = delta + delta_bias[:, None]
    if delta_softplus:
        delta = functional.softplus(delta)
    if initial_state is None:
        initial_state = u.new_zeros(len(u), *A.shape)
    groups = next((x.shape[1] for x in (B, C) if x.dim() == 4), 1)
    # Channels last, since they are the long axis without a sum over it.
    y, last = _Scan.apply(
        _time_first(u, groups),
        _time_first(delta, groups),
        A.unflatten(0, (groups, -1)).mT.contiguous(),
        *(
            x.permute(3, 0, 1, 2)[..., None]
            if x.dim() == 4
            else x.unflatten(0, (groups, -1)).mT.contiguous()
            for x in (B, C)
        ),
        initial_state.unflatten(1, (groups, -1)).mT.contiguous(),
    )
    y = y.flatten(2).permute(1, 2, 0)
    if D is not None:
        y = torch.addcmul(y, D[:, None], u)
    if z is not None:
        y = y * functional.silu(z)
    return y, last.mT.flatten(1, 2)


def _time_first(x: Tensor, groups: int) -> Tensor:
    """(batch, channels, length) as (length, batch, groups, 1, channels), the last one adjacent."""
    return x.transpose(1, 2).contiguous().transpose(0, 1).unflatten(-1, (groups, 1, -1))


class _Scan(torch.autograd.Function):
    """u, delta: (length, batch, groups, 1, channels); A: (groups, states, channels).

    B, C: (length, batch, groups, states, 1) or like A; states: (batch, groups, states, channels).
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, h: Tensor):
        y = u.new_empty(u.shape[1], u.shape[0], *u.shape[2:]).transpose(0, 1)
        kept = u.new_empty(-(-len(u) // CHUNK), *h.shape) if any(ctx.needs_input_grad) else None
        last = torch.empty_like(h)
        for rows, buffers in _tiles(h, 2):
            state = h[rows]
            for chunk, steps in enumerate(_chunks(u)):
                if kept is not None:
                    kept[chunk, rows] = state
                here = steps, rows
                states, _ = _recompute(u[here], delta[here], A, _at(B, here), state, buffers)
                y[here] = _over_states(_at(C, here), states[1:])
                state = states[-1]
            last[rows] = state
        ctx.save_for_backward(u, delta, A, B, C, kept)
        return y, last

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_last: Tensor):
        u, delta, A, B, C, kept = ctx.saved_tensors
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        grad_A, grad_B, grad_C = torch.zeros_like(A), torch.zeros_like(B), torch.zeros_like(C)
        grad_h = torch.empty_like(grad_last)
        for rows, buffers in _tiles(grad_last, 3):
            carried = grad_last[rows]
            for chunk, steps in reversed(list(enumerate(_chunks(u)))):
                here = steps, rows
                u_, delta_, dy = u[here], delta[here], grad_y[here]
                B_, C_ = _at(B, here), _at(C, here)
                h, decay = _recompute(u_, delta_, A, B_, kept[chunk, rows], buffers)
                # Gradients of the states: from the output of the step, and from the next state.
                g = torch.mul(C_, dy, out=buffers[2][: len(dy)])
                slices, decays = g.unbind(), decay.unbind()
                slices[-1].add_(carried)
                for t in range(len(dy) - 2, -1, -1):
                    slices[t].addcmul_(decays[t + 1], slices[t + 1])
                carried = decays[0] * slices[0]
                _write_over_channels(grad_C, here, h[1:], dy)
                _write_over_channels(grad_B, here, g, delta_ * u_)
                input_ = _over_states(B_, g)
                exponent = decay.mul_(g).mul_(h[:-1])
                torch.mul(exponent, A, out=g)
                torch.mul(input_, delta_, out=grad_u[here])
                torch.addcmul(g.sum(-2, keepdim=True), input_, u_, out=grad_delta[here])
                grad_A += exponent.mul_(delta_).sum((0, 1))
            grad_h[rows] = carried
        return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_h


def _recompute(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, h: Tensor, buffers: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """The states before and after every step of a chunk, and its decays."""
    decay = torch.mul(delta, A, out=buffers[0][: len(u)]).exp_()
    states = buffers[1][: len(u) + 1]
    first, *others = states.unbind()
    first.copy_(h)
    torch.mul(delta * u, B, out=states[1:])
    for state, before, a in zip(others, [first, *others], decay.unbind(), strict=False):
        state.addcmul_(a, before)
    return states, decay


def _over_states(B: Tensor, h: Tensor) -> Tensor:
    """Sum over states of B h, (steps, rows, groups, 1, channels)."""
    return B.mT @ h if B.dim() == h.dim() else (B * h).sum(-2, keepdim=True)


def _write_over_channels(grad_B: Tensor, here: tuple[slice, slice], h: Tensor, x: Tensor) -> None:
    """Write the gradient of the sum of B h x with respect to B, or add it where B is fixed."""
    if grad_B.dim() == h.dim():
        grad_B[here] = h @ x.mT
    else:
        grad_B += (h * x).sum((0, 1))


def _at(B: Tensor, here: tuple[slice, slice]) -> Tensor:
    return B[here] if B.dim() == 5 else B


def _chunks(u: Tensor) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, len(u), CHUNK)]


def _tiles(h: Tensor, count: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Batch rows to compute together, and `count` buffers for a chunk of their states."""
    size = min(max(1, _STATES // h[0].numel()), len(h))
    buffers = [h.new_empty(CHUNK + 1, size, *h.shape[1:]) for _ in range(count)]
    for start in range(0, len(h), size):
        rows = slice(start, min(start + size, len(h)))
        yield rows, [buffer[:, : rows.stop - start] for buffer in buffers]
