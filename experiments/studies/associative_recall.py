"""Which sequence models recall associations, and by which mechanism?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments import recall, recall_batches, scratch
from experiments.claims import Claim
from experiments.interventions.corruptions import corrupt
from experiments.recall_tables import at_best_rate
from experiments.study import Preset, Study
from experiments.tasks.associative_recall import AssociativeRecall
from experiments.tasks.recall_baselines import baselines

TARGET = 0.95
"""Validation accuracy that ends a training."""
SOLVED = 0.9
"""Test accuracy from which a model has solved the task, and its mechanism is compared."""
PUBLISHED_STEPS = 50_016
_STORED = "at_behind_key"
_RECURRENT = ("mamba", "delta-net", "hyena", "h3")
_TESTED = 1024
_WATCHED = 256

_PAPER = Source("arora2025mechanistic", "associative recall")
_REVISED = Source("arora2025mechanistic", "version 3, abstract")
_OURS = Source("seqtheory", "recall")
_INDUCTION = dict(source=_PAPER, relation=">=", measured="at_value", predicted=0.5, tolerance=0.0)
_ELSEWHERE = dict(source=_PAPER, relation="<=", measured="at_value", predicted=0.25, tolerance=0.0)


@dataclass(frozen=True)
class AssociativeRecallStudy(Study):
    """Models trained on associative recall, then patched between clean and corrupted documents."""

    architecture: tuple[str, ...] = ("attention", "based", "delta-net", "mamba", "mamba-conv-0")
    """Names in `experiments.recall.ARCHITECTURES`."""
    layers: tuple[int, ...] = (2,)
    d: tuple[int, ...] = (32,)
    """Width of the residual stream."""
    mlp: tuple[bool, ...] = (False,)
    """An MLP behind every mixer."""
    num_pairs: tuple[int, ...] = (4,)
    num_keys: tuple[int, ...] = (8,)
    """Keys, and as many values."""
    rate_factor: tuple[float, ...] = (1.0,)
    """Learning rates, in units of that of the architecture at width 64; the best one counts."""
    max_steps: tuple[int, ...] = (1200,)
    batch_size: tuple[int, ...] = (32,)
    patched: tuple[int, ...] = (128,)
    """Documents whose activations are patched at the end."""
    seed: tuple[int, ...] = tuple(range(3))
    """Initial weights, documents and corruptions."""

    name = "associative-recall"
    title = "Associative recall and its mechanism"
    version = 2
    presets = {
        "quick": Preset("2 min"),
        "small": Preset(
            "8 min",
            {"architecture": ("attention", "attention-without-positions", "based", "based-conv-1",
                              "based-conv-2", "base-conv", "hyena", "h3", "delta-net", "mamba",
                              "mamba-conv-0", "mamba-conv-2"),
             "max_steps": (1500,), "patched": (320,)},
        ),
        "medium": Preset(
            "12 h on 2 cores",
            {"architecture": (*recall.ARCHITECTURES,), "layers": (1, 2, 3), "d": (32, 64, 128),
             "num_pairs": (8,), "num_keys": (64,), "rate_factor": (0.3, 1.0),
             "max_steps": (4000,), "batch_size": (64,), "patched": (320,)},
        ),
        "paper": Preset(
            "days on a GPU",
            {"architecture": (*recall.ARCHITECTURES,), "layers": (1, 2, 3),
             "d": (16, 32, 64, 128, 256), "mlp": (True,), "num_pairs": (16,), "num_keys": (4096,),
             "rate_factor": (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), "max_steps": (PUBLISHED_STEPS,),
             "patched": (320,)},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"{architecture}-solves-recall",
                statement=f"{architecture} recalls at least 90 % of the associations",
                source=_PAPER, relation=">=", measured="accuracy", predicted=SOLVED, tolerance=0.0,
                where={"architecture": architecture, "deep": True}, over=("d", "layers"),
            )
            for architecture in ("attention", "based")
        ),
        *(
            Claim(
                name=f"{architecture}-stores-at-the-value",
                statement=f"where {architecture} recalls, the input of its second layer at the "
                "value restores at least half of the probability of the answer",
                where={"architecture": architecture, "explained": True}, over=("d", "layers"),
                **_INDUCTION,
            )
            for architecture in ("attention", "based")
        ),
        *(
            Claim(
                name=f"{architecture}-stores-behind-the-key",
                statement=f"where {architecture} recalls, the input of its second layer at the "
                "value and the next two tokens restores at least half of the probability",
                source=_OURS, relation=">=", measured=_STORED, predicted=0.5, tolerance=0.0,
                where={"architecture": architecture, "explained": True}, over=("d", "layers"),
            )
            for architecture in ("attention", "based")
        ),
        *(
            Claim(
                name=f"{architecture}-stores-elsewhere",
                statement=f"where {architecture} recalls{poorly}, the input of its second layer at "
                "the value restores at most a quarter of the probability of the answer",
                where={"architecture": architecture, f"explained{poorly and '_poorly'}": True},
                over=("d", "layers"), **_ELSEWHERE,
            )
            for architecture, poorly in (
                ("mamba", ""), ("delta-net", ""),
                ("hyena", " a tenth more than by chance"), ("h3", " a tenth more than by chance"),
            )
        ),
        Claim(
            name="equal-accuracy-unequal-mechanism",
            statement="of models that all recall at least 90 %, attention stores behind the key by "
            "at least half of the probability more than recurrent ones do on average",
            source=_PAPER,
            relation=">=",
            measured="less_behind_key",
            predicted=0.5,
            where={"compared": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="mamba-needs-its-convolution",
            statement="Mamba without its short convolution recalls at most half of the pairs, "
            "in as many steps as are given to Mamba with it",
            source=_PAPER,
            relation="<=",
            measured="accuracy",
            predicted=0.5,
            where={"architecture": "mamba-conv-0", "deep": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="based-needs-its-convolution",
            statement="Based with a convolution of width 1, which mixes no tokens, recalls at most "
            "half of the pairs",
            source=_PAPER,
            relation="<=",
            measured="accuracy",
            predicted=0.5,
            where={"architecture": "based-conv-1", "deep": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="convolution-of-two-suffices-in-based",
            statement="Based with a convolution of width 2 recalls at least 90 %",
            source=_PAPER,
            relation=">=",
            measured="accuracy",
            predicted=SOLVED,
            where={"architecture": "based-conv-2", "deep": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="attention-needs-positions",
            statement="attention without positions recalls at most half of the pairs, as published "
            "for one question a document; asked about all of them, it learns with its mask alone",
            source=_PAPER,
            relation="<=",
            measured="accuracy",
            predicted=0.5,
            where={"architecture": "attention-without-positions", "deep": True},
            over=("d", "layers"),
            tolerance=0.0,
            expected="refuted",
        ),
        Claim(
            name="one-layer-of-attention-fails",
            statement="one layer of attention recalls at most half of the pairs: induction takes "
            "two",
            source=_PAPER,
            relation="<=",
            measured="accuracy",
            predicted=0.5,
            where={"architecture": "attention", "deep": False},
            over=("d",),
            tolerance=0.0,
        ),
        Claim(
            name="one-layer-of-mamba-suffices",
            statement="one layer of Mamba recalls at least 90 %: its convolution is the other step",
            source=_PAPER,
            relation=">=",
            measured="accuracy",
            predicted=SOLVED,
            where={"architecture": "mamba", "deep": False},
            over=("d",),
            tolerance=0.0,
        ),
        Claim(
            name="convolution-of-two-suffices",
            statement="the best of some trainings of Mamba with a convolution of width 2, by their "
            "validation, recalls at least 90 %; undecided if it does not in fewer than the "
            "published steps",
            source=_PAPER,
            relation=">=",
            measured="accuracy",
            predicted=0.9,
            where={"architecture": "mamba-conv-2", "best_training": True, "deep": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="convolution-binds-in-mamba",
            statement="where Mamba recalls, the outputs of its convolutions at the three tokens "
            "behind the key, patched together, restore at least half of the probability",
            source=_REVISED,
            relation=">=",
            measured="sufficient",
            predicted=0.5,
            where={"architecture": "mamba", "recalls": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="convolution-carries-the-binding-alone",
            statement="and corrupting them there destroys at least half of it",
            source=_OURS,
            relation=">=",
            measured="necessary",
            predicted=0.5,
            where={"architecture": "mamba", "recalls": True},
            over=("d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="convolution-is-not-enough",
            statement="Hyena with its short convolution and H3 with its shift recall at most half "
            "of 16 pairs or more, as many as published",
            source=_PAPER,
            relation="<=",
            measured="accuracy",
            predicted=0.5,
            where={"implicit": True, "deep": True, "many_pairs": True},
            over=("architecture", "d", "layers"),
            tolerance=0.0,
        ),
        Claim(
            name="interventions-are-exact",
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

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        architecture: str,
        layers: int,
        d: int,
        mlp: bool,
        num_pairs: int,
        num_keys: int,
        rate_factor: float,
        max_steps: int,
        batch_size: int,
        patched: int,
        seed: int,
    ) -> dict[str, Any]:
        """Accuracy and mechanism along the training, and all attributions at its end."""
        task = AssociativeRecall(num_pairs=num_pairs, num_keys=num_keys, num_values=num_keys)
        validation = task.sample(_TESTED // 2, seed=seed, split="validation")
        test = task.sample(_TESTED, seed=seed, split="test")
        watched = corrupt(task.sample(_WATCHED, seed=seed, split="validation"), "key", task,
                          seed=seed)  # fmt: skip
        model = recall.build(
            architecture, task, d=d, layers=layers, mlp=mlp, length=3 * num_pairs + 4, seed=seed
        )
        outcome = recall.fit(
            model,
            recall_batches.ShortAndLong(task=task, batch_size=batch_size, seed=seed),
            validation,
            learning_rate=recall.ARCHITECTURES[architecture].learning_rate * rate_factor,
            steps=max_steps,
            target=TARGET,
            seed=seed,
            watched=watched,
            checkpoint=scratch.checkpoint("recall"),
        )
        chance = baselines(task.sample(_TESTED, seed=seed), test, answers=task.like("answer"))[
            "chance"
        ]
        pair = corrupt(task.sample(patched, seed=seed, split="test"), "key", task, seed=seed)
        return {
            **recall.examined(model, outcome, test, pair, chance=chance, seed=seed),
            **recall.bound_by_convolution(model, pair),
            "chance": chance,
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """The trainings at the best learning rate of their architecture and size, marked.

        The best has the largest mean validation accuracy over its seeds. `less_behind_key`: by how
        much less recurrent models that recall store there, on average, than attention of the same
        seed and size, in the row of the first of them (`compared`).
        """
        names = ("at_value", "at_behind_key", "sufficient", "necessary")
        rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *names])))
        shape = [axis.name for axis in fields(AssociativeRecallStudy)]
        shape = [name for name in shape if name not in ("rate_factor", "seed")]
        rows = at_best_rate(rows, shape)
        solved = rows["accuracy"] >= SOLVED
        size = [name for name in shape if name != "architecture"]
        attention = rows[(rows["architecture"] == "attention") & solved]
        recurrent = rows[rows["architecture"].isin(_RECURRENT) & solved & rows[_STORED].notna()]
        stored = recurrent.groupby([*size, "seed"])[_STORED].transform("mean")
        beside = attention[[*size, "seed", _STORED]]
        pairs = recurrent[[*size, "seed"]].merge(
            beside, on=[*size, "seed"], how="left", validate="many_to_one"
        )
        less = pandas.Series(pairs[_STORED].to_numpy() - stored.to_numpy(), recurrent.index)
        once = ~recurrent.duplicated([*size, "seed"]) & less.notna()
        order = rows.sort_values("validation_accuracy", kind="stable")
        best = ~order.duplicated(shape, keep="last").reindex(rows.index)
        return rows.assign(
            deep=rows["layers"] >= 2,
            recalls=solved & rows["sufficient"].notna() & rows["necessary"].notna(),
            explained=solved & rows["at_value"].notna(),
            explained_poorly=(rows["accuracy"] >= rows["chance"] + 0.1) & rows["at_value"].notna(),
            implicit=rows["architecture"].isin(["hyena", "h3"]),
            many_pairs=rows["num_pairs"] >= 16,
            best_training=best & (solved | (rows["max_steps"] >= PUBLISHED_STEPS)),
            less_behind_key=less.reindex(rows.index),
            compared=once.reindex(rows.index, fill_value=False),
        )
