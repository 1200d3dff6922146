"""How many facts do memories hold that are trained by cross-entropy?"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pandas

from bounds.result import Source
from experiments import device, ensemble
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
_BITS = Source("allenzhu2024knowledge", "abstract (2 bits per parameter, empirical)")
_ACCURACY = 0.99
_GOLDEN = (math.sqrt(5) - 1) / 2
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
        ((_, outcome),) = ensemble.train([member], device=device.chosen())
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
        for index, outcome in ensemble.train(members, device=device.chosen()):
            yield trials[index], {"N": members[index].facts.N, **outcome.metrics()}


def capacities(rows: pandas.DataFrame, by: list[str], stored: str) -> pandas.DataFrame:
    """The capacity of every draw: the middle, in ln N, of the loads between which it lies.

    N facts can be stored if they were at any of the learning rates. `floor` is the largest N up to
    which every load was `stored`, `ceiling` the next one tried, `stored_beyond` the number of
    larger loads that were stored all the same. ValueError where a
    draw's smallest load already fails or its largest one is stored: that brackets no capacity.
    """
    table = []
    for key, draws in rows.groupby(by, sort=False, dropna=False):
        draw = dict(zip(by, key, strict=True))
        ordered = draws.groupby("N")[stored].any().sort_index()
        succeeded = ordered.to_numpy(dtype=bool)
        if succeeded.all() or not succeeded[0]:
            which = "largest load is" if succeeded.all() else "smallest load is not"
            raise ValueError(f"{draw}: even the {which} stored, choose other loads")
        first = int(np.argmin(succeeded))
        floor, ceiling = int(ordered.index[first - 1]), int(ordered.index[first])
        table.append(
            {
                **draw,
                "facts": math.sqrt(floor * ceiling),
                "floor": floor,
                "ceiling": ceiling,
                "stored_beyond": int(succeeded[first:].sum()),
            }
        )
    return pandas.DataFrame(table)


def _dither(seed: int, spacing: float) -> float:
    """A factor that shifts the loads of a draw by at most half their spacing, evenly over seeds.

    With the same loads for every draw, capacities would agree to the last digit and intervals over
    seeds would not know how coarse the loads are.
    """
    return 1 + spacing * ((seed * _GOLDEN) % 1 - 0.5)


@cache
def _learned_facts(parameters: int, M: int | None = None) -> int:
    return int(float(learned_facts(parameters=parameters, M=M)))


@dataclass(frozen=True)
class TrainedLinearMemory(_Trained):
    """Linear memories trained at loads around the predicted capacity, from random weights."""

    d: tuple[int, ...] = (8, 11, 16, 22, 32, 45)
    """Widths of the memory, which has d² parameters."""
    load: tuple[float, ...] = (
        0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2, 1.3, 1.45,
    )  # fmt: skip
    """Numbers of facts relative to the largest N with N δ(N) <= d², shifted a little by seed."""
    max_steps: tuple[int, ...] = (96,)
    """Training steps, at most."""
    learning_rate: tuple[float, ...] = (40.0,)
    """Initial step sizes of Adam; facts are stored if they are at any of them."""
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
            tolerance=0.15,
        ),
        Claim(
            name="trained-constant-below-guide-line",
            statement="the constant d²/(N ln N) of trained memories is below 1.3, that of the "
            "paper's guide line",
            source=Source(_FIGURE, "Figure 1 (left)"),
            relation="<=",
            measured="constant",
            predicted=1.3,
            tolerance=0.0,
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
            statement="from 150 facts on, 99 % are recalled of at most 10 % more facts than all"
            " are",
            source=_LAW,
            relation="<=",
            measured="sharpness",
            predicted=1.0,
            where={"many": True},
            tolerance=0.1,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "max_steps": self.max_steps, "learning_rate": self.learning_rate, "d": self.d,
            "seed": self.seed, "load": self.load,
        }  # fmt: skip

    @staticmethod
    def number_of_facts(*, d: int, load: float, seed: int, **_: Any) -> int:
        return max(2, round(load * _dither(seed, 0.05) * _learned_facts(d**2)))

    @classmethod
    def member(
        cls, *, max_steps: int, learning_rate: float, d: int, seed: int, load: float
    ) -> ensemble.Member:
        return ensemble.Member(
            LinearMemory(d, d).initialize(seed),
            draw(N=cls.number_of_facts(d=d, load=load, seed=seed), d=d, seed=seed),
            replace(ensemble.LINEAR, steps=max_steps, learning_rate=learning_rate),
        )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """One row for every draw, with the parameters N δ(N) its facts are worth."""
        by = ["max_steps", "d", "seed"]
        table = capacities(rows, by, "stored")
        most = capacities(rows, by, "stored_99")
        table["parameters"] = table["d"] ** 2
        table["use"] = [N * _statistical_dimension(N) for N in table["facts"]] / table["parameters"]
        table["facts_log_facts"] = table["facts"] * np.log(table["facts"])
        table["constant"] = table["parameters"] / table["facts_log_facts"]
        table["facts_99"] = most["facts"]
        table["sharpness"] = table["facts_99"] / table["facts"]
        table["wide"] = table["d"] >= 16
        table["many"] = table["floor"] >= 150
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
    d: tuple[int, ...] = (11, 16)
    """Dimensions of keys and outputs."""
    ratio: tuple[int, ...] = (1, 2, 4)
    """Hidden units per dimension m/d."""
    load: tuple[float, ...] = (0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5, 1.75)
    """Numbers of facts relative to the largest N with N δ(M) <= 2 m d, shifted a little by seed."""
    max_steps: tuple[int, ...] = (384,)
    """Training steps, at most."""
    learning_rate: tuple[float, ...] = (0.1,)
    """Initial step sizes of Adam; facts are stored if they are at any of them."""
    seed: tuple[int, ...] = tuple(range(4))
    """Draws of facts and initial weights."""

    name = "trained-mlp-memory"
    title = "Capacity of trained MLP memories"
    version = 1
    presets = {
        "quick": Preset("40 s"),
        "small": Preset("2 min", {"d": (8, 11, 16, 22), "max_steps": (1024,)}),
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
            statement="with a new output for every fact, N ln N grows as the m d parameters to "
            "a power of 0.7 to 1.3 at these widths, the limit being 1",
            source=Source(_FIGURE, "Figure 1 (right)"),
            relation="~",
            measured="facts_log_facts",
            predicted="parameters",
            where={"growing": True},
            over=("d", "ratio"),
            tolerance=0.3,
        ),
        Claim(
            name="trained-mlp-linear-in-parameters",
            statement="among 32 outputs N grows as the m d parameters to a power of 0.7 to 1.3 "
            "at these widths, the limit being 1",
            source=Source(_FIGURE, "Figure 6"),
            relation="~",
            measured="facts",
            predicted="parameters",
            where={"growing": False},
            over=("d", "ratio"),
            tolerance=0.3,
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
            over=("growing",),
            tolerance=0.0,
        ),
        Claim(
            name="trained-mlp-at-least-a-bit",
            statement="on average, the facts held are worth at least 1 bit of each of the "
            "2 m d + m parameters",
            source=_BITS,
            relation=">=",
            measured="density",
            predicted=1.0,
            over=("growing",),
            tolerance=0.0,
        ),
        Claim(
            name="trained-mlp-about-two-bits",
            statement="on average, the facts held are worth at most 2.5 bits of each parameter: "
            "the 2 bits of language models, and a quarter more",
            source=_BITS,
            relation="<=",
            measured="density",
            predicted=2.5,
            over=("growing",),
            tolerance=0.0,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "max_steps": self.max_steps, "learning_rate": self.learning_rate, "M": self.M,
            "d": self.d, "ratio": self.ratio, "seed": self.seed, "load": self.load,
        }  # fmt: skip

    @staticmethod
    def number_of_facts(
        *, M: int | None, d: int, ratio: int, load: float, seed: int, **_: Any
    ) -> int:
        return max(2, round(load * _dither(seed, 0.15) * _learned_facts(2 * ratio * d**2, M)))

    @classmethod
    def member(
        cls,
        *,
        max_steps: int,
        learning_rate: float,
        M: int | None,
        d: int,
        ratio: int,
        seed: int,
        load: float,
    ) -> ensemble.Member:
        N = cls.number_of_facts(M=M, d=d, ratio=ratio, load=load, seed=seed)
        return ensemble.Member(
            MLPMemory(d, d, ratio * d, bias=True).initialize(seed),
            draw(N=N, d=d, M=M, seed=seed),
            replace(ensemble.MLP, steps=max_steps, learning_rate=learning_rate, target=_ACCURACY),
        )

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """One row for every draw, with what its facts are worth in parameters and in bits."""
        table = capacities(rows, ["max_steps", "M", "d", "ratio", "seed"], "stored_99")
        table["growing"] = table["M"].isna()
        table["parameters"] = table["ratio"] * table["d"] ** 2
        table["facts_log_facts"] = table["facts"] * np.log(table["facts"])
        sizes = list(zip(table["facts"], table["M"], table["growing"], strict=True))
        table["use"] = [
            N * _statistical_dimension(N if growing else M) for N, M, growing in sizes
        ] / (2 * table["parameters"])
        held = [_bits(N, None if growing else int(M)) for N, M, growing in sizes]
        table["stored_parameters"] = table["ratio"] * table["d"] * (2 * table["d"] + 1)
        table["density"] = held / table["stored_parameters"]
        return table


def _bits(N: float, M: int | None) -> float:
    """Bits of N facts of which 99 % are recalled, N rounded down."""
    N = math.floor(N)
    if M is None:
        return float(bits_needed(N=N, M=N, assignment="injective", error=0.01))
    return float(bits_needed(N=N, M=M, error=0.01))
