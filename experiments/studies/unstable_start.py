"""Does training from an unstable start succeed, and what becomes of the instability?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from bounds.result import Source
from experiments import scratch
from experiments.claims import Claim
from experiments.classifiers import build, cross_entropy, fit, outputs_on
from experiments.models.selective_ssm import SelectiveSSM
from experiments.study import Preset, Study, Trial
from experiments.tasks import listops, majority
from experiments.tasks.sequences import LabelledSequences

FIGURE = Source("honarpisheh2025generalization", "section 5, Figures 1 and 5")
_LONG = 200
"""Length from which on ListOps losses overflow single precision."""
_WATCHED = 256
"""Training sequences on which losses and growth are measured before every epoch."""
_OURS = Source("seqtheory", "range of the state, theorem D2")


@dataclass(frozen=True)
class UnstableStart(Study):
    """Single blocks trained from a state matrix with a given spectral abscissa, mostly positive."""

    task: tuple[str, ...] = ("majority", "listops")
    s_A: tuple[float, ...] = (0.1,)
    """Spectral abscissa at the start."""
    T: tuple[int, ...] = (100, 300)
    """Sequence lengths."""
    seed: tuple[int, ...] = tuple(range(6))
    """Initial weights, data, order of the batches."""
    m: tuple[int, ...] = (1000,)
    """Training sequences."""
    epochs: tuple[int, ...] = (10,)
    precision: tuple[str, ...] = ("float32", "float64")

    name = "unstable-start"
    title = "Training from an unstable start"
    version = 1
    presets = {
        "quick": Preset("1 min"),
        "small": Preset("5 min", {"T": (50, 100, 150, 200, 250, 300)}),
        "paper": Preset("20 min", {"T": tuple(range(50, 601, 50)), "seed": tuple(range(5))}),
    }
    claims = (
        Claim(
            name="success-needs-stability",
            statement="training succeeds only where s_A was driven to about zero or below (0.05)",
            source=FIGURE,
            relation="<=",
            measured="final_s_A",
            predicted=0.05,
            where={"succeeded": True},
            failure_probability=0.05,
            tolerance=0.0,
            expected="refuted",
            corrected_by="success-bounds-growth",
        ),
        Claim(
            name="success-bounds-growth",
            statement="where it succeeds, the state grows e^5 times at most over the sequence: "
            "s_A times the sum of the steps is at most 5, on average",
            source=_OURS,
            relation="<=",
            measured="final_growth",
            predicted=5.0,
            where={"succeeded": True},
            over=("task",),
            tolerance=0.0,
        ),
        Claim(
            name="moderate-losses-recover",
            statement="from initial losses up to 1e12, training succeeds in at least 75 % of runs",
            source=_OURS,
            relation="<=",
            measured="failed",
            predicted=0.0,
            where={"start": "moderate"},
            failure_probability=0.25,
            tolerance=0.0,
        ),
        Claim(
            name="single-precision-overflows",
            statement="in single precision, runs from initial losses above 1e16 mostly fail, as "
            "squares of gradients overflow",
            source=_OURS,
            relation="<=",
            measured="succeeded",
            predicted=0.0,
            where={"start": "huge", "precision": "float32"},
            failure_probability=0.5,
            tolerance=0.0,
            confidence=0.9,
        ),
        Claim(
            name="double-precision-recovers",
            statement="in double precision, the same runs mostly succeed",
            source=_OURS,
            relation="<=",
            measured="failed",
            predicted=0.0,
            where={"start": "huge", "precision": "float64"},
            failure_probability=0.5,
            tolerance=0.0,
            confidence=0.9,
        ),
    )

    def grid(self) -> Mapping[str, Iterable[Any]]:
        return {
            "precision": self.precision, "m": self.m, "epochs": self.epochs, "task": self.task,
            "s_A": self.s_A, "T": self.T, "seed": self.seed,
        }  # fmt: skip

    def trials(self) -> tuple[Trial, ...]:
        """The grid; double precision only where single fails, in ListOps of `_LONG` tokens on."""

        def matters(config: Mapping[str, Any]) -> bool:
            return config["task"] == "listops" and config["T"] >= _LONG

        return tuple(
            trial
            for trial in super().trials()
            if trial.config["precision"] == "float32" or matters(trial.config)
        )

    @staticmethod
    def measure(
        rng: np.random.Generator,
        *,
        precision: str,
        task: str,
        s_A: float,
        T: int,
        seed: int,
        m: int,
        epochs: int,
    ) -> dict[str, Any]:
        data = {"majority": majority, "listops": listops}[task].train(m=m, T=T, seed=seed)
        rows = slice(_WATCHED)
        watched = replace(
            data, tokens=data.tokens[rows], labels=data.labels[rows], lengths=data.lengths[rows]
        )
        d = 4 if task == "majority" else 16
        model = build("single", data, d=d, N=4, s_A=s_A, seed=seed).to(getattr(torch, precision))
        outcome = fit(
            model, data, epochs=epochs, batch_size=64, seed=seed,
            evaluate=lambda model: _state(model, watched),
            checkpoint=scratch.checkpoint("classifier"),
        )  # fmt: skip
        frequencies = torch.bincount(data.labels).double() / m
        guessing = torch.special.entr(frequencies).sum().item()
        trail = [outcome.evaluations[step] for step in sorted(outcome.evaluations)]
        return {
            "status": outcome.status,
            "losses": np.array([at["loss"] for at in trail]),
            "spectral_abscissas": np.array([at["s_A"] for at in trail]),
            "guessing": guessing,
            "succeeded": outcome.status == "finished" and trail[-1]["loss"] <= 1.1 * guessing,
            **{f"initial_{name}": value for name, value in trail[0].items()},
            **{f"final_{name}": value for name, value in trail[-1].items()},
        }

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """Rows with the size of the initial loss, in words."""
        start = np.select(
            [rows["initial_loss"] <= 1e12, rows["initial_loss"] > 1e16],
            ["moderate", "huge"], "between",
        )  # fmt: skip
        return rows.assign(start=start, failed=~rows["succeeded"].astype(bool))


@torch.no_grad()
def _state(model: torch.nn.Module, data: LabelledSequences) -> dict[str, float]:
    """Loss, s_A, and the largest exponent s_A (Delta_1 + ... + Delta_T) over the sequences."""
    assert isinstance(model, SelectiveSSM)
    with model.record("delta") as seen:
        model(torch.arange(data.vocab_size, device=next(model.parameters()).device)[None])
    s_A = model.spectral_abscissa
    growth = (s_A * seen["delta"].flatten().cpu()[data.tokens].sum(1)).max().item()
    loss = cross_entropy(outputs_on(model, data), data.labels).item()
    return {"loss": loss, "s_A": s_A, "growth": growth}
