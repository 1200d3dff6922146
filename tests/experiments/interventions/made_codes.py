"""Prompts of random tokens with names in five slots, as in IOI, and models of random weights."""

from __future__ import annotations

import torch
from torch import nn

from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.models.sites import Site
from experiments.tasks.prompt_pairs import PromptPairs

V, NAMES, LENGTH = 20, 6, 14
"""Names are the last of the tokens."""
FORMATS = torch.tensor(
    [  # n1 to n5, answer; then the corrupted ones
        [[2, 0, 1, 0, 1, 2], [3, 0, 1, 0, 1, 3]],
        [[0, 2, 1, 0, 1, 2], [0, 3, 1, 0, 1, 3]],
        [[0, 1, 2, 0, 1, 2], [0, 1, 3, 0, 1, 3]],
        [[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 2, 1]],
        [[0, 1, 2, 0, 2, 1], [0, 1, 2, 1, 2, 0]],
    ]
)


def named_pairs(count=12, seed=0):
    """Prompts of the second template are one token shorter."""
    rng = torch.Generator().manual_seed(seed)
    rows, formats = torch.arange(count), torch.arange(count) % 5
    templates = torch.randint(2, (count,), generator=rng)
    names = torch.rand(count, NAMES, generator=rng).argsort(dim=1) + V - NAMES
    clean = torch.randint(1, V - NAMES, (count, LENGTH), generator=rng)
    slots = torch.tensor([2, 4, 6, 8, 10]) - templates[:, None]
    out = LENGTH - 1 - templates
    clean[torch.arange(LENGTH) > out[:, None]] = 0
    corrupted = clean.clone()
    chosen = names[rows[:, None, None], FORMATS[formats]]
    for tokens, these in ((clean, chosen[:, 0]), (corrupted, chosen[:, 1])):
        tokens[rows[:, None], slots] = these[:, :5]
    return PromptPairs(
        clean=clean,
        corrupted=corrupted,
        answer=chosen[:, 0, 5],
        corrupted_answer=chosen[:, 1, 5],
        candidates=names[:, :4],
        roles={f"n{i + 1}": slots[:, i] for i in range(5)} | {"out": out},
        meta={"format": formats, "template": templates},
        vocab_size=V,
    )


def network(*layers, seed=0, d_model=8, norm="rms", dtype=torch.float64, **options):
    """Random weights such that all tokens matter until the end; norms that scale."""
    mixers = {
        "mamba": {"d_state": 3, "dt_min": 0.1, "dt_max": 1.0},
        "mamba2": {"d_state": 3, "head_dim": 4, "groups": 2, "dt_min": 0.1, "dt_max": 1.0},
    }
    config = ModelConfig(
        layers=layers,
        d_model=d_model,
        vocab_size=V,
        norm=norm,
        mixers={name: mixers[name] for name in set(layers) & set(mixers)},
        **options,
    )
    model = SequenceModel(config, seed=seed).to(dtype)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.embedding.weight.mul_(4)
        for name, weight in model.named_parameters():
            if name.endswith(("in_proj.weight", "x_proj.weight")):
                weight.mul_(4)
            if name.endswith("A_log"):  # some states forget, others do not
                weight.copy_(4 * torch.rand(weight.shape, generator=rng, dtype=torch.float64) - 5)
        for module in model.modules():
            if "Norm" in type(module).__name__:
                scale = torch.rand(module.weight.shape, generator=rng, dtype=torch.float64)
                module.weight.copy_(0.5 + scale)
    return model


@torch.no_grad()
def recorded(model, tokens, *sites):
    """The activations at these sites."""
    with model.record(*sites) as found:
        model(tokens)
    return found


class Tally(nn.Module):
    """Adds up the names so far, subtracting those that come again: the odd one out is left."""

    def __init__(self):
        super().__init__()
        self.ssm_input = Site("batch", "length", V)

    def forward(self, tokens):
        names = tokens * (torch.arange(V) >= V - NAMES)
        again = ((names.cumsum(1) - names) * names).sum(-1, keepdim=True)
        return self.ssm_input(names * (1 - 2 * again)).cumsum(1)


def tallying():
    """A model of one such block, with one-hot embeddings and without norms."""
    model = network("base-conv", d_model=V, d_output=V)
    model.blocks[0].mixer, model.blocks[0].norm, model.norm_f = (
        Tally(),
        nn.Identity(),
        nn.Identity(),
    )
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(V))
        model.head.weight.copy_(torch.eye(V))
        model.head.bias.zero_()
    return model
