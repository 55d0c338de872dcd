"""The law of scores by data size: three forms, fitted with bands, told apart, and tested on the largest size.

Whatever is measured at several sizes can be fitted: mean scores, scores of a type, or the contrastive entropy of
held-out pairs, as a task of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from scipy import optimize, stats

from speed.core.errors import UserError
from speed.core.spec import Spec
from speed.studies.forms import FORMS, NAMES, Array, Curve, Form, Name, fit, predicted
from speed.studies.statistics import FEWEST_TASKS, Runs, shared_tasks

Measured: TypeAlias = Mapping[int, Runs]
"""Scores by task, by seed, by number of examples."""

FEWEST_SIZES = 5
"""Below it a curve cannot be told from a line, and only the line is fitted."""
PRIOR = 12
"""Degrees of freedom by which the variance at a size is drawn to that of all: a variance of few seeds is noise."""
TOLD_APART = 2.0
"""Difference of AICc from which a form is called better than another."""
DOUBLINGS = 40
"""How far beyond the measured sizes a law is followed in search of a size."""


class Band(Spec):
    """Where a figure may lie."""

    low: float
    high: float


class Estimate(Spec):
    """A figure of a law, with its band over seeds and its band over tasks."""

    value: float
    seeds: Band | None
    """None where a size has a single seed."""
    tasks: Band | None
    """None below five tasks. Other tasks lie higher or lower altogether, so this band is wide for a score itself."""


class Extrapolation(Spec):
    """What the law of all sizes but the largest says of the largest."""

    size: int
    predicted: float
    measured: float
    inside: bool | None
    """Whether the two agree within the band of their difference over seeds; None without such a band."""


class Law(Spec):
    """One form, fitted."""

    form: Name
    parameters: dict[str, float]
    """Under the names that `forms.py` gives them; D in examples."""
    aicc: float | None
    """Akaike's criterion for small samples, over sizes; None where there are too few sizes for the parameters."""
    extrapolation: Extrapolation | None
    curve: dict[int, Estimate]
    """Score by number of examples."""
    points_a_doubling: Estimate
    """What the next doubling brings at the largest size."""
    dollars_a_tenth: float | None
    """Price of the next tenth of a point by more examples; None without a price, or where the law never gets there."""
    doubling_below_noise: int | None
    """Smallest size, by doublings of the smallest measured, at which a doubling brings less than the noise."""


class Laws(Spec):
    """The forms, each fitted to the same scores."""

    laws: tuple[Law, ...]
    best: str | None
    """The form that AICc prefers; None where none is clearly better."""
    remark: str
    """Why there is a best form or none."""
    noise: float | None
    """Standard deviation of one run's score, seed by seed; what lifts a seed at all sizes alike is not counted."""
    level: float


def fit_laws(
    measured: Measured,
    at: Sequence[int] = (),
    dollars_per_example: float | None = None,
    level: float = 0.9,
    resamples: int = 1000,
    seed: int = 0,
    forms: Sequence[Name] = NAMES,
) -> Laws:
    """Fit every form that the sizes allow.

    Args:
        at: sizes of the curve; empty for the measured ones and the next doubling.
        dollars_per_example: what one more example costs.
        level: of the bands.
        resamples: how often seeds, and tasks, are drawn again.
        seed: of these draws.
        forms: to fit.

    Raises:
        UserError: for fewer than two sizes, or runs that share no task.
    """
    sizes = sorted(measured)
    if len(sizes) < 2:
        raise UserError("a law of scores by size needs at least two sizes: run the sweep `scaling`")
    data = _Data(measured, level, resamples, seed)
    sizes_of_curve = sorted(at) or [*sizes, 2 * sizes[-1]]
    enough = len(sizes) >= FEWEST_SIZES
    laws = tuple(
        _law(form, data, sizes_of_curve, dollars_per_example)
        for form in FORMS
        if form.name in forms and (form.free < len(sizes) if enough else form is FORMS[0])
    )
    best, remark = _ranked(laws) if enough else (None, f"not identifiable: {len(sizes)} sizes, and {FEWEST_SIZES} tell")
    return Laws(laws=laws, best=best, remark=remark, noise=data.noise, level=level)


class _Data:
    """Mean scores by size, their noise, and how they come out when seeds or tasks are drawn again."""

    def __init__(self, measured: Measured, level: float, resamples: int, seed: int) -> None:
        self.sizes = sorted(measured)
        self.level = level
        self.unit = float(np.exp(np.mean(np.log(self.sizes))))
        names = shared_tasks([run for runs in measured.values() for run in runs.values()])
        by_run = [_matrix(measured[size], names) for size in self.sizes]
        runs = [scores.mean(1) for scores in by_run]
        self.means = np.array([values.mean() for values in runs])
        counts = np.array([len(values) for values in runs])
        same_seeds = len({tuple(sorted(measured[size])) for size in self.sizes}) == 1
        draws = np.random.default_rng(seed)

        self.over_seeds: Array | None = None
        self.noise: float | None = None
        self.weights = counts.astype(float)
        self.freedom = int(counts[0] - 1 if same_seeds else (counts - 1).sum())
        if counts.min() > 1:
            found = _variances(runs, same_seeds)
            pooled = float(np.average(found, weights=counts - 1))
            variances = (PRIOR * pooled + (counts - 1) * found) / (PRIOR + counts - 1)
            self.noise = math.sqrt(pooled)
            self.weights = counts / variances if pooled else self.weights
            if same_seeds:
                # A seed that has all sizes is drawn with all of them, since its runs share their luck.
                self.over_seeds = _redrawn(np.stack(runs, axis=1), draws, resamples)
            else:
                drawn = np.stack([_redrawn(values, draws, resamples) for values in runs], axis=1)
                wider = np.sqrt(np.divide(variances, found, out=np.ones_like(found), where=found > 0))
                self.over_seeds = self.means + wider * (drawn - self.means)

        self.tasks = len(names)
        self.over_tasks: Array | None = None
        if self.tasks >= FEWEST_TASKS:
            by_task = np.stack([scores.mean(0) for scores in by_run], axis=1)
            self.over_tasks = _redrawn(by_task, draws, resamples)

    @property
    def noise_is_known(self) -> bool:
        return bool(self.noise)

    def units(self, sizes: Sequence[float]) -> Array:
        return np.asarray(sizes, dtype=float) / self.unit

    def estimates(self, values: Array, figures: Callable[[Array], Array]) -> list[Estimate]:
        """Figures with their bands.

        Args:
            values: the figures, one for each of them.
            figures: the same from mean scores by size; one row for each row of these.
        """
        over_seeds = self._bands(values, figures, self.over_seeds, self.freedom)
        over_tasks = self._bands(values, figures, self.over_tasks, self.tasks - 1)
        return [
            Estimate(value=float(value), seeds=seeds, tasks=tasks)
            for value, seeds, tasks in zip(values, over_seeds, over_tasks, strict=True)
        ]

    def _bands(
        self, values: Array, figures: Callable[[Array], Array], draws: Array | None, freedom: int
    ) -> Sequence[Band | None]:
        """Student's t with the draws' standard deviation: percentiles of few seeds are too narrow."""
        if draws is None:
            return [None] * len(values)
        halves = float(stats.t.isf((1 - self.level) / 2, freedom)) * figures(draws).std(0)
        return [
            Band(low=float(value - half), high=float(value + half)) for value, half in zip(values, halves, strict=True)
        ]


def _redrawn(rows: Array, draws: np.random.Generator, resamples: int) -> Array:
    """Means of rows that are drawn again with replacement, with the spread that a resample of n rows lacks."""
    count = len(rows)
    drawn = rows[draws.integers(0, count, (resamples, count))].mean(1)
    return np.asarray(rows.mean(0) + math.sqrt(count / (count - 1)) * (drawn - rows.mean(0)))


def _matrix(runs: Runs, names: Sequence[str]) -> Array:
    """Scores by seed (rows) and task."""
    return np.array([[runs[key][name] for name in names] for key in sorted(runs)])


def _variances(runs: list[Array], same_seeds: bool) -> Array:
    """Variance over seeds by size; what lifts a seed at all sizes alike bends no curve and is taken out first."""
    if not same_seeds:
        return np.array([values.var(ddof=1) for values in runs])
    scores = np.stack(runs, axis=1)
    scores = scores - scores.mean(1, keepdims=True)
    return np.asarray(scores.var(axis=0, ddof=1) * len(runs) / (len(runs) - 1))


def _law(form: Form, data: _Data, curve: list[int], dollars_per_example: float | None) -> Law:
    x = data.units(data.sizes)
    fitted = fit(form, x, data.means, data.weights)
    wanted = data.units([*curve, data.sizes[-1], 2 * data.sizes[-1]])

    def figures(scores: Array) -> Array:
        return np.column_stack([scores[:, :-2], scores[:, -1] - scores[:, -2]])

    *scores, gain = data.estimates(
        figures(fitted.at(wanted)[None])[0],
        lambda means: figures(predicted(form, x, means, data.weights, wanted)),
    )
    parameters = form.parameters(fitted.coefficients, fitted.exponents, data.unit)
    return Law(
        form=form.name,
        parameters={name: float(value) for name, value in parameters.items()},
        aicc=_aicc(form, fitted, x, data),
        extrapolation=_extrapolation(form, data),
        curve=dict(zip(curve, scores, strict=True)),
        points_a_doubling=gain,
        dollars_a_tenth=_dollars_a_tenth(fitted, data, dollars_per_example),
        doubling_below_noise=_doubling_below_noise(fitted, data),
    )


def _aicc(form: Form, fitted: Curve, x: Array, data: _Data) -> float | None:
    """Gaussian AICc over the means by size; without several seeds the noise is one more parameter."""
    squares = float((data.weights * (data.means - fitted.at(x)) ** 2).sum())
    count, parameters = len(x), form.free + (not data.noise_is_known)
    if count - parameters - 1 <= 0:
        return None
    if not data.noise_is_known:
        squares = count * math.log(max(squares, 1e-12) / count)
    return squares + 2 * parameters + 2 * parameters * (parameters + 1) / (count - parameters - 1)


def _ranked(laws: Sequence[Law]) -> tuple[str | None, str]:
    known = sorted((law.aicc, law.form) for law in laws if law.aicc is not None)
    if len(known) < 2:
        return None, "not identifiable: too few sizes for more than one form"
    (lowest, best), (second, other) = known[:2]
    if second - lowest < TOLD_APART:
        return None, f"not told apart: {best} and {other} differ by {second - lowest:.1f} in AICc"
    return best, f"{best}: its AICc is {second - lowest:.1f} below that of {other}"


def _extrapolation(form: Form, data: _Data) -> Extrapolation | None:
    x = data.units(data.sizes)
    if len(x) - 1 < form.free:
        return None
    at_largest = float(fit(form, x[:-1], data.means[:-1], data.weights[:-1]).at(x[-1:])[0])
    [error] = data.estimates(
        np.array([at_largest - data.means[-1]]),
        lambda means: predicted(form, x[:-1], means[:, :-1], data.weights[:-1], x[-1:]) - means[:, -1:],
    )
    inside = None if error.seeds is None else error.seeds.low <= 0 <= error.seeds.high
    return Extrapolation(size=data.sizes[-1], predicted=at_largest, measured=float(data.means[-1]), inside=inside)


def _dollars_a_tenth(fitted: Curve, data: _Data, dollars_per_example: float | None) -> float | None:
    if dollars_per_example is None:
        return None
    largest = data.sizes[-1]

    def lacking(doublings: float) -> float:
        then, now = fitted.at(data.units([largest * 2**doublings, largest]))
        return float(then - now) - 0.1

    if lacking(DOUBLINGS) <= 0:
        return None
    doublings = float(optimize.brentq(lacking, 0, DOUBLINGS))
    return dollars_per_example * largest * (2**doublings - 1)


def _doubling_below_noise(fitted: Curve, data: _Data) -> int | None:
    if not data.noise:
        return None
    sizes = [data.sizes[0] * 2**doubling for doubling in range(DOUBLINGS)]
    gains = np.abs(np.diff(fitted.at(data.units([*sizes, 2 * sizes[-1]]))))
    return next((size for size, gain in zip(sizes, gains, strict=True) if gain < data.noise), None)
