"""Each alert reaches screen and log, the run's events and status, and its tracker, by way of a run as the command makes
it; the time that passes is that of a clock which the stage sets forward."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from conftest import HANG

from speed.core.errors import Later, UserError
from speed.core.graph import goals
from speed.core.row import Row
from speed.core.stage import Pool
from speed.core.work import Work
from speed.ports import Follower, TrackedRun, Tracker
from speed.runs import experiment
from speed.runs.alerts import STILL_SECONDS
from speed.runs.building import Origin
from speed.runs.status import status_of, status_text
from speed.runtime import Context

STILL = "nothing has happened for 15 minutes; its log is in the run's folder"
REJECTED = "40% of its last 1,000 rows are rejected, and 10% of its first 1,000 were"
DEAR = "it has cost $5.00 and will cost about $5.00; planned were $1.00"


class Surroundings:
    """A clock, and what the tracker was told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.tracked: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.woken = threading.Event()
        """Set when the tracker has heard that the stage stands still."""


HERE = Surroundings()


@dataclass(frozen=True)
class Troubled(Pool[Row]):
    """Two thousand rows that cost five times what was planned, later ones mostly rejected; then it stands still."""

    name: ClassVar[str] = "troubled"
    row: ClassVar[type[Row]] = Row

    @property
    def block(self) -> int:
        return 1000

    def work(self, start: int, stop: int) -> Work:
        return Work(dollars=1.0)

    def build(self, start: int, stop: int, ctx: Context) -> Iterator[Row]:
        ctx.progress(0, stop, "rows")
        ctx.tally.spend(5.0)
        ctx.progress(stop, stop, "rows")
        for row in range(2000):
            yield Row(row=row).reject("odd") if row % 10 < (1 if row < 1000 else 4) else Row(row=row)
        HERE.now += STILL_SECONDS
        assert HERE.woken.wait(HANG)
        raise UserError("the test is over")


class Listening(Tracker):
    """Keeps the alerts."""

    def follow(self, run: TrackedRun) -> Follower:
        return _Listener()


class _Listener(Follower):
    def event(self, label: str, event: dict[str, Any]) -> None:
        if event["event"] == "alert":
            HERE.tracked.append((label, event["message"]))
            if event["message"] == STILL:
                HERE.woken.set()

    def records(self, label: str, read: Callable[[], list[dict[str, Any]]]) -> None:
        raise AssertionError("nothing is built")

    def finish(self) -> None:
        HERE.ended.append("finish")

    def fail(self) -> None:
        HERE.ended.append("fail")

    def leave(self) -> None:
        HERE.ended.append("leave")


def test_alerts_reach_screen_events_status_and_tracker(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("speed.runs.alerts.LOOK_SECONDS", 0.001)
    pipe = SimpleNamespace(goals=lambda: goals([Troubled().take(2001)]), key="k" * 64)
    monkeypatch.setattr(experiment, "pipeline", lambda config: pipe)
    config = compose("preset=miniature", f"runtime.home={tmp_path / 'home'}").model_copy(
        update={"tracker": Listening()}
    )
    with pytest.raises(UserError, match="troubled: the test is over"):
        experiment.run(config, "name: alerts\n", Origin(preset="miniature"), lambda: HERE.now)
    wanted = [("troubled", message) for message in (DEAR, REJECTED, STILL)]
    assert HERE.tracked == wanted
    assert HERE.ended == ["fail"]
    folder = tmp_path / "home" / "runs" / "latest"
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [(event["stage"], event["message"]) for event in events if event["event"] == "alert"] == wanted
    lines = [f"ALERT {label}: {message}" for label, message in wanted]
    screen = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines() if "ALERT" in line]
    assert screen == lines
    assert status_text(status_of(folder)).splitlines()[-3:] == lines


def test_a_run_whose_questions_lie_with_a_batch_server_is_left_and_not_failed(
    compose: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*_: object) -> float:
        raise Later("690 questions lie with the server")

    pipe = SimpleNamespace(goals=lambda: goals([Troubled().take(1)]), key="k" * 64)
    monkeypatch.setattr(experiment, "pipeline", lambda config: pipe)
    monkeypatch.setattr(experiment, "build_and_tell", ask)
    config = compose("preset=miniature", f"runtime.home={tmp_path / 'home'}")
    HERE.ended.clear()
    with pytest.raises(Later, match="690 questions"):
        experiment.run(config.model_copy(update={"tracker": Listening()}), "name: left\n", Origin(preset="miniature"))
    assert HERE.ended == ["leave"]
