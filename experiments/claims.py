"""A statement of a paper as an executable check: `Claim`, decided by a `Verdict`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bounds.result import Source
from experiments import intervals
from experiments.intervals import Interval

if TYPE_CHECKING:
    import pandas

Relation = Literal["<=", ">=", "~"]
Outcome = Literal["supported", "refuted", "inconclusive"]
Standing = Literal["as expected", "contradicts", "undecided"]

_ALWAYS = 0.01
"""A statement about every instance is supported by no violation in so many random instances that
the interval of the violation rate ends below this."""


@dataclass(frozen=True)
class Verdict:
    """What the measurements say about a claim.

    `estimate` with its interval `[low, high]` is of the `quantity` named; all three are NaN where
    nothing could be estimated. `evidence` is one sentence with the numbers behind it, `points` the
    number of grid points (instances, for a violation rate) that were compared.
    """

    outcome: Outcome
    estimate: float
    low: float
    high: float
    quantity: str
    evidence: str
    points: int


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`measured` stands in `relation` to `predicted`, at every point or in scaling.

    A claim is decided only when a whole confidence interval lies on one side; everything else is
    *inconclusive*. A row obeys an inequality when it does so within the relative `tolerance`, which
    is there for floating-point rounding: `measured <= predicted + tolerance * |predicted|`, and
    likewise for `>=`. There are four checks:

    `<=`, `>=` with `failure_probability` δ > 0 ("with probability 1 - δ"): every row is an instance
        that violates the inequality or not; or it summarises `instances` of them, `violations` of
        which did. The violation rate of all instances gets a Clopper-Pearson interval. Supported
        where the interval ends at or below δ, refuted where it starts above; refuted also where
        that of a single point does so with Bonferroni correction over the points, so that a bad
        point cannot hide among good ones. Wrongly supported, and wrongly refuted, each happen with
        probability at most 1 - `confidence`: each rests on one end of the two-sided interval, and
        the two ways to refute take half of it each.
    `<=`, `>=` with δ = 0 (a theorem about every instance): refuted by one violation, supported by
        none when the interval of the violation rate ends below 1 %.
    `<=`, `>=` without δ (a statement about means): at each point, the mean of measured - predicted
        over the repeats has a t interval, Bonferroni-corrected so that all hold together at
        `confidence`. Supported where all lie on the right side, refuted where one lies entirely on
        the wrong side. If no point has repeats, the rows are taken as exact and the intervals have
        no width; if only some lack them, those are undecided. The verdict shows the worst point.
    `~` (same scaling): the least-squares slope of log measured on log predicted over the points is
        1 within the absolute `tolerance`. If every point has repeats, the interval is that of this
        linear combination of their means (Welch-Satterthwaite t, so that it holds with few seeds
        and unequal scatter) and describes the slope over these very points, curved or not.
        Otherwise it is the t interval of the regression of the point means, to which curvature
        is scatter. Supported where it lies inside [1 - tolerance, 1 + tolerance], refuted where it
        lies outside.

    An infinite `predicted` of an upper bound (-inf of a lower one) is vacuous: it holds trivially,
    and such rows are counted in the evidence but support nothing.
    """

    name: str
    statement: str
    source: Source
    relation: Relation
    measured: str
    """Column of the measured quantity."""
    predicted: str | float
    """Column of the prediction, or a constant."""
    where: Mapping[str, Any] = field(default_factory=dict)
    """Only rows with these values in these columns count."""
    over: tuple[str, ...] = ()
    """Columns that identify a point; rows that share a point are repeats (seeds) of it."""
    failure_probability: float | None = None
    violations: str | None = None
    instances: str | None = None
    tolerance: float
    confidence: float = 0.95
    expected: Outcome = "supported"
    """"refuted" for a statement that is wrong as printed."""
    corrected_by: str | None = None
    """Name of the claim, of the same study, that corrects this one."""

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise ValueError(f"claim {self.name!r}: {message}")

        counted = self.failure_probability is not None
        paired = (self.violations is None) == (self.instances is None)
        require(self.tolerance >= 0, f"tolerance is negative: {self.tolerance}")
        require(0 < self.confidence < 1, f"confidence is not inside (0, 1): {self.confidence}")
        require(paired, "violations and instances come together")
        require(counted or self.violations is None, "violations need a failure_probability")
        if self.failure_probability is not None:
            valid = 0 <= self.failure_probability < 1
            require(valid, f"failure_probability is not in [0, 1): {self.failure_probability}")
        if self.relation == "~":
            require(not counted, "a scaling has no failure_probability")
            require(isinstance(self.predicted, str), "a constant has no scaling")

    def check(self, rows: pandas.DataFrame) -> Verdict:
        """Decide the claim on measured rows.

        ValueError names a column that is missing, or whose values cannot be compared.
        """
        if rows.empty:
            return _undecided("not run at this preset")
        self._require_columns(rows)
        for column, value in self.where.items():
            rows = rows.loc[[entry == value for entry in rows[column]]]
        if rows.empty:
            chosen = ", ".join(f"{column} = {value}" for column, value in self.where.items())
            return _undecided(f"not run at this preset: no row has {chosen}")
        sample = _Sample(
            measured=self._numbers(rows, self.measured),
            predicted=self._numbers(rows, self.predicted)
            if isinstance(self.predicted, str)
            else np.full(len(rows), float(self.predicted)),
            point=_point_numbers(rows, self.over),
            place=_places(rows, self.over),
        )
        if self.relation == "~":
            return self._check_scaling(sample)
        vacuous = sample.predicted == self._sign * math.inf
        if vacuous.all():
            return _undecided(f"the prediction is vacuous in all {len(rows)} rows")
        sample, rows = sample.only(~vacuous), rows.loc[~vacuous]
        self._require_finite(sample.predicted, str(self.predicted))
        if self.failure_probability is None:
            verdict = self._check_means(sample)
        else:
            verdict = self._check_rate(sample, rows, self.failure_probability)
        if vacuous.any():
            note = f"{verdict.evidence}; vacuous in {vacuous.sum()} further rows"
            verdict = replace(verdict, evidence=note)
        return verdict

    @property
    def _sign(self) -> int:
        """Makes positive what speaks against the inequality: sign * (measured - predicted)."""
        return 1 if self.relation == "<=" else -1

    def _check_rate(self, sample: _Sample, rows: pandas.DataFrame, delta: float) -> Verdict:
        excess = self._sign * (sample.measured - sample.predicted)
        slack = self.tolerance * np.abs(sample.predicted)
        if self.violations is not None and self.instances is not None:
            broken = self._numbers(rows, self.violations)
            tested = self._numbers(rows, self.instances)
            if (broken < 0).any() or (broken > tested).any():
                raise ValueError(
                    f"claim {self.name!r}: {self.violations!r} is not between 0 and "
                    f"{self.instances!r} in every row"
                )
        else:
            broken, tested = excess > slack, np.ones(len(excess))
        total = int(tested.sum())
        if total == 0:
            return _undecided("no instance was tested")
        overall = intervals.rate(int(broken.sum()), total, self.confidence)
        if delta > 0:
            groups = [rows_of for rows_of in sample.groups() if tested[rows_of].any()]
            corrected = self._corrected(len(groups))
            each = [
                intervals.rate(int(broken[rows_of].sum()), int(tested[rows_of].sum()), corrected)
                for rows_of in groups
            ]
            hidden = max(interval.low for interval in each) > delta
            outcome = _decide(overall.high <= delta and not hidden, overall.low > delta or hidden)
        else:
            outcome = _decide(overall.high < _ALWAYS, overall.estimate > 0)
        scale = np.where(sample.predicted == 0, 1, np.abs(sample.predicted))
        worst = np.array([np.argmax(excess / scale)])
        stated = f"allowed: {delta:g}" if delta > 0 else "claimed for every instance"
        return Verdict(
            outcome=outcome,
            estimate=overall.estimate,
            low=overall.low,
            high=overall.high,
            quantity="violation rate",
            evidence=f"{int(broken.sum())} of {total} instances violate it ({stated}); worst: "
            f"{sample.describe(worst)}",
            points=total,
        )

    def _check_means(self, sample: _Sample) -> Verdict:
        self._require_finite(sample.measured, self.measured)
        groups = sample.groups()
        repeated = len(sample.measured) > len(groups)
        corrected = self._corrected(len(groups))
        excess = self._sign * (sample.measured - sample.predicted)
        each, slack = [], []
        for rows_of in groups:
            alone = float(excess[rows_of][0])
            exact = Interval(alone, alone, alone)
            each.append(intervals.mean(excess[rows_of], corrected) if repeated else exact)
            slack.append(self.tolerance * float(np.mean(np.abs(sample.predicted[rows_of]))))
        lows = np.array([interval.low for interval in each]) - slack
        highs = np.array([interval.high for interval in each]) - slack
        outcome = _decide(bool((highs <= 0).all()), bool((lows > 0).any()))
        worst = int(np.argmax(lows if outcome == "refuted" else highs))
        shown = each[worst] if self.relation == "<=" else -each[worst]
        how = f"{corrected:.4%} t intervals" if repeated else "one row a point, taken as exact"
        return Verdict(
            outcome=outcome,
            estimate=shown.estimate,
            low=shown.low,
            high=shown.high,
            quantity="measured - predicted at the worst point",
            evidence=f"{len(groups)} points, {len(excess)} rows ({how}); worst: "
            f"{sample.describe(groups[worst])}",
            points=len(groups),
        )

    def _check_scaling(self, sample: _Sample) -> Verdict:
        columns = (self.measured, str(self.predicted))
        for column, values in zip(columns, (sample.measured, sample.predicted), strict=True):
            self._require_finite(values, column)
            if (values <= 0).any():
                count = int((values <= 0).sum())
                raise ValueError(
                    f"claim {self.name!r}: {count} of {len(values)} values of column {column!r} "
                    "are not positive, and have no logarithm"
                )
        groups = sample.groups()
        distinct = len({float(np.mean(sample.predicted[rows_of])) for rows_of in groups})
        if distinct < 3:
            return _undecided(f"a slope needs 3 distinct predictions, there are {distinct}")
        found = intervals.slope(
            np.log(sample.predicted), np.log(sample.measured), sample.point, self.confidence
        )
        least, most = 1 - self.tolerance, 1 + self.tolerance
        outside = found.high < least or found.low > most
        factor = sample.predicted.max() / sample.predicted.min()
        return Verdict(
            outcome=_decide(least <= found.low and found.high <= most, outside),
            estimate=found.estimate,
            low=found.low,
            high=found.high,
            quantity="log-log slope",
            evidence=f"slope {found.estimate:.3f} of measured on predicted (1 ± {self.tolerance:g} "
            f"claimed), {len(groups)} points, {len(sample.measured)} rows, the prediction varies "
            f"by a factor {factor:.3g}",
            points=len(groups),
        )

    def _corrected(self, comparisons: int) -> float:
        return 1 - (1 - self.confidence) / comparisons

    def _require_columns(self, rows: pandas.DataFrame) -> None:
        named = (self.measured, self.predicted, self.violations, self.instances)
        for column in (*named, *self.where, *self.over):
            if isinstance(column, str) and column not in rows.columns:
                known = ", ".join(map(str, rows.columns))
                raise ValueError(f"claim {self.name!r} needs column {column!r}; there are: {known}")

    def _require_finite(self, values: np.ndarray, column: str) -> None:
        count = int((~np.isfinite(values)).sum())
        if count:
            raise ValueError(
                f"claim {self.name!r}: {count} of {len(values)} values of column {column!r} "
                "are infinite"
            )

    def _numbers(self, rows: pandas.DataFrame, column: str) -> np.ndarray:
        try:
            values = rows[column].to_numpy(dtype=float)
        except (TypeError, ValueError) as error:
            message = f"claim {self.name!r}: column {column!r} is not numeric"
            raise ValueError(message) from error
        missing = int(np.isnan(values).sum())
        if missing:
            raise ValueError(
                f"claim {self.name!r}: {missing} of {len(values)} values of column {column!r} "
                "are missing or NaN"
            )
        return values


def asserted(verdict: Verdict, claim: Claim) -> Standing:
    """Whether a verdict is the one its claim expects, the opposite, or no decision."""
    if verdict.outcome == "inconclusive":
        return "undecided"
    return "as expected" if verdict.outcome == claim.expected else "contradicts"


@dataclass(frozen=True)
class _Sample:
    """The compared rows: `point` numbers the grid point of each, `place` names it."""

    measured: np.ndarray
    predicted: np.ndarray
    point: np.ndarray
    place: np.ndarray

    def only(self, keep: np.ndarray) -> _Sample:
        return _Sample(
            self.measured[keep], self.predicted[keep], self.point[keep], self.place[keep]
        )

    def groups(self) -> list[np.ndarray]:
        """For each point, the positions of its rows."""
        return [np.flatnonzero(self.point == number) for number in np.unique(self.point)]

    def describe(self, rows: np.ndarray) -> str:
        """The means of some rows of one point."""
        measured, predicted = self.measured[rows].mean(), self.predicted[rows].mean()
        place = self.place[rows[0]]
        return f"measured {measured:.4g} against predicted {predicted:.4g}{place}"


def _point_numbers(rows: pandas.DataFrame, over: tuple[str, ...]) -> np.ndarray:
    if not over:
        return np.zeros(len(rows), dtype=int)
    return rows.groupby(list(over), sort=False, dropna=False).ngroup().to_numpy()


def _places(rows: pandas.DataFrame, over: tuple[str, ...]) -> np.ndarray:
    if not over:
        return np.full(len(rows), "")
    named = [[f"{column} = {value}" for value in rows[column]] for column in over]
    return np.array([" at " + ", ".join(place) for place in zip(*named, strict=True)])


def _decide(supported: bool, refuted: bool) -> Outcome:
    if refuted:
        return "refuted"
    return "supported" if supported else "inconclusive"


def _undecided(reason: str) -> Verdict:
    return Verdict("inconclusive", math.nan, math.nan, math.nan, "", reason, 0)
