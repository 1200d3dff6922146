"""Maps of one model that solves indirect object identification, as numbers and arrays.

blocks by cross-talk ─▶ the bottleneck ─▶ its taps, name codes, writes
└ on other pairs than what is measured of them
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.interventions.ablations import cross_talk, mixing_blocks, zero_ablation
from experiments.interventions.greedy_ablations import greedy_cross_talk
from experiments.interventions.name_codes import SLOTS, NameMeans, name_means, swap_successes
from experiments.interventions.pair_maps import resample_map, tap_map
from experiments.interventions.pair_runs import pair_runs
from experiments.interventions.shift import dominant_shift, shift_table
from experiments.interventions.state_writes import (
    answer_directions,
    cosine_map,
    write_attribution,
)
from experiments.models.backbone import SequenceModel
from experiments.tasks.ioi import FORMATS, IOI
from experiments.tasks.prompt_pairs import PromptPairs

TASK = IOI()
"""What the models were trained on."""
ALIGNED = replace(TASK, templates=(0, 1, 3))
"""All but the template whose names stand elsewhere: no prompt is padded."""
WORKING, VALIDATION = 27, 28
"""Seeds of the pairs on which a block and a tap are chosen, and of those they are measured on."""
FIRST = 3
"""So many of the slots are first mentions."""


def balanced(count: int, *, seed: int) -> PromptPairs:
    """So many aligned pairs of each format, the first ones of ten times as many."""
    pairs = ALIGNED.pairs(10 * len(FORMATS) * count, seed=seed)
    formats = [(pairs.meta["format"] == i).nonzero()[:count, 0] for i in range(len(FORMATS))]
    return pairs[torch.cat(formats)]


def answers(model: SequenceModel, pairs: PromptPairs) -> dict[str, Any]:
    """What the model says of the pairs as they are, and with one block removed."""
    runs = pair_runs(model, pairs)
    removed = zero_ablation(model, pairs)
    return {
        "accuracy": float(runs.clean.candidate_accuracy.mean()),
        "accuracy_of_all_tokens": float(runs.clean.accuracy.mean()),
        "relative_probability": float(runs.clean.relative_probability.mean()),
        "logit_difference": float(runs.clean.logit_difference.mean()),
        "corrupted_logit_difference": float(runs.corrupted.logit_difference.mean()),
        "removed_accuracy": removed.candidate_accuracy.mean(dim=1).numpy(),
        "removed_probability": removed.relative_probability.mean(dim=1).numpy(),
    }


def cross_talk_alone(model: SequenceModel, pairs: PromptPairs, bottleneck: int) -> dict[str, Any]:
    """Accuracies where one block alone hears the clean tokens, NaN for one that mixes none."""
    blocks = set(mixing_blocks(model))
    sets = [blocks, *(blocks - {block} for block in sorted(blocks))]
    patched, *alone = cross_talk(model, pairs, sets).candidate_accuracy.mean(dim=1).tolist()
    accuracy = np.full(len(model.blocks), np.nan)
    accuracy[sorted(blocks)] = alone
    return {
        "alone_accuracy": accuracy,
        "alone_best": float(accuracy[bottleneck]),
        "alone_other": float(np.nanmax(np.delete(accuracy, bottleneck))),
        "all_patched_accuracy": patched,
    }


def resampled(model: SequenceModel, pairs: PromptPairs, bottleneck: int) -> dict[str, Any]:
    """Effects of blocks that read a corrupted token: at the changed name, and anywhere else."""
    effects = _by_format(resample_map(model, pairs), pairs)
    changed = np.zeros_like(effects, dtype=bool)
    for format_, place in enumerate(_changed(pairs)):
        changed[format_, :, place] = True
    return {
        "resample": effects,
        "resampled": float(effects[:, bottleneck][changed[:, bottleneck]].mean()),
        "resampled_elsewhere": float(np.abs(effects[~changed]).max()),
    }


def shifts(
    model: SequenceModel, working: PromptPairs, pairs: PromptPairs, bottleneck: int
) -> dict[str, Any]:
    """Effects of taps, and how much of the bottleneck's look back by which."""
    effects = tap_map(model, pairs)
    table = shift_table(effects, pairs.roles, pairs.meta["format"])
    dominant = dominant_shift(table)
    shares = tap_shares(effects[bottleneck], pairs)
    chosen = tap_shares(tap_map(model, working, blocks=[bottleneck])[0], working)
    return {
        "taps": _by_format(effects, pairs),
        "shift_block": dominant["block"].to_numpy(),
        "shift_tap": dominant["tap"].to_numpy(),
        "shift_share": dominant["share"].to_numpy(),
        "tap_shares": shares,
        "tap": int(chosen.argmax()),
        "looks_back": float(shares[1 + int(chosen[1:].argmax())]),
        "all_look_back": float(shares[1:].sum()),
    }


def tap_shares(
    effects: Float[Tensor, "taps positions pairs"], pairs: PromptPairs
) -> Float[np.ndarray, " taps"]:
    """Share of a block's positive effects that each tap has where it reads the changed name.

    Means over formats, to which one without effects adds nothing.
    """
    table = shift_table(effects[None], pairs.roles, pairs.meta["format"])
    at_name = table[table["role"] == [FORMATS[i].changed for i in table["format"]]]
    shares = [at_name.loc[at_name["tap"] == tap, "share"].sum() for tap in range(len(effects))]
    return np.array(shares, dtype=float) / len(FORMATS)


def codes(
    model: SequenceModel, block: int, *, tap: int, width: int, averaged: int, swapped: int
) -> dict[str, Any]:
    """How often swaps of names succeed, and how alike their codes are.

    Swapped at all offsets that the convolution reaches together, and at that of one tap; in what
    the state-space model is told, and, at all offsets, only in what that writes into its state.
    """
    # Those with a fourth name: in the others the new name is in the prompt already.
    pairs = replace(ALIGNED, formats=(0, 1, 2)).pairs(3 * swapped, seed=VALIDATION)
    prompts = ALIGNED.pairs(averaged, seed=WORKING).doubled()
    joint = name_means(model, prompts, block, range(width))
    at_tap = replace(joint, offsets=(tap,), mean=joint.mean[:, :, [tap]])

    def swapped_by(means: NameMeans, how: str) -> Float[np.ndarray, "slots slots"]:
        return swap_successes(model, pairs, means, how=how).nanmean(dim=-1).numpy()

    put, added = (swapped_by(joint, how) for how in ("replace", "add-subtract"))
    written = name_means(model, prompts, block, range(width), site="write")
    state = swapped_by(written, "add-subtract")
    told, kept = (means.cosines().numpy() for means in (joint, written))
    within = np.zeros_like(put, dtype=bool)
    within[:FIRST, :FIRST] = within[FIRST:, FIRST:] = True
    return {
        "replace": put,
        "add_subtract": added,
        "replace_at_tap": swapped_by(at_tap, "replace"),
        "add_subtract_at_tap": swapped_by(at_tap, "add-subtract"),
        "add_subtract_written": state,
        "code_cosines": told,
        "write_cosines": kept,
        "replace_first": float(put[:FIRST, :FIRST].mean()),
        "replace_second": float(put[FIRST:, FIRST:].mean()),
        "add_subtract_first": float(added[:FIRST, :FIRST].mean()),
        "add_subtract_second": float(added[FIRST:, FIRST:].mean()),
        "replace_split": float(put[within].mean() - put[~within].mean()),
        "written_first": float(state[:FIRST, :FIRST].mean()),
        "written_second": float(state[FIRST:, FIRST:].mean()),
        "written_across": float(state[~within].mean()),
        "selected_apart": float((told - kept)[~within].mean()),
    }


def writes(model: SequenceModel, pairs: PromptPairs, block: int, *, width: int) -> dict[str, Any]:
    """What the tokens write into the state for each name and for the answer, in logits.

    What is written for the name of a slot counts at the tokens that the convolution carries it to.
    """
    directions = [name_directions(model, pairs, slot) for slot in SLOTS]
    found = [
        write_attribution(model, pairs.clean, block, pairs.out, toward)
        for toward in (*directions, answer_directions(model, pairs))
    ]
    means = torch.stack([part.writes.mean(dim=0) for part in found]).numpy()
    places = [int(pairs.roles[slot][0]) for slot in SLOTS]
    own = np.array([means[i, at : at + width].sum() for i, at in enumerate(places)])
    return {
        "writes": means[:-1],
        "writes_to_answer": means[-1],
        "skip_to_answer": float(found[-1].skip.mean()),
        "own_writes": own,
        "first_writes": float(own[:FIRST].mean()),
        "second_writes": float(own[FIRST:].mean()),
        "write_error": max(part.error for part in found),
        "cosines": cosine_map(model, pairs.clean, block).mean(dim=0).numpy(),
    }


def name_directions(
    model: SequenceModel, pairs: PromptPairs, slot: str
) -> Float[Tensor, "pairs d_model"]:
    """Row of the head for the name in a slot minus the mean of those not in the clean prompt."""
    head = (model.embedding if model.head is None else model.head).weight.detach().cpu()
    names = torch.tensor(ALIGNED.grammar.names)
    absent = (pairs.clean[:, :, None] != names).all(dim=1).to(head)
    own = pairs.clean.gather(1, pairs.roles[slot][:, None])[:, 0]
    return head[own] - absent @ head[names] / absent.sum(dim=1, keepdim=True)


def bottleneck_order(model: SequenceModel, working: PromptPairs) -> dict[str, Any]:
    """The blocks in the order in which their cross-talk is given back; the first is the
    bottleneck."""
    # Above 1 is no accuracy: it goes on until no block is left.
    found = greedy_cross_talk(model, working, target=1.0)
    return {
        "bottleneck": found.order[0],
        "greedy_order": np.array(found.order),
        "greedy_accuracy": np.array(found.accuracy),
    }


def _by_format(
    effects: Float[Tensor, "*cells pairs"], pairs: PromptPairs
) -> Float[np.ndarray, "formats ..."]:
    """Means over the pairs of each format."""
    formats = pairs.meta["format"]
    means = [effects[..., formats == i].mean(dim=-1) for i in range(len(FORMATS))]
    return torch.stack(means).numpy()


def _changed(pairs: PromptPairs) -> list[int]:
    """Position of the name that is another one in the corrupted prompts, by format."""
    return [int(pairs.roles[format_.changed][0]) for format_ in FORMATS]
