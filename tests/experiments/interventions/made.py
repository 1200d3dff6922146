"""Documents, and models whose mechanism is known because their mixers are written by hand."""

from __future__ import annotations

import torch
from torch import nn

from experiments.interventions.corruptions import corrupt
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.tasks.associative_recall import DIVIDER, AssociativeRecall

TASK = AssociativeRecall(num_pairs=3, num_keys=6, num_values=5)
V = TASK.vocab_size
SHARP = 30.0
"""Logit of the answer of the models below; all other logits are 0."""


def pairs(kind="key", documents=12, seed=0, task=TASK):
    return corrupt(task.sample(documents, seed=seed), kind, task, seed=seed)


def network(*layers, seed=0, d_model=16, **options):
    """Random weights in double precision, large enough that all that goes in matters."""
    config = ModelConfig(
        layers=layers, d_model=d_model, vocab_size=V, d_output=V, max_length=16, **options
    )
    model = SequenceModel(config, seed=seed).double()
    with torch.no_grad():
        model.embedding.weight.mul_(4)
        model.head.weight.mul_(4)
    return model


class Written(nn.Module):
    """A mixer that is a function of the streams: tokens, notes (V x V) and outputs, one-hot."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        tokens, notes, _ = x.split([V, V * V, V], dim=-1)
        notes, outputs = self.function(tokens, notes.unflatten(-1, (V, V)))
        zero = torch.zeros_like(tokens)
        notes = torch.zeros_like(x[..., : V * V]) if notes is None else notes.flatten(-2)
        return torch.cat([zero, notes, zero if outputs is None else outputs], dim=-1)


def before(x):
    """What stands one position earlier."""
    return nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


def associations(tokens):
    """At each position, the token before as a key, and its own as the value."""
    return before(tokens)[..., :, None] * tokens[..., None, :]


def bind(tokens, notes):
    """Each position notes its pair."""
    return associations(tokens), None


def look_up(tokens, notes):
    """The notes of earlier positions answer for one's own token."""
    seen = before(notes.cumsum(1).flatten(-2)).unflatten(-1, (V, V))
    return None, SHARP * torch.einsum("btk,btkv->btv", tokens, seen)


def retrieve(tokens, notes):
    """Both at once, from the tokens."""
    return look_up(tokens, associations(tokens))


def summarise(tokens, notes):
    """The divider notes all pairs before it."""
    divider = tokens[..., DIVIDER, None, None]
    return divider * associations(tokens).cumsum(1), None


def nothing(tokens, notes):
    return None, None


MECHANISMS = {
    "induction": (bind, look_up),
    "direct retrieval early": (retrieve, nothing),
    "direct retrieval late": (nothing, retrieve),
    "summary": (summarise, look_up),
}


def written(*functions):
    """A model of these layers, without norms, that reads its outputs as logits."""
    d = V + V * V + V
    model = SequenceModel(
        ModelConfig(layers=("base-conv",) * len(functions), d_model=d, vocab_size=V, d_output=V),
        seed=0,
    ).double()
    model.norm_f = nn.Identity()
    for block, function in zip(model.blocks, functions, strict=True):
        block.norm, block.mixer = nn.Identity(), Written(function)
    with torch.no_grad():
        model.embedding.weight.copy_(torch.eye(V, d))
        model.head.weight.copy_(torch.eye(d)[-V:])
        model.head.bias.zero_()
    return model
