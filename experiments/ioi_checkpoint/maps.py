"""What is measured in a checkpoint of Mamba on disk, by blocks, taps and tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray
from torch import Tensor

from experiments.interventions.ablations import cross_talk, zero_ablation
from experiments.interventions.greedy_ablations import greedy_cross_talk, greedy_removal
from experiments.interventions.name_codes import SLOTS, name_means, swap_successes
from experiments.interventions.pair_maps import resample_map, tap_map
from experiments.interventions.pair_runs import pair_runs
from experiments.interventions.state_writes import cosine_map
from experiments.ioi_checkpoint import published
from experiments.models.backbone import SequenceModel
from experiments.tasks.ioi import FORMATS
from experiments.tasks.ioi_grammar import Grammar
from experiments.tasks.ioi_text import TokenizedIOI
from experiments.tasks.prompt_pairs import PromptPairs

ROWS = 32
"""Sequences in one forward pass: 370 million parameters and their activations fit in 8 GiB."""
SEED = 27
"""As published, though the prompts drawn from it are others."""
_ALIGNED = (0, 1, 3)
"""The templates whose names stand at the same positions."""

Metrics = dict[str, ndarray]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model of Mamba blocks, and its prompts; `share` of the pairs below is drawn."""

    model: SequenceModel
    grammar: Grammar
    share: float

    @property
    def published_depth(self) -> bool:
        """Whether the published numbers of blocks mean something."""
        return len(self.model.blocks) == published.LAYERS

    @property
    def centre(self) -> int:
        """Block 39 of 48, or the one at the same relative depth."""
        last = len(self.model.blocks) - 1
        return round(published.CENTRE * last / (published.LAYERS - 1))

    def pairs(
        self,
        count: int,
        *,
        seed: int = SEED,
        templates: tuple[int, ...] = (0, 1, 2, 3),
        formats: tuple[int, ...] = (0, 1, 2, 3, 4),
    ) -> PromptPairs:
        """A share of so many pairs, at least two: from one there is no telling how they scatter."""
        task = TokenizedIOI(grammar=self.grammar, templates=templates, formats=formats)
        return task.pairs(max(2, round(count * self.share)), seed=seed)

    def aligned(
        self, count: int, *, seed: int = SEED, formats: tuple[int, ...] = (0, 1, 2, 3, 4)
    ) -> PromptPairs:
        """Pairs with every role at the same position; ValueError where the tokens forbid it."""
        pairs = self.pairs(count, seed=seed, templates=_ALIGNED, formats=formats)
        if len(pairs.aligned()) < len(pairs):
            raise ValueError(f"templates {_ALIGNED} must have their names at the same positions")
        return pairs

    def of_each_format(self, count: int) -> list[PromptPairs]:
        """Aligned pairs of each format, as many of all."""
        return [self.aligned(count, formats=(kind,)) for kind in range(len(FORMATS))]


def accuracy(subject: Subject) -> Metrics:
    """Of 200 pairs and their exchange, the example prompt, and the weights of the farthest tap."""
    clean = pair_runs(subject.model, subject.pairs(200).doubled(), rows=ROWS).clean
    found = {
        "accuracy": by_pair(clean.candidate_accuracy),
        "relative_probability": by_pair(clean.relative_probability),
        "farthest_tap": np.array([max(map(_farthest_tap, subject.model.blocks))]),
    }
    tokens = [_example(subject.grammar, name) for name in ("Lauren", "Wesley")]
    if None in tokens:
        return found
    prompts = torch.tensor(tokens)
    names = prompts[:, subject.grammar.templates[3].index(-1)]
    with torch.no_grad():
        logits = subject.model(prompts.to(next(subject.model.parameters()).device))[:, -1].double()
    right = logits.softmax(dim=-1)[torch.arange(2), names]
    return found | {
        "example_logits": as_array(logits[:, names][..., None]),
        "example_probabilities": as_array(right[:, None]),
    }


def ablations(subject: Subject) -> Metrics:
    """Each block removed, for 200 pairs and their exchange."""
    pairs = subject.pairs(200).doubled()
    removed = zero_ablation(subject.model, pairs, rows=ROWS)
    probability = by_pair(removed.relative_probability)
    centre = probability[subject.centre]
    others = np.delete(probability, [0, subject.centre], axis=0)
    return {
        "removed_probability": probability,
        "removed_accuracy": by_pair(removed.candidate_accuracy),
        "removal_leads": np.concatenate([(centre - probability[0])[None], others - centre]),
    }


def removal(subject: Subject) -> Metrics:
    """Blocks removed one after the other, for 40 pairs and their exchange."""
    found = greedy_removal(subject.model, subject.pairs(40).doubled(), rows=ROWS)
    return {
        "removable": np.array([len(found.order) / len(subject.model.blocks)]),
        "removal_order": np.array(found.order, dtype=int),
    }


def minimal_sets(subject: Subject) -> Metrics:
    """Cross-talk, for 40 pairs and their exchange of each template and format."""
    orders = [
        greedy_cross_talk(
            subject.model,
            subject.pairs(40, templates=(template,), formats=(kind,)).doubled(),
            rows=ROWS,
        ).order
        for template in range(len(subject.grammar.templates))
        for kind in range(len(FORMATS))
    ]
    blocks = np.arange(len(subject.model.blocks))
    chosen = np.stack([np.isin(blocks, order) for order in orders], axis=1).astype(float)
    first = [float(order[:1] == (subject.centre,)) for order in orders]
    found = {"in_minimal_set": chosen, "centre_first": np.array(first)}
    if not subject.published_depth:
        return found
    deviation = np.abs(chosen.mean(axis=1) - published.MINIMAL_SETS).mean()
    patched = [
        set(blocks.tolist()) - set(published.TRACE[:count])
        for count in range(len(published.TRACE) + 1)
    ]
    pairs = subject.pairs(200, templates=(0,), formats=(0,)).doubled()
    trace = cross_talk(subject.model, pairs, patched, rows=ROWS).candidate_accuracy
    return found | {"minimal_set_deviation": np.array([deviation]), "trace": by_pair(trace)}


def resampling(subject: Subject) -> Metrics:
    """What one block reads at one token is that of the other prompt, for 80 pairs a format."""
    groups = subject.of_each_format(80)
    effects = np.stack([as_array(resample_map(subject.model, x, rows=ROWS)) for x in groups])
    # Of the first mentions, n1 to n3, and of the second, n4.
    changed = np.stack([effects[kind][:, _changed(groups[kind])] for kind in (0, 1, 2)])
    second = effects[4][:, _changed(groups[4])]
    return {
        "resample_map": effects.mean(axis=-1),
        "resample_centre": changed[:, subject.centre],
        "resample_first": changed[:, 0],
        "resample_second": second[[subject.centre, 0]],
        "resample_others": np.delete(changed, [0, subject.centre], axis=1).swapaxes(0, 1),
    }


def shifts(subject: Subject) -> Metrics:
    """Taps at each token: of the central block for 80 pairs a format, of all blocks for 10.

    The whole map of all blocks is for the record; claims are about tap 1 behind the changed name.
    """
    groups = subject.of_each_format(80)
    effects = np.stack([
        as_array(tap_map(subject.model, pairs, blocks=[subject.centre], rows=ROWS)[0])
        for pairs in groups
    ])  # fmt: skip
    behind = [_changed(pairs) + 1 for pairs in groups]
    everywhere = np.stack(
        [as_array(tap_map(subject.model, pairs, rows=ROWS)) for pairs in subject.of_each_format(10)]
    )
    by_block = everywhere[np.arange(len(groups)), :, 1, behind].mean(axis=0)
    return {
        "tap_effects": effects,
        "shift": effects[np.arange(len(groups)), 1, behind],
        "tap_map": everywhere.mean(axis=-1),
        "shift_others": np.delete(by_block, subject.centre, axis=0),
    }


def cosines(subject: Subject) -> Metrics:
    """What each token writes into the state of the central block, and later states; 20 prompts."""
    pairs = subject.aligned(20)
    found = as_array(cosine_map(subject.model, pairs.clean, subject.centre, rows=ROWS))
    names = [int(pairs.roles[slot][0]) for slot in SLOTS[:2]]
    at, behind = (
        np.stack([found[:, name + k, name + k + 1 :].mean(axis=-1) for name in names])
        for k in (0, 1)
    )
    return {"cosines": found.mean(axis=0), "band": behind, "band_start": behind - at}


def swaps(subject: Subject) -> Metrics:
    """Names swapped in 1000 prompts by means over 10 000 pairs and their exchange."""
    model, pairs = subject.model, subject.aligned(1000, seed=SEED + 1)
    means = name_means(model, subject.aligned(10_000).doubled(), subject.centre, (1,), rows=ROWS)
    found = {
        how: as_array(swap_successes(model, pairs, means, how=how, rows=ROWS))
        for how in ("replace", "add-subtract")
    }
    first, second = found["replace"][:, :3].mean(axis=1), found["replace"][:, 3:].mean(axis=1)
    in_first = np.arange(len(SLOTS))[:, None] < 3
    return {
        "replace": found["replace"],
        "add_subtract": found["add-subtract"],
        "replace_within": np.where(in_first, first, second),
        "replace_across": np.where(in_first, second, first),
        "prompts_of_mean": means.count.numpy(),
        "name_cosines": as_array(means.cosines()),
    }


def _changed(pairs: PromptPairs) -> int:
    """The position of the changed name, in pairs of one format."""
    return int(pairs.roles[FORMATS[int(pairs.meta["format"][0])].changed][0])


def _farthest_tap(block: torch.nn.Module) -> float:
    """The largest weight of the tap that looks back farthest, as a share of all."""
    weight = block.get_parameter("mixer.conv1d.weight").detach()[:, 0].abs()
    return float(weight[:, 0].max() / weight.max())


def _example(grammar: Grammar, first: str) -> list[int] | None:
    """The example prompt of the released notebooks; None where its words are not tokens."""
    names, places, objects = (
        {"".join(grammar.words(torch.tensor(filler))).strip(): filler for filler in fillers}
        for fillers in ([(name,) for name in grammar.names], grammar.places, grammar.objects)
    )
    people = (first, "Isaac", "Lucas", "Isaac", "Lucas")
    if not {*people} <= {*names} or "office" not in places or "necklace" not in objects:
        return None
    fillers = [*(names[name][0] for name in people), *places["office"], *objects["necklace"]]
    return [fillers[-slot - 1] if slot < 0 else slot for slot in grammar.templates[3]]


def by_pair(values: Float[Tensor, "*cells runs"]) -> Float[ndarray, "*cells pairs"]:
    """Means over each pair and its exchange, which are not independent."""
    return as_array(values.unflatten(-1, (2, -1)).double().mean(dim=-2))


def as_array(values: Tensor) -> ndarray:
    """In double precision, on the CPU."""
    return values.double().cpu().numpy()
