"""How small models tell the odd one out: the findings on mamba-370m, of models of every seed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments import ioi_tables, scratch
from experiments.claims import Claim
from experiments.interventions.pair_maps import taps
from experiments.study import Preset, Study
from experiments.toys import TOYS, trained

SOLVED = 0.9
"""Accuracy from which on the mechanism of a model is told."""
EXACT = 1e-4
"""Largest difference between the parts of a block's output and the output, in single precision."""
_OURS = Source("seqtheory", "indirect object identification")
_TOLD: dict[str, Any] = dict(where={"solved": True}, over=("toy",), tolerance=0.0)
_CARRIED: dict[str, Any] = _TOLD | dict(where={"solved": True, "convolved": True})
"""Of models whose bottleneck has a convolution and a state."""
_MAMBA: dict[str, Any] = _TOLD | dict(where={"solved": True, "mamba": True})
"""Of models of Mamba blocks only, of which the published statements are."""


def _published(place: str) -> Source:
    return Source(key="ensign2024investigating", place=place)


@dataclass(frozen=True)
class IOIMaps(Study):
    """Resampling, taps, cross-talk, swapped names and writes, in toys of several seeds."""

    toys: tuple[str, ...] = ("toy-2x64",)
    """Names in `experiments.toys.TOYS`."""
    pairs: int = 12
    """Pairs of each of the five formats in a map."""
    averaged: int = 1000
    """Pairs over whose prompts, clean and corrupted, the codes of names are averaged."""
    swapped: int = 60
    """Prompts in which a first mention is swapped, on average by slot; second ones, in all."""
    max_steps: int | None = None
    """How long each toy may train, instead of as long as it says."""
    seeds: int = 5

    name = "ioi-maps"
    title = "The mechanism of indirect object identification"
    version = 2
    presets = {
        "quick": Preset(expected_time="15 s", axes=dict(seeds=3)),
        "small": Preset(
            expected_time="2 min", axes=dict(toys=("toy-2x64", "toy-mamba2", "toy-hybrid"))
        ),
        "medium": Preset(
            expected_time="4 h",
            axes=dict(
                toys=("toy-2x64", "toy-mamba2", "toy-hybrid", "toy-4x64"),
                pairs=80, averaged=10_000, swapped=101,
            ),
        ),
    }  # fmt: skip
    claims = (
        Claim(
            name="one-block-mixes-tokens-for-the-answer",
            statement="with the cross-talk of one block alone, the bottleneck, at least half of "
            "the answers survive (layer 39 of mamba-370m: 0.75)",
            source=_published("figure 5"),
            relation=">=", measured="alone_best", predicted=0.5, **_MAMBA,
        ),
        Claim(
            name="no-other-block-mixes-tokens-for-the-answer",
            statement="with the cross-talk of any other block alone, fewer than a quarter of the "
            "answers survive",
            source=_OURS,
            relation="<=", measured="alone_other", predicted=0.25, **_TOLD,
        ),
        Claim(
            name="attention-mixes-tokens-in-hybrids",
            statement="in at least half of the hybrids the bottleneck is a layer of attention",
            source=_OURS,
            relation=">=", measured="attends", predicted=0.5, over=("toy",), tolerance=0.0,
            where={"solved": True, "hybrid": True},
        ),
        Claim(
            name="bottleneck-reads-the-changed-name",
            statement="the logit difference falls by at least 0.3 of its range where the "
            "bottleneck reads the changed name (layer 39: 0.28 and more)",
            source=_published("figure 3"),
            relation=">=", measured="resampled", predicted=0.3, **_MAMBA,
        ),
        Claim(
            name="nothing-is-read-elsewhere",
            statement="no block changes the logit difference by more than 0.15 of its range by "
            "what it reads at another position than the changed name (most layers: below 0.06)",
            source=_published("figure 3"),
            relation="<=", measured="resampled_elsewhere", predicted=0.15, **_MAMBA,
        ),
        Claim(
            name="first-block-and-bottleneck-are-necessary",
            statement="without the first block, or without the bottleneck, at most 0.55 of the "
            "answers are right (layers 0 and 39: 0.10 and 0.55)",
            source=_published("figure 4"),
            relation="<=", measured="removed_best", predicted=0.55, **_MAMBA,
        ),
        Claim(
            name="one-tap-looks-back",
            statement="one tap of the bottleneck's convolution that looks back has at least half "
            "of the effect of its taps",
            source=_published("figure 7"),
            relation=">=", measured="looks_back", predicted=0.5, **_MAMBA,
        ),
        Claim(
            name="the-tap-looks-one-token-back",
            statement="in every model the tap with the largest effect looks one token back, as in "
            "layer 39 of mamba-370m (0.95); measured: how many taps away it is",
            source=_published("figure 7"),
            relation="<=", measured="from_one", predicted=0.0, failure_probability=0.0,
            expected="refuted", corrected_by="taps-look-back", **_MAMBA,
        ),
        Claim(
            name="taps-look-back",
            statement="the taps that look back have together at least half of the effect of the "
            "bottleneck's taps; which ones, depends on the seed",
            source=_OURS,
            relation=">=", measured="all_look_back", predicted=0.5, **_CARRIED,
        ),
        *(
            Claim(
                name=f"{which}-mentions-are-interchangeable-{how.replace('_', '-')}",
                statement=f"mean codes of {which} mentions, of whichever slot, swap names in a "
                f"slot of {which} mentions in at least 0.8 of the prompts, put in at all of the "
                "four tokens from the name on "
                f"({how.replace('_', ' and ')}; mamba-370m: {figure})",
                source=_published("figure 8"),
                relation=">=", measured=f"{how}_{which}", predicted=0.8, **_MAMBA,
            )
            for which, how, figure in (
                ("first", "add_subtract", "0.99"),
                ("second", "add_subtract", "0.89"),
                ("first", "replace", "0.99"),
                ("second", "replace", "0.93"),
            )
        ),
        Claim(
            name="mentions-have-codes-of-their-own",
            statement="replaced by a code of a mention of the same kind, names are swapped more "
            "often, by at least 0.25 of the prompts, than by one of the other kind (mamba-370m: "
            "0.69)",
            source=_published("figure 8"),
            relation=">=", measured="replace_split", predicted=0.25, **_MAMBA,
        ),
        *(
            Claim(
                name=f"{which}-mentions-are-interchangeable-in-the-state",
                statement=f"mean writes into the state at {which} mentions, of whichever slot, "
                f"added and subtracted at a slot of {which} mentions swap names in at least 0.8 of "
                "the prompts, while steps, B, C, skip and gate stay as they are",
                source=_OURS,
                relation=">=", measured=f"written_{which}", predicted=0.8, **_CARRIED,
            )
            for which in ("first", "second")
        ),
        Claim(
            name="the-other-kind-swaps-nothing-in-the-state",
            statement="added and subtracted there, mean writes at mentions of the other kind swap "
            "names in at most 0.2 of the prompts",
            source=_OURS,
            relation="<=", measured="written_across", predicted=0.2, **_CARRIED,
        ),
        Claim(
            name="the-selection-separates-the-mentions",
            statement="the codes of a name as a first and as a second mention agree less in what "
            "is written into the state than in the input of the state-space model: their cosine "
            "is lower by at least 0.5",
            source=_OURS,
            relation=">=", measured="selected_apart", predicted=0.5, **_CARRIED,
        ),
        Claim(
            name="first-mentions-write-for-their-names",
            statement="tokens to which first mentions are carried write into the state of the "
            "bottleneck in favour of their names",
            source=_OURS,
            relation=">=", measured="first_writes", predicted=0.0, **_CARRIED,
        ),
        Claim(
            name="second-mentions-write-against-their-names",
            statement="tokens to which second mentions are carried write into the state of the "
            "bottleneck against their names",
            source=_OURS,
            relation="<=", measured="second_writes", predicted=0.0, **_CARRIED,
        ),
        Claim(
            name="writes-add-up",
            statement="what the tokens write and the skip add up to the output of the bottleneck "
            "to 0.0001",
            source=_OURS,
            relation="<=", measured="write_error", predicted=EXACT,
            where={"convolved": True}, over=("toy",), tolerance=0.0,
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return dict(
            toy=self.toys, pairs=(self.pairs,), averaged=(self.averaged,),
            swapped=(self.swapped,), max_steps=(self.max_steps,), seed=range(self.seeds),
        )  # fmt: skip

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        toy: str,
        pairs: int,
        averaged: int,
        swapped: int,
        max_steps: int | None,
        seed: int,
    ) -> dict[str, Any]:
        """The maps of a trained toy; of its bottleneck, what its mixer has.

        The prompts are the same for all models, as published.
        """
        model = trained(
            toy, ioi_tables.TASK, seed=seed, max_steps=max_steps,
            checkpoint=scratch.checkpoint("toy"),
        ).model  # fmt: skip
        working = ioi_tables.balanced(pairs, seed=ioi_tables.WORKING)
        measured = ioi_tables.balanced(pairs, seed=ioi_tables.VALIDATION)
        order = ioi_tables.bottleneck_order(model, working)
        block = order["bottleneck"]
        width = taps(model, block)
        metrics = {
            **order,
            "convolved": width > 0,
            **ioi_tables.answers(model, measured),
            **ioi_tables.cross_talk_alone(model, measured, block),
            **ioi_tables.resampled(model, measured, block),
        }
        if width:
            metrics |= ioi_tables.shifts(model, working, measured, block)
            metrics |= ioi_tables.codes(
                model, block, tap=metrics["tap"], width=width, averaged=averaged, swapped=swapped
            )
            metrics |= ioi_tables.writes(model, measured, block, width=width)
        return metrics

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Marks the models that have solved the task; blank, what a bottleneck has not."""
        rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *_MEASURED])))
        removed = zip(rows["removed_accuracy"], rows["bottleneck"], strict=True)
        layers = [TOYS[toy].layers for toy in rows["toy"]]
        attends = [
            float(kinds[block] == "attention")
            for kinds, block in zip(layers, rows["bottleneck"], strict=True)
        ]
        return rows.assign(
            solved=rows["accuracy"] >= SOLVED,
            mamba=[{*kinds} == {"mamba"} for kinds in layers],
            hybrid=["attention" in kinds for kinds in layers],
            attends=attends,
            removed_best=[max(found[0], found[block]) for found, block in removed],
            from_one=(rows["tap"] - 1).abs(),
        )


_MEASURED = (
    "tap",
    *(claim.measured for claim in IOIMaps.claims if {"convolved", "mamba"} & {*claim.where}),
)
"""Columns of claims that models lack whose bottleneck has no state."""
