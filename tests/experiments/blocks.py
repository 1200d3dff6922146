"""Single blocks made by hand, and sequences with padding."""

from __future__ import annotations

import torch

from experiments.models.selective_ssm import SelectiveSSM
from experiments.tasks.sequences import LabelledSequences

PADDED = LabelledSequences(
    tokens=torch.tensor([[0, 1, 2], [1, 1, 0], [0, 2, 2]]), labels=torch.tensor([0, 1, 1]),
    lengths=torch.tensor([2, 3, 1]), vocab_size=3, n_classes=2, pad=2,
)  # fmt: skip


def by_hand(logits: list[float], *, s_A: float, outputs: int = 1) -> SelectiveSSM:
    """A block of one channel whose step at token k is the softplus of `logits[k]`."""
    net = SelectiveSSM(vocab_size=len(logits), d=1, N=2, s_A=s_A, outputs=outputs, seed=0)
    with torch.no_grad():
        net.embedding.weight.copy_(torch.tensor(logits)[:, None] / 2 - 0.5)
        net.ssm["q_delta"].fill_(2.0)
        net.ssm["p_delta"].fill_(1.0)
    return net


def block(*, s_A: float = -0.2, outputs: int = 1, seed: int = 0, scale: float = 1) -> SelectiveSSM:
    """A new block whose weights, but not whose state matrix, are scaled."""
    model = SelectiveSSM(vocab_size=3, d=2, N=3, s_A=s_A, outputs=outputs, seed=seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("A"):
                parameter.mul_(scale)
    return model
