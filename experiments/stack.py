"""Modules of one architecture as a single one, each optimised exactly as if it were alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


def cosine(step: int, steps: int) -> float:
    r"""$(1 + \cos(\pi t/T))/2$, from 1 down to 0."""
    return (1 + math.cos(math.pi * step / steps)) / 2


class Stack:
    """`module` has every parameter and buffer of the modules with a leading dimension for them.

    Adam trains each of them with its own learning rate. They can leave in any order; `position`
    says which are left, `keep` drops the others.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        learning_rates: Iterable[float],
        betas: tuple[float, float],
        epsilon: float,
        device: torch.device | str | None,
    ) -> None:
        self._modules = [_tensors(module) for module in modules]
        self.module = copy.deepcopy(modules[0])
        stacked = {
            name: torch.stack([tensors[name].detach() for tensors in self._modules]).to(device)
            for name in self._modules[0]
        }
        self._set(stacked)
        like = self.parameters[0]
        self.position = torch.arange(len(modules), device=like.device)
        self._rate = torch.tensor(list(learning_rates), dtype=like.dtype, device=like.device)
        self._betas, self._epsilon = betas, epsilon
        self._moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]

    @torch.no_grad()
    def update(self, gradients: Sequence[Tensor], step: int, scale: float) -> None:
        """Step number `step` (from 0) of Adam, with `scale` times each learning rate."""
        (beta1, beta2), t = self._betas, step + 1
        correction = math.sqrt(1 - beta2**t)
        size = scale * correction / (1 - beta1**t)
        epsilon = self._epsilon * correction
        for p, g, (first, second) in zip(self.parameters, gradients, self._moments, strict=True):
            first.lerp_(g, 1 - beta1)
            second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            change = torch.div(first, second.sqrt().add_(epsilon))
            p.addcmul_(change, self._rate.view(-1, *(1,) * (p.ndim - 1)), value=-size)

    @torch.no_grad()
    def write_back(self, at: Int[Tensor, " b"]) -> list[int]:
        """Copy the weights of the rows `at` to the modules they came from; their positions."""
        positions = self.position[at].tolist()
        for name, tensor in _tensors(self.module).items():
            for position, row in zip(positions, tensor[at], strict=True):
                self._modules[position][name].copy_(row)
        return positions

    def keep(self, staying: Bool[Tensor, " B"]) -> None:
        """Drop the other modules."""
        self.position, self._rate = self.position[staying], self._rate[staying]
        self._set({name: tensor[staying] for name, tensor in _tensors(self.module).items()})
        self._moments = [(first[staying], second[staying]) for first, second in self._moments]

    def _set(self, tensors: dict[str, Tensor]) -> None:
        """Put stacked parameters and buffers in the place of those of the module."""
        for name, old in _tensors(self.module).items():
            path, _, leaf = name.rpartition(".")
            new = tensors[name].detach()
            owner = self.module.get_submodule(path)
            setattr(owner, leaf, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)
        self.parameters = list(self.module.parameters())


def form(module: nn.Module) -> str:
    """Equal for modules that can share a stack: classes, attributes, and kinds of all tensors."""
    # The attributes of nn.Module itself begin with an underscore; a seed has done its work.
    attributes = [
        (path, type(part), sorted((k, v) for k, v in vars(part).items() if _told(k)))
        for path, part in module.named_modules()
    ]
    kinds = [(k, type(t), t.shape, t.dtype, t.device) for k, t in _tensors(module).items()]
    return str((attributes, kinds))


def _told(attribute: str) -> bool:
    return not attribute.startswith("_") and attribute != "seed"


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}
