"""How many facts do memories hold that are trained by cross-entropy?"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments import ensemble
from experiments.claims import Claim
from experiments.study import Preset, Study, Trial
from memory.capacity import learned_facts
from memory.cone import statistical_dimension
from memory.facts import draw
from memory.information import bits_needed
from memory.linear import LinearMemory
from memory.mlp import MLPMemory

_LAW = Source("seqtheory", "theorem M1 with the counting rule M4")
_FIGURE = "nichani2024facts"
_BATCH = 3e9
"""Multiplications of the scores of a batch of trials: some seconds of a core, the most that a kill
can lose of finished work, and enough of it to share."""


class _Trained(Study):
    """Trainings at several loads for every draw: each is a trial, the capacity is gathered."""

    @classmethod
    @abstractmethod
    def member(cls, **config: Any) -> ensemble.Member:
        """The training of one trial."""

    @staticmethod
    @abstractmethod
    def number_of_facts(**config: Any) -> int:
        """N of one trial, from its load."""

    @classmethod
    def measure(cls, rng: np.random.Generator, **config: Any) -> dict[str, Any]:
        member = cls.member(**config)
        ((_, outcome),) = ensemble.train([member])
        return {"N": member.facts.N, **outcome.metrics()}

    @classmethod
    def batches(cls, trials: Sequence[Trial]) -> Sequence[Sequence[Trial]]:
        def multiplications(trial: Trial) -> float:
            N, config = cls.number_of_facts(**trial.config), trial.config
            return N * (config.get("M") or N) * config["d"] * config["max_steps"]

        return ensemble.together(trials, multiplications, _BATCH)

    @classmethod
    def measure_together(cls, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Mapping[str, Any]]]:
        members = [cls.member(**trial.config) for trial in trials]
        for index, outcome in ensemble.train(members):
            yield trials[index], {"N": members[index].facts.N, **outcome.metrics()}


def capacities(rows: pandas.DataFrame, by: list[str]) -> pandas.DataFrame:
    """The capacity of every draw: the middle, in ln N, of the loads between which it lies.

    `facts` for all facts stored and `facts_99` for 99 % of them; `floor` and `ceiling` are the
    largest load below which every one was stored, and the first that was not. ValueError where a
    draw's smallest load already fails or its largest one is stored: that is no capacity.
    """
    table = []
    for key, draws in rows.groupby(by, sort=False, dropna=False):
        ordered = draws.sort_values("N")
        found: dict[str, Any] = dict(zip(by, key, strict=True))
        for name, column in (("", "stored"), ("_99", "stored_99")):
            stored = ordered[column].to_numpy(dtype=bool)
            if stored.all() or not stored[0]:
                extreme = "largest load is" if stored.all() else "smallest load is not"
                raise ValueError(f"{found}: even the {extreme} stored; choose other loads")
            first = int(np.argmin(stored))
            floor, ceiling = ordered["N"].iloc[first - 1], ordered["N"].iloc[first]
            found |= {
                f"facts{name}": math.sqrt(floor * ceiling),
                f"floor{name}": floor,
                f"ceiling{name}": ceiling,
                # A training that succeeds beyond the first failure shows what the search missed.
                f"stored_beyond{name}": int(stored[first:].sum()),
            }
        table.append(found)
    return pandas.DataFrame(table)


@dataclass(frozen=True)
class TrainedLinearMemory(_Trained):
    """Linear memories trained at loads around the predicted capacity, from random weights."""

    d: tuple[int, ...] = (8, 11, 16, 22, 32, 45)
    """Widths of the memory, which has d² parameters."""
    load: tuple[float, ...] = (
        0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.45,
    )  # fmt: skip
    """Numbers of facts, relative to the largest N with N δ(N) <= d²."""
    max_steps: tuple[int, ...] = (96,)
    """Training steps, at most."""
    seed: tuple[int, ...] = tuple(range(6))
    """Draws of facts and initial weights."""

    name = "trained-linear-memory"
    title = "Capacity of trained linear memories"
    version = 1
    presets = {
        "quick": Preset("20 s"),
        "small": Preset(
            "2 min",
            {"d": (8, 11, 16, 22, 32, 45, 64), "max_steps": (256,), "seed": tuple(range(8))},
        ),
        "medium": Preset("5 h on 2 cores", {"d": (16, 32, 64, 90, 128), "max_steps": (1024,)}),
        "paper": Preset(
            "an hour on a GPU",
            {
                "d": (8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256),
                "max_steps": (1024,),
                "seed": tuple(range(5)),
            },
        ),
    }
    claims = (
        Claim(
            name="trained-quasilinear-in-parameters",
            statement="trained memories hold N facts, N ln N proportional to the d² parameters",
            source=Source(_FIGURE, "Figure 1 (left)"),
            relation="~",
            measured="facts_log_facts",
            predicted="parameters",
            over=("d",),
            tolerance=0.1,
        ),
        Claim(
            name="trained-at-least-statistical-dimension",
            statement="trained to the end, N δ(N) is at least d² (d >= 16), -10 %",
            source=_LAW,
            relation=">=",
            measured="use",
            predicted=1.0,
            where={"wide": True},
            tolerance=0.1,
        ),
        Claim(
            name="trained-at-most-statistical-dimension",
            statement="trained to the end, N δ(N) is at most d² (d >= 16), +10 %",
            source=_LAW,
            relation="<=",
            measured="use",
            predicted=1.0,
            where={"wide": True},
            tolerance=0.1,
        ),
        Claim(
            name="trained-transition-is-sharp",
            statement="99 % of the facts are recalled up to at most 10 % more facts than all are",
            source=_LAW,
            relation="<=",
            measured="sharpness",
            predicted=1.0,
            where={"wide": True},
            tolerance=0.1,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {"max_steps": self.max_steps, "d": self.d, "seed": self.seed, "load": self.load}

    @staticmethod
    def number_of_facts(*, d: int, load: float, **_: Any) -> int:
        return max(2, round(load * float(learned_facts(parameters=d**2))))

    @classmethod
    def member(cls, *, max_steps: int, d: int, seed: int, load: float) -> ensemble.Member:
        return ensemble.Member(
            LinearMemory(d, d).initialize(seed),
            draw(N=cls.number_of_facts(d=d, load=load), d=d, seed=seed),
            replace(ensemble.LINEAR, steps=max_steps),
        )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """One row for every draw, with the parameters N δ(N) its facts are worth."""
        table = capacities(rows, by=["max_steps", "d", "seed"])
        table["parameters"] = table["d"] ** 2
        table["use"] = [N * _statistical_dimension(N) for N in table["facts"]] / table["parameters"]
        table["facts_log_facts"] = table["facts"] * np.log(table["facts"])
        table["sharpness"] = table["facts_99"] / table["facts"]
        table["wide"] = table["d"] >= 16
        return table


def _statistical_dimension(N: float) -> float:
    """δ between two whole numbers."""
    low = math.floor(N)
    below, above = statistical_dimension(low), statistical_dimension(low + 1)
    return below + (N - low) * (above - below)


@dataclass(frozen=True)
class TrainedMLPMemory(_Trained):
    """Two-layer ReLU networks of which both layers are trained, from random weights."""

    M: tuple[int | None, ...] = (None, 32)
    """Numbers of outputs; None for a new one for every fact."""
    d: tuple[int, ...] = (6, 8, 11)
    """Dimensions of keys and outputs."""
    ratio: tuple[int, ...] = (1, 2, 4)
    """Hidden units per dimension m/d."""
    load: tuple[float, ...] = (0.4, 0.55, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.7)
    """Numbers of facts, relative to the largest N with N δ(M) <= 2 m d."""
    max_steps: tuple[int, ...] = (512,)
    """Training steps, at most."""
    seed: tuple[int, ...] = tuple(range(3))
    """Draws of facts and initial weights."""

    name = "trained-mlp-memory"
    title = "Capacity of trained MLP memories"
    version = 1
    presets = {
        "quick": Preset("40 s"),
        "small": Preset("3 min", {"d": (8, 11, 16, 22), "seed": tuple(range(3))}),
        "medium": Preset(
            "5 h on 2 cores",
            {"d": (8, 11, 16, 22, 32), "ratio": (1, 2, 4, 8), "max_steps": (4096,)},
        ),
        "paper": Preset(
            "hours on a GPU",
            {
                "d": (8, 11, 16, 22, 32, 45, 64, 90),
                "ratio": (1, 2, 4, 8),
                "max_steps": (32768,),
                "seed": tuple(range(5)),
            },
        ),
    }
    claims = (
        Claim(
            name="trained-mlp-quasilinear-in-parameters",
            statement="with a new output for every fact, N ln N is proportional to the m d "
            "parameters, whatever m/d",
            source=Source(_FIGURE, "Figure 1 (right)"),
            relation="~",
            measured="facts_log_facts",
            predicted="parameters",
            where={"growing": True},
            over=("d", "ratio"),
            tolerance=0.2,
        ),
        Claim(
            name="trained-mlp-linear-in-parameters",
            statement="among 32 outputs N is proportional to the m d parameters, whatever m/d",
            source=Source(_FIGURE, "Figure 6"),
            relation="~",
            measured="facts",
            predicted="parameters",
            where={"growing": False},
            over=("d", "ratio"),
            tolerance=0.2,
        ),
        Claim(
            name="trained-mlp-beats-trained-readout",
            statement="training both layers holds more facts than the best readout of random "
            "features can, N δ(N) = m d",
            source=_LAW,
            relation=">=",
            measured="use",
            predicted=0.5,
            where={"growing": True},
            over=("d", "ratio"),
            tolerance=0.0,
        ),
        Claim(
            name="trained-mlp-below-four-bits",
            statement="the facts held are worth at most 4 bits of each of the 2 m d parameters",
            source=Source("allenzhu2024knowledge", "abstract (2 bits, empirical)"),
            relation="<=",
            measured="density",
            predicted=4.0,
            over=("M", "d", "ratio"),
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "max_steps": self.max_steps, "M": self.M, "d": self.d, "ratio": self.ratio,
            "seed": self.seed, "load": self.load,
        }  # fmt: skip

    @staticmethod
    def number_of_facts(*, M: int | None, d: int, ratio: int, load: float, **_: Any) -> int:
        return max(2, round(load * float(learned_facts(parameters=2 * ratio * d**2, M=M))))

    @classmethod
    def member(
        cls, *, max_steps: int, M: int | None, d: int, ratio: int, seed: int, load: float
    ) -> ensemble.Member:
        N = cls.number_of_facts(M=M, d=d, ratio=ratio, load=load)
        return ensemble.Member(
            MLPMemory(d, d, ratio * d, bias=True).initialize(seed),
            draw(N=N, d=d, M=M, seed=seed),
            replace(ensemble.MLP, steps=max_steps),
        )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """One row for every draw, with what its facts are worth in parameters and in bits."""
        table = capacities(rows, by=["max_steps", "M", "d", "ratio", "seed"])
        table["growing"] = table["M"].isna()
        table["parameters"] = table["ratio"] * table["d"] ** 2
        table["facts_log_facts"] = table["facts"] * np.log(table["facts"])
        sizes = list(zip(table["facts"], table["M"], table["growing"], strict=True))
        table["use"] = [
            N * _statistical_dimension(N if growing else M) for N, M, growing in sizes
        ] / (2 * table["parameters"])
        table["density"] = [_bits(N, None if growing else int(M)) for N, M, growing in sizes] / (
            2 * table["parameters"]
        )
        return table


def _bits(N: float, M: int | None) -> float:
    """Bits of N facts all stored, N rounded down."""
    N = math.floor(N)
    if M is None:
        return float(bits_needed(N=N, M=N, assignment="injective"))
    return float(bits_needed(N=N, M=M))
