"""Scores by data size: their means, their noise, and how they come out when seeds or tasks are drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from scipy import stats

from speed.core.spec import Spec
from speed.studies.forms import Array
from speed.studies.statistics import FEWEST_TASKS, Runs, shared_tasks

Measured: TypeAlias = Mapping[int, Runs]
"""Scores by task, by seed, by number of examples."""

PRIOR = 12
"""Degrees of freedom by which the variance at a size is drawn to that of all: a variance of few seeds is noise."""
NO_SPREAD = 1e-9
"""Share of the largest mean below which a standard deviation is the rounding of equal figures."""


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


def of_shared_seeds(measured: Measured) -> tuple[Measured, int]:
    """The runs of the seeds that all sizes have, and how many others there are; all runs where fewer than two are."""
    shared = set.intersection(*(set(runs) for runs in measured.values()))
    if len(shared) < 2:
        return measured, 0
    taken = {size: {seed: runs[seed] for seed in sorted(shared)} for size, runs in measured.items()}
    return taken, sum(len(runs) - len(shared) for runs in measured.values())


class BySize:
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
        self.same_seeds = len({tuple(sorted(measured[size])) for size in self.sizes}) == 1
        draws = np.random.default_rng(seed)

        self.over_seeds: Array | None = None
        self.noise: float | None = None
        self.weights = counts.astype(float)
        self.freedom = int(counts[0] - 1 if self.same_seeds else (counts - 1).sum())
        self.freedom_of_noise = int((counts - 1).sum()) - self.same_seeds * int(counts[0] - 1)
        if counts.min() > 1:
            found = _variances(runs, self.same_seeds)
            if math.sqrt(found.max()) < NO_SPREAD * np.abs(self.means).max():
                found = np.zeros_like(found)
            pooled = float(np.average(found, weights=counts - 1))
            variances = (PRIOR * pooled + (counts - 1) * found) / (PRIOR + counts - 1)
            self.noise = math.sqrt(pooled)
            self.weights = counts / variances if pooled else self.weights
            if self.same_seeds:
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
