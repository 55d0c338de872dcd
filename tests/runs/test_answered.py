"""A plan says how many calls the journal, or an earlier point of its sweep, answers: as many as a build then finds."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from speed.core.build import build
from speed.core.content import noted_absence
from speed.core.graph import Goal, stage_statuses
from speed.core.stage import Pool, silence
from speed.core.store import Store
from speed.data.records import Kind
from speed.pipeline import pipeline
from speed.runs.answered import Answered, answered_calls, answered_lines
from speed.runs.stage_lines import stage_line
from speed.runtime import Runtime

BOUGHT = ("topics", "tasks for seed", "seed data")


def point(compose: Any, diversity: str, *overrides: str) -> list[Goal]:
    """The goals of one point of Table 3, up to its seed data."""
    goals = pipeline(compose("+experiment=smoke", "counts.sft=69", f"diversity={diversity}", *overrides)).goals()
    return [goal for goal in goals if goal.label in BOUGHT]


def answered(goals: list[Goal], home: Path, before: list[Goal]) -> dict[str, Answered]:
    store = Store(home)
    found = answered_calls(stage_statuses(goals, store), store, Runtime(home=home), before)
    return {each.status.goal.label: each for each in found}


def built(goals: list[Goal], home: Path) -> Counter[str]:
    """Builds the goals; what the last one's calls were."""
    store = Store(home).open()
    for goal in goals:
        build(goal, store, Runtime(home=home), silence)
    return Counter(stage_line(goals[-1], store, built_now=True).cost)


def test_points_of_table_3_share_brainstorming_and_sts_and_a_plan_of_the_sweep_says_so(
    compose: Any, tmp_path: Path
) -> None:
    before = point(compose, "paper")
    assert answered_lines(list(answered(before, tmp_path, []).values())) == [], "nothing to look anything up in"
    for diversity in ("three_tasks", "five_tasks"):
        goals = point(compose, diversity)
        found = answered(goals, tmp_path, before)
        tasks, seed = found["tasks for seed"], found["seed data"]
        assert (tasks.before, tasks.bought) == (tasks.status.work.calls, 0)
        sts = goals[-1].node.assignment.mix.counts(69)[Kind.STS]  # type: ignore[attr-defined]
        assert (seed.before, seed.unknown, seed.bought) == (sts, 69 - sts, 69 - sts)
        before += goals
    told = " ".join(" ".join(answered_lines([tasks, seed])).split())
    assert f"{tasks.before} (all), seed data {sts}" in told
    assert f"left to buy: at least 0 and at most {69 - sts} calls" in told
    assert not list(tmp_path.iterdir()), "a plan leaves nothing behind"


def test_topics_that_are_not_there_leave_every_stage_unknown(compose: Any, tmp_path: Path) -> None:
    """The first stage meets the refusal; those after it must not read what it left behind."""
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "one.jsonl").touch()
    with noted_absence():
        goals = point(compose, "paper", "topics=file", f"topics.path={tmp_path / 'missing.txt'}")
        found = answered(goals, tmp_path, [])
    assert [each.unknown for each in found.values()] == [each.status.work.calls for each in found.values()]
    assert len(found) == 2


@pytest.mark.parametrize("diversity", ["three_tasks", "untruncated"])
def test_what_a_plan_finds_in_the_journal_is_what_a_build_finds(compose: Any, tmp_path: Path, diversity: str) -> None:
    built(point(compose, "paper"), tmp_path)
    goals = point(compose, diversity)
    if diversity == "untruncated":  # its brainstorm calls are others for long topics, so its tasks are built first
        tasks = answered(goals, tmp_path, [])["tasks for seed"]
        cost = built(goals[:-1], tmp_path)
        assert (tasks.journal, tasks.bought, tasks.unknown) == (cost["cached"], cost["calls"], 0)
    found = answered(goals, tmp_path, [])["seed data"]
    assert found.unknown == 0, "all tasks are there"
    cost = built(goals, tmp_path)
    assert (found.journal, found.bought) == (cost["cached"], cost["calls"])
    assert found.journal > 0
    assert found.journal + found.bought + found.spared == 69


def test_a_run_that_was_stopped_pays_for_the_rest_alone(compose: Any, tmp_path: Path) -> None:
    """The journal has the answers of shards that were never finished."""
    goals = point(compose, "paper")
    built(goals, tmp_path)
    store = Store(tmp_path)
    pool = goals[-1].node
    assert isinstance(pool, Pool)
    store.set_aside(store.folder(pool))
    found = answered(goals, tmp_path, [])["seed data"]
    assert (found.journal, found.bought) == (69 - found.spared, 0)
