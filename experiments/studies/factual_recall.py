"""How many facts does a one-layer transformer recall that is trained, for its parameters?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas

from bounds import checks
from bounds.result import Source
from experiments.claims import Claim
from experiments.studies.trained import capacities, dither
from experiments.studies.trained_recall import Sizes, TrainedRecall, bits_held
from experiments.study import Preset

SCALINGS = ("answers-fixed", "relations-square-root", "answers-distinct")
ACCURACY = 0.99
"""Share of the prompts whose answer makes the facts of a size recalled, as published."""
GUIDE = 0.15
"""Facts of a parameter on the published guide line."""
_BITS_PER_PARAMETER = dict(zip(SCALINGS, (0.15, 0.12, 0.25), strict=True))
"""Of trained transformers, roughly: loads are in units of it."""
_SPACING = 0.45
"""By which the loads of different draws differ, relative to their size."""

_PAPER = Source("nichani2024facts", "section 5, Figure 4 (left) and appendix")
_SHAPE = ("scaling", "d", "head_ratio", "mlp_ratio")
_LINEAR = dict(
    source=_PAPER, relation="~", measured="facts", predicted="parameters", over=_SHAPE,
    tolerance=0.3,
)  # fmt: skip


@dataclass(frozen=True)
class FactualRecallCapacity(TrainedRecall):
    """Trainings with more and more facts, for transformers of several sizes.

    The number of subjects S grows. "answers-fixed": as many relations with D answers each;
    "relations-square-root": about sqrt(S) of them; "answers-distinct": R = D = S.
    """

    scaling: tuple[str, ...] = SCALINGS
    """How relations and answers grow with the subjects."""
    d: tuple[int, ...] = (8, 12, 16)
    head_ratio: tuple[float, ...] = (1.0,)
    """Sizes H d_h of all heads together, in units of d."""
    mlp_ratio: tuple[float, ...] = (2.0,)
    """Widths of the MLP, in units of d; 0 is attention only."""
    heads: tuple[int, ...] = (4,)
    max_steps: tuple[int, ...] = (400,)
    load: tuple[float, ...] = (0.45, 0.75, 1.2, 2.0)
    """Bits of the facts, in units of about what the parameters hold; a capacity must lie inside."""

    target = ACCURACY

    name = "factual-recall"
    title = "Capacity of factual-recall transformers"
    version = 1
    presets = {
        "quick": Preset("40 s"),
        "small": Preset(
            "15 min",
            {"d": (8, 11, 16, 22), "mlp_ratio": (0.5, 2.0), "max_steps": (1000,),
             "load": (0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4)},
        ),
        "medium": Preset(
            "a day on 2 cores",
            {"d": (11, 16, 22, 32), "head_ratio": (0.5, 1.0, 2.0),
             "mlp_ratio": (0.0, 0.5, 1.0, 2.0, 4.0), "D": (8,), "length": (16,),
             "max_steps": (4000,), "batch_size": (512,), "learning_rate": (0.003, 0.01),
             "load": (0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4)},
        ),
        "paper": Preset(
            "days on a GPU",
            {"d": (8, 11, 16, 22, 32, 45, 64, 90), "head_ratio": (1.0, 2.0, 4.0),
             "mlp_ratio": (0.25, 0.5, 1.0, 2.0, 4.0), "heads": (8,), "D": (8,), "length": (32,),
             "max_steps": (16384,), "batch_size": (1024,), "learning_rate": (0.001, 0.003, 0.01),
             "seed": tuple(range(5)), "load": (0.3, 0.42, 0.6, 0.85, 1.2, 1.7, 2.4, 3.4, 4.8)},
        ),
    }  # fmt: skip
    claims = (
        *(
            Claim(
                name=f"facts-linear-in-parameters-{scaling}",
                statement=f"facts recalled grow as the parameters to a power of 0.7 to 1.3 "
                f"({scaling.replace('-', ' ')})",
                where={"scaling": scaling},
                **_LINEAR,
            )
            for scaling in SCALINGS
        ),
        Claim(
            name="facts-below-guide-line",
            statement="trained transformers recall at most 0.15 facts a parameter, on average over "
            "their sizes",
            source=_PAPER,
            relation="<=",
            measured="facts_per_parameter",
            predicted=GUIDE,
            over=("scaling",),
            tolerance=0.0,
        ),
        Claim(
            name="recall-below-two-bits",
            statement="the facts recalled are worth at most 2 bits of each parameter, on average",
            source=Source("seqtheory", "theorem M6; 2 bits: allenzhu2024knowledge"),
            relation="<=",
            measured="density",
            predicted=2.0,
            over=("scaling",),
            tolerance=0.0,
        ),
    )

    @staticmethod
    def sizes(
        *,
        scaling: str,
        d: int,
        heads: int,
        head_ratio: float,
        mlp_ratio: float,
        D: int,
        load: float,
        seed: int,
        **training: Any,
    ) -> Sizes:
        """So many heads and units as the ratios say, and as many facts as the load."""
        checks.one_of(SCALINGS, scaling=scaling)
        heads, head_dim, width = _shape(d, heads, head_ratio, mlp_ratio)
        parameters = 4 * heads * head_dim * d + 2 * width * d
        bits = load * dither(seed, _SPACING) * _BITS_PER_PARAMETER[scaling] * parameters
        return Sizes(*numbers(scaling, D, bits), d, heads, head_dim, width)

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """One row for every draw: facts of which 99 % are recalled, and what they are worth."""
        recalled = rows.assign(recalled=rows["best_accuracy"] >= ACCURACY)
        by = ["D", "length", "max_steps", "batch_size", "train_embeddings", "heads",
              *_SHAPE, "seed"]  # fmt: skip
        table = capacities(recalled, by, "recalled")
        shapes = zip(
            table["d"], table["heads"], table["head_ratio"], table["mlp_ratio"], strict=True
        )
        found = [(d, *_shape(d, *rest)) for d, *rest in shapes]
        table["parameters"] = [4 * H * d_h * d + 2 * m * d for d, H, d_h, m in found]
        table["facts_per_parameter"] = table["facts"] / table["parameters"]
        answers = np.where(
            table["scaling"] == "answers-distinct", np.sqrt(table["facts"]).astype(int), table["D"]
        )
        sizes_ = pandas.DataFrame(
            {"S": table["facts"].astype(int), "R": 1, "D": answers, "accuracy": ACCURACY}
        )
        table["bits"] = bits_held(sizes_)
        table["density"] = table["bits"] / table["parameters"]
        return table


def numbers(scaling: str, D: int, bits: float) -> tuple[int, int, int]:
    """S, R and D of about so many bits of facts, S R log2 D, at least 2 of each."""
    if scaling == "answers-fixed":
        S = max(2, round(math.sqrt(bits / math.log2(D))))
        return S, S, D
    if scaling == "relations-square-root":
        S = max(4, round((bits / math.log2(D)) ** (2 / 3)))
        return S, round(math.sqrt(S)), D
    S = 2
    while (S + 0.5) ** 2 * math.log2(S + 0.5) < bits:
        S += 1
    return S, S, S


def _shape(d: int, heads: int, head_ratio: float, mlp_ratio: float) -> tuple[int, int, int]:
    """Heads, head_dim and width; ValueError where a head would have no dimension."""
    head_dim = int(head_ratio * d / heads)
    if head_dim < 1:
        raise ValueError(
            f"head_ratio*d/heads must be at least 1, got head_ratio={head_ratio}, d={d}, "
            f"heads={heads}"
        )
    return heads, head_dim, int(mlp_ratio * d)
