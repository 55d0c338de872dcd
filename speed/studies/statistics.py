"""Intervals of scores and of differences between scores, with the uncertainty that each stands for.

Three uncertainties are kept apart, since each answers another question:

- seeds: would the same recipe give it again on these tasks? Student's t over seeds, which are few.
- tasks: would other tasks like these give it? A paired bootstrap over tasks of the scores averaged over seeds.
- queries: would other queries of the same tasks give it? A paired bootstrap over the queries of each task, where the
  scores of single queries were kept (`speed.studies.over_queries`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from speed.core.errors import UserError
from speed.core.spec import Spec

Runs: TypeAlias = Mapping[int, Mapping[str, float]]
"""Scores by task, by the seed that a run was made with. All runs are of one recipe."""

FEWEST_TASKS = 5
"""Below it, resampling tasks says next to nothing, and there is no interval over tasks."""
DRAWN_AT_ONCE = 100_000
"""Values that a bootstrap draws at once; more than fit a processor's cache take longer."""
MOST_SEEDS = 10_000
"""Where the search for the number of seeds ends."""
POWER = 0.8
"""Chance that a difference of the measured size is resolved with the number of seeds that is named."""


class Interval(Spec):
    """Where a mean may lie, as far as one kind of uncertainty goes."""

    over: Literal["seeds", "tasks", "queries"]
    count: int
    """How many seeds, tasks or queries."""
    low: float
    high: float
    p: float
    """Two-sided p-value of a mean of zero, corrected where several comparisons were made at once."""
    spread: float
    """Standard deviation of one seed, task or query; of their differences where it is an interval of one."""

    def is_of_the_same(self, mean: float) -> bool:
        """Whether a difference of this mean is of the same figures, each with itself."""
        return mean == 0 == self.spread


class Deviation(Spec):
    """How far single values lie apart."""

    value: float
    """Standard deviation."""
    low: float
    """Lower end of its interval by chi-square, which takes values to be normal."""
    high: float
    count: int
    """How many values."""


class Difference(Spec):
    """One recipe's mean score minus another's, on the tasks that both have."""

    mean: float
    seeds: Interval | None
    """None where one of the two has a single seed: then nobody knows what seeds do."""
    tasks: Interval | None
    """None below five tasks."""
    paired: bool
    """Whether both have the same seeds, so that differences are taken seed by seed."""
    level: float = 0.95
    comparisons: int = 1
    """How many comparisons Holm's correction of the interval that the verdict rests on was made for."""
    seeds_needed: int | None = None
    """Seeds of each recipe that would resolve a difference of this size; None where it is resolved or nothing tells."""

    @property
    def interval(self) -> Interval | None:
        """The interval that the verdict rests on: over seeds where there are several, else over tasks."""
        return self.seeds or self.tasks

    @property
    def low(self) -> float | None:
        """Lower end of that interval."""
        return self.interval.low if self.interval else None

    @property
    def high(self) -> float | None:
        """Upper end of that interval."""
        return self.interval.high if self.interval else None

    @property
    def resolved(self) -> bool:
        """Whether zero lies outside of the interval, also after correction for several comparisons."""
        return self._resolves(self.interval)

    def verdict(self) -> str:
        """In words: what is resolved over what, and what would resolve the rest."""
        parts = []
        if self.seeds:
            parts.append(f"{self._word(self.seeds)} over {self.seeds.count} seeds")
            if self.seeds_needed:
                parts.append(f"{self.seeds_told} seeds would resolve it")
        else:
            parts.append("spread over seeds unknown (one seed)")
        if self.tasks:
            parts.append(f"{self._word(self.tasks)} over {self.tasks.count} tasks")
        return "; ".join(parts)

    @property
    def seeds_told(self) -> str:
        """The number of seeds that would resolve it, in words; empty where nothing tells."""
        if not self.seeds_needed:
            return ""
        return f"about {self.seeds_needed:,}" if self.seeds_needed < MOST_SEEDS else f"over {MOST_SEEDS:,}"

    def _word(self, interval: Interval) -> str:
        return "resolved" if self._resolves(interval) else "unresolved"

    def _resolves(self, interval: Interval | None) -> bool:
        return interval is not None and interval.p < 1 - self.level


def shared_tasks(runs: Sequence[Mapping[str, float]]) -> list[str]:
    """The tasks that all runs have, in order.

    Raises:
        UserError: if there is none.
    """
    names = set.intersection(*map(set, runs))
    if not names:
        raise UserError("these runs have no task in common, so there is nothing to compare")
    return sorted(names)


def interval(values: Sequence[float], level: float = 0.95) -> Interval | None:
    """Student's t interval of a mean over seeds; None for fewer than two values."""
    if len(values) < 2:
        return None
    spread = float(np.std(values, ddof=1))
    return _of_t(float(np.mean(values)), spread, len(values), spread / math.sqrt(len(values)), len(values) - 1, level)


def deviation(values: Sequence[float], level: float = 0.95) -> Deviation | None:
    """Standard deviation over seeds with its interval; None for fewer than two values."""
    if len(values) < 2:
        return None
    spread, freedom = float(np.std(values, ddof=1)), len(values) - 1
    low, high = (spread * math.sqrt(freedom / float(stats.chi2.ppf((1 + way * level) / 2, freedom))) for way in (1, -1))
    return Deviation(value=spread, low=low, high=high, count=len(values))


def difference(a: Runs, b: Runs, level: float = 0.95, resamples: int = 20_000, seed: int = 0) -> Difference:
    """The mean of `a` minus the mean of `b` over the tasks that all their runs have.

    Args:
        resamples: how often tasks are drawn again.
        seed: of these draws.

    Raises:
        UserError: if there is no such task.
    """
    names = shared_tasks([*a.values(), *b.values()])
    one, two = (np.array([[runs[key][name] for name in names] for key in sorted(runs)]) for runs in (a, b))
    by_task = one.mean(0) - two.mean(0)
    paired = set(a) == set(b)
    out = Difference(
        mean=float(by_task.mean()),
        seeds=_over_seeds(one.mean(1), two.mean(1), paired, level),
        tasks=over_tasks(by_task.tolist(), level, resamples, seed),
        paired=paired,
        level=level,
    )
    return out.model_copy(update={"seeds_needed": _seeds_needed(out)})


def over_tasks(values: Sequence[float], level: float = 0.95, resamples: int = 20_000, seed: int = 0) -> Interval | None:
    """Bootstrap interval of a mean over tasks; None below five tasks.

    The percentiles are moved outwards as t is from the normal distribution, and for the spread that a resample of n
    lacks (Hesterberg 2015, "expanded percentile interval"): plain percentiles are too narrow for few tasks.
    """
    if len(values) < FEWEST_TASKS:
        return None
    listed = np.asarray(values)
    means = resampled_means(listed, resamples, np.random.default_rng(seed))
    return of_resamples("tasks", means, [(1.0, listed)], level)


def resampled_means(values: np.ndarray, resamples: int, draws: np.random.Generator) -> np.ndarray:
    """Means of as many values, drawn again with replacement.

    Args:
        values: shape (n,).

    Returns:
        Shape (resamples,).
    """
    at_once = max(1, DRAWN_AT_ONCE // len(values))
    sizes = [min(at_once, resamples - begun) for begun in range(0, resamples, at_once)]
    return np.concatenate([values[draws.integers(0, len(values), (size, len(values)))].mean(1) for size in sizes])


def of_resamples(
    over: Literal["tasks", "queries"], means: np.ndarray, groups: Sequence[tuple[float, np.ndarray]], level: float
) -> Interval:
    """The expanded percentile interval (see `over_tasks`) of a weighted sum of groups' means.

    For one group of n values it widens by t with n - 1 degrees of freedom and by the root of n / (n - 1). For several,
    each drawn on its own, it takes the degrees of freedom of Welch and Satterthwaite and the spread that they lack
    together.

    Args:
        means: of the resamples, shape (resamples,).
        groups: the weight of each, and its values, at least two.
    """
    counts = np.array([len(values) for _, values in groups])
    parts = np.array([weight**2 * values.var(ddof=1) / len(values) for weight, values in groups])
    variance = float(parts.sum())
    wider = math.sqrt(variance / float(np.sum(parts * (counts - 1) / counts))) if variance else 1.0
    freedom = variance**2 / float(np.sum(parts**2 / (counts - 1))) if variance else float(counts.sum() - len(counts))
    tail = float(stats.norm.sf(wider * stats.t.ppf((1 + level) / 2, freedom)))
    low, high = np.quantile(means, [tail, 1 - tail])
    below = (float(np.sum(means < 0)) + float(np.sum(means == 0)) / 2) / len(means)
    beyond = min(below, 1 - below)
    if not beyond:  # further out than any resample: a normal tail, lest their number hide what is far from zero
        spread_of_means = float(means.std())
        tail_beyond = float(stats.norm.sf(abs(float(means.mean())) / spread_of_means)) if spread_of_means else 0.0
        beyond = min(tail_beyond, 1 / (len(means) + 1))
    p = min(1.0, 2 * float(stats.t.sf(stats.norm.isf(beyond) / wider, freedom)))
    spread, count = math.sqrt(variance * counts.sum()), int(counts.sum())
    return Interval(over=over, count=count, low=float(low), high=float(high), p=p, spread=spread)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def corrected(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same differences with Holm's p-values for all of them at once, so that each verdict accounts for the others.

    The intervals stay those of single comparisons. Each kind of interval is corrected for those comparisons that have
    it: where a recipe has a single seed, nothing was tested over seeds. Nor was anything where both have the very same
    figures, as that of a stage that two recipes share.
    """
    out = dict(differences)
    for over in ("tasks", "seeds"):  # the verdict rests on seeds where there are several
        known = {
            name: found
            for name, one in differences.items()
            if (found := getattr(one, over)) is not None and not found.is_of_the_same(one.mean)
        }
        for (name, found), p in zip(known.items(), holm([found.p for found in known.values()]), strict=True):
            new = {over: found.model_copy(update={"p": p}), "comparisons": len(known)}
            out[name] = out[name].model_copy(update=new)
    return {name: one.model_copy(update={"seeds_needed": _seeds_needed(one)}) for name, one in out.items()}


def _over_seeds(one: np.ndarray, two: np.ndarray, paired: bool, level: float) -> Interval | None:
    """Paired t where both have the same seeds, else Welch's."""
    if min(len(one), len(two)) < 2:
        return None
    if paired:
        return interval((one - two).tolist(), level)
    parts = one.var(ddof=1) / len(one), two.var(ddof=1) / len(two)
    error = math.sqrt(sum(parts))
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (len(one) - 1) + parts[1] ** 2 / (len(two) - 1)) if error else 1.0
    spread = math.sqrt(one.var(ddof=1) + two.var(ddof=1))
    count = min(len(one), len(two))
    return _of_t(float(one.mean() - two.mean()), spread, count, error, freedom, level)


def _of_t(mean: float, spread: float, count: int, error: float, freedom: float, level: float) -> Interval:
    half = float(stats.t.ppf((1 + level) / 2, freedom)) * error
    p = 2 * float(stats.t.sf(abs(mean) / error, freedom)) if error else float(mean == 0)
    return Interval(over="seeds", count=count, low=mean - half, high=mean + half, p=p, spread=spread)


def _seeds_needed(one: Difference) -> int | None:
    """Seeds of each recipe with which a difference of this size would be resolved four times in five."""
    if one.seeds is None or one.mean == 0 or one._resolves(one.seeds):
        return None
    tail = (1 - one.level) / one.comparisons / 2
    # Those that are there do not resolve it, however few Welch's degrees of freedom are beside those assumed here.
    counts = np.arange(one.seeds.count + 1, MOST_SEEDS)
    freedom = counts - 1 if one.paired else 2 * (counts - 1)
    reach = stats.t.isf(tail, freedom) + stats.t.ppf(POWER, freedom)
    enough = counts[reach * one.seeds.spread / np.sqrt(counts) <= abs(one.mean)]
    return int(enough[0]) if len(enough) else MOST_SEEDS
