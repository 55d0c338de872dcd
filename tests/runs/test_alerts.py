"""Alerts: what they notice, what they let pass, and that each is said once; by a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from speed.runs.alerts import STILL_SECONDS, Alerts


class Watched:
    """Alerts with a clock and a list of what they said."""

    def __init__(self, **planned: float | None) -> None:
        self.now = 0.0
        self.said: list[tuple[str, str]] = []
        self.alerts = Alerts(planned, lambda *said: self.said.append(said), lambda: self.now)

    def see(self, name: str, label: str = "seed", **facts: Any) -> None:
        self.alerts.see(label, {"event": name, **facts})

    def shard(self, rejected: int, rows: int = 500) -> None:
        self.see("shard", start=0, stop=rows, rejected=rejected)

    def paid(self, done: int, dollars: float | None, total: int = 1000) -> None:
        self.see("progress", done=done, total=total, dollars=dollars)

    def look_after(self, seconds: float) -> None:
        self.now += seconds
        self.alerts.look()


def test_a_stage_that_stands_still_is_told_once_until_it_goes_on() -> None:
    watched = Watched()
    watched.see("start")
    watched.look_after(STILL_SECONDS - 1)
    assert watched.said == []
    watched.look_after(1)
    watched.look_after(STILL_SECONDS)
    assert watched.said == [("seed", "nothing has happened for 15 minutes; its log is in the run's folder")]
    watched.paid(1, None)
    watched.look_after(10)
    assert len(watched.said) == 1
    watched.look_after(20 * STILL_SECONDS)
    assert len(watched.said) == 2


def test_a_stage_that_has_ended_or_speaks_seldom_does_not_stand_still() -> None:
    watched = Watched()
    watched.see("start")
    watched.see("done")
    watched.see("start", "slow")
    watched.now += 600
    watched.see("progress", "slow", done=1, total=9, dollars=0.0)
    watched.look_after(5999)
    assert watched.said == []
    watched.look_after(1)
    assert [label for label, _ in watched.said] == ["slow"]


def test_an_alert_is_no_sign_of_life() -> None:
    watched = Watched()
    watched.see("start")
    watched.now += STILL_SECONDS
    watched.see("alert", message="too dear")
    watched.alerts.look()
    assert len(watched.said) == 1


def test_a_stage_that_waits_for_its_turn_does_not_stand_still() -> None:
    watched = Watched()
    watched.see("say", message="waits for GPU 0, which another command uses")
    watched.look_after(STILL_SECONDS)
    assert watched.said == []
    watched.see("start")
    watched.see("say", message="runs on GPU 0")
    watched.look_after(STILL_SECONDS)
    assert len(watched.said) == 1


def test_more_rejections_than_at_first() -> None:
    watched = Watched()
    for rejected in (50, 50, 55, 45, 60, 60, 150, 150, 150, 150):
        watched.shard(rejected)
    assert watched.said == [("seed", "30% of its last 1,000 rows are rejected, and 10% of its first 1,000 were")]


@pytest.mark.parametrize("shares", [(400, 420), (0, 20), (2, 1)])
def test_rejections_may_vary(shares: tuple[int, int]) -> None:
    """Neither chance, nor a difference of a few points, nor fewer of them is worth an alert."""
    watched = Watched()
    first, later = shares
    for rejected in (first, first, later, later):
        watched.shard(rejected)
    assert watched.said == []


def test_spending_that_leaves_the_plan_is_told_before_it_is_paid() -> None:
    watched = Watched(seed=10.0)
    watched.paid(500, 0.0, total=1500)  # half of it was there
    watched.paid(590, 2.0, total=1500)
    assert watched.said == [], "ninety rows tell too little"
    watched.paid(600, 2.0, total=1500)
    watched.paid(700, 4.0, total=1500)
    assert watched.said == [("seed", "it has cost $2.00 and will cost about $20.00; planned were $10.00")]


@pytest.mark.parametrize(("planned", "dollars"), [(10.0, 1.2), (None, 9.0), (10.0, None), (0.0, 0.0)])
def test_spending_within_the_plan_or_unknown(planned: float | None, dollars: float | None) -> None:
    watched = Watched(seed=planned)
    watched.paid(0, 0.0 if dollars is not None else None)
    watched.paid(100, dollars)
    assert watched.said == []


def test_paid_more_than_planned_is_told_however_few_rows_there_are() -> None:
    watched = Watched(seed=1.0)
    watched.paid(0, 0.0)
    watched.paid(3, 1.3)
    assert len(watched.said) == 1
