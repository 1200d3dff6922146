"""What is measured: `Study` (axes, one measurement, claims) and `Trial` (one point of its grid)."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np

from experiments.claims import Claim

if TYPE_CHECKING:
    import pandas

Metric = float | int | str | bool | np.ndarray
_Study = TypeVar("_Study", bound="Study")


@dataclass(frozen=True)
class Preset:
    """A size of a study: the dataclass fields it overrides, and how long it is expected to take."""

    expected_time: str
    axes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Trial:
    """One point of a study's grid.

    The content hash `key` names the trial's record and seeds its generator, so equal configurations
    are the same trial on every machine. Trials are equal when their keys are.
    """

    study: str
    version: int
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        config = {name: plain(value, name) for name, value in self.config.items()}
        object.__setattr__(self, "config", config)

    @cached_property
    def key(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of study, version and config."""
        content = {"study": self.study, "version": self.version, "config": self.config}
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @property
    def rng(self) -> np.random.Generator:
        """A fresh generator, always at the start of this trial's own stream."""
        return np.random.default_rng(int(self.key, 16))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trial) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


class Study(ABC):
    """Base of the studies, which are frozen dataclasses whose fields are the axes.

    A subclass sets the class attributes below, returns its axes from `grid` and measures one point
    in the static `measure`, which sees its generator and its config only: nothing a result depends
    on can be missing from the trial's key.
    """

    name: ClassVar[str]
    """Kebab-case; what the command line and the store call the study."""
    title: ClassVar[str]
    version: ClassVar[int]
    """Rises whenever `measure` would return something else for the same config."""
    claims: ClassVar[tuple[Claim, ...]]
    presets: ClassVar[Mapping[str, Preset]]
    """From "quick", "small", "medium" and "paper", those that make sense for the study."""
    measure: ClassVar[Callable[..., Mapping[str, Any]]]
    """Static or class method `measure(rng, **config)`: metrics by name, each a `Metric`."""

    @abstractmethod
    def grid(self) -> Mapping[str, Iterable[Any]]:
        """The values of each axis, in the order in which they vary (the last one fastest)."""

    def trials(self) -> tuple[Trial, ...]:
        """The Cartesian product of the axes, as trials in a fixed order."""
        grid = self.grid()
        axes = [_axis(name, values) for name, values in grid.items()]
        return tuple(
            Trial(self.name, self.version, dict(zip(grid, point, strict=True)))
            for point in itertools.product(*axes)
        )

    @classmethod
    def batches(cls, trials: Sequence[Trial]) -> Sequence[Sequence[Trial]]:
        """The trials in the groups that a worker measures together: by default, each alone."""
        return [(trial,) for trial in trials]

    @classmethod
    def measure_together(cls, trials: Sequence[Trial]) -> Iterator[tuple[Trial, Mapping[str, Any]]]:
        """The metrics of every trial, in any order, each as soon as it is known.

        Overridden, with `batches`, where measuring many trials at once is faster. No result may
        depend on the company: `measure` is then the batch of one.
        """
        for trial in trials:
            yield trial, cls.measure(trial.rng, **trial.config)

    @staticmethod
    def table(rows: pandas.DataFrame) -> pandas.DataFrame:
        """What the claims and figures see of the trials' rows: all of them, unless overridden.

        A study whose quantity is only defined over several trials (a capacity, over loads) gathers
        it here. Rows may be missing where trials failed or have not been run.
        """
        return rows

    @classmethod
    def at(cls: type[_Study], preset: str, **overrides: Any) -> _Study:
        """The study at one of its presets, with single axes overridden."""
        if preset not in cls.presets:
            known = ", ".join(cls.presets) or "none"
            raise ValueError(f"study {cls.name!r} has no preset {preset!r}; its presets: {known}")
        axes = {**cls.presets[preset].axes, **overrides}
        names = [f.name for f in fields(cls)]  # pyright: ignore[reportArgumentType]
        for name in axes:
            if name not in names:
                known = ", ".join(names)
                raise ValueError(f"study {cls.name!r} has no axis {name!r}; its axes: {known}")
        return cls(**axes)


def plain(value: Any, name: str) -> Any:
    """`value` as a JSON scalar or a tuple of them, NumPy scalars as the Python scalars they equal.

    ValueError names the axis `name` for anything else, non-finite numbers included: they have no
    JSON form, and a key must be reproducible from the record.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return tuple(plain(entry, name) for entry in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"axis {name!r}: {value} is not finite")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    kind = type(value).__name__
    raise ValueError(f"axis {name!r}: {value!r} is a {kind}, not a JSON scalar or a tuple of them")


def _axis(name: str, values: Any) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"axis {name!r} must list its values, got {values!r}")
    axis = tuple(plain(value, name) for value in values)
    if not axis:
        raise ValueError(f"axis {name!r} is empty")
    if len(set(axis)) < len(axis):
        raise ValueError(f"axis {name!r} repeats a value: {axis}")
    return axis
