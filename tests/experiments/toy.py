"""A study small enough for tests, importable by spawned workers, that can fail in every way."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from bounds.result import Source
from experiments.claims import Claim
from experiments.store import ResultStore
from experiments.study import Preset, Study, Trial

_SOURCE = Source(key="toy2024", place="Theorem 1")


@dataclass(frozen=True)
class Toy(Study):
    """Doubling, noisily."""

    sizes: tuple[int, ...] = (1, 2, 4)
    """Sizes to double."""
    seeds: int = 3
    """Repeats of each size."""
    delay: float = 0.0
    """Seconds that each trial sleeps."""
    deeds: tuple[str, ...] = ("obey",)
    """What each trial does besides."""
    folder: str = ""
    """Where a trial leaves or looks for marks, if its deed asks for any."""

    name = "toy"
    title = "A toy <study>"
    version = 1
    claims = (
        Claim(
            name="doubling-as-printed",
            statement="the value is the size | as printed",
            source=_SOURCE,
            relation="<=",
            measured="value",
            predicted="size",
            over=("size",),
            tolerance=1e-9,
            expected="refuted",
            corrected_by="doubling",
        ),
        Claim(
            name="growth",
            statement="the value grows as the size",
            source=_SOURCE,
            relation="~",
            measured="value",
            predicted="size",
            over=("size",),
            tolerance=0.2,
        ),
        Claim(
            name="doubling",
            statement="the value is at most 2.5 sizes",
            source=_SOURCE,
            relation="<=",
            measured="value",
            predicted="limit",
            over=("size",),
            tolerance=1e-9,
        ),
    )
    presets = {
        "quick": Preset("1 s"),
        "small": Preset("2 s", {"sizes": (1, 2, 4, 8), "seeds": 2}),
    }

    def grid(self) -> Mapping[str, Any]:
        return {
            "size": self.sizes,
            "seed": range(self.seeds),
            "delay": (self.delay,),
            "deed": self.deeds,
            "folder": (self.folder,),
        }

    @staticmethod
    def measure(
        rng: np.random.Generator, *, size: int, seed: int, delay: float, deed: str, folder: str
    ) -> dict[str, Any]:
        time.sleep(delay)
        if deed == "raise":
            raise ArithmeticError(f"no luck with size {size}")
        if deed == "die" and size == 2 and seed == 0:
            os._exit(9)
        if deed == "need-mark" and not Path(folder, "mark").exists():
            raise FileNotFoundError("mark")
        if deed == "interrupt":
            raise KeyboardInterrupt
        if deed == "return-object":
            return {"value": object()}
        noise = 1 + 0.01 * rng.standard_normal()
        return {
            "value": 2 * size * noise,
            "limit": np.float64(2.5 * size),
            "path": rng.standard_normal(200),
        }


@dataclass(frozen=True)
class Rare(Toy):
    """A study that is not for the quick preset, with a claim about a column it lacks."""

    name = "rare"
    presets = {"paper": Preset("a day")}


@dataclass(frozen=True)
class Wrong(Toy):
    """A study whose claims contradict what it expects of them, and one that cannot be checked."""

    name = "wrong"
    claims = (
        Claim(
            name="halving",
            statement="the value is at most half the size",
            source=_SOURCE,
            relation="<=",
            measured="value",
            predicted=0.5,
            tolerance=0.0,
        ),
        Claim(
            name="typo",
            statement="a column that is not there",
            source=_SOURCE,
            relation="<=",
            measured="valeu",
            predicted=0.5,
            tolerance=0.0,
        ),
    )


def draw_all(
    store: ResultStore, folder: Path, preset: str, executor: Executor
) -> list[SimpleNamespace]:
    """Stands in for the gallery of figures."""
    folder.mkdir(parents=True)
    png = folder / "toy.png"
    png.write_bytes(b"\x89PNG toy")
    return [SimpleNamespace(name="toy", caption=f"A <toy> figure, {preset}", png=png, pdf=png)]


@dataclass(frozen=True)
class Together(Toy):
    """Measured four at a time, the last first; each batch leaves its size in the folder."""

    name = "together"

    @classmethod
    def batches(cls, trials: Sequence[Trial]) -> list[Sequence[Trial]]:
        return [trials[start : start + 4] for start in range(0, len(trials), 4)]

    @classmethod
    def measure_together(cls, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Mapping[str, Any]]]:
        if folder := trials[0].config["folder"]:
            with Path(folder, "batches").open("a") as file:
                file.write(f"{len(trials)}\n")
        for trial in reversed(trials):
            if trial.config["deed"] != "leave-out":
                yield trial, cls.measure(trial.rng, **trial.config)
