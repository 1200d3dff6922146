"""How many pairs do trained recurrent states recall, and how many does the theory predict?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

import numpy as np
import pandas
import torch
from torch import nn

from bounds import checks
from bounds.result import Source
from experiments import recall, recall_batches, scratch
from experiments.claims import Claim
from experiments.models.backbone import ModelConfig, SequenceModel
from experiments.recall_tables import at_best_rate
from experiments.study import Preset, Study
from experiments.tasks.multi_query_recall import MultiQueryRecall
from memory.state_capacity import additive_error, chosen_state_facts, crossing

ACCURACY = 0.9
"""Of the questions, up to the capacity."""
TARGET = 0.98
"""Validation accuracy, at the largest number of pairs, that ends a training."""
RATES = {"attention": 1e-2, "linear-attention": 2e-2, "delta-net": 1e-2, "mamba2": 2e-2}
"""Learning rates of the families, which all learn from width 32 on."""
RECURRENT = ("linear-attention", "delta-net", "mamba2")
_QUESTIONS = 2048
"""Of each number of pairs."""

_PAPER = Source("arora2024zoology", "multi-query associative recall")
_OURS = Source("seqtheory", "recurrent states")


def build(family: str, task: MultiQueryRecall, *, key_dim: int, d: int, seed: int) -> SequenceModel:
    r"""A model whose one recurrent state has `key_dim` d numbers, whatever the family.

    Linear attention: keys of that size. DeltaNet: heads of that size. Mamba-2: one head, `key_dim`
    states of d channels. Attention: heads of that size, and a memory that grows with the document.
    Those without a short convolution of their own have one in front, from which they know the token
    before.
    """
    checks.one_of(tuple(RATES), family=family)
    checks.count(key_dim=key_dim, d=d)
    if d % key_dim:
        raise ValueError(f"key_dim must divide d = {d}, got {key_dim}")
    options: dict[str, dict[str, Any]] = {
        "attention": {"heads": d // key_dim},
        "linear-attention": {"d_key": key_dim, "feature_map": "identity"},
        "delta-net": {"heads": d // key_dim},
        "mamba2": {"d_state": key_dim, "head_dim": d, "expand": 1},
    }
    in_front = ("base-conv",) if family in ("attention", "linear-attention") else ()
    config = ModelConfig(
        layers=(*in_front, family),
        d_model=d,
        vocab_size=task.vocab_size,
        mixers={family: options[family]},
        norm="layer",
        max_length=task.length,
    )
    return SequenceModel(config, seed=seed)


def state_size(model: SequenceModel) -> int:
    """Numbers that are kept from one token to the next; of attention, at the longest document.

    Those of short convolutions are not counted.
    """
    kept = 0
    for name, shape in model.sites().items():
        numbers = math.prod(size for size in shape if isinstance(size, int))
        if name.endswith(".mixer.h.{t}"):
            kept += numbers
        elif "attention" in model.config.layers and name.endswith((".mixer.k", ".mixer.v")):
            kept += model.config.max_length * numbers
    return kept


@torch.no_grad()
def curve(model: nn.Module, task: MultiQueryRecall, *, seed: int) -> np.ndarray:
    """Share of right answers to all questions, for 1, 2, ..., `num_pairs` pairs."""
    device, shares = next(model.parameters()).device, []
    for n in range(1, task.num_pairs + 1):
        documents = task.with_pairs(n).sample(_QUESTIONS // n + 1, seed=seed, split="test")
        tokens, at, answers = recall_batches.questions(documents, n)
        best = model(tokens.to(device), at.to(device)).argmax(-1).cpu()
        shares.append((best == answers).double().mean().item())
    return np.array(shares)


def capacity(accuracies: np.ndarray) -> float:
    """Pairs at which a `curve` falls below 90 %, between whole numbers."""
    return crossing(lambda n: accuracies[n - 1], limit=len(accuracies), accuracy=ACCURACY)


@cache
def random_capacity(*, key_dim: int, heads: int, d: int, M: int, limit: int) -> float:
    """Pairs that an additive state recalls with random keys and answers, at most `limit`."""

    def accuracy(N: int) -> float:
        error = additive_error(N=N, M=M, key_dimension=key_dim, value_dimension=d, heads=heads)
        return 1 - error

    return crossing(accuracy, limit=limit, accuracy=ACCURACY)


@dataclass(frozen=True)
class MultiQueryRecallStudy(Study):
    """Models with states of several sizes, trained on up to `num_pairs` pairs."""

    family: tuple[str, ...] = ("linear-attention", "attention")
    """Names in `RATES`."""
    key_dim: tuple[int, ...] = (2, 4)
    """Size of the keys: states have `key_dim` d numbers."""
    d: tuple[int, ...] = (32,)
    vocab_size: tuple[int, ...] = (32,)
    """Half of it answers, half keys and the filler."""
    num_pairs: tuple[int, ...] = (8,)
    """The largest number of pairs, in training and in the test."""
    rate_factor: tuple[float, ...] = (1.0,)
    """Learning rates, in units of that of the family; the best one counts."""
    max_steps: tuple[int, ...] = (800,)
    batch_size: tuple[int, ...] = (16,)
    seed: tuple[int, ...] = tuple(range(3))
    """Initial weights and documents."""

    name = "multi-query-recall"
    title = "Multi-query recall: capacity of trained recurrent states"
    version = 1
    presets = {
        "quick": Preset("40 s"),
        "small": Preset(
            "5 min", {"family": (*RATES,), "key_dim": (2, 4, 8), "max_steps": (1000,)}
        ),
        "medium": Preset(
            "a day on 2 cores",
            {"family": (*RATES,), "key_dim": (2, 4, 8, 16), "d": (32, 64), "vocab_size": (64, 256),
             "num_pairs": (24,), "rate_factor": (0.3, 1.0), "max_steps": (6000,),
             "batch_size": (64,)},
        ),
        "paper": Preset(
            "days on a GPU",
            {"family": (*RATES,), "key_dim": (4, 8, 16, 32, 64), "d": (64, 128, 256, 512),
             "vocab_size": (8192,), "num_pairs": (64,), "rate_factor": (0.01, 0.05, 0.2, 1.0),
             "max_steps": (50_000,), "batch_size": (256,)},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"{family}-capacity-grows-with-its-state",
                statement=f"{family} recalls more pairs with a larger state, a quarter of a pair "
                "or more for each doubling",
                source=_PAPER, relation=">=", measured="growth", predicted=0.25, tolerance=0.0,
                where={"family": family, "compared": True}, over=("d", "vocab_size"),
            )
            for family in RECURRENT
        ),
        *(
            Claim(
                name=f"{family}-recalls-what-random-keys-allow",
                statement=f"trained {family} recalls at least as many pairs as an additive state "
                "of its size, and of as many heads, with random keys and answers",
                source=_OURS, relation=">=", measured="capacity", predicted="random",
                where={"family": family, "told": True}, over=("key_dim", "d", "vocab_size"),
                tolerance=0.0, expected=expected,
            )
            for family, expected in (("linear-attention", "supported"), ("delta-net", "refuted"))
        ),
        Claim(
            name="random-keys-limit-trained-states",
            statement="trained linear attention recalls at most as many pairs as an additive state "
            "of its size with random keys and answers; where there are hardly more answers than "
            "dimensions, embeddings exist with which it recalls all",
            source=_OURS,
            relation="<=",
            measured="capacity",
            predicted="random",
            where={"family": "linear-attention", "could_hold_more": True},
            over=("key_dim", "d", "vocab_size"),
            tolerance=0.0,
            expected="refuted",
        ),
        Claim(
            name="capacity-scales-as-predicted",
            statement="over sizes of the state, the capacity of trained linear attention is "
            "proportional to that predicted for random keys, where neither is all there are",
            source=_OURS,
            relation="~",
            measured="capacity",
            predicted="random",
            where={"family": "linear-attention", "within": True},
            over=("key_dim", "d", "vocab_size"),
            tolerance=0.3,
        ),
        Claim(
            name="delta-rule-recalls-more-than-additive-state",
            statement="DeltaNet recalls at least as many pairs as linear attention with a state of "
            "the same size",
            source=_OURS,
            relation=">=",
            measured="over_additive",
            predicted=0.0,
            where={"family": "delta-net", "paired": True},
            over=("key_dim", "d", "vocab_size"),
            tolerance=0.0,
        ),
        Claim(
            name="attention-recalls-with-keys-of-any-size",
            statement="attention recalls 90 % of the largest number of pairs, whatever the size of "
            "its keys",
            source=_PAPER,
            relation=">=",
            measured="accuracy",
            predicted=ACCURACY,
            where={"family": "attention"},
            over=("key_dim", "d", "vocab_size"),
            tolerance=0.0,
        ),
    )  # fmt: skip

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {axis.name: getattr(self, axis.name) for axis in fields(self)}

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        family: str,
        key_dim: int,
        d: int,
        vocab_size: int,
        num_pairs: int,
        rate_factor: float,
        max_steps: int,
        batch_size: int,
        seed: int,
    ) -> dict[str, Any]:
        """Accuracy by the number of pairs after a training, and the capacity read off it."""
        length = 4 * num_pairs
        task = MultiQueryRecall(vocab_size=vocab_size, length=length, num_pairs=num_pairs)
        model = build(family, task, key_dim=key_dim, d=d, seed=seed)
        outcome = recall.fit(
            model,
            recall_batches.ShortAndLong(task=task, batch_size=batch_size, seed=seed),
            task.sample(_QUESTIONS // 4, seed=seed, split="validation"),
            learning_rate=RATES[family] * rate_factor,
            steps=max_steps,
            target=TARGET,
            seed=seed,
            checkpoint=scratch.checkpoint("recall"),
        )
        accuracies = curve(model, task, seed=seed)
        return {
            "state_size": state_size(model),
            "parameters": sum(p.numel() for p in model.parameters()),
            "accuracies": accuracies,
            "accuracy": float(accuracies[-1]),
            "capacity": capacity(accuracies),
            "validation_accuracy": outcome.final["accuracy"],
            "status": outcome.status,
            "steps": outcome.steps,
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """The trainings at the best learning rate of their family and sizes, with predictions.

        `random`: the capacity predicted of an additive state of as many heads with random keys and
        answers, at most `num_pairs`; `chosen`: what the best embeddings are sure to hold. `growth`:
        pairs per doubling of the state, over all sizes of a seed, in the row of the smallest
        (`compared`). `over_additive`: pairs more than linear attention of the same seed and size.
        A capacity of all `num_pairs` only says that there was no more to recall: where both sides
        of a comparison are such, nothing is `told`, `paired` or, of the smallest, `compared`;
        `within` is where neither is.
        """
        size = [axis.name for axis in fields(MultiQueryRecallStudy)]
        size = [name for name in size if name not in ("rate_factor", "seed")]
        rows = at_best_rate(rows, size).reset_index(drop=True)
        limits = [_limits(row) for _, row in rows.iterrows()]
        rows = rows.join(pandas.DataFrame(limits, index=rows.index))
        rows["could_hold_more"] = rows["random"] < rows[["num_pairs", "chosen"]].min(axis=1)
        full = rows["capacity"] >= rows["num_pairs"]
        rows["within"] = ~full & (rows["random"] < rows["num_pairs"])
        rows["told"] = ~(full & (rows["random"] >= rows["num_pairs"]))
        rows["growth"] = np.nan
        others = [name for name in (*size, "seed") if name != "key_dim"]
        for _, line in rows.groupby(others):
            smallest = line["key_dim"].idxmin()
            if line["key_dim"].nunique() > 1 and not full[smallest]:
                doublings = np.log2(line["key_dim"].to_numpy(float))
                slope = np.polyfit(doublings, line["capacity"].to_numpy(float), 1)[0]
                rows.loc[smallest, "growth"] = slope
        same = [name for name in (*size, "seed") if name != "family"]
        additive = rows.loc[rows["family"] == "linear-attention", [*same, "capacity"]]
        beside = rows[same].merge(additive, on=same, how="left")["capacity"]
        rows["over_additive"] = rows["capacity"] - beside.to_numpy()
        rows["compared"] = rows["growth"].notna()
        both = full & (beside.to_numpy() >= rows["num_pairs"])
        rows["paired"] = rows["over_additive"].notna() & ~both
        return rows


def _limits(row: pandas.Series) -> dict[str, float]:
    n, d, M = row["key_dim"], row["d"], row["vocab_size"] // 2
    heads = d // n if row["family"] == "delta-net" else 1
    chosen = chosen_state_facts(K=M - 1, M=M, key_dimension=n, value_dimension=d)
    return {
        "random": random_capacity(key_dim=n, heads=heads, d=d, M=M, limit=row["num_pairs"]),
        "chosen": float(chosen),
    }
