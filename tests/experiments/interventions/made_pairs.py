"""Pairs of random prompts, with answers that models of random weights prefer."""

from __future__ import annotations

from dataclasses import replace

import torch

from experiments.interventions.pair_runs import pair_runs
from experiments.tasks.prompt_pairs import PromptPairs
from tests.experiments.interventions.made import V


def made_pairs(count=5, length=7, seed=0):
    """One token is changed, at 2 or 3; some prompts end one token before others."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.arange(count)

    def below(end):
        return torch.randint(end, (count,), generator=rng)

    clean = torch.randint(1, V, (count, length), generator=rng)
    corrupted, changed, out = clean.clone(), 2 + below(2), length - 2 + below(2)
    out[0] = length - 2
    clean[torch.arange(length) > out[:, None]] = 0
    corrupted[torch.arange(length) > out[:, None]] = 0
    corrupted[rows, changed] = 1 + (clean[rows, changed] + below(V - 2)) % (V - 1)
    candidates = torch.rand(count, V, generator=rng).argsort(dim=1)[:, :4]
    candidates[::2, 3] = -1
    return PromptPairs(
        clean=clean,
        corrupted=corrupted,
        answer=candidates[:, 0],
        corrupted_answer=candidates[:, 1],
        candidates=candidates,
        roles={"changed": changed, "out": out},
        meta={"format": changed - 2, "template": rows % 2},
        vocab_size=V,
    )


def preferred(model, pairs):
    """The same pairs, their answers exchanged where the model says the corrupted one."""
    runs = pair_runs(model, pairs)
    wrong = runs.clean.logit_difference < runs.corrupted.logit_difference
    return replace(
        pairs,
        answer=torch.where(wrong, pairs.corrupted_answer, pairs.answer),
        corrupted_answer=torch.where(wrong, pairs.answer, pairs.corrupted_answer),
    )


@torch.no_grad()
def by_hand(model, pairs, edits, tokens=None):
    """Logits at the ends of the clean prompts in one whole patched run."""
    with model.patch(edits):
        logits = model(pairs.clean if tokens is None else tokens)
    return logits[torch.arange(len(pairs)), pairs.out]


@torch.no_grad()
def recorded(model, tokens, *sites):
    """The activations at these sites."""
    with model.record(*sites) as seen:
        model(tokens)
    return seen


def put(value, at):
    """An edit: this value where `at` is true, of the first dimensions."""
    return lambda x: torch.where(at.reshape(*at.shape, *[1] * (x.ndim - at.ndim)), value, x)
