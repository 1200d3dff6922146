"""Which sequence models find relatives in trees of tokens, and by which mechanism?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas
from jaxtyping import Bool, Int
from torch import Tensor

from bounds.result import Source
from experiments import recall, recall_batches, scratch
from experiments.claims import Claim
from experiments.interventions.corruptions import corrupt
from experiments.recall_tables import at_best_rate
from experiments.study import Preset, Study, Trial
from experiments.tasks.recall import Documents
from experiments.tasks.recall_baselines import baselines
from experiments.tasks.tree_grammar import TreeGrammar
from experiments.tasks.tree_recall import TreeRecall

TARGET = 0.98
"""Validation accuracy that ends a training."""
SKILL = 0.1
"""By how much a model must beat the best shortcut for its mechanism to be told."""
HELD_OUT = 0.2
"""Share of the combinations of token and answer that are held out, if they are."""
QUESTIONS = 6
"""Most questions in a training document."""
_PUBLISHED = (
    "attention", "based", "delta-net", "mamba", "mamba-conv-0", "hyena", "h3", "base-conv",
)  # fmt: skip
_TERMINAL_WEIGHT = 20.0
_TESTED = 1024
_WATCHED = 256
_PATCHED = 320
"""Documents that are patched at the end, as many as published."""

_PAPER = Source("arora2025mechanistic", "associative treecall")
_REVISED = Source("arora2025mechanistic", "version 3, abstract")
_OURS = Source("seqtheory", "recall")


@dataclass(frozen=True)
class TreeRecallStudy(Study):
    """Models trained to find parents or siblings in sentences of one grammar, then patched."""

    architecture: tuple[str, ...] = ("attention", "based", "delta-net", "mamba", "mamba-conv-0")
    """Names in `experiments.recall.ARCHITECTURES`."""
    layers: tuple[int, ...] = (2,)
    d: tuple[int, ...] = (64,)
    """Width of the residual stream."""
    mlp: tuple[bool, ...] = (False,)
    """An MLP behind every mixer."""
    num_terminals: tuple[int, ...] = (20,)
    max_rhs: tuple[int, ...] = (5,)
    """Symbols of the longest right-hand side."""
    max_length: tuple[int, ...] = (32,)
    """Tokens of the longest sentence."""
    relation: tuple[str, ...] = ("parent",)
    held_out: tuple[bool, ...] = (False,)
    """Whether a fifth of the combinations of token and answer is only tested."""
    rate_factor: tuple[float, ...] = (1.0,)
    """Learning rates, in units of that of the architecture at width 64; the best one counts."""
    max_steps: tuple[int, ...] = (1000,)
    batch_size: tuple[int, ...] = (64,)
    grammar: tuple[int, ...] = (0, 1, 2)
    """Seeds of grammars."""
    seed: tuple[int, ...] = (0,)
    """Initial weights, documents and corruptions."""

    name = "tree-recall"
    title = "Recall in trees and its mechanism"
    version = 1
    presets = {
        "small": Preset(
            "15 min",  # at the rates of associative recall, and without an MLP, attention is slow
            {"architecture": ("attention", "based", "delta-net", "mamba"), "mlp": (True,),
             "rate_factor": (0.33,), "max_steps": (2000,)},
        ),
        "medium": Preset(
            "a day on 2 cores",
            {"architecture": (*recall.ARCHITECTURES,), "layers": (1, 2), "mlp": (True,),
             "max_rhs": (5, 10), "held_out": (False, True), "rate_factor": (0.3, 1.0),
             "max_steps": (4000,)},
        ),
        "paper": Preset(
            "thousands of GPU hours",
            {"architecture": (*_PUBLISHED,), "layers": (1, 2), "d": (16, 32, 64, 128, 256),
             "mlp": (True,), "num_terminals": (20, 8192), "max_rhs": (5, 10),
             "max_length": (1024,), "held_out": (False, True),
             "rate_factor": (0.01, 0.03, 0.1, 0.3, 1.0), "max_steps": (100_032,),
             "batch_size": (32,)},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"{architecture}-beats-shortcuts",
                statement=f"two layers of {architecture} answer more questions than the best rule "
                "that recalls nothing",
                source=_PAPER, relation=">=", measured="skill", predicted=0.0, tolerance=0.0,
                where={"architecture": architecture, "deep": True, "held_out": False},
                over=("d", "layers", "num_terminals", "max_rhs"),
            )
            for architecture in ("attention", "based", "delta-net", "mamba")
        ),
        *(
            Claim(
                name=f"{architecture}-stores-at-the-value-in-trees",
                statement=f"where {architecture} beats the shortcuts by a tenth, the input of its "
                "second layer at the value restores at least half of the probability of the answer",
                source=_REVISED if architecture == "mamba-conv-0" else _PAPER,
                relation=">=", measured="at_value", predicted=0.5, tolerance=0.0,
                where={"architecture": architecture, "explained": True},
                over=("d", "layers", "num_terminals", "max_rhs", "held_out"),
            )
            for architecture in ("attention", "based", "mamba-conv-0")
        ),
        *(
            Claim(
                name=f"{architecture}-stores-elsewhere-in-trees",
                statement=f"where {architecture} beats the shortcuts by a tenth, the input of its "
                "second layer at the value restores at most a quarter of the probability",
                source=_PAPER,
                relation="<=", measured="at_value", predicted=0.25, tolerance=0.0,
                where={"architecture": architecture, "explained": True},
                over=("d", "layers", "num_terminals", "max_rhs", "held_out"),
            )
            for architecture in ("mamba", "delta-net", "hyena", "h3")
        ),
        Claim(
            name="one-convolution-is-a-shortcut",
            statement="one short convolution answers no more questions than the best rule that "
            "recalls nothing (by at most 0.05)",
            source=_PAPER,
            relation="<=",
            measured="skill",
            predicted=0.05,
            where={"one_convolution": True, "held_out": False},
            over=("architecture", "d", "num_terminals", "max_rhs"),
            tolerance=0.0,
        ),
        Claim(
            name="combinations-are-memorised",
            statement="questions about a fifth of the combinations of token and answer are "
            "answered at least a tenth less often if these were held out of the training",
            source=_PAPER,
            relation=">=",
            measured="memorised",
            predicted=0.1,
            where={"both_trained": True},
            over=("architecture", "d", "layers", "num_terminals", "max_rhs"),
            tolerance=0.0,
        ),
        Claim(
            name="interventions-on-trees-are-exact",
            statement="patching everything gives the clean run, nothing the corrupted one, and no "
            "patch behind the query changes the answer: log-probabilities agree to 0.001",
            source=_OURS,
            relation="<=",
            measured="self_test",
            predicted=recall.EXACT,
            violations="inexact",
            instances="patched_runs",
            failure_probability=0.0,
            tolerance=0.0,
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    def trials(self) -> tuple[Trial, ...]:
        """The grid, with combinations held out of two layers or more only."""
        return tuple(
            trial
            for trial in super().trials()
            if trial.config["layers"] >= 2 or not trial.config["held_out"]
        )

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        architecture: str,
        layers: int,
        d: int,
        mlp: bool,
        num_terminals: int,
        max_rhs: int,
        max_length: int,
        relation: str,
        held_out: bool,
        rate_factor: float,
        max_steps: int,
        batch_size: int,
        grammar: int,
        seed: int,
    ) -> dict[str, Any]:
        """Accuracy beside the best shortcut, and attributions, along the training and at its end.

        Those at the end are of the test split: with `held_out`, of combinations never trained.
        """
        task = TreeRecall(
            grammar=TreeGrammar(
                seed=grammar, num_terminals=num_terminals, max_rhs=max_rhs,
                terminal_weight=_TERMINAL_WEIGHT,
            ),
            relation=relation, held_out=HELD_OUT if held_out else 0.0, max_length=max_length,
        )  # fmt: skip
        test = task.sample(_TESTED, seed=seed, split="test")
        fifth = replace(task, held_out=HELD_OUT).sample(_TESTED, seed=seed, split="test")
        watched, pair = (
            corrupt(corruptible(task, count, seed=seed, split=split), "key", task, seed=seed)
            for count, split in ((_WATCHED, "validation"), (_PATCHED, "test"))
        )
        model = recall.build(
            architecture, task, d=d, layers=layers, mlp=mlp, length=max_length + 2 + QUESTIONS,
            seed=seed,
        )  # fmt: skip
        outcome = recall.fit(
            model,
            recall_batches.AlikeInLength(
                task=task, questions=QUESTIONS, batch_size=batch_size, seed=seed
            ),
            task.sample(_TESTED // 2, seed=seed, split="validation"),
            learning_rate=recall.ARCHITECTURES[architecture].learning_rate * rate_factor,
            steps=max_steps,
            target=TARGET,
            seed=seed,
            watched=watched,
            checkpoint=scratch.checkpoint("recall"),
        )
        rules = baselines(task.sample(10 * _TESTED, seed=seed), test, answers=task.like("answer"))
        shortcut = max(rules.values())
        return {
            **recall.examined(model, outcome, test, pair, chance=shortcut, seed=seed),
            "accuracy_of_fifth": recall.accuracy(model, fifth),
            "shortcut": shortcut,
            "last_token": rules["last token"],
            "right_of_key": rules["right of the query"],
            "derivable": pair.derivable,
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """The trainings at the best learning rate of their architecture and size, marked.

        The best has the largest mean validation accuracy over grammars and seeds. `memorised`: by
        how much more the same, but trained on all combinations, answers of the fifth held out.
        """
        rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, "at_value"])))
        axes = [axis.name for axis in fields(TreeRecallStudy)]
        shape = [name for name in axes if name not in ("rate_factor", "grammar", "seed")]
        rows = at_best_rate(rows, shape)
        same = [name for name in axes if name not in ("rate_factor", "held_out")]
        everything = rows[~rows["held_out"].astype(bool)][[*same, "accuracy_of_fifth"]]
        trained = rows[same].merge(everything, on=same, how="left")["accuracy_of_fifth"].to_numpy()
        skill = rows["accuracy"] - rows["shortcut"]
        return rows.assign(
            deep=rows["layers"] >= 2,
            skill=skill,
            explained=(skill >= SKILL) & rows["at_value"].notna(),
            one_convolution=(rows["layers"] == 1)
            & rows["architecture"].isin(["based", "base-conv"]),
            memorised=trained - rows["accuracy_of_fifth"],
            both_trained=rows["held_out"].astype(bool) & np.isfinite(trained),
        )


def corruptible(task: TreeRecall, count: int, *, seed: int, split: str) -> Documents:
    """Of twice as many documents, the first that lack a terminal, which can replace their keys.

    They are shorter than others where there are few terminals. ValueError if too few do.
    """
    documents = task.sample(2 * count, seed=seed, split=split)
    found = lacking(documents, task.like("key")).nonzero()[:, 0]
    if len(found) < count:
        raise ValueError(
            f"num_terminals must be larger: of {2 * count} documents {len(found)} lack one, "
            f"{count} are needed"
        )
    return documents[found[:count]]


def lacking(
    documents: Documents, terminals: Int[Tensor, " terminals"]
) -> Bool[Tensor, " documents"]:
    """Whether some of the terminals are not in the document."""
    ordered = documents.tokens.sort(dim=1).values
    first = ordered[:, 1:] != ordered[:, :-1]
    different = (first & (ordered[:, 1:] >= terminals.min())).sum(dim=1)
    return different < len(terminals)
