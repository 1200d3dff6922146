"""Prompts for in-context learning: examples of a function that is drawn anew for every prompt.

tokens   x_1 y_1 x_2 y_2 ... x_N y_N      vectors of size d; of a number y, (y, 0, ..., 0)
read at   ^       ^           ^           the guess of y_i knows i - 1 examples
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bounds import checks


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Prompt `i` is the sequence of vectors `tokens[i]`, of which guesses are read off `at`.

    The guess at token `at[j]` is compared with `targets[:, j]` where `counted[:, j]`; the last size
    of both is that of the model's output, and what is not counted may be anything finite. `scored`
    numbers the guesses of which errors are reported, in the order of the examples seen before: all
    but intermediate steps. `hidden` is what the prompts were drawn from (weights, supports, ...),
    first dimension prompts. Numbers are of type float64.
    """

    tokens: Float[Tensor, "prompts length d"]
    at: Int[Tensor, " guesses"]
    targets: Float[Tensor, "prompts guesses outputs"]
    counted: Bool[Tensor, "prompts guesses outputs"]
    scored: Int[Tensor, " scored"]
    hidden: Mapping[str, Tensor]

    def __post_init__(self) -> None:
        if self.tokens.ndim != 3 or self.tokens.numel() == 0:
            shape = tuple(self.tokens.shape)
            raise ValueError(f"tokens must be prompts x length x d, not empty, got {shape}")
        prompts, length, _ = self.tokens.shape
        if self.targets.shape[:2] != (prompts, len(self.at)):
            raise ValueError(
                f"targets must have {prompts} prompts and {len(self.at)} guesses, got shape "
                f"{tuple(self.targets.shape)}"
            )
        if self.counted.shape != self.targets.shape:
            raise ValueError(
                f"counted must have the shape of the targets, got {tuple(self.counted.shape)}"
            )
        for name, places, end in (("at", self.at, length), ("scored", self.scored, len(self.at))):
            if len(places) == 0 or places.min() < 0 or places.max() >= end:
                raise ValueError(f"{name} must be from 0 to {end - 1}, got {places.tolist()}")
        for name, values in (("tokens", self.tokens), ("targets", self.targets)):
            if values.dtype != torch.float64 or not values.isfinite().all():
                raise ValueError(f"{name} must be finite and of type float64, got {values.dtype}")
        for name, values in self.hidden.items():
            if len(values) != prompts:
                raise ValueError(f"hidden[{name!r}] must have one entry for each prompt")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def xs(self) -> Float[Tensor, "prompts examples d"]:
        """The inputs of interleaved examples."""
        return self.tokens[:, 0::2]

    @property
    def ys(self) -> Float[Tensor, "prompts examples"]:
        """The outputs of interleaved examples, the first coordinates of their tokens."""
        return self.tokens[:, 1::2, 0]


@runtime_checkable
class InContextTask(Protocol):
    """A distribution of prompts: a frozen dataclass whose `repr` tells distributions apart."""

    @property
    def d(self) -> int:
        """Size of a token."""
        ...

    @property
    def d_output(self) -> int:
        """Size of a guess."""
        ...

    @property
    def length(self) -> int:
        """Tokens of a prompt."""
        ...

    @property
    def scale(self) -> float:
        """Mean square of a scored target, the error of guessing 0: the unit of errors."""
        ...

    @property
    def signs(self) -> bool:
        """Whether targets are -1 and 1, and the output is the log-odds of 1."""
        ...

    def sample(self, prompts: int, *, seed: int, split: str = "train") -> Prompts:
        """Prompts of one split; equal arguments give equal ones, other seeds or splits independent
        ones. ValueError for a split that is not "train", "validation" or "test"."""
        ...


def check_active(active: int | None, *, d: int) -> None:
    """ValueError unless it is a number of active coordinates of d, or None for all of them."""
    if active is not None:
        checks.count(active=active)
        checks.ordered(active=active, d=d)


def interleaved(
    xs: Float[Tensor, "prompts examples d"], ys: Float[Tensor, "prompts examples"]
) -> Float[Tensor, "prompts length d"]:
    """x_1, (y_1, 0, ..., 0), x_2, ... ."""
    outputs = torch.zeros_like(xs)
    outputs[..., 0] = ys
    return torch.stack([xs, outputs], dim=2).flatten(1, 2)


def examples(
    xs: Float[Tensor, "prompts examples d"],
    ys: Float[Tensor, "prompts examples"],
    hidden: Mapping[str, Tensor],
) -> Prompts:
    """Interleaved prompts of which every y is guessed and counted, after its x."""
    return Prompts(
        tokens=interleaved(xs, ys),
        at=torch.arange(0, 2 * xs.shape[1], 2),
        targets=ys[..., None],
        counted=torch.ones_like(ys, dtype=torch.bool)[..., None],
        scored=torch.arange(xs.shape[1]),
        hidden=hidden,
    )


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """A whole number that grows with the step of a training: `start`, and `increment` more after
    every `interval` steps, up to `end`."""

    start: int
    end: int
    increment: int = 1
    interval: int

    def __post_init__(self) -> None:
        checks.count(start=self.start, end=self.end)
        checks.count(increment=self.increment, interval=self.interval)
        checks.ordered(start=self.start, end=self.end)

    def __call__(self, step: int) -> int:
        return min(self.end, self.start + self.increment * (step // self.interval))


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """Easier prompts first: fewer active coordinates of the inputs, fewer examples."""

    active: Ramp | None = None
    """Of the field `active` of the task: the coordinates behind are zero."""
    num_examples: Ramp | None = None
    """Of its field `num_examples`."""

    def task(self, task: InContextTask, step: int) -> InContextTask:
        """The distribution of the prompts of this step, counted from 0."""
        ramps = {"active": self.active, "num_examples": self.num_examples}
        stage = {name: ramp(step) for name, ramp in ramps.items() if ramp is not None}
        known = {field.name for field in fields(task)}  # pyright: ignore[reportArgumentType]
        for name in stage:
            if name not in known:
                raise ValueError(f"{name}: {type(task).__name__} has no such field to ramp up")
        return replace(task, **stage)  # pyright: ignore[reportArgumentType]
