"""Do the parameters of attention and of the MLP store facts in each other's place?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments.claims import Claim
from experiments.studies.trained_recall import Sizes, TrainedRecall, bits_held
from experiments.study import Preset

_PAPER = Source("nichani2024facts", "section 5, Figure 4 (right)")
_OURS = Source("seqtheory", "trained factual recall")
_SIZE = ("S", "D", "d", "head_dim")
_CELL = (*_SIZE, "heads", "width")


@dataclass(frozen=True)
class FactualTradeOff(TrainedRecall):
    """One task, and transformers with more and more heads and wider and wider MLPs."""

    heads: tuple[int, ...] = (1, 2, 4, 6, 12)
    head_dim: tuple[int, ...] = (4,)
    width: tuple[int, ...] = (0, 8, 16, 48)
    """Hidden units of the MLP; 0 is attention only."""
    d: tuple[int, ...] = (16,)
    S: tuple[int, ...] = (12,)
    """Subjects; there are as many relations."""

    name = "factual-trade-off"
    title = "Facts in attention or in the MLP"
    version = 1
    presets = {
        "quick": Preset("30 s"),
        "small": Preset(
            "10 min",
            {"heads": (1, 2, 3, 4, 6, 8, 10, 12, 16), "width": (0, 8, 16, 24, 32, 48, 64, 96),
             "max_steps": (1500,), "seed": tuple(range(4))},
        ),
        "medium": Preset(
            "6 h on 2 cores",
            {"heads": (1, 2, 4, 6, 8, 12, 16, 24), "head_dim": (8,), "d": (32,), "S": (24,),
             "D": (8,), "width": (0, 8, 16, 32, 64, 96, 128), "length": (16,),
             "max_steps": (4000,), "batch_size": (512,), "learning_rate": (0.01,)},
        ),
        "paper": Preset(
            "hours on a GPU",
            {"heads": (1, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32), "head_dim": (8,),
             "width": (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128), "d": (32,),
             "S": (32,), "D": (8,), "length": (32,), "max_steps": (16384,),
             "batch_size": (1024,), "learning_rate": (0.01,), "seed": (0,)},
        ),
    }  # fmt: skip
    claims = (
        Claim(
            name="attention-alone-suffices",
            statement="with the most heads, transformers without an MLP recall at least 95 %",
            source=_PAPER,
            relation=">=",
            measured="accuracy",
            predicted=0.95,
            where={"width": 0, "most_heads": True},
            over=_CELL,
            tolerance=0.0,
        ),
        Claim(
            name="mlp-replaces-attention",
            statement="with heads that carry all d dimensions, an MLP parameter replaces at least "
            "one of attention: as many more, without an MLP, recall no more",
            source=_PAPER,
            relation=">=",
            measured="exchange_rate",
            predicted=1.0,
            where={"carried": True},
            over=_SIZE,
            tolerance=0.0,
        ),
        Claim(
            name="mlp-replaces-at-most-four",
            statement="and it replaces at most four, the slope of the published guide line",
            source=_PAPER,
            relation="<=",
            measured="exchange_rate",
            predicted=4.0,
            where={"carried": True},
            over=_SIZE,
            tolerance=0.0,
        ),
        Claim(
            name="mlp-cannot-replace-the-first-heads",
            statement="with one head, the widest MLP recalls at most 80 %: attention has to hand "
            "on what is asked, H d_h of order S + R",
            source=Source("nichani2024facts", "Theorem 4 (attention and MLP)"),
            relation="<=",
            measured="accuracy",
            predicted=0.8,
            where={"heads": 1, "widest": True},
            over=_CELL,
            tolerance=0.0,
        ),
        Claim(
            name="facts-reach-answers-through-the-mlp",
            statement="where there is an MLP, knocking it out leaves no more than a guess among "
            "the answers of a relation, on average over the numbers of heads",
            source=_OURS,
            relation="<=",
            measured="accuracy_without_mlp",
            predicted="guess",
            where={"with_mlp": True},
            over=(*_SIZE, "width"),
            tolerance=0.0,
        ),
        Claim(
            name="direct-path-holds-few",
            statement="with an MLP of width d or more, knocking out the direct path from attention "
            "leaves at least half of the accuracy, on average over the numbers of heads",
            source=_OURS,
            relation=">=",
            measured="accuracy_without_attention",
            predicted="half_accuracy",
            where={"wide": True},
            over=(*_SIZE, "width"),
            tolerance=0.0,
        ),
        Claim(
            name="within-information-limit",
            statement="the bits of the facts recalled are at most the 32 of each parameter, on "
            "average over all models",
            source=Source("seqtheory", "theorem M6"),
            relation="<=",
            measured="bits_held",
            predicted="bits_stored",
            over=_SIZE,
            tolerance=0.0,
        ),
    )

    @staticmethod
    def sizes(
        *, S: int, D: int, d: int, heads: int, head_dim: int, width: int, **training: Any
    ) -> Sizes:
        """As the axes say, with as many relations as subjects."""
        return Sizes(S, S, D, d, heads, head_dim, width)

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Rows with what they are compared with; the exchange rate is NaN where it has none."""
        names = [f"accuracy_without_{path}" for path in ("attention", "mlp")]
        rows = rows.reindex(columns=list(dict.fromkeys([*rows.columns, *names])))
        with_mlp = rows["accuracy_without_mlp"].notna()  # those that diverged were not asked
        rows = rows.assign(
            with_mlp=with_mlp,
            wide=with_mlp & (rows["width"] >= rows["d"]),
            most_heads=rows["heads"] == rows["heads"].max(),
            widest=rows["width"] == rows["width"].max(),
            guess=1 / rows["D"],
            half_accuracy=rows["accuracy"] / 2,
            bits_held=bits_held(rows.assign(R=rows["S"])),
            bits_stored=32.0 * rows["parameters"],
            exchange_rate=np.nan,
        )
        runs = [name for name in FactualTradeOff().grid() if name not in ("heads", "width")]
        for _, run in rows.groupby(runs, sort=False):
            rows.loc[run.index, "exchange_rate"] = _exchange_rates(run)
        carries = rows["heads"] * rows["head_dim"] >= rows["d"]
        return rows.assign(carried=carries & rows["exchange_rate"].notna())


def _exchange_rates(run: pandas.DataFrame) -> np.ndarray:
    """Parameters of attention that each of the MLP saves, for the models of one draw.

    Without an MLP the accuracy is interpolated between the numbers of heads, made monotone. NaN
    where there is no MLP, or none of these models recalls more, or all do.
    """
    alone = run[run["width"] == 0].sort_values("attention_parameters")
    if len(alone) < 2:
        return np.full(len(run), np.nan)
    reached = np.maximum.accumulate(alone["accuracy"].to_numpy())
    increasing = np.append(True, np.diff(reached) > 0)
    reached, sizes = reached[increasing], alone["attention_parameters"].to_numpy()[increasing]
    needed = np.interp(run["accuracy"], reached, sizes, left=np.nan, right=np.nan)
    with_mlp = run["width"] > 0
    return np.where(
        with_mlp & (run["accuracy"] < reached[-1]),
        (needed - run["attention_parameters"]) / run["mlp_parameters"].where(with_mlp, 1),
        np.nan,
    )
