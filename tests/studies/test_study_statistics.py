"""Intervals and differences: the paper's headline, hand-computed cases, and how often intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from speed.core.errors import UserError
from speed.data.published_scores import published
from speed.studies.statistics import (
    MOST_SEEDS,
    Difference,
    corrected,
    deviation,
    difference,
    holm,
    interval,
    over_tasks,
)


def table_8(name: str) -> dict[str, float]:
    [row] = [row for row in published().rows if row.name == name and "Table" in row.source]
    return row.tasks


def test_the_papers_headline_is_unresolved_over_its_tasks() -> None:
    """SPEED 63.4 against E5-mistral 63.1, both on synthetic data: +0.30 [-0.50, +1.07] from the rows of Table 8."""
    speed, e5 = table_8("SPEED, synthetic data only"), table_8("E5-mistral, synthetic data only")
    found = difference({0: speed}, {0: e5}, resamples=20_000, seed=0)
    assert found.mean == pytest.approx(0.30, abs=0.01)
    assert found.tasks is not None
    assert found.tasks.count == 56
    assert found.tasks.spread == pytest.approx(2.97, abs=0.005)
    spread = 0.03  # 0.015 by which 56 tasks widen it, and twice the 0.008 by which an end differs from seed to seed
    assert (found.low, found.high) == (pytest.approx(-0.50, abs=spread), pytest.approx(1.07, abs=spread))
    assert not found.resolved
    assert found.seeds is None
    assert found.verdict() == "spread over seeds unknown (one seed); unresolved over 56 tasks"
    changes = [speed[task] - e5[task] for task in speed]
    assert (sum(change > 0 for change in changes), sum(change < 0 for change in changes)) == (30, 25)


def test_the_same_seed_of_the_resampling_gives_the_same_interval() -> None:
    values = [0.1, 2.0, -0.4, 0.9, 1.5, -0.2]
    assert over_tasks(values, seed=3) == over_tasks(values, seed=3) != over_tasks(values, seed=4)


def test_one_seed_has_no_interval_and_two_have_students() -> None:
    assert interval([36.4]) is None
    found = interval([36.0, 37.0])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((36.5 - 12.706 / 2, 36.5 + 12.706 / 2), abs=1e-3)


def test_a_deviation_has_an_interval_of_its_own() -> None:
    assert deviation([36.4]) is None
    found = deviation([36.0, 37.0, 38.0])
    assert found is not None
    assert (found.value, found.count) == (pytest.approx(1.0), 3)
    assert (found.low, found.high) == pytest.approx((0.5207, 6.2847), abs=1e-3)  # of a table of chi-square
    draws = np.random.default_rng(0).normal(0, 2.0, (2000, 5)).tolist()
    held = [one is not None and one.low <= 2.0 <= one.high for one in map(deviation, draws)]
    assert 0.93 < np.mean(held) < 0.97
    equal = deviation([1.0, 1.0])
    assert equal is not None
    assert (equal.low, equal.value, equal.high) == (0.0, 0.0, 0.0)


def runs(*means: float) -> dict[int, dict[str, float]]:
    return {seed: {"A": value - 1, "B": value + 1} for seed, value in enumerate(means)}


def test_the_same_seeds_are_paired_and_others_are_not() -> None:
    one, two = [40.0, 45.0, 50.0], [39.0, 44.1, 48.9]
    paired = difference(runs(*one), runs(*two))
    assert paired.paired
    assert paired.resolved
    assert paired.seeds_needed is None
    assert paired.seeds is not None
    assert paired.seeds.p == pytest.approx(stats.ttest_rel(one, two).pvalue)
    other = difference(runs(*one), {7 + seed: run for seed, run in runs(*two).items()})
    assert not other.paired
    assert not other.resolved
    expected = stats.ttest_ind(one, two, equal_var=False)
    assert other.seeds is not None
    assert other.seeds.p == pytest.approx(expected.pvalue)
    assert (other.low, other.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_an_unresolved_difference_names_the_seeds_that_would_resolve_it_four_times_in_five() -> None:
    found = difference(runs(40.3, 40.0, 40.9, 39.8, 40.6), runs(40.0, 40.1, 40.2, 39.9, 40.4))
    assert not found.resolved
    count = found.seeds_needed
    assert count is not None
    assert found.verdict() == f"unresolved over 5 seeds; about {count} seeds would resolve it"
    assert found.seeds is not None
    draws = np.random.default_rng(0).normal(found.mean, found.seeds.spread, (4000, count))
    power = np.mean(stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05)
    assert 0.77 < power < 0.85
    nothing = difference(runs(40.0, 41.0), runs(41.0, 40.0000001))
    assert nothing.seeds_needed == MOST_SEEDS
    assert "over 10,000 seeds" in nothing.verdict()


def test_more_seeds_are_asked_for_than_there_are() -> None:
    """Welch's degrees of freedom of two seeds are near one where only one side has a spread: t of 8 has a p of 0.08."""
    found = difference(runs(50.0, 51.0), {7: {"A": 45.5, "B": 47.5}, 8: {"A": 45.5, "B": 47.5001}})
    assert found.seeds is not None
    assert (found.seeds.count, found.resolved) == (2, False)
    assert found.seeds.p == pytest.approx(0.079, abs=0.001)
    assert found.verdict() == "unresolved over 2 seeds; about 3 seeds would resolve it"


def test_equal_runs_are_unresolved_and_no_number_of_seeds_helps() -> None:
    found = difference(runs(1.0, 2.0), runs(1.0, 2.0))
    assert (found.low, found.high, found.resolved, found.seeds_needed) == (0.0, 0.0, False, None)


def test_differences_are_over_the_tasks_that_all_runs_have() -> None:
    found = difference({0: {"A": 1.0, "B": 2.0}}, {0: {"B": 1.0, "C": 9.0}})
    assert found.mean == 1.0
    assert found.interval is None
    assert not found.resolved
    with pytest.raises(UserError, match="no task in common"):
        difference({0: {"A": 1.0}}, {0: {"B": 1.0}})


def test_holms_correction() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []


def test_figures_compared_with_themselves_cost_the_others_nothing() -> None:
    """Ten recipes that share a stage have its figure, and no question was asked of them."""
    base = {seed: {"A": 50.0 + seed} for seed in range(5)}
    moved = {seed: {"A": 52.0 + seed + 0.5 * (-1) ** seed} for seed in range(5)}
    alone = corrected({"moved": difference(moved, base)})["moved"]
    among = corrected({"moved": difference(moved, base), **{f"same {n}": difference(base, base) for n in range(10)}})
    assert alone.seeds is not None
    assert among["moved"] == alone
    assert not any(one.resolved for name, one in among.items() if name != "moved")


def test_several_comparisons_at_once_ask_for_more_of_each() -> None:
    def gained(points: float) -> Difference:
        return difference(runs(40.0 + points, 40.3 + points, 39.8 + points), runs(40.0, 40.0, 40.0))

    alone = gained(0.7)
    assert alone.resolved
    together = corrected({"one": alone, "two": gained(0.1), "three": gained(0.2)})
    assert together["one"].seeds is not None
    assert alone.seeds is not None
    assert together["one"].seeds.p == pytest.approx(3 * alone.seeds.p)
    assert not together["one"].resolved
    assert together["one"].comparisons == 3
    assert (together["one"].low, together["one"].high) == (alone.low, alone.high)
    assert together["one"].seeds_needed is not None


def test_only_comparisons_with_an_interval_count() -> None:
    """A run of one seed has no p-value over seeds that could be corrected, and below five tasks none over tasks."""
    several = difference(runs(50.0, 50.9, 50.1), runs(49.0, 49.5, 49.3))
    single = difference({0: dict.fromkeys("ABCDE", 50.0)}, {0: dict.fromkeys("ABCDE", 40.0)})
    assert several.seeds is not None
    found = corrected({"several": several, "single": single})
    assert found["several"] == several, "one comparison over seeds: nothing to correct"
    assert (found["several"].comparisons, found["single"].comparisons) == (1, 1)
    assert several.seeds_needed == found["several"].seeds_needed
    together = corrected({"several": several, "single": single, "again": several})
    assert {name: one.comparisons for name, one in together.items()} == {"several": 2, "single": 1, "again": 2}


@pytest.mark.parametrize("tasks", [5, 8, 56])
def test_intervals_over_tasks_hold_the_truth_as_often_as_they_say(tasks: int) -> None:
    draws = np.random.default_rng(1).normal(0.5, 3.0, (600, tasks))
    found = [over_tasks(row.tolist(), resamples=1000) for row in draws]
    held = np.mean([one is not None and one.low <= 0.5 <= one.high for one in found])
    assert 0.92 < held < 0.98


def test_an_interval_over_tasks_ends_at_zero_where_its_p_value_is_the_level() -> None:
    values = np.random.default_rng(2).normal(0.0, 1.0, 12)
    first = over_tasks(values.tolist())
    assert first is not None
    moved = over_tasks((values - first.low).tolist())
    assert moved is not None
    assert moved.p == pytest.approx(0.05, abs=0.01)
