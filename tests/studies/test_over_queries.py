"""Bootstrap over queries: intervals that are known, seeds averaged first, groups drawn apart, how often they hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from speed.studies.over_queries import Queries, corrected_over_queries, over_queries


def task(*scores: float, group: str = "test/default") -> Queries:
    return {group: {f"q{place}": score for place, score in enumerate(scores)}}


def test_the_interval_of_queries_that_are_won_or_not_is_the_binomials() -> None:
    """Twenty queries, four of which gain 100 points: a resample's mean is five times a binomial count of 20 at 0.2."""
    a, b = task(*[100.0] * 4, *[50.0] * 16), task(*[0.0] * 4, *[50.0] * 16)
    found = over_queries([{"T": a}], [{"T": b}])
    one = found.tasks["T"]
    assert one.mean == pytest.approx(20.0)
    assert (one.queries.over, one.queries.count) == ("queries", 20)
    tail = stats.norm.sf(math.sqrt(20 / 19) * stats.t.ppf(0.975, 19))
    low, high = (5 * float(stats.binom.ppf(share, 20, 0.2)) for share in (tail, 1 - tail))
    assert (low, high) == (5.0, 40.0)
    assert (one.queries.low, one.queries.high) == pytest.approx((low, high))
    assert one.queries.spread == pytest.approx(np.std([100] * 4 + [0] * 16, ddof=1))
    below = stats.binom.pmf(0, 20, 0.2) / 2
    p = 2 * stats.t.sf(stats.norm.isf(below) / math.sqrt(20 / 19), 19)
    assert one.queries.p == pytest.approx(p, rel=0.1)
    assert one.verdict() == "resolved over 20 queries"
    assert found.mean == one, "of one task"


def test_no_number_of_comparisons_hides_a_difference_that_is_far_from_zero() -> None:
    """No resample lies beyond zero then, and one in all resamples would be far too large a share."""
    base = np.random.default_rng(0)
    tasks = [f"T{number}" for number in range(15)]
    better, worse = (
        {name: task(*(level + base.normal(0, 3, 20)).tolist()) for name in tasks} for level in (90.0, 30.0)
    )
    found = {name: over_queries([better], [worse]) for name in ("one", "two", "three")}
    verdicts = [one.verdict() for each in corrected_over_queries(found).values() for one in each.tasks.values()]
    assert len(verdicts) == 45
    assert set(verdicts) == {"resolved over 20 queries"}


def test_only_differences_of_the_same_query_count() -> None:
    """Queries differ much from one another, and each gains the same two points."""
    base = np.random.default_rng(0).uniform(0, 90, 50).tolist()
    found = over_queries([{"T": task(*(score + 2 for score in base))}], [{"T": task(*base)}]).tasks["T"]
    assert (found.queries.low, found.queries.high) == pytest.approx((2.0, 2.0))
    assert found.resolved
    nothing = over_queries([{"T": task(*base)}], [{"T": task(*base)}]).tasks["T"]
    assert (nothing.mean, nothing.queries.low, nothing.queries.high, nothing.queries.p) == (0, 0, 0, 1)
    assert not nothing.resolved


def test_a_query_of_several_runs_has_their_mean_whatever_its_place_in_a_file() -> None:
    one = {"T": task(*(10.0 * place for place in range(20)))}
    shuffled = dict(reversed(task(*(14.0 * place for place in range(20)))["test/default"].items()))
    other = {"T": {"test/default": shuffled}}
    base = {"T": task(*[0.0] * 20)}
    mean = {"T": task(*(12.0 * place for place in range(20)))}
    assert over_queries([one, other], [base, base, base]) == over_queries([mean], [base])


def test_groups_are_drawn_apart_and_weigh_alike() -> None:
    """Two languages of 200 and of 50 queries: the variance is that of the mean of two means."""
    draws = np.random.default_rng(1)
    sizes = {"test/en": 200, "test/de": 50}
    gained = {group: draws.normal(3.0, 20.0, size) for group, size in sizes.items()}
    a: Queries = {group: {str(i): float(x) for i, x in enumerate(found)} for group, found in gained.items()}
    b: Queries = {group: dict.fromkeys(queries, 0.0) for group, queries in a.items()}
    one = over_queries([{"T": a}], [{"T": b}]).tasks["T"]
    assert one.mean == pytest.approx(np.mean([found.mean() for found in gained.values()]))
    parts = [found.var(ddof=1) / len(found) / 4 for found in gained.values()]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 199 + parts[1] ** 2 / 49)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(sum(parts))
    assert one.queries.high - one.queries.low == pytest.approx(2 * half, rel=0.05)
    assert one.queries.count == 250


def test_the_mean_over_tasks_weighs_tasks_and_not_queries() -> None:
    draws = np.random.default_rng(2)
    large, small = draws.normal(0.0, 10.0, 900), draws.normal(6.0, 10.0, 100)
    a, b = {"L": task(*large), "S": task(*small)}, {"L": task(*[0.0] * 900), "S": task(*[0.0] * 100)}
    found = over_queries([a], [b])
    assert found.mean is not None
    assert found.mean.mean == pytest.approx((large.mean() + small.mean()) / 2)
    error = math.sqrt(large.var(ddof=1) / 900 + small.var(ddof=1) / 100) / 2
    assert found.mean.queries.high - found.mean.queries.low == pytest.approx(2 * 1.97 * error, rel=0.05)
    assert found.mean.queries.count == 1000


def test_a_task_counts_where_all_runs_have_the_same_queries_and_enough_of_them() -> None:
    whole = {"T": task(*range(20)), "Few": task(*range(19)), "Other": task(*range(20)), "Missing": task(*range(20))}
    less = {**whole, "Other": task(*range(21))}
    del less["Missing"]
    assert set(over_queries([whole, whole], [whole, less]).tasks) == {"T"}
    assert over_queries([whole], [{}]).mean is None
    half_few = {"T": {**task(*range(90)), **task(*range(19), group="test/de")}}
    assert over_queries([half_few], [half_few]).tasks == {}


@pytest.mark.parametrize("sizes", [(20,), (60,), (25, 100)])
def test_intervals_hold_the_truth_as_often_as_they_say(sizes: tuple[int, ...]) -> None:
    draws = np.random.default_rng(3)
    held = 0
    for _ in range(600):
        groups = {str(place): draws.normal(1.0, 15.0, size) for place, size in enumerate(sizes)}
        a = {group: {str(i): float(x) for i, x in enumerate(found)} for group, found in groups.items()}
        b = {group: dict.fromkeys(queries, 0.0) for group, queries in a.items()}
        found = over_queries([{"T": a}], [{"T": b}], resamples=1000).tasks["T"].queries
        held += found.low <= 1.0 <= found.high
    assert 0.92 < held / 600 < 0.98


@pytest.mark.parametrize(("count", "share", "least"), [(20, 0.4, 0.9), (50, 0.15, 0.87), (200, 0.15, 0.92)])
def test_where_few_queries_differ_intervals_are_somewhat_too_narrow(count: int, share: float, least: float) -> None:
    """Most queries have the same score on both sides, as those do whose relevant document stays at its rank."""
    draws = np.random.default_rng(6)
    held = 0
    for _ in range(600):
        changes = np.where(draws.random(count) < share, draws.normal(15.0, 30.0, count), 0.0)
        found = over_queries([{"T": task(*changes)}], [{"T": task(*[0.0] * count)}], resamples=1000).tasks["T"].queries
        held += found.low <= 15 * share <= found.high
    assert least < held / 600 < 0.97


def test_tasks_are_corrected_together_and_means_among_themselves() -> None:
    draws = np.random.default_rng(4)
    base = {name: task(*[0.0] * 60) for name in "AB"}
    runs = [{name: task(*draws.normal(4.0, 12.0, 60)) for name in "AB"} for _ in range(2)]
    found = {f"{place}": over_queries([base], [run]) for place, run in enumerate(runs)}
    held = corrected_over_queries(found)
    single = sorted(each.queries.p for one in found.values() for each in one.tasks.values())
    together = sorted(each.queries.p for one in held.values() for each in one.tasks.values())
    assert together[0] == pytest.approx(4 * single[0])
    assert [each.comparisons for one in held.values() for each in one.tasks.values()] == [4] * 4
    for title, one in held.items():
        assert one.mean is not None
        assert one.mean.comparisons == 2
        assert one.mean.queries.low == found[title].mean.queries.low  # type: ignore[union-attr]
    assert corrected_over_queries({"x": over_queries([base], [{}])})["x"].mean is None


def test_the_same_seed_of_the_resampling_gives_the_same_interval() -> None:
    draws = np.random.default_rng(5)
    a, b = ({"T": task(*draws.normal(0.0, 9.0, 20))} for _ in range(2))
    assert over_queries([a], [b], seed=3) == over_queries([a], [b], seed=3) != over_queries([a], [b], seed=4)
